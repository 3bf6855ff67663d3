// SPDX-License-Identifier: MIT OR Apache-2.0
//! A host request and the pieces it is carried out in.
//!
//! ```text
//!            accept                      grant              last piece done
//! (host) ------------> Blocked (range) --------> Active ----------------------> answered
//!            \________________________________/    |
//!              nobody else near                    | writers = many, copy in doubt (W5)
//!                                                  +--> AwaitingProof --> answered
//!
//! piece:   Queued <-----------------+
//!            | send                 | lane lost, EIO, moved
//!            v                      |
//!          InFlight (copies >= 1) --+
//!            | first good reply, or an error that is believed
//!            v
//!          Done   copies = 0: gone
//!                 copies > 0: a write keeps its range quarantined until every
//!                 copy is settled (W4); a read only waits for its late data
//! ```
//!
//! A piece starts as the whole request and is cut lazily when a path that is to
//! carry it takes less (design 3.3). A *copy* is one frame on one lane; a copy
//! whose lane died after the frame had left is a [`crate::doubt::Doubt`] and
//! still counts as a copy.

use nbd::{Command, CommandFlags, Errno};
use program::Nanos;

use crate::retain::Settled;
use crate::slab::Key;
use crate::{BufferId, HostRequest};

/// Paths a request was answered EIO on, as a set; enough for any sane device.
pub(crate) type PathSet = u64;

/// Where a request is. Every accepted request is in exactly one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RequestState {
    /// Waits for an older write on the same range (W8) or a quarantine (W4).
    Blocked,
    /// Its pieces are queued or on lanes.
    Active,
    /// Done, but not to be answered before its copies in doubt are proven (W5).
    AwaitingProof,
    /// A FLUSH that is carried out when a replay has ended (F2).
    AwaitingReplay,
}

/// Who asked for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A host, who is answered.
    Host,
    /// We, to make acknowledged writes durable (F5).
    OwnFlush,
    /// A segment of a replay (F6), by its slot there.
    Replay(Key),
}

/// One accepted host request.
#[derive(Debug)]
pub(crate) struct Request {
    /// As a host would ask for it; the payload of a request of our own is not its to release.
    pub(crate) host: HostRequest,
    pub(crate) origin: Origin,
    /// First byte of the payload that is its own.
    pub(crate) at: u64,
    pub(crate) state: RequestState,
    pub(crate) accepted: Nanos,
    /// Pieces that are not done.
    pub(crate) pieces_open: u32,
    /// First of its pieces, in order of offset.
    pub(crate) first_piece: Option<Key>,
    /// First error that is believed.
    pub(crate) error: Option<Errno>,
    /// Range lock of a write.
    pub(crate) range: Option<Key>,
    /// A piece of it has been on a lane.
    pub(crate) started: bool,
    /// Why it was last moved or had to wait, if a failure did that.
    pub(crate) moved_by: Option<policies::Cause>,
}

/// Whether a piece needs a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PieceState {
    /// In one of the queues.
    Queued,
    /// On at least one lane, nothing to do but wait.
    InFlight,
    /// Answered; only late copies are awaited.
    Done,
}

/// What is special about sending a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Carries out a part of a request on any path.
    Io,
    /// FLUSH of one cache domain (rule F2).
    Flush {
        /// Index of the domain.
        domain: usize,
    },
}

/// One part of a request, sent as one NBD request.
#[derive(Debug)]
pub(crate) struct Piece {
    /// `None` once the request was answered without it (late copies only).
    pub(crate) request: Option<Key>,
    pub(crate) kind: Kind,
    pub(crate) command: Command,
    pub(crate) flags: CommandFlags,
    pub(crate) offset: u64,
    pub(crate) len: u64,
    pub(crate) payload: Option<BufferId>,
    /// First byte of the payload that is this piece's.
    pub(crate) at: u64,
    pub(crate) next: Option<Key>,
    pub(crate) state: PieceState,
    /// In a queue; a done piece may still be there until it is popped.
    pub(crate) queued: bool,
    /// Order in the queues: that of acceptance.
    pub(crate) order: u64,
    /// Frames whose fate is open: on lanes, or in doubt.
    pub(crate) copies: u16,
    /// Data of a READ that has landed.
    pub(crate) landed: Option<BufferId>,
    /// Paths that answered it EIO.
    pub(crate) refused_by: PathSet,
    /// When it may no longer wait for a second opinion on an EIO.
    pub(crate) believe_at: Option<Nanos>,
    /// Quarantine of a done write with copies (W4).
    pub(crate) quarantine: Option<Key>,
    /// It was sent again after a failure.
    pub(crate) resent: bool,
    /// Paths on which it was late while they answered others.
    pub(crate) late_on: PathSet,
    /// It waits its turn among requests that were moved off a lost path.
    pub(crate) paced: bool,
    /// Its quarantine ended without proof while a copy is on a connection that stands (W13).
    pub(crate) ghost: bool,
    /// A copy sent before this turn does not count: an older write may have been executed after it (W13).
    pub(crate) valid_from_turn: u64,
    /// A read with two copies that count (`hedge`).
    pub(crate) hedged: bool,
    /// Bytes of buffers that its second copies may land in.
    pub(crate) hedge_bytes: u64,
    /// A write that was answered well: by which cache.
    pub(crate) settled: Option<Settled>,
}

impl Piece {
    pub(crate) fn is_write_like(&self) -> bool {
        self.command.is_write_like()
    }

    pub(crate) fn end(&self) -> u64 {
        self.offset + self.len
    }
}
