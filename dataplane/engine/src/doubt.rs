// SPDX-License-Identifier: MIT OR Apache-2.0
//! Copies in doubt: the frame left this process whole, its connection is gone,
//! no reply came. The storage may have executed it, may do so later, or never
//! (semantics 2.1).
//!
//! So is a write that was answered by a cache that is not shared, where no FLUSH can follow it any more (W18).
//!
//! A doubt counts as a copy of its piece. While it stands, the piece's range is
//! locked: by the request as long as that is open, afterwards by a quarantine.
//! What ends it:
//!
//! | evidence | rule |
//! |---|---|
//! | a reply on the old connection (a zombie lane: not a doubt yet) | 2.3 |
//! | EOF after our DISC from a server that drains | 2.3 |
//! | a gate that finished the session, or was started anew (`fence`) | 2.3, 2.4 |
//! | `quiesce` after our kernel could send no more, if `unproven = "assume"` | W4, an assumption |
//!
//! With `unproven = "hold"` no timer ends it. A release by the timer is reported, because it was not proven: one that
//! somebody was waiting for each by itself, `quarantine_unproven`; the others, over which something newer may be written
//! later, as a number for each path, `doubt_unproven`.

use alloc::format;
use alloc::vec::Vec;

use program::{Nanos, Unproven};

use crate::LaneId;
use crate::engine::Engine;
use crate::request::RequestState;
use crate::slab::Key;

/// See the module header.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Doubt {
    /// It may be carried out still. Else it was, and is in a cache that is not shared (W18).
    pub(crate) in_flight: bool,
    /// Once carried out it is in such a cache: that nothing of its session is carried out any more does not end it.
    pub(crate) cached: bool,
    pub(crate) piece: Key,
    pub(crate) path: usize,
    /// Lane whose connection it was sent on.
    pub(crate) lane: LaneId,
    /// When its connection was lost.
    pub(crate) since: Nanos,
    /// When it is assumed to be over; `None`: never without proof.
    pub(crate) expires: Option<Nanos>,
}

/// `exclusive = "proven"`, or one path at a time behind gates (W20): reads were on a connection when it was lost, and its
/// server may work on them while another path is used. They change nothing, so nothing but that path waits for them, and never longer than `quiesce`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OpenReads {
    pub(crate) path: usize,
    pub(crate) lane: LaneId,
    until: Nanos,
}

impl Engine {
    /// Whole frames of reads were on this connection, which is gone without proof.
    pub(crate) fn leave_reads_open(&mut self, path: usize, lane: LaneId) {
        let until = self.now + self.program.quiesce;
        self.open_reads.push(OpenReads { path, lane, until });
    }

    /// A whole frame of a write-like piece was on a connection that is gone.
    ///
    /// `in_flight` and `cached`: see [`Doubt`].
    pub(crate) fn doubt(&mut self, piece: Key, path: usize, lane: LaneId, in_flight: bool, cached: bool) {
        let (since, expires) = (self.now, self.doubt_expires(self.now));
        let new = Doubt { in_flight, cached, piece, path, lane, since, expires };
        // What nothing can prove is as open with one copy as with many; else a path that flickers for days under `hold`
        // would fill the memory with them.
        let gated = self.paths[path].offer.is_some_and(|offer| offer.gate.is_some());
        let same = self.doubts.iter_mut().find(|doubt| doubt.piece == piece && doubt.path == path);
        match same.filter(|_| expires.is_none() && !gated) {
            Some(doubt) => {
                // Nothing that is answered on one connection speaks for another.
                let in_flight = in_flight || doubt.in_flight || doubt.lane != lane;
                let cached = cached || doubt.cached;
                *doubt = Doubt { in_flight, cached, ..new };
                self.pieces.get_mut(piece).copies -= 1;
            }
            None => self.doubts.push(new),
        }
        self.decide_doubt(piece, path);
    }

    fn doubt_expires(&self, since: Nanos) -> Option<Nanos> {
        let quiesce = self.program.quiesce / if self.rules.w4_quiesce { 1 } else { 10 };
        match self.program.unproven {
            Unproven::Hold if self.rules.w13_hold => None,
            Unproven::Assume | Unproven::Hold => Some(since + quiesce),
        }
    }

    /// The connection is gone only now: what is in doubt since before may still be carried out from now on.
    pub(crate) fn date_doubts(&mut self, lane: LaneId) {
        let (since, expires) = (self.now, self.doubt_expires(self.now));
        for doubt in self.doubts.iter_mut().filter(|doubt| doubt.lane == lane) {
            (doubt.since, doubt.expires) = (since, expires);
        }
    }

    /// The program has changed, and with it perhaps what ends a doubt.
    pub(crate) fn time_doubts(&mut self) {
        for at in 0..self.doubts.len() {
            self.doubts[at].expires = self.doubt_expires(self.doubts[at].since);
        }
    }

    pub(crate) fn expire_doubts(&mut self) {
        let now = self.now;
        self.open_reads.retain(|reads| reads.until > now);
        let mut at = 0;
        let mut unasked: Vec<(usize, u64)> = Vec::new();
        while at < self.doubts.len() {
            let doubt = self.doubts[at];
            if doubt.expires.is_some_and(|expires| expires <= self.now) {
                self.doubts.swap_remove(at);
                if !self.report_unproven(doubt) {
                    match unasked.iter_mut().find(|(path, _)| *path == doubt.path) {
                        Some((_, writes)) => *writes += 1,
                        None => unasked.push((doubt.path, 1)),
                    }
                }
                self.decide_unproven_release(doubt);
                self.end_copy(doubt.piece);
            } else {
                at += 1;
            }
        }
        for (path, writes) in unasked {
            self.report_unasked(path, writes);
        }
        self.forget_kills();
        self.after_proof();
    }

    /// The session of this lane is proven finished; how many copies that settles.
    pub(crate) fn end_doubts_of(&mut self, lane: LaneId) -> usize {
        self.open_reads.retain(|reads| reads.lane != lane);
        let mut ended = 0;
        for doubt in self.doubts.iter_mut().filter(|doubt| doubt.lane == lane && doubt.cached) {
            doubt.in_flight = false;
        }
        while let Some(at) = self.doubts.iter().position(|doubt| doubt.lane == lane && !doubt.cached) {
            let doubt = self.doubts.swap_remove(at);
            self.end_copy(doubt.piece);
            ended += 1;
        }
        self.after_proof();
        ended
    }

    /// A FLUSH that was sent on this connection then was answered well: what was in the cache of its server by then has come
    /// out, or never will.
    pub(crate) fn end_cached(&mut self, lane: LaneId, sent_at: Nanos) {
        let over = |doubt: &Doubt| doubt.lane == lane && !doubt.in_flight && doubt.since < sent_at;
        while let Some(at) = self.doubts.iter().position(over) {
            let doubt = self.doubts.swap_remove(at);
            self.end_copy(doubt.piece);
        }
    }

    fn end_copy(&mut self, piece: Key) {
        self.pieces.get_mut(piece).copies -= 1;
        if self.pieces.get(piece).ghost {
            // It may have been executed meanwhile, and nobody will say so (W13).
            self.ghost_settled(piece, true);
        }
        self.copy_settled(piece);
    }

    fn report_unproven(&mut self, doubt: Doubt) -> bool {
        let after = format!(
            "after {} ms without proof that the old one is finished",
            self.program.quiesce / program::MILLISECOND
        );
        let what = if doubt.in_flight {
            "was sent on this path and never answered"
        } else {
            "is in a cache that the paths do not share, and no FLUSH has brought it out of there"
        };
        self.report_release(doubt.piece, doubt.path, what, &after)
    }

    fn report_unasked(&mut self, path: usize, writes: u64) {
        let text = format!(
            "{writes} writes were sent on this path and never answered; after {} ms they are taken to be over, without proof, though nothing newer waited for them",
            self.program.quiesce / program::MILLISECOND
        );
        self.event("doubt_unproven", Some(path), "W4", text);
    }

    /// A copy whose connection still stands is let go at the hold (W13).
    pub(crate) fn report_let_go(&mut self, piece: Key, path: usize) {
        let after = "at the hold, though the old one's connection still stands; should it be executed late, what is newer is written again";
        self.report_release(piece, path, "was sent on this path and never answered", after);
    }

    /// If somebody waited for it: a newer write, or the host for its answer (W5).
    fn report_release(&mut self, key: Key, path: usize, fate: &str, how: &str) -> bool {
        let piece = self.pieces.get(key);
        let newer = piece.quarantine.is_some_and(|range| self.ranges.is_awaited(range));
        let answer =
            piece.request.is_some_and(|it| self.requests.get(it).state == RequestState::AwaitingProof);
        if newer || answer {
            let what = if newer { "a newer write over it goes on" } else { "another copy of it is answered" };
            let text = format!("a write of {} bytes at {} {fate}; {what} {how}", piece.len, piece.offset);
            self.event("quarantine_unproven", Some(path), "W4", text);
        }
        newer || answer
    }

    pub(crate) fn next_doubt_expiry(&self) -> Option<Nanos> {
        let reads = self.open_reads.iter().map(|reads| reads.until);
        self.doubts.iter().filter_map(|doubt| doubt.expires).chain(reads).min()
    }

    /// Whether anything sent on this path may still be executed.
    pub(crate) fn path_has_open_copies(&self, path: usize) -> bool {
        self.doubts.iter().any(|doubt| doubt.path == path && doubt.in_flight)
            || self.open_reads.iter().any(|reads| reads.path == path)
            || self.paths[path].lanes.iter().any(|&slot| self.lane_at(slot).in_flight > 0)
    }
}
