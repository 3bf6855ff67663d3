// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which group of paths is the best one that can be used.
//!
//! **Model.** Paths of equal priority form a group, and a group is used only while no
//! better one has a usable path. There is no list of groups to keep in step with the
//! paths: the groups are read off the paths each time.
//!
//! This is the *best* group, not the one in use: returning to a better group may wait
//! ([`crate::failback`]), leaving a dead one never does.

/// What matters of a path here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathRank {
    /// Higher wins; equal priorities form a group. Configured, default 50.
    pub priority: u32,
    /// The path may be given host I/O now.
    pub usable: bool,
}

/// Priority of the best group with a usable path; `None` when no path is usable.
pub fn best_priority(paths: &[PathRank]) -> Option<u32> {
    paths.iter().filter(|path| path.usable).map(|path| path.priority).max()
}
