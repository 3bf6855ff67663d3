// SPDX-License-Identifier: MIT OR Apache-2.0
//! Decisions are kept whole, bounded and fair, and shown with their limits.

mod support;

use policies::explain::{Decision, Explain, Limit, Subject, Unit};
use support::{Draws, MILLISECOND, SECOND};

const PATHS: [&str; 3] = ["suspect", "demoted", "good"];

#[test]
fn a_decision_is_shown_with_all_it_rests_on() {
    let decision = Decision::new(SECOND, Subject::Path(0), "suspect", "W16")
        .figure("without an ACK", 412 * MILLISECOND + 1, Unit::Nanoseconds, Limit::AtLeast(408 * MILLISECOND))
        .figure("segments out", 3, Unit::Count, Limit::Above(0))
        .refused("close the connection", "a late reply is the only proof for its writes")
        .until("an ACK")
        .request(7);
    assert_eq!(
        decision.to_string(),
        "suspect by W16: without an ACK 412 ms (at least 408 ms), segments out 3 (above 0); \
         not: close the connection (a late reply is the only proof for its writes); until: an ACK"
    );
    assert_eq!((decision.figures().len(), decision.alternatives().len(), decision.request), (2, 1, 7));
    assert_eq!(Decision::new(0, Subject::Device, "held", "no-path").to_string(), "held by no-path");
}

#[test]
fn figures_have_units_and_are_cut_not_rounded() {
    for (value, unit, shown) in [
        (0, Unit::Nanoseconds, "x 0 ns"),
        (999, Unit::Nanoseconds, "x 999 ns"),
        (1_500, Unit::Nanoseconds, "x 1.5 us"),
        (999_999_999, Unit::Nanoseconds, "x 999.9 ms"),
        (61 * SECOND, Unit::Nanoseconds, "x 61 s"),
        (50_000, Unit::Ppm, "x 5 %"),
        (1_234, Unit::Ppm, "x 0.1 %"),
        (4_096, Unit::Bytes, "x 4096 bytes"),
        (u64::MAX, Unit::Count, "x 18446744073709551615"),
    ] {
        let decision = Decision::new(0, Subject::Device, "w", "r").figure("x", value, unit, Limit::Informs);
        assert_eq!(decision.figures()[0].to_string(), shown);
    }
}

#[test]
fn the_same_again_is_counted_and_not_kept_twice() {
    let mut explain = Explain::new(1);
    let made = |at| {
        Decision::new(at, Subject::Path(0), "suspect", "W16").figure("late", at, Unit::Count, Limit::Informs)
    };
    assert!(explain.record(made(1)));
    for at in 2..=1_000 {
        assert!(!explain.record(made(at)), "no event for the same again");
    }
    let all: Vec<_> = explain.of(Subject::Path(0)).collect();
    assert_eq!(all.len(), 1);
    assert_eq!((all[0].at, all[0].last_at, all[0].times), (1, 1_000, 1_000));
    assert_eq!(all[0].figures()[0].value, 1_000, "the latest figures");
    assert!(all[0].to_string().contains("1000 times"));
    // Another in between ends the row.
    assert!(explain.record(Decision::new(1_001, Subject::Path(0), "good", "W16")));
    assert!(explain.record(made(1_002)));
    assert_eq!(explain.of(Subject::Path(0)).count(), 3);
}

#[test]
fn every_kind_of_limit_is_named() {
    let decision = Decision::new(0, Subject::Device, "w", "r")
        .count("a", 1, Limit::AtLeast(1))
        .time("b", SECOND, Limit::Below(2 * SECOND))
        .bytes("c", 3, Limit::AtMost(4))
        .count("d", 5, Limit::Above(4));
    assert_eq!(
        decision.to_string(),
        "w by r: a 1 (at least 1), b 1 s (below 2 s), c 3 bytes (at most 4 bytes), d 5 (above 4)"
    );
}

/// Against a list of everything, of random subjects and decisions.
#[test]
fn keeps_the_last_of_each_subject_as_a_list_would() {
    for seed in 0..50 {
        let mut draws = Draws::new(seed);
        let mut explain = Explain::new(3);
        let mut all: Vec<Decision> = Vec::new();
        for at in 0..2_000 {
            let subject = match draws.below(4) {
                3 => Subject::Device,
                path => Subject::Path(path as usize),
            };
            let decision = Decision::new(at, subject, draws.pick(&PATHS), "r");
            let last = all.iter().rposition(|it| it.subject == subject);
            let again = last.filter(|&last| all[last].what == decision.what);
            assert_eq!(explain.record(decision), again.is_none());
            if let Some(last) = again {
                all[last].times += 1;
                all[last].last_at = at;
            } else {
                all.push(decision);
            }
        }
        for (subject, kept) in
            [(Subject::Device, 64), (Subject::Path(0), 16), (Subject::Path(1), 16), (Subject::Path(2), 16)]
        {
            let mut expected: Vec<&Decision> =
                all.iter().rev().filter(|it| it.subject == subject).take(kept).collect();
            expected.reverse();
            assert_eq!(explain.of(subject).collect::<Vec<_>>(), expected, "seed {seed} {subject:?}");
            assert_eq!(explain.last(subject), expected.last().copied());
        }
    }
}

/// One path in a storm does not push out what is known of the others.
#[test]
fn a_storm_of_one_path_leaves_the_others_their_history() {
    let mut explain = Explain::new(2);
    explain.record(Decision::new(0, Subject::Path(1), "demoted", "slow"));
    explain.record(Decision::new(0, Subject::Device, "held", "no-path"));
    for at in 0..100_000 {
        explain.record(Decision::new(at, Subject::Path(0), PATHS[at as usize % 3], "r"));
    }
    assert_eq!(explain.of(Subject::Path(0)).count(), 16);
    assert_eq!(explain.last(Subject::Path(1)).map(|it| it.what), Some("demoted"));
    assert_eq!(explain.last(Subject::Device).map(|it| it.what), Some("held"));
    explain.set_paths(1);
    explain.set_paths(2);
    assert_eq!(explain.last(Subject::Path(1)), None, "another path");
    explain.forget_path(0);
    assert_eq!(explain.last(Subject::Path(0)), None, "it is gone");
    assert_eq!(explain.last(Subject::Device).map(|it| it.what), Some("held"));
}
