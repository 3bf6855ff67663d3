// SPDX-License-Identifier: MIT OR Apache-2.0
//! The one table of metrics: names, help, and where each value comes from.
//!
//! The exposition and the reference page `docs/api.md` are made from it.

use program::{BudgetCause, DeviceStatus, PathStatus};

/// One metric family of `/metrics`.
pub struct Metric {
    /// Full name with unit; counters end in `_total` in the text.
    pub name: &'static str,
    /// What it says.
    pub help: &'static str,
    /// Whether it only rises.
    pub counter: bool,
    /// Where it comes from, which says its labels too.
    pub(crate) value: Value,
}

/// Where the value of a metric comes from.
pub(crate) enum Value {
    /// One for each device, label `device`.
    Device(fn(&DeviceStatus) -> f64),
    /// One for each state of each device, labels `device`, `state`; 1 for the present state.
    DeviceState,
    /// One for each cause of a device's error budget, labels `device`, `path`, `rule`.
    Cause(fn(&BudgetCause) -> f64),
    /// One for each path, labels `device`, `path`.
    Path(fn(&PathStatus) -> f64),
    /// One for each path of which it is known, labels `device`, `path`.
    KnownOfPath(fn(&PathStatus) -> Option<f64>),
    /// One for each state of each path, labels `device`, `path`, `state`.
    PathState,
    /// Service time of each path, labels `device`, `path`, `quantile`.
    PathLatency,
    /// One for the node.
    Node(NodeValue),
}

/// Values of the node.
#[derive(Clone, Copy)]
pub(crate) enum NodeValue {
    /// Always 1, labels `version`, `node`.
    Build,
    /// Generation of the program.
    Generation,
    /// Number of the last event.
    Events,
    /// Reports dropped.
    ReportsDropped,
    /// Age of the data plane's last answer.
    AnswerAge,
}

const fn gauge(name: &'static str, help: &'static str, value: Value) -> Metric {
    Metric { name, help, counter: false, value }
}

const fn counter(name: &'static str, help: &'static str, value: Value) -> Metric {
    Metric { name, help, counter: true, value }
}

impl Metric {
    /// Name as it stands in the text.
    pub fn full_name(&self) -> String {
        let suffix = if self.counter { "_total" } else { "" };
        format!("{}{suffix}", self.name)
    }

    /// Its labels.
    pub const fn labels(&self) -> &'static str {
        match self.value {
            Value::Device(_) => "device",
            Value::Cause(_) => "device, path, rule",
            Value::DeviceState => "device, state",
            Value::Path(_) | Value::KnownOfPath(_) => "device, path",
            Value::PathState => "device, path, state",
            Value::PathLatency => "device, path, quantile",
            Value::Node(NodeValue::Build) => "version, node",
            Value::Node(_) => "",
        }
    }
}

/// All metrics in the order of the exposition.
pub const METRICS: &[Metric] = &[
    gauge("holdfast_build_info", "Version and node name; always 1", Value::Node(NodeValue::Build)),
    gauge(
        "holdfast_program_generation",
        "Rises with every changed program",
        Value::Node(NodeValue::Generation),
    ),
    counter("holdfast_events", "Events since the node started", Value::Node(NodeValue::Events)),
    counter(
        "holdfast_reports_dropped",
        "Reports of the data plane that came faster than they could be kept",
        Value::Node(NodeValue::ReportsDropped),
    ),
    gauge(
        "holdfast_snapshot_age_seconds",
        "Age of the data plane's last answer, on which all values below rest",
        Value::Node(NodeValue::AnswerAge),
    ),
    gauge("holdfast_device_state", "1 for the state the device is in", Value::DeviceState),
    gauge("holdfast_device_size_bytes", "Export size", Value::Device(|d| d.size_bytes as f64)),
    gauge("holdfast_device_sessions", "Host sessions", Value::Device(|d| d.sessions.len() as f64)),
    gauge(
        "holdfast_device_inflight_requests",
        "Host requests accepted and not answered",
        Value::Device(|d| d.in_flight as f64),
    ),
    gauge(
        "holdfast_device_held_requests",
        "Host requests that wait because no path is usable",
        Value::Device(|d| d.held as f64),
    ),
    gauge(
        "holdfast_device_quarantined_ranges",
        "Byte ranges behind a write in doubt",
        Value::Device(|d| d.quarantined as f64),
    ),
    gauge(
        "holdfast_device_ghosts",
        "Writes that were let go without proof and may still land",
        Value::Device(|d| d.ghosts as f64),
    ),
    gauge(
        "holdfast_device_retained_bytes",
        "Acknowledged, unflushed writes kept for a replay",
        Value::Device(|d| d.retained_bytes as f64),
    ),
    gauge(
        "holdfast_device_lost_writes",
        "1 while FLUSH fails because acknowledged writes were lost",
        Value::Device(|d| f64::from(u8::from(!d.lost_writes.is_empty()))),
    ),
    counter("holdfast_device_reads", "Host reads answered", Value::Device(|d| d.reads as f64)),
    counter(
        "holdfast_device_writes",
        "Host writes, trims and zeroes answered",
        Value::Device(|d| d.writes as f64),
    ),
    counter("holdfast_device_errors", "Errors answered to hosts", Value::Device(|d| d.errors as f64)),
    counter(
        "holdfast_device_resent_requests",
        "Requests sent again after a failure",
        Value::Device(|d| d.resent as f64),
    ),
    counter(
        "holdfast_device_hedged_reads",
        "Late reads sent to a second path as well",
        Value::Device(|d| d.hedges.sent as f64),
    ),
    counter(
        "holdfast_device_hedges_won",
        "Second copies of reads that answered first",
        Value::Device(|d| d.hedges.won as f64),
    ),
    counter(
        "holdfast_device_hedges_lost",
        "Second copies of reads that did not",
        Value::Device(|d| d.hedges.lost as f64),
    ),
    counter(
        "holdfast_device_hedges_refused",
        "Late reads without a second copy for want of budget or memory, or because every path is slow",
        Value::Device(|d| d.hedges.refused as f64),
    ),
    counter(
        "holdfast_device_unavailable_seconds",
        "Time in which a request would have had no path to go to, by cause",
        Value::Cause(|c| c.unavailable as f64 / 1e9),
    ),
    counter(
        "holdfast_device_delayed_requests",
        "Requests answered later than 1 s after they came, by cause",
        Value::Cause(|c| c.delayed as f64),
    ),
    counter(
        "holdfast_device_delay_excess_seconds",
        "Sum of what these waited beyond 1 s, by cause",
        Value::Cause(|c| c.excess as f64 / 1e9),
    ),
    gauge("holdfast_path_state", "1 for the state the path is in", Value::PathState),
    gauge("holdfast_path_priority", "Configured priority", Value::Path(|p| f64::from(p.priority))),
    gauge("holdfast_path_group", "Its group, 1 for the best one", Value::Path(|p| f64::from(p.group))),
    gauge(
        "holdfast_path_distance_seconds",
        "Shortest read of one block in 10 to 20 minutes, with groups by latency",
        Value::KnownOfPath(|p| (p.distance_us > 0).then_some(p.distance_us as f64 / 1e6)),
    ),
    gauge("holdfast_path_inflight_requests", "Requests in flight", Value::Path(|p| p.in_flight as f64)),
    gauge("holdfast_path_lanes", "Connections in use", Value::Path(|p| f64::from(p.lanes_up))),
    gauge(
        "holdfast_path_zombies",
        "Old connections kept open for late replies",
        Value::Path(|p| f64::from(p.zombies)),
    ),
    counter("holdfast_path_reads", "Reads completed", Value::Path(|p| p.reads as f64)),
    counter("holdfast_path_writes", "Writes, trims and zeroes completed", Value::Path(|p| p.writes as f64)),
    counter("holdfast_path_bytes", "Bytes read and written", Value::Path(|p| p.bytes as f64)),
    counter("holdfast_path_errors", "Failures of the path", Value::Path(|p| p.errors as f64)),
    gauge(
        "holdfast_path_service_seconds",
        "Service time of recent requests; absent while unknown",
        Value::PathLatency,
    ),
];
