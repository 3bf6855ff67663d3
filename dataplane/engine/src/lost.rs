// SPDX-License-Identifier: MIT OR Apache-2.0
//! A lane is gone, or its requests are to go elsewhere: what becomes of each of them (rules W1, W4, F4).
//!
//! | a frame on a lost connection | its request |
//! |---|---|
//! | a write that left whole, no proof that it is over | in doubt: its range stays locked or in quarantine; sent again |
//! | a write on incoherent paths whose FLUSH is not answered, proof or not | the same (W18) |
//! | any other, first to go | sent again |
//! | a second copy, or one that was moved before | a copy less |
//! | a canary, a sample | forgotten |
//! | an identity read | the check begins again or ends |

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use policies::limits::REFUSED_RETRY;

use crate::engine::Engine;
use crate::lane::{Lane, LaneState, Slot, Use};
use crate::path::Admin;
use crate::request::{Kind, PieceState};
use crate::verdict::class_of;
use crate::{LaneFault, LaneId};

impl Engine {
    pub(crate) fn lane_down(&mut self, id: LaneId, fault: &LaneFault, sent_bytes: u64) {
        self.lane_sent(id, sent_bytes);
        let Some(lane) = self.lanes[id.slot as usize].take() else { panic!("a lane went down twice") };
        let index = lane.path;
        self.paths[index].lanes.retain(|&slot| slot != id.slot);
        self.drop_verify(&lane);
        self.gate_lost(id);
        if lane.fencing {
            self.ask_gates();
            return;
        }
        self.note_fault(&lane, fault);
        self.blame(index);
        let slots: Vec<Slot> = lane.in_order().map(|(_, slot)| *slot).collect();
        self.paced_lost(&lane);
        self.begin_pacing(index, self.movable(slots.iter().copied()));
        let finished = lane.finished || *fault == LaneFault::Drained;
        // What is in doubt comes first, then what of a cache is lost: a lost identity read may
        // change which paths carry I/O, and may have another lane of the same cache accepted,
        // which must see both (W20, F6). Newest first, so that the oldest ends at the
        // head of the queue.
        let is_piece = |slot: &&Slot| matches!(slot.used, Use::Piece { .. });
        for slot in slots.iter().rev().filter(is_piece) {
            self.slot_lost(&lane, slot, sent_bytes, finished);
        }
        self.date_doubts(id);
        self.domain_lost_lane(index);
        for slot in slots.iter().filter(|slot| !is_piece(slot)) {
            self.slot_lost(&lane, slot, sent_bytes, finished);
        }
        let local = lane.offer.is_some_and(|offer| offer.local);
        let gate = lane.offer.and_then(|offer| offer.gate);
        let read = |slot: &Slot| slot.is_io() && !slot.write && slot.frame_end <= sent_bytes;
        let open_reads = !finished && !local && self.must_be_over(gate) && slots.iter().any(read);
        if open_reads {
            self.leave_reads_open(index, id);
        }
        if open_reads || self.doubts.iter().any(|doubt| doubt.lane == id && doubt.in_flight) {
            self.fence(id, index, gate);
        }
        self.forget_kills();
        self.forget_removed(index);
        self.regroup();
        self.after_proof();
        if lane.accepted {
            self.pace_held_out(index);
        }
        self.open_lanes();
    }

    /// Why, and when to try again.
    fn note_fault(&mut self, lane: &Lane, fault: &LaneFault) {
        let index = lane.path;
        let draw = self.draw();
        let now = self.now;
        if matches!(lane.state, LaneState::Zombie) {
            return;
        }
        if lane.accepted || lane.state == LaneState::Verifying {
            self.paths[index].failed_before = true;
        }
        if self.paths[index].admin != Admin::In {
            return;
        }
        if self.paths[index].refusal.is_some() {
            // Asked again at a steady pace; the refusal stands until then.
            self.paths[index].reconnect_at = now + REFUSED_RETRY;
            return;
        }
        // A gate closes what we have it finish.
        let closed = matches!(fault, LaneFault::Closed | LaneFault::Reset(_));
        let finished = closed && self.kills.iter().any(|kill| kill.is_asked_of(lane.id));
        let by_us = finished || matches!(fault, LaneFault::ByUs | LaneFault::Drained);
        let class = class_of(fault, lane.accepted);
        if lane.beside {
            self.attempt_failed(lane, class, draw);
            return;
        }
        if !by_us {
            // Else why is known already, and perhaps when to try again.
            self.paths[index].errors += 1;
            self.paths[index].attempts = self.paths[index].attempts.saturating_add(1);
            self.paths[index].explain("3.5", describe(fault));
        }
        let exhausted = if lane.accepted {
            if !by_us {
                self.connection_lost(index, lane.id.slot, class);
            }
            false
        } else {
            self.attempt_failed(lane, class, draw)
        };
        let connected = self.paths[index].portals.in_use().is_some();
        let due = if connected {
            now + self.paths[index].backoff.next_delay(draw)
        } else {
            self.next_attempt(index)
        };
        self.paths[index].reconnect_at = self.paths[index].reconnect_at.max(due);
        if !by_us {
            self.decide_lost(index, lane.state, fault);
        }
        if lane.state == LaneState::Opening && exhausted && !by_us {
            self.tell_unreachable(index, fault);
        }
    }

    /// A path that cannot be opened changes no state, so no `path_state` tells of it: an event
    /// does, once for each kind of fault until it is open again.
    fn tell_unreachable(&mut self, index: usize, fault: &LaneFault) {
        let path = &mut self.paths[index];
        let kind = core::mem::discriminant(fault);
        if path.told != Some(kind) {
            path.told = Some(kind);
            let text = path.reason.clone();
            self.event("path_unreachable", Some(index), "3.5", text);
        }
    }

    /// What a frame on a lost connection means for its request.
    fn slot_lost(&mut self, lane: &Lane, slot: &Slot, sent_bytes: u64, finished: bool) {
        match slot.used {
            Use::Free => panic!("a free slot was in flight"),
            Use::Piece { piece, flush_after, flushing, moved } => {
                let whole = slot.frame_end <= sent_bytes;
                let local = lane.offer.is_some_and(|offer| offer.local);
                // W18: what a cache that is not shared has not flushed may come out of it at any time, also when its
                // server is through with the connection.
                let apart = self.active.write_through && (flushing || flush_after && whole);
                let in_flight = slot.write && whole && !flushing && !finished;
                let open = (apart || in_flight) && !local;
                if self.pieces.get(piece).ghost && !open {
                    // Let go before. A drained server may have carried it out.
                    self.pieces.get_mut(piece).copies -= 1;
                    self.ghost_settled(piece, finished);
                } else if open && self.rules.w4_doubt {
                    self.doubt(piece, lane.path, lane.id, in_flight, apart);
                } else {
                    self.pieces.get_mut(piece).copies -= 1;
                }
                if self.pieces.get(piece).state == PieceState::Done {
                    self.copy_settled(piece);
                } else if !self.rules.f4_flush_again
                    && matches!(self.pieces.get(piece).kind, Kind::Flush { .. })
                {
                    self.set_piece_state(piece, PieceState::Done);
                    self.piece_closed(piece);
                } else if !moved && !self.hedge_left(piece, slot) {
                    self.requeue(piece);
                }
            }
            Use::Canary | Use::Distance { .. } | Use::DrainFlush => {}
            Use::Verify { of, generation, round, .. } => {
                self.verify_read_lost(LaneId { slot: of, generation }, round);
            }
            Use::Sample { .. } => self.identity.sampling = false,
        }
    }

    /// Gives pieces in flight on a lane to others; their copies there stay open.
    pub(crate) fn move_pieces(&mut self, slot: u16, which: impl Fn(&Slot) -> bool) {
        let mut moving: Vec<u16> = self
            .lane_at(slot)
            .in_order()
            .filter(|(_, s)| matches!(s.used, Use::Piece { moved: false, .. }) && which(s))
            .map(|(index, _)| index)
            .collect();
        // Newest first: the oldest ends at the head of the queue.
        moving.reverse();
        let (path, count) = (self.lane_at(slot).path, moving.len() as u32);
        self.begin_pacing(path, count);
        for index in moving {
            let Use::Piece { piece, flush_after, flushing, .. } = self.lane_at(slot).slot(index).used else {
                continue;
            };
            let flush = matches!(self.pieces.get(piece).kind, Kind::Flush { .. });
            if flush && self.lane_at(slot).is_up() {
                // Its domain is here: nowhere else would it mean the same (F2).
                continue;
            }
            self.lane_at_mut(slot).slot_mut(index).used =
                Use::Piece { piece, flush_after, flushing, moved: true };
            let copy = *self.lane_at(slot).slot(index);
            if self.pieces.get(piece).state != PieceState::Done && !self.hedge_left(piece, &copy) {
                self.requeue(piece);
            }
        }
    }
}

fn describe(fault: &LaneFault) -> String {
    match fault {
        LaneFault::Refused(text) => format!("nothing listens there: {text}"),
        LaneFault::Unreachable(text) => format!("unreachable: {text}"),
        LaneFault::Reset(text) => format!("connection reset: {text}"),
        LaneFault::Closed => "the server closed the connection".to_string(),
        LaneFault::HandshakeTimeout => "the handshake did not end in time".to_string(),
        LaneFault::Rejected(text) => format!("the server turned the export away: {text}"),
        LaneFault::Protocol(text) => format!("the server broke the protocol: {text}"),
        LaneFault::ByUs | LaneFault::Drained => "closed by us".to_string(),
    }
}
