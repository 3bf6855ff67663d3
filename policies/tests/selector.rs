// SPDX-License-Identifier: MIT OR Apache-2.0
//! Selectors against their definition: one choice at a time, all small states.
//!
//! How they behave over time, against model paths, is in `selector_simulated.rs`.

mod support;

use policies::Selector;
use policies::selector::{Candidate, Kind};
use support::{Draws, MILLISECOND, SECOND, sequences};

const KINDS: [Kind; 4] = [Kind::RoundRobin, Kind::QueueDepth, Kind::ServiceTime, Kind::Latency];
const NOW: u64 = 100 * SECOND;

/// A path that was just used, so that nothing needs to be re-sampled.
fn candidate() -> Candidate {
    Candidate {
        in_flight: 0,
        in_flight_bytes: 0,
        weight: 1,
        expected_ns: 100_000,
        last_used: NOW,
        share_ppm: 1_000_000,
    }
}

/// How often each of `candidates` is chosen in `choices` choices.
fn counts(selector: &mut Selector, candidates: &[Candidate], choices: u32) -> Vec<u32> {
    let mut counts = vec![0; candidates.len()];
    for _ in 0..choices {
        counts[selector.choose(NOW, 4_096, candidates)] += 1;
    }
    counts
}

#[test]
fn round_robin_is_smooth() {
    let candidates = [5, 1, 1].map(|weight| Candidate { weight, ..candidate() });
    let mut selector = Selector::new(Kind::RoundRobin);
    let turns: Vec<usize> = (0..14).map(|_| selector.choose(NOW, 0, &candidates)).collect();
    assert_eq!(turns, [0, 0, 1, 0, 2, 0, 0, 0, 0, 1, 0, 2, 0, 0]);
}

#[test]
fn round_robin_is_exact_for_all_small_weights() {
    for count in 1..=4 {
        for weights in sequences(&[1, 2, 3, 7], count) {
            let candidates: Vec<Candidate> =
                weights.iter().map(|&weight| Candidate { weight, ..candidate() }).collect();
            let mut selector = Selector::new(Kind::RoundRobin);
            for _ in 0..3 {
                let round = weights.iter().sum();
                assert_eq!(counts(&mut selector, &candidates, round), weights);
            }
        }
    }
}

/// Whether `a / b <= c / d`, exactly.
fn at_most(a: u64, b: u32, c: u64, d: u32) -> bool {
    u128::from(a) * u128::from(d) <= u128::from(c) * u128::from(b)
}

#[test]
fn queue_depth_and_service_time_over_all_small_states() {
    let mut states = Vec::new();
    for (in_flight, in_flight_bytes) in [(0, 0), (1, 65_536), (2, 8_192), (3, 12_288)] {
        for weight in [1, 3] {
            states.push(Candidate { in_flight, in_flight_bytes, weight, ..candidate() });
        }
    }
    for count in 1..=4 {
        for candidates in sequences(&states, count) {
            let chosen = candidates[Selector::new(Kind::QueueDepth).choose(NOW, 4_096, &candidates)];
            for other in &candidates {
                let (a, b) = (u64::from(chosen.in_flight), u64::from(other.in_flight));
                assert!(at_most(a, chosen.weight, b, other.weight), "{chosen:?} in {candidates:?}");
            }
            let chosen = candidates[Selector::new(Kind::ServiceTime).choose(NOW, 4_096, &candidates)];
            for other in &candidates {
                let (a, b) = (chosen.in_flight_bytes + 4_096, other.in_flight_bytes + 4_096);
                assert!(at_most(a, chosen.weight, b, other.weight), "{chosen:?} in {candidates:?}");
            }
        }
    }
}

/// The candidates that the page allows the latency kind to choose.
fn naive_latency(candidates: &[Candidate]) -> Vec<usize> {
    let indices = 0..candidates.len();
    if candidates.len() == 1 {
        return vec![0];
    }
    let unknown: Vec<usize> = indices.clone().filter(|&i| candidates[i].expected_ns == 0).collect();
    if unknown.len() == candidates.len() {
        let least = candidates.iter().map(|c| c.in_flight).min();
        return indices.filter(|&i| Some(candidates[i].in_flight) == least).collect();
    }
    if let Some(&first) = unknown.first() {
        return vec![first];
    }
    let stale = |c: &Candidate| c.in_flight == 0 && NOW - c.last_used >= SECOND;
    let stalest = indices.clone().filter(|&i| stale(&candidates[i])).min_by_key(|&i| candidates[i].last_used);
    if let Some(index) = stalest {
        return vec![index];
    }
    let fastest = candidates.iter().map(|c| c.expected_ns).min().expect("there are candidates");
    let wait = |i: usize| {
        let Candidate { expected_ns, in_flight, .. } = candidates[i];
        let expected_ns = if expected_ns * 4 <= fastest * 5 { fastest } else { expected_ns };
        expected_ns * (u64::from(in_flight) + 1)
    };
    let shortest = indices.clone().map(wait).min();
    indices.filter(|&i| Some(wait(i)) == shortest).collect()
}

#[test]
fn latency_over_all_small_states() {
    let mut states = Vec::new();
    for expected_ns in [0, 100, 125, 126, 400] {
        for in_flight in [0, 1, 3] {
            states.push(Candidate { expected_ns, in_flight, ..candidate() });
        }
    }
    for last_used in [NOW - SECOND, NOW - SECOND + 1, NOW - 9 * SECOND] {
        states.push(Candidate { expected_ns: 400, last_used, ..candidate() });
    }
    for count in 1..=4 {
        for candidates in sequences(&states, count) {
            let chosen = Selector::new(Kind::Latency).choose(NOW, 4_096, &candidates);
            assert!(naive_latency(&candidates).contains(&chosen), "{chosen} in {candidates:?}");
        }
    }
}

#[test]
fn equals_share_alike_by_every_kind() {
    for kind in KINDS {
        for count in 2..=4 {
            let candidates = vec![candidate(); count];
            let each = counts(&mut Selector::new(kind), &candidates, 100 * count as u32);
            assert!(each.iter().all(|&n| n == 100), "{kind:?}: {each:?}");
        }
    }
}

#[test]
fn a_path_in_probation_gets_exactly_its_share() {
    for kind in KINDS {
        // The limited one looks worst by every cost: its share is not up for competition.
        let limited = Candidate { share_ppm: 50_000, expected_ns: 900 * MILLISECOND, ..candidate() };
        let candidates = [candidate(), limited, candidate()];
        let each = counts(&mut Selector::new(kind), &candidates, 2_000);
        assert_eq!(each, [950, 100, 950], "{kind:?}");
        // And none at all with share 0.
        let none = [candidate(), Candidate { share_ppm: 0, ..candidate() }];
        assert_eq!(counts(&mut Selector::new(kind), &none, 500), [500, 0]);
    }
}

#[test]
fn two_in_probation_get_a_share_each() {
    let limited = Candidate { share_ppm: 50_000, ..candidate() };
    let each = counts(&mut Selector::new(Kind::Latency), &[limited, candidate(), limited], 2_001);
    // The second waits one choice for the first, each time.
    assert_eq!(each, [100, 1_801, 100]);
}

/// A path that comes back and hangs again would collect a slot with each of its choices.
#[test]
fn a_hung_path_in_probation_holds_no_more_slots_than_its_share() {
    let mut selector = Selector::new(Kind::Latency);
    let mut candidates = [candidate(), Candidate { share_ppm: 50_000, ..candidate() }];
    // Depth 64: the good path answers at once, the limited one never.
    candidates[0].in_flight = 63;
    for _ in 0..100_000 {
        if selector.choose(NOW, 4_096, &candidates) == 1 {
            candidates[1].in_flight += 1;
            candidates[0].in_flight -= 1;
        }
    }
    assert_eq!(candidates[1].in_flight, 4, "5 % of 64, and the one that finds it below");
}

#[test]
fn with_no_full_path_the_largest_share_carries_all() {
    for kind in KINDS {
        let with = |share_ppm| Candidate { share_ppm, ..candidate() };
        assert_eq!(counts(&mut Selector::new(kind), &[with(0)], 10), [10], "{kind:?}");
        assert_eq!(counts(&mut Selector::new(kind), &[with(50_000)], 10), [10]);
        assert_eq!(counts(&mut Selector::new(kind), &[with(0), with(50_000)], 10), [0, 10]);
        assert_eq!(counts(&mut Selector::new(kind), &[with(50_000), with(50_000)], 10), [5, 5]);
    }
}

#[test]
fn an_unknown_path_gets_one_request_until_it_answers() {
    let mut selector = Selector::new(Kind::Latency);
    let mut candidates = [candidate(), Candidate { expected_ns: 0, last_used: 0, ..candidate() }];
    assert_eq!(selector.choose(NOW, 4_096, &candidates), 1);
    candidates[1].in_flight = 1;
    candidates[0].in_flight = 500;
    assert_eq!(counts(&mut selector, &candidates, 1_000), [1_000, 0], "its answer may never come");
    candidates[1] = Candidate { expected_ns: 1, ..candidates[1] };
    assert_eq!(selector.choose(NOW, 4_096, &candidates), 1);
}

/// Busy with large requests a path may never be idle; its small ones must still be measured.
#[test]
fn an_unknown_size_is_tried_on_a_busy_path_too() {
    let mut selector = Selector::new(Kind::Latency);
    let mut candidates =
        [candidate(), Candidate { expected_ns: 0, in_flight: 9, in_flight_bytes: 9 << 20, ..candidate() }];
    assert_eq!(selector.choose(NOW, 4_096, &candidates), 1);
    candidates[1].in_flight = 10;
    assert_eq!(counts(&mut selector, &candidates, 100), [100, 0]);
    candidates[1].in_flight = 9;
    assert_eq!(selector.choose(NOW, 4_096, &candidates), 1, "it answers, so it may be asked again");
}

#[test]
fn as_long_as_nothing_is_known_the_fewest_in_flight_wins() {
    let mut selector = Selector::new(Kind::Latency);
    let mut candidates = [Candidate { expected_ns: 0, ..candidate() }; 3];
    for _ in 0..30 {
        candidates[selector.choose(NOW, 4_096, &candidates)].in_flight += 1;
    }
    assert_eq!(candidates.map(|c| c.in_flight), [10; 3]);
}

/// A host of five requests per second would send every fifth to a path known to be slow.
#[test]
fn a_quiet_host_pays_at_most_one_in_64() {
    let mut selector = Selector::new(Kind::Latency);
    let mut candidates = [candidate(), Candidate { expected_ns: 30 * MILLISECOND, ..candidate() }];
    let mut sampled = 0;
    for request in 0..6_400 {
        let now = NOW + request * SECOND / 5;
        let chosen = selector.choose(now, 4_096, &candidates);
        candidates[chosen].last_used = now;
        sampled += u32::from(chosen == 1);
    }
    assert_eq!(sampled, 100);
}

#[test]
fn re_sampling_goes_on_only_while_it_improves() {
    let mut selector = Selector::new(Kind::Latency);
    let mut candidates = [candidate(), Candidate { expected_ns: 6_400_000, last_used: 0, ..candidate() }];
    let mut sample = |expected_ns, len_bytes| {
        candidates[1].expected_ns = expected_ns;
        let chosen = selector.choose(NOW, len_bytes, &candidates);
        candidates[chosen].last_used = NOW;
        chosen
    };
    assert_eq!(sample(6_400_000, 4_096), 1, "unused for long");
    assert_eq!(sample(6_400_000, 4_096), 0, "no better");
    assert_eq!(sample(6_300_000, 4_096), 0, "hardly better");
    assert_eq!(sample(5_000_000, 1 << 20), 0, "another size class says nothing");
    assert_eq!(sample(6_200_000, 4_096), 1, "better by more than 1/64");
    assert_eq!(sample(6_200_000, 4_096), 0, "and now measured against that");
    assert_eq!(sample(5_000_000, 4_096), 1);
    assert_eq!(sample(110_000, 4_096), 1, "until it competes on its own");
}

#[test]
fn paths_that_come_and_go_starve_nobody() {
    let mut draws = Draws::new(9);
    for kind in KINDS {
        let mut selector = Selector::new(kind);
        for _ in 0..300 {
            let count = 1 + draws.below(80) as usize;
            let candidates: Vec<Candidate> = (0..count)
                .map(|_| Candidate {
                    weight: 1 + draws.below(9) as u32,
                    in_flight: draws.below(3) as u32,
                    expected_ns: draws.pick(&[0, 100, 110, 5_000]),
                    share_ppm: draws.pick(&[1_000_000, 50_000]),
                    ..candidate()
                })
                .collect();
            for _ in 0..draws.below(50) {
                assert!(selector.choose(NOW, draws.below(1 << 20), &candidates) < count.min(64));
                selector.check_invariants();
            }
            // Whatever was kept from before: within two rounds of equals each has its turn.
            let equals = vec![candidate(); 2 + draws.below(6) as usize];
            let rounds = counts(&mut selector, &equals, 3 * equals.len() as u32);
            assert!(rounds.iter().all(|&n| n >= 1), "{kind:?}: {rounds:?}");
        }
    }
}

#[test]
fn the_kind_can_change() {
    let busy = Candidate { in_flight: 9, in_flight_bytes: 1, ..candidate() };
    let loaded = Candidate { in_flight: 1, in_flight_bytes: 1 << 20, ..candidate() };
    let mut selector = Selector::new(Kind::QueueDepth);
    assert_eq!(selector.choose(NOW, 0, &[busy, loaded]), 1);
    selector.set_kind(Kind::ServiceTime);
    assert_eq!(selector.choose(NOW, 0, &[busy, loaded]), 0);
    selector.set_kind(Kind::RoundRobin);
    assert_eq!(counts(&mut selector, &[busy, loaded], 100), [50, 50]);
}

#[test]
fn extremes_are_survived() {
    let most = Candidate {
        in_flight: u32::MAX,
        in_flight_bytes: u64::MAX,
        weight: u32::MAX,
        expected_ns: u64::MAX,
        last_used: u64::MAX,
        share_ppm: u32::MAX,
    };
    for kind in KINDS {
        let mut selector = Selector::new(kind);
        for candidates in sequences(&[most, candidate(), Candidate { weight: u32::MAX, ..candidate() }], 4) {
            for _ in 0..10 {
                assert!(selector.choose(0, u64::MAX, &candidates) < 4);
                selector.check_invariants();
            }
        }
    }
}

#[test]
#[should_panic(expected = "a choice needs a candidate")]
fn no_candidate_is_a_bug() {
    Selector::new(Kind::Latency).choose(NOW, 0, &[]);
}

#[test]
#[should_panic(expected = "a weight is at least 1")]
fn weight_zero_is_a_bug() {
    Selector::new(Kind::Latency).choose(NOW, 0, &[Candidate { weight: 0, ..candidate() }]);
}
