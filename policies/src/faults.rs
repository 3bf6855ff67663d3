// SPDX-License-Identifier: MIT OR Apache-2.0
//! What each fault means and what is done: the tables of design section 3.5.
//!
//! **Model.** Every sign of trouble is first given a class ([`crate::evidence`] reads the
//! signs), and with it two more coordinates: whether it passes by itself, and how far it
//! reaches. Class x persistence x scope alone decide what happens to the lane, the path and
//! the request. Code elsewhere never looks at an error number or a socket error to decide: it
//! characterises and asks [`act`].
//!
//! **First sight, then more.** One sign shows the class; what it says of persistence and
//! scope is a first guess ([`Fault::first_sight`]). Further signs move the fault in the table:
//! [`Fault::seen_on`] widens or narrows its scope by what the other paths show,
//! [`Fault::repeated`] makes it persistent. So an EIO begins as the storage's (asked once
//! elsewhere), becomes the path's when another path answered well, and the storage's for good
//! when it answered the same.
//!
//! | decided by | what |
//! |---|---|
//! | class | the lane: what is wrong with a connection does not depend on how far it reaches |
//! | class, persistence, scope | the path: whom to blame, and how hard |
//! | class; for EIO also persistence and scope | the request |
//!
//! The guiding rule is that one error that reaches a host can cost it the filesystem, so
//! an error nobody knows means "try elsewhere" and never reaches a host as such. What the
//! storage definitely says about the *request* (rule W7) is an answer and goes to the host;
//! asking another path would get the same.
//!
//! **Nobody is blamed for what all share.** At scope device no path is demoted or held out:
//! there is no better one, and taking paths away from slow or failing storage makes an
//! outage of it. A member is never judged here but reported: roles are not the data path's.
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
    /// No: someone has to change something, or it came back too often. Attempts go on all
    /// the same.
    Persistent,
}

impl Persistence {
    /// Both, for tables and tests.
    pub const ALL: [Self; 2] = [Self::Transient, Self::Persistent];
}

/// How far the fault is taken to reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// The network between us and the server, over one portal.
    Link,
    /// This path.
    Path,
    /// The storage server: all paths that lead to it.
    Server,
    /// A Holdfast member. No sign of a path shows this alone; the control plane concludes it.
    Member,
    /// The storage behind all paths, or whatever all of them share. No path is blamed.
    Device,
}

impl Scope {
    /// Every scope, from near to far.
    pub const ALL: [Self; 5] = [Self::Link, Self::Path, Self::Server, Self::Member, Self::Device];
}

/// A fault with its three coordinates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fault {
    /// What kind of trouble.
    pub class: FaultClass,
    /// Whether it passes.
    pub persistence: Persistence,
    /// How far it reaches.
    pub scope: Scope,
}

/// What the paths of a device show of one fault: counts of paths with a connection attempt
/// or request lately, the one that showed the fault first included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spread {
    /// Paths to the same server.
    pub server_paths: u32,
    /// Of them, those that show the fault.
    pub server_faulty: u32,
    /// Paths of the device.
    pub device_paths: u32,
    /// Of them, those that show the fault.
    pub device_faulty: u32,
}

impl Fault {
    /// What one sign of this class is taken for, with nothing else known.
    pub const fn first_sight(class: FaultClass) -> Self {
        use Persistence::{Persistent, Transient};
        use Scope::{Device, Link, Path, Server};
        let (persistence, scope) = match class {
            FaultClass::TransportReset | FaultClass::Slow => (Transient, Path),
            FaultClass::Refused
            | FaultClass::DeadlinePassed
            | FaultClass::ProtocolViolation
            | FaultClass::Overload => (Transient, Server),
            FaultClass::Unreachable | FaultClass::Silent => (Transient, Link),
            FaultClass::StorageError => (Transient, Device),
            FaultClass::Capacity | FaultClass::RequestError => (Persistent, Device),
            FaultClass::IdentityChange => (Persistent, Path),
        };
        Self { class, persistence, scope }
    }

    /// The same fault when it came back more often than the rule of its class allows (failure
    /// limit, strikes, slow windows), or was confirmed.
    #[must_use]
    pub const fn repeated(self) -> Self {
        Self { persistence: Persistence::Persistent, ..self }
    }

    /// The scope that the other paths prove: all of two or more paths of the device show it,
    /// the device; all of two or more of the server while another server's path is well, the
    /// server; a sibling to the same server is well, this path alone.
    ///
    /// Answers ([`FaultClass::Capacity`], [`FaultClass::RequestError`]) and a changed identity
    /// keep their scope: they are about the request, or about where the path leads.
    #[must_use]
    pub const fn seen_on(self, spread: Spread) -> Self {
        let Spread { server_paths, server_faulty, device_paths, device_faulty } = spread;
        let fixed = matches!(
            self.class,
            FaultClass::Capacity | FaultClass::RequestError | FaultClass::IdentityChange
        );
        let scope = if fixed || matches!(self.scope, Scope::Member) {
            self.scope
        } else if device_paths > 1 && device_faulty >= device_paths {
            Scope::Device
        } else if server_paths > 1 && server_faulty >= server_paths {
            Scope::Server
        } else if server_paths > server_faulty && matches!(self.scope, Scope::Server | Scope::Device) {
            Scope::Path
        } else if device_paths > device_faulty && matches!(self.scope, Scope::Device) {
            Scope::Server
        } else {
            self.scope
        };
        Self { scope, ..self }
    }
}

/// What happens to the lane that showed the fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LaneAction {
    /// Nothing: it goes on being used.
    Keep,
    /// Issue nothing more on it, but keep it open: a late reply on it is the only proof
    /// that its writes are finished (rule W1, a zombie candidate).
    SuspectKeepOpen,
    /// Close it and connect anew, with back-off. It is latched: never used again.
    Replace,
    /// Close it; the path is refused with its reason until its identity is right again.
    Refuse,
}

/// What happens to the path, or to whoever else is to blame. None of these takes the last
/// usable path away ([`crate::standing`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PathAction {
    /// Nothing.
    Keep,
    /// Nothing new on it while a sibling is usable.
    Suspect,
    /// The same for every path to its server.
    SuspectServer,
    /// Connect through the next portal at once; the path has failed when all were tried
    /// ([`crate::portal`]).
    NextPortal,
    /// Out until connected and proven again; counts as a failure.
    Reconnect,
    /// Out, connected, until canaries are good again ([`crate::probation`]).
    Canaries,
    /// Out for the hold-out time of [`crate::failure_limit`].
    HoldOut,
    /// Used only while no path in good standing is usable ([`crate::slow`], [`crate::marginal`]).
    Demote,
    /// Out until it leads to the right data.
    Refuse,
    /// Told to the control plane, which judges members.
    Report,
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
    /// For the path.
    pub path: PathAction,
    /// For the requests concerned.
    pub request: RequestAction,
    /// An operator is told: it does not go away by itself.
    pub alarm: bool,
    /// Name of the rule, for status, events and `explain`.
    pub rule: &'static str,
}

/// The one table: class x persistence x scope to action. Total: every cell has an answer.
pub const fn act(fault: Fault) -> Verdict {
    let Fault { class, persistence, scope } = fault;
    let (lane, rule) = lane_action(class);
    let alarm = matches!(persistence, Persistence::Persistent) && !matches!(class, FaultClass::RequestError);
    Verdict {
        scope,
        persistence,
        lane,
        path: path_action(fault),
        request: request_action(fault),
        alarm,
        rule,
    }
}

/// [`act`] for a single sign of this class.
pub const fn verdict(class: FaultClass) -> Verdict {
    act(Fault::first_sight(class))
}

const fn lane_action(class: FaultClass) -> (LaneAction, &'static str) {
    use LaneAction::{Keep, Refuse, Replace, SuspectKeepOpen};
    match class {
        FaultClass::TransportReset => (Replace, "transport-reset"),
        FaultClass::Refused => (Replace, "refused"),
        FaultClass::Unreachable => (Replace, "unreachable"),
        FaultClass::Silent => (SuspectKeepOpen, "silent"),
        FaultClass::DeadlinePassed => (Keep, "deadline-passed"),
        FaultClass::ProtocolViolation => (Replace, "protocol-violation"),
        FaultClass::StorageError => (Keep, "storage-error"),
        FaultClass::Capacity => (Keep, "capacity"),
        FaultClass::RequestError => (Keep, "request-error"),
        FaultClass::IdentityChange => (Refuse, "identity-change"),
        FaultClass::Overload => (Keep, "overload"),
        FaultClass::Slow => (Keep, "slow"),
    }
}

const fn path_action(Fault { class, persistence, scope }: Fault) -> PathAction {
    use PathAction::{
        Canaries, Demote, HoldOut, Keep, NextPortal, Reconnect, Refuse, Report, Suspect, SuspectServer,
    };
    use Persistence::{Persistent, Transient};
    use Scope::{Device, Link, Member, Path, Server};
    match (class, persistence, scope) {
        // Answers and back-pressure blame nobody.
        (FaultClass::Capacity | FaultClass::RequestError | FaultClass::Overload, _, _) => Keep,
        // Never serve from a path that may lead to other data, whoever is to blame.
        (FaultClass::IdentityChange, _, _) => Refuse,
        (_, _, Member) => Report,
        (
            FaultClass::TransportReset
            | FaultClass::Refused
            | FaultClass::Unreachable
            | FaultClass::ProtocolViolation,
            persistence,
            scope,
        ) => match (persistence, scope) {
            (Transient, Link) => NextPortal,
            (Persistent, Link | Path | Server) => HoldOut,
            // With all paths alike, holding out would only keep the device away longer.
            _ => Reconnect,
        },
        (FaultClass::Silent, Transient, Link) => NextPortal,
        (FaultClass::Silent, Transient, Path) | (FaultClass::DeadlinePassed, Transient, Link | Path) => {
            Suspect
        }
        (FaultClass::Silent | FaultClass::DeadlinePassed, Transient, Server) => SuspectServer,
        (FaultClass::Silent, Persistent, Link | Path | Server) => HoldOut,
        (FaultClass::DeadlinePassed | FaultClass::Slow, Persistent, Link | Path | Server) => Demote,
        (FaultClass::StorageError, Persistent, Link | Path | Server) => Canaries,
        // A first slow window, a first EIO, and whatever all paths share.
        (FaultClass::Slow | FaultClass::StorageError, Transient, _) | (_, _, Device) => Keep,
    }
}

const fn request_action(Fault { class, persistence, scope }: Fault) -> RequestAction {
    use RequestAction::{RetryElsewhere, RetryElsewhereOnce, ToHost, Wait};
    match (class, persistence, scope) {
        (FaultClass::Capacity | FaultClass::RequestError, _, _)
        // Two paths said the same (rules W7, W14).
        | (FaultClass::StorageError, Persistence::Persistent, Scope::Device) => ToHost,
        (FaultClass::StorageError, Persistence::Transient, Scope::Device) => RetryElsewhereOnce,
        (FaultClass::Overload | FaultClass::Slow, _, _) => Wait,
        _ => RetryElsewhere,
    }
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
