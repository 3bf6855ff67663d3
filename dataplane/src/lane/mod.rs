// SPDX-License-Identifier: MIT OR Apache-2.0
//! Lanes: connections of paths, and local storage that behaves like one.
//!
//! ```text
//! OpenLane -> name or file is looked up -> connect -> handshake -> LaneOpened -> requests ...
//!    any fault, CloseLane ------------------------------------------------------> Ending -> LaneDown
//! ```
//!
//! An ending lane is reported down when its last operation has ended: only then is the
//! count of sent bytes final. It does not take long, because its socket is reset first.

mod claim;
mod close;
mod connect;
mod handshake;
pub(crate) mod inbox;
mod input;
mod landing;
pub(crate) mod local;
mod memory;
mod open;
mod output;
pub(crate) mod pending;

pub(crate) use output::Frame;

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use engine::{LaneFault, LaneId};
use nbd::ReplyMode;
use nbd::client::Handshake;
use program::Nanos;
use ring::file::Memory;
use ring::{Expect, Fd};

use crate::lane::claim::LaneClaim;
use crate::lane::inbox::Inbox;
use crate::lane::pending::Table;
use crate::outbox::Outbox;
use crate::slab::Key;

/// How far a lane is.
pub(crate) enum Stage {
    /// A helper thread looks up the name or opens the file.
    Preparing,
    Connecting,
    Handshake(Box<Handshake>),
    /// Requests and replies.
    Ready,
    /// DISC is queued or sent, our half is or will be closed; waits for EOF.
    Disconnecting {
        /// The EOF proves what was sent to be finished.
        proof: bool,
        /// All that is queued is sent first; else the rest of a frame that was cut never is.
        orderly: bool,
    },
    /// Down; waits for its operations to end.
    Ending(LaneFault),
}

/// Local storage behind a lane.
pub(crate) enum Local {
    /// A file or block device.
    File(LocalFile),
    /// Memory of this process.
    Memory(Memory),
}

/// An open file or block device.
pub(crate) struct LocalFile {
    pub(crate) fd: Fd,
    /// For helper threads.
    pub(crate) for_jobs: OwnedFd,
    /// Holes cannot be punched; what must read as zeroes is written.
    pub(crate) no_holes: bool,
}

/// One lane.
pub(crate) struct Lane {
    pub(crate) device: Key,
    pub(crate) id: LaneId,
    pub(crate) stage: Stage,
    pub(crate) fd: Option<Fd>,
    /// An earlier lane whose session a gate is to finish.
    pub(crate) kill: Option<LaneId>,
    /// What it has claimed at a gate, until GO is answered.
    pub(crate) claim: Option<Box<LaneClaim>>,
    /// The server said that it is a Holdfast (rule W19).
    pub(crate) node: bool,
    /// What the server says of the way to it.
    pub(crate) access: program::AccessState,
    /// Further addresses of its name, last first.
    pub(crate) addresses: Vec<SocketAddr>,
    /// Cleared when the lane goes: what a helper thread has not begun is not done.
    pub(crate) wanted: Arc<AtomicBool>,
    pub(crate) local: Option<Local>,
    /// A TCP socket, which can be asked for its state.
    pub(crate) tcp: bool,
    pub(crate) mode: ReplyMode,
    /// Id of `base:allocation` with this server.
    pub(crate) context_id: Option<u32>,
    pub(crate) inbox: Inbox,
    pub(crate) outbox: Outbox,
    pub(crate) pending: Table,
    /// All bytes the kernel took, handshake included.
    pub(crate) taken_bytes: u64,
    /// Of these, before the transmission phase.
    pub(crate) handshake_bytes: u64,
    /// Frames of requests laid out so far, in bytes.
    pub(crate) queued_bytes: u64,
    /// Nothing more is sent; what was not begun is dropped.
    pub(crate) quiet: bool,
    /// Our half is closed.
    pub(crate) half_closed: bool,
    pub(crate) receiving: bool,
    /// The last receive left bytes behind.
    pub(crate) expect: Expect,
    pub(crate) connecting: bool,
    /// File operations and jobs under way.
    pub(crate) working: u32,
    pub(crate) dirty: bool,
    /// When the present stage has had its time.
    pub(crate) deadline: Option<Nanos>,
}

impl Lane {
    /// Bytes of the transmission phase the kernel accepted; a DISC does not count.
    pub(crate) fn sent_bytes(&self) -> u64 {
        self.taken_bytes.saturating_sub(self.handshake_bytes).min(self.queued_bytes)
    }

    /// An operation that refers to it is under way.
    pub(crate) fn is_busy(&self) -> bool {
        self.receiving || self.connecting || self.working > 0 || self.outbox.is_sending()
    }

    /// The file behind a lane that has one.
    pub(crate) fn file(&mut self) -> &mut LocalFile {
        match &mut self.local {
            Some(Local::File(file)) => file,
            Some(Local::Memory(_)) | None => panic!("a file operation on a lane without a file"),
        }
    }

    pub(crate) fn is_ending(&self) -> bool {
        matches!(self.stage, Stage::Ending(_))
    }
}
