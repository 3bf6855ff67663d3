// SPDX-License-Identifier: MIT OR Apache-2.0
//! The paths that could carry a piece now, and the lane of each (design 3.3, 3.4).
//!
//! A path is a candidate if it has a lane with room, has not answered this piece EIO (W7), has no copy of it (W15), and the
//! piece is not one that is paced beyond what the path takes of those. Those that do it natively come first; those where it
//! would wait for a FLUSH come last (`behind`).

use policies::Candidate;
use policies::limits::FULL_SHARE_PPM;
use program::AccessPolicy;

use crate::dispatch::{Form, form_of};
use crate::engine::Engine;
use crate::lane::{Lane, LaneState, Use};
use crate::slab::Key;

/// Which paths are looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Among {
    /// Those that carry I/O.
    Members,
    /// All that answer, whatever is held against them.
    All,
}

/// Requests in flight on the connections of a path that are up.
#[derive(Default)]
pub(crate) struct Room {
    in_flight: u32,
    in_flight_bytes: u64,
    /// Of these, FLUSHes that are no load (`behind`).
    weightless: u32,
}

impl Engine {
    /// Paths that could carry the piece now, in `candidates` and `candidate_paths`.
    pub(crate) fn collect_candidates(&mut self, key: Key, native_only: bool, among: Among) {
        self.candidates.clear();
        self.candidate_paths.clear();
        let piece = self.pieces.get(key);
        let write = piece.is_write_like();
        for at in 0..self.count_of(among, write) {
            let Some(index) = self.nth_of(among, write, at) else { continue };
            let path = &self.paths[index];
            if piece.refused_by & (1 << index.min(63)) != 0 {
                continue;
            }
            let Some(room) = self.room_on(index) else { continue };
            if piece.paced && !self.takes_moved(index, room.in_flight) {
                continue;
            }
            let Some(offer) = path.offer.as_ref() else { continue };
            let last = self.active.last_resort && self.rules.w15_last_path;
            // A second copy goes to another path, or it would wait behind the first.
            if piece.resent && self.has_copy_on(index, key, last) {
                continue;
            }
            if native_only && form_of(piece, offer) != Form::Native {
                continue;
            }
            let share_ppm = path.probation.as_ref().map_or(FULL_SHARE_PPM, |p| p.share_ppm(self.now).max(1));
            self.candidate_paths.push(index);
            self.candidates.push(Candidate {
                in_flight: room.in_flight - room.weightless,
                in_flight_bytes: room.in_flight_bytes,
                weight: path.program.weight,
                expected_ns: path.latency.expected_ns(write, piece.len),
                last_used: path.last_used,
                share_ppm,
            });
        }
        self.prefer_undelayed();
    }

    /// Of the candidates those on which nothing has to wait for a FLUSH (`behind`), if there is one that may have a full
    /// share: probation is not cut short for it.
    fn prefer_undelayed(&mut self) {
        let all = 0..self.candidates.len();
        let delayed = |at: usize| self.is_delayed(self.candidate_paths[at]);
        let instead = |at: usize| self.candidates[at].share_ppm == FULL_SHARE_PPM && !delayed(at);
        if !all.clone().any(delayed) || !all.clone().any(instead) {
            return;
        }
        for at in all.rev() {
            if self.is_delayed(self.candidate_paths[at]) {
                self.candidate_paths.remove(at);
                self.candidates.remove(at);
            }
        }
    }

    /// Whatever lane of the path is used, what is sent now likely waits for a FLUSH.
    fn is_delayed(&self, path: usize) -> bool {
        let mut lanes = self.paths[path].lanes.iter().map(|&slot| self.lane_at(slot));
        lanes.clone().any(|lane| lane.behind.waits())
            && !lanes.any(|lane| lane.is_trusted() && !lane.behind.waits())
    }

    /// What is in flight on a path that has room for one more.
    pub(crate) fn room_on(&self, index: usize) -> Option<Room> {
        let mut all = Room::default();
        let mut room = false;
        for &slot in &self.paths[index].lanes {
            let lane = self.lane_at(slot);
            if lane.is_up() {
                all.in_flight += lane.in_flight;
                all.in_flight_bytes += lane.in_flight_bytes;
                all.weightless += lane.behind.weightless();
                room |= (lane.suspicion.is_none() || self.active.last_resort) && lane.has_room();
            }
        }
        let path = &self.paths[index];
        (room && all.in_flight < path.program.in_flight && !path.measuring.rests()).then_some(all)
    }

    /// A copy is on a lane of this path that may still answer it. The last path never gets a second
    /// copy, not even while that lane is suspect or being drained (W15).
    fn has_copy_on(&self, path: usize, key: Key, last: bool) -> bool {
        let lanes = self.paths[path].lanes.iter().map(|&slot| self.lane_at(slot));
        let answers = |lane: &&Lane| match lane.state {
            LaneState::Draining => last,
            _ if last => lane.is_up(),
            _ => lane.is_trusted(),
        };
        lanes.filter(answers).any(|lane| {
            lane.in_order().any(|(_, slot)| match slot.used {
                Use::Piece { piece, .. } => piece == key || self.was_part_of(key, piece),
                _ => false,
            })
        })
    }

    /// Whether a piece was cut anew out of another one, whose copy is open (`replace`).
    fn was_part_of(&self, key: Key, old: Key) -> bool {
        let (piece, old) = (self.pieces.get(key), self.pieces.get(old));
        let same = piece.request.is_some() && piece.request == old.request;
        same && old.offset < piece.end() && piece.offset < old.end()
    }

    /// Every one of these paths has answered the piece EIO or has a copy of it, and there is one.
    pub(crate) fn only_refused(&self, key: Key, among: Among) -> bool {
        let piece = self.pieces.get(key);
        let write = piece.is_write_like();
        let last = self.active.last_resort && self.rules.w15_last_path;
        let mut paths =
            (0..self.count_of(among, write)).filter_map(|at| self.nth_of(among, write, at)).peekable();
        paths.peek().is_some()
            && paths.all(|index| {
                let asked = piece.resent && self.has_copy_on(index, key, last);
                asked || piece.refused_by & (1 << index.min(63)) != 0
            })
    }

    /// One path at a time: there a second opinion is a switch (W18, W20).
    pub(crate) fn may_ask_others(&self) -> bool {
        self.active.policy == AccessPolicy::ActiveActive
    }

    fn count_of(&self, among: Among, write: bool) -> usize {
        match among {
            Among::Members if write => self.active.writers.len(),
            Among::Members => self.active.members.len(),
            Among::All => self.paths.len(),
        }
    }

    /// `None`: this one is not to be asked.
    fn nth_of(&self, among: Among, write: bool, at: usize) -> Option<usize> {
        match among {
            Among::Members if write => Some(self.active.writers[at]),
            Among::Members => Some(self.active.members[at]),
            Among::All => {
                let path = &self.paths[at];
                (path.steering.answers() && (!write || path.writable())).then_some(at)
            }
        }
    }

    /// The least loaded lane of a path that may be used.
    pub(crate) fn lane_of(&self, path: usize) -> Option<u16> {
        self.lane_of_which(path, |_| true)
    }

    /// The same, of those that fit.
    pub(crate) fn lane_of_which(&self, path: usize, fits: impl Fn(&u16) -> bool) -> Option<u16> {
        self.paths[path]
            .lanes
            .iter()
            .copied()
            .filter(fits)
            .filter(|&slot| {
                let lane = self.lane_at(slot);
                lane.is_up() && lane.has_room() && (lane.suspicion.is_none() || self.active.last_resort)
            })
            .min_by_key(|&slot| {
                let lane = self.lane_at(slot);
                (lane.suspicion.is_some(), lane.behind.waits(), lane.in_flight_bytes, lane.in_flight)
            })
    }
}
