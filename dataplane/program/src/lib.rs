// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the planes exchange: the program goes down, reports and status come up.
//!
//! The control plane turns configuration into a [`Program`], an immutable value
//! that says everything the data plane needs to know: devices, paths, ranks,
//! times. The data plane never reads a file or asks back; it answers with
//! [`Report`]s (what changed, by which rule) and [`DeviceStatus`] (a snapshot).
//! Both sides depend on this crate and not on each other, so a change of the
//! engine does not rebuild the web stack and the other way round.
//!
//! Plain data only: no behaviour beyond small look-ups, no I/O, no clock.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod command;
mod decision;
mod device;
mod fence;
mod node;
mod path;
mod report;
mod status;

pub use command::{ControlCommand, DeviceCommand, PathCommand};
pub use decision::{Comparison, Decision, DeviceExplanation, Figure, FigureUnit, PathExplanation, Refused};
pub use device::{
    AccessPolicy, CanaryTimes, Coherence, Deadlines, DeviceProgram, Exclusive, Failback, Geometry, Groups,
    HostSessions, NoPath, Recorded, SelectorKind, Unproven, Writers,
};
pub use fence::{CacheLife, FenceProgram, GateKey, RegisterPlace};
pub use node::{Exports, Listener, NodeProgram, Program, REACTOR_MEMORY_BYTES_MIN, SocketAddress};
pub use path::{AccessState, PathProgram, Portal, Target};
pub use report::{Report, ReportKind};
pub use status::{
    Access, BudgetCause, BudgetStatus, DeviceState, DeviceStatus, Fence, HedgeStatus, PathState, PathStatus,
    SessionClaim, SessionStatus,
};

/// Nanoseconds of `CLOCK_BOOTTIME`, less the pauses of our own process (rule W17).
///
/// A plain number and not `std::time::Instant`: traces can be stored and
/// replayed, and the clock goes on in suspend (rule L3).
pub type Nanos = u64;

/// One millisecond in [`Nanos`].
pub const MILLISECOND: Nanos = 1_000_000;
/// One second in [`Nanos`].
pub const SECOND: Nanos = 1_000_000_000;
