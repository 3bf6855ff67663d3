// SPDX-License-Identifier: MIT OR Apache-2.0
//! A snapshot of a device, as `holdfast status` shows it.

use alloc::string::String;
use alloc::vec::Vec;

use crate::{AccessPolicy, AccessState, Nanos};

/// Snapshot of one device.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceStatus {
    /// Export name.
    pub name: String,
    /// Access policy in force (may be narrower than configured, rule W18).
    pub access: AccessPolicy,
    /// Overall state.
    pub state: DeviceState,
    /// Export size in bytes, 0 while unknown.
    pub size_bytes: u64,
    /// Protection against ghost writes in force.
    pub fence: Fence,
    /// Quarantine time that goes with it.
    pub quiesce: Nanos,
    /// Host sessions.
    pub sessions: Vec<SessionStatus>,
    /// Requests accepted and not answered.
    pub in_flight: u64,
    /// Requests waiting because no path is usable.
    pub held: u64,
    /// Byte ranges quarantined now.
    pub quarantined: u64,
    /// Copies whose quarantine ended without proof and that may still land (rule W13).
    pub ghosts: u64,
    /// Bytes of acknowledged, unflushed writes that are retained (rule F5).
    pub retained_bytes: u64,
    /// Acknowledged writes are being written again after a cache was lost (rule F6).
    pub replaying: bool,
    /// Why FLUSH fails until an operator clears it (rule F9); empty if it does not.
    pub lost_writes: String,
    /// Host requests answered: reads, writes, others, errors.
    pub reads: u64,
    /// Writes, trims and zeroes answered.
    pub writes: u64,
    /// Errors answered to hosts.
    pub errors: u64,
    /// Requests sent again after a failure.
    pub resent: u64,
    /// Second copies of late reads.
    pub hedges: HedgeStatus,
    /// What failures cost its hosts since the device was made.
    pub budget: BudgetStatus,
    /// Paths in configuration order.
    pub paths: Vec<PathStatus>,
}

/// Second copies of late reads, counted since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HedgeStatus {
    /// Sent.
    pub sent: u64,
    /// Of those, answered before the first copy.
    pub won: u64,
    /// Of those, not: the first copy was faster, or the second one failed. What is neither won
    /// nor lost is in flight.
    pub lost: u64,
    /// Not sent although the read was late: no budget, no memory, or every path slow.
    pub refused: u64,
}

/// What failures cost the hosts of a device, by cause.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BudgetStatus {
    /// A request answered later than this after it came is delayed.
    pub bound: Nanos,
    /// Host requests answered, in time or not.
    pub requests: u64,
    /// At most 33: causes beyond 32 share one, rule `other`.
    pub causes: Vec<BudgetCause>,
}

impl BudgetStatus {
    /// All causes together; `worst` is the longest.
    pub fn total(&self) -> BudgetCause {
        self.causes.iter().fold(BudgetCause::default(), |sum, it| BudgetCause {
            path: None,
            rule: "",
            unavailable: sum.unavailable.saturating_add(it.unavailable),
            delayed: sum.delayed.saturating_add(it.delayed),
            excess: sum.excess.saturating_add(it.excess),
            worst: sum.worst.max(it.worst),
        })
    }
}

/// What one cause cost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BudgetCause {
    /// Path to blame; `None`: no single one.
    pub path: Option<String>,
    /// Rule that dealt with it; `storage`: nothing failed, it was slow; `start`: no path yet.
    pub rule: &'static str,
    /// Time in which a request would have had no path to go to.
    pub unavailable: Nanos,
    /// Requests answered later than the bound.
    pub delayed: u64,
    /// Sum of their waits beyond the bound.
    pub excess: Nanos,
    /// The longest wait of one.
    pub worst: Nanos,
}

/// Overall state of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceState {
    /// Never had a path; geometry unknown.
    Unknown,
    /// Every configured path is usable.
    Optimal,
    /// At least one path is usable, not all.
    Degraded,
    /// After a crash of our own: writes wait for what the old process had in flight (rule W10).
    Recovering,
    /// No path is usable; requests are held.
    Held,
    /// No path is usable; requests fail.
    Failed,
}

impl DeviceState {
    /// The word in `status --json`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Optimal => "optimal",
            Self::Degraded => "degraded",
            Self::Recovering => "recovering",
            Self::Held => "held",
            Self::Failed => "failed",
        }
    }
}

/// Ghost protection in force (design section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fence {
    /// The storage end enforces epochs.
    Gate,
    /// The server drains before it closes.
    Drain,
    /// Quarantine for `quiesce`, an assumption.
    Assume,
    /// Quarantine until proven, EIO at the hold limit.
    Hold,
}

impl Fence {
    /// The word in `status --json`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gate => "gate",
            Self::Drain => "drain",
            Self::Assume => "assume",
            Self::Hold => "hold",
        }
    }
}

/// Snapshot of one path.
#[derive(Clone, Debug, PartialEq)]
pub struct PathStatus {
    /// Path name.
    pub name: String,
    /// As configured.
    pub uri: String,
    /// State.
    pub state: PathState,
    /// Access state.
    pub access: Access,
    /// Configured priority.
    pub priority: u32,
    /// Its group, 1 for the best one.
    pub group: u32,
    /// What the storage says of it, or what is configured instead.
    pub access_state: AccessState,
    /// Distance of its storage in microseconds; 0 while unknown, or where groups are not by latency.
    pub distance_us: u64,
    /// Requests in flight.
    pub in_flight: u64,
    /// Reads completed.
    pub reads: u64,
    /// Writes, trims and zeroes completed.
    pub writes: u64,
    /// Bytes read and written.
    pub bytes: u64,
    /// Failures: error replies that count against the path, lanes lost, deadlines passed.
    pub errors: u64,
    /// Median service time of recent requests, in microseconds; 0 while unknown.
    pub p50_us: u64,
    /// 99th percentile, likewise.
    pub p99_us: u64,
    /// Ghost protection on this path.
    pub fence: Fence,
    /// Lanes connected.
    pub lanes_up: u16,
    /// Old connections kept open for late replies.
    pub zombies: u16,
    /// Why it is in this state, for an operator; empty when up.
    pub reason: String,
}

/// State of a path. The words are fixed by the `status --json` document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PathState {
    /// Carries I/O.
    Up,
    /// Usable, in a group or role that carries none now.
    Standby,
    /// Back after a failure: canaries, then a small share.
    Probation,
    /// Usable but demoted against its siblings.
    Slow,
    /// Held out by the failure limit.
    Held,
    /// Not connected, or silent.
    Down,
    /// Connected; identity not proven yet (blank volume).
    Unproven,
    /// Connected and turned away: other data, wrong size, missing feature.
    Refused,
    /// Taken out by the operator.
    Drained,
}

impl PathState {
    /// The word in `status --json`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Standby => "standby",
            Self::Probation => "probation",
            Self::Slow => "slow",
            Self::Held => "held",
            Self::Down => "down",
            Self::Unproven => "unproven",
            Self::Refused => "refused",
            Self::Drained => "drained",
        }
    }
}

/// Access state of a path (design section 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// In the best group.
    Optimized,
    /// In a lower group.
    NonOptimized,
    /// Kept ready, carries nothing.
    Standby,
    /// Cannot carry I/O.
    Unavailable,
}

impl Access {
    /// The word in `status --json`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Optimized => "optimized",
            Self::NonOptimized => "non-optimized",
            Self::Standby => "standby",
            Self::Unavailable => "unavailable",
        }
    }
}

/// One host session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionStatus {
    /// Peer address.
    pub peer: String,
    /// Requests accepted and not answered.
    pub in_flight: u32,
    /// What it claimed, at a gate.
    pub claim: Option<SessionClaim>,
}

/// What a session claimed at a gate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionClaim {
    /// Member that claimed.
    pub member: String,
    /// Its epoch.
    pub epoch: u64,
    /// It was overtaken or killed, and what it had in execution is waited for.
    pub ended: bool,
}
