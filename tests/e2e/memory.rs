// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is kept for safety is inside the memory budget: acknowledged writes for a lost cache (F5), and
//! writes in doubt behind a server that stopped (W3, W6).

use std::time::Duration;

use tests_support::holdfast::{Config, Device, Node};
use tests_support::servers::{Nbdkit, Server};
use tests_support::wire::Client;
use tests_support::{Endpoint, TestDir, loopback, wait};

use crate::rig::DEVICE;

const MIB: u64 = 1 << 20;
const BUDGET: u64 = 32 * MIB;
/// Part of the budget that a node keeps for lost caches.
const RETENTION: u64 = BUDGET / 4;
/// Code, tables and what the allocator keeps.
const SLACK: u64 = 24 * MIB;
const PIECE: usize = 64 << 10;
/// Twice the budget, so that something has to be given up.
const PIECES: u64 = 2 * BUDGET / PIECE as u64;
const DEPTH: usize = 32;

struct Site {
    node: Node,
    servers: Vec<Server>,
    _dir: TestDir,
}

fn site() -> Site {
    let dir = TestDir::new();
    let image = dir.patterned_image("image", 2 * BUDGET, 4);
    let ip = loopback();
    let endpoints = [10809, 10810].map(|port| Endpoint::tcp(ip, port));
    let start = |(at, name): (&Endpoint, &str)| Nbdkit::file(&image).start(&dir, name, at);
    let servers = endpoints.iter().zip(["nbdkit-a", "nbdkit-b"]).map(start).collect();
    let device = Device::new(DEVICE)
        .key(r#"selector = "round-robin""#)
        .path("a", &endpoints[0].uri(""))
        .path("b", &endpoints[1].uri(""));
    let config = Config::new(&dir)
        .node(&format!("memory = \"{}MiB\"", BUDGET / MIB))
        .node("reactors = 1")
        .device(device);
    let node = Node::start(&dir, &config);
    node.await_state(DEVICE, "a", "up");
    node.await_state(DEVICE, "b", "up");
    Site { node, servers, _dir: dir }
}

/// Writes all pieces, never flushing, with [`DEPTH`] in flight; `each` runs now and then.
fn write_all(host: &mut Client, mut each: impl FnMut()) {
    let mut in_flight = 0;
    let take = |host: &mut Client| assert_eq!(host.reply(|_| 0).expect("a path is there").error, 0);
    for piece in 0..PIECES {
        if in_flight == DEPTH {
            take(host);
            in_flight -= 1;
        }
        host.submit_write(piece * PIECE as u64, &vec![piece as u8; PIECE]).expect("the socket takes it");
        in_flight += 1;
        if piece % 64 == 0 {
            each();
        }
    }
    (0..in_flight).for_each(|_| take(host));
}

#[test]
fn acknowledged_writes_are_kept_within_the_budget() {
    let mut site = site();
    let mut host = site.node.open(DEVICE);
    let before = site.node.process().resident_bytes();
    let mut most = 0;
    write_all(&mut host, || most = most.max(site.node.device(DEVICE).number("retained_bytes")));
    assert!(most > MIB, "nothing was retained: {most} bytes");
    let flying = (DEPTH * PIECE) as u64;
    assert!(most <= RETENTION + flying, "{most} bytes are retained, of {RETENTION}");
    let grown = site.node.process().resident_bytes().saturating_sub(before);
    assert!(grown <= BUDGET + SLACK, "the process grew by {grown} bytes");
    println!("retained {most} of {RETENTION} bytes at most; the process grew by {grown}");
}

/// A server that stops holds what it has; what is in doubt behind it is bounded by what may be in flight.
#[test]
fn writes_in_doubt_are_kept_within_the_budget() {
    let mut site = site();
    let mut host = site.node.open(DEVICE);
    let before = site.node.process().resident_bytes();
    site.servers[0].stop();
    let mut most = 0;
    write_all(&mut host, || most = most.max(site.node.device(DEVICE).number("quarantined")));
    let seen = site.node.device(DEVICE).number("quarantined").max(most);
    assert!(seen > 0, "nothing was in doubt");
    assert!(seen <= 128, "{seen} ranges are quarantined: more than a path may have in flight");
    let grown = site.node.process().resident_bytes().saturating_sub(before);
    assert!(grown <= BUDGET + SLACK, "the process grew by {grown} bytes");
    println!("{seen} ranges in doubt; the process grew by {grown} bytes");
    site.servers[0].go_on();
    wait::until_within(Duration::from_mins(1), "nothing to be in doubt any more", || {
        (site.node.device(DEVICE).number("quarantined") == 0).then_some(())
    });
}
