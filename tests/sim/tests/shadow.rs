// SPDX-License-Identifier: MIT OR Apache-2.0
//! Shadows beside simulated devices: they agree with what runs, tell what else would have been
//! done, and do so from a file as well.

use engine::{DecisionPoint, Rules};
use policies::selector::Kind;
use policies::shadow::Tally;
use program::{MILLISECOND, Nanos, SECOND, SelectorKind};
use sim::plan::Plan;
use sim::record::{Origin, Points, read, write};
use sim::run::{again, record, run};
use sim::shadow::{Judge, Proposed, Sums, Told};
use sim::world::{Outcome, World};

const ORIGIN: Origin = Origin { seed: 1, device: 0 };
const ENOUGH: usize = 1 << 20;

fn proposed(text: &str) -> Proposed {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn judged(proposed: Proposed, points: &Points) -> Sums {
    let mut judge = Judge::new(proposed);
    judge.feed_all(ORIGIN, points);
    judge.end()
}

/// Reads over two paths, the second one `slow_ns` slow.
fn with_a_slow_path(selector: SelectorKind, slow_ns: Nanos, duration: Nanos, at_most: usize) -> Points {
    let mut plan = Plan::calm(2, false);
    plan.duration = duration;
    plan.servers[1].service = slow_ns;
    plan.devices[0].program.selector = selector;
    plan.devices[0].program.hedge_budget_ppm = 30_000;
    plan.devices[0].depth = 4;
    plan.devices[0].think = 2 * MILLISECOND;
    let Outcome { failure, mut records, .. } =
        World::scenario(plan, 1, Vec::new(), 0).recording(at_most).run();
    assert_eq!(failure, None);
    records.remove(0)
}

/// No device is left out: a shadow starts anew with our own process, as its policies do, and what is not
/// proposed follows a reload.
#[test]
fn with_the_settings_that_run_a_shadow_never_differs() {
    let (mut sum, mut restarts, mut reloads) = (Tally::default(), 0, 0);
    for seed in 0..60 {
        let outcome = record(seed, Rules::ALL, false, ENOUGH);
        assert_eq!(outcome.failure, None, "{}", again(seed));
        for points in &outcome.records {
            let Sums { tally, dropped, .. } = judged(Proposed::default(), points);
            assert_eq!((tally.choices_differ, tally.late_reads_differ, dropped), (0, 0, 0), "seed {seed}");
            let count = |wanted: fn(&DecisionPoint) -> bool| points.iter().filter(|it| wanted(&it.1)).count();
            restarts += count(|point| matches!(point, DecisionPoint::Started { .. })) - 1;
            reloads += count(|point| matches!(point, DecisionPoint::Settings(_)));
            sum += tally;
        }
    }
    assert_eq!(sum.hedges, sum.hedges_shadow);
    assert!(sum.choices_open > 20_000 && sum.hedges > 20 && sum.hold_outs > 20, "{sum:?}");
    assert!(restarts > 10 && reloads > 10, "{restarts} restarts, {reloads} reloads");
}

#[test]
fn recording_changes_nothing() {
    for seed in 0..20 {
        let (plain, recorded) = (run(seed), record(seed, Rules::ALL, false, ENOUGH));
        assert_eq!((plain.trace, plain.requests), (recorded.trace, recorded.requests), "seed {seed}");
        assert!(plain.records.iter().all(Vec::is_empty) && !recorded.records[0].is_empty());
    }
}

#[test]
fn round_robin_beside_a_slow_path_is_an_estimated_loss() {
    let points = with_a_slow_path(SelectorKind::Latency, 20 * MILLISECOND, 5 * SECOND, ENOUGH);
    let Sums { tally, .. } = judged(proposed("selector=round-robin"), &points);
    assert!(tally.choices_differ * 3 > tally.choices_open, "{tally:?}");
    assert!(tally.estimated_gain_ns < -(SECOND as i64), "{tally:?}");
    let told = Told(proposed("selector=round-robin"), Sums { devices: 1, tally, ..Sums::default() });
    assert!(told.to_string().contains("estimated gain: -"), "{told}");
    let Sums { tally, .. } = judged(proposed("selector=latency"), &points);
    assert_eq!((tally.choices_differ, tally.estimated_gain_ns), (0, 0));
}

#[test]
fn without_a_budget_the_shadow_sends_no_second_copies() {
    let points = with_a_slow_path(SelectorKind::RoundRobin, 20 * MILLISECOND, 5 * SECOND, ENOUGH);
    let Sums { tally, blind, .. } = judged(proposed("hedge=0"), &points);
    assert!(tally.hedges > 5 && tally.hedges == tally.late_reads_differ, "{tally:?}");
    assert_eq!((tally.hedges_shadow, tally.choices_differ, blind), (0, 0, 0));
}

/// What the engine demoted the shadow demotes: from then on there is one candidate.
#[test]
fn a_slow_path_is_demoted_by_both() {
    let points = with_a_slow_path(SelectorKind::RoundRobin, 20 * MILLISECOND, 70 * SECOND, ENOUGH);
    let sums = judged(Proposed::default(), &points);
    assert_eq!((sums.tally.demotions, sums.tally.choices_differ), (1, 0));
    let alone = |(_, point): &(Nanos, DecisionPoint)| match point {
        DecisionPoint::Chosen { candidates, .. } => Some(candidates.len() == 1),
        _ => None,
    };
    let demoted = points.iter().rposition(|it| alone(it) == Some(false)).expect("there was a choice");
    let mut judge = Judge::new(Proposed::default());
    judge.feed_all(ORIGIN, &points[..demoted]);
    assert_eq!(judge.end().tally.demotions, 0, "not before");
}

#[test]
fn a_device_that_does_not_hedge_cannot_tell_what_hedging_would_do() {
    let mut plan = Plan::calm(2, false);
    plan.duration = SECOND;
    let outcome = World::scenario(plan, 1, Vec::new(), 0).recording(ENOUGH).run();
    let sums = judged(proposed("hedge=0.03"), &outcome.records[0]);
    assert_eq!((sums.blind, sums.tally.late_reads), (1, 0));
    let told = Told(proposed("hedge=0.03"), sums).to_string();
    assert!(told.contains("not known: 1 device did not hedge"), "{told}");
}

/// The runs of a few seeds as a file.
fn written() -> (Vec<u8>, Sums) {
    let (mut file, mut live) = (Vec::new(), Judge::new(proposed("selector=round-robin,hedge=0.5")));
    for seed in 0..8 {
        for (device, points) in (0..).zip(record(seed, Rules::ALL, false, ENOUGH).records) {
            let origin = Origin { seed, device };
            live.feed_all(origin, &points);
            write(&mut file, origin, points).expect("memory takes everything");
        }
    }
    (file, live.end())
}

#[test]
fn live_and_from_a_file_it_is_the_same() {
    let (file, live) = written();
    let mut judge = Judge::new(proposed("selector=round-robin,hedge=0.5"));
    read(&file[..], |origin, at, point| judge.feed(origin, at, point)).expect("as it was written");
    assert_eq!(judge.end(), live);
    assert!(live.devices >= 8 && live.tally.choices_differ > 100 && live.tally.late_reads > 2, "{live:?}");
}

#[test]
fn a_record_that_overflows_says_how_much_is_gone() {
    let all = with_a_slow_path(SelectorKind::Latency, MILLISECOND, SECOND, ENOUGH);
    let kept = with_a_slow_path(SelectorKind::Latency, MILLISECOND, SECOND, 100);
    let dropped = (all.len() - 1 - 100) as u64;
    assert_eq!(kept[1..], all[all.len() - 100..], "the newest are kept");
    let sums = judged(Proposed::default(), &kept);
    assert_eq!(sums.dropped, dropped);
    let told = Told(Proposed::default(), sums).to_string();
    assert!(told.contains(&format!("incomplete: {dropped} decision points dropped")), "{told}");
}

fn damage(file: &[u8]) -> String {
    let mut judge = Judge::new(Proposed::default());
    let read = read(file, |origin, at, point| judge.feed(origin, at, point));
    read.err().map_or_else(String::new, |damaged| damaged.to_string())
}

#[test]
fn a_damaged_line_is_named() {
    let start = r#"{"seed":1,"device":0,"at":5,"point":{"started":{"settings":{"kind":"latency","hedge_ppm":0,"burst":8},"paths":2,"dropped":0}}}"#;
    let of = |point: &str| format!("{start}\n{{\"seed\":1,\"device\":0,\"at\":9,\"point\":{point}}}\n");
    assert_eq!(damage(of(r#"{"failed":{"path":1}}"#).as_bytes()), "");
    let cases = [
        (of(r#"{"failed":{"path":2}}"#), "line 2: path 2 of a device with 2"),
        (of(r#"{"compared":{"in_good_standing":[true],"groups":[0,0]}}"#), "line 2: 1 paths, 2 of them"),
        (of(r#"{"compared":{"in_good_standing":[true,true],"groups":[0]}}"#), "line 2: 2 paths, 1 of them"),
        (of(r#"{"canary":{"path":0,"service_ns":10}}"#), "line 2: it took 10 ns and was answered at 9"),
        (
            of(r#"{"chosen":{"len_bytes":1,"first_read":true,"candidates":[],"chosen":0}}"#),
            "line 2: candidate 0 of 0",
        ),
        (of(r#"{"failed":{"pfad":1}}"#), "line 2: this is no decision point: unknown field `pfad`"),
        (of(r#"{"failed":{"path":1}"#), "line 2: this is no decision point: EOF while parsing"),
        (of(r#"{"failed":{"path":1}}"#).replace(":9,", ":4,"), "line 2: the time 4 does not follow 5"),
        (of(r#"{"failed":{"path":1}}"#).replace("latency", "luck"), "line 1: this is no decision point"),
        (of(r#"{"failed":{"path":1}}"#).replacen("\n{\"seed\":1", "\n{\"seed\":2", 1), "line 2: the record"),
        (format!("{start}\n\n"), "line 2: this is no decision point"),
        (String::new(), "line 1: there is no decision point"),
    ];
    for (file, expected) in cases {
        let told = damage(file.as_bytes());
        assert!(told.starts_with(expected), "{told:?} instead of {expected:?}");
    }
    assert!(damage(b"\xff\xfe\n").starts_with("line 1: this is no decision point"));
}

/// Whatever figure stands in a line, it is refused or it is fed; nothing stops in the middle.
#[test]
fn odd_figures_do_no_harm() {
    let (file, _) = written();
    let text = String::from_utf8(file).expect("JSON");
    let lines: Vec<&str> = text.lines().take(2_000).collect();
    for odd in ["0", "1", "4294967295", "1152921504606846975", "18446744073709551615"] {
        for at in (0..lines.len()).step_by(37) {
            let mut parts: Vec<&str> = lines[at].split_inclusive(':').collect();
            let which = at / 37 % parts.len();
            let rest = parts[which].trim_start_matches(|c: char| c.is_ascii_digit());
            let changed = format!("{odd}{rest}");
            parts[which] = if rest.len() < parts[which].len() { &changed } else { parts[which] };
            let line = parts.concat();
            let mut all = lines.clone();
            all[at] = &line;
            damage(all.join("\n").as_bytes());
        }
    }
}

#[test]
fn a_proposal_is_read_and_a_mistake_says_what_is_allowed() {
    let both = Proposed { kind: Some(Kind::QueueDepth), hedge_ppm: Some(30_000) };
    assert_eq!(proposed("selector=queue-depth,hedge=0.03"), both);
    assert_eq!(proposed("hedge=0.03,selector=queue-depth").to_string(), "selector=queue-depth,hedge=0.03");
    assert_eq!(proposed("hedge=0"), Proposed { kind: None, hedge_ppm: Some(0) });
    for mistake in
        ["", "hedge", "selector=best", "hedge=0.6", "hedge=-1", "hedge=NaN", "hedge=0,hedge=0", "lanes=2"]
    {
        let error = mistake.parse::<Proposed>().expect_err(mistake);
        for allowed in ["round-robin", "queue-depth", "service-time", "latency", "hedge=SHARE", "0.5"] {
            assert!(error.contains(allowed), "{mistake:?}: {error}");
        }
    }
}
