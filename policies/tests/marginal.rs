// SPDX-License-Identifier: MIT OR Apache-2.0
//! Ten requests in trouble and 1 % within a minute make a path marginal; a clean minute ends it.

mod support;

use policies::Marginal;
use policies::marginal::Counts;
use support::{Draws, SECOND};

const MINUTE: u64 = 60 * SECOND;

/// `good` and `troubled` requests at one moment; whether it became marginal.
fn play(marginal: &mut Marginal, now: u64, good: u32, troubled: u32) -> bool {
    (0..good).for_each(|_| marginal.on_good(now));
    (0..troubled).fold(false, |became, _| marginal.on_trouble(now) | became)
}

#[test]
fn both_conditions_are_needed() {
    for (good, troubled, expected) in [
        (0, 9, false),
        (0, 10, true),
        (990, 10, true),
        (991, 10, false),
        (10_000, 100, false),
        (9_900, 100, true),
        (1_000_000, 10, false),
    ] {
        let mut marginal = Marginal::new();
        assert_eq!(play(&mut marginal, SECOND, good, troubled), expected, "{troubled} beside {good}");
        assert_eq!(marginal.is_marginal(SECOND), expected);
        assert_eq!(marginal.counts(SECOND), Counts { requests: good + troubled, troubled });
        marginal.check_invariants();
    }
}

#[test]
fn it_ends_after_a_minute_without_trouble_and_doubles() {
    let mut marginal = Marginal::new();
    let mut now = SECOND;
    let mut minutes = Vec::new();
    for _ in 0..6 {
        assert!(play(&mut marginal, now, 0, 10));
        assert!(!marginal.on_trouble(now + SECOND), "it is marginal already");
        let until = marginal.until().expect("it is marginal");
        assert!(marginal.is_marginal(until - 1) && !marginal.is_marginal(until));
        minutes.push((until - now - SECOND) / MINUTE);
        now = until;
    }
    assert_eq!(minutes, [1, 2, 4, 8, 10, 10]);
    // A little trouble afterwards does not bring it back; ten good minutes forget the doubling.
    assert!(!marginal.on_trouble(now + 2 * MINUTE) && !marginal.is_marginal(now + 2 * MINUTE));
    now += 10 * MINUTE;
    assert!(play(&mut marginal, now, 0, 10));
    assert_eq!(marginal.until(), Some(now + MINUTE));
    marginal.clear();
    assert!(!marginal.is_marginal(now) && marginal.until().is_none());
}

/// The counts are those of a list of all requests, to within a tenth-minute bucket.
#[test]
fn counts_as_a_list_would() {
    for seed in 0..20 {
        let mut draws = Draws::new(seed);
        let mut marginal = Marginal::new();
        let mut all: Vec<(u64, bool)> = Vec::new();
        let mut now = 0;
        for _ in 0..2_000 {
            let pause = if draws.below(50) == 0 { 100 * SECOND } else { SECOND };
            now += draws.below(pause);
            let troubled = draws.below(40) == 0;
            if troubled {
                marginal.on_trouble(now);
            } else {
                marginal.on_good(now);
            }
            all.push((now, troubled));
            marginal.check_invariants();
            let first = (now / (10 * SECOND)).saturating_sub(5) * 10 * SECOND;
            let recent: Vec<bool> = all.iter().filter(|it| it.0 >= first).map(|it| it.1).collect();
            let expected = Counts {
                requests: recent.len() as u32,
                troubled: recent.iter().filter(|&&troubled| troubled).count() as u32,
            };
            assert_eq!(marginal.counts(now), expected, "seed {seed} at {now}");
        }
    }
}
