// SPDX-License-Identifier: MIT OR Apache-2.0
//! The best group, over all combinations of 1 to 4 paths.

mod support;

use core::cmp::Reverse;

use policies::group::{AccessState, Rank, Ranked, best};
use support::sequences;

#[test]
fn no_path_no_group() {
    assert_eq!(best([]), None);
}

/// From the best to the least: the operator's word, then the storage's, then what was measured.
fn groups_from_the_top() -> Vec<Rank> {
    let access = [AccessState::Optimized, AccessState::NonOptimized, AccessState::Standby];
    let mut groups = Vec::new();
    for priority in [50, 10] {
        for access in access {
            groups.extend([0, 1].map(|steps| Rank { priority, access, distance: Reverse(steps) }));
        }
    }
    groups
}

#[test]
fn all_combinations_of_up_to_three_paths() {
    let groups = groups_from_the_top();
    let states: Vec<Ranked> =
        groups.iter().flat_map(|&rank| [true, false].map(|usable| Ranked { rank, usable })).collect();
    for count in 1..=3 {
        for paths in sequences(&states, count) {
            // The definition, read literally: try the groups from the top.
            let naive = groups
                .iter()
                .copied()
                .find(|&group| paths.iter().any(|path| path.usable && path.rank == group));
            assert_eq!(best(paths.iter().copied()), naive, "{paths:?}");
        }
    }
}

#[test]
fn what_says_nothing_is_optimized_and_near() {
    assert_eq!(AccessState::default(), AccessState::Optimized);
    let silent = Rank { priority: 50, access: AccessState::default(), distance: Reverse(0) };
    assert_eq!(Rank::of(50), silent);
    assert!(Rank::of(51) > silent, "no access state outweighs a priority");
}
