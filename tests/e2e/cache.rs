// SPDX-License-Identifier: MIT OR Apache-2.0
//! A storage server loses its volatile cache (rules F5, F6, F9): the acknowledged, unflushed
//! writes in it are written again, or every session is told.
//!
//! The cache is a real one: nbdkit's cache filter keeps writes in itself until a FLUSH, and
//! dies with it. Each test first shows that the storage did lose what it had acknowledged
//! (T6).

use nix::sys::signal::Signal;
use tests_support::holdfast::{Config, Device, Node};
use tests_support::servers::{Nbdkit, Server, read_log};
use tests_support::wire::{Client, errno};
use tests_support::{Endpoint, Exit, Stamp, TestDir, loopback, wait};

use crate::rig::DEVICE;

const BLOCK: usize = 4096;
const SIZE_BYTES: u64 = 8 << 20;
/// Acknowledged, unflushed writes of each test.
const WRITES: u64 = 32;

fn cached(image: &str) -> Nbdkit {
    Nbdkit::file(image).filter("cache", &["cache=writeback"])
}

/// Blocks lie apart, so that no two share a block of the cache.
fn offset(number: u64) -> u64 {
    (number + 1) * (128 << 10)
}

fn stamp(number: u64) -> Stamp {
    Stamp { writer: 0xca, sequence: number + 1 }
}

fn write_all(host: &mut Client) {
    for number in 0..WRITES {
        let reply = host.write(offset(number), &stamp(number).fill(offset(number), BLOCK));
        assert_eq!(reply.expect("a path is there").error, 0);
    }
}

/// How many of the writes the storage holds.
fn on_disk(image: &str) -> u64 {
    let disk = std::fs::read(image).expect("it is there");
    let holds = |number: &u64| {
        let at = offset(*number) as usize;
        Stamp::check(offset(*number), &disk[at..at + BLOCK]) == Ok(stamp(*number))
    };
    (0..WRITES).filter(holds).count() as u64
}

fn one_path(dir: &TestDir, endpoint: &Endpoint) -> Node {
    let node = Node::start(dir, &Config::new(dir).device(Device::new(DEVICE).path("a", &endpoint.uri(""))));
    node.await_state(DEVICE, "a", "up");
    node
}

fn lose_cache(server: &mut Server, image: &str) {
    server.kill();
    assert_eq!(on_disk(image), 0, "the cache wrote back by itself: nothing is lost");
}

#[test]
fn a_lost_cache_is_written_again() {
    let dir = TestDir::new();
    let image = dir.patterned_image("image", SIZE_BYTES, 7);
    let endpoint = Endpoint::tcp(loopback(), 10809);
    let mut server = cached(&image).start(&dir, "nbdkit", &endpoint);
    let node = one_path(&dir, &endpoint);
    let mut host = node.open(DEVICE);
    write_all(&mut host);
    let event = node.last_event();
    lose_cache(&mut server, &image);
    server.restart(&dir);

    // A read waits for what must be written again.
    for number in 0..WRITES {
        let reply = host.read(offset(number), BLOCK as u32).expect("the path comes back");
        assert_eq!(reply.error, 0);
        assert_eq!(Stamp::check(offset(number), &reply.data), Ok(stamp(number)), "write {number} is lost");
    }
    node.await_event(event, "cache_replayed", |event| event.name == "cache_replayed");
    assert_eq!(host.flush().expect("a path is there").error, 0);
    assert_eq!(on_disk(&image), WRITES, "FLUSH was answered and the storage lacks writes");
}

/// A FLUSH that is under way when the cache goes covers what was acknowledged before it.
#[test]
fn a_flush_after_a_lost_cache_covers_what_was_lost() {
    let dir = TestDir::new();
    let image = dir.patterned_image("image", SIZE_BYTES, 7);
    let endpoint = Endpoint::tcp(loopback(), 10809);
    let mut server = cached(&image).start(&dir, "nbdkit", &endpoint);
    let node = one_path(&dir, &endpoint);
    let mut host = node.open(DEVICE);
    write_all(&mut host);
    lose_cache(&mut server, &image);
    let flush = host.submit(tests_support::wire::command::FLUSH, 0, 0, 0, &[]).expect("the socket takes it");
    server.restart(&dir);
    let reply = host.reply(|_| 0).expect("the path comes back");
    assert_eq!((reply.cookie, reply.error), (flush, 0));
    assert_eq!(on_disk(&image), WRITES, "FLUSH was answered and the storage lacks writes");
}

/// Storage that takes nothing more cannot be repaired: FLUSH says so on every session, again
/// and again (F9).
#[test]
fn a_loss_that_cannot_be_repaired_is_told_to_every_session() {
    let dir = TestDir::new();
    let image = dir.patterned_image("image", SIZE_BYTES, 7);
    let endpoint = Endpoint::tcp(loopback(), 10809);
    let mut server = cached(&image).start(&dir, "nbdkit", &endpoint);
    let node = one_path(&dir, &endpoint);
    let (mut host, mut other) = (node.open(DEVICE), node.open(DEVICE));
    write_all(&mut host);
    let event = node.last_event();
    lose_cache(&mut server, &image);
    let full = Nbdkit::file(&image).filter("error", &["error-pwrite=ENOSPC", "error-pwrite-rate=100%"]);
    let _full = full.start(&dir, "nbdkit-full", &endpoint);

    for round in 0..2 {
        for (name, session) in [("the writer", &mut host), ("another host", &mut other)] {
            let reply = session.flush().expect("the path comes back");
            assert_eq!(reply.error, errno::EIO, "FLUSH {round} of {name}: the loss was not told");
        }
    }
    node.await_event(event, "writes_lost", |event| event.name == "writes_lost");
    assert_eq!(on_disk(&image), 0);
}

/// The storage server loses its cache and the node is stopped in order before it is back: nobody can write it again, so
/// the next node tells of the loss until an operator has taken note (F9).
#[test]
fn a_loss_outlives_an_orderly_stop() {
    let dir = TestDir::new();
    let image = dir.patterned_image("image", SIZE_BYTES, 7);
    let endpoint = Endpoint::tcp(loopback(), 10809);
    let mut server = cached(&image).start(&dir, "nbdkit", &endpoint);
    let mut node = one_path(&dir, &endpoint);
    let mut host = node.open(DEVICE);
    write_all(&mut host);
    lose_cache(&mut server, &image);
    drop(host);
    assert_eq!(node.terminate(wait::BOUND), Exit::Code(0));
    drop(node);
    server.restart(&dir);

    for run in 0..2 {
        let mut node = one_path(&dir, &endpoint);
        for name in ["one host", "another"] {
            let mut host = node.open(DEVICE);
            let reply = host.flush().expect("a path is there");
            assert_eq!(reply.error, errno::EIO, "run {run}, {name}: the loss was not told");
        }
        let status = node.device(DEVICE);
        assert!(
            status.json().get("lost_writes").text().contains("was not written again before the end"),
            "{status:?}"
        );
        node.terminate(wait::BOUND);
    }
    let mut node = one_path(&dir, &endpoint);
    let output = node.cli(&["device", "clear-loss", DEVICE]);
    assert_eq!(output.status, 0, "{output:?}");
    assert_eq!(node.open(DEVICE).flush().expect("a path is there").error, 0);
    node.terminate(wait::BOUND);
    drop(node);
    let node = one_path(&dir, &endpoint);
    assert_eq!(node.open(DEVICE).flush().expect("a path is there").error, 0, "it was taken note of");
}

/// The same while another path is there: an orderly stop writes it again and flushes it first.
#[test]
fn an_orderly_stop_saves_what_a_lost_cache_held() {
    let dir = TestDir::new();
    let image = dir.patterned_image("image", SIZE_BYTES, 7);
    let ip = loopback();
    let (first, second) = (Endpoint::tcp(ip, 10809), Endpoint::tcp(ip, 10810));
    let mut server = cached(&image).start(&dir, "nbdkit-a", &first);
    let other = Nbdkit::file(&image).start(&dir, "nbdkit-b", &second);
    let device = Device::new(DEVICE)
        .path("a", &first.uri(""))
        .path_key("priority = 60")
        .path("b", &second.uri(""))
        .path_key("priority = 40");
    let mut node = Node::start(&dir, &Config::new(&dir).device(device));
    node.await_state(DEVICE, "a", "up");
    node.await_state(DEVICE, "b", "standby");
    let mut host = node.open(DEVICE);
    write_all(&mut host);
    // Not before the node is asked to stop can anything be written again.
    other.stop();
    lose_cache(&mut server, &image);
    drop(host);
    node.process().signal(Signal::SIGTERM);
    other.go_on();
    assert_eq!(node.process().wait_within(wait::BOUND), Exit::Code(0));
    assert_eq!(on_disk(&image), WRITES, "acknowledged writes are gone");
}

/// X1 acknowledged through one path and X2 over it through another; the first server loses
/// its cache: X1 must not come back over X2 (F5).
#[test]
fn what_is_newer_in_another_cache_is_not_written_over() {
    let dir = TestDir::new();
    let image = dir.patterned_image("image", SIZE_BYTES, 7);
    let ip = loopback();
    let (first, second) = (Endpoint::tcp(ip, 10809), Endpoint::tcp(ip, 10810));
    let (log_a, log_b) = (dir.join("requests-a"), dir.join("requests-b"));
    let logging = |nbdkit: Nbdkit, log: &std::path::Path| {
        nbdkit.filter("log", &[&format!("logfile={}", log.display()), "logappend=true"])
    };
    let a = logging(Nbdkit::file(&image), &log_a).filter("cache", &["cache=writeback"]);
    let mut a = a.start(&dir, "nbdkit-a", &first);
    let _b = logging(Nbdkit::file(&image), &log_b).start(&dir, "nbdkit-b", &second);
    let device = Device::new(DEVICE)
        .key(r#"selector = "round-robin""#)
        .path("a", &first.uri(""))
        .path("b", &second.uri(""));
    let node = Node::start(&dir, &Config::new(&dir).device(device));
    node.await_state(DEVICE, "a", "up");
    node.await_state(DEVICE, "b", "up");
    let mut host = node.open(DEVICE);

    // Paths take turns. X1 is one block and X2 two, which is how the logs tell them apart.
    let written = |log: &std::path::Path, blocks: u64| {
        let of_size = |interval: &&tests_support::servers::Interval| {
            interval.kind == "Write" && interval.count == blocks * BLOCK as u64
        };
        read_log(log).iter().filter(of_size).count()
    };
    let (mut x1_only, mut x2_over_x1) = (Vec::new(), Vec::new());
    for number in 0..WRITES {
        let (at, before) = (offset(number), [written(&log_a, 1), written(&log_b, 2)]);
        assert_eq!(host.write(at, &stamp(number).fill(at, BLOCK)).expect("a path is there").error, 0);
        if number % 3 == 0 {
            // Puts the turns out of step, so that some X1 stay the newest.
            x1_only.push(number);
            continue;
        }
        let newer = Stamp { writer: 0xcb, sequence: number + 1 };
        assert_eq!(host.write(at, &newer.fill(at, 2 * BLOCK)).expect("a path is there").error, 0);
        if written(&log_a, 1) > before[0] && written(&log_b, 2) > before[1] {
            x2_over_x1.push(number);
        }
    }
    assert!(x2_over_x1.len() >= 3, "X1 through a and X2 through b never happened");
    let event = node.last_event();
    a.kill();
    a.restart(&dir);
    node.await_event(event, "cache_replayed", |event| event.name == "cache_replayed");
    assert_eq!(host.flush().expect("a path is there").error, 0);

    let disk = std::fs::read(&image).expect("it is there");
    for number in 0..WRITES {
        let at = offset(number);
        let is_x1 = x1_only.contains(&number);
        let expected = if is_x1 { stamp(number) } else { Stamp { writer: 0xcb, sequence: number + 1 } };
        let found = Stamp::check(at, &disk[at as usize..at as usize + BLOCK]);
        assert_eq!(found, Ok(expected), "block {number}, X2 over X1 in another cache: {x2_over_x1:?}");
    }
    wait::until_true("both paths to be in use again", || node.device(DEVICE).state() == "optimal");
}
