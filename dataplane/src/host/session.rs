// SPDX-License-Identifier: MIT OR Apache-2.0
//! One host session: what it is, what it holds, what state it is in.
//!
//! ```text
//! Serving --DISC, shutdown, violation--> Finishing --all answered and sent--> Lingering --EOF or time--> Gone
//!    \----------EOF, reset, stalled----------------------------------------------------------------------^
//! ```
//!
//! A session leaves the table when it is Gone, no operation is armed on it and every
//! request it had is answered, so that its slot (and its name) cannot be taken over by
//! another while something still refers to it.

use nbd::RequestHeader;
use nbd::server::{ExportLimits, SessionMode};
use program::{Nanos, SessionClaim, SessionStatus};
use ring::{Expect, Fd};

use crate::budget;
use crate::gate::Claimed;
use crate::host::inbox::Inbox;
use crate::node::SessionTicket;
use crate::outbox::Outbox;
use crate::slab::Key;

/// State of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Requests are read.
    Serving,
    /// Nothing more is read; what was accepted is answered.
    Finishing,
    /// Everything is sent and our half is closed; waits for the host to close, so that
    /// unread bytes of its do not turn into a reset that destroys our last replies.
    Lingering,
    /// The connection is closed.
    Gone,
}

/// A request that does not fit now.
pub(crate) struct Paused {
    /// Not accepted yet.
    pub(crate) header: RequestHeader,
    pub(crate) why: budget::Wait,
}

/// A request that is refused once its payload is skipped.
#[derive(Clone, Copy)]
pub(crate) struct Refused {
    pub(crate) cookie: u64,
    pub(crate) offset: u64,
    pub(crate) refusal: nbd::server::Refusal,
}

/// See the module header.
pub(crate) struct Session {
    /// `None` once closed.
    pub(crate) fd: Option<Fd>,
    pub(crate) peer: String,
    pub(crate) device: Key,
    pub(crate) limits: ExportLimits,
    pub(crate) mode: SessionMode,
    pub(crate) phase: Phase,
    pub(crate) inbox: Inbox,
    pub(crate) outbox: Outbox,
    /// Accepted or refused, and the reply not yet sent.
    pub(crate) in_flight: u32,
    /// Of these, with the engine.
    pub(crate) unanswered: u32,
    /// What they count for.
    pub(crate) held_bytes: usize,
    pub(crate) paused: Option<Paused>,
    /// The last receive left bytes behind.
    pub(crate) expect: Expect,
    /// A receive is armed.
    pub(crate) receiving: bool,
    /// On the list of connections with something to send.
    pub(crate) dirty: bool,
    pub(crate) refused: Option<Refused>,
    /// The engine was told that the session has ended.
    pub(crate) closed: bool,
    /// The host took a byte, or nothing waits for it.
    pub(crate) progress_at: Nanos,
    /// When anything came from the host.
    pub(crate) heard_at: Nanos,
    /// What it was admitted with, at a gate.
    pub(crate) claim: Option<Claimed>,
    /// When the payload that is being received began.
    pub(crate) payload_since: Nanos,
    /// When a Lingering session is closed.
    pub(crate) linger_until: Nanos,
    pub(crate) _ticket: SessionTicket,
}

impl Session {
    /// Nothing of it is anywhere else any more.
    pub(crate) fn is_over(&self) -> bool {
        self.phase == Phase::Gone && self.unanswered == 0 && !self.receiving && !self.outbox.is_sending()
    }

    /// A gate has ended it: nothing more of it is executed or answered.
    pub(crate) fn is_ended(&self) -> bool {
        self.claim.as_ref().is_some_and(|claim| claim.ended.is_some())
    }

    pub(crate) fn status(&self) -> SessionStatus {
        let claim = self.claim.as_ref().map(|claim| SessionClaim {
            member: claim.member.clone(),
            epoch: claim.epoch,
            ended: claim.ended.is_some(),
        });
        SessionStatus { peer: self.peer.clone(), in_flight: self.in_flight, claim }
    }

    /// Everything accepted is answered and sent.
    pub(crate) fn is_finished(&self) -> bool {
        self.in_flight == 0 && self.outbox.is_empty()
    }
}
