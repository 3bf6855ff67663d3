// SPDX-License-Identifier: MIT OR Apache-2.0
//! Replies of storage, and what becomes of the requests (rules W2, W3, W7, W14).
//!
//! | reply | a read | a write |
//! |---|---|---|
//! | good, first | lands, done | done; its other copies keep the range quarantined |
//! | good, later | released | one copy less in doubt |
//! | good, sent before a ghost was executed over it (W13) | | sent again |
//! | an error, while a second copy is open | waits for that (`hedge`) | |
//! | EIO, unknown | tried on one other path, then believed (`opinion`) | the same, with the same bytes |
//! | ESHUTDOWN | elsewhere; the lane is drained | the same |
//! | EPERM, EINVAL, ENOSPC, EOVERFLOW, ENOTSUP | to the host | to the host |

use nbd::{Command, Errno};
use policies::faults::{FaultClass, classify_errno};
use program::Nanos;

use crate::engine::Engine;
use crate::lane::{LaneState, Slot, Use};
use crate::record::DecisionPoint;
use crate::request::{Kind, PieceState};
use crate::retain::Settled;
use crate::slab::Key;
use crate::{Action, BufferId, Digest, LaneId, SendData};

/// EIO and the like: the storage itself failed.
pub(crate) fn is_storage_error(errno: Errno) -> bool {
    classify_errno(errno.to_wire()) == FaultClass::StorageError
}

/// A copy of a piece that was answered.
pub(crate) struct Answered {
    pub(crate) path: usize,
    pub(crate) lane: LaneId,
    pub(crate) piece: Key,
    pub(crate) flush_after: bool,
    pub(crate) moved: bool,
    pub(crate) slot: Slot,
}

impl Answered {
    /// It is the FLUSH that ends an emulated FUA.
    fn ends_fua(&self) -> bool {
        matches!(self.slot.used, Use::Piece { flushing: true, .. })
    }

    /// The write of an emulated FUA may be in its server's cache in spite of this error: its FLUSH has failed, or it was
    /// carried out in part. A server that is leaving has not begun. Where the server has FUA an error ends it (W14): kernels
    /// do not write back later what they failed to write.
    fn may_be_cached(&self, errno: Errno) -> bool {
        self.ends_fua() || (self.flush_after && (is_storage_error(errno) || errno == Errno::NoSpace))
    }
}

impl Engine {
    pub(crate) fn reply(
        &mut self,
        id: LaneId,
        cookie: u64,
        result: Result<(), Errno>,
        data: Option<BufferId>,
        digest: Option<Digest>,
    ) {
        let now = self.now;
        let lane = self.lane_mut(id);
        let Some(index) = lane.find(cookie) else {
            panic!("a reply for nothing in flight: cookie {cookie:#x}")
        };
        lane.last_reply = now;
        lane.last_active = now;
        let (path, linked) = (lane.path, lane.linked);
        let slot = lane.settle(index);
        lane.answered_sent = lane.answered_sent.max(slot.sent_at);
        if linked {
            self.link_domain(self.paths[path].domain);
        }
        match slot.used {
            Use::Free => panic!("a free slot was found"),
            Use::Piece { piece, flush_after, flushing: _, moved } => {
                let answered = Answered { path, lane: id, piece, flush_after, moved, slot };
                self.piece_reply(&answered, result, data);
            }
            Use::Canary => self.canary_reply(id, result),
            Use::Distance { sent_at } => self.measured(id, sent_at, result),
            Use::DrainFlush => {
                if result.is_ok() {
                    self.end_cached(id, slot.sent_at);
                }
                self.drain_flush_reply(id, slot.flush_mark, result);
            }
            Use::Verify { of, generation, round, reference } => {
                self.verify_reply(LaneId { slot: of, generation }, round, reference, result, digest);
            }
            Use::Sample { index, writes } => self.sample_reply(index, writes, result, digest),
        }
        self.lane_answered(id);
    }

    fn piece_reply(&mut self, answered: &Answered, result: Result<(), Errno>, data: Option<BufferId>) {
        let flush = self.was_flush(answered);
        if flush && result.is_ok() {
            // While this copy still counts: its piece stays.
            self.end_cached(answered.lane, answered.slot.sent_at);
        }
        self.pieces.get_mut(answered.piece).copies -= 1;
        if answered.slot.paced {
            self.paced_answered(answered.path, &answered.slot);
        }
        if result.is_ok() {
            self.count_on_path(answered);
        }
        if flush && result.is_err_and(is_storage_error) {
            // Whoever asked for it, and if it comes late: what was in that cache may be
            // lost, and no later FLUSH would tell.
            self.flush_failed(answered.path);
        }
        let failed_turn = self.domains[self.paths[answered.path].domain].failed_turn;
        let beside = flush && failed_turn.is_some_and(|failed| answered.slot.turn <= failed);
        let result = if beside { result.and(Err(Errno::Io)) } else { result };
        let cached =
            result.is_err_and(|errno| answered.may_be_cached(errno)) && self.leave_in_cache(answered);
        if self.pieces.get(answered.piece).state == PieceState::Done {
            self.release_data(data);
            if result.is_ok() && answered.flush_after && self.active.write_through {
                // W18: it is in a cache that is not shared, and may come out of it over what is newer.
                self.emulate_fua(answered);
                return;
            }
            if !cached {
                self.decide_late_reply(answered.path, answered.piece, answered.slot.sent_at);
            }
            if self.pieces.get(answered.piece).ghost {
                self.ghost_settled(answered.piece, result.is_ok());
            }
            self.copy_settled(answered.piece);
            return;
        }
        if flush && result.is_ok() && self.is_spoilt(answered) {
            self.flush_anew(answered);
            return;
        }
        if result.is_ok() && answered.slot.turn < self.pieces.get(answered.piece).valid_from_turn {
            if answered.flush_after {
                self.leave_in_cache(answered);
            }
            // One that was moved has another copy queued or in flight.
            if !answered.moved {
                self.requeue(answered.piece);
            }
            return;
        }
        match result {
            Ok(()) if answered.flush_after => self.emulate_fua(answered),
            Ok(()) => self.piece_done(answered, data),
            Err(errno) => {
                self.release_data(data);
                self.piece_error(answered, errno);
            }
        }
    }

    /// A FLUSH of a host, or the one that ends an emulated FUA.
    fn was_flush(&self, answered: &Answered) -> bool {
        let of_host = matches!(self.pieces.get(answered.piece).kind, Kind::Flush { .. });
        of_host || answered.ends_fua()
    }

    /// W18: no FLUSH has brought it out of a cache that is not shared, and it may come out at any time. Says whether that
    /// is so here.
    fn leave_in_cache(&mut self, answered: &Answered) -> bool {
        let apart = self.active.write_through && self.rules.w4_doubt;
        if apart {
            self.pieces.get_mut(answered.piece).copies += 1;
            self.doubt(answered.piece, answered.path, answered.lane, false, true);
        }
        apart
    }

    /// Whether a FLUSH that was answered well may not have covered what another, which
    /// failed, has lost: paths may share a cache without being declared to.
    fn is_spoilt(&self, answered: &Answered) -> bool {
        let sent = answered.slot.turn;
        match self.pieces.get(answered.piece).kind {
            Kind::Flush { .. } => self.domains[self.paths[answered.path].domain].rewrite,
            Kind::Io => {
                self.domains.iter().any(|domain| domain.failed_turn.is_some_and(|failed| sent <= failed))
            }
        }
    }

    /// A FLUSH of a host begins anew behind the replay, unless its session is still to be
    /// told; an emulated FUA begins with its write.
    fn flush_anew(&mut self, answered: &Answered) {
        let piece = self.pieces.get(answered.piece);
        let request = piece.request.map(|request| self.requests.get(request));
        let host = request.map(|request| request.host.session);
        let owed = self.sessions.iter().any(|session| Some(session.id) == host && session.flush_error);
        let failed = request.is_some_and(|request| request.error.is_some());
        if (owed || failed) && matches!(piece.kind, Kind::Flush { .. }) {
            self.piece_failed(answered.piece, Errno::Io);
        } else if !answered.moved {
            self.requeue(answered.piece);
        }
    }

    fn release_data(&mut self, data: Option<BufferId>) {
        if let Some(buffer) = data {
            self.act(Action::Release(buffer));
        }
    }

    fn count_on_path(&mut self, answered: &Answered) {
        let command = self.pieces.get(answered.piece).command;
        if command.is_write_like() && answered.slot.flush_mark > 0 {
            // The FLUSH of an emulated FUA; its write was counted.
            return;
        }
        let service = self.now - answered.slot.sent_at;
        let path = &mut self.paths[answered.path];
        match command {
            Command::Read => path.reads += 1,
            command if command.is_write_like() => path.writes += 1,
            _ => {}
        }
        if matches!(command, Command::Read | Command::Write) {
            path.bytes += answered.slot.len;
            path.steering.marginal.on_good(self.now);
            if self.lane_at(answered.lane.slot).tells_speed(answered.slot.sent_at) {
                self.note_speed(answered, command, service);
            }
        }
    }

    fn note_speed(&mut self, answered: &Answered, command: Command, service_ns: Nanos) {
        let (path, write, len_bytes) = (answered.path, answered.slot.write, answered.slot.len);
        self.paths[path].latency.record(write, len_bytes, service_ns);
        self.slow.record(self.now, path, write, len_bytes, service_ns);
        self.note(|_| DecisionPoint::Answered { path, write, len_bytes, service_ns });
        if command == Command::Read {
            self.hedges.on_reply(self.now, len_bytes, service_ns);
        }
    }

    /// FUA where the server has none: write, then FLUSH on the same lane (design 3.3).
    fn emulate_fua(&mut self, answered: &Answered) {
        let (now, turn) = (self.now, self.turn);
        let lane = self.lane_mut(answered.lane);
        // One that drains takes the FLUSH that belongs to what it was given.
        let takes =
            matches!(lane.state, LaneState::Up | LaneState::Draining) && !lane.broken && !lane.leaving;
        if !takes || !lane.has_spare() {
            self.leave_in_cache(answered);
            if !answered.moved && self.pieces.get(answered.piece).state != PieceState::Done {
                self.requeue(answered.piece);
            }
            return;
        }
        let acked = {
            let domain = &mut self.domains[self.paths[answered.path].domain];
            domain.acked += 1;
            domain.acked
        };
        let lane = self.lane_mut(answered.lane);
        let used =
            Use::Piece { piece: answered.piece, flush_after: false, flushing: true, moved: answered.moved };
        let cookie = lane.take(now, used, 0, false, 0);
        let index = lane.find(cookie).unwrap_or_else(|| unreachable!("just taken"));
        lane.mark_flush(index, acked);
        lane.slot_mut(index).turn = turn;
        self.pieces.get_mut(answered.piece).copies += 1;
        self.act(Action::Send {
            lane: answered.lane,
            cookie,
            command: Command::Flush,
            flags: nbd::CommandFlags::empty(),
            offset: 0,
            len: 0,
            data: SendData::None,
        });
    }

    fn piece_done(&mut self, answered: &Answered, data: Option<BufferId>) {
        let key = answered.piece;
        let mark = answered.slot.flush_mark;
        let (write, durable, refused_by, late_on, flush) = {
            let piece = self.pieces.get(key);
            let durable = answered.slot.durable || mark > 0;
            (piece.is_write_like(), durable, piece.refused_by, piece.late_on, piece.kind)
        };
        let domain = self.paths[answered.path].domain;
        if write && !durable {
            self.domains[domain].acked += 1;
        }
        if write {
            let settled = Settled { domain, mark: self.domains[domain].acked, durable };
            self.pieces.get_mut(key).settled = Some(settled);
        }
        // Not at once: it is to be retained before.
        self.active.apart_owed |= write && !durable && self.active.write_through;
        self.hedge_answered(key, &answered.slot);
        let linked = self.lane_if(answered.lane).is_some_and(|lane| lane.linked);
        if linked && (mark > 0 || matches!(flush, Kind::Flush { .. })) {
            self.flushed(domain, mark);
        }
        self.paths[answered.path].strikes = 0;
        self.disproved(refused_by);
        if late_on != 0 {
            self.late_elsewhere(late_on, answered.path);
        }
        self.set_piece_state(key, PieceState::Done);
        self.pieces.get_mut(key).landed = data;
        self.piece_closed(key);
    }

    /// One piece less is open; finish the request with the last one.
    pub(crate) fn piece_closed(&mut self, key: Key) {
        let Some(request) = self.pieces.get(key).request else {
            panic!("a piece without a request was closed")
        };
        let write = self.pieces.get(key).is_write_like();
        let entry = self.requests.get_mut(request);
        entry.pieces_open -= 1;
        if entry.pieces_open == 0 {
            self.finish_request(request);
        }
        if write {
            self.release_readers();
        }
    }

    /// A piece ends with an error that is believed.
    pub(crate) fn piece_failed(&mut self, key: Key, errno: Errno) {
        let Some(request) = self.pieces.get(key).request else { panic!("a piece without a request failed") };
        self.requests.get_mut(request).error.get_or_insert(errno);
        self.set_piece_state(key, PieceState::Done);
        self.piece_closed(key);
    }

    /// Puts a piece back in line; it is sent again with the same bytes (W3).
    pub(crate) fn requeue(&mut self, key: Key) {
        let piece = self.pieces.get_mut(key);
        assert!(piece.state != PieceState::Done, "a done piece was queued again");
        if piece.queued {
            return;
        }
        piece.resent = true;
        self.free_flush(key);
        self.counters.resent += 1;
        self.note_moved(key);
        let paced = self.is_paced(key);
        self.pieces.get_mut(key).paced = paced;
        self.set_piece_state(key, PieceState::Queued);
        self.enqueue(key, true);
    }
}
