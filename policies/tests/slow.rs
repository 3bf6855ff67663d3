// SPDX-License-Identifier: MIT OR Apache-2.0
//! The fail-slow rule: relative to siblings, by windows, never the last, never all.

mod support;

use policies::slow::{SlowChange, SlowPaths, Spared};
use support::{Draws, MILLISECOND, SECOND};

const WINDOW: u64 = 5 * SECOND;

/// What a path shows in one window: requests and their time; `None` = nothing.
type Shown = Option<(u32, u64)>;

/// Plays one window of 4 KiB reads and returns all changes at its end.
fn window(slow: &mut SlowPaths, number: u64, shown: &[Shown], standing: &[bool]) -> Vec<SlowChange> {
    window_of_groups(slow, number, shown, standing, &vec![0; standing.len()])
}

fn window_of_groups(
    slow: &mut SlowPaths,
    number: u64,
    shown: &[Shown],
    standing: &[bool],
    groups: &[u32],
) -> Vec<SlowChange> {
    let start = number * WINDOW;
    for (path, shown) in shown.iter().enumerate() {
        for _ in 0..shown.map_or(0, |shown| shown.0) {
            slow.record(start, path, false, 4_096, shown.expect("counted").1);
        }
    }
    assert!(slow.poll(start + WINDOW - 1, standing, groups).is_none(), "not before the window ends");
    let mut changes = Vec::new();
    while let Some(change) = slow.poll(start + WINDOW, standing, groups) {
        changes.push(change);
        slow.check_invariants();
    }
    changes
}

/// Windows until the first change, with the changes; at most 400.
fn until_change(
    slow: &mut SlowPaths,
    from: u64,
    shown: &[Shown],
    standing: &[bool],
) -> (u64, Vec<SlowChange>) {
    for number in from..from + 400 {
        let changes = window(slow, number, shown, standing);
        if !changes.is_empty() {
            return (number - from + 1, changes);
        }
    }
    (400, Vec::new())
}

const MS: u64 = MILLISECOND;

#[test]
fn ten_slow_windows_and_a_hundred_requests_demote() {
    let mut slow = SlowPaths::new(2);
    let (windows, changes) = until_change(&mut slow, 0, &[Some((20, MS)), Some((20, 31 * MS))], &[true; 2]);
    assert_eq!(windows, 10);
    let [SlowChange::Demoted { path: 1, seen }] = changes[..] else { panic!("{changes:?}") };
    assert_eq!((seen.windows_slow, seen.samples), (10, 200));
    assert!(
        (28 * MS..34 * MS).contains(&seen.median_ns) && (MS * 3 / 4..MS * 5 / 4).contains(&seen.siblings_ns)
    );
    assert!(slow.is_demoted(1) && !slow.is_demoted(0));
    // Nine requests a window are not a hundred in twelve until the twelfth.
    let mut slow = SlowPaths::new(2);
    let (windows, changes) = until_change(&mut slow, 0, &[Some((20, MS)), Some((9, 31 * MS))], &[true; 2]);
    assert_eq!((windows, changes.len()), (12, 1), "{changes:?}");
    let mut slow = SlowPaths::new(2);
    let (_, changes) = until_change(&mut slow, 0, &[Some((20, MS)), Some((8, 31 * MS))], &[true; 2]);
    assert_eq!(changes, [], "96 requests in 12 windows are too few");
}

/// Every pattern of 12 windows, slow or not: demoted exactly when ten are slow.
#[test]
fn any_ten_of_twelve_and_no_fewer() {
    for pattern in 0..1_u32 << 12 {
        let mut slow = SlowPaths::new(2);
        let mut demoted = false;
        for number in 0..12_u32 {
            let time = if pattern & (1 << number) != 0 { 31 * MS } else { MS };
            let changes =
                window(&mut slow, u64::from(number), &[Some((20, MS)), Some((20, time))], &[true; 2]);
            demoted |= matches!(changes[..], [SlowChange::Demoted { path: 1, .. }]);
        }
        assert_eq!(demoted, pattern.count_ones() >= 10, "{pattern:012b}");
    }
}

#[test]
fn three_times_is_not_slow_and_four_times_is() {
    for (time, expected) in [(28 * MS / 10, false), (4 * MS, true)] {
        let mut slow = SlowPaths::new(3);
        let shown = [Some((20, MS)), Some((20, time)), Some((20, MS))];
        let (_, changes) = until_change(&mut slow, 0, &shown, &[true; 3]);
        assert_eq!(!changes.is_empty(), expected, "{time} ns: {changes:?}");
    }
}

/// A path that carries five times the load may take five times as long.
#[test]
fn more_load_excuses() {
    let mut slow = SlowPaths::new(2);
    let (_, changes) = until_change(&mut slow, 0, &[Some((20, MS)), Some((100, 10 * MS))], &[true; 2]);
    assert_eq!(changes, []);
    let (_, changes) = until_change(&mut slow, 400, &[Some((20, MS)), Some((100, 20 * MS))], &[true; 2]);
    assert!(matches!(changes[..], [SlowChange::Demoted { path: 1, .. }]), "{changes:?}");
}

/// The far site is slower than the near one: that is why it is in a lesser group. The other way round it tells.
#[test]
fn a_better_group_is_no_sibling_of_a_lesser_one() {
    for (groups, slow_in_its_group) in [([0, 1], false), ([1, 0], true), ([0, 0], true), ([7, 7], true)] {
        let mut slow = SlowPaths::new(2);
        let shown = [Some((20, MS)), Some((20, 50 * MS))];
        let changes: Vec<SlowChange> = (0..30)
            .flat_map(|number| window_of_groups(&mut slow, number, &shown, &[true; 2], &groups))
            .collect();
        let told = changes.iter().any(|change| matches!(change, SlowChange::Demoted { path: 1, .. }));
        assert_eq!(
            (told, slow.is_demoted(1)),
            (slow_in_its_group, slow_in_its_group),
            "{groups:?} {changes:?}"
        );
        assert!(!slow.is_demoted(0));
    }
    // Two of the lesser group are each other's siblings.
    let mut slow = SlowPaths::new(3);
    let shown = [Some((20, MS)), Some((20, 10 * MS)), Some((20, 50 * MS))];
    for number in 0..30 {
        window_of_groups(&mut slow, number, &shown, &[true; 3], &[0, 1, 1]);
    }
    assert!(!slow.is_demoted(1) && slow.is_demoted(2));
}

/// Sizes and directions are compared with their like: a path of large writes is not slow.
#[test]
fn another_size_is_no_sibling() {
    let mut slow = SlowPaths::new(2);
    for number in 0..40 {
        for _ in 0..20 {
            slow.record(number * WINDOW, 0, false, 4_096, MS / 10);
            slow.record(number * WINDOW, 1, true, 1 << 20, 40 * MS);
        }
        assert_eq!(slow.poll((number + 1) * WINDOW, &[true; 2], &[0; 2]), None);
    }
    assert_eq!(slow.seen(1).windows_slow, 0);
}

/// One request of two seconds in a window of quick ones is a hiccup.
#[test]
fn a_few_long_requests_are_not_a_slow_path() {
    let mut slow = SlowPaths::new(2);
    for number in 0..40 {
        for n in 0..20 {
            slow.record(number * WINDOW, 0, false, 4_096, MS);
            slow.record(number * WINDOW, 1, false, 4_096, if n < 5 { 2 * SECOND } else { MS });
        }
        assert_eq!(slow.poll((number + 1) * WINDOW, &[true; 2], &[0; 2]), None);
    }
}

#[test]
fn all_slow_is_the_storage_and_nothing_is_demoted() {
    let mut slow = SlowPaths::new(3);
    let normal = [Some((20, MS)); 3];
    for number in 0..20 {
        assert_eq!(window(&mut slow, number, &normal, &[true; 3]), []);
    }
    let (windows, changes) = until_change(&mut slow, 20, &[Some((20, 20 * MS)); 3], &[true; 3]);
    let [SlowChange::StorageSlow { median_ns, baseline_ns }] = changes[..] else { panic!("{changes:?}") };
    assert_eq!(windows, 10);
    assert!(median_ns > 3 * baseline_ns && slow.is_storage_slow());
    // One of them slower still: it is spared while the storage is slow.
    let shown = [Some((20, 20 * MS)), Some((20, 200 * MS)), Some((20, 20 * MS))];
    let (_, changes) = until_change(&mut slow, 30, &shown, &[true; 3]);
    let [SlowChange::Spared { path: 1, because: Spared::StorageSlow, .. }] = changes[..] else {
        panic!("{changes:?}")
    };
    // 300 s after the last slow window it is over.
    let mut number = 1_000;
    let (windows, changes) = until_change(&mut slow, number, &normal, &[true; 3]);
    assert_eq!((windows, &changes[..]), (1, &[SlowChange::StorageNormal][..]));
    number += 1;
    assert_eq!(window(&mut slow, number, &normal, &[true; 3]), []);
}

#[test]
fn back_after_300_clean_seconds_and_not_before() {
    let mut slow = SlowPaths::new(2);
    let (windows, _) = until_change(&mut slow, 0, &[Some((20, MS)), Some((20, 31 * MS))], &[true; 2]);
    // Demoted, it has canaries only; they are slow for a while.
    let canaries_slow = [Some((100, MS)), Some((5, 31 * MS))];
    for number in windows..windows + 100 {
        assert_eq!(window(&mut slow, number, &canaries_slow, &[true; 2]), []);
    }
    let from = windows + 100;
    let (clean, changes) = until_change(&mut slow, from, &[Some((100, MS)), Some((5, MS))], &[true; 2]);
    assert_eq!(
        (clean * WINDOW, changes),
        (300 * SECOND, vec![SlowChange::Restored { path: 1, clean_ns: 300 * SECOND }])
    );
    assert_eq!(slow.seen(1).windows_slow, 0, "its history is forgotten");
    // One slow window in between starts the 300 s anew.
    let mut slow = SlowPaths::new(2);
    let (at, _) = until_change(&mut slow, 0, &[Some((20, MS)), Some((20, 31 * MS))], &[true; 2]);
    for number in at..at + 50 {
        assert_eq!(window(&mut slow, number, &[Some((100, MS)), Some((5, MS))], &[true; 2]), []);
    }
    assert_eq!(window(&mut slow, at + 50, &canaries_slow, &[true; 2]), []);
    let (clean, _) = until_change(&mut slow, at + 51, &[Some((100, MS)), Some((5, MS))], &[true; 2]);
    assert_eq!(clean * WINDOW, 300 * SECOND);
}

#[test]
fn one_a_minute_the_slowest_first_and_never_the_last() {
    let mut slow = SlowPaths::new(4);
    let shown = [Some((20, 10 * MS)), Some((20, 40 * MS)), Some((20, MS)), Some((20, MS))];
    let (windows, changes) = until_change(&mut slow, 0, &shown, &[true; 4]);
    assert_eq!(windows, 10);
    assert!(
        matches!(
            changes[..],
            [
                SlowChange::Spared { path: 0, because: Spared::TooSoon, .. },
                SlowChange::Demoted { path: 1, .. }
            ]
        ),
        "{changes:?}"
    );
    let (more, changes) = until_change(&mut slow, windows, &shown, &[true; 4]);
    assert!(matches!(changes[..], [SlowChange::Demoted { path: 0, .. }]), "{changes:?}");
    assert_eq!(more * WINDOW, 60 * SECOND);
    // With those two out, 3 becomes slow and goes; then 2 becomes slow, and is all that is left.
    let from = windows + more;
    let shown = [Some((5, 10 * MS)), Some((5, 40 * MS)), Some((20, MS)), Some((20, 31 * MS))];
    let (third, changes) = until_change(&mut slow, from + 12, &shown, &[true; 4]);
    assert!(matches!(changes[..], [SlowChange::Demoted { path: 3, .. }]), "{changes:?}");
    let shown = [Some((5, 10 * MS)), Some((5, 10 * MS)), Some((20, 100 * MS)), Some((5, 10 * MS))];
    for number in 0..100 {
        for change in window(&mut slow, from + 12 + third + number, &shown, &[true; 4]) {
            assert!(!matches!(change, SlowChange::Demoted { .. }), "{change:?}");
        }
    }
    assert!(!slow.is_demoted(2));
}

#[test]
fn the_last_in_good_standing_is_spared_and_that_is_told_once() {
    let mut slow = SlowPaths::new(2);
    let shown = [Some((20, MS)), Some((20, 31 * MS))];
    // The quick one is there but not in good standing (say, on probation).
    let (_, changes) = until_change(&mut slow, 0, &shown, &[false, true]);
    assert!(
        matches!(changes[..], [SlowChange::Spared { path: 1, because: Spared::LastUsable, .. }]),
        "{changes:?}"
    );
    for number in 20..40 {
        assert_eq!(window(&mut slow, number, &shown, &[false, true]), [], "told once");
    }
    let (windows, changes) = until_change(&mut slow, 40, &shown, &[true, true]);
    assert_eq!(windows, 1);
    assert!(matches!(changes[..], [SlowChange::Demoted { path: 1, .. }]), "{changes:?}");
}

#[test]
fn an_idle_device_has_no_timer() {
    let mut slow = SlowPaths::new(2);
    assert_eq!(slow.next_deadline(), None);
    slow.record(7, 0, false, 4_096, MS);
    assert_eq!(slow.next_deadline(), Some(7 + WINDOW));
    assert_eq!(slow.poll(7 + WINDOW, &[true; 2], &[0; 2]), None);
    assert_eq!(slow.next_deadline(), None);
}

/// Whatever paths show: one stays in good standing, at most one goes in a minute, and none goes
/// that was never slower than three times the slowest of the others.
#[test]
fn random_paths_keep_the_bounds() {
    for seed in 0..200 {
        let mut draws = Draws::new(seed);
        let paths = 1 + draws.below(5) as usize;
        let mut slow = SlowPaths::new(paths);
        let mut last_demotion = None;
        for number in 0..200 {
            let shown: Vec<Shown> = (0..paths)
                .map(|_| {
                    let time = draws.pick(&[MS, MS, 2 * MS, 12 * MS, 80 * MS]);
                    (draws.below(8) > 0).then(|| (1 + draws.below(30) as u32, time))
                })
                .collect();
            // Sticky for long enough that windows repeat.
            let standing: Vec<bool> = (0..paths).map(|_| draws.below(4) > 0).collect();
            for change in window(&mut slow, number, &shown, &standing) {
                if let SlowChange::Demoted { path, .. } = change {
                    let left = (0..paths).filter(|&other| standing[other] && !slow.is_demoted(other));
                    assert!(left.clone().any(|other| other != path), "seed {seed}: {path} was the last");
                    let now = (number + 1) * WINDOW;
                    assert!(last_demotion.is_none_or(|last| now - last >= 60 * SECOND), "seed {seed}");
                    last_demotion = Some(now);
                }
            }
        }
    }
}
