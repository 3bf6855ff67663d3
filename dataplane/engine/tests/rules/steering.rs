// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is held against a path, what follows, and what it costs a host (design 3.4, 3.5).
//!
//! Tests named `complaint_` answer complaints of users of comparable systems: `docs/complaints.md`.

use engine::{Event, SendData};
use nbd::Command::{Read, Write};
use nbd::Errno;
use program::{AccessPolicy, DeviceProgram, MILLISECOND, Nanos, PathCommand, SECOND, SelectorKind};

use crate::rig::{Link, Rig};
use crate::script::{Script, device};

/// The last decision of these words about a path.
fn decided(s: &Script, path: usize, what: &str) -> program::Decision {
    let all = s.engine.explain(s.now).paths[path].decisions.clone();
    let found = all.iter().rfind(|decision| decision.what == what).cloned();
    found.unwrap_or_else(|| panic!("no decision `{what}` among {all:#?}"))
}

fn fails(s: &mut Script, path: usize) {
    s.reset(path);
    s.wait(0);
    s.open_path(path, crate::script::offer());
}

fn flapping(program: &DeviceProgram, down: Link) -> Rig {
    let paths = program.paths.len();
    let mut rig = Rig::new(Script::up(program), &vec![10 * MILLISECOND; paths], 64, 8);
    for _ in 0..40 {
        rig.run(2 * SECOND);
        rig.set(0, down);
        rig.run(SECOND);
        rig.set(0, Link::Well);
    }
    rig
}

/// A path that is up 2 s and down 1 s for two minutes costs less than 1 % after the first, whether
/// its connections break or its link is silent; and it makes no storm of events.
#[test]
fn complaint_16_a_flapping_path_costs_nothing_after_a_minute() {
    for down in [Link::Down, Link::Silent] {
        let rig = flapping(&device(2), down);
        let well = Rig::new(Script::up(&device(1)), &[10 * MILLISECOND], 64, 8);
        let alone = {
            let mut well = well;
            well.run(10 * SECOND);
            well.rate(SECOND, 10 * SECOND)
        };
        let rate = rig.rate(60 * SECOND, 120 * SECOND);
        assert!(rate > 0.99 * alone, "{down:?}: {rate} of {alone} answers per second");
        assert!(rig.script.replies.iter().all(|(_, result)| result.is_ok()));
        let held = rig.script.events.iter().filter(|&&name| name == "path_held_out").count();
        assert!((2..=4).contains(&held), "{down:?}: held out {held} times");
        assert!(rig.script.events.len() < 60, "{down:?}: {} events", rig.script.events.len());
    }
}

/// A link that flickers for an hour: held out, the path is not connected and reset without pause.
#[test]
fn complaint_16_a_flickering_link_is_tried_ever_less_often() {
    let mut s = Script::up(&device(2));
    let mut connects = 0;
    for _ in 0..36_000 {
        if s.opening.iter().any(|(_, path)| *path == 0) {
            s.open_path(0, crate::script::offer());
            connects += 1;
        }
        // Up for 50 ms, gone for 50 ms.
        s.wait_alive(50 * MILLISECOND, |_| true);
        if s.lanes.iter().any(|(_, path, _)| *path == 0) {
            s.reset(0);
        }
        s.wait_alive(50 * MILLISECOND, |_| true);
    }
    assert!((10..=300).contains(&connects), "{connects} connections");
    assert!(s.events.len() < 1000, "{} events", s.events.len());
    assert_eq!(decided(&s, 0, "wait before it connects again: it is held out").rule, "failure-limit");
    // The other path goes: this one is tried at once.
    s.reset(1);
    s.wait(0);
    s.open_path(0, crate::script::offer());
    let read = s.request(Read, 0, 4096);
    let sent = s.sent.pop_back().expect("sent at once");
    s.answer(sent, Ok(()));
    assert_eq!(s.result(read), Some(Ok(())));
}

/// More than five failures in ten minutes: held out for 30 s, then it begins with canaries. A
/// reset whose connection is back at once is a failure, too.
#[test]
fn a_path_that_keeps_failing_is_held_out() {
    let mut s = Script::up(&device(2));
    for n in 1..=5 {
        fails(&mut s, 0);
        s.wait_alive(SECOND, |_| true);
        assert_ne!(s.state(0), "held", "after {n} failures");
    }
    fails(&mut s, 0);
    s.wait_alive(SECOND, |_| true);
    assert_eq!(s.state(0), "held");
    assert!(s.reason(0).contains("6 failures within 10 min"), "{}", s.reason(0));
    let decision = decided(&s, 0, "hold it out");
    assert_eq!((decision.rule, decision.figures[0].value), ("failure-limit", 6));
    assert_eq!(decision.figures[0].limit, Some((program::Comparison::Above, 5)));
    assert!(decision.until.contains("no other path is left") && decision.refused.len() == 2);
    for n in 0..50 {
        s.request(Read, n * 4096, 4096);
        let sent = s.take();
        assert_eq!(sent.path, 1, "no host I/O on a path that is held out");
        s.answer(sent, Ok(()));
    }
    s.wait_alive(28 * SECOND, |_| true);
    assert_eq!(s.state(0), "held");
    s.wait_alive(2 * SECOND, |_| true);
    assert_eq!(s.state(0), "probation");
    s.wait_alive(12 * SECOND, |_| true);
    assert_eq!(s.state(0), "up");
    // An operator's word ends it at once.
    fails(&mut s, 0);
    s.wait_alive(SECOND, |_| true);
    assert_eq!(s.state(0), "held");
    s.event(Event::Path { path: 0, command: PathCommand::Reinstate });
    s.wait_alive(12 * SECOND, |_| true);
    assert_eq!(s.state(0), "up");
    assert_eq!(s.events.iter().filter(|&&name| name == "path_held_out").count(), 2);
}

/// However often the only path fails, it is used the moment it is there; so is one that is held
/// out when the other goes.
#[test]
fn complaint_12_the_last_usable_path_is_never_held_back() {
    let mut s = Script::up(&device(1));
    for _ in 0..20 {
        fails(&mut s, 0);
        let read = s.request(Read, 0, 4096);
        let sent = s.sent.pop_back().expect("sent at once");
        assert_eq!(sent.data, SendData::Land);
        s.answer(sent, Ok(()));
        assert_eq!(s.result(read), Some(Ok(())));
        s.wait_alive(SECOND, |_| true);
    }
    let mut s = Script::up(&device(2));
    for _ in 0..6 {
        fails(&mut s, 0);
        s.wait_alive(SECOND, |_| true);
    }
    assert_eq!(s.state(0), "held");
    s.reset(1);
    let read = s.request(Read, 0, 4096);
    let sent = s.take();
    assert_eq!(sent.path, 0);
    assert_ne!(s.state(0), "held", "it is used");
    s.answer(sent, Ok(()));
    assert_eq!(s.result(read), Some(Ok(())));
    assert_eq!(s.engine.status(s.now).state.as_str(), "degraded");
}

/// What all paths share is nobody's fault: a storage host that restarts time and again holds
/// out none of the paths to it for what it did while none was left.
#[test]
fn a_failure_of_all_paths_is_not_held_against_the_last() {
    let mut s = Script::up(&device(2));
    for _ in 0..10 {
        s.reset(0);
        s.reset(1);
        s.wait(0);
        s.open_path(0, crate::script::offer());
        s.open_path(1, crate::script::offer());
        s.wait_alive(20 * SECOND, |_| true);
    }
    assert_ne!(s.state(1), "held");
}

/// 3.5: a path that spoils one request in fifty, and fails no check, is used while nothing
/// better is; a clean minute brings it back.
#[test]
fn complaint_6_a_marginal_path_is_demoted() {
    let mut s = Script::up(&device(2));
    let mut spoilt = 0;
    for n in 0_u64..2_000 {
        s.request(Read, n % 1000 * 4096, 4096);
        while let Some(sent) = s.sent.pop_front() {
            let spoils = sent.path == 0 && n.is_multiple_of(25) && sent.data == SendData::Land;
            spoilt += u32::from(spoils);
            s.answer(sent, if spoils { Err(Errno::Io) } else { Ok(()) });
        }
        s.wait_alive(20 * MILLISECOND, |_| true);
        if s.state(0) == "slow" {
            break;
        }
    }
    assert!(s.replies.iter().all(|(_, result)| result.is_ok()), "each was answered by the other path");
    assert_eq!((s.state(0), spoilt), ("slow", 10));
    assert!(s.reason(0).contains("it spoilt 10 of"), "{}", s.reason(0));
    assert!(s.events.contains(&"path_marginal"));
    assert_eq!(decided(&s, 0, "demote it").rule, "marginal");
    s.request(Read, 0, 4096);
    let sent = s.take();
    assert_eq!(sent.path, 1);
    s.answer(sent, Ok(()));
    s.wait_alive(61 * SECOND, |_| true);
    assert_eq!(s.state(0), "up");
}

/// W7: while a path answers, its EIO of a request another path may answer better reaches no
/// host, though that other path is held back for whatever reason.
#[test]
fn complaint_9_a_path_that_is_held_back_is_asked_for_its_opinion() {
    let mut program = device(2);
    program.paths[1].priority = 10;
    let mut s = Script::up(&program);
    let read = s.request(Read, 0, 4096);
    let first = s.take();
    s.answer(first, Err(Errno::Io));
    let second = s.take();
    assert_eq!((first.path, second.path), (0, 1), "also a path of a lesser group");
    s.answer(second, Ok(()));
    assert_eq!(s.result(read), Some(Ok(())));
}

/// W7: a path that an operator changes is one path, before and after: its EIO is no second opinion on its EIO.
#[test]
fn a_changed_path_is_no_second_opinion() {
    for answered_before in [true, false] {
        let mut program = DeviceProgram { selector: SelectorKind::RoundRobin, ..device(2) };
        program.paths[1].in_flight = 1;
        let mut s = Script::up(&program);
        let reads = [0, 1].map(|n| s.request(Read, n * 4096, 4096));
        let (refused, busy) = (s.take(), s.take());
        assert_eq!((refused.path, busy.path), (0, 1), "the other path has no room left");
        if answered_before {
            s.answer(refused, Err(Errno::Io));
        }
        program.paths[0].in_flight += 1;
        s.event(Event::Program(Box::new(program)));
        if !answered_before {
            s.answer(refused, Err(Errno::Io));
        }
        s.open_path(0, crate::script::offer());
        while let Some(at) = s.sent.iter().position(|sent| sent.data == SendData::Land && sent.path == 0) {
            let sent = s.sent.remove(at).expect("it is there");
            s.answer(sent, Err(Errno::Io));
        }
        assert!(s.replies.is_empty(), "before the change: {answered_before}");
        s.answer(busy, Ok(()));
        let second = s.sent.iter().copied().find(|sent| sent.data == SendData::Land).expect("it is asked");
        assert_eq!(second.path, 1);
        s.answer(second, Ok(()));
        assert_eq!(
            reads.map(|read| s.result(read)),
            [Some(Ok(())); 2],
            "before the change: {answered_before}"
        );
    }
}

/// W7: an EIO from before a time without any path is not believed when one is back; that path is asked again.
#[test]
fn an_eio_from_before_a_time_without_paths_is_asked_again() {
    let mut s = Script::up(&device(2));
    s.reset(1);
    let read = s.request(Read, 0, 4096);
    while let Some(sent) = s.sent.pop_front() {
        assert_eq!((sent.path, sent.data), (0, SendData::Land));
        s.answer(sent, Err(Errno::Io));
    }
    assert_eq!(s.result(read), None, "another path may do better");
    s.reset(0);
    s.wait(2 * policies::limits::SECOND_OPINION);
    s.open_path(0, crate::script::offer());
    s.wait(0);
    assert_eq!(s.result(read), None);
    let sent = s.sent.iter().copied().find(|sent| sent.data == SendData::Land).expect("asked again");
    s.answer(sent, Ok(()));
    assert_eq!(s.result(read), Some(Ok(())));
}

fn slow_pair(access: AccessPolicy, selector: SelectorKind) -> DeviceProgram {
    DeviceProgram { access, selector, ..device(2) }
}

/// A path that is ten times as slow as its sibling for a minute is demoted, keeps its lanes and
/// its canaries, and returns after five clean minutes. With one path there is nothing to compare.
#[test]
fn complaint_12_a_slow_path_is_demoted_and_returns() {
    let mut program = slow_pair(AccessPolicy::ActiveActive, SelectorKind::RoundRobin);
    program.paths[0].priority = 60;
    program.paths[1].priority = 60;
    let mut rig = Rig::new(Script::up(&program), &[40 * MILLISECOND, 4 * MILLISECOND], 64, 4);
    rig.run(70 * SECOND);
    assert_eq!(rig.script.state(0), "slow", "{:?}", rig.script.events);
    let reason = rig.script.reason(0);
    assert!(reason.contains("of the last 12 windows") && reason.contains("siblings need"), "{reason}");
    assert_eq!(decided(&rig.script, 0, "demote it").rule, "slow");
    let before = rig.sent[0];
    rig.run(10 * SECOND);
    assert_eq!(rig.sent[0], before, "no host request while the other is there");
    assert_eq!(rig.script.engine.status(rig.script.now).paths[0].lanes_up, 1);
    rig.service[0] = 4 * MILLISECOND;
    rig.run(310 * SECOND);
    assert_eq!(rig.script.state(0), "up", "{}", rig.script.reason(0));
    assert!(rig.script.events.contains(&"path_restored"));
}

/// Two slow paths are a slow storage: told, and none is demoted.
#[test]
fn slow_storage_demotes_nobody() {
    let program = slow_pair(AccessPolicy::ActiveActive, SelectorKind::RoundRobin);
    let mut rig = Rig::new(Script::up(&program), &[4 * MILLISECOND, 4 * MILLISECOND], 64, 4);
    rig.run(30 * SECOND);
    rig.service = vec![40 * MILLISECOND, 44 * MILLISECOND];
    rig.run(70 * SECOND);
    assert!(rig.script.events.contains(&"storage_slow"), "{:?}", rig.script.events);
    assert_eq!([rig.script.state(0), rig.script.state(1)], ["up", "up"]);
}

/// With two paths of which one is 30 ms slow, reads come three times as fast as by turns, and
/// 95 % as fast as over the fast path alone.
#[test]
fn complaint_12_reads_keep_the_speed_of_the_fast_path() {
    let rate = |selector, paths: usize| {
        let program = DeviceProgram { selector, ..device(paths) };
        let service = [MILLISECOND, 31 * MILLISECOND];
        let mut rig = Rig::new(Script::up(&program), &service[..paths], 64, 8);
        rig.run(10 * SECOND);
        rig.rate(SECOND, 10 * SECOND)
    };
    let latency = rate(SelectorKind::Latency, 2);
    let (alone, turns) = (rate(SelectorKind::Latency, 1), rate(SelectorKind::RoundRobin, 2));
    assert!(latency >= 0.95 * alone, "{latency} of {alone} answers per second");
    assert!(latency >= 3.0 * turns, "{latency}, by turns {turns} answers per second");
}

/// W20: what is held against an active-passive path makes a switch, and a switch never has two
/// paths busy.
#[test]
fn a_demotion_in_active_passive_is_a_planned_switch() {
    let program = DeviceProgram { access: AccessPolicy::ActivePassive, ..device(2) };
    let mut s = Script::up(&program);
    let (mut canaries, mut busy, mut steps) = (0, None, 0);
    while s.state(0) == "up" {
        if canaries == 18 && busy.is_none() {
            s.request(Write, 0, 4096);
            busy = s.sent.pop_back();
        } else if busy.is_none() && steps % 50 == 0 {
            s.request(Read, 0, 4096);
        }
        steps += 1;
        s.wait(100 * MILLISECOND);
        for sent in std::mem::take(&mut s.sent) {
            // Every second canary of path 0 fails: never three in a row, and its reads are good.
            let canary = sent.path == 0 && sent.data == SendData::Digest;
            canaries += u32::from(canary);
            let fails = canary && canaries % 2 == 1;
            s.answer(sent, if fails { Err(Errno::Io) } else { Ok(()) });
        }
        assert!(canaries < 30, "{}", s.reason(0));
    }
    assert_eq!(s.state(0), "slow");
    let busy = busy.expect("a write is on path 0");
    assert_eq!(busy.path, 0);
    let next = s.request(Write, 8192, 4096);
    assert!(s.sent.iter().all(|sent| sent.command != Write), "W20: the old path is still at work");
    s.answer(busy, Ok(()));
    let at = s.sent.iter().position(|sent| sent.command == Write).expect("the new path is free to start");
    let sent = s.sent.remove(at).expect("just found");
    assert_eq!(sent.path, 1);
    s.answer(sent, Ok(()));
    assert_eq!(s.result(next), Some(Ok(())));
}

/// Idle paths cost nothing: one wake-up per canary interval for all of a device's paths.
#[test]
fn an_idle_device_is_woken_for_its_canaries_alone() {
    let mut s = Script::up(&device(4));
    let mut wakes = 0;
    let end = s.now + 100 * SECOND;
    while let Some(due) = s.engine.next_deadline().filter(|&due| due <= end) {
        s.now = s.now.max(due);
        s.event(Event::Timer);
        wakes += 1;
        while let Some(sent) = s.sent.pop_front() {
            s.answer(sent, Ok(()));
        }
    }
    let most: Nanos = 100 / 8 * 2 + 2;
    assert!(wakes <= most, "{wakes} wake-ups in 100 s");
}

/// A path dies with many requests in flight: on the other at its limit what it had keeps 90 % of
/// its speed, in 95 % of the tenths of a second; and every moved request is answered.
#[test]
fn complaint_8_the_others_keep_their_speed_while_a_path_dies() {
    let mut program = device(2);
    for path in &mut program.paths {
        path.in_flight = 64;
    }
    // Ten at a time of 1 ms each: a server at its limit answers 10,000 a second.
    let mut rig = Rig::new(Script::up(&program), &[MILLISECOND, MILLISECOND], 10, 96);
    rig.run(2 * SECOND);
    let own = rig.per_path[1];
    rig.run(2 * SECOND);
    let speed = (rig.per_path[1] - own) as f64 / 20.0;
    let at_fault = rig.own_windows[1].len();
    rig.set(0, Link::Down);
    rig.run(10 * SECOND);
    let windows = &rig.own_windows[1][at_fault..at_fault + 100];
    let good = windows.iter().filter(|&&n| f64::from(n) >= 0.9 * speed).count();
    assert!(good >= 95, "{good} of 100 windows: {windows:?} of {speed}");
    assert!(rig.script.replies.iter().all(|(_, result)| result.is_ok()));
}

/// Eight requests or more that are moved at once come on the other path a few at a time, and
/// faster as long as it does not feel them; what a host asks meanwhile does not wait for them.
#[test]
fn moved_requests_are_paced() {
    let mut program = device(2);
    for path in &mut program.paths {
        path.in_flight = 64;
    }
    let mut s = Script::up(&program);
    for n in 0..100 {
        s.request(Read, n * 4096, 4096);
        s.now += MILLISECOND / 4;
        if n < 20 {
            let sent = s.take();
            s.answer(sent, Ok(()));
        }
    }
    let own = s.sent.iter().filter(|sent| sent.path == 1).count();
    assert_eq!((s.sent.len(), own), (80, 40));
    s.reset(0);
    let moved = |s: &Script| s.sent.iter().filter(|sent| sent.path == 1).count() - 40;
    assert_eq!(moved(&s), 7, "forty waited for the other path");
    let read = s.request(Read, 1 << 20, 4096);
    let at = s.sent.iter().position(|sent| sent.offset == 1 << 20).expect("not behind the moved ones");
    let sent = s.sent.remove(at).expect("just found");
    s.answer(sent, Ok(()));
    assert_eq!(s.result(read), Some(Ok(())));
    let mut rounds = 0;
    while s.replies.len() < 101 {
        s.now += 100_000;
        let round: Vec<_> = s.sent.drain(..).collect();
        for sent in round {
            s.answer(sent, Ok(()));
        }
        rounds += 1;
    }
    assert!((3..=4).contains(&rounds), "7, 14 and the rest: {rounds}");
    assert!(s.replies.iter().all(|(_, result)| result.is_ok()));
}
