// SPDX-License-Identifier: MIT OR Apache-2.0
//! What each kind of fault means and what is done: the two tables of design section 3.5.
//!
//! **Model.** Every sign of trouble is first given a class; the class alone decides what
//! happens to the lane and to the request. Code elsewhere never looks at an error number
//! or a socket error to decide: it classifies and asks [`verdict`].
//!
//! The guiding rule is that one error that reaches a host can cost it the filesystem, so
//! an error nobody knows means "try elsewhere" and never reaches a host as such. What the
//! storage definitely says about the *request* (rule W7) is an answer and goes to the host;
//! asking another path would get the same.
//!
//! The NBD protocol lets a client treat unknown numbers as EINVAL. That is right for a
//! client and wrong here: EINVAL goes to the host, an unknown error is retried. So
//! [`classify_errno`] takes the number as it was on the wire.

const EPERM: u32 = 1;
const EIO: u32 = 5;
const EINVAL: u32 = 22;
const EFBIG: u32 = 27;
const ENOSPC: u32 = 28;
const EOVERFLOW: u32 = 75;
const ENOTSUP: u32 = 95;
const ESHUTDOWN: u32 = 108;
const EDQUOT: u32 = 122;

/// What kind of trouble it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FaultClass {
    /// The connection was reset or closed by the peer, or given up by our kernel.
    TransportReset,
    /// Nothing listens, or the server turns us away or is going away (ESHUTDOWN).
    Refused,
    /// No route, an unresolvable name, connect or handshake timed out.
    Unreachable,
    /// Bytes are out and no ACK comes, or the peer stopped reading (rule W16).
    Silent,
    /// A request is older than its deadline while the lane lives (rule W15).
    DeadlinePassed,
    /// The peer broke the protocol; its connection is latched failed.
    ProtocolViolation,
    /// The storage answered EIO, or an error that nobody knows.
    StorageError,
    /// The storage is full.
    Capacity,
    /// The storage says that the request itself is wrong or not allowed.
    RequestError,
    /// The path leads to other data than it did, or than its siblings.
    IdentityChange,
    /// More is asked than can be served; progress is made.
    Overload,
    /// Slow against its siblings; progress is made.
    Slow,
}

impl FaultClass {
    /// Every class, for tables and tests.
    pub const ALL: [Self; 12] = [
        Self::TransportReset,
        Self::Refused,
        Self::Unreachable,
        Self::Silent,
        Self::DeadlinePassed,
        Self::ProtocolViolation,
        Self::StorageError,
        Self::Capacity,
        Self::RequestError,
        Self::IdentityChange,
        Self::Overload,
        Self::Slow,
    ];
}

/// Whether it is expected to go away by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Persistence {
    /// Yes: try again with back-off and expect success.
    Transient,
    /// No: someone has to change something. Attempts go on all the same.
    Persistent,
}

/// How far the fault is taken to reach, from this one sign alone. Several signs
/// together may show more (every path of a server silent: the server).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// The network between us and the server.
    Link,
    /// This path.
    Path,
    /// The storage server.
    Server,
    /// A Holdfast member. No single sign of a path shows this; the control plane concludes it.
    Member,
    /// The storage behind all paths. No path is blamed.
    Device,
}

/// What happens to the lane that showed the fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LaneAction {
    /// Nothing: it goes on being used.
    Keep,
    /// Issue nothing more on it, but keep it open: a late reply on it is the only proof
    /// that its writes are finished (rule W1, a zombie candidate).
    SuspectKeepOpen,
    /// Close it and connect anew, with back-off.
    Replace,
    /// Close it; the path is refused with its reason until its identity is right again.
    Refuse,
}

/// What happens to the requests concerned. Writes move only by rules W3 to W5.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RequestAction {
    /// Send it on another path, as often as it takes.
    RetryElsewhere,
    /// Try one other path; the same answer there is believed.
    RetryElsewhereOnce,
    /// It has its answer: give it to the host ([`host_errno`]).
    ToHost,
    /// Leave it where it is.
    Wait,
}

/// What to do about a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// How far it reaches.
    pub scope: Scope,
    /// Whether it passes.
    pub persistence: Persistence,
    /// For the lane.
    pub lane: LaneAction,
    /// For the requests concerned.
    pub request: RequestAction,
    /// Name of the rule, for status, events and `explain`.
    pub rule: &'static str,
}

/// The one table from class to action.
pub const fn verdict(class: FaultClass) -> Verdict {
    use LaneAction::{Keep, Refuse, Replace, SuspectKeepOpen};
    use Persistence::{Persistent, Transient};
    use RequestAction::{RetryElsewhere, RetryElsewhereOnce, ToHost, Wait};
    use Scope::{Device, Link, Path, Server};
    let (scope, persistence, lane, request, rule) = match class {
        FaultClass::TransportReset => (Path, Transient, Replace, RetryElsewhere, "transport-reset"),
        FaultClass::Refused => (Server, Transient, Replace, RetryElsewhere, "refused"),
        FaultClass::Unreachable => (Link, Transient, Replace, RetryElsewhere, "unreachable"),
        FaultClass::Silent => (Link, Transient, SuspectKeepOpen, RetryElsewhere, "silent"),
        FaultClass::DeadlinePassed => (Server, Transient, Keep, RetryElsewhere, "deadline-passed"),
        FaultClass::ProtocolViolation => (Server, Persistent, Replace, RetryElsewhere, "protocol-violation"),
        FaultClass::StorageError => (Device, Persistent, Keep, RetryElsewhereOnce, "storage-error"),
        FaultClass::Capacity => (Device, Persistent, Keep, ToHost, "capacity"),
        FaultClass::RequestError => (Device, Persistent, Keep, ToHost, "request-error"),
        FaultClass::IdentityChange => (Path, Persistent, Refuse, RetryElsewhere, "identity-change"),
        FaultClass::Overload => (Server, Transient, Keep, Wait, "overload"),
        FaultClass::Slow => (Path, Transient, Keep, Wait, "slow"),
    };
    Verdict { scope, persistence, lane, request, rule }
}

/// Class of an error number as it was on the wire of a path.
///
/// ESHUTDOWN is a path-down signal (rule W7). An error reply that carries 0 breaks the
/// protocol. Whatever is not known is a storage error: tried elsewhere, never passed on.
pub const fn classify_errno(wire: u32) -> FaultClass {
    match wire {
        0 => FaultClass::ProtocolViolation,
        EPERM | EINVAL | ENOTSUP | EOVERFLOW => FaultClass::RequestError,
        ENOSPC | EDQUOT | EFBIG => FaultClass::Capacity,
        ESHUTDOWN => FaultClass::Refused,
        _ => FaultClass::StorageError,
    }
}

/// The one table from error to what a host may be told, as an NBD error number.
///
/// Only EPERM, EIO, EINVAL, ENOSPC, EOVERFLOW and ENOTSUP. Never ESHUTDOWN (108: the kernel
/// client turns it into EIO for good) and never ENOMEM (12: our shortage is back-pressure).
pub const fn host_errno(class: FaultClass, wire: u32) -> u32 {
    match class {
        FaultClass::RequestError => match wire {
            EPERM | EINVAL | ENOTSUP | EOVERFLOW => wire,
            _ => EINVAL,
        },
        FaultClass::Capacity => ENOSPC,
        FaultClass::TransportReset
        | FaultClass::Refused
        | FaultClass::Unreachable
        | FaultClass::Silent
        | FaultClass::DeadlinePassed
        | FaultClass::ProtocolViolation
        | FaultClass::StorageError
        | FaultClass::IdentityChange
        | FaultClass::Overload
        | FaultClass::Slow => EIO,
    }
}
