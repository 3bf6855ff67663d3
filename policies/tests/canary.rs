// SPDX-License-Identifier: MIT OR Apache-2.0
//! Probes are never late, never needed on a path that answers, and spread over time.

mod support;

use policies::Canary;
use support::{Draws, MILLISECOND, SECOND};

const INTERVAL: u64 = SECOND;
const IDLE: u64 = 10 * SECOND;

#[test]
fn due_within_the_last_quarter_of_the_interval() {
    let mut draws = Draws::new(4);
    for _ in 0..10_000 {
        let canary = Canary::new(INTERVAL, IDLE, draws.any());
        let last_activity = draws.below(1_000 * SECOND);
        for (busy, interval) in [(true, INTERVAL), (false, IDLE)] {
            let wait = canary.next_due(last_activity, busy) - last_activity;
            assert!((interval * 47 / 64..=interval).contains(&wait), "{wait} of {interval}");
            assert_eq!((last_activity + wait) % (interval / 64), 0, "on the grid that paths share");
        }
    }
    assert_eq!(Canary::new(INTERVAL, IDLE, 0).next_due(0, true), INTERVAL, "the ends are reached");
    assert!(Canary::new(INTERVAL, IDLE, u64::MAX).next_due(0, true) < INTERVAL * 3 / 4 + 10);
}

#[test]
fn any_reply_puts_it_off() {
    let canary = Canary::new(INTERVAL, IDLE, u64::MAX / 3);
    for reply in (0..100).map(|n| n * 500 * MILLISECOND) {
        assert!(
            canary.next_due(reply, true) > reply + 500 * MILLISECOND,
            "a path that answers is not probed"
        );
    }
}

/// A probe that is not answered does not move the last activity. Counted from there alone,
/// the next one would be due at once, and again, as fast as the engine turns.
#[test]
fn an_unanswered_probe_does_not_cause_a_storm() {
    let mut canary = Canary::new(INTERVAL, IDLE, 0);
    let mut now = 0;
    for sent in 1..=10 {
        now = canary.next_due(0, true);
        assert_eq!(now, sent * INTERVAL);
        canary.on_sent(now);
    }
    assert_eq!(canary.next_due(now + 7, true), now + INTERVAL, "a late reply counts as any");
}

#[test]
fn paths_that_came_up_together_drift_apart() {
    let mut draws = Draws::new(5);
    let mut bins = [0_u32; 20];
    for _ in 0..1_000 {
        let mut canary = Canary::new(INTERVAL, IDLE, draws.any());
        let mut at = 0;
        // Ten minutes of an idle device, each probe answered.
        while at < 600 * SECOND {
            canary.on_sent(at);
            at = canary.next_due(at, false);
        }
        // `at` lies in the ten seconds after; 500 ms per bin.
        bins[((at - 600 * SECOND) / (500 * MILLISECOND)) as usize] += 1;
    }
    // Together they would all be in one bin. Even would be about fifty in each.
    assert!(bins.iter().all(|&n| n <= 100), "{bins:?}");
}

#[test]
fn times_can_change_and_have_a_floor() {
    let mut canary = Canary::new(INTERVAL, IDLE, 0);
    canary.on_sent(3 * SECOND);
    canary.set_times(2 * SECOND, 20 * SECOND);
    canary.check_invariants();
    assert_eq!(canary.next_due(0, true), 5 * SECOND, "the last probe is remembered");
    assert_eq!(canary.next_due(0, false), 73 * (20 * SECOND / 64), "a multiple of 1/64");
    let eager = Canary::new(0, 0, 0);
    assert_eq!(eager.next_due(0, true), 10 * MILLISECOND);
    assert_eq!(eager.next_due(0, false), 10 * MILLISECOND, "idle is never shorter than busy");
    assert!(Canary::new(u64::MAX, u64::MAX, 0).next_due(9, true) > u64::MAX - 64);
}
