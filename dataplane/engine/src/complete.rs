// SPDX-License-Identifier: MIT OR Apache-2.0
//! Replies of storage, and what becomes of the requests (rules W2, W3, W7, W14).
//!
//! | reply | a read | a write |
//! |---|---|---|
//! | good, first | lands, done | done; its other copies keep the range quarantined |
//! | good, later | released | one copy less in doubt |
//! | good, sent before a ghost was executed over it (W13) | | sent again |
//! | an error, while a second copy is open | waits for that (`hedge`) | |
//! | EIO, unknown | tried on one other path, then believed | the same, with the same bytes |
//! | ESHUTDOWN | elsewhere; the lane is drained | the same |
//! | EPERM, EINVAL, ENOSPC, EOVERFLOW, ENOTSUP | to the host | to the host |

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use nbd::{Command, Errno};
use policies::faults::{FaultClass, PathAction, RequestAction, classify_errno, host_errno};
use policies::limits::{SECOND_OPINION, STRIKES};
use program::{AccessPolicy, Nanos, Writers};

use crate::engine::Engine;
use crate::lane::{LaneState, Slot, Use};
use crate::ranges::Holder;
use crate::record::DecisionPoint;
use crate::request::{Kind, Origin, PieceState, Request, RequestState};
use crate::retain::Settled;
use crate::slab::Key;
use crate::{Action, BufferId, Digest, LaneId, Rules, SendData};

/// EIO and the like: the storage itself failed.
pub(crate) fn is_storage_error(errno: Errno) -> bool {
    classify_errno(errno.to_wire()) == FaultClass::StorageError
}

/// A copy of a piece that was answered.
struct Answered {
    path: usize,
    lane: LaneId,
    piece: Key,
    flush_after: bool,
    moved: bool,
    slot: Slot,
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
        let entry = self.requests.get_mut(request);
        entry.pieces_open -= 1;
        if entry.pieces_open == 0 {
            self.finish_request(request);
        }
    }

    /// A piece ends with an error that is believed.
    pub(crate) fn piece_failed(&mut self, key: Key, errno: Errno) {
        let Some(request) = self.pieces.get(key).request else { panic!("a piece without a request failed") };
        self.requests.get_mut(request).error.get_or_insert(errno);
        self.set_piece_state(key, PieceState::Done);
        self.piece_closed(key);
    }

    fn piece_error(&mut self, answered: &Answered, errno: Errno) {
        let key = answered.piece;
        self.blame_rule(answered.path, "W7");
        // A read may have a copy elsewhere that still answers.
        let left = answered.moved || self.hedge_left(key, &answered.slot);
        let (class, verdict) = self.verdict_on_error(errno, 1);
        match verdict.request {
            RequestAction::ToHost if left && !answered.moved => {}
            RequestAction::ToHost => {
                let errno = Errno::from_wire(host_errno(class, errno.to_wire())).unwrap_or(Errno::Io);
                // A copy elsewhere may still succeed, but the server understood the
                // request and turned it down: another will too (W7).
                self.piece_failed(key, errno);
            }
            RequestAction::RetryElsewhereOnce => {
                self.paths[answered.path].errors += 1;
                if matches!(self.pieces.get(key).kind, Kind::Flush { .. }) {
                    // Asked again, a server may answer well although what it lost is
                    // gone: a failed FLUSH is believed at once (F9).
                    self.piece_failed(key, Errno::Io);
                    return;
                }
                let speaker = self.speaks_as(answered.path);
                let piece = self.pieces.get_mut(key);
                piece.refused_by |= 1 << speaker.min(63);
                if !left {
                    self.second_opinion(key, answered.path);
                }
            }
            RequestAction::RetryElsewhere | RequestAction::Wait => {
                // ESHUTDOWN and the like: the server is leaving.
                self.paths[answered.path].errors += 1;
                if !left {
                    self.requeue(key);
                }
                self.lane_leaves(answered.lane);
            }
        }
    }

    /// EIO is tried once on another path, then believed (W7, W14).
    fn second_opinion(&mut self, key: Key, path: usize) {
        let refused_by = self.pieces.get(key).refused_by;
        let others = self
            .paths
            .iter()
            .enumerate()
            .any(|(index, path)| path.program_index.is_some() && refused_by & (1 << index.min(63)) == 0);
        let (_, verdict) = self.verdict_on_error(Errno::Io, refused_by.count_ones());
        if verdict.request == RequestAction::ToHost || !others || !self.rules.w7_second_opinion {
            self.decide_second_opinion(path, refused_by.count_ones(), None);
            self.piece_failed(key, Errno::Io);
            return;
        }
        let believe_at = self.now + SECOND_OPINION;
        self.pieces.get_mut(key).believe_at.get_or_insert(believe_at);
        self.decide_second_opinion(path, refused_by.count_ones(), Some(SECOND_OPINION));
        self.requeue(key);
        let elsewhere = (0..self.paths.len())
            .any(|other| self.paths[other].steering.answers() && refused_by & (1 << other.min(63)) == 0);
        if self.active.policy == AccessPolicy::ActivePassive
            && elsewhere
            && self.active.members.contains(&path)
        {
            // One path at a time: the second opinion is a switch.
            self.sicken(path, String::from("it answered EIO; another path is asked"));
        }
    }

    /// The entry whose opinion an answer of this one is: a path that an operator changed is no second path (W7).
    fn speaks_as(&self, path: usize) -> usize {
        let mut speaker = path;
        while let Some(successor) = self.paths[speaker].successor {
            speaker = successor;
        }
        speaker
    }

    /// A path was changed: what was answered over the old entry was answered by the server of the new one.
    pub(crate) fn inherit_opinions(&mut self, old: usize, new: usize) {
        let asked: Vec<Key> =
            self.pieces.iter().filter(|(_, piece)| piece.refused_by != 0).map(|it| it.0).collect();
        for key in asked {
            let piece = self.pieces.get_mut(key);
            if piece.refused_by & (1 << old.min(63)) != 0 {
                piece.refused_by = piece.refused_by & !(1 << old.min(63)) | 1 << new.min(63);
            }
        }
    }

    /// No path was left, and one is back: an EIO from before says nothing of it, and no other path could be asked
    /// meanwhile. Not for ever, or a server that dies of a bad block each time it is asked would never be believed.
    pub(crate) fn forget_opinions(&mut self) {
        let hold = self.hold_time();
        let young = |request: &Request| self.now - request.accepted < hold;
        let asked: Vec<Key> = self
            .pieces
            .iter()
            .filter(|(_, piece)| piece.believe_at.is_some())
            .filter(|(_, piece)| piece.request.is_some_and(|request| young(self.requests.get(request))))
            .map(|(key, _)| key)
            .collect();
        for key in asked {
            let piece = self.pieces.get_mut(key);
            piece.believe_at = None;
            piece.refused_by = 0;
        }
        self.unpark();
    }

    /// Another path answered well what these answered with EIO: it is theirs.
    fn disproved(&mut self, refused_by: u64) {
        if refused_by == 0 {
            return;
        }
        for index in 0..self.paths.len() {
            if refused_by & (1 << index.min(63)) == 0 {
                continue;
            }
            // What is in flight when it is taken out comes back with the same error: one fault, told once.
            if !self.paths[index].sick {
                self.in_trouble(index);
            }
            let path = &mut self.paths[index];
            path.strikes = path.strikes.saturating_add(1);
            let verdict = Self::verdict_on_disproof(path.strikes >= STRIKES);
            if verdict.path == PathAction::Canaries && !path.sick {
                let text = format!("it answered EIO {STRIKES} times where another path succeeded");
                self.sicken(index, text);
            }
        }
    }

    /// Takes a path out until its canaries are good again.
    pub(crate) fn sicken(&mut self, path: usize, text: String) {
        self.decide_sick(path);
        self.blame_rule(path, "W7");
        let path = &mut self.paths[path];
        path.sick = true;
        path.probation = None;
        path.failed_before = true;
        path.explain("W7", text);
        self.regroup();
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

    /// Every piece is done.
    pub(crate) fn finish_request(&mut self, key: Key) {
        let request = self.requests.get(key);
        if request.state == RequestState::AwaitingReplay {
            return;
        }
        let write = request.host.command.is_write_like();
        let waits = self.program.writers == Writers::Many && self.rules.w5_answer_waits;
        if write && waits && self.has_copies(key) {
            self.requests.get_mut(key).state = RequestState::AwaitingProof;
            return;
        }
        self.answer(key);
    }

    fn has_copies(&self, key: Key) -> bool {
        let mut next = self.requests.get(key).first_piece;
        while let Some(piece) = next {
            let piece = self.pieces.get(piece);
            if piece.copies > 0 {
                return true;
            }
            next = piece.next;
        }
        false
    }

    /// Answers the host and takes the request apart. Pieces with copies stay, and
    /// keep their range quarantined if they write (W4).
    pub(crate) fn answer(&mut self, key: Key) {
        let request = self.requests.remove(key);
        self.leave_replay(key, &request);
        let good = request.error.is_none();
        let kept = match request.origin {
            Origin::Host if good && request.host.command.is_write_like() => self.retain(&request),
            Origin::Replay(slot) => {
                self.segment_written(slot, &request);
                true
            }
            Origin::Host | Origin::OwnFlush => false,
        };
        // What is written again is the newest acknowledged, however it ends.
        let acknowledged = good || matches!(request.origin, Origin::Replay(_));
        let stays = if good { self.rules.w4_quarantine } else { self.rules.w14_failed_writes };
        let mut next = request.first_piece;
        while let Some(piece) = next {
            next = self.pieces.get(piece).next;
            if let Some(buffer) = self.pieces.get_mut(piece).landed.take() {
                let action = match request.error {
                    None => Action::ReplyData { tag: request.host.tag, buffer },
                    Some(_) => Action::Release(buffer),
                };
                self.act(action);
            }
            self.part_from(piece, request.range.filter(|_| stays), acknowledged);
        }
        match request.origin {
            Origin::Host => {
                self.note_answered(&request);
                self.answer_host(&request, kept);
            }
            Origin::OwnFlush => self.own_flush_done(good),
            Origin::Replay(_) => {}
        }
        if let Some(range) = request.range {
            self.release_range(range);
        }
        if matches!(request.origin, Origin::Replay(_)) {
            self.wake_readers();
            self.check_replay();
        }
        if request.host.command.is_write_like() {
            self.release_readers();
        }
    }

    fn answer_host(&mut self, request: &Request, kept: bool) {
        let mut result = request.error.map_or(Ok(()), Err);
        // Any failed FLUSH tells its session, of whatever was lost by then.
        if request.host.command == Command::Flush
            && (self.owes_flush_error(request.host.session) || self.lost_writes.is_some())
        {
            result = result.and(Err(Errno::Io));
        }
        self.reply_to_host(request.host, result);
        if let Some(payload) = request.host.payload.filter(|_| !kept) {
            self.act(Action::Release(payload));
        }
    }

    fn part_from(&mut self, key: Key, range: Option<Key>, acknowledged: bool) {
        let piece = self.pieces.get_mut(key);
        assert_eq!(piece.state, PieceState::Done, "a request was answered before its piece was done");
        piece.request = None;
        piece.payload = None;
        if piece.copies > 0 && piece.is_write_like() {
            let (start, end) = (piece.offset, piece.end());
            assert!(range.is_some() || self.rules != Rules::ALL, "a write without a range lock was sent");
            let holder = Holder::Piece(key);
            let quarantine =
                range.map(|range| self.ranges.quarantine(range, start, end, holder, acknowledged));
            self.pieces.get_mut(key).quarantine = quarantine;
            self.decide_quarantine(key);
        }
        self.forget_piece(key);
    }

    /// A copy's fate is known.
    pub(crate) fn copy_settled(&mut self, key: Key) {
        let piece = self.pieces.get(key);
        if piece.state != PieceState::Done {
            return;
        }
        match piece.request {
            None => self.forget_piece(key),
            Some(request) => {
                if self.requests.get(request).state == RequestState::AwaitingProof
                    && !self.has_copies(request)
                {
                    self.answer(request);
                }
            }
        }
    }

    /// Removes a done piece that nothing refers to any more.
    pub(crate) fn forget_piece(&mut self, key: Key) {
        let piece = self.pieces.get(key);
        if piece.request.is_some() || piece.copies > 0 || piece.queued {
            return;
        }
        let piece = self.pieces.remove(key);
        assert!(piece.landed.is_none(), "data of a read was forgotten");
        self.hedges.give_back(piece.hedge_bytes);
        if let Some(range) = piece.quarantine {
            self.release_range(range);
        }
    }
}
