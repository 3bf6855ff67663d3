// SPDX-License-Identifier: MIT OR Apache-2.0
//! A cache was lost with acknowledged writes in it: they are written again (rules F2, F6, F9).
//!
//! ```text
//!            every connection of a domain is gone, something of it is not stable
//! (none) -----------------------------------------------------------------------> Replaying
//!   ^   the map of what is newest is empty and nothing is being written,            |
//!   |   or the same gate came back with the same cache generation                   |
//!   +-------------------------------------------------------------------------------+
//! ```
//!
//! Plain NBD cannot tell a server that lost its cache from a path that was down for a
//! moment, so both are treated as a loss; writing the same bytes once more harms nothing.
//! It starts at once, through whatever path may be written, and does not wait for the
//! server to come back.
//!
//! What must be written again is worked out from the log, newest first, as disjoint
//! *segments*: a part that anything newer covers is left out (F5). A segment is a write
//! like any other: it takes the range lock in order of arrival, is cut, re-sent and
//! quarantined by the same rules (W1-W9). A host write that is acknowledged meanwhile
//! takes its range out of the segments. While a segment is not written its range must not
//! be read, so reads of it wait; they also decide what is written next. A FLUSH waits for
//! the end of it all and covers the domains the segments went to (F2, F4).
//!
//! A segment that the storage turns down for good is a loss: FLUSH and FUA fail on every
//! session from then on, until an operator clears it (F9). In the log it goes on to cover what is older: the storage
//! may have it all the same, and an older write must not come over it.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::vec::Vec;

use nbd::Command;

use crate::covered::Covered;
use crate::engine::Engine;
use crate::request::{Kind, Piece, PieceState, Request, RequestState};
use crate::retain::{Content, Settled};
use crate::slab::{Key, Slab};

mod segments;

/// A part of the device that must be written again.
#[derive(Clone, Copy, Debug)]
struct Segment {
    end: u64,
    content: Content,
    /// Not from the log: a ghost may have overwritten it (W13).
    repair: bool,
}

/// A segment that was handed to the ordinary machinery.
#[derive(Clone, Copy, Debug)]
struct Writing {
    start: u64,
    end: u64,
    content: Content,
    repair: bool,
    /// Its request.
    request: Option<Key>,
    /// A newer write was acknowledged while it waited for the range: nothing is to be written.
    void: bool,
    /// It has its range.
    started: bool,
    /// Others write the device since: what is not on a lane is not sent any more.
    left: bool,
}

/// See the module header.
#[derive(Debug)]
pub(crate) struct Replay {
    /// By first byte; disjoint.
    pending: BTreeMap<u64, Segment>,
    writing: Slab<Writing>,
    /// Of those, how many have their range.
    started: usize,
    /// Places that reads wait for.
    urgent: Vec<u64>,
    /// Pieces of reads that wait.
    pub(crate) readers: Vec<Key>,
    /// Requests to flush that wait for the end.
    flushes: Vec<Key>,
    segments: u64,
    bytes: u64,
}

impl Replay {
    fn new() -> Self {
        Self {
            pending: BTreeMap::new(),
            writing: Slab::new(),
            started: 0,
            urgent: Vec::new(),
            readers: Vec::new(),
            flushes: Vec::new(),
            segments: 0,
            bytes: 0,
        }
    }

    fn add(&mut self, start: u64, segment: Segment) {
        let replaced = self.pending.insert(start, segment);
        assert!(replaced.is_none(), "two segments of one range");
    }

    /// Starts of the segments that touch `[start, end)`.
    fn touching(&self, start: u64, end: u64) -> Vec<u64> {
        let before = self.pending.range(..start).next_back().filter(|(_, segment)| segment.end > start);
        before.into_iter().chain(self.pending.range(start..end)).map(|(&start, _)| start).collect()
    }

    fn mark_repairs(&mut self, start: u64, end: u64) {
        for at in self.touching(start, end) {
            if let Some(segment) = self.pending.get_mut(&at) {
                segment.repair = true;
            }
        }
        for writing in self.writing.values_mut() {
            writing.repair |= writing.start < end && start < writing.end;
        }
    }

    pub(crate) fn covers(&self, start: u64, end: u64) -> bool {
        let before = self.pending.range(..start).next_back().is_some_and(|(_, segment)| segment.end > start);
        before
            || self.pending.range(start..end).next().is_some()
            || self
                .writing
                .iter()
                .any(|(_, writing)| !writing.void && writing.start < end && start < writing.end)
    }

    /// For `check_invariants`.
    pub(crate) fn contents(&self) -> impl Iterator<Item = Content> {
        let pending = self.pending.values().map(|segment| segment.content);
        pending.chain(self.writing.iter().map(|(_, writing)| writing.content))
    }
}

impl Engine {
    /// Every connection of this domain is gone. Says whether its writes will be replayed.
    pub(crate) fn domain_lost(&mut self, domain: usize) -> bool {
        if !self.is_kept(domain) {
            return false;
        }
        let entry = &mut self.domains[domain];
        if !self.rules.f6_replay {
            entry.flushed = entry.acked;
            self.cut_log();
            return true;
        }
        entry.lost = Some(entry.acked);
        self.decide_replay(domain);
        self.redo_unanswered(domain);
        self.plan_replay();
        true
    }

    /// Whether all that this domain may lose is retained.
    fn is_kept(&self, domain: usize) -> bool {
        self.retains() && self.domains[domain].flushed >= self.domains[domain].not_kept
    }

    /// A FLUSH of this domain failed. Says whether its writes will be replayed.
    pub(crate) fn domain_spoilt(&mut self, domain: usize) -> bool {
        self.domains[domain].spoilt = self.is_kept(domain);
        self.domain_lost(domain)
    }

    /// Parts of a write that is not answered yet were lost too; they are sent again.
    fn redo_unanswered(&mut self, domain: usize) {
        let lost = |settled: Settled| settled.domain == domain && !settled.durable;
        for key in self.unanswered_writes() {
            self.redo_done(key, |piece| piece.settled.is_some_and(lost));
        }
    }

    pub(crate) fn unanswered_writes(&self) -> Vec<Key> {
        let carried = |request: &Request| {
            matches!(request.state, RequestState::Active | RequestState::AwaitingProof)
                && request.host.command.is_write_like()
        };
        self.requests.iter().filter(|(_, request)| carried(request)).map(|(key, _)| key).collect()
    }

    /// Sends those pieces of a write again that were answered well and are not to count.
    pub(crate) fn redo_done(&mut self, request: Key, which: impl Fn(&Piece) -> bool) {
        let mut next = self.requests.get(request).first_piece;
        while let Some(piece) = next {
            let entry = self.pieces.get_mut(piece);
            next = entry.next;
            if entry.state == PieceState::Done && entry.settled.is_some() && which(entry) {
                entry.settled = None;
                entry.state = PieceState::Queued;
                let request = self.requests.get_mut(request);
                request.state = RequestState::Active;
                request.pieces_open += 1;
                self.requeue(piece);
            }
        }
    }

    /// Works out what must be written again; anew after every change of what is lost.
    pub(crate) fn plan_replay(&mut self) {
        let mut replay = self.replay.take().unwrap_or_else(|| Box::new(Replay::new()));
        let planned = core::mem::take(&mut replay.pending);
        for (start, segment) in planned {
            if segment.repair {
                replay.pending.insert(start, segment);
            } else {
                self.forget_content(segment.content);
            }
        }
        let mut covered = Covered::default();
        // What is being written is the newest of its range, or it would be void.
        for (_, writing) in replay.writing.iter().filter(|(_, writing)| !writing.void) {
            covered.add(writing.start, writing.end, |_, _| {});
        }
        for (&start, segment) in &replay.pending {
            covered.add(start, segment.end, |_, _| {});
        }
        for at in (0..self.retention.log.len()).rev() {
            let entry = self.retention.log[at];
            let lost = self.domains[entry.domain].lost.is_some_and(|mark| entry.mark <= mark);
            let wanted = lost && !self.is_stable(&entry);
            if !wanted && !self.rules.f5_one_history {
                continue;
            }
            covered.add(entry.start, entry.end, |start, end| {
                if wanted {
                    let content = entry.content.from(start - entry.start);
                    self.retention.share(content);
                    replay.add(start, Segment { end, content, repair: false });
                }
            });
        }
        self.replay = Some(replay);
        self.park_flushes();
        self.wake_readers();
        self.check_replay();
    }

    /// Parts that a ghost may have overwritten with older bytes (W13). What is to be written again there for another reason
    /// is to be so for this one too: that one may pass.
    pub(crate) fn repair(&mut self, parts: impl Iterator<Item = (u64, u64, Content)> + Clone) {
        let mut replay = self.replay.take().unwrap_or_else(|| Box::new(Replay::new()));
        for (start, end, _) in parts.clone() {
            replay.mark_repairs(start, end);
        }
        let mut covered = Covered::default();
        for (&start, segment) in &replay.pending {
            covered.add(start, segment.end, |_, _| {});
        }
        for (_, writing) in replay.writing.iter().filter(|(_, writing)| !writing.void) {
            covered.add(writing.start, writing.end, |_, _| {});
        }
        for (start, end, content) in parts {
            covered.add(start, end, |from, to| {
                let content = content.from(from - start);
                self.retention.share(content);
                replay.add(from, Segment { end: to, content, repair: true });
            });
        }
        self.replay = Some(replay);
        self.check_replay();
    }

    /// The log it was planned from goes.
    pub(crate) fn keep_replay(&mut self) {
        if let Some(replay) = self.replay.as_mut() {
            replay.mark_repairs(0, u64::MAX);
        }
    }

    /// There are several writers now. Another may write from here on what is to be written again (F7), so what is not on
    /// its way by now is lost; what is on a lane is not sent a second time either (`is_left_to_others`).
    pub(crate) fn leave_replay_to_others(&mut self) {
        let Some(replay) = self.replay.as_mut() else { return };
        let pending = core::mem::take(&mut replay.pending);
        let mut bytes: u64 = pending.iter().map(|(start, segment)| segment.end - start).sum();
        // What waits for its range, too: whoever is before it there may take as long as the hold.
        for writing in replay.writing.values_mut().filter(|writing| !writing.started && !writing.void) {
            writing.void = true;
            bytes += writing.end - writing.start;
        }
        for writing in replay.writing.values_mut() {
            writing.left = true;
        }
        for segment in pending.into_values() {
            self.forget_content(segment.content);
        }
        self.lose_to_others(bytes);
        self.wake_readers();
        self.check_replay();
    }

    /// Something was written: reads look again.
    pub(crate) fn wake_readers(&mut self) {
        let Some(replay) = self.replay.as_mut() else { return };
        let readers = core::mem::take(&mut replay.readers);
        // Newest first, so that the oldest ends at the head of the queue.
        for key in readers.into_iter().rev() {
            self.pieces.get_mut(key).queued = false;
            self.enqueue(key, true);
        }
    }

    /// Whether a read of this piece must wait; if so it waits.
    pub(crate) fn waits_for_replay(&mut self, key: Key) -> bool {
        let piece = self.pieces.get(key);
        let (start, end) = (piece.offset, piece.end());
        let waits = self.rules.f6_reads_wait;
        let Some(replay) = self.replay.as_mut().filter(|replay| waits && replay.covers(start, end)) else {
            return false;
        };
        replay.urgent.push(start);
        replay.readers.push(key);
        true
    }

    /// The end: the lost domains hold nothing any more, the replay's own writes are flushed.
    pub(crate) fn check_replay(&mut self) {
        let Some(replay) = self.replay.as_ref() else { return };
        if !replay.pending.is_empty() || !replay.writing.is_empty() {
            return;
        }
        self.wake_readers();
        let Some(replay) = self.replay.take() else { return };
        for domain in &mut self.domains {
            if let Some(mark) = domain.lost.take() {
                domain.flushed = domain.flushed.max(mark);
            }
            domain.spoilt = false;
        }
        self.cut_log();
        self.decide_replayed(replay.segments, replay.bytes);
        if replay.segments > 0 {
            let text = format!(
                "{} parts of acknowledged writes, {} bytes in all, were written again: their server may have lost its cache, or a late copy may have overwritten them",
                replay.segments, replay.bytes
            );
            self.event("cache_replayed", None, "F6", text);
            self.own_flush();
        }
        for key in replay.flushes {
            self.requests.get_mut(key).state = RequestState::Active;
            self.start_flush(key);
        }
    }

    /// The server is back and proved to have kept its cache.
    pub(crate) fn cache_kept(&mut self, domain: usize) {
        if !self.domains[domain].spoilt && self.domains[domain].lost.take().is_some() && self.replay.is_some()
        {
            self.plan_replay();
        }
    }

    /// A FLUSH waits for the end of a replay (F2).
    pub(crate) fn flush_waits(&mut self, key: Key) -> bool {
        let Some(replay) = self.replay.as_mut().filter(|_| self.rules.f2_replay_first) else { return false };
        if !replay.flushes.contains(&key) {
            replay.flushes.push(key);
        }
        self.requests.get_mut(key).state = RequestState::AwaitingReplay;
        true
    }

    /// FLUSHes whose domain was lost meanwhile begin anew when all is written again (F4).
    fn park_flushes(&mut self) {
        if !self.rules.f2_replay_first {
            return;
        }
        let lost = |kind: Kind, engine: &Self| match kind {
            Kind::Flush { domain } => engine.domains.get(domain).is_some_and(|domain| domain.lost.is_some()),
            Kind::Io => false,
        };
        let open: Vec<Key> = self
            .requests
            .iter()
            .filter(|(_, request)| {
                request.host.command == Command::Flush && request.state == RequestState::Active
            })
            .map(|(key, _)| key)
            .collect();
        for key in open {
            let mut parked = false;
            let mut next = self.requests.get(key).first_piece;
            while let Some(piece) = next {
                let entry = self.pieces.get(piece);
                next = entry.next;
                if entry.state != PieceState::Done && lost(entry.kind, self) {
                    self.set_piece_state(piece, PieceState::Done);
                    self.requests.get_mut(key).pieces_open -= 1;
                    parked = true;
                }
            }
            if parked {
                self.flush_waits(key);
            }
        }
    }

    /// A request that waited for the end is answered otherwise.
    pub(crate) fn leave_replay(&mut self, key: Key, request: &Request) {
        if request.state == RequestState::AwaitingReplay
            && let Some(replay) = self.replay.as_mut()
        {
            replay.flushes.retain(|&waiting| waiting != key);
        }
    }
}
