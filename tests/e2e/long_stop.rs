// SPDX-License-Identifier: MIT OR Apache-2.0
//! A storage server that is stopped for a minute with a write in its hand, far longer than
//! `quiesce` (rules W4, W13).
//!
//! A stopped process keeps its connection: its kernel acknowledges everything. So the write
//! is known to be alive, no timer lets a newer one go over it before the hold, and its late
//! reply is the proof that it is over. Every protection is tried by the same stop, each on a
//! device of its own.

use std::time::{Duration, Instant};

use tests_support::holdfast::{Config, Device, Gate, Node};
use tests_support::servers::NbdServer;
use tests_support::wire::{Client, errno};
use tests_support::{Endpoint, Stamp, TestDir, loopback, server_queues, wait};

const BLOCK: usize = 4096;
const OFFSET: u64 = 64 * BLOCK as u64;
const X: Stamp = Stamp { writer: 0xe, sequence: 1 };
const A: Stamp = Stamp { writer: 0xa, sequence: 1 };
const B: Stamp = Stamp { writer: 0xb, sequence: 2 };
/// How long the server is stopped.
const STOP: Duration = Duration::from_mins(1);

/// A protection and what B comes to under it.
struct Case {
    name: &'static str,
    keys: &'static [&'static str],
    /// B is answered while the server is still stopped, with this error number.
    during: Option<u32>,
}

/// The times of an operator who sets none.
const DEFAULTS: &[&str] = &[
    r#"canary = { interval = "1s", idle = "10s", deadline = "1s" }"#,
    r#"deadline = { read = "1s", write = "2s" }"#,
];

const CASES: [Case; 5] = [
    Case { name: "default", keys: DEFAULTS, during: None },
    Case { name: "assume", keys: &[r#"quiesce = "2s""#], during: None },
    Case { name: "hold", keys: &[r#"quiesce = "2s""#, r#"unproven = "hold""#], during: None },
    Case {
        name: "short-hold",
        keys: &[r#"quiesce = "2s""#, r#"unproven = "hold""#, r#"no_path = { mode = "hold", hold = "8s" }"#],
        during: Some(errno::EIO),
    },
    // The hold ends long before the stop: B is let go without proof, and mended (W13).
    Case {
        name: "repair",
        keys: &[r#"quiesce = "2s""#, r#"no_path = { mode = "hold", hold = "8s" }"#],
        during: Some(0),
    },
];

struct Site {
    node: Node,
    stalled: NbdServer,
    _other: NbdServer,
    dir: TestDir,
}

fn site() -> Site {
    let dir = TestDir::new();
    let ip = loopback();
    let (first, second) = (Endpoint::tcp(ip, 10809), Endpoint::tcp(ip, 10810));
    let exports: Vec<(String, String)> = CASES
        .iter()
        .zip(1..)
        .map(|(case, seed)| (case.name.to_owned(), dir.patterned_image(case.name, 4 << 20, seed)))
        .collect();
    let stalled = NbdServer::start_with(&dir, "nbd-server-a", &first, &exports, None);
    let other = NbdServer::start_with(&dir, "nbd-server-b", &second, &exports, None);
    let config = CASES.iter().fold(Config::new(&dir), |config, case| {
        let device = Device::new(case.name).key(r#"policy = "active-passive""#).key(r#"failback = "manual""#);
        let device = case.keys.iter().fold(device, |device, key| device.key(key));
        config.device(
            device
                .path("a", &first.uri(case.name))
                .path_key("priority = 60")
                .path_key(r#"same_cache = "page-cache""#)
                .path("b", &second.uri(case.name))
                .path_key("priority = 40")
                .path_key(r#"same_cache = "page-cache""#),
        )
    });
    let node = Node::start(&dir, &config);
    for case in &CASES {
        node.await_state(case.name, "a", "up");
        node.await_state(case.name, "b", "standby");
    }
    Site { node, stalled, _other: other, dir }
}

#[test]
fn a_server_stopped_for_a_minute_resurrects_nothing() {
    let site = site();
    let mut hosts: Vec<Client> = CASES.iter().map(|case| site.node.open(case.name)).collect();
    // Something is flushed, and path `a` has answered since path `b` is there: what has one cache is
    // known to have it.
    for host in &mut hosts {
        assert_eq!(host.write(0, &X.fill(0, BLOCK)).expect("all is well").error, 0);
        assert_eq!(host.flush().expect("all is well").error, 0);
    }
    let stopped = Instant::now();
    site.stalled.stop_children();
    // All at once: a canary soon tells that the server is not well.
    for host in &mut hosts {
        host.set_read_bound(2 * STOP).expect("a socket has a bound");
        host.submit_write(OFFSET, &A.fill(OFFSET, BLOCK)).expect("the socket takes it");
    }
    for (case, host) in CASES.iter().zip(&mut hosts) {
        let reply = host.reply(|_| 0).expect("answered through the other path");
        assert_eq!(reply.error, 0, "{}: A", case.name);
        host.submit_write(OFFSET, &B.fill(OFFSET, BLOCK)).expect("the socket takes it");
        wait::until_true("B to wait for A", || site.node.device(case.name).number("quarantined") > 0);
    }
    for (case, host) in CASES.iter().zip(&mut hosts) {
        if let Some(error) = case.during {
            let reply = host.reply(|_| 0).expect("answered at the hold");
            assert_eq!(reply.error, error, "{}: B", case.name);
        }
    }
    // The length of the stop is what is tried.
    wait::pass(STOP.saturating_sub(stopped.elapsed()));
    for case in CASES.iter().filter(|case| case.during.is_none()) {
        assert!(site.node.device(case.name).number("inflight") > 0, "{}: B did not wait for A", case.name);
    }
    site.stalled.resume_children();
    for (case, host) in CASES.iter().zip(&mut hosts) {
        if case.during.is_none() {
            assert_eq!(host.reply(|_| 0).expect("released by the late reply").error, 0, "{}: B", case.name);
        }
        assert_storage(&site, case, host);
    }
    for case in &CASES {
        let without_proof = case.during == Some(0);
        assert_eq!(told(&site, case, "quarantine_unproven"), without_proof, "{}: release", case.name);
        assert_eq!(told(&site, case, "ghost_repaired"), without_proof, "{}: repair", case.name);
    }
}

/// The same with gates: their word is there at once, for any length of the stop, and the gate that
/// was stopped drops what it had not begun.
#[test]
fn a_gate_stopped_for_a_minute_keeps_nobody_waiting() {
    let name = "gates";
    let dir = TestDir::new();
    let exports = [(name.to_owned(), dir.patterned_image(name, 4 << 20, 9))];
    let [first, second] = [10809, 10810].map(|port| Endpoint::tcp(loopback(), port));
    let stalled = Gate::start(&dir, "gate-a", std::slice::from_ref(&first), &exports);
    let _other = Gate::start(&dir, "gate-b", std::slice::from_ref(&second), &exports);
    let device = Device::new(name)
        .key(r#"policy = "active-passive""#)
        .key(r#"failback = "manual""#)
        .key(r#"quiesce = "10min""#)
        .path("a", &first.uri(name))
        .path_key("priority = 60")
        .path("b", &second.uri(name))
        .path_key("priority = 40");
    let node = Node::start(&dir, &Config::new(&dir).device(device));
    node.await_state(name, "a", "up");
    node.await_state(name, "b", "standby");
    let mut host = node.open(name);

    let stopped = Instant::now();
    stalled.stop();
    host.submit_write(OFFSET, &A.fill(OFFSET, BLOCK)).expect("the socket takes it");
    wait::until_true("A to be in the queue of the gate that is stopped", || {
        server_queues(stalled.endpoint()).iter().any(|queues| queues.receive_bytes > BLOCK as u64)
    });
    assert_eq!(host.reply(|_| 0).expect("answered through the other path").error, 0, "A");
    assert_eq!(host.write(OFFSET, &B.fill(OFFSET, BLOCK)).expect("nothing is in doubt").error, 0, "B");
    assert_eq!(host.flush().expect("a path is there").error, 0);
    assert!(stopped.elapsed() < STOP, "the gate's word took {} s", stopped.elapsed().as_secs());
    wait::pass(STOP.saturating_sub(stopped.elapsed()));
    stalled.go_on();
    node.await_state(name, "a", "standby");
    let disk = std::fs::read(dir.join(name)).expect("it is there");
    let found = Stamp::check(OFFSET, &disk[OFFSET as usize..OFFSET as usize + BLOCK]);
    assert_eq!(found, Ok(B), "the storage holds the older write");
    let events = node.events_after(0);
    assert!(events.iter().any(|event| event.name == "session_fenced"), "no gate finished A's session");
    assert!(events.iter().all(|event| event.name != "quarantine_unproven"), "a timer let B go");
}

fn told(site: &Site, case: &Case, event: &str) -> bool {
    let events = site.node.events_after(0);
    events.iter().any(|told| told.name == event && told.json.get("device").text() == case.name)
}

/// B where it was answered; A or B where it got EIO.
fn assert_storage(site: &Site, case: &Case, host: &mut Client) {
    wait::until_true("the late copy to be answered", || {
        site.node.path(case.name, "a").inflight == 0 && site.node.device(case.name).number("quarantined") == 0
    });
    if case.during == Some(0) {
        wait::until_true("the late copy to be mended", || told(site, case, "ghost_repaired"));
    }
    assert_eq!(host.flush().expect("a path is there").error, 0);
    let disk = std::fs::read(site.dir.join(case.name)).expect("it is there");
    let found = Stamp::check(OFFSET, &disk[OFFSET as usize..OFFSET as usize + BLOCK]);
    let allowed = found == Ok(B) || (case.during == Some(errno::EIO) && found == Ok(A));
    assert!(allowed, "{}: the storage holds {found:?}", case.name);
}
