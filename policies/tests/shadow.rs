// SPDX-License-Identifier: MIT OR Apache-2.0
//! A shadow with the running settings never differs; with others it says where, and what it may gain.

mod support;

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use policies::hedge::{Answer, PendingRead};
use policies::selector::{Candidate, Kind};
use policies::shadow::{DecisionPoint, Proposal, Tally, Would};
use policies::{Hedge, Latency, Selector, Shadow, SlowChange};
use support::server::Server;
use support::{Draws, MILLISECOND, SECOND};

const LEN: u64 = 4_096;
const BURST: u32 = 128;

/// A host with 8 reads at a time over two paths, the second one slower by `delay_ns`, dealt
/// by `kind`; the shadow sees it all. Returns what the shadow would have done, `Same` left out.
fn run(kind: Kind, delay_ns: u64, time: u64, shadow: &mut Shadow, seed: u64) -> Vec<Would> {
    let mut servers = [Server::unlimited(MILLISECOND), Server::unlimited(MILLISECOND)];
    servers[1].delay_ns = delay_ns;
    let mut draws = Draws::new(seed);
    let mut selector = Selector::new(kind);
    let mut latencies = [Latency::new(), Latency::new()];
    let (mut in_flight, mut last_used) = ([0_u32; 2], [0_u64; 2]);
    let mut answers = BinaryHeap::new();
    let mut differences = Vec::new();
    let (mut now, mut to_send) = (SECOND, 8);
    while now < SECOND + time {
        for _ in 0..to_send {
            let candidates: Vec<Candidate> = (0..2)
                .map(|path| Candidate {
                    in_flight: in_flight[path],
                    in_flight_bytes: u64::from(in_flight[path]) * LEN,
                    weight: 1,
                    expected_ns: latencies[path].expected_ns(false, LEN),
                    last_used: last_used[path],
                    share_ppm: 1_000_000,
                })
                .collect();
            let chosen = selector.choose(now, LEN, &candidates);
            let recorded = DecisionPoint::Chosen {
                len_bytes: LEN,
                first_read: true,
                candidates: candidates.clone(),
                chosen,
            };
            differences.push(shadow.on(now, &recorded));
            in_flight[chosen] += 1;
            last_used[chosen] = now;
            let at = servers[chosen].answer_at(now, &mut draws).expect("none is silent");
            answers.push(Reverse((at, chosen, now)));
        }
        let Some(Reverse((at, path, sent))) = answers.pop() else { unreachable!("eight are out") };
        now = at;
        in_flight[path] -= 1;
        let service_ns = at - sent;
        latencies[path].record(false, LEN, service_ns);
        differences.push(
            shadow.on(now, &DecisionPoint::Answered { path, write: false, len_bytes: LEN, service_ns }),
        );
        differences.push(
            shadow.on(now, &DecisionPoint::Compared { in_good_standing: vec![true; 2], groups: vec![0; 2] }),
        );
        to_send = 1;
    }
    differences.retain(|would| *would != Would::Same);
    differences
}

fn proposal(kind: Kind) -> Proposal {
    Proposal { kind, hedge_ppm: 30_000, burst: BURST }
}

#[test]
fn with_the_running_settings_it_never_differs() {
    for kind in [Kind::RoundRobin, Kind::QueueDepth, Kind::ServiceTime, Kind::Latency] {
        for seed in 0..5 {
            let mut shadow = Shadow::new(proposal(kind), 2);
            assert_eq!(run(kind, MILLISECOND, SECOND, &mut shadow, seed), [], "{kind:?}");
            let tally = shadow.tally();
            assert!(tally.choices > 1_000);
            let choices = tally.choices;
            assert_eq!(tally, Tally { choices, choices_open: choices, ..Tally::default() });
        }
    }
}

/// What an operator asks: would `latency` have helped beside a path 30 ms slow?
#[test]
fn a_better_selector_shows_an_estimated_gain_and_a_worse_one_a_loss() {
    let mut shadow = Shadow::new(proposal(Kind::Latency), 2);
    let differences = run(Kind::RoundRobin, 30 * MILLISECOND, 10 * SECOND, &mut shadow, 1);
    let tally = shadow.tally();
    assert!(tally.choices_differ * 3 > tally.choices, "nearly all that went to the slow one: {tally:?}");
    assert!(tally.estimated_gain_ns / tally.choices_differ as i64 > 10 * MILLISECOND as i64, "{tally:?}");
    assert!(differences.iter().all(|would| matches!(would, Would::Choose { .. })));
    let mut shadow = Shadow::new(proposal(Kind::RoundRobin), 2);
    run(Kind::Latency, 30 * MILLISECOND, 10 * SECOND, &mut shadow, 1);
    assert!(shadow.tally().estimated_gain_ns < 0, "{:?}", shadow.tally());
}

#[test]
fn it_tells_whom_it_would_have_demoted_and_held_out() {
    let mut shadow = Shadow::new(proposal(Kind::RoundRobin), 2);
    let differences = run(Kind::RoundRobin, 30 * MILLISECOND, 70 * SECOND, &mut shadow, 1);
    let [Would::Slow(SlowChange::Demoted { path: 1, .. })] = differences[..] else {
        panic!("{differences:?}")
    };
    assert_eq!(shadow.tally().demotions, 1);
    let now = 100 * SECOND;
    for n in 0..5 {
        assert_eq!(shadow.on(now + n, &DecisionPoint::Failed { path: 0 }), Would::Same);
    }
    let would = shadow.on(now + 5, &DecisionPoint::Failed { path: 0 });
    assert_eq!(would, Would::HoldOut(now + 5 + 30 * SECOND));
    assert_eq!(shadow.tally().hold_outs, 1);
}

/// Second copies: the same budget agrees with a running hedge, none differs on each.
#[test]
fn hedges_are_compared_one_by_one() {
    let late = |age| PendingRead {
        len_bytes: LEN,
        age,
        one_at_a_time: false,
        other_paths: 1,
        recovering: false,
        median_ns: 0,
    };
    for (hedge_ppm, expected) in [(30_000, Would::Same), (0, Would::NotHedge)] {
        let mut running = Hedge::new(30_000, BURST);
        let mut shadow = Shadow::new(Proposal { kind: Kind::Latency, hedge_ppm, burst: BURST }, 2);
        for n in 0..BURST {
            let read = late(10 * MILLISECOND);
            let hedged = running.decide(&read) == Answer::Send;
            assert_eq!(shadow.on(u64::from(n), &DecisionPoint::Late { read, hedged }), expected);
        }
        let tally = shadow.tally();
        assert_eq!((tally.late_reads, tally.hedges), (u64::from(BURST), u64::from(BURST)));
        assert_eq!(tally.late_reads_differ, if hedge_ppm == 0 { u64::from(BURST) } else { 0 });
        assert_eq!(shadow.tally().hedges_shadow, if hedge_ppm == 0 { 0 } else { u64::from(BURST) });
    }
    let mut shadow = Shadow::new(proposal(Kind::Latency), 2);
    let read = late(10 * MILLISECOND);
    assert_eq!(shadow.on(0, &DecisionPoint::Late { read, hedged: false }), Would::Hedge);
}

/// A reload and an operator's word reach the shadow too; what it learnt stays.
#[test]
fn it_follows_new_paths_settings_and_an_operator() {
    let mut shadow = Shadow::new(proposal(Kind::RoundRobin), 1);
    shadow.on(SECOND, &DecisionPoint::Paths { paths: 2 });
    for n in 0..6 {
        shadow.on(SECOND + n, &DecisionPoint::Failed { path: 1 });
    }
    assert_eq!(shadow.tally().hold_outs, 1);
    shadow.on(2 * SECOND, &DecisionPoint::Forgiven { path: 1 });
    assert_eq!(shadow.on(2 * SECOND, &DecisionPoint::Failed { path: 1 }), Would::Same);
    let idle = Candidate {
        in_flight: 0,
        in_flight_bytes: 0,
        weight: 1,
        expected_ns: MILLISECOND,
        last_used: 0,
        share_ppm: 1_000_000,
    };
    let candidates = [Candidate { in_flight: 3, ..idle }, idle];
    let recorded = DecisionPoint::Chosen {
        len_bytes: LEN,
        first_read: true,
        candidates: candidates.to_vec(),
        chosen: 0,
    };
    assert_eq!(shadow.on(3 * SECOND, &recorded), Would::Same);
    shadow.set_proposal(proposal(Kind::QueueDepth));
    let gain = Some(3 * MILLISECOND as i64);
    assert_eq!(shadow.on(3 * SECOND, &recorded), Would::Choose { instead: 1, estimated_gain_ns: gain });
    let mut sum = shadow.tally();
    sum += shadow.tally();
    assert_eq!((sum.choices, sum.choices_differ, sum.choices_estimated), (4, 2, 2));
    assert_eq!((sum.estimated_gain_ns, sum.hold_outs), (6 * MILLISECOND as i64, 2));
}
