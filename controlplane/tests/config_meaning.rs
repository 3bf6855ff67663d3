// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a configuration means: the program it becomes, and how it is shown.

use controlplane::config::{Config, Environment, Section, Source, to_toml};
use policies::limits;
use program::{
    AccessPolicy, Coherence, Exclusive, Exports, Failback, NoPath, Portal, SECOND, SelectorKind,
    SocketAddress, Target, Unproven, Writers,
};

fn environment() -> Environment {
    Environment { host_name: "host1".to_owned(), cores: 4, state_dir: None }
}

fn parse(text: &str) -> Config {
    match Config::parse(Source::new("test.toml", text), &environment()) {
        Ok(config) => config,
        Err(mistakes) => panic!("{mistakes}"),
    }
}

const MINIMAL: &str = r#"
[[device]]
name = "vol0"
[[device.path]]
name = "a"
uri = "nbd://10.0.1.5/vol0"
"#;

const EVERYTHING: &str = r#"
[node]
name = "m1"
state_dir = "/srv/holdfast"
reactors = 3
memory = "1GiB"
profile = "fast"

[listen]
nbd = ["0.0.0.0:10809", "unix:/run/holdfast/nbd.sock"]
api = "off"
max_sessions = 100
handshake_timeout = "5s"

[defaults]
selector = "round-robin"
quiesce = "8s"
no_path = { mode = "fail" }
size = 1073741824

[[device]]
name = "vol \"0\" \\ é"
policy = "active-passive"
selector = "service-time"
writers = "many"
coherent = false
exclusive = "proven"
unproven = "hold"
host_sessions = "exclusive"
retention = "128MiB"
id = "lun-3"
no_path.mode = "hold"
no_path.hold = "30s"
hedge = { mode = "off", budget = 0.05 }
failback = "manual"
deadline = { read = "2s", write = "3s" }
canary = { interval = "500ms", idle = "5s", deadline = "750ms" }

[[device.path]]
name = "a"
uri = "nbd://10.0.1.5/vol0"
priority = 70
weight = 3
lanes = 4
in_flight = 64
portals = ["10.0.1.5:10809", "10.0.2.5:10809", "[fd00::1]:4000"]
bind = "10.0.1.1"
drains = true
same_cache = "s1"
read_only = true

[[device.path]]
name = "b"
uri = "file:///dev/disk%2Fby-id"

[[device]]
name = "vol1"

[[device.path]]
name = "a"
uri = "nbd+unix:///x?socket=/run/s"
"#;

#[test]
fn defaults_are_those_of_the_policies() {
    let config = parse(MINIMAL);
    let device = &config.program().devices[0];
    assert_eq!(device.quiesce, limits::QUIESCE);
    assert_eq!(device.deadline.read, limits::READ_DEADLINE);
    assert_eq!(device.deadline.write, limits::WRITE_DEADLINE);
    assert_eq!(device.hedge_budget_ppm, limits::HEDGE_BUDGET_PPM);
    assert_eq!(device.canary.interval, limits::CANARY_INTERVAL);
    assert_eq!(device.canary.idle, limits::CANARY_IDLE);
    assert_eq!(device.canary.deadline, limits::CANARY_DEADLINE);
    assert_eq!(device.failback, Failback::After(limits::FAILBACK_AFTER));
    assert_eq!(device.no_path, NoPath::Hold(limits::NO_PATH_HOLD));
}

/// `off` and a budget of nothing are the same; else the budget is what is written.
#[test]
fn hedging_is_off_or_a_share_of_the_reads() {
    for (written, ppm) in [
        ("{ mode = \"off\", budget = 0.05 }", 0),
        ("{ mode = \"on\", budget = 0.05 }", 50_000),
        ("{ budget = 0 }", 0),
        ("{ budget = 0.000001 }", 1),
        ("{ mode = \"on\" }", limits::HEDGE_BUDGET_PPM),
    ] {
        let text = MINIMAL.replacen("[[device.path]]", &format!("hedge = {written}\n\n[[device.path]]"), 1);
        assert_eq!(parse(&text).program().devices[0].hedge_budget_ppm, ppm, "{written}");
    }
}

#[test]
fn a_minimal_file_is_enough() {
    let config = parse(MINIMAL);
    let program = config.program();
    assert_eq!(config.node_name(), "host1");
    assert_eq!(
        (program.node.reactors, program.node.memory_bytes, program.node.max_sessions),
        (4, 512 << 20, 4096)
    );
    assert_eq!(program.node.handshake_timeout, 10 * SECOND);
    assert_eq!(config.api().map(|api| api.to_string()).as_deref(), Some("127.0.0.1:10880"));
    assert_eq!(program.listeners.len(), 1);
    assert_eq!(program.listeners[0].exports, Exports::Public);
    let device = &program.devices[0];
    assert_eq!((device.access, device.selector), (AccessPolicy::ActiveActive, SelectorKind::Latency));
    assert_eq!((device.writers, device.coherent), (Writers::One, Coherence::Assumed));
    assert_eq!((device.exclusive, device.unproven), (Exclusive::Issue, Unproven::Assume));
    assert_eq!((device.size_bytes, device.identity.as_deref(), device.recorded.as_ref()), (None, None, None));
    assert_eq!(device.retention_bytes, 64 << 20);
    let path = &device.paths[0];
    assert_eq!((path.priority, path.weight, path.lanes, path.in_flight), (50, 1, 1, 128));
    assert_eq!((path.drains, path.read_only, path.same_cache.as_deref()), (false, false, None));
    assert!(config.warnings().is_empty(), "{}", config.warnings());
}

#[test]
fn reactors_are_as_many_as_cores_and_memory_allow() {
    let reactors = |text: &str, cores| {
        let environment = Environment { cores, ..environment() };
        Config::parse(Source::new("f", text), &environment).expect("no mistake").program().node.reactors
    };
    assert_eq!(reactors("", 2), 2);
    assert_eq!(reactors("", 64), 32, "512MiB have room for 32");
    assert_eq!(reactors("[node]\nmemory = \"8GiB\"", 64), 64);
    assert_eq!(reactors("[node]\nreactors = 3", 64), 3);
    assert_eq!(reactors("", 0), 1);
}

#[test]
fn every_key_reaches_the_program() {
    let config = parse(EVERYTHING);
    let program = config.program();
    assert_eq!((config.node_name(), config.api()), ("m1", None));
    assert_eq!(config.state_dir().to_str(), Some("/srv/holdfast"));
    assert_eq!(
        (program.node.reactors, program.node.memory_bytes, program.node.max_sessions),
        (3, 1 << 30, 100)
    );
    assert_eq!(program.node.handshake_timeout, 5 * SECOND);
    assert_eq!(program.listeners[1].address, SocketAddress::Unix("/run/holdfast/nbd.sock".to_owned()));
    let device = &program.devices[0];
    assert_eq!(device.name, "vol \"0\" \\ \u{e9}");
    assert_eq!((device.access, device.selector), (AccessPolicy::ActivePassive, SelectorKind::ServiceTime));
    assert_eq!((device.writers, device.coherent), (Writers::Many, Coherence::Incoherent));
    assert_eq!((device.exclusive, device.unproven), (Exclusive::Proven, Unproven::Hold));
    assert_eq!((device.retention_bytes, device.identity.as_deref()), (128 << 20, Some("lun-3")));
    assert_eq!((device.no_path, device.failback), (NoPath::Hold(30 * SECOND), Failback::Manual));
    assert_eq!((device.deadline.read, device.deadline.write), (2 * SECOND, 3 * SECOND));
    assert_eq!(
        (device.canary.interval, device.canary.idle, device.canary.deadline),
        (SECOND / 2, 5 * SECOND, SECOND / 4 * 3)
    );
    // From [defaults], as `quiesce` is not set in the device.
    assert_eq!((device.quiesce, device.size_bytes), (8 * SECOND, Some(1 << 30)));
    let path = &device.paths[0];
    assert_eq!((path.priority, path.weight, path.lanes, path.in_flight), (70, 3, 4, 64));
    assert_eq!((path.drains, path.read_only, path.same_cache.as_deref()), (true, true, Some("s1")));
    let Target::Nbd { portals, export, bind } = &path.target else { panic!("{:?}", path.target) };
    let tcp = |host: &str, port| Portal::Tcp { host: host.to_owned(), port };
    // The address of the URI comes first and only once.
    assert_eq!(portals, &[tcp("10.0.1.5", 10809), tcp("10.0.2.5", 10809), tcp("fd00::1", 4000)]);
    assert_eq!((export.as_str(), bind.map(|bind| bind.to_string()).as_deref()), ("vol0", Some("10.0.1.1")));
    assert_eq!(
        device.paths[1].target,
        Target::File { path: "/dev/disk/by-id".to_owned(), create_bytes: None }
    );
    let second = &program.devices[1];
    assert_eq!(
        (second.selector, second.no_path, second.quiesce),
        (SelectorKind::RoundRobin, NoPath::Fail, 8 * SECOND)
    );
}

#[test]
fn what_is_shown_is_a_file_that_means_the_same() {
    for text in [MINIMAL, EVERYTHING] {
        let config = parse(text);
        let shown = to_toml(&config.shown());
        let again = parse(&shown);
        assert_eq!(config.program(), again.program(), "{shown}");
        assert_eq!((config.node_name(), config.api()), (again.node_name(), again.api()));
    }
}

#[test]
fn every_value_is_shown_with_its_origin() {
    let config = parse(EVERYTHING);
    let shown = config.shown();
    let find = |device: &str, key: &str| {
        let mut found =
            shown.iter().filter(|value| value.device.as_deref() == Some(device) && value.path.is_none());
        found.find(|value| value.key == key).cloned().expect("shown")
    };
    let quiesce = find("vol1", "quiesce");
    assert_eq!(
        (quiesce.value.as_deref(), quiesce.origin.as_str(), quiesce.line),
        (Some("\"8s\""), "[defaults]", Some(17))
    );
    let hold = find("vol1", "no_path.hold");
    assert_eq!(
        (hold.value.as_deref(), hold.origin.as_str(), hold.line),
        (Some("\"10min\""), "default", None)
    );
    assert_eq!(find("vol1", "id").value, None);
    assert_eq!(find("vol \"0\" \\ \u{e9}", "selector").origin, "file");
    let per_device = Section::Device.keys().len();
    let per_path = Section::Path.keys().len();
    let per_node = Section::Node.keys().len() + Section::Listen.keys().len();
    assert_eq!(shown.len(), per_node + 2 * per_device + 3 * per_path);
}

#[test]
fn the_command_line_wins_over_the_file() {
    let environment = Environment { state_dir: Some("/tmp/x".to_owned()), ..environment() };
    let config = Config::parse(Source::new("f", EVERYTHING), &environment).expect("no mistake");
    assert_eq!(config.state_dir().to_str(), Some("/tmp/x"));
    let shown = config.shown();
    let value = shown.iter().find(|value| value.key == "state_dir").expect("shown");
    assert_eq!(value.origin, "command line");
}
