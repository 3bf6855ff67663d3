// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reconnects: at once, then doubling to the cap with jitter, and never giving up.

mod support;

use policies::Backoff;
use policies::limits::BACKOFF_CAP;
use support::{Draws, MILLISECOND, SECOND};

/// A draw in the middle gives the delay without jitter.
const MIDDLE: u64 = 1 << 63;

#[test]
fn doubles_from_100_ms_to_30_s() {
    let mut backoff = Backoff::new();
    let delays_ms: Vec<u64> = (0..12).map(|_| backoff.next_delay(MIDDLE) / MILLISECOND).collect();
    assert_eq!(delays_ms, [0, 100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 30_000, 30_000]);
}

#[test]
fn the_first_attempt_is_immediate_whatever_the_draw() {
    for draw in [0, MIDDLE, u64::MAX] {
        assert_eq!(Backoff::new().next_delay(draw), 0);
    }
}

#[test]
fn jitter_is_a_quarter_each_way_and_fills_the_range() {
    let mut lowest = Backoff::new();
    let mut highest = Backoff::new();
    lowest.next_delay(0);
    highest.next_delay(0);
    assert_eq!(lowest.next_delay(0), 75 * MILLISECOND);
    assert_eq!(highest.next_delay(u64::MAX), 125 * MILLISECOND);

    // A thousand paths that lost their server together, at the cap: every quarter of the
    // range gets about a quarter of them.
    let mut draws = Draws::new(1);
    let mut quarters = [0_u32; 4];
    for _ in 0..1_000 {
        let mut backoff = Backoff::new();
        let delay = (0..20).map(|_| backoff.next_delay(draws.any())).last().unwrap();
        let (low, high) = (BACKOFF_CAP * 3 / 4, BACKOFF_CAP * 5 / 4);
        assert!((low..=high).contains(&delay), "{delay} ns");
        quarters[((delay - low) * 4 / (high - low + 1)) as usize] += 1;
    }
    assert!(quarters.iter().all(|&n| (200..=300).contains(&n)), "{quarters:?}");
}

#[test]
fn never_gives_up() {
    // The shift that doubles would wrap at 64 attempts if it were not checked.
    let mut backoff = Backoff::new();
    for attempt in 0..10_000 {
        assert_eq!(backoff.attempts(), attempt);
        let delay = backoff.next_delay(MIDDLE);
        assert_eq!(delay == 30 * SECOND, attempt >= 10, "attempt {attempt}: {delay} ns");
    }
}

#[test]
fn reset_starts_over() {
    let mut backoff = Backoff::new();
    for _ in 0..5 {
        backoff.next_delay(MIDDLE);
    }
    backoff.reset();
    assert_eq!(backoff.attempts(), 0);
    assert_eq!(backoff.next_delay(MIDDLE), 0);
    assert_eq!(backoff.next_delay(MIDDLE), 100 * MILLISECOND);
}
