// SPDX-License-Identifier: MIT OR Apache-2.0
//! How far away the storage behind each path is, in steps, for groups by measured latency.
//!
//! **Model.** One block is read through every path every 10 s, however busy the device is: the same read on each,
//! so that it is not the requests that are compared. The shortest time of the last 10 to 20 minutes is the path's
//! distance. Load adds to a time and never takes from it, and in some moment of ten minutes it adds little: the
//! shortest is what the way takes and what the storage behind it takes at rest. An average would move with the load,
//! and with it the groups.
//!
//! **Steps.** Paths of one class (equal priority and access state) in the order of their distance: the nearest is on
//! step 0, and so is whatever is not beyond 4 times its distance. The first that is begins step 1, and so on.
//!
//! ```text
//! beyond  = more than 4 times as far, and more than 500 us further
//! a path that was on a further step: more than twice, and more than 250 us
//! ```
//!
//! So a path goes away at 4 times and comes up at twice, and two paths never change places unless one is 4 times as
//! far as the other that was further away: a near site that is loaded without a pause for twenty minutes is joined
//! by the far one, at worst.
//!
//! A path that is not known yet (fewer than 3 reads) is on step 0. One that is down keeps its distance: it comes back to
//! where it was.

use alloc::vec::Vec;

use crate::Nanos;
use crate::limits::{
    DISTANCE_APART, DISTANCE_INTERVAL, DISTANCE_INTERVAL_FIRST, DISTANCE_MARGIN, DISTANCE_READS_MIN,
    DISTANCE_TOGETHER, DISTANCE_WINDOW,
};

/// What a read told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Nothing new.
    Nothing,
    /// The path is known now, and was not before.
    Known,
    /// It is nearer or further than it was.
    Changed,
}

/// A path went to another step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    /// Index of the path.
    pub path: usize,
    /// Step before.
    pub from: u8,
    /// Step now.
    pub to: u8,
    /// Its distance, nanoseconds.
    pub distance_ns: u64,
    /// That of the nearest path of its class, nanoseconds.
    pub nearest_ns: u64,
}

/// The distances of the paths of one device. 32 bytes per path.
#[derive(Clone, Debug)]
pub struct Distances {
    paths: Vec<Measured>,
    changed_at: Nanos,
}

#[derive(Clone, Copy, Debug)]
struct Measured {
    /// Shortest time of the running window and of the one before.
    shortest_ns: [u64; 2],
    window_end: Nanos,
    reads: u32,
    step: u8,
}

const UNKNOWN: Measured = Measured { shortest_ns: [u64::MAX; 2], window_end: 0, reads: 0, step: 0 };

impl Distances {
    /// Nothing is known of any of the paths.
    pub fn new(paths: usize) -> Self {
        Self { paths: alloc::vec![UNKNOWN; paths], changed_at: 0 }
    }

    /// The device has so many paths now; the ones beyond are new or gone.
    pub fn set_paths(&mut self, paths: usize) {
        self.paths.resize(paths, UNKNOWN);
    }

    /// When a path is to be read through next, if it was at `last`; a time in the past means now.
    pub fn next_read(&self, path: usize, last: Option<Nanos>) -> Nanos {
        let known = self.paths[path].reads >= DISTANCE_READS_MIN;
        let pause = if known { DISTANCE_INTERVAL } else { DISTANCE_INTERVAL_FIRST };
        last.map_or(0, |last| last.saturating_add(pause))
    }

    /// A path answered its read after this long.
    pub fn record(&mut self, now: Nanos, path: usize, service_ns: u64) -> Heard {
        let it = &mut self.paths[path];
        let before = it.distance_ns();
        if it.window_end <= now {
            it.shortest_ns = [u64::MAX, it.shortest_ns[0]];
            it.window_end = now.saturating_add(DISTANCE_WINDOW);
        }
        it.shortest_ns[0] = it.shortest_ns[0].min(service_ns);
        it.reads = it.reads.saturating_add(1);
        match (before, it.distance_ns()) {
            (None, Some(_)) => Heard::Known,
            (Some(before), Some(after)) if before != after => Heard::Changed,
            _ => Heard::Nothing,
        }
    }

    /// Puts every path on its step. `classes` has an entry for each: only equal ones are compared, and `None` with
    /// nobody. Returns those that moved; none, if it is asked again and nothing was recorded between.
    ///
    /// # Panics
    ///
    /// If the slice has another length than there are paths.
    pub fn arrange(&mut self, now: Nanos, classes: &[Option<u64>]) -> Vec<Moved> {
        assert_eq!(classes.len(), self.paths.len(), "an entry for each path");
        let known = |&path: &usize| Some((classes[path]?, self.paths[path].distance_ns()?, path));
        let mut order: Vec<(u64, u64, usize)> =
            (0..self.paths.len()).filter_map(|path| known(&path)).collect();
        order.sort_unstable();
        let mut moved = Vec::new();
        for class in order.chunk_by(|one, other| one.0 == other.0) {
            self.arrange_class(class, &mut moved);
        }
        for change in &moved {
            self.paths[change.path].step = change.to;
            self.changed_at = now;
        }
        moved
    }

    /// The paths of one class, the nearest first.
    fn arrange_class(&self, class: &[(u64, u64, usize)], moved: &mut Vec<Moved>) {
        let (_, nearest_ns, nearest) = class[0];
        let (mut first, mut first_ns, mut step) = (nearest, nearest_ns, 0_u8);
        for &(_, distance_ns, path) in class {
            let from = self.paths[path].step;
            let was_further = from > self.paths[first].step;
            if is_beyond(distance_ns, first_ns, was_further) {
                (first, first_ns, step) = (path, distance_ns, step.saturating_add(1));
            }
            if from != step {
                moved.push(Moved { path, from, to: step, distance_ns, nearest_ns });
            }
        }
    }

    /// The step of a path, 0 for the nearest.
    pub fn step(&self, path: usize) -> u8 {
        self.paths[path].step
    }

    /// The distance of a path in nanoseconds; `None` while it is not known.
    pub fn distance_ns(&self, path: usize) -> Option<u64> {
        self.paths[path].distance_ns()
    }

    /// When a path last went to another step; 0: never.
    pub fn changed_at(&self) -> Nanos {
        self.changed_at
    }

    /// The path leads elsewhere now.
    pub fn clear(&mut self, path: usize) {
        self.paths[path] = UNKNOWN;
    }
}

impl Measured {
    fn distance_ns(&self) -> Option<u64> {
        let shortest = self.shortest_ns[0].min(self.shortest_ns[1]);
        (self.reads >= DISTANCE_READS_MIN).then_some(shortest)
    }
}

/// Whether a path is a step further away than one that is nearer.
fn is_beyond(distance_ns: u64, nearer_ns: u64, was_further: bool) -> bool {
    let (factor, margin) = if was_further {
        (DISTANCE_TOGETHER, DISTANCE_MARGIN / 2)
    } else {
        (DISTANCE_APART, DISTANCE_MARGIN)
    };
    distance_ns > nearer_ns.saturating_mul(factor) && distance_ns > nearer_ns.saturating_add(margin)
}
