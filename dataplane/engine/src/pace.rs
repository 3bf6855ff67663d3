// SPDX-License-Identifier: MIT OR Apache-2.0
//! Requests of a lost path go to the others a few at a time (design 3.5).
//!
//! `policies::pacing` says how many may be on a path at once. What is moved while that goes
//! on waits in queues of its own, so that what hosts ask meanwhile does not wait behind it:
//! the paths that are left keep their speed. Fewer than 8 at once are simply sent.
//!
//! ```text
//! 8 or more moved at once --> each other path that answers is paced
//! moved and host's own    --> a queue for moved ones; sent while a path's allowance lasts
//! no moved one waits      --> nothing is paced
//! ```
//!
//! Range locks and the order among moved requests are as ever: the oldest first (W8).

use alloc::collections::VecDeque;

use crate::engine::Engine;
use crate::lane::{Lane, Slot, Use};
use crate::request::{Kind, Origin, PieceState};
use crate::slab::Key;

/// Moved reads, writes and discards.
pub(crate) type Moved = [VecDeque<Key>; 3];

impl Engine {
    /// So many requests are about to be moved off a path at once.
    pub(crate) fn begin_pacing(&mut self, from: usize, requests: u32) {
        let (now, before) = (self.now, self.pacing);
        for (index, path) in self.paths.iter_mut().enumerate() {
            if index != from && path.steering.answers() {
                path.steering.pacing.on_moved(now, requests, &path.latency);
                self.pacing |= path.steering.pacing.is_active();
            }
        }
        if self.pacing && !before {
            self.decide_pacing(from, requests);
        }
    }

    /// Requests in flight on a lane that would be moved if it were given up.
    pub(crate) fn movable(&self, slots: impl Iterator<Item = Slot>) -> u32 {
        let moves = |slot: &Slot| match slot.used {
            Use::Piece { piece, moved: false, .. } => self.pieces.get(piece).state != PieceState::Done,
            _ => false,
        };
        slots.filter(moves).count() as u32
    }

    /// Whether a piece that is queued again is to wait its turn.
    pub(crate) fn is_paced(&self, key: Key) -> bool {
        let piece = self.pieces.get(key);
        let host = piece.request.is_some_and(|request| self.requests.get(request).origin == Origin::Host);
        self.pacing && host && piece.kind == Kind::Io
    }

    /// Whether a path with so many requests in flight takes one more that was moved.
    pub(crate) fn takes_moved(&self, index: usize, in_flight: u32) -> bool {
        let steering = &self.paths[index].steering;
        let own = in_flight.saturating_sub(steering.paced_in_flight);
        steering.pacing.allowance(self.now, own) > 0
    }

    pub(crate) fn paced_sent(&mut self, index: usize) {
        let steering = &mut self.paths[index].steering;
        steering.paced_in_flight += 1;
        steering.pacing.on_sent();
    }

    pub(crate) fn paced_answered(&mut self, index: usize, slot: &Slot) {
        let service = self.now - slot.sent_at;
        let steering = &mut self.paths[index].steering;
        steering.paced_in_flight = steering.paced_in_flight.saturating_sub(1);
        steering.pacing.on_answered(slot.write, slot.len, service);
    }

    /// A lane is gone: what was moved to it is moved again.
    pub(crate) fn paced_lost(&mut self, lane: &Lane) {
        if lane.in_order().any(|(_, slot)| slot.paced) {
            let steering = &mut self.paths[lane.path].steering;
            steering.paced_in_flight = 0;
            steering.pacing.on_path_lost();
        }
    }

    /// No moved request waits any more.
    pub(crate) fn end_pacing(&mut self) {
        if self.pacing && self.queues.moved.iter().all(VecDeque::is_empty) {
            self.pacing = false;
            for path in &mut self.paths {
                path.steering.pacing.on_backlog_empty();
            }
        }
    }

    /// When a path takes more moved requests by time alone.
    pub(crate) fn next_pace(&self) -> Option<program::Nanos> {
        if !self.pacing {
            return None;
        }
        self.paths.iter().filter_map(|path| path.steering.pacing.next_deadline(self.now)).min()
    }
}
