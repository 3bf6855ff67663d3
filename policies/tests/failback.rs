// SPDX-License-Identifier: MIT OR Apache-2.0
//! Failover is never delayed; failback follows its policy, measured from usable-since.

mod support;

use policies::Failback;
use policies::failback::When;
use policies::group::Rank;
use support::{Draws, SECOND, sequences};

const NOW: u64 = 100 * SECOND;
const DELAY: u64 = 60 * SECOND;

fn ranked(usable: &[(u32, u64)]) -> Vec<(Rank, u64)> {
    usable.iter().map(|&(priority, since)| (Rank::of(priority), since)).collect()
}

/// Groups told apart by priority alone; how a rank is made up is for `group`.
fn choose(failback: &mut Failback, now: u64, current: Option<u32>, usable: &[(u32, u64)]) -> Option<u32> {
    failback.choose(now, current.map(Rank::of), &ranked(usable)).map(|rank| rank.priority)
}

/// The rule of the page, one sentence per branch.
fn naive(now: u64, when: When, forced: bool, current: Option<u32>, usable: &[(u32, u64)]) -> Option<u32> {
    let mut groups: Vec<u32> = usable.iter().map(|path| path.0).collect();
    groups.sort_unstable();
    let best = *groups.last()?;
    let Some(current) = current else { return Some(best) };
    if !groups.contains(&current) || forced {
        return Some(best);
    }
    // From the top, the first group that may take over; the current one always may.
    groups.into_iter().rev().find(|&group| {
        let since = usable.iter().filter(|path| path.0 == group).map(|path| path.1).min().unwrap();
        group <= current
            || match when {
                When::Immediate => true,
                When::After(delay) => since + delay <= now,
                When::Manual => false,
            }
    })
}

#[test]
fn all_combinations_of_up_to_four_paths() {
    // Each path: its priority, and unusable or usable since then.
    let states: Vec<(u32, Option<u64>)> = [10, 20, 30]
        .iter()
        .flat_map(|&priority| {
            [None, Some(0), Some(40 * SECOND), Some(41 * SECOND)].map(|since| (priority, since))
        })
        .collect();
    for count in 0..=4 {
        for paths in sequences(&states, count) {
            let usable: Vec<(u32, u64)> =
                paths.iter().filter_map(|&(priority, since)| Some((priority, since?))).collect();
            for when in [When::Immediate, When::After(DELAY), When::Manual] {
                for forced in [false, true] {
                    for current in [None, Some(10), Some(20), Some(30)] {
                        let mut failback = Failback::new(when);
                        if forced {
                            failback.force();
                        }
                        assert_eq!(
                            choose(&mut failback, NOW, current, &usable),
                            naive(NOW, when, forced, current, &usable),
                            "{when:?} forced={forced} current={current:?} {usable:?}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn the_deadline_is_the_first_moment_the_answer_changes() {
    let mut draws = Draws::new(2);
    let mut changes = 0;
    for _ in 0..20_000 {
        let usable: Vec<(u32, u64)> =
            (0..=draws.below(4)).map(|_| (draws.pick(&[10, 20, 30]), draws.below(100) * SECOND)).collect();
        let current = Some(draws.pick(&[10, 20, 30]));
        let mut failback = Failback::new(When::After(DELAY));
        let chosen = choose(&mut failback, NOW, current, &usable);
        let Some(deadline) = failback.next_deadline() else {
            assert_eq!(chosen, usable.iter().map(|path| path.0).max(), "waits without a deadline");
            continue;
        };
        changes += 1;
        assert!(deadline > NOW);
        assert_eq!(choose(&mut failback, deadline - 1, chosen, &usable), chosen, "too late: {usable:?}");
        assert!(choose(&mut failback, deadline, chosen, &usable) > chosen, "too early: {usable:?}");
    }
    assert!(changes > 1_000, "the draws must reach the case under test");
}

#[test]
fn a_late_question_does_not_lengthen_the_wait() {
    // Usable at 10 s, first asked at 65 s: due at 70 s, not at 125 s.
    let mut failback = Failback::new(When::After(DELAY));
    assert_eq!(choose(&mut failback, 65 * SECOND, Some(10), &[(10, 0), (50, 10 * SECOND)]), Some(10));
    assert_eq!(failback.next_deadline(), Some(70 * SECOND));
}

#[test]
fn a_flap_starts_the_wait_anew() {
    let mut failback = Failback::new(When::After(DELAY));
    let mut used = Some(10);
    for flap in 1..20 {
        // The better path comes back each 50 s and is gone again before 60 s are over.
        let back = flap * 50 * SECOND;
        used = choose(&mut failback, back, used, &[(10, 0), (50, back)]);
        used = choose(&mut failback, back + 49 * SECOND, used, &[(10, 0), (50, back)]);
        used = choose(&mut failback, back + 49 * SECOND, used, &[(10, 0)]);
        assert_eq!(used, Some(10));
    }
}

#[test]
fn an_order_is_spent_at_once() {
    // "Fail back now" with nothing to fail back to must not fire an hour later.
    let mut failback = Failback::new(When::Manual);
    failback.force();
    assert_eq!(choose(&mut failback, NOW, Some(10), &[(10, 0)]), Some(10));
    assert_eq!(choose(&mut failback, NOW, Some(10), &[(10, 0), (50, 0)]), Some(10));
    failback.force();
    assert_eq!(choose(&mut failback, NOW, Some(10), &[(10, 0), (50, NOW)]), Some(50));
}

#[test]
fn a_delay_without_end_waits_for_ever() {
    let mut failback = Failback::new(When::After(u64::MAX));
    assert_eq!(choose(&mut failback, NOW, Some(10), &[(10, 0), (50, 1)]), Some(10));
    failback.set_when(When::Immediate);
    assert_eq!(choose(&mut failback, NOW, Some(10), &[(10, 0), (50, 1)]), Some(50));
    assert_eq!(failback.next_deadline(), None);
}
