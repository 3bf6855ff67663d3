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
use alloc::string::String;
use alloc::vec::Vec;

use nbd::{Command, CommandFlags};
use program::{ReportKind, Writers};

use crate::Action;
use crate::covered::Covered;
use crate::engine::Engine;
use crate::request::{Kind, Origin, Piece, PieceState, Request, RequestState};
use crate::retain::{Content, Settled};
use crate::slab::{Key, Slab};

/// Segments being written at once: enough to keep a path busy, few enough for hosts to get a word in. Those
/// that wait for their range are not counted: all wait at the same time for what may take as long as the hold.
const WINDOW: usize = 16;

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
            || self.writing.iter().any(|(_, writing)| writing.start < end && start < writing.end)
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

    /// The log it was planned from goes. With several writers another may have written there since (F7), so what is not on
    /// its way by now is lost.
    pub(crate) fn keep_replay(&mut self) {
        let Some(replay) = self.replay.as_mut() else { return };
        replay.mark_repairs(0, u64::MAX);
        if self.program.writers == Writers::One {
            return;
        }
        let pending = core::mem::take(&mut replay.pending);
        let mut bytes: u64 = pending.iter().map(|(start, segment)| segment.end - start).sum();
        // What waits for its range, too: whoever is before it there may take as long as the hold.
        for writing in replay.writing.values_mut().filter(|writing| !writing.started && !writing.void) {
            writing.void = true;
            bytes += writing.end - writing.start;
        }
        for segment in pending.into_values() {
            self.forget_content(segment.content);
        }
        self.lose_to_others(bytes);
        self.wake_readers();
        self.check_replay();
    }

    fn lose_to_others(&mut self, bytes: u64) {
        if bytes > 0 {
            self.lose_writes(format!(
                "{bytes} bytes were acknowledged and were to be written again (their server lost its cache, or a late copy may have overwritten them), and were not before others were to write this device, too"
            ));
        }
    }

    /// Hands out segments as far as the window allows; called before every dispatch.
    pub(crate) fn pump_replay(&mut self) {
        // Newer writes of hosts may have left nothing of it.
        self.check_replay();
        // What waits for proof of another path (W20) is not given up as lost meanwhile.
        if self.active.writers.is_empty() || self.active.waiting_for.is_some() || self.is_draining() {
            return;
        }
        while let Some(replay) = self.replay.as_mut()
            && replay.started < WINDOW
            && let Some((start, segment)) = next_segment(replay)
        {
            let Segment { end, content, repair } = segment;
            let (request, void, started) = (None, false, false);
            let slot = replay.writing.insert(Writing { start, end, content, repair, request, void, started });
            let (command, flags) = match content {
                Content::Bytes { .. } => (Command::Write, CommandFlags::empty()),
                Content::Zeroes { no_hole: true } => (Command::WriteZeroes, CommandFlags::NO_HOLE),
                Content::Zeroes { no_hole: false } | Content::None => {
                    (Command::WriteZeroes, CommandFlags::empty())
                }
            };
            self.internal(Origin::Replay(slot), command, flags, start, end - start);
        }
    }

    /// The request of a segment exists; tells its payload, if it has one.
    pub(crate) fn replay_begins(&mut self, slot: Key, request: Key) -> Option<(crate::BufferId, u64)> {
        let writing = self.replaying().writing.get_mut(slot);
        writing.request = Some(request);
        match writing.content {
            Content::Bytes { payload, at } => Some((self.retention.buffer(payload), at)),
            Content::Zeroes { .. } | Content::None => None,
        }
    }

    /// A segment has its range; says whether nothing is left to be written of it.
    pub(crate) fn segment_starts(&mut self, slot: Key) -> bool {
        let replay = self.replaying();
        replay.started += 1;
        let writing = replay.writing.get_mut(slot);
        writing.started = true;
        writing.void
    }

    fn replaying(&mut self) -> &mut Replay {
        let Some(replay) = self.replay.as_mut() else { panic!("a segment without a replay") };
        replay
    }

    /// A host write of `[start, end)` was acknowledged: it is newer.
    pub(crate) fn replay_superseded(&mut self, start: u64, end: u64) {
        if self.replay.is_none() {
            return;
        }
        for at in self.replaying().touching(start, end) {
            let Some(segment) = self.replaying().pending.remove(&at) else { continue };
            self.return_rest(at, segment, start, end);
            self.forget_content(segment.content);
        }
        let touched: Vec<Key> = self
            .replaying()
            .writing
            .iter()
            .filter(|(_, writing)| writing.start < end && start < writing.end && !writing.void)
            .map(|(slot, _)| slot)
            .collect();
        for slot in touched {
            let Writing { start: first, end: last, content, repair, request, .. } =
                *self.replaying().writing.get(slot);
            let blocked = request.is_some_and(|key| self.requests.get(key).state == RequestState::Blocked);
            assert!(blocked, "a host write was acknowledged over a segment that held its range");
            self.replaying().writing.get_mut(slot).void = true;
            self.return_rest(first, Segment { end: last, content, repair }, start, end);
        }
    }

    /// What `[start, end)` leaves of a segment goes back to the pending ones.
    fn return_rest(&mut self, first: u64, segment: Segment, start: u64, end: u64) {
        let parts = [(first, segment.end.min(start)), (first.max(end), segment.end)];
        for (from, to) in parts {
            if from < to {
                let content = segment.content.from(from - first);
                self.retention.share(content);
                self.replaying().add(from, Segment { end: to, content, ..segment });
            }
        }
    }

    /// The request of a segment has ended; its pieces tell where each part went.
    pub(crate) fn segment_written(&mut self, slot: Key, request: &Request) {
        let replay = self.replaying();
        let writing = replay.writing.remove(slot);
        replay.started -= usize::from(writing.started);
        let Writing { start, end, content, repair, void, .. } = writing;
        match request.error {
            _ if void => {}
            None => {
                let mut next = request.first_piece;
                while let Some(key) = next {
                    let piece = self.pieces.get(key);
                    next = piece.next;
                    let (from, to) = (piece.offset, piece.end());
                    if let Some(settled) = piece.settled {
                        self.retain_again(from, to, settled, content.from(from - start));
                    }
                }
                let replay = self.replaying();
                replay.segments += 1;
                replay.bytes += end - start;
            }
            Some(_) if self.has_nowhere_to_write() && self.program.writers == Writers::Many => {
                self.lose_to_others(end - start);
            }
            Some(_) if self.has_nowhere_to_write() => {
                // It waits for a path, as long as that takes.
                self.retention.share(content);
                self.replaying().add(start, Segment { end, content, repair });
            }
            Some(errno) => self.lose_writes(format!(
                "{} bytes at {start} were acknowledged, their server lost its cache, and writing them again was answered {errno:?}",
                end - start,
            )),
        }
        self.forget_content(content);
    }

    /// No path, or none that may start yet.
    fn has_nowhere_to_write(&self) -> bool {
        let no_path = self.failed || self.held_since.is_some() || self.active.writers.is_empty();
        no_path || self.is_draining() || self.active.waiting_for.is_some()
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

    /// After a loss every FLUSH, and every write that must be durable, fails: errors there
    /// are the only ones an application reliably acts on (F9).
    pub(crate) fn must_tell_loss(&self, host: &crate::HostRequest) -> bool {
        let durable = host.command.is_write_like() && host.flags.contains(CommandFlags::FUA);
        self.lost_writes.is_some() && (host.command == Command::Flush || durable)
    }

    /// Acknowledged writes are gone for good (F9).
    pub(crate) fn lose_writes(&mut self, text: String) {
        self.event("writes_lost", None, "F9", text.clone());
        self.decide_loss();
        if !self.rules.f9_sticky {
            return;
        }
        let told = match &self.lost_writes {
            None => text,
            Some(before) => one_more_loss(before.clone(), &text),
        };
        if self.lost_writes.as_ref() != Some(&told) {
            self.act(Action::Report(ReportKind::Loss(Some(told.clone()))));
            self.lost_writes = Some(told);
        }
    }
}

/// Longest text that is kept of losses, in bytes; what comes beyond is told as an event alone.
const LOSS_TEXT_BYTES_MAX: usize = 2048;
/// Ends a text that leaves losses out.
const AND_MORE: &str = "; and more";

/// An operator takes note of all losses at once: each is named, as far as there is room.
fn one_more_loss(mut told: String, text: &str) -> String {
    if told.ends_with(AND_MORE) || told.split("; ").any(|loss| loss == text) {
        return told;
    }
    if told.len() + text.len() > LOSS_TEXT_BYTES_MAX {
        told.push_str(AND_MORE);
    } else {
        told.push_str("; ");
        told.push_str(text);
    }
    told
}

/// What a read waits for, else the first in order of offset.
fn next_segment(replay: &mut Replay) -> Option<(u64, Segment)> {
    while let Some(place) = replay.urgent.pop() {
        let found = replay.pending.range(..=place).next_back().filter(|(_, segment)| segment.end > place);
        let found = found.or_else(|| replay.pending.range(place..).next()).map(|(&start, _)| start);
        if let Some(start) = found {
            return replay.pending.remove_entry(&start);
        }
    }
    replay.pending.pop_first()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_named_as_far_as_there_is_room() {
        let named = one_more_loss(String::from("a is lost"), "b is lost");
        assert_eq!(named, "a is lost; b is lost");
        assert_eq!(one_more_loss(named.clone(), "b is lost"), named, "told once");
        let mut told = named;
        for n in 0..1_000 {
            told = one_more_loss(told, &format!("block {n} is lost"));
            assert!(told.len() <= LOSS_TEXT_BYTES_MAX + AND_MORE.len());
        }
        assert!(told.ends_with(AND_MORE) && told.matches(AND_MORE).count() == 1, "{told}");
    }
}
