// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where each path stands among the others (design 3.4): what the operator says, what its storage says, and how far
//! away it is (`policies::group`, `policies::distance`).
//!
//! With `groups = "latency"` one block is read through every path that answers, each 10 s, whatever else it does.
//! These reads are no canaries: one that takes long is held against nobody, as it may wait behind what hosts ask for.

use alloc::format;
use alloc::vec::Vec;
use core::cmp::Reverse;

use nbd::Errno;
use policies::distance::{Heard, Moved};
use policies::limits::MICROSECOND;
use policies::{Rank, group};
use program::{AccessState, Groups, Nanos};

use crate::engine::Engine;
use crate::ids::LaneId;
use crate::lane::Use;
use crate::path::Admin;

impl Engine {
    /// The rank of a path; those of equal rank are one group.
    pub(crate) fn rank(&self, index: usize) -> Rank {
        let step = if self.by_distance() { self.distances.step(index) } else { 0 };
        Rank {
            priority: self.paths[index].program.priority,
            access: match self.access_state(index) {
                AccessState::Optimized => group::AccessState::Optimized,
                AccessState::NonOptimized => group::AccessState::NonOptimized,
                AccessState::Standby => group::AccessState::Standby,
            },
            distance: Reverse(step),
        }
    }

    /// What the operator says of it, or else what its server said when it was last accepted.
    pub(crate) fn access_state(&self, index: usize) -> AccessState {
        let path = &self.paths[index];
        path.program.access_state.or(path.offer.map(|offer| offer.access)).unwrap_or_default()
    }

    /// Since when it has been usable, as far as its group goes: what was measured may have moved it.
    pub(crate) fn ranked_since(&self, index: usize) -> Nanos {
        let moved = if self.by_distance() { self.distances.changed_at() } else { 0 };
        self.paths[index].steering.since.max(moved)
    }

    /// How many groups are better than that of the path: 0 = none.
    pub(crate) fn group_of(&self, index: usize) -> u32 {
        let own = self.rank(index);
        let present = (0..self.paths.len()).filter(|&path| self.paths[path].admin != Admin::Removed);
        let mut better: Vec<Rank> = present.map(|path| self.rank(path)).filter(|&rank| rank > own).collect();
        better.sort_unstable();
        better.dedup();
        better.len() as u32
    }

    /// Distance of the storage behind a path, if it is measured and known.
    pub(crate) fn distance_ns(&self, index: usize) -> Option<Nanos> {
        self.by_distance().then(|| self.distances.distance_ns(index)).flatten()
    }

    fn by_distance(&self) -> bool {
        self.program.groups == Groups::Latency
    }

    /// Puts every path on its step; called before the groups are read off the paths.
    pub(crate) fn arrange_distances(&mut self) {
        if !self.by_distance() {
            return;
        }
        let class = |index: usize| {
            let Rank { priority, access, .. } = self.rank(index);
            (self.paths[index].admin != Admin::Removed).then_some(u64::from(priority) << 2 | access as u64)
        };
        let classes: Vec<Option<u64>> = (0..self.paths.len()).map(class).collect();
        for moved in self.distances.arrange(self.now, &classes) {
            self.tell_moved(&moved);
        }
    }

    fn tell_moved(&mut self, moved: &Moved) {
        self.decide_moved(moved);
        let [own, nearest] = [moved.distance_ns, moved.nearest_ns].map(|ns| ns / MICROSECOND);
        let what = if moved.to > moved.from { "further away" } else { "nearer" };
        let text = format!("its storage is {what} than it was taken for: {own} us, the nearest {nearest} us");
        self.event("path_distance", Some(moved.path), "distance", text);
    }

    /// When [`Engine::measure`] has something to do next.
    pub(crate) fn next_measure(&self) -> Option<Nanos> {
        if !self.by_distance() || self.is_draining() {
            return None;
        }
        let due = |path: usize| self.lane_to_measure(path).map(|_| self.measure_due(path));
        (0..self.paths.len()).filter_map(due).min()
    }

    fn measure_due(&self, path: usize) -> Nanos {
        self.distances.next_read(path, self.paths[path].measured_at)
    }

    /// The least busy one that answers. It may be full of host requests: these reads have room of their own.
    fn lane_to_measure(&self, path: usize) -> Option<u16> {
        let lanes = self.paths[path].lanes.iter().copied();
        let well = |&slot: &u16| {
            let lane = self.lane_at(slot);
            lane.is_up() && lane.suspicion.is_none() && lane.has_spare()
        };
        lanes.filter(well).min_by_key(|&slot| self.lane_at(slot).in_flight_bytes)
    }

    /// Timer work: reads through what is due.
    pub(crate) fn measure(&mut self) {
        if self.next_measure().is_none_or(|due| due > self.now) {
            return;
        }
        for path in 0..self.paths.len() {
            let Some(slot) = self.lane_to_measure(path).filter(|_| self.measure_due(path) <= self.now) else {
                continue;
            };
            self.paths[path].measured_at = Some(self.now);
            let offer = self.lane_at(slot).offer();
            let len = u64::from(offer.min_block_bytes.max(512)).min(offer.size_bytes);
            if len > 0 {
                self.internal_read(slot, Use::Distance { sent_at: self.now }, 0, len);
            }
        }
    }

    pub(crate) fn measured(&mut self, id: LaneId, sent_at: Nanos, result: Result<(), Errno>) {
        let lane = self.lane_mut(id);
        let path = lane.path;
        if result.is_err() || !lane.is_up() || !lane.tells_speed(sent_at) {
            return;
        }
        match self.distances.record(self.now, path, self.now - sent_at) {
            Heard::Nothing => return,
            // It takes its place at once: the delay of a failback is for returning.
            Heard::Known => self.failback.force(),
            Heard::Changed => {}
        }
        self.regroup();
    }
}
