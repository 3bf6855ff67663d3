// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which path and lane carries a piece, and in what form (design 3.3, 3.4).
//!
//! Queues are first in, first out, each for what can be stuck by itself: a
//! device without a writable path must still serve reads, and a discard must not
//! hold up writes. Among the heads the oldest goes first. A piece goes to a path
//! that does it natively if there is one, else it is emulated. It is cut when
//! the path takes less at once.

use alloc::collections::VecDeque;

use nbd::{Command, CommandFlags, Errno, TransmissionFlags};
use program::Writers;

use crate::candidates::Among;
use crate::engine::Engine;
use crate::lane::Use;
use crate::request::{Kind, Piece, PieceState};
use crate::slab::Key;
use crate::{Action, LaneId, Offer, SendData};

/// TRIM and WRITE_ZEROES are cut to this, so that one in doubt cannot freeze a
/// disk (rule W6); also the most a path is asked for at once.
pub(crate) const PIECE_BYTES_MAX: u64 = 32 << 20;
/// Discards in flight per device (rule W6).
const DISCARDS_MAX: u32 = 2;
/// Reads, writes and discards; and those that were moved, which are paced.
const QUEUES: usize = 6;
/// BLOCK_STATUS may be answered short, so a long one is asked short, not cut.
const STATUS_BYTES_MAX: u64 = 1 << 30;

/// What became of a piece that was to be sent.
enum Outcome {
    /// On a lane, or ended without one.
    Gone,
    /// No path or no room now; it stays at the head of its queue.
    Stuck,
    /// Only paths that answered it EIO are left: it waits aside for another.
    Parked,
    /// A read of what a replay, or a write that moves, has still to write; it waits there.
    Waits,
}

/// How a path carries a piece.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// As it is.
    Native,
    /// WRITE_ZEROES as a WRITE of zeroes.
    ZeroesAsWrite,
    /// Done without the storage: TRIM, CACHE, BLOCK_STATUS are hints.
    Nothing,
    /// FAST_ZERO cannot be promised.
    NotSupported,
}

impl Engine {
    /// Queues a piece; a retried one goes to the front.
    pub(crate) fn enqueue(&mut self, key: Key, front: bool) {
        let piece = self.pieces.get_mut(key);
        assert!(!piece.queued, "a piece was queued twice");
        piece.queued = true;
        // What waited elsewhere meanwhile is one that is paced still.
        self.pacing |= piece.paced;
        let queue = queue_of(&mut self.queues, self.pieces.get(key));
        if front { queue.push_front(key) } else { queue.push_back(key) }
    }

    /// Sends what can be sent.
    pub(crate) fn dispatch(&mut self) {
        self.flush_apart();
        // First: a FLUSH may find that something must be written again.
        if !self.queues.flushes.is_empty() {
            self.dispatch_flushes();
        }
        self.pump_replay();
        let mut stuck = [false; QUEUES];
        while let Some(which) = self.next_queue(stuck) {
            let queue = match which {
                0 => &mut self.queues.reads,
                1 => &mut self.queues.writes,
                2 => &mut self.queues.discards,
                moved => &mut self.queues.moved[moved - 3],
            };
            let Some(key) = queue.pop_front() else { break };
            self.pieces.get_mut(key).queued = false;
            if self.pieces.get(key).state == PieceState::Done {
                self.forget_piece(key);
                continue;
            }
            match self.try_send(key) {
                Outcome::Gone => {}
                Outcome::Stuck => {
                    stuck[which] = true;
                    self.enqueue(key, true);
                }
                Outcome::Waits => self.pieces.get_mut(key).queued = true,
                Outcome::Parked => {
                    self.pieces.get_mut(key).queued = true;
                    self.active.parked.push(key);
                }
            }
        }
        self.end_pacing();
    }

    /// The queue whose head is the oldest, of those that are not stuck.
    fn next_queue(&self, stuck: [bool; QUEUES]) -> Option<usize> {
        if self.active.waiting_for.is_some() || self.is_coming_apart() {
            return None;
        }
        let [reads, writes, discards] = &self.queues.moved;
        let own = [&self.queues.reads, &self.queues.writes, &self.queues.discards];
        let [a, b, c] = own.map(VecDeque::front);
        let heads = [a, b, c, reads.front(), writes.front(), discards.front()];
        (0..if self.pacing { QUEUES } else { QUEUES / 2 })
            .filter(|&which| !stuck[which] && (which % 3 == 0 || !self.is_recovering()))
            .filter(|&which| {
                which % 3 != 2 || self.discards_in_flight < DISCARDS_MAX || !self.rules.w6_pieces
            })
            .filter_map(|which| heads[which].map(|&key| (self.pieces.get(key).order, which)))
            .min()
            .map(|(_, which)| which)
    }

    fn try_send(&mut self, key: Key) -> Outcome {
        if self.is_left_to_others(key) {
            self.piece_failed(key, Errno::Io);
            return Outcome::Gone;
        }
        let read = self.pieces.get(key).command == Command::Read;
        if read && (self.waits_for_replay(key) || self.waits_for_moving_write(key)) {
            return Outcome::Waits;
        }
        self.collect_candidates(key, true, Among::Members);
        if self.candidates.is_empty() {
            self.collect_candidates(key, false, Among::Members);
        }
        if self.candidates.is_empty() && self.only_refused(key, Among::Members) && self.may_ask_others() {
            // W7: another opinion counts, and be it that of a path that is used for nothing else.
            self.collect_candidates(key, false, Among::All);
        }
        if self.candidates.is_empty() {
            let among = if self.may_ask_others() { Among::All } else { Among::Members };
            return if self.only_refused(key, among) { Outcome::Parked } else { Outcome::Stuck };
        }
        let len = self.pieces.get(key).len;
        let chosen = if self.candidates.len() == 1 {
            0
        } else {
            self.selector.choose(self.now, len, &self.candidates)
        };
        self.note_choice(key, chosen);
        let path = self.candidate_paths[chosen];
        self.send_piece(key, path)
    }

    fn send_piece(&mut self, key: Key, path: usize) -> Outcome {
        let Some(slot) = self.lane_of(path) else { return Outcome::Stuck };
        let offer = *self.lane_at(slot).offer();
        match form_of(self.pieces.get(key), &offer) {
            Form::Nothing => {
                self.set_piece_state(key, PieceState::Done);
                self.piece_closed(key);
                Outcome::Gone
            }
            Form::NotSupported => {
                self.piece_failed(key, Errno::NotSupported);
                Outcome::Gone
            }
            form => {
                let key = self.cut(key, form, &offer);
                self.put_on_lane(key, slot, form, &offer);
                Outcome::Gone
            }
        }
    }

    /// Cuts a piece to what the path takes at once; the rest is queued behind it.
    fn cut(&mut self, key: Key, form: Form, offer: &Offer) -> Key {
        let piece = self.pieces.get(key);
        let discard = matches!(piece.command, Command::Trim | Command::WriteZeroes) && form == Form::Native;
        let limit = if discard && !self.rules.w6_pieces { u64::MAX } else { limit_of(piece, form, offer) };
        if piece.len <= limit {
            return key;
        }
        let head = if piece.copies > 0 { self.replace(key) } else { key };
        let piece = self.pieces.get_mut(head);
        let tail = Piece {
            offset: piece.offset + limit,
            len: piece.len - limit,
            at: piece.at + limit,
            queued: false,
            state: PieceState::Queued,
            copies: 0,
            landed: None,
            quarantine: None,
            settled: None,
            hedged: false,
            hedge_bytes: 0,
            ..*piece
        };
        piece.len = limit;
        let Some(request) = piece.request else { panic!("a piece without a request was sent") };
        let tail = self.pieces.insert(tail);
        self.pieces.get_mut(head).next = Some(tail);
        self.requests.get_mut(request).pieces_open += 1;
        self.enqueue(tail, true);
        head
    }

    /// A piece whose earlier copy is open must keep its range, so a new one of the same
    /// content is put behind it and is cut instead. The old one stays in the request's list,
    /// done: with several writers the answer waits for its copy too (W5), and part by part
    /// it is quarantined with the others (W4).
    fn replace(&mut self, key: Key) -> Key {
        let piece = self.pieces.get_mut(key);
        let fresh = Piece { copies: 0, queued: false, hedged: false, hedge_bytes: 0, ..*piece };
        piece.state = PieceState::Done;
        let fresh = self.pieces.insert(fresh);
        self.pieces.get_mut(key).next = Some(fresh);
        fresh
    }

    /// Sends a second copy of a read whose first one is on the lane `of` (`hedge`).
    pub(crate) fn send_second(&mut self, key: Key, path: usize, of: LaneId) {
        let Some(slot) = self.lane_of(path) else { unreachable!("a path with room has a lane with room") };
        let offer = *self.lane_at(slot).offer();
        self.put_on_lane(key, slot, Form::Native, &offer);
        let lane = self.lane_at_mut(slot);
        let Some(newest) = lane.newest() else { unreachable!("just sent") };
        lane.slot_mut(newest).hedge_of = Some(of);
    }

    fn put_on_lane(&mut self, key: Key, slot: u16, form: Form, offer: &Offer) {
        let rules = self.rules;
        let through = (self.active.write_through && rules.w18_write_through)
            || (self.program.writers == Writers::Many && offer.gate.is_none() && rules.f7_write_through)
            || self.retention_is_full();
        let piece = self.pieces.get(key);
        let write = piece.is_write_like();
        let wants_fua = write
            && (through || piece.flags.contains(CommandFlags::FUA))
            && (rules.f3_fua_kept || !piece.resent);
        let native_fua = offer.flags.contains(TransmissionFlags::SEND_FUA);
        let (command, data) = match (form, piece.command) {
            (Form::ZeroesAsWrite, _) => (Command::Write, SendData::Zeroes),
            (_, Command::Write) if piece.resent && !rules.w3_same_bytes => (Command::Write, SendData::Zeroes),
            (_, Command::Write) => {
                let Some(buffer) = piece.payload else { panic!("a write without its payload was sent") };
                (Command::Write, SendData::Buffer { buffer, at: piece.at })
            }
            (_, Command::Read | Command::BlockStatus) => (piece.command, SendData::Land),
            (_, command) => (command, SendData::None),
        };
        let mut flags = piece.flags.without(CommandFlags::FUA);
        if form == Form::ZeroesAsWrite {
            flags = flags.without(CommandFlags::NO_HOLE).without(CommandFlags::FAST_ZERO);
        }
        if wants_fua && native_fua {
            flags = flags.with(CommandFlags::FUA);
        }
        let (offset, len) = (
            piece.offset,
            if piece.command == Command::BlockStatus { piece.len.min(STATUS_BYTES_MAX) } else { piece.len },
        );
        let flush_after = wants_fua && !native_fua && rules.f3_fua_emulated;
        let used = Use::Piece { piece: key, flush_after, flushing: false, moved: false };
        let lane = self.lane_at(slot).id;
        self.transmit(key, slot, used, Action::Send { lane, cookie: 0, command, flags, offset, len, data });
    }

    /// Takes a slot and emits the `Send`.
    pub(crate) fn transmit(&mut self, key: Key, slot: u16, used: Use, mut send: Action) {
        let (now, turn) = (self.now, self.turn);
        let Action::Send { cookie, command, flags, len, .. } = &mut send else {
            panic!("only requests are sent")
        };
        let piece = self.pieces.get(key);
        let (write, paced) = (piece.is_write_like(), piece.paced);
        let command_is_flush = *command == Command::Flush;
        let payload_bytes = if *command == Command::Write { *len } else { 0 };
        let mark = match piece.kind {
            Kind::Flush { domain } => self.domains[domain].acked,
            Kind::Io => 0,
        };
        let lane = self.lane_at_mut(slot);
        let path = lane.path;
        *cookie = lane.take(now, used, *len, write, payload_bytes);
        let (lane_id, sent_cookie) = (lane.id, *cookie);
        let Some(index) = lane.find(*cookie) else { unreachable!("just taken") };
        if command_is_flush {
            lane.mark_flush(index, mark);
        } else {
            lane.behind.on_request();
        }
        lane.slot_mut(index).turn = turn;
        lane.slot_mut(index).durable = write && flags.contains(CommandFlags::FUA);
        lane.slot_mut(index).paced = paced;
        if paced {
            self.paced_sent(path);
        }
        if !command_is_flush {
            self.paths[path].last_used = now;
        }
        self.set_piece_state(key, PieceState::InFlight);
        let piece = self.pieces.get_mut(key);
        piece.copies += 1;
        let first = piece
            .request
            .is_some_and(|request| !core::mem::replace(&mut self.requests.get_mut(request).started, true));
        self.note_read(key, lane_id, sent_cookie, first);
        self.next_tick = self.next_tick.min(now + crate::health::TICK);
        self.act(send);
    }

    /// Moves a piece between states; keeps the count of discards in flight.
    pub(crate) fn set_piece_state(&mut self, key: Key, state: PieceState) {
        let piece = self.pieces.get_mut(key);
        let discard = matches!(piece.command, Command::Trim | Command::WriteZeroes);
        let before = piece.state == PieceState::InFlight;
        let after = state == PieceState::InFlight;
        piece.state = state;
        match (discard, before, after) {
            (true, false, true) => self.discards_in_flight += 1,
            (true, true, false) => self.discards_in_flight -= 1,
            _ => {}
        }
    }
}

/// Whether a server takes the piece as it is.
pub(crate) fn takes_whole(piece: &Piece, offer: &Offer) -> bool {
    form_of(piece, offer) == Form::Native && piece.len <= limit_of(piece, Form::Native, offer)
}

fn queue_of<'a>(queues: &'a mut crate::engine::Queues, piece: &Piece) -> &'a mut VecDeque<Key> {
    let [reads, writes, discards] = &mut queues.moved;
    match (piece.kind, piece.command) {
        (Kind::Flush { .. }, _) => &mut queues.flushes,
        (_, Command::Write) if piece.paced => writes,
        (_, Command::Trim | Command::WriteZeroes) if piece.paced => discards,
        _ if piece.paced => reads,
        (_, Command::Write) => &mut queues.writes,
        (_, Command::Trim | Command::WriteZeroes) => &mut queues.discards,
        _ => &mut queues.reads,
    }
}

pub(crate) fn form_of(piece: &Piece, offer: &Offer) -> Form {
    let can = |flag| offer.flags.contains(flag);
    match piece.command {
        Command::WriteZeroes if piece.flags.contains(CommandFlags::FAST_ZERO) => {
            if can(TransmissionFlags::SEND_FAST_ZERO) { Form::Native } else { Form::NotSupported }
        }
        Command::WriteZeroes if !can(TransmissionFlags::SEND_WRITE_ZEROES) => Form::ZeroesAsWrite,
        Command::Trim if !can(TransmissionFlags::SEND_TRIM) => Form::Nothing,
        Command::Cache if !can(TransmissionFlags::SEND_CACHE) => Form::Nothing,
        Command::BlockStatus if !offer.block_status => Form::Nothing,
        _ => Form::Native,
    }
}

fn limit_of(piece: &Piece, form: Form, offer: &Offer) -> u64 {
    let block = u64::from(offer.min_block_bytes.max(1));
    let payload = (u64::from(offer.max_payload_bytes) / block * block).max(block);
    match (piece.command, form) {
        (Command::Read | Command::Write, _) | (_, Form::ZeroesAsWrite) => payload.min(PIECE_BYTES_MAX),
        (Command::BlockStatus, _) => u64::MAX,
        _ => PIECE_BYTES_MAX,
    }
}
