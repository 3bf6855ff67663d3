// SPDX-License-Identifier: MIT OR Apache-2.0
//! Active-passive as the storage sees it (rule W20): never requests in flight on two paths.
//!
//! Judged by the logs of the storage servers, which know nothing of Holdfast. Host requests
//! have a size of their own, so probes do not count.

use std::time::Duration;

use tests_support::servers::{Interval, read_log};
use tests_support::wait;

use crate::rig::{DEVICE, Fault, PATHS, Rig, RigOptions};

/// Size of every host request of these tests.
const REQUEST_BYTES: u64 = 8192;
/// Requests that the load has in flight.
const DEPTH: usize = 16;

fn active_passive(key: &'static str) -> Rig {
    RigOptions::new(2)
        .logging()
        .key(r#"policy = "active-passive""#)
        .key(r#"failback = "manual""#)
        .key(key)
        .start()
}

/// The path that carries I/O now, and the other.
fn active_and_passive(rig: &Rig) -> (usize, usize) {
    let is_up = |path: &usize| rig.node.path(DEVICE, PATHS[*path]).is_up();
    let active = wait::until("a path to be active", || (0..2).find(is_up));
    (active, 1 - active)
}

/// Runs a load while `away` takes it off the active path, twice, and `back` makes that
/// path fit to be next.
fn switch_under_load(rig: &mut Rig, away: impl Fn(&mut Rig, usize), back: impl Fn(&mut Rig, usize)) {
    let fio = rig.fio().arg("--bs=8k").start(&rig.dir, "fio");
    for _ in 0..2 {
        let (active, passive) = active_and_passive(rig);
        rig.node.await_in_use(DEVICE, &[PATHS[active]], 100);
        let before = rig.node.path(DEVICE, PATHS[passive]).completed();
        away(rig, active);
        rig.node.await_path(DEVICE, PATHS[passive], "to take over", |path| path.completed() > before + 100);
        back(rig, active);
        rig.node.await_path(DEVICE, PATHS[active], "to be fit again", |path| {
            path.state == "standby" || path.state == "probation"
        });
    }
    fio.finish().assert_clean();
}

/// What a server has logged of host requests.
fn host_requests(rig: &Rig, path: usize) -> Vec<Interval> {
    let mut log = read_log(&rig.dir.join(&format!("requests-{}", PATHS[path])));
    log.retain(|interval| interval.count == REQUEST_BYTES);
    log
}

/// [`assert_exclusive_if_used`], and both were used.
fn assert_exclusive(rig: &Rig) {
    assert!(assert_exclusive_if_used(rig).iter().all(|requests| *requests > 100), "only one server was used");
}

/// Fails if the two servers ever worked on host requests at the same moment; returns how
/// many each had.
fn assert_exclusive_if_used(rig: &Rig) -> [usize; 2] {
    let mut spans: Vec<(u64, u64, usize)> = Vec::new();
    for path in 0..2 {
        let requests = host_requests(rig, path);
        spans.extend(requests.iter().map(|interval| (interval.begin_us, interval.end_us, path)));
    }
    assert_apart(spans)
}

/// Fails if spans (begin, end, path) of the two paths overlap; returns how many each has.
fn assert_apart<T: Copy + Ord + std::fmt::Debug>(mut spans: Vec<(T, T, usize)>) -> [usize; 2] {
    spans.sort_unstable();
    let mut requests = [0, 0];
    let mut latest: [Option<T>; 2] = [None, None];
    for (begin, end, path) in spans {
        let other = latest[1 - path];
        assert!(
            other.is_none_or(|other| begin >= other),
            "server {} began at {begin:?}, before the other was done ({other:?})",
            PATHS[path]
        );
        latest[path] = latest[path].max(Some(end));
        requests[path] += 1;
    }
    requests
}

#[test]
fn commands_switch_without_overlap() {
    let mut rig = active_passive(r#"exclusive = "issue""#);
    switch_under_load(
        &mut rig,
        |rig, active| rig.node.path_command("drain", DEVICE, PATHS[active]),
        |rig, active| rig.node.path_command("reinstate", DEVICE, PATHS[active]),
    );
    assert_exclusive(&rig);
}

/// What a server has taken in when its connection is reset it carries out all the same: `issue` is about what is
/// sent. So a request may overlap that was in flight at a reset: it is among the last of its connection, and the
/// other server was asked for the same.
#[test]
fn resets_switch_without_overlap() {
    let mut rig = active_passive(r#"exclusive = "issue""#);
    switch_under_load(&mut rig, |rig, active| rig.fabric.reset_connections(active), |_, _| {});
    let logs = [host_requests(&rig, 0), host_requests(&rig, 1)];
    let mut spans = Vec::new();
    for (path, log) in logs.iter().enumerate() {
        for (at, one) in log.iter().enumerate() {
            let same = |other: &&Interval| (&other.kind, other.offset) == (&one.kind, one.offset);
            let later = log[at + 1..].iter().filter(|other| other.connection == one.connection);
            let is_last = later.take(DEPTH).count() < DEPTH;
            if !(is_last && logs[1 - path].iter().any(|other| same(&other))) {
                spans.push((one.begin_us, one.end_us, path));
            }
        }
    }
    assert!(assert_apart(spans).iter().all(|requests| *requests > 100), "only one server was used");
}

#[test]
fn kills_switch_without_overlap() {
    let mut rig = active_passive(r#"exclusive = "issue""#);
    switch_under_load(
        &mut rig,
        |rig, active| rig.inject(active, Fault::Kill),
        |rig, active| rig.heal(active, Fault::Kill),
    );
    assert_exclusive(&rig);
}

/// With `proven` the other path starts only after proof, whatever the fault: while a
/// server may still hold requests, nothing is sent to the other.
fn proven(fault: Fault) {
    let mut rig = active_passive(r#"exclusive = "proven""#);
    let fio = rig.fio().arg("--bs=8k").start(&rig.dir, "fio");
    let (active, passive) = active_and_passive(&rig);
    rig.node.await_in_use(DEVICE, &[PATHS[active]], 100);
    rig.take_down(active, fault);
    rig.heal(active, fault);
    let before = [0, 1].map(|path| rig.node.path(DEVICE, PATHS[path]).completed());
    wait::until_true("the load to go on", || {
        let path = |path: usize| rig.node.path(DEVICE, PATHS[path]).completed();
        path(active) > before[active] + 100 || path(passive) > before[passive] + 100
    });
    fio.finish().assert_clean();
    assert_exclusive_if_used(&rig);
}

#[test]
fn proven_exclusion_holds_for_a_stopped_server() {
    proven(Fault::Stop);
}

#[test]
fn proven_exclusion_holds_for_a_killed_server() {
    proven(Fault::Kill);
}

#[test]
fn proven_exclusion_holds_for_a_reset() {
    proven(Fault::Reset);
}

#[test]
fn proven_exclusion_holds_for_a_lost_link() {
    proven(Fault::LinkDown);
}

#[test]
fn proven_exclusion_holds_for_packets_lost_to_the_storage() {
    proven(Fault::DropToStorage);
}

#[test]
fn proven_exclusion_holds_for_packets_lost_from_the_storage() {
    proven(Fault::DropFromStorage);
}

/// The same for faults that only a misbehaving server makes, judged by its own record. A
/// request without an answer counts from its arrival: it was cut, not executed.
fn proven_on_misbehaving_servers(fault: Fault) {
    let mut rig = RigOptions::new(2)
        .for_fault(fault)
        .key(r#"policy = "active-passive""#)
        .key(r#"failback = "manual""#)
        .key(r#"exclusive = "proven""#)
        .start();
    let fio = rig.fio().arg("--bs=8k").start(&rig.dir, "fio");
    let mut switched = false;
    for _ in 0..2 {
        let (active, passive) = active_and_passive(&rig);
        rig.node.await_in_use(DEVICE, &[PATHS[active]], 100);
        rig.take_down(active, fault);
        rig.heal(active, fault);
        let completed = |path: usize| rig.node.path(DEVICE, PATHS[path]).completed();
        let before = [completed(active), completed(passive)];
        wait::until_true("the load to go on", || {
            switched |= completed(passive) > before[1] + 100;
            switched || completed(active) > before[0] + 100
        });
        rig.node.await_path(DEVICE, PATHS[active], "to be fit again", |path| path.state != "down");
    }
    fio.finish().assert_clean();
    let mut spans = Vec::new();
    for path in 0..2 {
        let requests = rig.storage(path).record().requests();
        let ours = requests.iter().filter(|entry| u64::from(entry.len) == REQUEST_BYTES);
        spans.extend(ours.map(|entry| (entry.arrived, entry.answered.unwrap_or(entry.arrived), path)));
    }
    let requests = assert_apart(spans);
    assert!(requests.iter().sum::<usize>() > 200, "hardly any request: {requests:?}");
    println!("{fault:?}: requests of each server {requests:?}, switched: {switched}");
}

#[test]
fn proven_exclusion_holds_for_eio() {
    proven_on_misbehaving_servers(Fault::Eio);
}

#[test]
fn proven_exclusion_holds_for_a_cut_payload() {
    proven_on_misbehaving_servers(Fault::CutPayload);
}

/// No time is a proof: also long after `quiesce` the other server gets nothing.
#[test]
fn proven_exclusion_outlasts_quiesce() {
    let mut rig = active_passive("exclusive = \"proven\"\nquiesce = \"1500ms\"");
    let fio = rig.fio().arg("--bs=8k").start(&rig.dir, "fio");
    let (active, passive) = active_and_passive(&rig);
    rig.node.await_in_use(DEVICE, &[PATHS[active]], 100);
    rig.take_down(active, Fault::Stop);
    wait::pass(Duration::from_secs(4));
    assert_eq!(host_requests(&rig, passive).len(), 0, "the other server was used without proof");
    rig.heal(active, Fault::Stop);
    let before = host_requests(&rig, active).len();
    wait::until_true("the load to go on", || {
        host_requests(&rig, active).len() > before + 100 || host_requests(&rig, passive).len() > 100
    });
    fio.finish().assert_clean();
    assert_exclusive_if_used(&rig);
}
