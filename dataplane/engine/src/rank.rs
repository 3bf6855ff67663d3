// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where each path stands among the others (design 3.4): what the operator says, what its storage says, and how far
//! away it is (`policies::group`, `policies::distance`).
//!
//! With `groups = "latency"` one block is read through every path that answers, each 10 s, when nothing else is under
//! way on it. A path that is busy all the time is let come to rest for that: it is given nothing new until what it has is
//! answered, for 100 ms at most, one path at a time. These reads are no canaries: one that takes long is held against
//! nobody. An error is one, whoever asks.

use alloc::format;
use alloc::vec::Vec;
use core::cmp::Reverse;

use nbd::Errno;
use policies::distance::{Heard, Moved};
use policies::limits::{DISTANCE_INTERVAL, DISTANCE_REST, MICROSECOND};
use policies::{Rank, group};
use program::{AccessState, Groups, Nanos};

use crate::engine::Engine;
use crate::ids::LaneId;
use crate::lane::Use;
use crate::path::Admin;

/// Of one path.
#[derive(Debug, Default)]
pub(crate) struct Measuring {
    /// When it was last read through, or that was given up.
    at: Option<Nanos>,
    /// It is given nothing new until then, or until it is at rest.
    rests_until: Option<Nanos>,
    /// It did not come to rest the last time.
    restless: bool,
}

impl Measuring {
    /// It is to be given nothing new.
    pub(crate) fn rests(&self) -> bool {
        self.rests_until.is_some()
    }
}

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
        path.program.access_state.unwrap_or(path.access_told)
    }

    /// Since when it has been usable, as far as its group goes: what was measured may have moved it.
    pub(crate) fn ranked_since(&self, index: usize) -> Nanos {
        let nearer = if self.by_distance() { self.distances.nearer_at(index) } else { 0 };
        self.paths[index].steering.since.max(nearer)
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
        let what = if moved.to > moved.from { "a group behind others" } else { "a nearer group" };
        let text = format!("its storage takes {own} us, the nearest {nearest} us: {what}");
        self.event("path_distance", Some(moved.path), "distance", text);
    }

    /// When [`Engine::measure`] has something to do next.
    pub(crate) fn next_measure(&self) -> Option<Nanos> {
        (0..self.paths.len()).filter_map(|path| self.next_measure_of(path)).min()
    }

    fn next_measure_of(&self, path: usize) -> Option<Nanos> {
        if !self.by_distance() || self.is_ending() {
            return None;
        }
        self.lane_to_measure(path)?;
        let due = self.measure_due(path);
        match self.paths[path].measuring.rests_until {
            _ if due > self.now || self.is_at_rest(path) => Some(due),
            Some(until) => Some(until),
            None => self.may_rest().then_some(due),
        }
    }

    /// Storage that is to sleep is not woken by it: an idle device is measured as seldom as it is probed.
    fn measure_due(&self, path: usize) -> Nanos {
        let Measuring { at, restless, .. } = self.paths[path].measuring;
        let Some(last) = at else { return 0 };
        let due = self.distances.next_read(path, at);
        if !self.is_busy() && self.distances.distance_ns(path).is_some() {
            due.max(last.saturating_add(self.program.canary.idle))
        } else if restless {
            due.max(last.saturating_add(DISTANCE_INTERVAL))
        } else {
            due
        }
    }

    fn lane_to_measure(&self, path: usize) -> Option<u16> {
        self.paths[path].lanes.iter().copied().find(|&slot| {
            let lane = self.lane_at(slot);
            lane.is_up() && lane.suspicion.is_none() && lane.has_spare()
        })
    }

    /// Nothing is under way on it: what waits behind requests tells of them.
    fn is_at_rest(&self, path: usize) -> bool {
        let lanes = self.paths[path].lanes.iter().map(|&slot| self.lane_at(slot));
        lanes.filter(|lane| lane.is_up()).all(|lane| lane.in_flight == 0)
    }

    /// One path at a time, and not where the last ones are in trouble.
    fn may_rest(&self) -> bool {
        !self.active.last_resort && !self.paths.iter().any(|path| path.measuring.rests())
    }

    /// Timer work: reads through what is due, and lets come to rest what is busy.
    pub(crate) fn measure(&mut self) {
        if self.next_measure().is_none_or(|due| due > self.now) {
            return;
        }
        for path in 0..self.paths.len() {
            if self.measure_due(path) <= self.now
                && let Some(slot) = self.lane_to_measure(path)
            {
                self.measure_or_rest(path, slot);
            }
        }
    }

    fn measure_or_rest(&mut self, path: usize, slot: u16) {
        let now = self.now;
        if self.is_at_rest(path) {
            self.paths[path].measuring = Measuring { at: Some(now), ..Measuring::default() };
            let offer = self.lane_at(slot).offer();
            let len = u64::from(offer.min_block_bytes.max(512)).min(offer.size_bytes);
            if len > 0 {
                self.internal_read(slot, Use::Distance { sent_at: now }, 0, len);
            }
            return;
        }
        match self.paths[path].measuring.rests_until {
            Some(until) if until <= now => {
                let given_up = Measuring { at: Some(now), restless: true, ..Measuring::default() };
                self.paths[path].measuring = given_up;
            }
            None if self.may_rest() => {
                self.paths[path].measuring.rests_until = Some(now.saturating_add(DISTANCE_REST));
            }
            _ => {}
        }
    }

    /// A path that is not to be measured any more, or cannot be, is not kept waiting for it.
    pub(crate) fn end_rests(&mut self) {
        for path in 0..self.paths.len() {
            if self.paths[path].measuring.rests() && self.next_measure_of(path).is_none() {
                self.paths[path].measuring.rests_until = None;
            }
        }
    }

    pub(crate) fn measured(&mut self, id: LaneId, sent_at: Nanos, result: Result<(), Errno>) {
        let lane = self.lane_mut(id);
        let (path, tells) = (lane.path, lane.is_up() && lane.tells_speed(sent_at));
        self.count_probe(path, result.is_ok());
        if result.is_err() || !tells || !self.by_distance() {
            return;
        }
        match self.distances.record(self.now, path, self.now - sent_at) {
            Heard::Nothing => return,
            Heard::Known => self.place_known(path),
            Heard::Changed => {}
        }
        self.regroup();
    }

    /// A path is known for the first time. If it is nearer than those in use, or they are further than it was thought,
    /// the nearest takes its place at once: the delay of a failback is for returning. Only among paths of one class: another
    /// one's failback is none of its business.
    fn place_known(&mut self, path: usize) {
        self.arrange_distances();
        let of_class = |rank: &Rank| Rank { distance: Reverse(0), ..*rank };
        let Some(current) = self.active.rank.filter(|rank| of_class(rank) == of_class(&self.rank(path)))
        else {
            return;
        };
        let usable =
            (0..self.paths.len()).filter(|&index| self.paths[index].steering.is_of(self.active.best));
        let best =
            usable.map(|index| self.rank(index)).filter(|rank| of_class(rank) == of_class(&current)).max();
        self.active.rank = self.active.rank.max(best);
    }
}
