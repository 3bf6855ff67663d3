// SPDX-License-Identifier: MIT OR Apache-2.0
//! Decisions about one path and its connections.
//!
//! Called right where they are made, with the state as the rule saw it.

use policies::explain::{Decision, Limit, Unit};
use policies::limits::{
    BACKOFF_CAP, FULL_SHARE_PPM, GIVE_UP, HEDGE_SUSPECT_AFTER, HEDGE_WINS_SUSPECT, MILLISECOND,
    PROBATION_CANARIES, PROBATION_SHARE_PPM, SILENT_ABORT, STRIKES,
};
use program::Nanos;

use crate::LaneFault;
use crate::engine::Engine;
use crate::lane::{Cause, LaneState, Suspicion};

/// The longest wait between two attempts, jitter included.
const RECONNECT_MAX: Nanos = BACKOFF_CAP + BACKOFF_CAP / policies::limits::BACKOFF_JITTER_DIVISOR;

impl Engine {
    /// A lane is steered away from (W15, W16). `last`: there is no other path.
    pub(crate) fn decide_suspect(&mut self, slot: u16, cause: Cause, last: bool) {
        let path = self.lane_at(slot).path;
        let decision = match cause {
            Cause::LinkSilent => self.silent(slot),
            Cause::Overdue => self.late(slot),
            Cause::CanaryOverdue => self.canary_late(slot),
            Cause::Outrun => self.outrun(slot),
            Cause::WindowClosed => self.window_closed(slot),
        };
        let decision = if last {
            decision.refused("stop using it", "no other path is usable")
        } else {
            decision.refused("close it at once", "a late reply is the only proof for its writes")
        };
        let until = match cause {
            _ if last => "a reply on this connection, or another path that is usable",
            Cause::LinkSilent => {
                "a reply on this connection; silent 1 s longer, it is closed and opened anew"
            }
            Cause::Overdue | Cause::CanaryOverdue | Cause::Outrun | Cause::WindowClosed => {
                "a reply on this connection; without one for 2 s it is given up and the path connects anew"
            }
        };
        debug_assert_eq!(decision.subject, policies::Subject::Path(path), "of this lane's path");
        self.decide(&decision.until(until));
    }

    fn silent(&self, slot: u16) -> Decision {
        let lane = self.lane_at(slot);
        let evidence = lane.evidence.unwrap_or_default();
        let without_ack = u64::from(evidence.last_ack_ms) * MILLISECOND;
        let limit = policies::silence::limit(evidence.rto_us);
        self.on_path(lane.path, "suspect", "W16")
            .time("without an ACK", without_ack, Limit::AtLeast(limit))
            .count("segments unacknowledged", u64::from(evidence.unacked), Limit::Above(0))
            .count("requests in flight", u64::from(lane.in_flight), Limit::Informs)
            .refused("wait for the request age limit", "the link is dead, not the server slow")
    }

    fn late(&self, slot: u16) -> Decision {
        let lane = self.lane_at(slot);
        let decision = self.on_path(lane.path, "suspect", "W15");
        let Some((entry, limit)) = self.overdue_slot(slot) else { return decision };
        let name = if entry.write { "write unanswered" } else { "read unanswered" };
        let decision = decision
            .time(name, self.now - entry.sent_at, Limit::AtLeast(limit))
            .bytes("ahead of it on the connection", entry.ahead, Limit::Informs)
            .request(self.tag_of(entry));
        // The other explanation, a dead link, was looked at and did not hold.
        match lane.evidence {
            Some(evidence) => decision.time(
                "without an ACK",
                u64::from(evidence.last_ack_ms) * MILLISECOND,
                Limit::Below(policies::silence::limit(evidence.rto_us)),
            ),
            None => decision,
        }
    }

    fn window_closed(&self, slot: u16) -> Decision {
        let lane = self.lane_at(slot);
        let evidence = lane.evidence.unwrap_or_default();
        self.on_path(lane.path, "suspect", "W16")
            .bytes("it does not take", u64::from(evidence.notsent_bytes), Limit::Above(0))
            .count("segments unacknowledged", u64::from(evidence.unacked), Limit::AtMost(0))
            .count("samples that show it", 2, Limit::AtLeast(2))
            .refused("close it", "its process is stopped or busy, and its late replies are proof")
    }

    fn canary_late(&self, slot: u16) -> Decision {
        let lane = self.lane_at(slot);
        let unanswered = lane.canary_sent.map_or(0, |sent| self.now - sent);
        let deadline = self.canary_deadline(slot);
        self.on_path(lane.path, "suspect", "W15")
            .time("canary read unanswered", unanswered, Limit::AtLeast(deadline))
            .count("requests in flight", u64::from(lane.in_flight), Limit::Informs)
    }

    /// Second copies of its reads were answered first, one after the other (3.5).
    fn outrun(&self, slot: u16) -> Decision {
        let lane = self.lane_at(slot);
        let (won, silent, low) = self.outrun_of(lane.path);
        let patience = if low { Limit::Informs } else { Limit::AtLeast(HEDGE_SUSPECT_AFTER) };
        self.on_path(lane.path, "suspect", "hedge")
            .count(
                "reads in a row answered sooner elsewhere",
                u64::from(won),
                Limit::AtLeast(u64::from(HEDGE_WINS_SUSPECT)),
            )
            .time("without a byte that it owes", silent, patience)
            .count("requests in flight", u64::from(lane.in_flight), Limit::Informs)
    }

    /// Tag of the host request behind a frame in flight; 0 if there is none.
    fn tag_of(&self, entry: &crate::lane::Slot) -> u64 {
        let crate::lane::Use::Piece { piece, .. } = entry.used else { return 0 };
        let request = self.pieces.get(piece).request;
        request.map_or(0, |request| self.requests.get(request).host.tag.0)
    }

    /// A reply came on a suspect lane.
    pub(crate) fn decide_trust(&mut self, path: usize, was: Suspicion) {
        let decision = self
            .on_path(path, "trust again", was.cause.rule())
            .time("suspect for", self.now - was.since, Limit::Informs)
            .refused("probation", "the connection never broke");
        self.decide(&decision.until("the next sign of trouble"));
    }

    /// A silent lane is aborted (W1).
    pub(crate) fn decide_silent_abort(&mut self, path: usize, lasted: Nanos) {
        let decision = self
            .on_path(path, "close the connection", "W1")
            .time("suspect, link silent", lasted, Limit::AtLeast(SILENT_ABORT))
            .refused("keep it for late replies", "what is in our send queue could still go out later")
            .until("a new connection, canaries, a small share");
        self.decide(&decision);
    }

    /// A suspect lane becomes a zombie, or is closed when nothing depends on it (W1).
    pub(crate) fn decide_give_up(&mut self, slot: u16) {
        let lane = self.lane_at(slot);
        let owes = self.owes_proof(lane);
        let decision = self.on_path(lane.path, "give the connection up", "W1");
        let decision = match lane.suspicion {
            Some(suspicion) => {
                decision.time("suspect, no reply", self.now - suspicion.since, Limit::AtLeast(GIVE_UP))
            }
            None => decision,
        };
        let decision = decision.count("requests on it", u64::from(lane.in_flight), Limit::Informs);
        let decision = if owes {
            decision
                .refused("close it", "its late replies prove that its writes are over")
                .until("late replies, or the end of the connection")
        } else {
            decision.refused("keep it for late replies", "no write is left on it").until("a new connection")
        };
        self.decide(&decision);
    }

    /// A zombie ends.
    pub(crate) fn decide_zombie_over(&mut self, slot: u16, why: &'static str) {
        let lane = self.lane_at(slot);
        let left = lane.in_order().filter(|(_, slot)| slot.write).count() as u64;
        let decision = self
            .on_path(lane.path, why, "W1")
            .time("kept for", self.now.saturating_sub(lane.given_up_at), Limit::Informs)
            .count("writes left on it", left, Limit::Informs);
        self.decide(
            &decision.until("nothing: that connection is over, and its path has another or makes one"),
        );
    }

    /// The server said that it is leaving (W7).
    pub(crate) fn decide_leaving(&mut self, path: usize, retry: Nanos) {
        let decision = self
            .on_path(path, "drain the connection", "W7")
            .time("not called again for", retry, Limit::Informs)
            .refused("tell the host", "a host takes ESHUTDOWN for a failed disk; its requests go elsewhere")
            .until("the server accepts connections again");
        self.decide(&decision);
    }

    /// A connection could not be made or was lost (3.5).
    pub(crate) fn decide_lost(&mut self, index: usize, state: LaneState, fault: &LaneFault) {
        let path = &self.paths[index];
        let what = match (state, fault) {
            (LaneState::Opening, LaneFault::Refused(_)) => "connect again: nothing listens there",
            (LaneState::Opening, LaneFault::Unreachable(_)) => "connect again: unreachable",
            (LaneState::Opening, LaneFault::HandshakeTimeout) => "connect again: the handshake did not end",
            (LaneState::Opening, LaneFault::Rejected(_)) => "connect again: the export was turned down",
            (LaneState::Opening, _) => "connect again: lost before the handshake was over",
            (_, LaneFault::Protocol(_)) => "never use the connection again: it broke the protocol",
            (_, LaneFault::Reset(_)) => "connect anew: the connection was reset",
            (_, LaneFault::Closed) => "connect anew: the server closed the connection",
            _ => "connect anew: the connection was lost",
        };
        let wait = path.reconnect_at.saturating_sub(self.now);
        let decision = self
            .on_path(index, what, "3.5")
            .count("attempts since it last worked", u64::from(path.attempts), Limit::Informs)
            .time("next attempt in", wait, Limit::AtMost(RECONNECT_MAX));
        let decision = if path.portal_count() > 1 {
            let next = self.portal_for(index) as u64 + 1;
            decision.count("portal tried next", next, Limit::AtMost(path.portal_count() as u64))
        } else {
            decision
        };
        let decision = decision
            .refused("give the path up", "a configured path is tried for ever")
            .until("it accepts a connection and shows the right data");
        self.decide(&decision);
    }

    /// It is held out, and waits before it connects again.
    pub(crate) fn decide_pause(&mut self, index: usize) {
        let wait = self.paths[index].reconnect_at.saturating_sub(self.now);
        let decision = self
            .on_path(index, "wait before it connects again: it is held out", "failure-limit")
            .time("next attempt in", wait, Limit::AtMost(RECONNECT_MAX))
            .refused("connect at once", "one that flickers would be reset and told of time and again")
            .until("the wait is over, no other path is left, or `path reinstate`");
        self.decide(&decision);
    }

    /// Its identity is proven: it may carry I/O (3.8).
    pub(crate) fn decide_accepted(&mut self, slot: u16) {
        let lane = self.lane_at(slot);
        let (index, offer) = (lane.path, lane.offer());
        let size = self.geometry.map_or(0, |geometry| geometry.size_bytes);
        let decision =
            self.on_path(index, "accept", "3.8").bytes("size", offer.size_bytes, Limit::AtLeast(size));
        let decision = match lane.verify.as_ref() {
            _ if self.identity.declared => {
                decision.refused("compare blocks", "`id` is declared in the configuration")
            }
            Some(verify) => {
                let (equal, differs) = verify.figures();
                let named = offer.gate.filter(|gate| self.identity.volume == Some(gate.volume));
                let decision = match named {
                    Some(_) => decision.count("gates of this volume by name", 1, Limit::Informs),
                    None => decision,
                };
                decision.count("blocks that read equal", u64::from(equal), Limit::Informs).count(
                    "blocks that differ",
                    u64::from(differs.is_some()),
                    Limit::AtMost(0),
                )
            }
            None => decision.refused("compare blocks", "it is local and the only path"),
        };
        self.decide(&decision.until("the connection is lost; the next one is checked again"));
    }

    /// A server is turned away (3.3, 3.8).
    pub(crate) fn decide_refused(&mut self, slot: u16, rule: &'static str, retry: Nanos) {
        let lane = self.lane_at(slot);
        let decision = self.on_path(lane.path, "refuse", rule);
        let compared = lane.verify.as_ref().map(crate::verify::Verify::figures);
        let decision = match (compared, lane.offer.as_ref(), self.geometry) {
            (Some((equal, Some(differs))), ..) => decision
                .bytes("block that differs begins at", differs, Limit::Informs)
                .count("blocks that read equal", u64::from(equal), Limit::Informs)
                .refused("use it all the same", "it leads to other data; hosts would read and write both"),
            (_, Some(offer), Some(told)) => decision
                .bytes("size", offer.size_bytes, Limit::AtLeast(told.size_bytes))
                .bytes(
                    "smallest block",
                    u64::from(offer.min_block_bytes),
                    Limit::AtMost(u64::from(told.min_block_bytes)),
                )
                .refused("use it all the same", "hosts hold on to what they were told of the device"),
            (_, Some(offer), None) => {
                let size = self.program.size_bytes.unwrap_or(1);
                decision.bytes("size", offer.size_bytes, Limit::AtLeast(size))
            }
            _ => decision,
        };
        let decision = decision
            .time("asked again in", retry, Limit::Informs)
            .until("the server offers what fits, or `path reinstate` asks it at once");
        self.decide(&decision);
    }

    /// A blank volume proves nothing (3.8).
    pub(crate) fn decide_unproven(&mut self, path: usize, compared: u32) {
        let decision = self
            .on_path(path, "leave it unproven", "3.8")
            .count("blocks that read equal", u64::from(compared), Limit::Informs)
            .count("of them with content that tells devices apart", 0, Limit::AtLeast(1))
            .refused("use it", "another blank volume would look the same")
            .until("a block that a host writes reads back equal through it, or `id` in the configuration");
        self.decide(&decision);
    }

    /// The check of identity did not end (3.8).
    pub(crate) fn decide_unchecked(&mut self, path: usize) {
        let decision = self
            .on_path(path, "close the connection: its identity check got no answer", "3.8")
            .refused("use it unchecked", "a path that leads to other data damages the volume")
            .until("a connection on which the check's reads are answered");
        self.decide(&decision);
    }

    /// It is back after a failure (design 3.5).
    pub(crate) fn decide_probation(&mut self, path: usize) {
        let decision = self
            .on_path(path, "probation", "probation")
            .count("good canaries in a row", 0, Limit::AtLeast(u64::from(PROBATION_CANARIES)))
            .refused("use it at once", "a path that comes back is as likely as any to leave again")
            .until("three good canary reads, then 5 % of the requests for 10 s");
        self.decide(&decision);
    }

    /// A canary of a path on probation was answered.
    pub(crate) fn decide_probation_step(&mut self, index: usize, good: bool) {
        let Some(probation) = self.paths[index].probation.as_ref() else { return };
        let share = probation.share_ppm(self.now);
        let decision = match (good, share) {
            (false, _) => self
                .on_path(index, "begin probation anew", "probation")
                .count("good canaries in a row", 0, Limit::AtLeast(u64::from(PROBATION_CANARIES)))
                .refused("go on with its share", "a canary read was answered with an error")
                .until("three good canary reads in a row"),
            (true, 0) => return,
            (true, _) => self
                .on_path(index, "give it a small share", "probation")
                .count(
                    "good canaries in a row",
                    u64::from(PROBATION_CANARIES),
                    Limit::AtLeast(u64::from(PROBATION_CANARIES)),
                )
                .figure("share", u64::from(PROBATION_SHARE_PPM), Unit::Ppm, Limit::Informs)
                .refused("give it all", "5 % of real requests show what a probe cannot")
                .until("10 s without a bad canary"),
        };
        self.decide(&decision);
    }

    /// Probation is over.
    pub(crate) fn decide_full_share(&mut self, path: usize, began: Nanos) {
        let decision = self
            .on_path(path, "end probation", "probation")
            .time("since it was back", self.now.saturating_sub(began), Limit::Informs)
            .figure("share", u64::from(FULL_SHARE_PPM), Unit::Ppm, Limit::Informs)
            .until("the next sign of trouble");
        self.decide(&decision);
    }

    /// Its storage answers errors that others do not (W7).
    pub(crate) fn decide_sick(&mut self, path: usize) {
        let strikes = self.paths[path].strikes;
        let limit = if strikes >= STRIKES { Limit::AtLeast(u64::from(STRIKES)) } else { Limit::Informs };
        let decision = self
            .on_path(path, "take it out", "W7")
            .count("errors in a row that no other path confirmed", u64::from(strikes), limit)
            .refused("tell the host", "another path is asked first")
            .until("three good canary reads in a row");
        self.decide(&decision);
    }

    /// EIO: another path is asked, or it is believed (W7, W14).
    pub(crate) fn decide_second_opinion(&mut self, path: usize, asked: u32, wait: Option<Nanos>) {
        let decision = match wait {
            Some(wait) => self
                .on_path(path, "ask another path: EIO", "W7")
                .count("paths that answered EIO", u64::from(asked), Limit::Below(2))
                .time("believed at the latest in", wait, Limit::Informs)
                .refused("tell the host", "an error of one path need not be one of the medium")
                .until("another path's answer"),
            None => self
                .on_path(path, "believe EIO and tell the host", "W7")
                .count("paths that answered EIO", u64::from(asked), Limit::Informs)
                .refused("ask another path", "two have said so, or there is none that has not")
                .until("the host's next request, of which nothing is believed beforehand"),
        };
        self.decide(&decision);
    }

    /// An operator's command.
    pub(crate) fn decide_command(&mut self, path: usize, what: &'static str, until: &'static str) {
        self.blame_rule(path, "operator");
        let in_flight: u32 = self.paths[path].lanes.iter().map(|&slot| self.lane_at(slot).in_flight).sum();
        let decision = self
            .on_path(path, what, "operator")
            .count("requests in flight", u64::from(in_flight), Limit::Informs)
            .until(until);
        self.decide(&decision);
    }
}
