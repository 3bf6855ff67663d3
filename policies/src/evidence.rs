// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a sign of trouble is a sign of.
//!
//! **Model.** A driver sees events of sockets and clocks; this turns each into a [`Fault`]
//! with its coordinates, or into "nothing is wrong". It is the only place that knows what an
//! event looks like; what is then done is one table ([`crate::faults`]).
//!
//! **No answer has four causes**, and a timer alone cannot separate them (rule W16):
//!
//! | TCP says | canary on the lane | request age | fault |
//! |---|---|---|---|
//! | link silent | any | any | silent, link |
//! | window closed, twice | any | any | silent, server: its process does not read |
//! | ACKs come | unanswered past its deadline | any | deadline passed, server: stopped or stuck, its kernel lives |
//! | ACKs come | answered | past its deadline | deadline passed, device: this request is slow, the lane is not |
//! | ACKs come | not sent, or still young | past its deadline | deadline passed, path |
//! | ACKs come | answered, or still young | young | nothing |
//!
//! A stopped server whose receive buffer has room still acknowledges: so a closed window
//! proves the stop, and its absence proves nothing; the canary decides then. A closed window
//! must be seen twice, since a healthy lane shows one for a moment under load.
//!
//! An answered canary also bounds what age may do on a path that is itself a proxy (rule
//! W19): a request that is *held* over there is not the path's fault.

use crate::Nanos;
use crate::faults::{Fault, FaultClass, Scope, classify_errno};
use crate::silence::{Silence, TcpEvidence, judge};

/// How the last canary on a lane fared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CanaryState {
    /// None is out, and none was answered since the oldest request was sent.
    NotAsked,
    /// Out for less than its deadline.
    Young,
    /// Out for longer than its deadline.
    Overdue,
    /// Answered, and later than the oldest request was sent.
    Answered,
}

/// A lane with requests out and no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unanswered {
    /// What the kernel says; `None` for local storage and Unix sockets, which have no link.
    pub tcp: Option<TcpEvidence>,
    /// The sample before showed a closed window, too.
    pub window_was_closed: bool,
    /// How its canary fares.
    pub canary: CanaryState,
    /// Age of the oldest request, nanoseconds since its sending.
    pub oldest_age: Nanos,
    /// Age at which it is moved ([`crate::request_deadline`]).
    pub deadline: Nanos,
}

/// Something that happened on a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// An established connection was reset or closed by the peer, or given up by our kernel.
    ConnectionLost,
    /// The connection attempt was refused, or the handshake was turned down.
    ConnectRefused,
    /// No route, no address, or no answer to the connection attempt or the handshake.
    ConnectTimedOut,
    /// An error reply with this number, as it was on the wire.
    ErrorReply(u32),
    /// A frame that cannot be right: wrong magic, unknown cookie, impossible length.
    BrokenFrame,
    /// Size, block limits or content are not those of the device.
    WrongIdentity,
    /// Requests are out and nothing comes.
    Unanswered(Unanswered),
}

/// The fault that a sign shows; `None` if it shows none.
pub fn characterise(sign: &Sign) -> Option<Fault> {
    let class = match *sign {
        Sign::Unanswered(ref unanswered) => return characterise_silence(unanswered),
        Sign::ConnectionLost => FaultClass::TransportReset,
        Sign::ConnectRefused => FaultClass::Refused,
        Sign::ConnectTimedOut => FaultClass::Unreachable,
        Sign::ErrorReply(wire) => classify_errno(wire),
        Sign::BrokenFrame => FaultClass::ProtocolViolation,
        Sign::WrongIdentity => FaultClass::IdentityChange,
    };
    Some(Fault::first_sight(class))
}

fn characterise_silence(unanswered: &Unanswered) -> Option<Fault> {
    let fault = |class, scope| Some(Fault { scope, ..Fault::first_sight(class) });
    match unanswered.tcp.as_ref().map(judge) {
        Some(Silence::LinkSilent) => return fault(FaultClass::Silent, Scope::Link),
        Some(Silence::WindowClosed) if unanswered.window_was_closed => {
            return fault(FaultClass::Silent, Scope::Server);
        }
        _ => {}
    }
    let late = unanswered.oldest_age >= unanswered.deadline;
    match unanswered.canary {
        CanaryState::Overdue => fault(FaultClass::DeadlinePassed, Scope::Server),
        CanaryState::Answered if late => fault(FaultClass::DeadlinePassed, Scope::Device),
        CanaryState::NotAsked | CanaryState::Young if late => fault(FaultClass::DeadlinePassed, Scope::Path),
        CanaryState::NotAsked | CanaryState::Young | CanaryState::Answered => None,
    }
}
