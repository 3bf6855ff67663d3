// SPDX-License-Identifier: MIT OR Apache-2.0
//! The best group, over all combinations of 1 to 4 paths.

mod support;

use policies::{PathRank, best_priority};
use support::sequences;

#[test]
fn no_path_no_group() {
    assert_eq!(best_priority(&[]), None);
}

#[test]
fn all_combinations_of_up_to_four_paths() {
    let states: Vec<PathRank> = [0, 10, 50]
        .iter()
        .flat_map(|&priority| [true, false].map(|usable| PathRank { priority, usable }))
        .collect();
    for count in 1..=4 {
        for paths in sequences(&states, count) {
            // The definition, read literally: try the groups from the top.
            let naive = [50, 10, 0]
                .into_iter()
                .find(|&group| paths.iter().any(|path| path.usable && path.priority == group));
            assert_eq!(best_priority(&paths), naive, "{paths:?}");
        }
    }
}
