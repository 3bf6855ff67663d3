// SPDX-License-Identifier: MIT OR Apache-2.0
//! Rules together never take the last path; the best standing is used, before the best group.

mod support;

use policies::failback::When;
use policies::group::Rank;
use policies::standing::{Held, Standing, in_use, standing};
use policies::{Failback, limits};
use support::sequences;

fn all_held() -> Vec<Held> {
    (0..32_u32)
        .map(|bits| Held {
            suspect: bits & 1 != 0,
            held_out: bits & 2 != 0,
            proving: bits & 4 != 0,
            slow: bits & 8 != 0,
            marginal: bits & 16 != 0,
        })
        .collect()
}

#[test]
fn the_worst_that_applies() {
    for held in all_held() {
        let expected = match held {
            Held { suspect: true, .. } => Standing::Suspect,
            Held { held_out: true, .. } => Standing::HeldOut,
            Held { proving: true, .. } => Standing::Proving,
            Held { slow: true, .. } | Held { marginal: true, .. } => Standing::Demoted,
            _ => Standing::Good,
        };
        assert_eq!(standing(held), expected, "{held:?}");
    }
    let names: std::collections::BTreeSet<_> = Standing::ALL.iter().map(|it| it.name()).collect();
    assert_eq!(names.len(), Standing::ALL.len());
    assert!(Standing::ALL.is_sorted());
}

/// Up to three paths, each absent or with any combination of what can be held against it.
#[test]
fn a_device_with_a_connected_path_has_a_path_in_use() {
    let states: Vec<Option<Held>> = all_held().into_iter().map(Some).chain([None]).collect();
    for paths in 0..=3 {
        for held in sequences(&states, paths) {
            let standings: Vec<Standing> = held.iter().flatten().map(|&held| standing(held)).collect();
            let used = in_use(standings.iter().copied());
            assert_eq!(used.is_none(), standings.is_empty(), "{held:?}");
            if let Some(used) = used {
                assert!(standings.contains(&used), "{held:?}: somebody has it");
                assert!(standings.iter().all(|&it| it <= used), "{held:?}: nobody has a better one");
            }
        }
    }
}

/// A demoted path of the best group yields at once to a good one of a lesser group, and
/// comes back by the failback policy.
#[test]
fn standing_goes_before_group_and_returns_by_failback() {
    let mut failback = Failback::new(When::After(limits::FAILBACK_AFTER));
    let mut choose = |now, current: Option<u32>, paths: &[(u32, Standing, u64)]| {
        let best = in_use(paths.iter().map(|path| path.1)).expect("all are connected");
        let usable: Vec<(Rank, u64)> =
            paths.iter().filter(|path| path.1 == best).map(|path| (Rank::of(path.0), path.2)).collect();
        failback.choose(now, current.map(Rank::of), &usable).map(|rank| rank.priority)
    };
    let now = 1_000 * limits::SECOND;
    assert_eq!(choose(now, Some(50), &[(50, Standing::Good, 0), (10, Standing::Good, 0)]), Some(50));
    assert_eq!(choose(now, Some(50), &[(50, Standing::Demoted, 0), (10, Standing::Good, 0)]), Some(10));
    assert_eq!(choose(now, Some(10), &[(50, Standing::Good, now), (10, Standing::Good, 0)]), Some(10));
    let later = now + limits::FAILBACK_AFTER;
    assert_eq!(choose(later, Some(10), &[(50, Standing::Good, now), (10, Standing::Good, 0)]), Some(50));
    // All alike again: the group decides.
    assert_eq!(choose(later, Some(50), &[(50, Standing::Demoted, 0), (10, Standing::Demoted, 0)]), Some(50));
}
