// SPDX-License-Identifier: MIT OR Apache-2.0
//! The documents of the API: `status --json` and its parts.
//!
//! The names are a promise: fields are added, never renamed or removed.

use std::time::Duration;

use program::{BudgetCause, BudgetStatus, DeviceStatus, PathStatus, Program, SessionStatus};
use serde::{Deserialize, Serialize};

use crate::services::{Node, Sample, Snapshot, policy_word};

/// `GET /v1/status`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StatusDocument {
    /// The node that answers.
    pub node: NodeDocument,
    /// Devices in the order of the configuration.
    pub devices: Vec<DeviceDocument>,
    /// Failover sets; there are none yet.
    pub sets: Vec<serde_json::Value>,
    /// Members of the cluster: this node.
    pub members: Vec<MemberDocument>,
}

/// The node that answers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeDocument {
    /// Its name.
    pub name: String,
    /// Version of Holdfast.
    pub version: String,
    /// When it was started, RFC 3339.
    pub started: String,
    /// For how long it has run.
    pub uptime_s: u64,
    /// Generation of the program in force.
    pub generation: u64,
    /// Configuration file, absent if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<String>,
    /// Number of the last event.
    pub last_event: u64,
}

/// One member.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MemberDocument {
    /// Its name.
    pub name: String,
    /// `up`.
    pub state: String,
}

/// One device.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeviceDocument {
    /// Export name.
    pub name: String,
    /// `active-active` or `active-passive`, as in force.
    pub policy: String,
    /// `unknown`, `optimal`, `degraded`, `recovering`, `held` or `failed`.
    pub state: String,
    /// Export size, 0 while unknown.
    pub size_bytes: u64,
    /// `gate`, `drain`, `assume` or `hold`.
    pub fence: String,
    /// Quarantine time that goes with `fence`.
    pub quiesce_ms: u64,
    /// Whether hosts on the configured addresses see it; embedded storage is not listed.
    pub listed: bool,
    /// Age of these values; `null` if the device has not told any yet.
    pub age_ms: Option<u64>,
    /// Requests accepted and not answered.
    pub inflight: u64,
    /// Requests waiting because no path is usable.
    pub held: u64,
    /// Byte ranges quarantined.
    pub quarantined: u64,
    /// Writes whose quarantine ended without proof and that may still land.
    pub ghosts: u64,
    /// Bytes of acknowledged, unflushed writes that are retained.
    pub retained_bytes: u64,
    /// Acknowledged writes are being written again after a cache was lost.
    pub replaying: bool,
    /// Why FLUSH fails until `holdfast device clear-loss`; empty if it does not.
    pub lost_writes: String,
    /// Host reads answered.
    pub reads: u64,
    /// Host writes, trims and zeroes answered.
    pub writes: u64,
    /// Errors answered to hosts.
    pub errors: u64,
    /// Requests sent again after a failure.
    pub resent: u64,
    /// Second copies of late reads.
    pub hedges: HedgeDocument,
    /// What failures cost its hosts since the device was made.
    pub budget: BudgetDocument,
    /// Host sessions.
    pub sessions: Vec<SessionDocument>,
    /// Paths in the order of the configuration.
    pub paths: Vec<PathDocument>,
}

/// Second copies of late reads, counted since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HedgeDocument {
    /// Sent.
    pub sent: u64,
    /// Answered before the first copy.
    pub won: u64,
    /// Not.
    pub lost: u64,
    /// Not sent: no budget, no memory, or every path slow.
    pub refused: u64,
}

impl HedgeDocument {
    fn new(status: program::HedgeStatus) -> Self {
        let program::HedgeStatus { sent, won, lost, refused } = status;
        Self { sent, won, lost, refused }
    }
}

/// What failures cost the hosts of a device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BudgetDocument {
    /// A request answered later than this after it came is delayed.
    pub bound_ms: u64,
    /// Host requests answered, in time or not.
    pub requests: u64,
    /// All causes together.
    pub total: CostDocument,
    /// By cause; at most 33, the last of rule `other` if there were more.
    pub causes: Vec<CostDocument>,
}

/// What one cause cost.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CostDocument {
    /// Path to blame, absent if it was no single one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Rule that dealt with it; `storage`, `start` and `other` besides.
    pub rule: String,
    /// Time in which a request would have had no path to go to.
    pub unavailable_ms: u64,
    /// Requests answered later than the bound.
    pub delayed: u64,
    /// Sum of their waits beyond the bound.
    pub excess_ms: u64,
    /// The longest wait of a request.
    pub worst_ms: u64,
}

/// One host session.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SessionDocument {
    /// Address of the host.
    pub peer: String,
    /// Requests accepted and not answered.
    pub inflight: u32,
    /// What it claimed at a gate, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claim: Option<ClaimDocument>,
}

/// What a session claimed at a gate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClaimDocument {
    /// Member.
    pub member: String,
    /// Its epoch.
    pub epoch: u64,
    /// It was overtaken or killed, and what it had in execution is waited for.
    pub ended: bool,
}

/// One path.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PathDocument {
    /// Its name.
    pub name: String,
    /// As configured.
    pub uri: String,
    /// `up`, `standby`, `probation`, `slow`, `held`, `down`, `unproven`, `refused` or `drained`.
    pub state: String,
    /// `optimized`, `non-optimized`, `standby` or `unavailable`.
    pub access: String,
    /// Configured priority.
    pub priority: u32,
    /// Its group, 1 for the best one.
    pub group: u32,
    /// `optimized`, `non-optimized` or `standby`: what its storage says, or what is configured instead.
    pub access_state: String,
    /// Shortest time of a read of one block in 10 to 20 minutes, with `groups = "latency"`; 0 while unknown.
    pub distance_us: u64,
    /// Requests in flight.
    pub inflight: u64,
    /// Reads completed.
    pub reads: u64,
    /// Writes, trims and zeroes completed.
    pub writes: u64,
    /// Bytes read and written.
    pub bytes: u64,
    /// Failures of the path.
    pub errors: u64,
    /// Median service time of recent requests, 0 while unknown.
    pub p50_us: u64,
    /// 99th percentile, likewise.
    pub p99_us: u64,
    /// Ghost protection on this path.
    pub fence: String,
    /// Lanes connected.
    pub lanes_up: u16,
    /// Old connections kept open for late replies.
    pub zombies: u16,
    /// Why it is in this state; empty when up.
    pub reason: String,
}

impl StatusDocument {
    pub(crate) fn new(node: &Node, program: &Program, snapshot: &Snapshot) -> Self {
        let hidden = hidden(program);
        let member = MemberDocument { name: node.name().to_owned(), state: "up".to_owned() };
        Self {
            node: NodeDocument {
                name: node.name().to_owned(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                started: node.started_text().to_owned(),
                uptime_s: node.uptime().as_secs(),
                generation: program.generation,
                config: node.config_path(),
                last_event: node.last_event(),
            },
            devices: snapshot.devices.iter().map(|sample| DeviceDocument::new(sample, &hidden)).collect(),
            sets: Vec::new(),
            members: vec![member],
        }
    }
}

impl DeviceDocument {
    /// `hidden`: devices that no public listener shows.
    pub(crate) fn new(sample: &Sample, hidden: &[&str]) -> Self {
        let status: &DeviceStatus = &sample.status;
        Self {
            name: status.name.clone(),
            policy: policy_word(status.access).to_owned(),
            state: status.state.as_str().to_owned(),
            size_bytes: status.size_bytes,
            fence: status.fence.as_str().to_owned(),
            quiesce_ms: status.quiesce / program::MILLISECOND,
            listed: !hidden.contains(&status.name.as_str()),
            age_ms: sample.taken.map(|taken| milliseconds(taken.elapsed())),
            inflight: status.in_flight,
            held: status.held,
            quarantined: status.quarantined,
            ghosts: status.ghosts,
            retained_bytes: status.retained_bytes,
            replaying: status.replaying,
            lost_writes: status.lost_writes.clone(),
            reads: status.reads,
            writes: status.writes,
            errors: status.errors,
            resent: status.resent,
            hedges: HedgeDocument::new(status.hedges),
            budget: BudgetDocument::new(&status.budget),
            sessions: status.sessions.iter().map(SessionDocument::new).collect(),
            paths: status.paths.iter().map(PathDocument::new).collect(),
        }
    }
}

impl BudgetDocument {
    pub(crate) fn new(status: &BudgetStatus) -> Self {
        let total = status.total();
        Self {
            bound_ms: status.bound / program::MILLISECOND,
            requests: status.requests,
            total: CostDocument::new(&total),
            causes: status.causes.iter().map(CostDocument::new).collect(),
        }
    }
}

impl CostDocument {
    fn new(status: &BudgetCause) -> Self {
        Self {
            path: status.path.clone(),
            rule: status.rule.to_owned(),
            unavailable_ms: status.unavailable / program::MILLISECOND,
            delayed: status.delayed,
            excess_ms: status.excess / program::MILLISECOND,
            worst_ms: status.worst / program::MILLISECOND,
        }
    }
}

impl SessionDocument {
    fn new(status: &SessionStatus) -> Self {
        let claim = status.claim.as_ref().map(|claim| ClaimDocument {
            member: claim.member.clone(),
            epoch: claim.epoch,
            ended: claim.ended,
        });
        Self { peer: status.peer.clone(), inflight: status.in_flight, claim }
    }
}

impl PathDocument {
    fn new(status: &PathStatus) -> Self {
        Self {
            name: status.name.clone(),
            uri: status.uri.clone(),
            state: status.state.as_str().to_owned(),
            access: status.access.as_str().to_owned(),
            priority: status.priority,
            group: status.group,
            access_state: status.access_state.as_str().to_owned(),
            distance_us: status.distance_us,
            inflight: status.in_flight,
            reads: status.reads,
            writes: status.writes,
            bytes: status.bytes,
            errors: status.errors,
            p50_us: status.p50_us,
            p99_us: status.p99_us,
            fence: status.fence.as_str().to_owned(),
            lanes_up: status.lanes_up,
            zombies: status.zombies,
            reason: status.reason.clone(),
        }
    }
}

/// Names of devices that only a listener of their own shows.
pub(crate) fn hidden(program: &Program) -> Vec<&str> {
    let only = program.listeners.iter().filter_map(|listener| match &listener.exports {
        program::Exports::Only(names) => Some(names),
        program::Exports::Public => None,
    });
    only.flatten().map(String::as_str).collect()
}

pub(crate) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
