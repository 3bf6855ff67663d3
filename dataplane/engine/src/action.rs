// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the engine asks of the driver.
//!
//! Named *action* and not *command*, because an NBD request has a command too.

use nbd::{Command, CommandFlags, Errno};
use program::ReportKind;

use crate::{BufferId, LaneId, RequestTag, SessionId, TcpSample};

/// One thing to do. The driver takes them in order with
/// [`crate::Engine::next_action`] until there is none.
#[derive(Debug, PartialEq)]
pub enum Action {
    /// Connect and shake hands; ends in `LaneOpened` or `LaneDown`.
    OpenLane {
        /// Name for it.
        lane: LaneId,
        /// Index into the program's paths.
        path: usize,
        /// Index into the path's portals.
        portal: usize,
        /// An earlier lane of this device whose session the gate is to finish first
        /// (semantics 2.4, `kill=`). Where there is no gate it means nothing.
        kill: Option<LaneId>,
    },
    /// End a lane; ends in `LaneDown`.
    CloseLane {
        /// Which.
        lane: LaneId,
        /// How.
        how: Close,
    },
    /// Drop what is queued for this lane and has not begun to leave; keep
    /// reading replies. The rest of a frame that was cut is never sent.
    QuietLane(LaneId),
    /// Send one request.
    Send {
        /// On which lane.
        lane: LaneId,
        /// Unique on this lane; the low 16 bits are below the path's in-flight cap plus 16.
        cookie: u64,
        /// What.
        command: Command,
        /// With which flags.
        flags: CommandFlags,
        /// Byte offset.
        offset: u64,
        /// Length in bytes.
        len: u64,
        /// Payload, or what to do with the data of the reply.
        data: SendData,
    },
    /// Data of the answer that follows, in order; the buffer is now the driver's.
    ReplyData {
        /// For which request.
        tag: RequestTag,
        /// `len` bytes of a READ, or extents.
        buffer: BufferId,
    },
    /// Answer a host request; ends it. Exactly one per accepted request, also
    /// when its session is gone (the driver then drops it).
    Reply {
        /// For which request.
        tag: RequestTag,
        /// Verdict. `Err(Errno::Shutdown)`: the request was not carried out because
        /// we stop; the driver sends nothing and closes the session, so that the
        /// host re-sends it elsewhere. A host never sees ESHUTDOWN (design 3.3).
        result: Result<(), Errno>,
    },
    /// The engine needs these bytes no longer.
    Release(BufferId),
    /// Answer with [`crate::Event::Tcp`].
    SampleTcp(LaneId),
    /// `enable = false`: TCP_USER_TIMEOUT off, this lane is kept for late replies (rule W1).
    UserTimeout {
        /// Which.
        lane: LaneId,
        /// On or off.
        enable: bool,
    },
    /// What hosts may be told of this device from now on.
    Offer(program::Geometry),
    /// Close this host session at a frame boundary.
    CloseSession(SessionId),
    /// Tell the control plane.
    Report(ReportKind),
}

/// How to end a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// Reset at once: nothing of its queue may reach the storage later (rule W1).
    Abort,
    /// DISC, half-close, wait for EOF.
    Disconnect,
    /// The same for a lane with requests in flight whose server finishes them before it
    /// closes (semantics 2.3). There is no time limit: replies go on being delivered, and the EOF
    /// is told as [`crate::LaneFault::Drained`].
    Drain,
}

/// What goes with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendData {
    /// Nothing either way.
    None,
    /// Payload: `len` bytes of the buffer from `at`.
    Buffer {
        /// Which.
        buffer: BufferId,
        /// First byte.
        at: u64,
    },
    /// Payload: `len` zero bytes.
    Zeroes,
    /// The data of the reply lands in a buffer that comes with the `Reply` event.
    Land,
    /// The data of the reply is digested and dropped.
    Digest,
}

/// For tests and traces: evidence as one line.
impl core::fmt::Display for TcpSample {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(
            f,
            "unacked {} segments, not sent {} bytes, last ACK {} ms ago, RTO {} ms",
            self.unacked,
            self.notsent_bytes,
            self.last_ack_ms,
            self.rto_us / 1000
        )
    }
}
