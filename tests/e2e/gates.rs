// SPDX-License-Identifier: MIT OR Apache-2.0
//! Failover between paths that lead to gates: what it costs, and whose word counts (semantics 2.4).
//!
//! In each test A is kept by a relay on its way to a gate, its connection is reset, and A is answered
//! over the other path; B over it must wait for proof that the kept copy will never be carried out.

use std::time::{Duration, Instant};

use tests_support::holdfast::{Config, Device, Gate, Node};
use tests_support::wire::Client;
use tests_support::{Cut, Endpoint, Fabric, Relay, Stamp, TestDir, loopback, wait};

use crate::rig::{DEVICE, PATHS};

const BLOCK: usize = 4096;
const SIZE_BYTES: u64 = 4 << 20;
/// How often the wait is measured.
const RUNS: &str = "HOLDFAST_GATE_RUNS";
const RUNS_SHORT: u64 = 10;
/// After so many failovers everything is started anew: paths that fail again and again are held out.
const RUNS_OF_SITE: u64 = 8;

/// Two gates on one file, a relay before each, and a node that uses one path at a time. Drops in this order.
struct Site {
    node: Node,
    relays: Vec<Relay>,
    gates: Vec<Gate>,
    _fabric: Fabric,
    dir: TestDir,
}

impl Site {
    /// `hosts`: where each gate has its registers.
    fn start(hosts: [&str; 2], quiesce: &str) -> Self {
        let dir = TestDir::new();
        let fabric = Fabric::new(2);
        let exports = [(DEVICE.to_owned(), dir.patterned_image("image", SIZE_BYTES, 3))];
        let gate = |path: usize| {
            let at = Endpoint::tcp(loopback(), Fabric::PORT);
            Gate::start_on_host(&dir, hosts[path], &format!("gate-{}", PATHS[path]), &[at], &exports)
        };
        let gates = vec![gate(0), gate(1)];
        let relay =
            |path: usize| Relay::start(fabric.storage(), &fabric.endpoint(path), gates[path].endpoint());
        let relays = vec![relay(0), relay(1)];
        let mut device = Device::new(DEVICE)
            .key(r#"policy = "active-passive""#)
            .key(r#"failback = "manual""#)
            .key(&format!("quiesce = \"{quiesce}\""));
        for (path, name) in PATHS[..2].iter().enumerate() {
            device = device.path(name, &fabric.endpoint(path).uri(DEVICE));
        }
        let node = Node::start_within(fabric.host(), &dir, &Config::new(&dir).device(device));
        let site = Self { node, relays, gates, _fabric: fabric, dir };
        (0..2).for_each(|path| site.await_fit(path));
        site
    }

    fn await_fit(&self, path: usize) {
        self.node.await_path(DEVICE, PATHS[path], "to be fit", |status| {
            ["up", "standby", "probation"].contains(&status.state.as_str()) && status.access != "unavailable"
        });
    }

    fn active(&self) -> usize {
        let is_active = |path: &usize| self.node.path(DEVICE, PATHS[*path]).access == "optimized";
        wait::until("a path to be active", || (0..2).find(is_active))
    }

    /// A is kept on the active path, which is returned, and answered over the other.
    fn fail_over(&self, host: &mut Client, offset: u64, a: Stamp) -> usize {
        let path = self.active();
        self.relays[path].hold();
        host.submit_write(offset, &a.fill(offset, BLOCK)).expect("the socket takes it");
        wait::until_true("A to be kept on its way", || {
            self.relays[path].kept_bytes().iter().any(|kept| *kept >= BLOCK)
        });
        self.relays[path].cut(Cut::Reset);
        assert_eq!(host.reply(|_| 0).expect("answered through the other path").error, 0, "A");
        path
    }

    /// How often an event was told after the one of this number.
    fn told_after(&self, after: u64, event: &str) -> usize {
        self.node.events_after(after).iter().filter(|told| told.name == event).count()
    }

    fn told(&self, event: &str) -> usize {
        self.told_after(0, event)
    }

    fn on_disk(&self, offset: u64) -> Result<Stamp, String> {
        let disk = std::fs::read(self.dir.join("image")).expect("it is there");
        Stamp::check(offset, &disk[offset as usize..offset as usize + BLOCK])
    }
}

fn stamp(writer: u16, sequence: u64) -> Stamp {
    Stamp { writer, sequence }
}

/// A path that a reload adds has the fence's word before it gets I/O: a gate takes writes of sessions with a claim alone,
/// and when the only other path is gone it is the new one's session that finishes what that had under way.
#[test]
fn complaint_17_a_path_that_is_added_is_fenced_before_it_gets_io() {
    let dir = TestDir::new();
    let fabric = Fabric::new(2);
    let exports = [(DEVICE.to_owned(), dir.patterned_image("image", SIZE_BYTES, 3))];
    let gate = Gate::start(&dir, "gate", &[Endpoint::tcp(loopback(), Fabric::PORT)], &exports);
    let relays = [0, 1].map(|link| Relay::start(fabric.storage(), &fabric.endpoint(link), gate.endpoint()));
    let with = |links: &[usize]| {
        let device = Device::new(DEVICE).key("quiesce = \"10min\"");
        let add =
            |device: Device, link: &usize| device.path(PATHS[*link], &fabric.endpoint(*link).uri(DEVICE));
        Config::new(&dir).device(links.iter().fold(device, add))
    };
    let node = Node::start_within(fabric.host(), &dir, &with(&[0]));
    node.await_state(DEVICE, PATHS[0], "up");
    let mut host = node.open(DEVICE);
    let [a, b] = [stamp(0xa, 1), stamp(0xb, 2)];
    relays[0].hold();
    host.submit_write(0, &a.fill(0, BLOCK)).expect("the socket takes it");
    wait::until_true("A to be kept on its way", || relays[0].kept_bytes().iter().any(|kept| *kept >= BLOCK));
    node.rewrite(&with(&[0, 1]));
    assert_eq!(node.cli(&["reload"]).status, 0);
    node.await_path(DEVICE, PATHS[1], "to be there", |path| path.access != "unavailable");
    relays[0].cut(Cut::Reset);
    assert_eq!(host.reply(|_| 0).expect("the new path answers").error, 0, "A");
    assert_eq!(host.write(0, &b.fill(0, BLOCK)).expect("the gate's word ends the wait").error, 0, "B");
    assert!(node.path(DEVICE, PATHS[1]).completed() >= 2);
    relays[0].let_loose();
    assert_eq!(host.flush().expect("a path is there").error, 0);
    let disk = std::fs::read(dir.join("image")).expect("it is there");
    assert_eq!(Stamp::check(0, &disk[..BLOCK]), Ok(b));
}

/// Two gates of one blank volume: its name, which is in their register, is what proves that they lead to one (design 3.8).
#[test]
fn gates_name_a_blank_volume() {
    let dir = TestDir::new();
    std::fs::write(dir.join("blank"), vec![0; SIZE_BYTES as usize]).expect("room for it");
    let exports = [(DEVICE.to_owned(), dir.text("blank"))];
    let [a, b] = ["gate-a", "gate-b"].map(|name| {
        let at = Endpoint::tcp(loopback(), Fabric::PORT);
        Gate::start(&dir, name, &[at], &exports)
    });
    let device = [&a, &b]
        .iter()
        .zip(PATHS)
        .fold(Device::new(DEVICE), |device, (gate, name)| device.path(name, &gate.endpoint().uri(DEVICE)));
    let node = Node::start(&dir, &Config::new(&dir).device(device));
    for name in &PATHS[..2] {
        node.await_state(DEVICE, name, "up");
    }
}

/// The time B takes beyond what a write takes is a report: it decides nothing here.
#[test]
fn a_failover_costs_no_quarantine() {
    let runs: u64 = std::env::var(RUNS).map_or(RUNS_SHORT, |runs| runs.parse().expect("a number"));
    let mut site = Site::start(["registers"; 2], "10min");
    let mut host = site.node.open(DEVICE);
    let (mut waits, mut controls) = (Vec::new(), Vec::new());
    for run in 1..=runs {
        if run % RUNS_OF_SITE == 0 {
            drop((host, site));
            site = Site::start(["registers"; 2], "10min");
            host = site.node.open(DEVICE);
        }
        let offset = run % 512 * BLOCK as u64;
        let before = site.node.last_event();
        let path = site.fail_over(&mut host, offset, stamp(0xa, run));
        let mut timed = |offset: u64, stamp: Stamp| {
            let begun = Instant::now();
            assert_eq!(host.write(offset, &stamp.fill(offset, BLOCK)).expect("a path is there").error, 0);
            begun.elapsed()
        };
        waits.push(timed(offset, stamp(0xb, run)));
        controls.push(timed((512 + run % 512) * BLOCK as u64, stamp(0xc, run)));
        // The kept copy goes on to a session that is over.
        site.relays[path].let_loose();
        wait::until_true("the lost session to be over", || site.relays[path].stalled_ended());
        assert_eq!(site.on_disk(offset), Ok(stamp(0xb, run)), "run {run}");
        site.await_fit(path);
        let told = ["session_fenced", "quarantine_unproven"].map(|event| site.told_after(before, event));
        assert_eq!(told, [1, 0], "run {run}: B was not let go by a gate's word");
    }
    for (what, mut times) in [("B over A in doubt", waits), ("a write beside it", controls)] {
        times.sort_unstable();
        let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)].as_micros();
        println!("{runs} failovers, {what}: p50 {} us, p99 {} us, max {} us", at(50), at(99), at(100));
    }
}

/// Gates of two hosts have a register each: only the one that had A's session can end it. It does
/// when it is reached again, on the path's own next connection.
#[test]
fn a_gate_of_another_host_cannot_speak_for_it() {
    let site = Site::start(["host-a", "host-b"], "10min");
    let mut host = site.node.open(DEVICE);
    let path = site.fail_over(&mut host, 0, stamp(0xa, 1));
    assert_eq!(host.write(0, &stamp(0xb, 1).fill(0, BLOCK)).expect("a path is there").error, 0);
    site.relays[path].let_loose();
    wait::until_true("the lost session to be over", || site.relays[path].stalled_ended());
    assert_eq!(site.on_disk(0), Ok(stamp(0xb, 1)));
    assert_eq!((site.told("session_fenced"), site.told("quarantine_unproven")), (1, 0));
}

/// One that cannot be reached counts as plain storage: B waits for `quiesce`, and that is told.
#[test]
fn a_gate_of_another_host_that_is_away_is_waited_for() {
    let site = Site::start(["host-a", "host-b"], "3s");
    let mut host = site.node.open(DEVICE);
    let path = site.active();
    site.gates[path].stop();
    site.fail_over(&mut host, 0, stamp(0xa, 1));
    let lost = Instant::now();
    assert_eq!(host.write(0, &stamp(0xb, 1).fill(0, BLOCK)).expect("a path is there").error, 0);
    let waited = lost.elapsed();
    assert!(waited >= Duration::from_millis(2500), "B went ahead after {} ms", waited.as_millis());
    assert_eq!((site.told("session_fenced"), site.told("quarantine_unproven")), (0, 1));
    site.gates[path].go_on();
    site.await_fit(path);
}
