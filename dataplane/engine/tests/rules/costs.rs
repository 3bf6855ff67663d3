// SPDX-License-Identifier: MIT OR Apache-2.0
//! What failures cost is put down to the path and the rule that dealt with it.

use nbd::Command::{Read, Write};
use program::{BudgetCause, MILLISECOND, NoPath, PathCommand, SECOND};

use crate::script::{Script, device, offer};

/// What was put down to failures; the start without paths took no time.
fn costs(s: &Script) -> Vec<BudgetCause> {
    let all = s.engine.status(s.now).budget.causes;
    all.into_iter().filter(|cause| cause.rule != "start").collect()
}

/// Answers what is sent, in order, until this request is answered.
fn answer_until(s: &mut Script, tag: u64) {
    while s.result(tag).is_none() {
        let sent = s.take();
        s.answer(sent, Ok(()));
    }
}

#[test]
fn what_is_answered_in_time_costs_nothing() {
    let mut s = Script::up(&device(2));
    for n in 0..10 {
        s.request(Read, n * 4096, 4096);
        let sent = s.take();
        s.answer(sent, Ok(()));
    }
    s.reset(0);
    let budget = s.engine.status(s.now).budget;
    assert_eq!((budget.requests, budget.bound), (10, SECOND));
    assert_eq!(costs(&s), []);
}

/// A write that was late on one path counts to it and to the rule that moved it (W15).
#[test]
fn a_moved_request_counts_to_the_path_it_was_moved_from() {
    let mut s = Script::up(&device(2));
    s.request(Write, 0, 4096);
    let stuck = s.take();
    s.wait_alive(2_500 * MILLISECOND, |sent| sent.path != stuck.path);
    let at = s.sent.iter().position(|sent| sent.command == Write).expect("it was moved");
    let moved = s.sent.remove(at).expect("found");
    s.answer(moved, Ok(()));
    let costs = costs(&s);
    assert_eq!(costs.len(), 1, "{costs:#?}");
    let cost = &costs[0];
    assert_eq!((cost.path.as_deref(), cost.rule, cost.delayed), (Some(["p0", "p1"][stuck.path]), "W15", 1));
    assert_eq!((cost.excess, cost.worst, cost.unavailable), (1_500 * MILLISECOND, 2_500 * MILLISECOND, 0));
}

/// Slow without any failure: the storage's.
#[test]
fn a_slow_answer_alone_is_the_storages() {
    let mut s = Script::up(&device(2));
    s.request(Write, 0, 4096);
    let slow = s.take();
    s.wait_alive(1_400 * MILLISECOND, |_| true);
    s.answer(slow, Ok(()));
    let costs = costs(&s);
    assert_eq!((costs.len(), costs[0].path.as_deref(), costs[0].rule), (1, None, "storage"));
    assert_eq!(costs[0].excess, 400 * MILLISECOND);
}

/// 3.7: an outage counts to what took the last path, and so does a request that met it.
#[test]
fn an_outage_counts_to_what_took_the_last_path() {
    let mut program = device(2);
    program.no_path = NoPath::Forever;
    let mut s = Script::up(&program);
    s.reset(0);
    s.reset(1);
    s.wait(3 * SECOND);
    assert_eq!(costs(&s)[0].unavailable, 3 * SECOND, "while it lasts");
    s.request(Read, 0, 4096);
    s.wait(2 * SECOND);
    s.open_path(0, offer());
    let read = loop {
        let sent = s.take();
        if sent.len == 4096 && sent.data == engine::SendData::Land {
            break sent;
        }
        s.answer(sent, Ok(()));
    };
    s.answer(read, Ok(()));
    s.wait_alive(20 * SECOND, |_| true);
    let all = costs(&s);
    assert_eq!((all.len(), all[0].path.as_deref(), all[0].rule), (1, Some("p1"), "3.5"), "{all:#?}");
    assert_eq!((all[0].unavailable, all[0].delayed, all[0].excess), (5 * SECOND, 1, SECOND), "it is over");
}

/// W4: what waited behind a quarantine counts to the path of the write in doubt.
#[test]
fn a_successor_of_a_write_in_doubt_counts_to_its_path() {
    let mut s = Script::up(&device(2));
    s.request(Write, 0, 4096);
    let sent = s.take();
    s.reset(sent.path);
    let again = s.take();
    s.answer(again, Ok(()));
    let over = s.request(Write, 0, 4096);
    s.wait_alive(5_100 * MILLISECOND, |_| true);
    answer_until(&mut s, over);
    let all = costs(&s);
    assert_eq!((all.len(), all[0].path.as_deref(), all[0].rule), (1, Some(["p0", "p1"][sent.path]), "W4"));
    assert!(all[0].worst >= 5 * SECOND && all[0].delayed == 1);
}

/// W4: with doubts on two paths it is the one whose copy holds the range.
#[test]
fn each_successor_counts_to_the_path_of_its_own_predecessor() {
    let mut s = Script::up(&device(3));
    let mut paths = Vec::new();
    for n in 0..2 {
        s.request(Write, n << 20, 4096);
        let sent = s.take();
        s.reset(sent.path);
        let again = s.take();
        s.answer(again, Ok(()));
        paths.push(["p0", "p1", "p2"][sent.path]);
    }
    assert_ne!(paths[0], paths[1]);
    let over = s.request(Write, 0, 4096);
    s.wait_alive(5_100 * MILLISECOND, |_| true);
    answer_until(&mut s, over);
    let all = costs(&s);
    assert_eq!((all.len(), all[0].path.as_deref(), all[0].rule), (1, Some(paths[0]), "W4"), "{all:#?}");
}

/// W4: the copy may also be on a connection that is kept for its late reply.
#[test]
fn a_successor_of_a_write_that_is_late_counts_to_its_path() {
    let mut s = Script::up(&device(2));
    let first = s.request(Write, 0, 4096);
    let stuck = s.take();
    s.wait_alive(2_500 * MILLISECOND, |sent| sent.path != stuck.path);
    let at = s.sent.iter().position(|sent| sent.command == Write).expect("it was moved");
    let moved = s.sent.remove(at).expect("found");
    s.answer(moved, Ok(()));
    assert_eq!(s.result(first), Some(Ok(())));
    let over = s.request(Write, 0, 4096);
    s.wait_alive(1_500 * MILLISECOND, |sent| sent.path != stuck.path);
    assert_eq!(s.result(over), None, "the old copy could land over it");
    s.answer(stuck, Ok(()));
    answer_until(&mut s, over);
    let all = costs(&s);
    let of_doubt = all.iter().find(|cause| cause.rule == "W4").expect("it waited for the old copy");
    assert_eq!(of_doubt.path.as_deref(), Some(["p0", "p1"][stuck.path]), "{all:#?}");
    assert!((SECOND..2 * SECOND).contains(&of_doubt.worst), "{of_doubt:#?}");
}

/// The operator's own doing is told as such.
#[test]
fn a_path_taken_out_by_command_counts_to_the_operator() {
    let mut s = Script::up(&device(1));
    s.event(engine::Event::Path { path: 0, command: PathCommand::Fail });
    s.wait(2 * SECOND);
    let all = costs(&s);
    assert_eq!((all.len(), all[0].rule, all[0].path.as_deref()), (1, "operator", Some("p0")), "{all:#?}");
    assert_eq!(all[0].unavailable, 2 * SECOND);
}
