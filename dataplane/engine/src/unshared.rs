// SPDX-License-Identifier: MIT OR Apache-2.0
//! Caches that are not shared: reads over a write that moves between them, and how a device comes to have such (rule W18).
//!
//! A server without FUA has a write in its cache before the FLUSH that brings it out. Reads on
//! that path show it from then on, and may be answered before the write is. Is the path left in
//! between, the next one shows what was there before until the write has been sent again there: a
//! later read would go back behind an earlier one. So a read waits for the writes of its range
//! that are not done and were sent again, or are still on a path that is not in use: as it would have
//! on one path alone. That they are done lets it go, or the error they end with; a change of the paths
//! in use makes it look again.
//!
//! A device whose paths were taken to share a cache comes apart while it runs: by `coherent = false`, or with a path whose
//! server has no multi-conn. What was acknowledged until then may be in any cache and come out of it over what is newer, so
//! nothing new is sent before a FLUSH has brought it out everywhere, and what was on its way then too; for `quiesce` at most.

use alloc::string::String;

use crate::engine::Engine;
use crate::lane::{Lane, LaneState, Use};
use crate::request::PieceState;
use crate::slab::Key;

impl Engine {
    /// Whether a read of this piece must wait; if so it waits.
    pub(crate) fn waits_for_moving_write(&mut self, key: Key) -> bool {
        let piece = self.pieces.get(key);
        let (start, end) = (piece.offset, piece.end());
        let waits =
            self.active.write_through && self.ranges.touches(start, end) && self.is_moving(start, end);
        if waits {
            self.active.readers.push(key);
        }
        waits
    }

    /// Whether a part of this read waits here.
    pub(crate) fn waits_for_moving(&self, request: Key) -> bool {
        self.active.readers.iter().any(|&key| self.pieces.get(key).request == Some(request))
    }

    /// Whether a part of a write in `[start, end)` is not done, and has been on another path than those in use.
    fn is_moving(&self, start: u64, end: u64) -> bool {
        let left = |lane: &&Lane| !self.active.members.contains(&lane.path);
        let is_on = |lane: &Lane, key: Key| {
            lane.in_order().any(|(_, slot)| matches!(slot.used, Use::Piece { piece, .. } if piece == key))
        };
        let elsewhere = |key: Key| self.lanes.iter().flatten().filter(left).any(|lane| is_on(lane, key));
        self.unanswered_writes().into_iter().any(|request| {
            let mut next = self.requests.get(request).first_piece;
            while let Some(key) = next {
                let piece = self.pieces.get(key);
                next = piece.next;
                let open = piece.state != PieceState::Done && piece.offset < end && start < piece.end();
                if open && (piece.resent || elsewhere(key)) {
                    return true;
                }
            }
            false
        })
    }

    /// A part of a write is done, or other paths are in use: reads look again.
    pub(crate) fn release_readers(&mut self) {
        let readers = core::mem::take(&mut self.active.readers);
        // Newest first, so that the oldest ends at the head of the queue.
        for key in readers.into_iter().rev() {
            self.pieces.get_mut(key).queued = false;
            self.enqueue(key, true);
        }
    }

    /// The paths do not share a cache from now on.
    pub(crate) fn come_apart(&mut self) {
        // What is lost is written again, and through.
        let dirty = self.domains.iter().any(|domain| domain.acked > domain.flushed && domain.lost.is_none());
        if self.rules.w18_write_through && (dirty || self.is_writing_back()) {
            self.active.apart_by = Some(self.now + self.program.quiesce);
            self.own_flush();
        }
    }

    /// A write is on its way that was sent before, and is not durable when it is answered.
    fn is_writing_back(&self) -> bool {
        let used = |lane: &&Lane| matches!(lane.state, LaneState::Up | LaneState::Draining);
        self.lanes.iter().flatten().filter(used).any(|lane| {
            lane.in_order().any(|(_, slot)| {
                let through = slot.durable || matches!(slot.used, Use::Piece { flush_after: true, .. });
                slot.write && !through
            })
        })
    }

    /// Whether what is new has to wait for what is in the caches.
    pub(crate) fn is_coming_apart(&self) -> bool {
        self.active.apart_by.is_some()
    }

    /// A write was answered that is not durable, after the paths came apart: another FLUSH brings it out.
    pub(crate) fn flush_apart(&mut self) {
        if core::mem::take(&mut self.active.apart_owed) && self.rules.w18_write_through {
            self.own_flush();
        }
    }

    /// A FLUSH of every cache was answered well, and no other is to follow.
    pub(crate) fn flushed_apart(&mut self) {
        if !self.active.apart_owed && !self.is_writing_back() {
            self.active.apart_by = None;
        }
    }

    /// The timer: another FLUSH, if what was waited for is not on its way any more; and what was not brought out by now is
    /// waited for no longer.
    pub(crate) fn apart_due(&mut self) {
        let Some(until) = self.active.apart_by else { return };
        let idle = !self.retention.is_flushing() && self.now >= self.retention.next_flush();
        if idle && !self.is_writing_back() {
            self.own_flush();
        }
        if until <= self.now {
            self.active.apart_by = None;
            let text = "the paths do not share a cache any more, and what was acknowledged before could not be flushed within `quiesce`: it may come out of its cache over newer writes";
            self.event("cache_unproven", None, "W18", String::from(text));
        }
    }
}
