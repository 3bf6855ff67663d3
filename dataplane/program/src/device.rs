// SPDX-License-Identifier: MIT OR Apache-2.0
//! One device: policies, times and paths.

use alloc::string::String;
use alloc::vec::Vec;

use crate::{AccessState, FenceProgram, Nanos, PathProgram};

/// One virtual block device and how to keep it served.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceProgram {
    /// NBD export name, unique in the program.
    pub name: String,
    /// Which paths carry I/O at once.
    pub access: AccessPolicy,
    /// What parts paths of equal priority and access state into groups.
    pub groups: Groups,
    /// How a path is chosen among the usable ones of the best group.
    pub selector: SelectorKind,
    /// Whether others write the same storage (rules W4, W5).
    pub writers: Writers,
    /// Whether all paths show one cache (rule W18).
    pub coherent: Coherence,
    /// Active-passive: when the new path may start (rule W20).
    pub exclusive: Exclusive,
    /// What a quarantine that nothing proves finished does (rule W13).
    pub unproven: Unproven,
    /// Quarantine of a write in doubt on plain NBD; an assumption. Default 5 s.
    pub quiesce: Nanos,
    /// What requests do while no path is usable.
    pub no_path: NoPath,
    /// When a recovered path of a better group is used again.
    pub failback: Failback,
    /// Request ages that move a request (rule W15).
    pub deadline: Deadlines,
    /// Probe reads on the I/O lanes.
    pub canary: CanaryTimes,
    /// Whether a host may have several sessions (rule W21).
    pub host_sessions: HostSessions,
    /// Late reads that may be sent to a second path as well, in parts per million of the reads.
    /// Default 30,000; 0 = never.
    pub hedge_budget_ppm: u32,
    /// Bytes of acknowledged, unflushed writes to retain. Default 64 MiB.
    pub retention_bytes: u64,
    /// Size to export where no path tells it (all down and nothing recorded), in bytes.
    pub size_bytes: Option<u64>,
    /// Declared identity: skips sampling of content (design 3.8).
    pub identity: Option<String>,
    /// What an earlier run recorded; answers GO while every path is down.
    pub recorded: Option<Recorded>,
    /// An earlier process of ours ended without saying that nothing is in doubt (rule W10):
    /// writes wait until what it had in flight is over.
    pub unclean: bool,
    /// The same process may also have had paths that are not among `paths`, or it is not known which: the gates
    /// of these do not speak for what it sent there (rule W10).
    pub left_elsewhere: bool,
    /// Acknowledged writes were lost for good in an earlier run, and why; no operator has taken note yet: FLUSH and
    /// FUA fail (rule F9).
    pub lost_writes: Option<String>,
    /// Fencing token claimed at gates, the same in a whole run of the process and higher in each next one;
    /// 0: gates are not asked for, and treated as plain servers.
    pub epoch: u64,
    /// What its hosts are told of the way to this node, if they ask; a Holdfast does.
    pub told_access: Option<AccessState>,
    /// The fence in front of this device: it is a gate's export.
    pub fence: Option<FenceProgram>,
    /// At least one path; names are unique within the device.
    pub paths: Vec<PathProgram>,
}

/// Which paths carry I/O at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessPolicy {
    /// Every usable path of the best group.
    ActiveActive,
    /// Exactly one path.
    ActivePassive,
}

/// What parts paths of equal priority and access state into groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Groups {
    /// Nothing: they are one group. Default.
    Priority,
    /// The measured distance of the storage behind them.
    Latency,
}

/// How a path is chosen for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SelectorKind {
    /// In turn, by weight.
    RoundRobin,
    /// Fewest requests in flight.
    QueueDepth,
    /// Fewest bytes in flight per weight.
    ServiceTime,
    /// Least expected wait: measured service time by size class x in flight. Default.
    Latency,
}

/// Who writes the storage behind a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writers {
    /// Only this member. Default.
    One,
    /// Other members or hosts too.
    Many,
}

/// Whether all paths of a device show one cache (rule W18).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coherence {
    /// Not said; treated as coherent and shown as assumed. Default.
    Assumed,
    /// Declared coherent.
    Declared,
    /// Declared incoherent: active-passive, one lane, FUA on every write.
    Incoherent,
}

/// Whether a host may have several sessions of a device (rule W21).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostSessions {
    /// As many as it likes. Default.
    Shared,
    /// One: a new session from the same address ends the older ones before it is served.
    Exclusive,
}

/// When the new path of an active-passive device may start (rule W20).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exclusive {
    /// As soon as nothing more is issued on the old one. Default.
    Issue,
    /// Only when the old session is proven finished.
    Proven,
}

/// What happens to a successor of a write in doubt that nothing resolves (rule W13).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unproven {
    /// It goes on after `quiesce`. Default.
    Assume,
    /// It fails with EIO at the hold limit rather than be reordered.
    Hold,
}

/// What requests do while no path is usable (design 3.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoPath {
    /// Fail with EIO at once.
    Fail,
    /// Wait this long, then EIO. Default 600 s.
    Hold(Nanos),
    /// Wait until a path is back.
    Forever,
}

/// When a recovered path of a better group takes over again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failback {
    /// As soon as it is usable.
    Immediate,
    /// After it was usable for this long. Default 60 s.
    After(Nanos),
    /// Only by command.
    Manual,
}

/// Request ages (rule W15); the bytes ahead on the lane are added by the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// Default 1 s.
    pub read: Nanos,
    /// Default 2 s.
    pub write: Nanos,
}

/// Probe reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CanaryTimes {
    /// On a usable path of a busy device; any reply counts. Default 1 s.
    pub interval: Nanos,
    /// On a usable path of an idle device. Default 10 s.
    pub idle: Nanos,
    /// A canary without an answer for this long counts as failed. Default 1 s.
    pub deadline: Nanos,
}

/// What a device offers its hosts; fixed once the first path told it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Export size in bytes.
    pub size_bytes: u64,
    /// NBD transmission flags (protocol document, "Transmission flags").
    pub transmission_flags: u16,
    /// Smallest block in bytes, a power of two.
    pub min_block_bytes: u32,
    /// Preferred block in bytes, a power of two.
    pub preferred_block_bytes: u32,
    /// Largest payload of one request in bytes.
    pub max_payload_bytes: u32,
}

/// What `state_dir` keeps of a device between runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// The geometry hosts were told.
    pub geometry: Geometry,
    /// Content samples: byte offset and digest of one block each; empty while
    /// the volume is blank (uniform samples prove nothing).
    pub samples: Vec<(u64, u128)>,
}
