// SPDX-License-Identifier: MIT OR Apache-2.0
//! How a path ranks, and which group of paths is the best one that can be used.
//!
//! **Model.** Paths of equal rank form a group, and a group is used only while no
//! better one has a usable path. There is no list of groups to keep in step with the
//! paths: the groups are read off the paths each time.
//!
//! **Rank.** What an operator says goes first, then what the storage says of itself, then what was
//! measured:
//!
//! ```text
//! priority      configured for the path; higher wins
//! access state  told by the storage, or configured: optimized, then non-optimized, then standby
//! distance      `groups = "latency"` only: 0 for the nearest storage, 1 for the next ... (crate::distance)
//! ```
//!
//! This is the *best* group, not the one in use: returning to a better group may wait
//! ([`crate::failback`]), leaving a dead one never does.

use core::cmp::Reverse;

/// What a storage server says of the path to it; the later wins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AccessState {
    /// Takes requests only while nothing else does.
    Standby,
    /// Takes requests at a cost: through another controller, or over a longer way.
    NonOptimized,
    /// The way to go. What says nothing is this.
    #[default]
    Optimized,
}

/// Where a path stands; the greater is used first, equal ones form a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rank {
    /// Configured, default 50.
    pub priority: u32,
    /// Of the storage behind it.
    pub access: AccessState,
    /// Its step of distance; 0 is the nearest, and everything where distance does not count.
    pub distance: Reverse<u8>,
}

impl Rank {
    /// Of an optimized path whose distance does not count.
    pub const fn of(priority: u32) -> Self {
        Self { priority, access: AccessState::Optimized, distance: Reverse(0) }
    }
}

/// What matters of a path here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ranked {
    /// Its rank.
    pub rank: Rank,
    /// The path may be given host I/O now.
    pub usable: bool,
}

/// Rank of the best group with a usable path; `None` when no path is usable.
pub fn best(paths: impl IntoIterator<Item = Ranked>) -> Option<Rank> {
    paths.into_iter().filter(|path| path.usable).map(|path| path.rank).max()
}
