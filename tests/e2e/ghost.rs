// SPDX-License-Identifier: MIT OR Apache-2.0
//! The ghost write (rules W3, W4, T4): a server that stalls with a write in hand and
//! executes it after everybody has gone on without it.
//!
//! nbd-server has a child process per connection, so one path can be stopped with a write
//! in its hand while another path to the same file works.

use std::time::Duration;

use tests_support::holdfast::{Config, Device, Node};
use tests_support::servers::NbdServer;
use tests_support::storage::{Faults, Options, Storage};
use tests_support::wire::command;
use tests_support::{Endpoint, Stamp, TestDir, loopback, wait};

use crate::rig::DEVICE;

const BLOCK: usize = 4096;
/// Any block that is not the first: servers treat none specially.
const OFFSET: u64 = 64 * BLOCK as u64;
const A: Stamp = Stamp { writer: 0xa, sequence: 1 };
const B: Stamp = Stamp { writer: 0xb, sequence: 2 };

fn config(dir: &TestDir, first: &Endpoint, second: &Endpoint) -> Config {
    // The first path is preferred, so the write that will be in doubt goes there.
    let device = Device::new(DEVICE)
        .key(r#"policy = "active-passive""#)
        .key(r#"failback = "immediate""#)
        .key(r#"quiesce = "20s""#)
        .path("a", &first.uri("vol0"))
        .path_key("priority = 60")
        .path("b", &second.uri("vol0"))
        .path_key("priority = 40");
    Config::new(dir).device(device)
}

#[test]
fn a_late_write_never_wins_over_a_newer_one() {
    let dir = TestDir::new();
    let image = dir.patterned_image("image", 4 << 20, 3);
    let ip = loopback();
    let (first, second) = (Endpoint::tcp(ip, 10809), Endpoint::tcp(ip, 10810));
    let stalled = NbdServer::start(&dir, "nbd-server-a", &first, "vol0", &image);
    let _other = NbdServer::start(&dir, "nbd-server-b", &second, "vol0", &image);
    let node = Node::start(&dir, &config(&dir, &first, &second));
    node.await_state(DEVICE, "a", "up");
    node.await_state(DEVICE, "b", "standby");
    let (mut writer, mut other_host) = (node.open(DEVICE), node.open(DEVICE));

    // A is sent to the first server, which has it in its socket and does nothing; it is
    // sent again through the second and answered.
    stalled.stop_children();
    let a = writer.submit_write(OFFSET, &A.fill(OFFSET, BLOCK)).expect("the socket takes it");
    let reply = writer.reply(|_| 0).expect("answered through the other path");
    assert_eq!((reply.cookie, reply.error), (a, 0));
    node.await_path(DEVICE, "a", "to be given up", |path| !path.is_up());

    // B, over A, must not be answered while A can still land: the first server lives.
    let b = writer.submit_write(OFFSET, &B.fill(OFFSET, BLOCK)).expect("the socket takes it");
    wait::until_true("B to wait for A", || node.device(DEVICE).number("quarantined") > 0);
    // Everything else goes on: another block, and a read of this one, which has A.
    assert_eq!(other_host.write(OFFSET * 2, &[7; BLOCK]).expect("not held up").error, 0);
    let seen = other_host.read(OFFSET, BLOCK as u32).expect("not held up").data;
    assert_eq!(Stamp::check(OFFSET, &seen), Ok(A), "B was executed while A could still land");

    // The ghost lands now; its late reply is the proof that B waits for.
    stalled.resume_children();
    let reply = writer.reply(|_| 0).expect("released by the late reply");
    assert_eq!((reply.cookie, reply.error), (b, 0));
    assert_eq!(writer.flush().expect("a path is there").error, 0);
    let disk = std::fs::read(&image).expect("it is there");
    let found = Stamp::check(OFFSET, &disk[OFFSET as usize..OFFSET as usize + BLOCK]);
    assert_eq!(found, Ok(B), "the storage holds the older write");
}

/// Without any sign of the old session the newer write waits for `quiesce`, no less.
#[test]
fn without_proof_the_newer_write_waits_for_quiesce() {
    let dir = TestDir::new();
    let image = dir.patterned_image("image", 4 << 20, 3);
    let ip = loopback();
    let (first, second) = (Endpoint::tcp(ip, 10809), Endpoint::tcp(ip, 10810));
    let stalled = Storage::start(&first, Options::of(&image));
    let other = Storage::start(&second, Options::of(&image));
    let device = Device::new(DEVICE)
        .key(r#"policy = "active-passive""#)
        .key(r#"failback = "immediate""#)
        .key(r#"quiesce = "3s""#)
        .path("a", &first.uri("vol0"))
        .path_key("priority = 60")
        .path("b", &second.uri("vol0"))
        .path_key("priority = 40");
    let node = Node::start(&dir, &Config::new(&dir).device(device));
    node.await_state(DEVICE, "a", "up");
    node.await_state(DEVICE, "b", "standby");
    let mut writer = node.open(DEVICE);

    // The server takes A and then loses its connections: nothing can be proven any more.
    stalled.set(Faults { hold_execution: true, ..Faults::none() });
    writer.submit_write(OFFSET, &A.fill(OFFSET, BLOCK)).expect("the socket takes it");
    wait::until_true("A to be in doubt", || stalled.record().count_of(command::WRITE) > 0);
    assert_eq!(writer.reply(|_| 0).expect("answered through the other path").error, 0);
    drop(stalled);
    let lost = std::time::Instant::now();

    let reply = writer.write(OFFSET, &B.fill(OFFSET, BLOCK)).expect("released by time");
    assert_eq!(reply.error, 0);
    let waited = lost.elapsed();
    assert!(waited >= Duration::from_millis(2500), "B went ahead after {} ms", waited.as_millis());
    assert_eq!(other.record().count(|entry| entry.head == B.head()), 1);
}
