// SPDX-License-Identifier: MIT OR Apache-2.0
//! Groups of paths by what the storage says and by what was measured (design 3.4, `policies::group`,
//! `policies::distance`).

use engine::{Event, Offer, SendData};
use nbd::Command::{Read, Write};
use program::{
    Access, AccessPolicy, AccessState, DeviceProgram, Failback, Groups, MILLISECOND, Nanos, PathStatus,
    SECOND,
};

use crate::rig::{Link, Rig};
use crate::script::{Script, device, offer};

const US: Nanos = MILLISECOND / 1000;

fn saying(access: AccessState) -> Offer {
    Offer { access, ..offer() }
}

fn paths(s: &Script) -> Vec<PathStatus> {
    s.engine.status(s.now).paths
}

fn states(s: &Script) -> Vec<&'static str> {
    paths(s).iter().map(|path| path.state.as_str()).collect()
}

/// The paths that get host requests now, each of which is answered.
fn used(s: &mut Script) -> Vec<usize> {
    let mut used = Vec::new();
    for number in 0..8 {
        s.request(Read, number * 4096, 4096);
        let at = s.sent.iter().position(|sent| sent.data == SendData::Land).expect("it was sent");
        let sent = s.sent.remove(at).expect("it is there");
        used.push(sent.path);
        s.answer(sent, Ok(()));
    }
    used.sort_unstable();
    used.dedup();
    used
}

#[test]
fn what_the_storage_says_makes_the_groups() {
    let mut s = Script::new(&device(4));
    let says =
        [AccessState::NonOptimized, AccessState::Optimized, AccessState::Standby, AccessState::Optimized];
    for (path, access) in says.into_iter().enumerate() {
        s.open_path(path, saying(access));
    }
    assert_eq!(states(&s), ["standby", "up", "standby", "up"]);
    assert_eq!(used(&mut s), [1, 3]);
    let told = paths(&s);
    assert_eq!(told.iter().map(|path| path.group).collect::<Vec<_>>(), [2, 1, 3, 1]);
    assert_eq!(told.iter().map(|path| path.access_state).collect::<Vec<_>>(), says);
    assert_eq!((told[0].access, told[1].access), (Access::Standby, Access::Optimized));
    s.reset(1);
    assert_eq!(used(&mut s), [3]);
    s.reset(3);
    assert_eq!(used(&mut s), [0], "the non-optimized one at once");
    assert_eq!(paths(&s)[0].access, Access::NonOptimized);
    s.reset(0);
    assert_eq!(used(&mut s), [2], "and in the end the one on standby");
    let stands_by = s.engine.explain(s.now).paths[2].present.clone();
    assert_eq!(stands_by.what, "carries requests");
}

/// A priority goes before what the storage says, and what is configured instead of it: both by a reload, without a
/// new connection.
#[test]
fn an_operator_has_the_last_word() {
    let mut program = device(2);
    let mut s = Script::new(&program);
    s.open_path(0, saying(AccessState::Standby));
    s.open_path(1, saying(AccessState::Optimized));
    assert_eq!(used(&mut s), [1]);
    program.paths[0].access_state = Some(AccessState::Optimized);
    s.event(Event::Program(Box::new(program.clone())));
    assert_eq!(used(&mut s), [0, 1]);
    program.paths[1].access_state = Some(AccessState::NonOptimized);
    s.event(Event::Program(Box::new(program.clone())));
    assert_eq!(used(&mut s), [0]);
    program.paths[1].priority = 60;
    s.event(Event::Program(Box::new(program)));
    s.wait_alive(61 * SECOND, |_| true);
    assert_eq!(used(&mut s), [1]);
    assert!(s.closing.is_empty() && s.opening.is_empty(), "no connection was touched");
}

/// A server that says something else after a restart: what holds is what it said last.
#[test]
fn a_restarted_server_may_say_something_else() {
    let mut s = Script::up(&device(2));
    assert_eq!(used(&mut s), [0, 1]);
    s.reset(0);
    s.open_path(0, saying(AccessState::NonOptimized));
    s.wait_alive(30 * SECOND, |_| true);
    assert_eq!((states(&s), used(&mut s)), (vec!["standby", "up"], vec![1]));
    s.reset(0);
    s.wait_alive(SECOND, |_| true);
    s.open_path(0, saying(AccessState::Optimized));
    s.wait_alive(30 * SECOND, |_| true);
    assert_eq!((states(&s), used(&mut s)), (vec!["up", "up"], vec![0, 1]));
}

fn by_latency(paths: usize) -> DeviceProgram {
    DeviceProgram { groups: Groups::Latency, ..device(paths) }
}

#[test]
fn far_storage_is_a_group_of_its_own() {
    let mut rig = Rig::new(Script::up(&by_latency(3)), &[300 * US, 9 * MILLISECOND, 200 * US], 16, 4);
    rig.run(4 * SECOND);
    assert_eq!(states(&rig.script), ["up", "standby", "up"]);
    assert!(rig.script.events.contains(&"path_distance"));
    let told = paths(&rig.script);
    assert_eq!(told.iter().map(|path| path.group).collect::<Vec<_>>(), [1, 2, 1]);
    assert_eq!(told.iter().map(|path| path.distance_us).collect::<Vec<_>>(), [300, 9_000, 200]);
    let before = rig.sent[1];
    rig.run(60 * SECOND);
    assert_eq!(rig.sent[1], before, "nothing goes the long way");
    // Both near ones are lost: the far one carries at once, and is not called slow for what it is.
    let at = rig.script.now - SECOND;
    rig.set(0, Link::Down);
    rig.set(2, Link::Down);
    rig.run(200 * SECOND);
    assert_eq!(states(&rig.script)[1], "up");
    assert!(rig.rate((rig.script.now - at) - 10 * SECOND, rig.script.now - at - 2 * SECOND) > 400.0);
    // They come back, and are given the requests when they have been well for a minute.
    rig.set(0, Link::Well);
    rig.set(2, Link::Well);
    rig.run(40 * SECOND);
    assert_eq!(states(&rig.script)[1], "up", "the failback rule wants them stable first");
    rig.run(90 * SECOND);
    assert_eq!(states(&rig.script), ["up", "standby", "up"]);
    assert!(!rig.script.events.contains(&"path_slow"), "{:?}", rig.script.events);
}

/// The far path is configured first, comes first and carries: at the first measurement the near one takes its place,
/// whatever the failback rule says of paths that return.
#[test]
fn the_near_path_takes_its_place_at_the_start() {
    for failback in [Failback::Manual, Failback::After(60 * SECOND)] {
        let program = DeviceProgram { access: AccessPolicy::ActivePassive, failback, ..by_latency(2) };
        let mut rig = Rig::new(Script::up(&program), &[20 * MILLISECOND, 300 * US], 16, 4);
        rig.run(100 * MILLISECOND);
        assert_eq!(states(&rig.script), ["up", "standby"]);
        rig.run(4 * SECOND);
        assert_eq!(states(&rig.script), ["standby", "up"], "{failback:?}");
    }
}

/// Groups do not move with the load: the storage at hand takes 30 ms for each request for half an hour, but for a
/// moment now and then, and the far one at rest takes 9 ms.
#[test]
fn load_does_not_move_requests_to_the_far_site() {
    let program = DeviceProgram { access: AccessPolicy::ActivePassive, ..by_latency(2) };
    let mut rig = Rig::new(Script::up(&program), &[300 * US, 9 * MILLISECOND], 16, 1);
    rig.run(5 * SECOND);
    let moves = rig.script.events.iter().filter(|&&event| event == "path_distance").count();
    for _ in 0..30 {
        rig.service[0] = 30 * MILLISECOND;
        rig.run(47 * SECOND);
        rig.service[0] = 300 * US;
        rig.run(13 * SECOND);
        let events = &rig.script.events;
        assert_eq!(events.iter().filter(|&&event| event == "path_distance").count(), moves);
    }
    assert_eq!(paths(&rig.script)[0].distance_us, 300);
}

/// What was near and takes ever longer for good, at rest too: the groups change places, a quarter of an hour later.
#[test]
fn a_near_path_that_stays_slow_is_far_in_the_end() {
    let mut rig = Rig::new(Script::up(&by_latency(2)), &[300 * US, 5 * MILLISECOND], 64, 2);
    rig.run(5 * SECOND);
    assert_eq!(states(&rig.script), ["up", "standby"]);
    rig.service[0] = 60 * MILLISECOND;
    rig.run(9 * 60 * SECOND);
    assert_eq!(states(&rig.script), ["up", "standby"]);
    rig.run(14 * 60 * SECOND);
    assert_eq!(states(&rig.script), ["standby", "up"]);
}

/// The far path carries while the near one waits for its operator: it is not slow for being far.
#[test]
fn the_far_path_is_not_slow_for_being_far() {
    for by_priority in [false, true] {
        let mut program = DeviceProgram { failback: Failback::Manual, ..by_latency(2) };
        if by_priority {
            program.groups = Groups::Priority;
            program.paths[0].priority = 60;
        }
        let mut rig = Rig::new(Script::up(&program), &[300 * US, 9 * MILLISECOND], 64, 8);
        rig.run(10 * SECOND);
        rig.set(0, Link::Down);
        rig.run(5 * SECOND);
        rig.set(0, Link::Well);
        rig.run(300 * SECOND);
        assert_eq!(states(&rig.script), ["standby", "up"], "by priority: {by_priority}");
        rig.script.event(Event::Path { path: 0, command: program::PathCommand::Reinstate });
        rig.run(30 * SECOND);
        assert_eq!(states(&rig.script), ["up", "standby"]);
    }
}

/// A read that measures is no canary: it may wait behind what hosts ask for, and is held against nobody.
#[test]
fn a_read_that_measures_suspects_nobody() {
    let mut s = Script::up(&by_latency(2));
    s.wait(0);
    let held: Vec<_> = s.sent.drain(..).collect();
    let on: Vec<_> = held.iter().map(|sent| (sent.path, sent.data)).collect();
    assert_eq!(on, [(0, SendData::Digest), (1, SendData::Digest)]);
    for _ in 0..50 {
        s.wait_alive(100 * MILLISECOND, |_| true);
        assert_eq!(used(&mut s), [0, 1]);
    }
    assert_eq!(states(&s), ["up", "up"]);
    for sent in held {
        s.answer(sent, Ok(()));
    }
    assert_eq!(states(&s), ["up", "up"]);
    assert!(paths(&s)[0].distance_us < 20_000, "the shortest counts");
}

/// `groups = "priority"` measures nothing, and what was measured before counts no more.
#[test]
fn one_group_again_by_a_reload() {
    let mut rig = Rig::new(Script::up(&by_latency(2)), &[300 * US, 9 * MILLISECOND], 16, 4);
    rig.run(5 * SECOND);
    assert_eq!(states(&rig.script), ["up", "standby"]);
    rig.script.event(Event::Program(Box::new(device(2))));
    assert_eq!(states(&rig.script), ["up", "up"]);
    assert_eq!(paths(&rig.script)[1].distance_us, 0);
    rig.script.event(Event::Program(Box::new(by_latency(2))));
    assert_eq!(states(&rig.script), ["up", "up"], "what was measured long ago counts no more");
    rig.run(5 * SECOND);
    assert_eq!(states(&rig.script), ["up", "standby"]);
}

#[test]
fn why_a_far_path_stands_by_is_explained() {
    let mut rig = Rig::new(Script::up(&by_latency(2)), &[300 * US, 9 * MILLISECOND], 16, 4);
    rig.run(5 * SECOND);
    let told = rig.script.engine.explain(rig.script.now);
    let far = &told.paths[1];
    let moved = far.decisions.iter().find(|it| it.what == "group it behind nearer storage").expect("told");
    let figures: Vec<_> = moved.figures.iter().map(|it| (it.name, it.value)).collect();
    assert_eq!(
        figures,
        [("its distance", 9 * MILLISECOND), ("of the nearest", 300 * US), ("steps of distance", 1)]
    );
    assert_eq!(far.present.what, "stands by");
    let step = far.present.figures.iter().find(|it| it.name == "steps of distance").expect("told");
    assert_eq!((step.value, step.limit), (1, Some((program::Comparison::AtMost, 0))));
}

/// A host that never pauses: the near storage has a queue before it, and is near all the same. It is let come to rest for
/// a moment each 10 s, which costs next to nothing.
#[test]
fn a_busy_path_is_measured_at_rest() {
    let mut rates = Vec::new();
    for groups in [Groups::Latency, Groups::Priority] {
        let mut program = DeviceProgram {
            access: AccessPolicy::ActivePassive,
            failback: Failback::Manual,
            groups,
            ..device(2)
        };
        program.paths[0].in_flight = 64;
        // One at a time, 32 in flight: a read that waits its turn takes 10 ms, and the far one at rest takes 5.
        let mut rig = Rig::new(Script::up(&program), &[300 * US, 5 * MILLISECOND], 1, 32);
        rig.run(400 * SECOND);
        assert_eq!(states(&rig.script), ["up", "standby"]);
        if groups == Groups::Latency {
            let told = paths(&rig.script);
            assert_eq!(told.iter().map(|path| path.distance_us).collect::<Vec<_>>(), [300, 5_000]);
            assert_eq!(rig.sent[1], 0, "nothing ever went the long way");
        }
        rates.push(rig.rate(10 * SECOND, 390 * SECOND));
    }
    assert!(rates[0] > 0.995 * rates[1], "{rates:?} answers a second");
}

/// Path 0 is let come to rest; returns the read that keeps it busy.
fn resting(s: &mut Script) -> crate::script::Sent {
    s.wait_alive(5 * SECOND, |_| true);
    s.request(Read, 0, 4096);
    let busy = s.take();
    assert_eq!(busy.path, 0);
    // To the millisecond at which it is measured again.
    while used_by_one_more(s).is_some_and(|path| path == 0) || s.now < 11 * SECOND {
        s.wait_alive(20 * MILLISECOND, |_| true);
        assert!(s.now < 60 * SECOND, "it never rests");
    }
    busy
}

/// The path that a read goes to, which is answered; `None`: it waits.
fn used_by_one_more(s: &mut Script) -> Option<usize> {
    s.request(Read, 1 << 20, 4096);
    let at = s.sent.iter().position(|sent| sent.data == SendData::Land)?;
    let sent = s.sent.remove(at).expect("it is there");
    s.answer(sent, Ok(()));
    Some(sent.path)
}

/// Nothing is measured any more: a path that was let come to rest for it is given requests at once.
#[test]
fn a_rest_ends_with_the_measuring() {
    let mut s = Script::up(&by_latency(1));
    let busy = resting(&mut s);
    s.event(Event::Program(Box::new(device(1))));
    s.answer(busy, Ok(()));
    assert!(s.sent.iter().any(|sent| sent.data == SendData::Land), "what waited is sent");
}

/// The same as the node stops: what is to be written again before the end waits for no rest (F6, F9).
#[test]
fn a_rest_ends_when_the_node_stops() {
    let mut s = Script::up(&by_latency(2));
    s.request(Read, 0, 4096);
    let first = s.take();
    s.answer(first, Ok(()));
    s.request(Write, 0, 4096);
    let dirty = s.take();
    s.answer(dirty, Ok(()));
    let rests = 1 - dirty.path;
    // Both are busy, so that each in turn is let come to rest.
    let mut stuck = Vec::new();
    while stuck.len() < 2 {
        s.request(Read, 0, 4096);
        let at = s.sent.iter().position(|sent| sent.data == SendData::Land).expect("it is sent");
        stuck.push(s.sent.remove(at).expect("it is there"));
    }
    let mut held = 0;
    while held < 2 {
        s.wait_alive(10 * MILLISECOND, |_| true);
        assert!(s.now < 100 * SECOND, "it never rests");
        // Given nothing while the other one is.
        let used: Vec<usize> = (0..2).filter_map(|_| used_by_one_more(&mut s)).collect();
        held = if used.contains(&rests) { 0 } else { held + 1 };
    }
    s.sent.clear();
    s.reset(dirty.path);
    s.event(Event::Shutdown);
    let again = s.sent.iter().find(|sent| sent.command == Write).expect("written again at once");
    assert_eq!(again.path, rests);
}

/// A path whose requests take long does not come to rest in 100 ms: it is not kept waiting for longer, nor often.
#[test]
fn a_path_that_does_not_come_to_rest_is_let_go_on() {
    let rate = |groups| {
        let program = DeviceProgram { access: AccessPolicy::ActivePassive, groups, ..device(2) };
        let mut rig = Rig::new(Script::up(&program), &[400 * MILLISECOND; 2], 8, 8);
        rig.run(300 * SECOND);
        assert_eq!(rig.script.state(0), "up");
        rig.rate(10 * SECOND, 290 * SECOND)
    };
    let (measured, plain) = (rate(Groups::Latency), rate(Groups::Priority));
    assert!(measured > 0.97 * plain, "{measured} of {plain} answers a second");
}

/// The path in use comes to a lesser group, by an operator or by what is measured: that is leaving, and at once.
#[test]
fn a_path_in_use_that_becomes_lesser_is_left_at_once() {
    let mut program =
        DeviceProgram { access: AccessPolicy::ActivePassive, failback: Failback::Manual, ..device(2) };
    program.paths[0].priority = 60;
    for state in [None, Some(AccessState::Standby)] {
        let mut s = Script::up(&program);
        assert_eq!(used(&mut s), [0]);
        let mut changed = program.clone();
        changed.paths[0].priority = if state.is_none() { 40 } else { 50 };
        changed.paths[0].access_state = state;
        s.event(Event::Program(Box::new(changed)));
        assert_eq!(used(&mut s), [1], "{state:?}");
    }
    let program = DeviceProgram { groups: Groups::Latency, ..device(2) };
    let program =
        DeviceProgram { access: AccessPolicy::ActivePassive, failback: Failback::Manual, ..program };
    let mut rig = Rig::new(Script::up(&program), &[MILLISECOND; 2], 16, 1);
    rig.run(5 * SECOND);
    assert_eq!(states(&rig.script), ["up", "standby"]);
    rig.service[0] = 20 * MILLISECOND;
    rig.run(21 * 60 * SECOND);
    assert_eq!(states(&rig.script), ["standby", "up"]);
}

/// What becomes known of distances is no word on a failback that an operator keeps to himself.
#[test]
fn what_is_measured_forces_no_other_failback() {
    let mut program = DeviceProgram { failback: Failback::Manual, ..device(3) };
    program.paths[0].priority = 60;
    let mut rig = Rig::new(Script::up(&program), &[MILLISECOND; 3], 16, 4);
    rig.run(SECOND);
    rig.set(0, Link::Down);
    rig.run(SECOND);
    rig.set(0, Link::Well);
    rig.run(30 * SECOND);
    assert_eq!(states(&rig.script), ["standby", "up", "up"]);
    rig.script.event(Event::Program(Box::new(DeviceProgram { groups: Groups::Latency, ..program })));
    rig.run(30 * SECOND);
    assert!(paths(&rig.script).iter().all(|path| path.distance_us > 0), "all are known");
    assert_eq!(states(&rig.script), ["standby", "up", "up"]);
}

/// A far path that is changed is known to be far, and a new one gets no requests before it is known.
#[test]
fn a_changed_path_keeps_its_distance_and_a_new_one_waits() {
    let service = [300 * US, 9 * MILLISECOND, 20 * MILLISECOND];
    let mut rig = Rig::new(Script::up(&by_latency(2)), &service, 16, 4);
    rig.run(5 * SECOND);
    let before = rig.sent[1];
    let mut program = by_latency(3);
    program.paths[1].in_flight += 1;
    rig.script.event(Event::Program(Box::new(program)));
    rig.run(30 * SECOND);
    let told = paths(&rig.script);
    assert_eq!(told.iter().map(|path| path.state.as_str()).collect::<Vec<_>>(), ["up", "standby", "standby"]);
    assert_eq!((rig.sent[1], rig.sent[2]), (before, 0), "no request went the long way");
    assert_eq!(told.iter().map(|path| path.group).collect::<Vec<_>>(), [1, 2, 2]);
}

/// Active-passive, and the best group can only be read: the best one that can be written is used, not the first.
#[test]
fn of_several_lesser_groups_the_best_is_written() {
    let mut program = DeviceProgram { access: AccessPolicy::ActivePassive, ..device(3) };
    for (path, priority) in [(0, 60), (1, 10), (2, 50)] {
        program.paths[path].priority = priority;
    }
    program.paths[0].read_only = true;
    let mut s = Script::up(&program);
    assert_eq!(states(&s), ["standby", "standby", "up"]);
    s.reset(2);
    assert_eq!(used(&mut s), [1]);
    s.open_path(2, offer());
    s.wait_alive(130 * SECOND, |_| true);
    assert_eq!(states(&s), ["standby", "standby", "up"]);
}

/// A read that measures and is answered with an error is an error of the path, as a canary's is.
#[test]
fn an_error_of_a_read_that_measures_counts() {
    let mut s = Script::up(&by_latency(2));
    for _ in 0..policies::limits::STRIKES {
        s.wait(SECOND);
        while let Some(sent) = s.sent.pop_front() {
            s.answer(sent, if sent.path == 1 { Err(nbd::Errno::Io) } else { Ok(()) });
        }
    }
    assert_eq!(states(&s), ["up", "down"]);
    assert!(s.reason(1).contains("in a row were answered with an error"), "{}", s.reason(1));
}

/// Storage that is to sleep: while nobody asks, it is read as seldom as `canary.idle` says.
#[test]
fn idle_storage_is_not_woken() {
    let mut program = by_latency(2);
    program.canary.idle = 600 * SECOND;
    let mut s = Script::up(&program);
    s.wait_alive(20 * SECOND, |_| true);
    let mut reads = 0;
    for _ in 0..36_000 {
        s.wait(100 * MILLISECOND);
        for sent in std::mem::take(&mut s.sent) {
            reads += 1;
            s.answer(sent, Ok(()));
        }
    }
    assert!(reads <= 2 * 2 * 8, "{reads} reads in an hour");
    assert!(paths(&s)[0].distance_us > 0);
}
