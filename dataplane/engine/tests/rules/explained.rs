// SPDX-License-Identifier: MIT OR Apache-2.0
//! What was decided is kept with its rule, its figures and limits, what was refused and what
//! would change it.

use engine::{Event, LaneFault, Offer, TcpSample};
use nbd::Command::{Flush, Read, Write};
use nbd::Errno;
use program::{
    Comparison, Decision, DeviceProgram, Failback, MILLISECOND, NoPath, PathCommand, SECOND, SelectorKind,
    Unproven,
};

use crate::rig::Rig;
use crate::script::{SIZE, Script, device, offer};

fn of_path(s: &Script, path: usize) -> Vec<Decision> {
    s.engine.explain(s.now).paths[path].decisions.clone()
}

fn of_device(s: &Script) -> Vec<Decision> {
    s.engine.explain(s.now).decisions
}

fn find(all: &[Decision], what: &str) -> Decision {
    let found = all.iter().rfind(|it| it.what == what);
    found.cloned().unwrap_or_else(|| panic!("`{what}` is not among {all:#?}"))
}

/// Value and limit of a figure.
fn figure(decision: &Decision, name: &str) -> (u64, Option<(Comparison, u64)>) {
    let found = decision.figures.iter().find(|figure| figure.name == name);
    let Some(found) = found else { panic!("no `{name}` in {decision:#?}") };
    (found.value, found.limit)
}

fn judged(decision: &Decision) {
    for figure in &decision.figures {
        let holds = match figure.limit {
            None => true,
            Some((Comparison::AtLeast, limit)) => figure.value >= limit,
            Some((Comparison::Above, limit)) => figure.value > limit,
            Some((Comparison::Below, limit)) => figure.value < limit,
            Some((Comparison::AtMost, limit)) => figure.value <= limit,
        };
        // Identity, probation and failback say what is asked for and not there yet.
        let asks = ["refuse", "leave it unproven", "probation", "stand by", "stay with the lower group"];
        assert!(holds || asks.contains(&decision.what), "{decision:#?}");
    }
}

/// W15: a request past its age, the age it was allowed, and what was not done.
#[test]
fn a_late_request_makes_a_path_suspect_and_then_given_up() {
    let mut s = Script::up(&device(2));
    s.wait_alive(100 * MILLISECOND, |_| true);
    let tag = s.request(Read, 0, 4096);
    let stuck = s.take();
    s.wait_alive(1_050 * MILLISECOND, |sent| sent.path != stuck.path);
    let suspect = find(&of_path(&s, stuck.path), "suspect");
    let (age, limit) = figure(&suspect, "read unanswered");
    let (comparison, limit) = limit.expect("compared");
    assert_eq!(comparison, Comparison::AtLeast);
    assert!((SECOND..SECOND + 10 * MILLISECOND).contains(&limit), "1 s and the bytes: {limit}");
    assert!(age >= limit && age < limit + 30 * MILLISECOND, "{age}");
    assert_eq!((suspect.rule, suspect.request), ("W15", tag));
    assert!(!suspect.refused.is_empty() && !suspect.until.is_empty());
    s.wait_alive(2_100 * MILLISECOND, |sent| sent.path != stuck.path);
    let given_up = find(&of_path(&s, stuck.path), "give the connection up");
    let (lasted, limit) = figure(&given_up, "suspect, no reply");
    assert_eq!((given_up.rule, limit), ("W1", Some((Comparison::AtLeast, 2 * SECOND))));
    assert!(lasted >= 2 * SECOND);
    of_path(&s, stuck.path).iter().for_each(judged);
}

/// W16: an unacknowledged link, with the limit that its RTO gives; then the abort of W1.
#[test]
fn a_silent_link_is_told_from_a_slow_server() {
    let mut s = Script::up(&device(2));
    s.request(Read, 0, 4096);
    let stuck = s.take();
    s.wait_alive(450 * MILLISECOND, |sent| sent.path != stuck.path);
    let sample = TcpSample { unacked: 3, last_ack_ms: 60_000, rto_us: 204_000, ..TcpSample::default() };
    s.event(Event::Tcp { lane: stuck.lane, sample });
    let suspect = find(&of_path(&s, stuck.path), "suspect");
    assert_eq!(suspect.rule, "W16");
    assert_eq!(
        figure(&suspect, "without an ACK"),
        (450 * MILLISECOND, Some((Comparison::AtLeast, 408 * MILLISECOND))),
        "owed since it was sent, not since the last ACK"
    );
    assert_eq!(figure(&suspect, "segments unacknowledged"), (3, Some((Comparison::Above, 0))));
    s.wait_alive(1_100 * MILLISECOND, |sent| sent.path != stuck.path);
    let closed = find(&of_path(&s, stuck.path), "close the connection");
    assert_eq!(
        (closed.rule, figure(&closed, "suspect, link silent").1),
        ("W1", Some((Comparison::AtLeast, SECOND)))
    );
}

/// 3.5: a lost connection, the attempts, the wait; and back through canaries and a small share.
#[test]
fn a_lost_path_says_when_it_is_tried_again_and_how_it_returns() {
    let mut s = Script::up(&device(2));
    s.reset(0);
    let lost = find(&of_path(&s, 0), "connect anew: the connection was reset");
    assert_eq!(figure(&lost, "attempts since it last worked").0, 1);
    for _ in 0..3 {
        s.wait_alive(SECOND, |_| true);
        s.refuse_connect(0);
    }
    let refused = find(&of_path(&s, 0), "connect again: nothing listens there");
    assert_eq!(refused.times, 3, "the same again is counted");
    let (wait, limit) = figure(&refused, "next attempt in");
    assert!(wait > 0 && limit.is_some_and(|(_, limit)| wait <= limit), "{refused:#?}");
    s.wait_alive(SECOND, |_| true);
    s.open_path(0, offer());
    let probation = find(&of_path(&s, 0), "probation");
    assert_eq!(figure(&probation, "good canaries in a row"), (0, Some((Comparison::AtLeast, 3))));
    s.wait_alive(SECOND, |_| true);
    let share = find(&of_path(&s, 0), "give it a small share");
    assert_eq!(figure(&share, "share").0, 50_000);
    s.wait_alive(11 * SECOND, |_| true);
    find(&of_path(&s, 0), "end probation");
    of_path(&s, 0).iter().for_each(judged);
}

/// 3.8, 3.3: why a server is turned away, or waits.
#[test]
fn a_refused_path_names_what_was_compared() {
    let mut program = device(2);
    program.identity = None;
    let mut s = Script::new(&program);
    s.open_path(0, offer());
    while s.engine.status(s.now).paths[0].state.as_str() != "up" {
        let sent = s.take();
        s.answer_digest(sent, 1, false);
    }
    s.open_path(1, Offer { size_bytes: SIZE / 2, ..offer() });
    let refused = find(&of_path(&s, 1), "refuse");
    assert_eq!(refused.rule, "3.3");
    assert_eq!(figure(&refused, "size"), (SIZE / 2, Some((Comparison::AtLeast, SIZE))));
    // Other data.
    let lane = s.closing.last().expect("it is closed").0;
    s.down(lane, LaneFault::ByUs);
    s.wait_alive(11 * SECOND, |_| true);
    s.open_path(1, offer());
    while let Some(sent) = s.sent.pop_front() {
        s.answer_digest(sent, sent.path as u128, false);
    }
    let refused = find(&of_path(&s, 1), "refuse");
    assert_eq!((refused.rule, figure(&refused, "block that differs begins at").0), ("3.8", SIZE - 4096));
}

/// W4: a write in doubt, its quarantine, and its end without proof.
#[test]
fn a_write_in_doubt_is_followed_to_its_end() {
    let mut s = Script::up(&device(2));
    s.request(Write, 8192, 4096);
    let sent = s.take();
    s.reset(sent.path);
    let again = s.take();
    s.answer(again, Ok(()));
    let doubt = find(&of_path(&s, sent.path), "write in doubt");
    assert_eq!((doubt.rule, figure(&doubt, "the last one begins at").0), ("W4", 8192));
    assert_eq!(figure(&doubt, "assumed over after").0, 5 * SECOND);
    let quarantine = find(&of_device(&s), "quarantine");
    assert_eq!(figure(&quarantine, "copies that may still land"), (1, Some((Comparison::Above, 0))));
    s.wait_alive(5_100 * MILLISECOND, |_| true);
    let over = find(&of_path(&s, sent.path), "end the quarantine without proof");
    assert_eq!(figure(&over, "in doubt for").1, Some((Comparison::AtLeast, 5 * SECOND)));
    let mut strict = device(2);
    strict.unproven = Unproven::Hold;
    let mut s = Script::up(&strict);
    s.request(Write, 8192, 4096);
    let sent = s.take();
    s.reset(sent.path);
    let doubt = find(&of_path(&s, sent.path), "write in doubt");
    assert!(doubt.refused.iter().any(|it| it.because.contains("unproven")), "{doubt:#?}");
}

/// F9, W7: a failed FLUSH, an EIO that another path is asked about, and one that is believed.
#[test]
fn errors_of_storage_are_explained() {
    let mut s = Script::up(&device(2));
    s.request(Read, 0, 4096);
    let first = s.take();
    s.answer(first, Err(Errno::Io));
    let asked = find(&of_path(&s, first.path), "ask another path: EIO");
    assert_eq!(figure(&asked, "paths that answered EIO"), (1, Some((Comparison::Below, 2))));
    let second = s.take();
    s.answer(second, Err(Errno::Io));
    let believed = find(&of_path(&s, second.path), "believe EIO and tell the host");
    assert_eq!(figure(&believed, "paths that answered EIO").0, 2);
    s.request(Write, 0, 4096);
    let sent = s.take();
    s.answer(sent, Ok(()));
    s.request(Flush, 0, 0);
    let sent = s.take();
    s.answer(sent, Err(Errno::Io));
    let failed = find(&of_path(&s, sent.path), "fail the next FLUSH of every session");
    assert_eq!(failed.rule, "F9");
}

/// 3.4, 3.7: groups, failback, the hold; and the operator.
#[test]
fn groups_failback_and_the_hold_are_explained() {
    let mut program = device(2);
    program.paths[1].priority = 10;
    program.no_path = NoPath::Hold(20 * SECOND);
    program.failback = Failback::After(60 * SECOND);
    let mut s = Script::up(&program);
    let stands_by = find(&of_path(&s, 1), "stand by");
    assert_eq!(figure(&stands_by, "priority"), (10, Some((Comparison::AtLeast, 50))));
    s.reset(0);
    let group = find(&of_device(&s), "use the group");
    assert_eq!(figure(&group, "its priority").0, 10);
    s.open_path(0, offer());
    s.wait_alive(15 * SECOND, |_| true);
    let waits = find(&of_device(&s), "stay with the lower group");
    assert_eq!(figure(&waits, "better group usable for").1, Some((Comparison::AtLeast, 60 * SECOND)));
    s.reset(1);
    s.reset(0);
    let hold = find(&of_device(&s), "no path: hold requests");
    assert_eq!((hold.rule, figure(&hold, "hold").0), ("3.7", 20 * SECOND));
    s.wait(21 * SECOND);
    let over = find(&of_device(&s), "fail requests");
    assert_eq!(figure(&over, "without a path for"), (20 * SECOND, Some((Comparison::AtLeast, 20 * SECOND))));
    s.open_all(&offer());
    s.wait_alive(SECOND, |_| true);
    find(&of_device(&s), "a path is back: requests go on");
    s.event(Event::Path { path: 0, command: PathCommand::Drain });
    assert_eq!(find(&of_path(&s, 0), "take it out: `path drain`").rule, "operator");
    of_device(&s).iter().for_each(judged);
}

/// A storm of one path leaves room for the others, and what is kept is bounded.
#[test]
fn what_is_kept_is_bounded() {
    let mut s = Script::up(&device(2));
    for round in 0..200 {
        s.reset(0);
        s.wait_alive(SECOND, |_| true);
        if round % 2 == 0 && !s.opening.is_empty() {
            s.refuse_connect(0);
        }
        s.wait_alive(40 * SECOND, |_| true);
        s.open_path(0, offer());
    }
    assert_eq!(of_path(&s, 0).len(), 16);
    find(&of_path(&s, 1), "accept");
    for _ in 0..40 {
        s.reset(0);
        s.reset(1);
        s.wait(SECOND);
        s.open_all(&offer());
        s.wait_alive(20 * SECOND, |_| true);
    }
    assert_eq!(of_device(&s).len(), 64);
}

/// For each state of a path there is a reason of this moment, with what would change it.
#[test]
fn every_state_has_its_present_reason() {
    let now = |s: &Script, path: usize| s.engine.explain(s.now).paths[path].clone();
    let check = |s: &Script, path: usize, state: &str, what: &str, rule: &str| {
        let found = now(s, path);
        assert_eq!(
            (found.state.as_str(), found.present.what, found.present.rule),
            (state, what, rule),
            "{found:#?}"
        );
        assert!(!found.present.until.is_empty(), "{found:#?}");
        found.present
    };
    let mut program = device(2);
    program.paths[1].priority = 10;
    let mut s = Script::new(&program);
    check(&s, 0, "down", "not connected; an attempt is under way", "3.5");
    assert_eq!(s.engine.explain(s.now).present.what, "no path has told its size yet");
    s.open_all(&offer());
    check(&s, 0, "up", "carries requests", "3.4");
    let standby = check(&s, 1, "standby", "stands by", "3.4");
    assert_eq!(figure(&standby, "priority"), (10, Some((Comparison::AtLeast, 50))));
    assert_eq!(s.engine.explain(s.now).present.what, "every path is in order");
    // Suspect, while it lasts.
    s.request(Read, 0, 4096);
    let stuck = s.take();
    s.wait_alive(1_200 * MILLISECOND, |sent| sent.path != stuck.path);
    // The read was moved by then; what is still unanswered is the canary.
    let suspect = check(&s, 0, "down", "suspect: a canary read is unanswered", "W15");
    assert!(figure(&suspect, "suspect for").0 < 300 * MILLISECOND);
    s.answer(stuck, Ok(()));
    find(&of_path(&s, 0), "trust again");
    // Lost, waiting, back on probation.
    s.reset(0);
    s.wait_alive(SECOND, |_| true);
    s.refuse_connect(0);
    let waits = check(&s, 0, "down", "not connected; waiting before the next attempt", "3.5");
    assert!(figure(&waits, "next attempt in").0 > 0);
    s.wait_alive(SECOND, |_| true);
    s.open_path(0, offer());
    let probation = check(&s, 0, "probation", "on probation after a failure", "probation");
    assert_eq!(figure(&probation, "good canary reads in a row").0, 0);
    s.wait_alive(SECOND, |_| true);
    let share = check(&s, 0, "probation", "on probation after a failure", "probation");
    assert_eq!(figure(&share, "share of the requests now").0, 50_000);
    let left = figure(&share, "full share in").0;
    assert!(left > 0 && left < 10 * SECOND);
    // Commands.
    s.event(Event::Path { path: 1, command: PathCommand::Drain });
    check(&s, 1, "drained", "taken out by `path drain`", "operator");
    s.event(Event::Path { path: 0, command: PathCommand::Fail });
    check(&s, 0, "down", "taken out by `path fail`", "operator");
    let held = s.engine.explain(s.now);
    assert_eq!((held.state.as_str(), held.present.rule), ("held", "3.7"));
    assert_eq!(figure(&held.present, "for").1, Some((Comparison::Below, 600 * SECOND)));
}

/// The same for the states that a rule holds a path in: the figure that counts now, with what it is compared with.
#[test]
fn what_a_rule_holds_says_what_is_left_of_it() {
    let now = |s: &Script, path: usize| {
        let found = s.engine.explain(s.now).paths[path].clone();
        assert!(!found.present.until.is_empty() && !found.present.refused.is_empty(), "{found:#?}");
        (found.state.as_str(), found.present)
    };
    // Held out.
    let mut s = Script::up(&device(2));
    for _ in 0..6 {
        s.reset(0);
        s.wait(0);
        s.open_path(0, offer());
        s.wait_alive(SECOND, |_| true);
    }
    let (state, present) = now(&s, 0);
    assert_eq!((state, present.rule), ("held", "failure-limit"));
    assert_eq!(figure(&present, "failures within 10 min"), (6, Some((Comparison::Above, 5))));
    let left = figure(&present, "held out for").0;
    assert!(left > 28 * SECOND && left < 30 * SECOND, "{left}");
    // Slow; then quick again and not yet trusted: what made it slow is not what counts any more.
    let program = DeviceProgram { selector: SelectorKind::RoundRobin, ..device(2) };
    let mut rig = Rig::new(Script::up(&program), &[40 * MILLISECOND, 4 * MILLISECOND], 64, 4);
    rig.run(70 * SECOND);
    rig.service[0] = 4 * MILLISECOND;
    rig.run(100 * SECOND);
    let (state, present) = now(&rig.script, 0);
    assert_eq!((state, present.rule), ("slow", "slow"));
    let (clean, limit) = figure(&present, "without a slow window");
    assert_eq!(limit, Some((Comparison::AtLeast, 300 * SECOND)));
    assert!((85 * SECOND..=100 * SECOND).contains(&clean), "{clean}");
    // Marginal.
    let mut program = device(2);
    program.paths[0].in_flight = 64;
    let mut s = Script::up(&program);
    for n in 0..30 {
        s.request(Write, n * 8192, 4096);
        for _ in 0..30 {
            s.wait(10 * MILLISECOND);
            let (stuck, ready): (Vec<_>, Vec<_>) =
                s.sent.drain(..).partition(|sent| sent.path == 0 && sent.command == Write);
            s.sent.extend(stuck);
            for sent in ready {
                s.answer(sent, Ok(()));
            }
        }
    }
    s.wait_alive(3 * SECOND, |_| true);
    let (state, present) = now(&s, 0);
    assert_eq!((state, present.rule), ("slow", "marginal"));
    assert!(figure(&present, "in good standing again in").0 > 0, "{present:#?}");
    // Refused: smaller than what hosts were told.
    let mut s = Script::up(&device(2));
    s.reset(0);
    s.wait(0);
    s.open_path(0, Offer { size_bytes: SIZE / 2, ..offer() });
    let (state, present) = now(&s, 0);
    assert_eq!((state, present.rule), ("refused", "3.3"));
    assert!(figure(&present, "asked again in").0 > 0);
    let refused = find(&of_path(&s, 0), "refuse");
    assert_eq!(figure(&refused, "size"), (SIZE / 2, Some((Comparison::AtLeast, SIZE))));
    // Unproven: blank volumes look all the same.
    let mut s = Script::new(&DeviceProgram { identity: None, ..device(2) });
    s.open_path(0, offer());
    s.open_path(1, offer());
    while let Some(read) = s.sent.pop_front() {
        s.answer_digest(read, 0, true);
    }
    let (state, present) = now(&s, 1);
    assert_eq!((state, present.rule), ("unproven", "3.8"));
    assert!(figure(&present, "blocks that read equal").0 > 0, "{present:#?}");
}
