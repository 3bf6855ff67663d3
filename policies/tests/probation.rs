// SPDX-License-Identifier: MIT OR Apache-2.0
//! Three good canaries, then 5 % for 10 s, then all; a bad one before the end starts over.

mod support;

use policies::Probation;
use support::{SECOND, sequences};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Step {
    Good,
    Bad,
    /// 4 s without a canary.
    Wait,
}

/// The share by looking back over the whole history, without a state.
fn naive(history: &[(u64, Step)], now: u64) -> u32 {
    let mut good_in_a_row = 0;
    let mut share_since = None;
    for &(at, step) in history {
        if share_since.is_some_and(|since| at >= since + 10 * SECOND) {
            break;
        }
        match step {
            Step::Good => good_in_a_row += 1,
            Step::Bad => (good_in_a_row, share_since) = (0, None),
            Step::Wait => {}
        }
        if good_in_a_row == 3 && step == Step::Good {
            share_since = Some(at);
        }
    }
    match share_since {
        None => 0,
        Some(since) if now < since + 10 * SECOND => 50_000,
        Some(_) => 1_000_000,
    }
}

#[test]
fn all_histories_of_up_to_ten_steps() {
    let mut reached = [false; 3];
    for steps in sequences(&[Step::Good, Step::Bad, Step::Wait], 10) {
        let mut now = 5 * SECOND;
        let mut probation = Probation::start(now);
        let mut history = Vec::new();
        for step in steps {
            match step {
                Step::Wait => now += 4 * SECOND,
                Step::Good => probation.on_canary(now, true),
                Step::Bad => probation.on_canary(now, false),
            }
            probation.check_invariants();
            history.push((now, step));
            let share_ppm = naive(&history, now);
            assert_eq!(probation.share_ppm(now), share_ppm, "{history:?}");
            assert_eq!(probation.done(now), share_ppm == 1_000_000);
            assert_eq!(probation.next_deadline().is_none(), share_ppm == 0);
            reached[[0, 50_000, 1_000_000].iter().position(|&s| s == share_ppm).unwrap()] = true;
        }
    }
    assert_eq!(reached, [true; 3], "every state is exercised");
}

#[test]
fn the_deadline_is_when_the_share_becomes_full() {
    let mut probation = Probation::start(7);
    assert_eq!((probation.started(), probation.share_ppm(7), probation.next_deadline()), (7, 0, None));
    for at in [10, 20, 30] {
        probation.on_canary(at, true);
    }
    let deadline = probation.next_deadline().unwrap();
    assert_eq!(deadline, 30 + 10 * SECOND);
    assert_eq!(probation.share_ppm(deadline - 1), 50_000);
    assert_eq!(probation.share_ppm(deadline), 1_000_000);
    probation.on_canary(deadline, false);
    assert!(probation.done(deadline), "what fails later is a new fault, not this probation's");
}
