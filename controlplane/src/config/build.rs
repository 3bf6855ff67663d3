// SPDX-License-Identifier: MIT OR Apache-2.0
//! From effective settings to the program of the data plane.
//!
//! Nothing is decided here: every value was checked against its key, so each
//! field is one look-up.

use program::{
    AccessPolicy, AccessState, CanaryTimes, Coherence, Deadlines, DeviceProgram, Exclusive, Exports,
    Failback, Groups, HostSessions, Listener, NoPath, NodeProgram, PathProgram, Portal,
    REACTOR_MEMORY_BYTES_MIN, SelectorKind, Target, Unproven, Writers,
};

use super::effective::Settings;
use super::target::Endpoint;
use crate::state::checksum;

/// Limits of the node; `reactors = "auto"` is `cores`, as far as the memory suffices.
pub(crate) fn node(node: &Settings, listen: &Settings, cores: usize) -> NodeProgram {
    let memory_bytes = node.size("memory").unwrap_or_default();
    let affordable = (memory_bytes / REACTOR_MEMORY_BYTES_MIN) as usize;
    NodeProgram {
        reactors: node.integer("reactors").map_or(cores.min(affordable).max(1), |count| count as usize),
        memory_bytes,
        max_sessions: number(listen, "max_sessions"),
        handshake_timeout: listen.duration("handshake_timeout").unwrap_or_default(),
        member: member(node),
        gate_key: None,
    }
}

/// The node's name as gates know it: what they do not take becomes `_`, with a checksum of the name behind it.
fn member(node: &Settings) -> String {
    let lawful = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let name = node.text("name").unwrap_or("holdfast");
    if nbd::gate::is_valid_member(name) {
        return name.to_owned();
    }
    // Two names must not become one member, which would let one node write in the other's place.
    let plain: String = name.chars().map(|c| if lawful(c) { c } else { '_' }).take(40).collect();
    format!("{plain}-{:08x}", checksum(name.as_bytes()))
}

/// One listener for each address; every device is visible on all of them.
pub(crate) fn listeners(listen: &Settings) -> Vec<Listener> {
    let public =
        |address: &program::SocketAddress| Listener { address: address.clone(), exports: Exports::Public };
    listen.listeners("nbd").iter().map(public).collect()
}

/// One device; `None` if what must be written is missing.
pub(crate) fn device(settings: &Settings, paths: &[Settings]) -> Option<DeviceProgram> {
    Some(DeviceProgram {
        name: settings.text("name")?.to_owned(),
        access: match settings.word("policy") {
            "active-passive" => AccessPolicy::ActivePassive,
            _ => AccessPolicy::ActiveActive,
        },
        groups: match settings.word("groups") {
            "latency" => Groups::Latency,
            _ => Groups::Priority,
        },
        selector: match settings.word("selector") {
            "round-robin" => SelectorKind::RoundRobin,
            "queue-depth" => SelectorKind::QueueDepth,
            "service-time" => SelectorKind::ServiceTime,
            _ => SelectorKind::Latency,
        },
        writers: if settings.word("writers") == "many" { Writers::Many } else { Writers::One },
        coherent: match settings.bool("coherent") {
            None => Coherence::Assumed,
            Some(true) => Coherence::Declared,
            Some(false) => Coherence::Incoherent,
        },
        exclusive: if settings.word("exclusive") == "proven" { Exclusive::Proven } else { Exclusive::Issue },
        unproven: if settings.word("unproven") == "hold" { Unproven::Hold } else { Unproven::Assume },
        quiesce: settings.duration("quiesce").unwrap_or_default(),
        no_path: no_path(settings),
        failback: failback(settings),
        deadline: Deadlines {
            read: settings.duration("deadline.read").unwrap_or_default(),
            write: settings.duration("deadline.write").unwrap_or_default(),
        },
        canary: CanaryTimes {
            interval: settings.duration("canary.interval").unwrap_or_default(),
            idle: settings.duration("canary.idle").unwrap_or_default(),
            deadline: settings.duration("canary.deadline").unwrap_or_default(),
        },
        host_sessions: match settings.word("host_sessions") {
            "exclusive" => HostSessions::Exclusive,
            _ => HostSessions::Shared,
        },
        hedge_budget_ppm: hedge_budget_ppm(settings),
        retention_bytes: settings.size("retention").unwrap_or_default(),
        size_bytes: settings.size("size"),
        identity: settings.text("id").map(str::to_owned),
        recorded: None,
        unclean: false,
        left_elsewhere: false,
        lost_writes: None,
        epoch: 0,
        told_access: None,
        fence: None,
        paths: paths.iter().map(path).collect::<Option<Vec<_>>>()?,
    })
}

/// What requests do while no path is usable.
pub(crate) fn no_path(settings: &Settings) -> NoPath {
    match settings.word("no_path.mode") {
        "fail" => NoPath::Fail,
        "forever" => NoPath::Forever,
        _ => NoPath::Hold(settings.duration("no_path.hold").unwrap_or_default()),
    }
}

/// 0: late reads are not sent twice.
fn hedge_budget_ppm(settings: &Settings) -> u32 {
    match settings.word("hedge.mode") {
        "off" => 0,
        _ => (settings.fraction("hedge.budget").unwrap_or_default() * 1e6).round() as u32,
    }
}

fn failback(settings: &Settings) -> Failback {
    match (settings.word("failback"), settings.duration("failback")) {
        ("manual", _) => Failback::Manual,
        (_, Some(after)) if after > 0 => Failback::After(after),
        _ => Failback::Immediate,
    }
}

fn path(settings: &Settings) -> Option<PathProgram> {
    let (uri, endpoint) = settings.uri("uri")?;
    Some(PathProgram {
        name: settings.text("name")?.to_owned(),
        uri: uri.to_owned(),
        target: target(settings, endpoint),
        priority: number(settings, "priority"),
        access_state: AccessState::from_word(settings.word("access_state")),
        weight: number(settings, "weight"),
        lanes: number(settings, "lanes") as u16,
        in_flight: number(settings, "in_flight"),
        drains: settings.bool("drains").unwrap_or_default(),
        same_cache: settings.text("same_cache").map(str::to_owned),
        read_only: settings.bool("read_only").unwrap_or_default(),
    })
}

fn target(settings: &Settings, endpoint: &Endpoint) -> Target {
    match endpoint {
        Endpoint::File { path } => Target::File { path: path.clone(), create_bytes: None },
        Endpoint::Nbd { portal, export } => {
            let further = settings.portals("portals").iter().filter(|other| *other != portal);
            let portals: Vec<Portal> = std::iter::once(portal).chain(further).cloned().collect();
            Target::Nbd { portals, export: export.clone(), bind: settings.ip("bind") }
        }
    }
}

/// A number whose range fits 32 bits by its key.
fn number(settings: &Settings, name: &str) -> u32 {
    let value = settings.integer(name).unwrap_or_default();
    // Invariant: the widest range in the key table ends at 1,000,000.
    u32::try_from(value).unwrap_or(u32::MAX)
}
