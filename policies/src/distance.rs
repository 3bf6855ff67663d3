// SPDX-License-Identifier: MIT OR Apache-2.0
//! How far away the storage behind each path is, in steps, for groups by measured latency.
//!
//! **Model.** One block is read through every path every 10 s, at a moment when nothing else is under way on the path:
//! the same read on each, so that it is not the requests that are compared. The shortest time of 10 to 20 minutes is
//! the path's distance. Load adds to a time and never takes from it: the shortest is what the way takes and what the
//! storage behind it takes at rest. An average would move with the load, and with it the groups. A path that is never
//! at rest keeps the distance it has.
//!
//! **Steps.** Paths of one class (equal priority and access state) in the order of their distance: the nearest is on
//! step 0, and so is whatever is not beyond 4 times its distance. The first that is begins step 1, and so on.
//!
//! ```text
//! beyond  = more than 4 times as far, and more than 500 us further
//! a path that was on a further step: more than twice, and more than 250 us, unless it would take one along that was not
//! ```
//!
//! So a path goes away at 4 times and comes up at twice; none goes away because of what another one was.
//!
//! A path that was never known (fewer than 3 reads) is on the last step of its class, and has no say. One that is down
//! keeps its distance, and is measured anew if it was away for long.

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
    /// The path is known now, and never was before.
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

/// The distances of the paths of one device. 64 bytes per path.
#[derive(Clone, Debug)]
pub struct Distances {
    paths: Vec<Measured>,
}

#[derive(Clone, Copy, Debug)]
struct Measured {
    /// Shortest time of the running window and of the one before.
    shortest_ns: [u64; 2],
    window_end: Nanos,
    reads: u32,
    /// What it was before it was away for long, until it is known anew.
    stale_ns: u64,
    step: u8,
    /// It was known once, so its step is its own.
    placed: bool,
    /// When it last came to a nearer step.
    nearer_at: Nanos,
}

const UNKNOWN: Measured = Measured {
    shortest_ns: [u64::MAX; 2],
    window_end: 0,
    reads: 0,
    stale_ns: u64::MAX,
    step: 0,
    placed: false,
    nearer_at: 0,
};

impl Distances {
    /// Nothing is known of any of the paths.
    pub fn new(paths: usize) -> Self {
        Self { paths: alloc::vec![UNKNOWN; paths] }
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
        if it.window_end.saturating_add(DISTANCE_WINDOW) <= now {
            // It was away: it may lead elsewhere by now.
            let stale_ns = before.unwrap_or(u64::MAX);
            *it = Measured { shortest_ns: [u64::MAX; 2], reads: 0, stale_ns, ..*it };
        }
        if it.window_end <= now {
            it.shortest_ns = [u64::MAX, it.shortest_ns[0]];
            it.window_end = now.saturating_add(DISTANCE_WINDOW);
        }
        it.shortest_ns[0] = it.shortest_ns[0].min(service_ns);
        it.reads = it.reads.saturating_add(1);
        match it.distance_ns() {
            Some(_) if !it.placed => Heard::Known,
            after if after != before => Heard::Changed,
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
            let it = &mut self.paths[change.path];
            it.step = change.to;
            if change.to < change.from {
                it.nearer_at = now;
            }
        }
        for &(.., path) in &order {
            self.paths[path].placed = true;
        }
        self.put_unknown_last(classes);
        moved
    }

    /// The paths of one class, the nearest first.
    fn arrange_class(&self, class: &[(u64, u64, usize)], moved: &mut Vec<Moved>) {
        let (_, nearest_ns, nearest) = class[0];
        let (mut first, mut first_ns, mut step) = (nearest, nearest_ns, 0_u8);
        for (at, &(_, distance_ns, path)) in class.iter().enumerate() {
            let from = self.paths[path].step;
            let was_beyond = |path: usize| {
                let it = self.paths[path];
                it.placed && it.step > self.paths[first].step
            };
            // One behind it that was not, and is not beyond by itself, is not taken along.
            let takes_along = class[at + 1..]
                .iter()
                .any(|&(_, behind_ns, behind)| !was_beyond(behind) && !is_beyond(behind_ns, first_ns, false));
            let was_further = was_beyond(path) && !takes_along;
            if is_beyond(distance_ns, first_ns, was_further) {
                (first, first_ns, step) = (path, distance_ns, step.saturating_add(1));
            }
            if from != step {
                moved.push(Moved { path, from, to: step, distance_ns, nearest_ns });
            }
        }
    }

    /// What is to be told of them is told when they are known.
    fn put_unknown_last(&mut self, classes: &[Option<u64>]) {
        for path in (0..self.paths.len()).filter(|&path| classes[path].is_some()) {
            if !self.paths[path].placed {
                let placed = |&other: &usize| self.paths[other].placed && classes[other] == classes[path];
                let last = (0..self.paths.len()).filter(placed).map(|other| self.paths[other].step).max();
                self.paths[path].step = last.unwrap_or(0);
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

    /// When a path last came to a nearer step; 0: never.
    pub fn nearer_at(&self, path: usize) -> Nanos {
        self.paths[path].nearer_at
    }

    /// The path `to` leads where `from` led.
    pub fn inherit(&mut self, from: usize, to: usize) {
        self.paths[to] = self.paths[from];
    }
}

impl Measured {
    fn distance_ns(&self) -> Option<u64> {
        if self.reads >= DISTANCE_READS_MIN {
            return Some(self.shortest_ns[0].min(self.shortest_ns[1]));
        }
        Some(self.stale_ns).filter(|&stale| stale < u64::MAX)
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
