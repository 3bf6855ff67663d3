// SPDX-License-Identifier: MIT OR Apache-2.0
//! Second copies of late reads (W2; design 3.5; `docs/policies/hedge.md`).
//!
//! [`policies::Hedge`] decides; here is what it is asked about and what comes of it.
//!
//! ```text
//!             older than its threshold        first good answer
//!  one copy --------------------------> two ---------------------> done; the other copy's
//!     ^                                  |                         late data is released
//!     +----------------------------------+
//!       error, lane lost, or given up on: the read waits for the copy that is left
//! ```
//!
//! * **Both copies count** while a piece is `hedged`: the age of each makes its lane suspect
//!   (W15), and what ends one leaves the other. Only when the last one fails the read is sent anew. A
//!   copy that was moved by a suspicion counts no more, as ever.
//! * **Two copies, two buffers.** Each copy lands in a buffer of its own, so the late one never
//!   writes into what a host is sent. The second buffer is paid for from a room that the
//!   driver grants ([`Engine::set_hedge_room`]) and is counted until the piece is gone
//!   ([`Engine::hedged_bytes`]); without room there is no second copy.
//! * **Whom it costs nothing.** A read is noted in line when it is sent (one line per size class, so
//!   ages in it only fall) and never looked at again if it is answered in time: entries
//!   whose read is gone are dropped when they reach the head, or when the line has
//!   doubled. The timer looks at the heads alone. Devices that cannot hedge note nothing.
//! * **Only members of the group in use** carry second copies, and only in the form the read has: a
//!   path that would have to cut it is left out.

use alloc::collections::VecDeque;
use alloc::format;
use alloc::vec::Vec;

use nbd::Command;
use policies::hedge::{Answer, Hedge, HedgeCounts, Outrun, PendingRead, Refusal};
use policies::latency::size_class;
use policies::limits::{HEDGE_COLD, HEDGE_FLOOR, SIZE_CLASS_BYTES_MAX, SIZE_CLASSES};
use program::{AccessPolicy, DeviceProgram, HedgeStatus, MILLISECOND, Nanos};

use crate::LaneId;
use crate::candidates::Among;
use crate::dispatch::takes_whole;
use crate::engine::Engine;
use crate::lane::{Cause, LaneState, Slot, Use};
use crate::path::Admin;
use crate::record::DecisionPoint;
use crate::request::PieceState;
use crate::slab::Key;

/// Nothing is due.
const NEVER: Nanos = Nanos::MAX;
/// A line is looked through for entries to drop from this length on.
const LINE_MIN: usize = 256;

/// Answers after which an age is worked out anew.
const FRESH_FOR: u32 = 50;

/// Second copies won against one path.
#[derive(Clone, Debug, Default)]
struct Duel {
    outrun: Outrun,
    last_won: Nanos,
}

/// Reads of one size class in the order of their sending.
#[derive(Debug)]
struct Line {
    reads: VecDeque<(LaneId, u64)>,
    /// Age at which one is due, as of a few answers ago: saves working it out for every read.
    threshold: Nanos,
    /// Answers until it is worked out anew.
    fresh_for: u32,
    /// Length at which what is gone is dropped.
    full_at: usize,
}

/// See the module header.
#[derive(Debug)]
pub(crate) struct Hedges {
    policy: Hedge,
    lines: [Line; SIZE_CLASSES],
    /// When the heads are to be looked at.
    due: Nanos,
    /// By path.
    duels: Vec<Duel>,
    /// Bytes of second buffers.
    open_bytes: u64,
    /// Of which so many there may be.
    room_bytes: u64,
    refused_memory: u64,
    /// Why late reads get no second copy as things are, if that was told.
    stopped: Option<Refusal>,
}

/// What becomes of the head of a line.
enum Head {
    /// It is in line no more.
    Leaves,
    /// It is looked at again then.
    StaysUntil(Nanos),
}

/// The in-flight cap of the widest path: what may be saved up (design 3.5).
pub(crate) fn burst(program: &DeviceProgram) -> u32 {
    program.paths.iter().map(|path| path.in_flight).max().unwrap_or(1)
}

/// A length of this size class.
fn bytes_of(class: usize) -> u64 {
    SIZE_CLASS_BYTES_MAX.get(class).copied().unwrap_or(u64::MAX)
}

/// What a buffer for so much data takes: buffers come in powers of two.
fn buffer_bytes(len_bytes: u64) -> u64 {
    len_bytes.next_power_of_two().max(512)
}

impl Hedges {
    pub(crate) fn new(program: &DeviceProgram) -> Self {
        let policy = Hedge::new(program.hedge_budget_ppm, burst(program));
        let line = |class: usize| Line {
            reads: VecDeque::new(),
            threshold: policy.threshold(bytes_of(class)),
            fresh_for: FRESH_FOR,
            full_at: LINE_MIN,
        };
        Self {
            lines: core::array::from_fn(line),
            policy,
            due: NEVER,
            duels: Vec::new(),
            open_bytes: 0,
            room_bytes: u64::MAX,
            refused_memory: 0,
            stopped: None,
        }
    }

    /// A changed program.
    pub(crate) fn set_program(&mut self, program: &DeviceProgram) {
        self.policy.set_budget(program.hedge_budget_ppm, burst(program));
    }

    pub(crate) fn status(&self) -> HedgeStatus {
        let HedgeCounts { hedges, won, lost, refused_overload, refused_budget, .. } = self.policy.counts();
        HedgeStatus {
            sent: hedges,
            won,
            lost,
            refused: refused_overload + refused_budget + self.refused_memory,
        }
    }

    /// A read of this device was answered by storage, whichever copy it was.
    pub(crate) fn on_reply(&mut self, now: Nanos, len_bytes: u64, service: Nanos) {
        self.policy.on_reply(now, len_bytes, service);
        let line = &mut self.lines[size_class(len_bytes)];
        line.fresh_for -= 1;
        if line.fresh_for == 0 {
            line.fresh_for = FRESH_FOR;
            line.threshold = self.policy.threshold(len_bytes);
        }
    }

    /// A piece is gone, and with it the buffers of its second copies.
    pub(crate) fn give_back(&mut self, bytes: u64) {
        self.open_bytes -= bytes;
    }

    fn duel(&mut self, path: usize) -> &mut Duel {
        if self.duels.len() <= path {
            self.duels.resize_with(path + 1, Duel::default);
        }
        &mut self.duels[path]
    }

    pub(crate) fn check(&self, counted_bytes: u64) {
        self.policy.check_invariants();
        assert_eq!(self.open_bytes, counted_bytes, "buffers of second copies are miscounted");
    }
}

impl Engine {
    /// Memory for second copies of late reads that are to come, in bytes, beyond
    /// [`Engine::hedged_bytes`]. A driver sets it before each [`crate::Event::Timer`]; without it
    /// there is no limit.
    pub fn set_hedge_room(&mut self, bytes: u64) {
        self.hedges.room_bytes = self.hedges.open_bytes.saturating_add(bytes);
    }

    /// Bytes of buffers that second copies of reads may land in, beyond the one that each
    /// unanswered read has. Grows in [`crate::Event::Timer`] only.
    pub fn hedged_bytes(&self) -> u64 {
        self.hedges.open_bytes
    }

    /// When the oldest reads in line are looked at.
    pub(crate) fn next_hedge(&self) -> Option<Nanos> {
        (self.hedges.due != NEVER).then_some(self.hedges.due)
    }

    /// A copy of a piece is sent: a read stands in line from now on. `first`: of its request.
    pub(crate) fn note_read(&mut self, key: Key, lane: LaneId, cookie: u64, first: bool) {
        let piece = self.pieces.get(key);
        if piece.command != Command::Read {
            return;
        }
        let (hedged, len) = (piece.hedged, piece.len);
        if first {
            self.hedges.policy.on_read();
        }
        let alone = self.active.policy != AccessPolicy::ActiveActive || self.active.members.len() < 2;
        if hedged || alone || self.program.hedge_budget_ppm == 0 {
            return;
        }
        let class = size_class(len);
        if self.hedges.lines[class].reads.len() >= self.hedges.lines[class].full_at {
            self.thin_out(class);
        }
        let line = &mut self.hedges.lines[class];
        line.reads.push_back((lane, cookie));
        self.hedges.due = self.hedges.due.min(self.now + line.threshold);
    }

    /// Drops from a line what is in flight no more.
    fn thin_out(&mut self, class: usize) {
        let mut reads = core::mem::take(&mut self.hedges.lines[class].reads);
        reads.retain(|&(lane, cookie)| self.lane_if(lane).is_some_and(|lane| lane.find(cookie).is_some()));
        let line = &mut self.hedges.lines[class];
        line.full_at = (2 * reads.len()).max(LINE_MIN);
        line.reads = reads;
    }

    /// Sends what is due (the timer).
    pub(crate) fn send_hedges(&mut self) {
        if self.hedges.due > self.now {
            return;
        }
        let mut due = NEVER;
        for class in 0..SIZE_CLASSES {
            while let Some(&(lane, cookie)) = self.hedges.lines[class].reads.front() {
                match self.judge_read(class, lane, cookie) {
                    Head::Leaves => drop(self.hedges.lines[class].reads.pop_front()),
                    Head::StaysUntil(at) => {
                        due = due.min(at);
                        break;
                    }
                }
            }
        }
        // Not later than this: the ages may fall while the oldest read waits.
        self.hedges.due = if due == NEVER { NEVER } else { due.min(self.now + HEDGE_COLD) };
    }

    /// The head of a line.
    fn judge_read(&mut self, class: usize, id: LaneId, cookie: u64) -> Head {
        let Some(slot) = self.read_in_flight(id, cookie) else { return Head::Leaves };
        let Use::Piece { piece: key, .. } = slot.used else { return Head::Leaves };
        let threshold = self.hedges.policy.threshold(slot.len);
        self.hedges.lines[class].threshold = threshold;
        if self.now - slot.sent_at < threshold {
            return Head::StaysUntil(slot.sent_at + threshold);
        }
        let (start, end) = (self.pieces.get(key).offset, self.pieces.get(key).end());
        if self.replay.as_ref().is_some_and(|replay| replay.covers(start, end)) {
            // F6: where it would be read anew, something is still to be written.
            return Head::Leaves;
        }
        let without_room = self.collect_seconds(key);
        if self.candidates.is_empty() && without_room {
            // They may have room in a moment.
            return Head::StaysUntil(self.now + HEDGE_FLOOR);
        }
        let bytes = self.hedges.open_bytes + buffer_bytes(slot.len);
        if !self.candidates.is_empty() && bytes > self.hedges.room_bytes {
            self.hedges.refused_memory += 1;
            return Head::Leaves;
        }
        let read = PendingRead {
            len_bytes: slot.len,
            age: self.now - slot.sent_at,
            one_at_a_time: self.active.policy == AccessPolicy::ActivePassive,
            other_paths: self.candidates.len() as u32,
            recovering: (0..self.paths.len()).any(|path| self.is_recovering_path(path)),
            median_ns: self.median_expected(slot.len),
        };
        let answer = self.hedges.policy.decide(&read);
        self.note(|_| DecisionPoint::Late { read, hedged: answer == Answer::Send });
        self.tell_hedging(answer, &read);
        match answer {
            Answer::Send => self.send_second_copy(key, id),
            Answer::AtAge(age) => return Head::StaysUntil(slot.sent_at + age),
            Answer::No(_) => {}
        }
        Head::Leaves
    }

    /// Second copies stop for a while, or go on: told once each time. The budget is not: it is spent and refilled all the time.
    fn tell_hedging(&mut self, answer: Answer, read: &PendingRead) {
        let stopped = match answer {
            Answer::No(why @ (Refusal::Recovering | Refusal::Overload)) => Some(why),
            Answer::Send => None,
            Answer::No(_) | Answer::AtAge(_) => return,
        };
        if core::mem::replace(&mut self.hedges.stopped, stopped) != stopped {
            let baseline = self.hedges.policy.baseline_ns(read.len_bytes);
            self.decide_hedging(stopped, read.median_ns, baseline);
        }
    }

    /// A copy that its read waits for, and that has no second.
    fn read_in_flight(&self, id: LaneId, cookie: u64) -> Option<Slot> {
        let lane = self.lane_if(id)?;
        let slot = *lane.slot(lane.find(cookie)?);
        let Use::Piece { piece, moved: false, .. } = slot.used else { return None };
        let piece = self.pieces.get(piece);
        (piece.state == PieceState::InFlight && !piece.hedged).then_some(slot)
    }

    /// Paths that may carry a second copy now, in `candidates` and `candidate_paths`.
    /// Whether there are others that only have no room.
    fn collect_seconds(&mut self, key: Key) -> bool {
        self.collect_candidates(key, true, Among::Members);
        if self.active.last_resort {
            self.candidates.clear();
            self.candidate_paths.clear();
            return false;
        }
        let mut at = 0;
        while at < self.candidates.len() {
            if self.may_second(self.candidate_paths[at], key) {
                at += 1;
            } else {
                self.candidates.remove(at);
                self.candidate_paths.remove(at);
            }
        }
        let members = &self.active.members;
        members.iter().any(|&path| self.room_on(path).is_none() && self.may_second(path, key))
    }

    /// Whether a path could carry the piece whole, and carries no copy of it.
    fn may_second(&self, path: usize, key: Key) -> bool {
        let piece = self.pieces.get(key);
        let carries = self.paths[path].lanes.iter().any(|&slot| {
            let mut slots = self.lane_at(slot).in_order();
            slots.any(|(_, slot)| matches!(slot.used, Use::Piece { piece, .. } if piece == key))
        });
        let refused = piece.refused_by & (1 << path.min(63)) != 0;
        let whole = self.paths[path].offer.is_some_and(|offer| takes_whole(piece, &offer));
        whole && !carries && !refused
    }

    /// It came back after a failure and does not carry its full share yet.
    fn is_recovering_path(&self, path: usize) -> bool {
        let path = &self.paths[path];
        let connected = path.lanes.iter().any(|&slot| self.lane_at(slot).is_up());
        path.admin == Admin::In && path.probation.is_some() && connected
    }

    /// Median over the members of what a read of this length is expected to take; 0 = unknown.
    fn median_expected(&self, len_bytes: u64) -> Nanos {
        let expected = |&path: &usize| self.paths[path].latency.expected_ns(false, len_bytes);
        let members = &self.active.members;
        let below =
            |ns: Nanos| members.iter().map(expected).filter(|&other| other != 0 && other < ns).count();
        let known = members.iter().map(expected).filter(|&ns| ns != 0).count();
        // The lower one of two: overload means that no path is as it was.
        members.iter().map(expected).filter(|&ns| ns != 0 && below(ns) * 2 < known).max().unwrap_or(0)
    }

    fn send_second_copy(&mut self, key: Key, of: LaneId) {
        let len = self.pieces.get(key).len;
        let chosen = self.selector.choose(self.now, len, &self.candidates);
        self.note_choice(key, chosen);
        let path = self.candidate_paths[chosen];
        let bytes = buffer_bytes(len);
        self.hedges.open_bytes += bytes;
        let piece = self.pieces.get_mut(key);
        piece.hedged = true;
        piece.hedge_bytes += bytes;
        self.send_second(key, path, of);
    }

    /// The first good answer of a piece: who won.
    pub(crate) fn hedge_answered(&mut self, key: Key, slot: &Slot) {
        let Use::Piece { moved, .. } = slot.used else { return };
        let hedged = core::mem::take(&mut self.pieces.get_mut(key).hedged);
        match slot.hedge_of {
            Some(first) if !moved => {
                self.hedges.policy.on_settled(true);
                if hedged {
                    self.outran(key, first);
                }
            }
            _ if hedged => self.hedges.policy.on_settled(false),
            _ => {}
        }
    }

    /// A copy that counted ended without a good answer, or is waited for no more. Whether
    /// the piece has another one that counts.
    pub(crate) fn hedge_left(&mut self, key: Key, slot: &Slot) -> bool {
        if slot.hedge_of.is_some() {
            self.hedges.policy.on_settled(false);
        }
        core::mem::take(&mut self.pieces.get_mut(key).hedged)
    }

    /// A second copy won: is the path of the first one silent?
    fn outran(&mut self, key: Key, first: LaneId) {
        let Some(lane) = self.lane_if(first) else { return };
        let mut slots = lane.in_order();
        let copy = slots.find(|(_, slot)| matches!(slot.used, Use::Piece { piece, .. } if piece == key));
        let Some((_, &Slot { sent_at, .. })) = copy else { return };
        let (now, path) = (self.now, lane.path);
        let last_byte = self.last_byte_of(path);
        let low = self.hedges.policy.is_low();
        let duel = self.hedges.duel(path);
        if last_byte > duel.last_won {
            duel.outrun.on_byte();
        }
        duel.last_won = now;
        if duel.outrun.on_won(now, sent_at, last_byte, low) {
            self.suspect_outrun(path);
        }
    }

    /// Reads in a row that others answered sooner, how long the path has owed a byte, and whether
    /// the budget is too low to wait for more.
    pub(crate) fn outrun_of(&self, path: usize) -> (u32, Nanos, bool) {
        let Some(duel) = self.hedges.duels.get(path) else { return (0, 0, false) };
        let silent = duel.outrun.silent(self.now, self.last_byte_of(path));
        (duel.outrun.in_a_row(), silent, self.hedges.policy.is_low())
    }

    fn last_byte_of(&self, path: usize) -> Nanos {
        let lanes = self.paths[path].lanes.iter().map(|&slot| self.lane_at(slot));
        lanes.map(|lane| lane.last_active).max().unwrap_or(0)
    }

    /// What waits behind the reads that were outrun need not wait for its own age.
    fn suspect_outrun(&mut self, path: usize) {
        let (won, silent, _) = self.outrun_of(path);
        let silent_ms = silent / MILLISECOND;
        for at in 0..self.paths[path].lanes.len() {
            let slot = self.paths[path].lanes[at];
            let lane = self.lane_at(slot);
            if lane.state != LaneState::Up || lane.suspicion.is_some() || lane.in_flight == 0 {
                continue;
            }
            let text = format!(
                "{won} reads in a row were answered sooner by a second copy on another path, and this one has sent no byte for {silent_ms} ms"
            );
            self.suspect(slot, Cause::Outrun, text);
        }
    }
}
