// SPDX-License-Identifier: MIT OR Apache-2.0
//! More than five failures in ten minutes hold a path out, longer each time, never the last.

mod support;

use policies::FailureLimit;
use support::{Draws, SECOND};

const WINDOW: u64 = 600 * SECOND;

#[test]
fn the_sixth_failure_holds_out_and_each_further_one_doubles() {
    let mut limit = FailureLimit::new();
    for second in 0..5 {
        assert_eq!(limit.on_failure(second * SECOND), None);
    }
    let mut now = 5 * SECOND;
    let mut held_out = Vec::new();
    for _ in 0..8 {
        let until = limit.on_failure(now).expect("over the limit");
        held_out.push((until - now) / SECOND);
        assert_eq!(limit.held_until(), Some(until));
        // Back in service, and five more failures at once keep it over the limit.
        now = until;
        while limit.failures(now) < 5 {
            limit.on_failure(now);
        }
    }
    assert_eq!(held_out, [30, 60, 120, 240, 480, 600, 600, 600]);
}

#[test]
fn five_failures_in_any_ten_minutes_are_allowed() {
    // One each two minutes: the sixth comes when the first is ten minutes old.
    let mut limit = FailureLimit::new();
    for n in 0..100 {
        let now = n * WINDOW / 5;
        assert_eq!(limit.on_failure(now), None, "failure {n}");
        assert!(limit.failures(now) <= 5);
    }
}

#[test]
fn failures_while_held_out_do_not_lengthen_it() {
    let mut limit = FailureLimit::new();
    let until = (0..6).filter_map(|_| limit.on_failure(0)).last();
    assert_eq!(until, Some(30 * SECOND));
    for second in 1..30 {
        assert_eq!(limit.on_failure(second * SECOND), until, "a failed reconnect is no new flap");
    }
    assert_eq!(limit.on_failure(30 * SECOND), Some(90 * SECOND), "back in service, failed again");
}

#[test]
fn ten_quiet_minutes_in_service_forget_the_doubling() {
    let over = |limit: &mut FailureLimit, now| (0..6).filter_map(|_| limit.on_failure(now)).last().unwrap();
    let mut limit = FailureLimit::new();
    let first = over(&mut limit, 0);
    // In service from `first` on; a failure just before the window ends keeps the memory.
    let second = over(&mut limit, first + WINDOW - 1);
    assert_eq!(second - (first + WINDOW - 1), 60 * SECOND);
    let third = over(&mut limit, second + WINDOW);
    assert_eq!(third - (second + WINDOW), 30 * SECOND);
}

#[test]
fn never_the_last_usable_path() {
    let mut limit = FailureLimit::new();
    let until = (0..6).filter_map(|_| limit.on_failure(0)).last().unwrap();
    assert!(limit.holds_out(until - 1, false));
    assert!(!limit.holds_out(until - 1, true), "a flapping path is better than none");
    assert!(!limit.holds_out(until, false), "over when its time is over");
    assert!(!FailureLimit::new().holds_out(0, false));
}

#[test]
fn clear_forgets_everything() {
    let mut limit = FailureLimit::new();
    for _ in 0..9 {
        limit.on_failure(SECOND);
    }
    limit.clear();
    assert_eq!((limit.held_until(), limit.failures(SECOND)), (None, 0));
    assert_eq!(limit.on_failure(SECOND), None);
}

#[test]
fn counts_as_a_list_of_all_failures_would() {
    let mut draws = Draws::new(6);
    let mut limit = FailureLimit::new();
    let (mut all, mut now, mut held_until): (Vec<u64>, u64, u64) = (Vec::new(), 0, 0);
    let mut held = 0;
    for _ in 0..20_000 {
        now += draws.below(300 * SECOND);
        let answer = limit.on_failure(now);
        limit.check_invariants();
        all.push(now);
        let recent = all.iter().rev().take_while(|&&at| now - at < WINDOW).count() as u32;
        assert_eq!(limit.failures(now), recent.min(16));
        assert_eq!(answer.is_some(), now < held_until || recent > 5, "at {now}: {recent} recent");
        if let Some(until) = answer {
            assert!(until > now && until - now <= WINDOW);
            held_until = until;
            held += 1;
        }
    }
    assert!((1_000..19_000).contains(&held), "both answers are exercised: {held}");
}

#[test]
fn the_deadline_is_the_end_of_the_hold() {
    let mut limit = FailureLimit::new();
    assert_eq!((limit.next_deadline(0), limit.holds()), (None, 0));
    let until = (0..6).filter_map(|_| limit.on_failure(0)).last().expect("over the limit");
    assert_eq!((limit.next_deadline(until - 1), limit.holds()), (Some(until), 1));
    assert_eq!(limit.next_deadline(until), None);
}
