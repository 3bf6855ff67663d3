// SPDX-License-Identifier: MIT OR Apache-2.0
//! Unavailability and delay are put down to causes, and the sums are right whatever the bounds.

mod support;

use policies::error_budget::{Cause, Cost, ErrorBudget};
use support::{Draws, SECOND};

const RULES: [&str; 4] = ["W15", "W16", "no-path", "failure-limit"];

#[test]
fn a_request_is_delayed_beyond_the_bound_and_counts_once() {
    let mut budget = ErrorBudget::new(SECOND);
    let cause = Cause { path: Some(1), rule: "W16" };
    budget.on_answered(SECOND, Some(cause));
    assert_eq!(budget.total(0), Cost::default(), "at the bound is in time");
    budget.on_answered(SECOND + 1, Some(cause));
    budget.on_answered(3 * SECOND, Some(cause));
    budget.on_answered(5 * SECOND, None);
    let costs: Vec<_> = budget.costs(0).collect();
    let of_path = Cost { unavailable: 0, delayed: 2, excess: 2 * SECOND + 1, worst: 3 * SECOND };
    let of_storage = Cost { unavailable: 0, delayed: 1, excess: 4 * SECOND, worst: 5 * SECOND };
    assert_eq!(costs, [(cause, of_path), (Cause::STORAGE, of_storage)]);
    assert_eq!(budget.requests(), 4);
}

#[test]
fn an_outage_counts_while_it_lasts_and_to_what_began_it() {
    let mut budget = ErrorBudget::new(SECOND);
    let first = Cause { path: Some(0), rule: "transport-reset" };
    budget.on_unavailable(10, first);
    budget.on_unavailable(50, Cause { path: Some(1), rule: "silent" });
    assert_eq!(budget.total(100).unavailable, 90);
    assert_eq!(budget.costs(100).next(), Some((first, Cost { unavailable: 90, ..Cost::default() })));
    budget.on_available(110);
    budget.on_available(500);
    assert_eq!(budget.total(1_000).unavailable, 100, "it is over");
    budget.on_unavailable(2_000, first);
    budget.reset(2_500);
    assert_eq!((budget.total(2_600).unavailable, budget.requests()), (100, 0), "a new account");
    budget.on_available(2_700);
    assert_eq!(budget.total(9_000).unavailable, 200);
}

/// Against plain sums, with more causes than are told apart.
#[test]
fn the_sums_are_right_with_any_number_of_causes() {
    for seed in 0..50 {
        let mut draws = Draws::new(seed);
        let mut budget = ErrorBudget::new(SECOND);
        let (mut expected, mut now, mut since) = (Cost::default(), 0, None);
        for _ in 0..3_000 {
            now += draws.below(SECOND);
            let cause = Cause { path: Some(draws.below(20) as usize), rule: draws.pick(&RULES) };
            match draws.below(4) {
                0 => {
                    budget.on_unavailable(now, cause);
                    since.get_or_insert(now);
                }
                1 => {
                    budget.on_available(now);
                    expected.unavailable += since.take().map_or(0, |since| now - since);
                }
                _ => {
                    let waited = draws.below(3 * SECOND);
                    budget.on_answered(waited, (draws.below(5) > 0).then_some(cause));
                    if waited > SECOND {
                        expected.delayed += 1;
                        expected.excess += waited - SECOND;
                        expected.worst = expected.worst.max(waited);
                    }
                }
            }
            let open = since.map_or(0, |since| now - since);
            let unavailable = expected.unavailable + open;
            assert_eq!(budget.total(now), Cost { unavailable, ..expected }, "seed {seed}");
        }
        let causes: Vec<Cause> = budget.costs(now).map(|it| it.0).collect();
        assert_eq!(causes.len(), 33, "32 and the rest");
        assert_eq!(causes.last(), Some(&Cause::OTHER));
    }
}
