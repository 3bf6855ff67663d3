// SPDX-License-Identifier: MIT OR Apache-2.0
//! Decision points are recorded when asked for, whole, in order, and no more than asked for.

use engine::{DecisionPoint, Event};
use nbd::Command::{Read, Write};
use policies::selector::Kind;
use policies::shadow::Proposal;
use program::{DeviceProgram, MILLISECOND, PathCommand, SelectorKind};

use crate::script::{Script, device};

fn points(s: &mut Script) -> Vec<DecisionPoint> {
    std::iter::from_fn(|| s.engine.next_recorded()).map(|(_, point)| point).collect()
}

fn settings(s: &DeviceProgram) -> Proposal {
    let burst = s.paths.iter().map(|path| path.in_flight).max().unwrap_or(0);
    Proposal { kind: Kind::RoundRobin, hedge_ppm: s.hedge_budget_ppm, burst }
}

#[test]
fn nothing_is_recorded_unless_asked_for() {
    let mut s = Script::up(&device(2));
    s.request(Read, 0, 4096);
    let sent = s.take();
    s.answer(sent, Ok(()));
    assert_eq!(points(&mut s), []);
    s.engine.record_decisions(10);
    s.engine.record_decisions(0);
    s.request(Read, 0, 4096);
    assert_eq!(points(&mut s), [], "what was asked for is taken back");
}

#[test]
fn a_request_is_a_choice_and_an_answer() {
    let program = device(2);
    let mut s = Script::up(&program);
    s.engine.record_decisions(100);
    let start = DecisionPoint::Started { settings: settings(&program), paths: 2, dropped: 0 };
    assert_eq!(points(&mut s), [start]);
    for (command, write) in [(Read, false), (Write, true)] {
        s.request(command, 0, 4096);
        let sent = s.take();
        s.now += MILLISECOND;
        s.answer(sent, Ok(()));
        let all = points(&mut s);
        let [DecisionPoint::Chosen { len_bytes: 4096, first_read, candidates, chosen }, answered] = &all[..]
        else {
            panic!("{all:?}")
        };
        assert_eq!((*first_read, candidates.len(), *chosen), (!write, 2, sent.path));
        let expected =
            DecisionPoint::Answered { path: sent.path, write, len_bytes: 4096, service_ns: MILLISECOND };
        assert_eq!(*answered, expected);
    }
}

/// A late read is looked at; its second copy is one more choice, but no new read.
#[test]
fn a_second_copy_is_recorded_as_it_was_decided() {
    let mut s = Script::up(&DeviceProgram { hedge_budget_ppm: 30_000, ..device(2) });
    s.request(Read, 0, 4096);
    s.engine.record_decisions(100);
    s.wait(10 * MILLISECOND);
    let all = points(&mut s);
    let [
        DecisionPoint::Started { .. },
        DecisionPoint::Late { read, hedged: true },
        DecisionPoint::Chosen { first_read: false, candidates, chosen: 0, .. },
    ] = &all[..]
    else {
        panic!("{all:?}")
    };
    assert_eq!((read.len_bytes, read.other_paths, candidates.len()), (4096, 1, 1));
}

#[test]
fn failures_reloads_and_commands_are_recorded() {
    let program = device(2);
    let mut s = Script::up(&program);
    s.engine.record_decisions(100);
    s.reset(1);
    s.event(Event::Path { path: 1, command: PathCommand::Reinstate });
    let mut wider = DeviceProgram { selector: SelectorKind::QueueDepth, ..program.clone() };
    wider.paths[0].in_flight += 1;
    s.event(Event::Program(Box::new(wider.clone())));
    let mut all = points(&mut s);
    all.retain(|point| !matches!(point, DecisionPoint::Canary { .. }));
    let expected = [
        DecisionPoint::Started { settings: settings(&program), paths: 2, dropped: 0 },
        DecisionPoint::Failed { path: 1 },
        DecisionPoint::Forgiven { path: 1 },
        DecisionPoint::Settings(Proposal { kind: Kind::QueueDepth, ..settings(&wider) }),
        DecisionPoint::Paths { paths: 3 },
    ];
    assert_eq!(all, expected);
}

/// The newest stay; what stands before them says what went, and what a reader must know of it.
#[test]
fn the_oldest_make_room_and_are_counted() {
    let program = device(2);
    let mut s = Script::up(&program);
    s.engine.record_decisions(4);
    let changed = DeviceProgram { selector: SelectorKind::QueueDepth, ..program.clone() };
    s.event(Event::Program(Box::new(changed)));
    let serve = |s: &mut Script, reads: u64| {
        for n in 0..reads {
            s.request(Read, n * 4096, 4096);
            let sent = s.take();
            s.answer(sent, Ok(()));
        }
    };
    serve(&mut s, 10);
    let all = points(&mut s);
    let kept = Proposal { kind: Kind::QueueDepth, ..settings(&program) };
    assert_eq!(all[0], DecisionPoint::Started { settings: kept, paths: 2, dropped: 17 }, "21 less 4");
    assert_eq!(all.len(), 5);
    serve(&mut s, 2);
    assert_eq!(points(&mut s).len(), 4, "what was read is not dropped, and nothing starts anew");
    serve(&mut s, 3);
    let gap = points(&mut s);
    assert_eq!(gap[0], DecisionPoint::Started { settings: kept, paths: 2, dropped: 2 });
}
