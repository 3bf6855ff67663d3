// SPDX-License-Identifier: MIT OR Apache-2.0
//! Does a server answer past a FLUSH?
//!
//! Many storage servers do one request of a connection at a time. What is sent behind a FLUSH then
//! waits as long as the FLUSH takes, a tenth of a second on a disk, while the other paths have
//! nothing to do. Others answer out of order, and keeping away from them would only waste a path:
//! a database always has a FLUSH under way. Nothing in the handshake tells one from the other
//! (NBD spec, "Ordering of messages and writes": a server may, none must), so each lane learns it.
//!
//! | since the newest FLUSH under way | the lane |
//! |---|---|
//! | fewer than [`BEHIND_MAX`] requests were sent | takes more |
//! | that many, and none of them was answered before it | takes more only where no other path does |
//! | one was, ever | takes more, from then on |

/// So many requests try whether the server answers past a FLUSH.
const BEHIND_MAX: u32 = 4;

/// See the module header.
#[derive(Debug, Default)]
pub(crate) struct BehindFlush {
    /// FLUSHes in flight.
    pub(crate) flushes: u32,
    /// Where the frame of the newest one ends in what was queued on the lane.
    newest_end: u64,
    /// Requests sent behind it.
    sent: u32,
    /// Something was answered before a FLUSH that was sent before it.
    overtakes: bool,
}

impl BehindFlush {
    /// A FLUSH was queued whose frame ends there.
    pub(crate) fn on_flush(&mut self, frame_end: u64) {
        self.flushes += 1;
        self.newest_end = frame_end;
        self.sent = 0;
    }

    /// Another request was queued.
    pub(crate) fn on_request(&mut self) {
        if self.flushes > 0 {
            self.sent += 1;
        }
    }

    /// A request was answered, or is waited for no more.
    pub(crate) fn on_settled(&mut self, flush: bool, frame_end: u64) {
        if flush {
            self.flushes -= 1;
        } else if self.flushes > 0 && frame_end > self.newest_end {
            self.overtakes = true;
        }
    }

    /// What is sent now likely waits for a FLUSH.
    pub(crate) fn waits(&self) -> bool {
        self.flushes > 0 && !self.overtakes && self.sent >= BEHIND_MAX
    }
}
