// SPDX-License-Identifier: MIT OR Apache-2.0
//! Does a server answer past a FLUSH?
//!
//! Many storage servers do one request of a connection at a time. What is sent behind a FLUSH then
//! waits as long as the FLUSH takes, a tenth of a second on a disk, while the other paths have
//! nothing to do. Others answer out of order, and keeping away from them would only waste a path:
//! a database always has a FLUSH under way. Nothing in the handshake tells one from the other
//! (NBD spec, "Ordering of messages and writes": a server may, none must), so each lane learns it.
//!
//! | what was seen on the lane | requests behind a FLUSH | the FLUSH as load, for the selector |
//! |---|---|---|
//! | nothing yet | [`BEHIND_MAX`], more only where no other path has room | none: else nothing would be learnt |
//! | a FLUSH answered before what was sent behind it | the same | one request: the next one waits for it |
//! | something answered before the FLUSH ahead of it, ever | any number | none: it would look busy for ever |
//!
//! Only FLUSHes that stand alone are left out of the load. One that ends an emulated FUA is the slow half of a
//! write of this path, and nothing else tells how many of them wait.

/// So many requests try whether the server answers past a FLUSH.
const BEHIND_MAX: u32 = 4;

/// See the module header.
#[derive(Debug, Default)]
pub(crate) struct BehindFlush {
    /// FLUSHes in flight.
    flushes: u32,
    /// Of these, those that no write of this lane waits for.
    alone: u32,
    /// Where the frame of the newest one ends in what was queued on the lane.
    newest_end: u64,
    /// Requests sent behind it.
    sent: u32,
    /// Something was answered before a FLUSH that was sent before it.
    overtakes: bool,
    /// A FLUSH was answered before all that was sent behind it.
    kept_order: bool,
}

impl BehindFlush {
    /// A FLUSH was queued whose frame ends there. `alone`: not the end of an emulated FUA.
    pub(crate) fn on_flush(&mut self, frame_end: u64, alone: bool) {
        self.flushes += 1;
        self.alone += u32::from(alone);
        self.newest_end = frame_end;
        self.sent = 0;
    }

    /// Another request was queued.
    pub(crate) fn on_request(&mut self) {
        if self.flushes > 0 {
            self.sent += 1;
        }
    }

    /// The same FLUSH was answered, or is waited for no more.
    pub(crate) fn on_flush_settled(&mut self, frame_end: u64, alone: bool) {
        self.flushes -= 1;
        self.alone -= u32::from(alone);
        self.kept_order |= frame_end == self.newest_end && self.sent > 0;
    }

    /// Another request was answered, or is waited for no more.
    pub(crate) fn on_settled(&mut self, frame_end: u64) {
        self.overtakes |= self.flushes > 0 && frame_end > self.newest_end;
    }

    /// What is sent now likely waits for a FLUSH.
    pub(crate) fn waits(&self) -> bool {
        self.flushes > 0 && !self.overtakes && self.sent >= BEHIND_MAX
    }

    /// FLUSHes in flight that are no load.
    pub(crate) fn weightless(&self) -> u32 {
        if self.kept_order && !self.overtakes { 0 } else { self.alone }
    }
}
