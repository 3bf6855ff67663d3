// SPDX-License-Identifier: MIT OR Apache-2.0
//! Requests are out on a lane and nothing comes: what it is a sign of, and what is done (rules W15, W16, W19).
//!
//! `policies::evidence` tells four causes apart by what TCP says, by the canary on the lane and by the age of the
//! request; `policies::faults` has the action of each. Here the signs are gathered and the actions carried
//! out:
//!
//! | fault | the lane | its requests |
//! |---|---|---|
//! | link silent | suspect; other portals at once | all move |
//! | window closed, twice, and nothing taken between | suspect | reads move; writes when they are late |
//! | canary overdue, or late and no canary answered | suspect | the same |
//! | late, and the lane answers others | goes on as it was | the late one alone, to another path |
//!
//! In the last case the path is not blamed on suspicion: the storage may be slow for this request, or the
//! peer is a proxy that holds it (W19). If the other path answers it first it was the path after all,
//! and counts as in trouble (`steering`). With one path at a time there is no other to ask but by a
//! switch: there a late request makes its lane suspect, unless the peer is known to hold requests.
//!
//! A lane counts as answering if something came after the request was sent and no canary on it is overdue:
//! any reply shows what a canary's shows.

use alloc::format;
use alloc::vec::Vec;

use policies::evidence::{CanaryState, Sign, Unanswered, characterise};
use policies::faults::{FaultClass, PathAction, Scope, act};
use policies::silence::{Silence, judge};
use program::{AccessPolicy, MILLISECOND, Nanos};

use crate::engine::Engine;
use crate::health::LastFor;
use crate::lane::{Cause, Lane, Slot, Use};
use crate::slab::Key;

impl Engine {
    /// Looks at what is unanswered on a lane that carries I/O.
    pub(crate) fn judge_unanswered(&mut self, slot: u16) {
        let lane = self.lane_at(slot);
        if !lane.is_up() || lane.is_empty() {
            return;
        }
        let unanswered = self.unanswered(slot);
        let Some(fault) = characterise(&Sign::Unanswered(unanswered)) else { return };
        let verdict = act(fault);
        let (cause, text) = match (fault.class, fault.scope) {
            (FaultClass::Silent, Scope::Link) => {
                let evidence = self.lane_at(slot).evidence.unwrap_or_default();
                let text = format!(
                    "the link is silent: unacked {} segments, last ACK {} ms ago, RTO {} ms",
                    evidence.unacked,
                    evidence.last_ack_ms,
                    evidence.rto_us / 1_000
                );
                (Cause::LinkSilent, text)
            }
            (FaultClass::Silent, _) => {
                (Cause::WindowClosed, "the server does not read: its window is closed".into())
            }
            _ if unanswered.canary == CanaryState::Overdue => {
                let deadline = self.canary_deadline(slot) / MILLISECOND;
                (Cause::CanaryOverdue, format!("a canary read is unanswered for {deadline} ms"))
            }
            _ => {
                let write = self.overdue_slot(slot).is_some_and(|(entry, _)| entry.write);
                let (what, age) = (if write { "write" } else { "read" }, unanswered.oldest_age / MILLISECOND);
                (Cause::Overdue, format!("a {what} is unanswered for {age} ms; the connection stands"))
            }
        };
        match verdict.path {
            PathAction::NextPortal | PathAction::Suspect | PathAction::SuspectServer => {
                self.suspect(slot, cause, text);
            }
            // The scope is the device: this request is slow, the lane is not.
            _ if self.active.policy == AccessPolicy::ActiveActive => self.move_late(slot),
            _ if self.lane_at(slot).offer().gate.is_some() || self.lane_at(slot).offer().node => {}
            _ => self.suspect(slot, cause, text),
        }
    }

    fn unanswered(&self, slot: u16) -> Unanswered {
        let lane = self.lane_at(slot);
        let late = self.overdue_slot(slot);
        let sent_at = late.map_or(self.now, |(entry, _)| entry.sent_at);
        let canary_deadline = self.canary_deadline(slot);
        let canary = match lane.canary_sent {
            Some(sent) if sent.saturating_add(canary_deadline) <= self.now => CanaryState::Overdue,
            _ if lane.last_reply > sent_at => CanaryState::Answered,
            Some(_) => CanaryState::Young,
            None => CanaryState::NotAsked,
        };
        Unanswered {
            tcp: lane.tcp_evidence(self.now),
            // On the last path a stopped server is waited for like a slow one.
            window_was_closed: lane.window_was_closed && !self.is_last(slot),
            canary,
            oldest_age: self.now - sent_at,
            deadline: late.map_or(Nanos::MAX, |(_, allowed)| allowed),
        }
    }

    /// Gives late requests of a lane that answers others to other paths, one copy each.
    fn move_late(&mut self, slot: u16) {
        let path = self.lane_at(slot).path;
        let last = self.last_for(slot);
        let late: Vec<Key> = self
            .lane_at(slot)
            .in_order()
            .filter(|(_, entry)| self.is_overdue(entry, last))
            .filter_map(|(_, entry)| match entry.used {
                Use::Piece { piece, .. } => Some(piece),
                _ => None,
            })
            .filter(|&piece| self.pieces.get(piece).copies == 1 && self.has_other_path(path, piece))
            .collect();
        if late.is_empty() {
            return;
        }
        for &piece in &late {
            self.pieces.get_mut(piece).late_on |= 1 << path.min(63);
        }
        self.decide_move_late(slot, late.len() as u64);
        self.move_pieces(
            slot,
            |entry| matches!(entry.used, Use::Piece { piece, .. } if late.contains(&piece)),
        );
    }

    fn has_other_path(&self, path: usize, piece: Key) -> bool {
        let write = self.pieces.get(piece).is_write_like();
        let fits = |other: &crate::path::Path| other.steering.answers() && (!write || other.writable());
        self.paths.iter().enumerate().any(|(index, other)| index != path && fits(other))
    }

    /// Whether a request is past its age (W15).
    pub(crate) fn is_overdue(&self, entry: &Slot, last: LastFor) -> bool {
        let counts = matches!(entry.used, Use::Piece { moved: false, .. }) && !entry.patient;
        counts && entry.sent_at.saturating_add(self.allowed_age(entry, last)) <= self.now
    }

    /// The age a request may reach on its lane.
    pub(crate) fn allowed_age(&self, entry: &Slot, last: LastFor) -> Nanos {
        let base = if entry.write { self.program.deadline.write } else { self.program.deadline.read };
        policies::request_deadline(base, entry.ahead + entry.len, last.of(entry))
    }

    /// Another path answered what was late on these: it was theirs.
    pub(crate) fn late_elsewhere(&mut self, late_on: u64, answered_by: usize) {
        for index in (0..self.paths.len()).filter(|index| late_on & (1 << (*index).min(63)) != 0) {
            if index != answered_by {
                self.in_trouble(index);
            }
        }
    }
}

impl Lane {
    /// What TCP says, if it was asked since the last byte came.
    fn tcp_evidence(&self, now: Nanos) -> Option<policies::TcpEvidence> {
        let fresh = self.evidence_at > self.last_active && self.evidence_at <= now;
        self.evidence.filter(|_| fresh)
    }

    /// A sample is about to replace the one before. `acked_bytes`: so many has the peer taken; a window that opens
    /// now and then is a slow reader's.
    pub(crate) fn note_sample(&mut self, now: Nanos, acked_bytes: u64) {
        let before = self.tcp_evidence(now).as_ref().map(judge);
        self.window_was_closed = before == Some(Silence::WindowClosed) && acked_bytes == self.acked_bytes;
        self.acked_bytes = acked_bytes;
        self.evidence_at = now;
    }
}
