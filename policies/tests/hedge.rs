// SPDX-License-Identifier: MIT OR Apache-2.0
//! Hedged reads: threshold, budget, exclusions, accounting, and what a won hedge proves.

mod support;

use policies::hedge::{Answer, Hedge, HedgeCounts, Outrun, PendingRead, Refusal};
use policies::limits::{HEDGE_BUDGET_PPM, HEDGE_SUSPECT_AFTER};
use support::{Draws, MILLISECOND, SECOND};

const LEN: u64 = 4_096;
const BURST: u32 = 128;

fn late(age: u64) -> PendingRead {
    PendingRead {
        len_bytes: LEN,
        age,
        one_at_a_time: false,
        other_paths: 1,
        recovering: false,
        median_ns: MILLISECOND / 10,
    }
}

/// One that has seen reads of 3 ms (bucket 2.048 to 4.096 ms) for 5 s.
fn warm() -> Hedge {
    let mut hedge = Hedge::new(HEDGE_BUDGET_PPM, BURST);
    for n in 0..5_000 {
        hedge.on_reply(n * MILLISECOND, LEN, 3 * MILLISECOND);
    }
    hedge
}

#[test]
fn the_threshold_is_cold_then_measured_and_never_below_the_floor() {
    let mut hedge = Hedge::new(HEDGE_BUDGET_PPM, BURST);
    assert_eq!(hedge.threshold(LEN), 10 * MILLISECOND);
    for n in 0..99 {
        hedge.on_reply(n, LEN, 100_000);
        assert_eq!(hedge.threshold(LEN), 10 * MILLISECOND, "{n} samples are too few");
    }
    hedge.on_reply(99, LEN, 100_000);
    assert_eq!(hedge.threshold(LEN), MILLISECOND, "100 us is below the floor");
    // A class that is not measured: at least the cold age, and at least the next smaller class.
    assert_eq!(hedge.threshold(1 << 20), 10 * MILLISECOND);
    for n in 0..200 {
        hedge.on_reply(n, LEN, 60 * MILLISECOND);
    }
    assert!(hedge.threshold(1 << 20) > 40 * MILLISECOND);
}

#[test]
fn the_threshold_is_between_p95_and_p99_and_rises_as_the_budget_empties() {
    let mut hedge = Hedge::new(HEDGE_BUDGET_PPM, 10);
    // 90 % at 3 ms, 7 % at 12 ms, 3 % at 50 ms: the p95 is among the second, the p99 among the third.
    for n in 0..1_000_u64 {
        let ms = [3, 12, 50][usize::from(n % 100 >= 90) + usize::from(n % 100 >= 97)];
        hedge.on_reply(n, LEN, ms * MILLISECOND);
    }
    let full = hedge.threshold(LEN);
    assert!((8 * MILLISECOND..17 * MILLISECOND).contains(&full), "{full}");
    let mut before = full;
    for _ in 0..10 {
        assert_eq!(hedge.decide(&late(SECOND)), Answer::Send);
        assert!(hedge.threshold(LEN) >= before, "it never falls while the budget empties");
        before = hedge.threshold(LEN);
    }
    assert!((32 * MILLISECOND..66 * MILLISECOND).contains(&before), "{before}");
    assert_eq!(hedge.decide(&late(SECOND)), Answer::No(Refusal::Budget));
}

#[test]
fn every_exclusion_is_told_in_its_order() {
    let ages = [0, 60 * SECOND];
    for bits in 0..32_u32 {
        let set = |bit: u32| bits & (1 << bit) != 0;
        for age in ages {
            let mut hedge = warm();
            if set(0) {
                hedge.set_budget(0, BURST);
            }
            let read = PendingRead {
                one_at_a_time: set(1),
                other_paths: u32::from(!set(2)),
                recovering: set(3),
                median_ns: if set(4) { 10 * MILLISECOND } else { 3 * MILLISECOND },
                ..late(age)
            };
            let expected = if set(0) {
                Answer::No(Refusal::Off)
            } else if set(1) {
                Answer::No(Refusal::OneAtATime)
            } else if set(2) {
                Answer::No(Refusal::NoOtherPath)
            } else if set(3) {
                Answer::No(Refusal::Recovering)
            } else if age == 0 {
                Answer::AtAge(hedge.threshold(LEN))
            } else if set(4) {
                Answer::No(Refusal::Overload)
            } else {
                Answer::Send
            };
            assert_eq!(hedge.decide(&read), expected, "{read:?}");
            hedge.check_invariants();
        }
    }
}

/// Overload is three times the baseline of this device and size, not a figure.
#[test]
fn overload_is_relative_and_is_not_forgotten_in_minutes() {
    let mut hedge = warm();
    assert_eq!(hedge.baseline_ns(LEN), 3 * MILLISECOND);
    assert!(!hedge.is_overloaded(LEN, 9 * MILLISECOND));
    assert!(hedge.is_overloaded(LEN, 9 * MILLISECOND + 1));
    assert!(!hedge.is_overloaded(1 << 20, SECOND), "a class without a baseline is never overloaded");
    // A minute of 10 times the time moves the baseline by little, so that it still counts.
    for n in 0..60_000_u64 {
        hedge.on_reply(5 * SECOND + n * MILLISECOND, LEN, 30 * MILLISECOND);
    }
    assert!(hedge.is_overloaded(LEN, 30 * MILLISECOND), "{}", hedge.baseline_ns(LEN));
    // A quick minute brings it back down.
    for n in 0..60_000_u64 {
        hedge.on_reply(70 * SECOND + n * MILLISECOND, LEN, 3 * MILLISECOND);
    }
    assert!(hedge.baseline_ns(LEN) < 3_100_000, "{}", hedge.baseline_ns(LEN));
}

/// Never more than the burst and 3 % of the reads, whatever is asked.
#[test]
fn the_budget_holds_for_any_mix() {
    for seed in 0..20 {
        let mut draws = Draws::new(seed);
        let burst = 1 + draws.below(200) as u32;
        let mut hedge = Hedge::new(HEDGE_BUDGET_PPM, burst);
        let (mut reads, mut hedges) = (0_u64, 0_u64);
        for _ in 0..20_000 {
            if draws.below(4) > 0 {
                hedge.on_read();
                reads += 1;
            } else if hedge.decide(&late(draws.below(2) * SECOND)) == Answer::Send {
                hedges += 1;
                if draws.below(2) == 0 {
                    hedge.on_settled(draws.below(2) == 0);
                }
            }
            hedge.check_invariants();
            assert!(hedges <= u64::from(burst) + reads * 3 / 100, "seed {seed}: {hedges} of {reads}");
            assert!(hedge.credit() <= burst);
        }
        assert_eq!(hedge.counts().hedges, hedges);
        assert_eq!(hedge.counts().reads, reads);
        assert!(hedges > u64::from(burst), "seed {seed}: the budget was earned again");
    }
}

/// A quiet device has its whole burst at once: all that is in flight on a silent path.
#[test]
fn a_device_without_history_can_hedge_a_whole_path() {
    let mut hedge = Hedge::new(HEDGE_BUDGET_PPM, BURST);
    for n in 0..BURST {
        assert_eq!(hedge.decide(&late(10 * MILLISECOND)), Answer::Send, "{n}");
    }
    assert_eq!(hedge.decide(&late(10 * MILLISECOND)), Answer::No(Refusal::Budget));
    let expected = HedgeCounts { hedges: u64::from(BURST), refused_budget: 1, ..HedgeCounts::default() };
    assert_eq!(hedge.counts(), expected);
}

#[test]
fn three_won_without_a_byte_make_suspect() {
    let late = 100 + HEDGE_SUSPECT_AFTER;
    let mut outrun = Outrun::new();
    assert!(!outrun.on_won(late, 100, 99, false));
    assert!(!outrun.on_won(late, 101, 99, false));
    assert!(outrun.on_won(late, 102, 99, false), "the third");
    assert!(outrun.on_won(late, 103, 99, false), "and each one after");
    outrun.on_byte();
    assert_eq!(outrun.in_a_row(), 0);
    // Silent for a moment only: a server that was not scheduled.
    for n in 0..100 {
        assert!(!outrun.on_won(late - 1, 100 + n, 99, false), "{n}");
    }
    assert!(outrun.on_won(late - 1, 200, 99, true), "with little budget left there is no time to give");
    assert!(outrun.on_won(late, 200, 99, false));
    // A path that sent something since is slow, not silent.
    let mut outrun = Outrun::new();
    for n in 0..100 {
        assert!(!outrun.on_won(2 * late, 100, 101, false), "{n}");
    }
    // A byte in between starts the row anew.
    let late = 2 * late;
    assert!(!outrun.on_won(late, 200, 150, false));
    assert!(!outrun.on_won(late, 201, 150, false));
    assert!(!outrun.on_won(late, 202, 203, false));
    assert!(!outrun.on_won(late, 210, 203, false));
    assert!(!outrun.on_won(late, 211, 203, false));
    assert!(outrun.on_won(late, 212, 203, false));
}
