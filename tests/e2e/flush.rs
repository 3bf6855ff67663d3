// SPDX-License-Identifier: MIT OR Apache-2.0
//! FLUSH over several caches (rules F1 to F4), as the storage servers see it.

use std::time::{Duration, Instant};

use tests_support::storage::{Faults, RequestEntry};
use tests_support::wait;
use tests_support::wire::{command, errno};

use crate::rig::{DEVICE, Rig, RigOptions};

fn flushes_after(rig: &Rig, path: usize, since: Instant) -> usize {
    let is_flush = |entry: &RequestEntry| entry.command == command::FLUSH && entry.arrived > since;
    rig.storage(path).record().count(is_flush)
}

fn writes_of(rig: &Rig, path: usize) -> usize {
    rig.storage(path).record().count_of(command::WRITE)
}

/// Writes until each path has carried some, then returns the moment after the last answer.
fn dirty_every_path(rig: &Rig) -> Instant {
    let mut host = rig.node.open(DEVICE);
    let before = [0, 1].map(|path| writes_of(rig, path));
    let mut block = 0;
    wait::until_true("each path to carry writes", || {
        block += 1;
        // Several at once, so that a selector has reason to use both.
        for offset in 0..16 {
            host.submit_write((block % 64 * 16 + offset) * 4096, &[block as u8; 4096]).expect("taken");
        }
        for _ in 0..16 {
            assert_eq!(host.reply(|_| 0).expect("answered").error, 0);
        }
        [0, 1].iter().all(|path| writes_of(rig, *path) > before[*path])
    });
    Instant::now()
}

#[test]
fn each_cache_with_unflushed_writes_is_flushed() {
    let rig = RigOptions::new(2).misbehaving().separate_caches().start();
    let written = dirty_every_path(&rig);
    assert_eq!(rig.node.open(DEVICE).flush().expect("answered").error, 0);
    for path in 0..2 {
        assert!(flushes_after(&rig, path, written) >= 1, "path {path} holds unflushed writes");
    }
}

/// The answer of one cache is not enough.
#[test]
fn a_flush_waits_for_the_slowest_cache() {
    let rig = RigOptions::new(2).misbehaving().separate_caches().start();
    dirty_every_path(&rig);
    rig.storage(1).set(Faults { hold_replies: true, ..Faults::none() });
    let fired = rig.storage(1).record().faults_fired();
    let mut host = rig.node.open(DEVICE);
    host.submit(command::FLUSH, 0, 0, 0, &[]).expect("the socket takes it");
    wait::until_true("the flush to reach the slow server", || {
        let record = rig.storage(1).record();
        record.faults_fired() > fired && record.requests().iter().any(|e| e.command == command::FLUSH)
    });
    host.set_read_bound(Duration::from_millis(300)).expect("a socket has a bound");
    assert!(host.reply(|_| 0).is_err(), "answered before the second cache was flushed");
    rig.storage(1).set(Faults::none());
    host.set_read_bound(wait::BOUND).expect("a socket has a bound");
    assert_eq!(host.reply(|_| 0).expect("answered now").error, 0);
}

/// A cache that is away with acknowledged writes: FLUSH waits for it, is sent there when
/// it is back, and an event says what that rests on.
#[test]
fn a_flush_waits_for_a_cache_that_is_away() {
    // Without retention nothing can be written again elsewhere (F6).
    let mut rig = RigOptions::new(2).misbehaving().separate_caches().key(r#"retention = "0B""#).start();
    dirty_every_path(&rig);
    let event = rig.node.last_event();
    rig.fabric.inject(0, tests_support::LinkFault::Reset);
    rig.node.await_path(DEVICE, "a", "to be down", |path| !path.is_up());
    let mut host = rig.node.open(DEVICE);
    let lost = Instant::now();
    host.submit(command::FLUSH, 0, 0, 0, &[]).expect("the socket takes it");
    // Reads and writes go on meanwhile.
    let mut other = rig.node.open(DEVICE);
    for block in 0..50 {
        assert_eq!(other.write(block * 4096, &[1; 4096]).expect("a path is there").error, 0);
    }
    host.set_read_bound(Duration::from_millis(300)).expect("a socket has a bound");
    assert!(host.reply(|_| 0).is_err(), "answered while a dirty cache was away");
    rig.fabric.heal(0);
    host.set_read_bound(wait::BOUND).expect("a socket has a bound");
    assert_eq!(host.reply(|_| 0).expect("answered when it is back").error, 0);
    assert!(flushes_after(&rig, 0, lost) >= 1, "the cache that was away was never flushed");
    rig.node.await_event(event, "cache_unproven", |event| event.name == "cache_unproven");
    rig.node.process().assert_running();
}

/// F6: what a cache that is away holds was retained, is written again through the other path,
/// and is durable there when the FLUSH is answered.
#[test]
fn a_flush_makes_good_what_a_lost_cache_held() {
    let rig = RigOptions::new(2).misbehaving().separate_caches().start();
    dirty_every_path(&rig);
    let event = rig.node.last_event();
    rig.fabric.inject(0, tests_support::LinkFault::Reset);
    rig.node.await_path(DEVICE, "a", "to be down", |path| !path.is_up());
    let lost = Instant::now();
    assert_eq!(rig.node.open(DEVICE).flush().expect("answered while a cache is away").error, 0);
    assert!(flushes_after(&rig, 1, lost) >= 1);
    rig.node.await_event(event, "cache_replayed", |event| event.name == "cache_replayed");
    // Every block that the lost server had acknowledged is written through the other one.
    let blocks = |path: usize| -> std::collections::BTreeSet<u64> {
        let requests = rig.storage(path).record().requests();
        let writes = requests.iter().filter(|entry| entry.command == command::WRITE);
        writes.flat_map(|entry| (entry.offset..entry.offset + u64::from(entry.len)).step_by(4096)).collect()
    };
    let (lost_blocks, here) = (blocks(0), blocks(1));
    assert!(!lost_blocks.is_empty() && lost_blocks.is_subset(&here), "{lost_blocks:?} and {here:?}");
}

/// With one declared cache any path can make all writes durable.
#[test]
fn a_shared_cache_is_flushed_through_any_path() {
    let rig = RigOptions::new(2).misbehaving().start();
    dirty_every_path(&rig);
    rig.fabric.inject(0, tests_support::LinkFault::Reset);
    rig.node.await_path(DEVICE, "a", "to be down", |path| !path.is_up());
    let lost = Instant::now();
    assert_eq!(rig.node.open(DEVICE).flush().expect("answered").error, 0);
    assert!(flushes_after(&rig, 1, lost) >= 1);
}

/// A FLUSH that storage could not carry out is told to the host that asked (rule F9):
/// the storage may have lost what it had acknowledged, and a second FLUSH would not know.
#[test]
fn a_failed_flush_is_told() {
    let rig = RigOptions::new(2).misbehaving().start();
    dirty_every_path(&rig);
    let event = rig.node.last_event();
    for path in 0..2 {
        rig.storage(path).set(Faults { flush_error: Some(errno::EIO), ..Faults::none() });
    }
    assert_eq!(rig.node.open(DEVICE).flush().expect("answered").error, errno::EIO);
    rig.node.await_event(event, "flush_failed", |event| event.name == "flush_failed");
}
