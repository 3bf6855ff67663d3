// SPDX-License-Identifier: MIT OR Apache-2.0
//! Lanes open, are accepted, are asked to close; and what the driver tells of them (design 3.5).
//!
//! What becomes of the requests of a lost lane is in `lost`. A lane that is given up is not closed but becomes
//! a zombie (`zombie`); one whose link is silent is aborted, because bytes in our own send queue could still go
//! out later (W1).

use alloc::string::String;

use policies::Probation;
use policies::faults::FaultClass;
use policies::limits::{LEAVING_RETRY, PROBES_IN_VAIN, REFUSED_RETRY};
use program::{MILLISECOND, Nanos};

use crate::engine::Engine;
use crate::lane::{Cause, Lane, LaneState, Suspicion, Use};
use crate::path::Admin;
use crate::request::Origin;
use crate::{Action, Close, LaneId, Offer, SessionId, TcpSample};

/// `path fail`: how long requests in flight may still be answered.
pub(crate) const FAIL_GRACE: Nanos = 500 * MILLISECOND;

impl Engine {
    pub(crate) fn lane_at(&self, slot: u16) -> &Lane {
        let Some(lane) = self.lanes[slot as usize].as_ref() else { panic!("no lane in slot {slot}") };
        lane
    }

    pub(crate) fn lane_at_mut(&mut self, slot: u16) -> &mut Lane {
        let Some(lane) = self.lanes[slot as usize].as_mut() else { panic!("no lane in slot {slot}") };
        lane
    }

    /// The host session whose request a `Send` on this lane carries out a part of; `None` for what is our own,
    /// or no longer in flight.
    pub fn session_of(&self, id: LaneId, cookie: u64) -> Option<SessionId> {
        let lane = self.lanes.get(usize::from(id.slot))?.as_ref().filter(|lane| lane.id == id)?;
        let Use::Piece { piece, .. } = lane.slot(lane.find(cookie)?).used else { return None };
        let request = self.requests.get(self.pieces.get(piece).request?);
        (request.origin == Origin::Host).then_some(request.host.session)
    }

    /// The lane an event names. The driver delivers nothing of a lane that is
    /// down, so a miss is a bug.
    pub(crate) fn lane_mut(&mut self, id: LaneId) -> &mut Lane {
        let lane = self.lane_at_mut(id.slot);
        assert_eq!(lane.id, id, "an event of a lane that is gone");
        lane
    }

    /// The lane if it is still there.
    pub(crate) fn lane_if(&self, id: LaneId) -> Option<&Lane> {
        self.lanes.get(id.slot as usize).and_then(Option::as_ref).filter(|lane| lane.id == id)
    }

    /// Opens what is missing and due.
    pub(crate) fn open_lanes(&mut self) {
        if self.is_draining() {
            return;
        }
        for path in 0..self.paths.len() {
            while self.wants_lane(path) {
                let kill = self.kill_for(path);
                let lane = self.open_lane(path, kill);
                if let Some(target) = kill {
                    self.kill_asked(target, lane);
                }
            }
        }
        self.open_beside();
    }

    fn wants_lane(&self, index: usize) -> bool {
        let path = &self.paths[index];
        let live = path
            .lanes
            .iter()
            .filter(|&&slot| {
                let lane = self.lane_at(slot);
                let ends = matches!(lane.state, LaneState::Zombie | LaneState::Closing | LaneState::Draining);
                !ends && !lane.fencing && !lane.beside
            })
            .count();
        // The first lane tells whether the server is there and right; only then the others.
        let wanted = if path.proven && live > 0 { self.lanes_wanted(index) } else { 1 };
        path.admin == Admin::In && path.reconnect_at <= self.now && live < wanted
    }

    /// `kill`: a session the gate behind this path is to finish first.
    pub(crate) fn open_lane(&mut self, index: usize, kill: Option<LaneId>) -> LaneId {
        self.open_lane_over(index, self.portal_for(index), kill)
    }

    pub(crate) fn open_lane_over(&mut self, index: usize, portal: usize, kill: Option<LaneId>) -> LaneId {
        let slot = self.lanes.iter().position(Option::is_none).unwrap_or_else(|| {
            self.lanes.push(None);
            self.lane_generations.push(0);
            self.lanes.len() - 1
        });
        self.lane_generations[slot] += 1;
        let id = LaneId { slot: slot as u16, generation: self.lane_generations[slot] };
        let path = &mut self.paths[index];
        let mut lane = Lane::new(id, index, portal, path.program.in_flight, self.now);
        lane.kill = kill;
        self.lanes[slot] = Some(lane);
        path.lanes.push(slot as u16);
        let Some(program_index) = path.program_index else { panic!("a removed path was opened") };
        self.act(Action::OpenLane { lane: id, path: program_index, portal, kill });
        id
    }

    pub(crate) fn lane_opened(&mut self, id: LaneId, offer: Offer) {
        let now = self.now;
        let lane = self.lane_mut(id);
        lane.offer = Some(offer);
        lane.last_reply = now;
        lane.last_active = now;
        let (path, fencing) = (lane.path, lane.fencing);
        if lane.state != LaneState::Opening {
            return;
        }
        self.gate_answered(id, path, offer.gate.as_ref());
        if fencing {
            self.close(id.slot, Close::Disconnect);
            return;
        }
        if let Err(reason) = self.judge_offer(path, &offer)
            && self.rules.f11_geometry
        {
            self.refuse(id.slot, "3.3", reason);
            return;
        }
        self.paths[path].offer = Some(offer);
        self.begin_verify(id.slot);
    }

    /// Turns a server away, with the reason for `status`.
    pub(crate) fn refuse(&mut self, slot: u16, rule: &'static str, reason: String) {
        let index = self.lane_at(slot).path;
        let retry = self.now + REFUSED_RETRY;
        let path = &mut self.paths[index];
        path.errors += 1;
        path.proven = false;
        path.explain(rule, reason.clone());
        path.refusal = Some(reason);
        path.reconnect_at = retry;
        let lanes = path.lanes.clone();
        self.decide_refused(slot, rule, REFUSED_RETRY);
        self.blame(index);
        // What one lane learned holds for the path: none of its lanes carries on.
        for slot in lanes {
            if self.lane_at(slot).state != LaneState::Zombie {
                self.close(slot, Close::Abort);
            }
        }
        self.regroup();
    }

    /// Identity is proven: the lane carries I/O from now on.
    pub(crate) fn lane_accepted(&mut self, slot: u16) {
        let now = self.now;
        let lane = self.lane_at_mut(slot);
        let (index, offer) = (lane.path, *lane.offer());
        lane.state = LaneState::Up;
        self.link_lane(slot);
        if self.portal_connected(slot) {
            self.paths[index].failed_before = false;
            self.paths[index].steering.keeps_place = true;
        }
        let returning = self.paths[index].failed_before && !self.paths[index].steering.answers();
        let path = &mut self.paths[index];
        path.proven = true;
        path.refusal = None;
        path.told = None;
        path.steering.paused = false;
        if !path.steering.limit.holds_out(now, false) {
            path.backoff.reset();
        }
        path.attempts = 0;
        self.decide_accepted(slot);
        self.identity.volume = offer.gate.map(|gate| gate.volume).or(self.identity.volume);
        self.note_cache(index, offer.gate.as_ref());
        self.inherited_is_back(self.paths[index].domain);
        let path = &mut self.paths[index];
        if returning {
            path.failed_before = false;
            path.probation = Some(Probation::start(now));
            path.explain(
                "probation",
                String::from("back after a failure: canaries first, then a small share"),
            );
        }
        if returning {
            self.decide_probation(index);
        }
        self.learn_geometry(index, &offer);
        self.sample_soon();
        self.close_unneeded(slot);
        if self.lane_at(slot).is_up() {
            self.paths[index].access_told = offer.access;
        }
        self.check_recovery();
        self.regroup();
        self.open_lanes();
        self.ask_gates();
    }

    pub(crate) fn lane_sent(&mut self, id: LaneId, sent_bytes: u64) {
        let lane = self.lane_mut(id);
        assert!(
            sent_bytes >= lane.sent_bytes && sent_bytes <= lane.queued_bytes,
            "sent bytes are out of range"
        );
        lane.sent_bytes = sent_bytes;
    }

    pub(crate) fn lane_active(&mut self, id: LaneId) {
        let now = self.now;
        self.lane_mut(id).last_active = now;
    }

    /// A reply came: suspicion is over; a zombie or draining lane may be done.
    pub(crate) fn lane_answered(&mut self, id: LaneId) {
        let Some(lane) = self.lane_if(id) else { return };
        match lane.state {
            LaneState::Up => {
                if let Some(suspicion) = lane.suspicion {
                    self.trust_again(id.slot, suspicion);
                }
            }
            LaneState::Zombie if !self.owes_proof(lane) => {
                self.decide_zombie_over(id.slot, "close the old connection: its late replies have come");
                self.close(id.slot, Close::Abort);
            }
            LaneState::Draining if lane.is_empty() => self.finish_drain(id.slot),
            _ => {}
        }
        if self.active.waiting_for.is_some() {
            self.after_proof();
        }
    }

    fn trust_again(&mut self, slot: u16, suspicion: Suspicion) {
        self.decide_trust(self.lane_at(slot).path, suspicion);
        let now = self.now;
        let lane = self.lane_at_mut(slot);
        lane.suspicion = None;
        if suspicion.cause == Cause::LinkSilent {
            lane.silent_until = now;
        }
        self.link_answers(slot);
        self.regroup();
    }

    /// The server says it is leaving (ESHUTDOWN): finish what it has, then go.
    pub(crate) fn lane_leaves(&mut self, id: LaneId) {
        if self.lane_if(id).is_none() {
            return;
        }
        let lane = self.lane_mut(id);
        lane.leaving = true;
        if lane.state != LaneState::Up {
            return;
        }
        lane.state = LaneState::Draining;
        let path = lane.path;
        // It may go on to accept connections for as long as it takes to leave.
        self.paths[path].reconnect_at = self.now + LEAVING_RETRY;
        self.paths[path].failed_before = true;
        self.paths[path].explain("W7", String::from("the server announced its shutdown (ESHUTDOWN)"));
        self.decide_leaving(path, LEAVING_RETRY);
        self.blame(path);
        self.connection_lost(path, id.slot, FaultClass::Refused);
        self.regroup();
    }

    /// Asks the driver to end a lane; `LaneDown` follows.
    pub(crate) fn close(&mut self, slot: u16, how: Close) {
        let lane = self.lane_at_mut(slot);
        if lane.state == LaneState::Closing {
            return;
        }
        lane.state = LaneState::Closing;
        let lane = lane.id;
        self.act(Action::CloseLane { lane, how });
    }

    /// Evidence from the kernel (W16).
    pub(crate) fn tcp_sample(&mut self, id: LaneId, sample: TcpSample) {
        let now = self.now;
        let evidence = policies::TcpEvidence {
            unacked: sample.unacked,
            notsent_bytes: sample.notsent_bytes,
            last_ack_ms: sample.last_ack_ms,
            rto_us: sample.rto_us,
        };
        let lane = self.lane_mut(id);
        lane.outq_bytes = Some(sample.outq_bytes);
        // The last ACK may be older than what is owed one: the link was just idle, or
        // a request was acknowledged long ago and only its reply is missing. An ACK is
        // owed since the first request that was sent after the last ACK.
        // The kernel rounds down to milliseconds: the first request after it may be of the same one.
        let last_ack = now.saturating_sub((Nanos::from(sample.last_ack_ms) + 1) * MILLISECOND);
        // By its bytes where the queue tells them: times of ACKs are good to a few milliseconds only.
        let acked_bytes = lane.sent_bytes.saturating_sub(u64::from(sample.outq_bytes));
        let owed = lane
            .in_order()
            .find(|(_, slot)| sample.outq_bytes > 0 && slot.frame_end > acked_bytes)
            .or_else(|| lane.in_order().find(|(_, slot)| slot.sent_at >= last_ack));
        let waiting = owed.map_or(0, |(_, slot)| now - slot.sent_at);
        let evidence = evidence.waiting_since((waiting / MILLISECOND) as u32);
        lane.note_sample(now, acked_bytes);
        lane.evidence = Some(evidence);
        // A stopped server whose window is full: our kernel would take the closed window for a
        // dead link after TCP_USER_TIMEOUT and reset the connection, the only proof there is.
        let closed = sample.notsent_bytes > 0 && sample.unacked == 0;
        if lane.state != LaneState::Zombie || closed {
            self.time_lane(id.slot, !closed);
        }
        let lane = self.lane_at(id.slot);
        if lane.state == LaneState::Zombie && sample.probes >= PROBES_IN_VAIN {
            // Behind a closed window our kernel would go on for a quarter of an hour. No reply
            // can come; what it may do with its queue later is worse (W1).
            self.decide_zombie_over(id.slot, "close the old connection: its peer answers no probe");
            self.close(id.slot, Close::Abort);
            return;
        }
        self.look_when_silent(id.slot);
        self.judge_unanswered(id.slot);
    }
}
