// SPDX-License-Identifier: MIT OR Apache-2.0
//! Decaying service times by size class, and quantiles over all requests.

mod support;

use policies::Latency;
use policies::latency::size_class;
use support::{Draws, MILLISECOND};

const READ: bool = false;
const WRITE: bool = true;
/// One length in each size class.
const LENGTHS: [u64; 5] = [4_096, 16_384, 65_536, 262_144, 1 << 20];

fn recorded(write: bool, len_bytes: u64, service_ns: u64, times: u32) -> Latency {
    let mut latency = Latency::new();
    for _ in 0..times {
        latency.record(write, len_bytes, service_ns);
    }
    latency
}

#[test]
fn size_classes_end_at_their_bounds() {
    let lengths = [0, 4_096, 4_097, 16_384, 16_385, 65_536, 65_537, 262_144, 262_145, u64::MAX];
    assert_eq!(lengths.map(size_class), [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]);
}

#[test]
fn nothing_is_known_at_first() {
    let latency = Latency::new();
    assert!(LENGTHS.iter().all(|&len| latency.expected_ns(READ, len) == 0));
    assert_eq!(latency.quantile_us(500_000), 0);
}

#[test]
fn directions_and_classes_are_kept_apart() {
    let mut latency = Latency::new();
    for (at, &len) in LENGTHS.iter().enumerate() {
        latency.record(READ, len, 100 + at as u64);
        latency.record(WRITE, len, 200 + at as u64);
    }
    for (at, &len) in LENGTHS.iter().enumerate() {
        assert_eq!(latency.expected_ns(READ, len), 100 + at as u64);
        assert_eq!(latency.expected_ns(WRITE, len), 200 + at as u64);
    }
}

/// A guess that is too low is tried and corrected; one that is too high would never be.
#[test]
fn an_unknown_class_is_answered_by_the_nearest_smaller_one() {
    // Every subset of known read classes, against the definition; writes say nothing of reads.
    for known in 0..32_u32 {
        let mut latency = recorded(WRITE, LENGTHS[2], 999, 1);
        for class in (0..5).filter(|class| known >> class & 1 == 1) {
            latency.record(READ, LENGTHS[class], 100 + class as u64);
        }
        for (asked, &len) in LENGTHS.iter().enumerate() {
            let nearest = (0..=asked).rev().find(|class| known >> class & 1 == 1);
            let expected = nearest.map_or(0, |class| 100 + class as u64);
            assert_eq!(latency.expected_ns(READ, len), expected, "known {known:05b}, asked {asked}");
        }
    }
}

#[test]
fn one_hiccup_moves_the_average_by_less_than_40_percent() {
    let mut latency = recorded(READ, 4_096, 100_000, 50);
    latency.record(READ, 4_096, 10_000 * MILLISECOND);
    assert_eq!(latency.expected_ns(READ, 4_096), 137_500);
}

#[test]
fn a_real_change_is_learnt_in_both_directions() {
    let mut latency = recorded(READ, 4_096, 100_000, 50);
    for _ in 0..25 {
        latency.record(READ, 4_096, 30 * MILLISECOND);
    }
    let slow = latency.expected_ns(READ, 4_096);
    assert!(slow > 15 * MILLISECOND, "{slow} ns after 25 slow answers");
    for _ in 0..60 {
        latency.record(READ, 4_096, 100_000);
    }
    let fast = latency.expected_ns(READ, 4_096);
    assert!((100_000..125_000).contains(&fast), "{fast} ns after 60 fast answers");
}

/// A path was slow, came back, and carries small reads again. Nobody sends it large ones as
/// long as its old average for them stands, so that average must not stand for ever.
#[test]
fn a_class_without_samples_is_forgotten() {
    let mut latency = recorded(READ, 1 << 20, 30 * MILLISECOND, 10);
    for sample in 1..=257 {
        assert_eq!(latency.expected_ns(READ, 1 << 20), 30 * MILLISECOND, "sample {sample}");
        latency.record(READ, 4_096, 100_000);
    }
    assert_eq!(latency.expected_ns(READ, 1 << 20), 100_000);
    // Measured again, it starts from the new sample and not from the old average.
    latency.record(READ, 1 << 20, 700_000);
    assert_eq!(latency.expected_ns(READ, 1 << 20), 700_000);
}

#[test]
fn an_unused_path_keeps_what_it_knew() {
    // Two directions in turn, for long: both stay fresh, and stand when nothing comes any more.
    let mut latency = Latency::new();
    for _ in 0..1_000 {
        latency.record(READ, 4_096, MILLISECOND);
        latency.record(WRITE, 4_096, 5 * MILLISECOND);
    }
    assert_eq!(latency.expected_ns(READ, 1 << 20), MILLISECOND);
    assert_eq!(latency.expected_ns(WRITE, 1 << 20), 5 * MILLISECOND);
}

#[test]
fn extremes_are_survived() {
    let mut latency = Latency::new();
    for service_ns in [0, u64::MAX, 0, u64::MAX, 1, u64::MAX] {
        latency.record(READ, u64::MAX, service_ns);
        latency.check_invariants();
        assert_ne!(latency.expected_ns(READ, u64::MAX), 0, "measured is never unknown");
        assert!(latency.quantile_us(u32::MAX) >= latency.quantile_us(0));
        assert!(latency.quantile_us(0) >= 1);
    }
    // A few nanoseconds can still rise: rounding down would hold 1 ns for ever.
    let mut tiny = recorded(READ, 1, 1, 1);
    for _ in 0..50 {
        tiny.record(READ, 1, 1_000);
    }
    assert!(tiny.expected_ns(READ, 1) > 900);
}

#[test]
fn quantiles_are_right_within_their_bucket() {
    let mut draws = Draws::new(8);
    for spread in [1, 10, 1_000, 100_000] {
        let mut latency = Latency::new();
        let mut samples_us: Vec<u64> = (0..4_000).map(|_| 50 + draws.below(spread)).collect();
        for &us in &samples_us {
            latency.record(READ, 4_096, us * 1_000);
            latency.check_invariants();
        }
        samples_us.sort_unstable();
        let mut last_us = 0;
        for q_ppm in (0..=1_000_000).step_by(10_000) {
            let exact_us = samples_us[(q_ppm as usize * 3_999) / 1_000_000];
            let us = latency.quantile_us(q_ppm);
            assert!(us <= 2 * exact_us && exact_us <= 2 * us, "q {q_ppm}: {us} us, exactly {exact_us} us");
            assert!(us >= last_us, "quantiles rise");
            last_us = us;
        }
    }
}

#[test]
fn quantiles_follow_a_change() {
    let mut latency = recorded(READ, 4_096, 30 * MILLISECOND, 100_000);
    assert!(latency.quantile_us(500_000) > 15_000);
    for _ in 0..3 * 4_096 {
        latency.record(READ, 4_096, 100_000);
    }
    assert!(latency.quantile_us(500_000) < 200, "the median is the new one");
    for _ in 0..20 * 4_096 {
        latency.record(READ, 4_096, 100_000);
    }
    assert!(latency.quantile_us(1_000_000) < 200, "and the old ones are gone");
}

#[test]
fn a_rare_slow_request_stays_visible_for_a_while() {
    let mut latency = recorded(READ, 4_096, 100_000, 4_000);
    latency.record(READ, 4_096, 30 * MILLISECOND);
    for _ in 0..4_096 {
        latency.record(READ, 4_096, 100_000);
    }
    assert!(latency.quantile_us(1_000_000) > 15_000);
}
