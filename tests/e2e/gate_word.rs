// SPDX-License-Identifier: MIT OR Apache-2.0
//! One path at a time behind a gate, as the storage sees it (rule W20, `exclusive = "issue"`): whatever befalls the link,
//! nothing that came over the next path is begun before all is done that came over the one before.
//!
//! The log is that of the storage server behind the gate, which knows neither paths nor Holdfast. So what each request
//! came over is told by its place: those of the first round are all begun before the fault, and have a copy each that came
//! over the first path; what else the log has, their second copies and a second round elsewhere, came over the next one.
//! Each request takes so long there that the fault is noticed while they are at work, and a case where they were not fails
//! (T6).

use std::collections::HashMap;
use std::path::PathBuf;

use tests_support::holdfast::{Config, Device, Gate, Node};
use tests_support::servers::{Interval, Nbdkit, Server, read_log};
use tests_support::wire::Client;
use tests_support::{Cut, Endpoint, Fabric, LinkFault, Relay, TestDir, loopback, wait};

use crate::rig::{DEVICE, PATHS};

/// Sizes of the host's requests in either round; probes have none of them.
const ROUND_BYTES: [u32; 2] = [8192, 12288];
const ROUND_REQUESTS: u64 = 8;
const SIZE: &str = "8M";

/// Of the node: what takes that long is no fault.
const PATIENCE: [&str; 2] = [
    r#"canary = { interval = "5s", idle = "5s", deadline = "2s" }"#,
    r#"deadline = { read = "2s", write = "4s" }"#,
];

/// How the first path fails.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Connection(Cut),
    Link(LinkFault),
}

impl Fault {
    /// How long the server takes for a request: longer than the fault takes to be noticed, and what is left of it then is
    /// far less than the next path waits at most.
    fn service(self) -> [&'static str; 2] {
        match self {
            Self::Connection(_) => ["rdelay=250ms", "wdelay=250ms"],
            Self::Link(_) => ["rdelay=400ms", "wdelay=400ms"],
        }
    }
}

/// A server that takes its time, a gate before it with two addresses, a relay before each of these. Drops in this order.
struct Site {
    host: Client,
    node: Node,
    relays: [Relay; 2],
    _gate: Gate,
    _server: Server,
    log: PathBuf,
    fabric: Fabric,
    _dir: TestDir,
}

impl Site {
    fn start(fault: Fault) -> Self {
        let dir = TestDir::new();
        let fabric = Fabric::new(2);
        let at = Endpoint::Unix(dir.join("server"));
        let log = dir.join("log");
        let server = Nbdkit::memory(SIZE)
            .filter("log", &[&format!("logfile={}", log.display())])
            .filter("delay", &fault.service())
            .threads(64)
            .start(&dir, "server", &at);
        let listen = [0, 1].map(|_| Endpoint::tcp(loopback(), Fabric::PORT));
        let gate = Gate::start(&dir, "gate", &listen, &[(DEVICE.to_owned(), at.uri(""))]);
        let relays = [0, 1].map(|link| Relay::start(fabric.storage(), &fabric.endpoint(link), &listen[link]));
        let mut device = Device::new(DEVICE)
            .key(r#"policy = "active-passive""#)
            .key(r#"exclusive = "issue""#)
            .key(r#"failback = "manual""#)
            // Nothing else is under way when the fault comes.
            .key(r#"id = "one volume""#)
            .key(r#"quiesce = "10min""#);
        for (link, priority) in [(0, 60), (1, 50)] {
            device = device.path(PATHS[link], &fabric.endpoint(link).uri(DEVICE));
            device = device.path_key(&format!("priority = {priority}"));
        }
        let node =
            Node::start_within(fabric.host(), &dir, &Config::new(&dir).defaults(&PATIENCE).device(device));
        node.await_path(DEVICE, PATHS[0], "to be in use", |path| path.access == "optimized");
        node.await_path(DEVICE, PATHS[1], "to be fit", |path| path.state == "standby");
        let host = node.open(DEVICE);
        Self { host, node, relays, _gate: gate, _server: server, log, fabric, _dir: dir }
    }

    /// What the server was asked for by the host in one of the rounds.
    fn logged(&self, round: usize) -> Vec<Interval> {
        let mut log = read_log(&self.log);
        log.retain(|interval| interval.count == u64::from(ROUND_BYTES[round]));
        log
    }

    /// Asks for one round of reads and writes, no two at one place; the length of the answer to each.
    fn submit(&mut self, round: usize) -> HashMap<u64, usize> {
        let len = ROUND_BYTES[round];
        let mut open = HashMap::new();
        for n in 0..ROUND_REQUESTS {
            let offset = (round as u64 * 2 * ROUND_REQUESTS + n) * 64 * 1024;
            let read = self.host.submit_read(offset, len).expect("the socket takes it");
            open.insert(read, len as usize);
            let offset = offset + ROUND_REQUESTS * 64 * 1024;
            let payload = vec![round as u8 + 1; len as usize];
            open.insert(self.host.submit_write(offset, &payload).expect("the socket takes it"), 0);
        }
        open
    }

    fn inject(&self, fault: Fault) {
        match fault {
            Fault::Connection(cut) => self.relays[0].cut(cut),
            Fault::Link(fault) => self.fabric.inject(0, fault),
        }
    }
}

fn nothing_overlaps(fault: Fault) {
    let mut site = Site::start(fault);
    let mut open = site.submit(0);
    wait::until_true("the first round to be at work", || site.logged(0).len() as u64 == 2 * ROUND_REQUESTS);
    site.inject(fault);
    site.node.await_path(DEVICE, PATHS[0], "to be left", |path| path.access != "optimized");
    open.extend(site.submit(1));
    let first = site.logged(0);
    assert!(first.iter().any(|interval| !interval.returned), "{fault:?}: nothing was at work any more (T6)");
    while !open.is_empty() {
        let reply = site.host.reply(|cookie| open[&cookie]).expect("a path is there");
        assert_eq!(reply.error, 0, "{fault:?}");
        open.remove(&reply.cookie);
    }
    let mut of_first: HashMap<u64, Interval> = HashMap::new();
    let mut of_next = site.logged(1);
    assert_eq!(of_next.len() as u64, 2 * ROUND_REQUESTS, "{fault:?}: the second round was carried out once");
    for interval in site.logged(0) {
        match of_first.get(&interval.offset) {
            None => drop(of_first.insert(interval.offset, interval)),
            Some(_) => of_next.push(interval),
        }
    }
    assert!(of_next.len() as u64 > 2 * ROUND_REQUESTS, "{fault:?}: no request was moved (T6)");
    let done = of_first.values().map(|interval| interval.end_us).max().expect("it was at work");
    for interval in of_next {
        assert!(
            interval.begin_us >= done,
            "{fault:?}: {} at {} was begun {} us before the other path was done",
            interval.kind,
            interval.offset,
            done - interval.begin_us
        );
    }
}

#[test]
fn a_reset_is_exclusive_behind_a_gate() {
    nothing_overlaps(Fault::Connection(Cut::Reset));
}

#[test]
fn an_end_of_file_is_exclusive_behind_a_gate() {
    nothing_overlaps(Fault::Connection(Cut::Fin));
}

#[test]
fn a_lost_link_is_exclusive_behind_a_gate() {
    nothing_overlaps(Fault::Link(LinkFault::Down));
}

#[test]
fn packets_lost_to_the_gate_are_exclusive() {
    nothing_overlaps(Fault::Link(LinkFault::DropToStorage));
}

#[test]
fn packets_lost_from_the_gate_are_exclusive() {
    nothing_overlaps(Fault::Link(LinkFault::DropFromStorage));
}
