// SPDX-License-Identifier: MIT OR Apache-2.0
//! Is a lane well? Silence, request age; and the timer (rules W15, W16).
//!
//! Lane silence and request age are two things. A lane with requests out and without a byte for
//! [`SILENCE_PROBE_AFTER`] is looked at through the kernel (its canary may have gone before): an
//! unacknowledged link is *silent* and is aborted after a second; its requests move at once. A request past its age
//! moves by itself and makes the lane *suspect*: nothing new is issued on it while
//! a sibling is usable, but it stays open, for its late reply is worth more than a
//! closed socket. Only if it stays suspect for [`GIVE_UP`], while others are idle or answer what
//! was sent later, it becomes a zombie and the path connects anew. The last usable path is
//! given four times as long, and then it is shown as down but used all the same: there
//! is nowhere to go.
//!
//! Work in flight is looked at every [`TICK`]; an idle device has no tick, only
//! its next canary.

use alloc::string::String;

use policies::faults::FaultClass;
use policies::limits::{DEVICE_BUSY, GIVE_UP, SAMPLE_INTERVAL, SILENCE_PROBE_AFTER, SILENT_ABORT};
use program::{MILLISECOND, Nanos, NoPath};

use crate::engine::Engine;
use crate::lane::{Cause, Lane, LaneState, Slot, Suspicion, Use};
use crate::path::Admin;
use crate::{Action, Close};

/// How often lanes with work in flight are looked at.
pub(crate) const TICK: Nanos = 25 * MILLISECOND;

/// For which requests a lane is the last there is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LastFor {
    reads: bool,
    writes: bool,
}

impl LastFor {
    pub(crate) fn of(self, entry: &Slot) -> bool {
        if writes(entry) { self.writes } else { self.reads }
    }
}

/// A write, or the FLUSH that makes it durable.
fn writes(entry: &Slot) -> bool {
    entry.write || matches!(entry.used, Use::Piece { flushing: true, .. })
}

/// Whether the age of a request moves it.
fn is_aged(entry: &Slot) -> bool {
    matches!(entry.used, Use::Piece { moved: false, .. }) && !entry.patient
}

impl Engine {
    pub(crate) fn timer(&mut self) {
        self.expire_doubts();
        self.recovery_due();
        self.inheritance_due();
        self.ask_gates();
        self.after_proof();
        self.check_probation();
        self.steer();
        if self.failback.next_deadline().is_some_and(|due| due <= self.now) {
            self.regroup();
        }
        self.open_lanes();
        self.send_canaries();
        self.measure();
        self.send_hedges();
        if self.next_tick <= self.now {
            self.tick();
        }
        self.check_hold();
    }

    /// When [`crate::Event::Timer`] is due next; `None` if nothing is.
    ///
    /// Looks at every lane: call it once per turn, not per event.
    pub fn next_deadline(&self) -> Option<Nanos> {
        let reconnects = (0..self.paths.len())
            .filter(|&path| self.is_short_of_lanes(path))
            .map(|path| self.paths[path].reconnect_at);
        let probation = self.paths.iter().filter_map(|path| path.probation.as_ref()?.next_deadline());
        let canaries = self.lanes.iter().flatten().filter_map(|lane| self.canary_due(lane.id.slot));
        let graces = self.paths.iter().filter_map(|path| self.grace_end(path));
        reconnects
            .chain(probation)
            .chain(canaries)
            .chain(graces)
            .chain(self.needs_tick().then_some(self.next_tick))
            .chain(self.next_hedge())
            .chain(self.next_doubt_expiry())
            .chain(self.next_recovery())
            .chain(self.next_kill())
            .chain(self.failback.next_deadline())
            .chain(self.hold_end())
            .chain(self.next_settling())
            .chain(self.next_steering())
            .chain(self.next_beside())
            .chain(self.next_measure())
            .chain(self.next_pace())
            .chain(self.next_verify().map(|due| due.max(self.next_tick)))
            .min()
    }

    fn is_short_of_lanes(&self, index: usize) -> bool {
        let path = &self.paths[index];
        let live = path.lanes.iter().filter(|&&slot| {
            !matches!(self.lane_at(slot).state, LaneState::Zombie | LaneState::Closing | LaneState::Draining)
        });
        !self.is_draining() && path.admin == Admin::In && live.count() == 0
    }

    fn grace_end(&self, path: &crate::path::Path) -> Option<Nanos> {
        let out = path.admin == Admin::Failed && !path.lanes.is_empty();
        (out && path.reconnect_at > self.now).then_some(path.reconnect_at)
    }

    fn needs_tick(&self) -> bool {
        !self.requests.is_empty()
            || self.lanes.iter().flatten().any(|lane| !lane.is_empty() || lane.suspicion.is_some())
            || self.identity_waits()
    }

    /// A host asked for something lately.
    pub(crate) fn is_busy(&self) -> bool {
        self.last_request.is_some_and(|last| self.now < last + DEVICE_BUSY)
    }

    fn identity_waits(&self) -> bool {
        self.is_busy() && self.lanes.iter().flatten().any(|lane| lane.state == LaneState::Unproven)
    }

    fn tick(&mut self) {
        self.next_tick = self.now + TICK;
        for slot in 0..self.lanes.len() {
            if self.lanes[slot].is_some() {
                self.check_lane(slot as u16);
            }
        }
        self.leave_mute_path();
        self.apart_due();
        self.tick_at_next_look();
        self.tick_at_next_age();
        self.verify_tick();
        self.check_waiting();
    }

    fn check_lane(&mut self, slot: u16) {
        let lane = self.lane_at(slot);
        match lane.state {
            LaneState::Up => {
                self.check_silence(slot);
                self.judge_unanswered(slot);
                self.check_suspicion(slot);
            }
            LaneState::Draining if lane.is_empty() => self.finish_drain(slot),
            LaneState::Draining => {
                self.check_silence(slot);
                self.check_draining(slot);
            }
            LaneState::Zombie => self.check_zombie(slot),
            LaneState::Verifying => self.check_silence(slot),
            LaneState::Opening | LaneState::Unproven | LaneState::Closing => {}
        }
    }

    fn check_silence(&mut self, slot: u16) {
        let now = self.now;
        let lane = self.lane_at_mut(slot);
        let quiet = now - lane.last_active >= SILENCE_PROBE_AFTER && now >= lane.next_sample;
        if lane.is_empty() || !quiet || lane.offer().local {
            return;
        }
        // Silence counts from when something was sent, not from the last idle moment.
        let oldest = lane.oldest().map_or(now, |index| lane.slot(index).sent_at);
        if now - oldest < SILENCE_PROBE_AFTER {
            return;
        }
        lane.next_sample = now + SAMPLE_INTERVAL;
        let id = lane.id;
        self.act(Action::SampleTcp(id));
    }

    /// W16: a link is known to be silent at its limit, not at the tick after it: until then the
    /// requests on it are slots that their hosts miss.
    pub(crate) fn look_when_silent(&mut self, slot: u16) {
        let now = self.now;
        let lane = self.lane_at_mut(slot);
        let left = lane.evidence.as_ref().and_then(policies::silence::silent_in);
        let Some(left) = left.filter(|&left| left > 0 && lane.state != LaneState::Zombie) else { return };
        // The kernel's clock is as coarse as a millisecond or worse: it may be just short of it then.
        lane.next_sample = lane.next_sample.min(now + left.max(MILLISECOND));
        self.tick_at_next_look();
    }

    /// A tick that comes sooner, for another lane or another reason, must not put it off.
    fn tick_at_next_look(&mut self) {
        let now = self.now;
        let owes_ack = |lane: &&Lane| {
            let evidence =
                lane.evidence.as_ref().filter(|_| lane.state != LaneState::Zombie && !lane.is_empty());
            evidence.and_then(policies::silence::silent_in).is_some_and(|left| left > 0)
        };
        let looks = self.lanes.iter().flatten().filter(owes_ack).map(|lane| lane.next_sample);
        if let Some(next) = looks.filter(|&next| next > now).min() {
            self.next_tick = self.next_tick.min(next);
        }
    }

    /// No other lane is trusted.
    pub(crate) fn is_last(&self, slot: u16) -> bool {
        !self.has_sibling(self.lane_at(slot).path) && self.is_last_of_path(slot)
    }

    fn is_last_of_path(&self, slot: u16) -> bool {
        let sibling = |&other: &u16| other != slot && self.lane_at(other).is_trusted();
        !self.paths[self.lane_at(slot).path].lanes.iter().any(sibling)
    }

    /// Another path takes all that is on this lane.
    fn can_go_elsewhere(&self, slot: u16) -> bool {
        let lane = self.lane_at(slot);
        let written = lane.in_order().any(|(_, entry)| writes(entry));
        if written { self.has_writable_sibling(lane.path) } else { self.has_sibling(lane.path) }
    }

    /// For which of the requests on a lane there is no other (W15).
    pub(crate) fn last_for(&self, slot: u16) -> LastFor {
        let (path, last) = (self.lane_at(slot).path, self.is_last_of_path(slot));
        LastFor { reads: last && !self.has_sibling(path), writes: last && !self.has_writable_sibling(path) }
    }

    /// The first request past its age (W15): whether it writes, and how old it is.
    fn overdue(&self, slot: u16) -> Option<(bool, Nanos)> {
        self.overdue_slot(slot).map(|(entry, _)| (entry.write, self.now - entry.sent_at))
    }

    /// The same: the request, and the age it was allowed.
    pub(crate) fn overdue_slot(&self, slot: u16) -> Option<(&Slot, Nanos)> {
        let last = self.last_for(slot);
        self.lane_at(slot).in_order().find_map(|(_, entry)| {
            self.is_overdue(entry, last).then(|| (entry, self.allowed_age(entry, last)))
        })
    }

    /// A request that is to be moved before the next tick is moved at its age, not at the tick.
    fn tick_at_next_age(&mut self) {
        for slot in 0..self.lanes.len() {
            let up = self.lanes[slot].as_ref().is_some_and(Lane::is_up);
            if let Some(due) = up.then(|| self.next_age(slot as u16)).flatten() {
                self.next_tick = self.next_tick.min(due);
            }
        }
    }

    fn next_age(&self, slot: u16) -> Option<Nanos> {
        let last = self.last_for(slot);
        let aged = self.lane_at(slot).in_order().filter(|(_, entry)| is_aged(entry));
        aged.map(|(_, entry)| entry.sent_at + self.allowed_age(entry, last))
            .filter(|&due| due > self.now)
            .min()
    }

    /// Steers away from a lane; moves what is on it as far as the evidence goes.
    pub(crate) fn suspect(&mut self, slot: u16, cause: Cause, text: String) {
        let now = self.now;
        let lane = self.lane_at(slot);
        if lane.state != LaneState::Up {
            return;
        }
        let path = lane.path;
        let last = self.is_last(slot);
        let before = lane.suspicion;
        let since = before.map_or(now, |suspicion| suspicion.since);
        let cause = match before {
            Some(Suspicion { cause: Cause::LinkSilent, .. }) => Cause::LinkSilent,
            _ => cause,
        };
        self.lane_at_mut(slot).suspicion = Some(Suspicion { since, cause });
        if before.is_none() {
            self.paths[path].explain(cause.rule(), text);
            self.paths[path].errors += 1;
            self.decide_suspect(slot, cause, last);
            self.blame(path);
            self.in_trouble(path);
            self.regroup();
        }
        if cause == Cause::LinkSilent && before.is_none_or(|before| before.cause != cause) {
            self.link_silent(path);
            self.regroup();
            self.open_lanes();
        } else if before.is_none_or(|before| before.cause != cause)
            && matches!(cause, Cause::CanaryOverdue | Cause::WindowClosed)
            && self.paths[path].portal_count() > 1
        {
            // It may be the link all the same: another portal tells. A request that is late beside canaries that are
            // answered is slow over any.
            self.link_silent(path);
            self.open_lanes();
        }
        self.blame(path);
        if last {
            // Nowhere to go: it is shown, and used all the same (W15).
            return;
        }
        let (read, write) = (self.program.deadline.read, self.program.deadline.write);
        let last = self.last_for(slot);
        self.move_pieces(slot, |entry| {
            if last.of(entry) {
                return false;
            }
            // Reads may move at any suspicion (W2). A write moves when its lane is
            // silent or when it is itself overdue (W15); its range stays locked.
            let base = if entry.write { write } else { read };
            let due = policies::request_deadline(base, entry.ahead + entry.len, false);
            !entry.write || cause == Cause::LinkSilent || now - entry.sent_at >= due
        });
        let lane = self.lane_at(slot);
        // W16: nothing can come of it any more but a ghost.
        let ghosts = cause == Cause::LinkSilent && lane.in_order().any(|(_, entry)| entry.write);
        // W20: the next path has taken over, and this one may still work on something.
        let (id, gate) = (lane.id, lane.offer().gate);
        let left = !self.active.members.contains(&path) && self.must_be_over(gate) && lane.has_io();
        if ghosts || left {
            self.fence(id, path, gate);
        }
    }

    fn check_suspicion(&mut self, slot: u16) {
        let Some(suspicion) = self.lane_at(slot).suspicion else { return };
        // What is on it has nowhere else to go: it is used as long as anything comes, and where a request without a path is
        // to fail at once this one's answer is waited for.
        let (path, last) = (self.lane_at(slot).path, self.last_for(slot));
        let kept = self.active.writers.contains(&path) || self.program.no_path == NoPath::Fail;
        if kept && self.lane_at(slot).in_order().any(|(_, entry)| writes(entry) && last.of(entry)) {
            return;
        }
        let lasted = self.now - suspicion.since;
        match suspicion.cause {
            Cause::LinkSilent if lasted >= SILENT_ABORT && !self.active.last_resort => {
                let path = self.lane_at(slot).path;
                self.paths[path].failed_before = true;
                self.decide_silent_abort(path, lasted);
                self.connection_lost(path, slot, FaultClass::Silent);
                self.close(slot, Close::Abort);
            }
            Cause::Overdue | Cause::CanaryOverdue | Cause::Outrun | Cause::WindowClosed
                if lasted >= GIVE_UP && self.others_answer(slot, suspicion.since) =>
            {
                self.give_up(slot);
            }
            _ => {}
        }
    }

    /// Another lane is well: idle, or it has answered what was sent since then. Where none is, it is
    /// the storage that is slow: its answer comes on this lane first, if it is not closed before.
    fn others_answer(&self, slot: u16, since: Nanos) -> bool {
        let well = |lane: &Lane| lane.is_trusted() && (lane.is_empty() || lane.answered_sent >= since);
        let mut others = self.lanes.iter().flatten().filter(|lane| lane.id.slot != slot);
        !self.active.last_resort && others.any(well)
    }

    /// A drained path's lanes may finish; a failed one's only for a moment.
    fn check_draining(&mut self, slot: u16) {
        let index = self.lane_at(slot).path;
        if self.paths[index].admin == Admin::Failed && self.paths[index].reconnect_at <= self.now {
            self.close(slot, Close::Abort);
        } else if (self.overdue(slot).is_some() || self.flush_hangs(slot)) && self.can_go_elsewhere(slot) {
            self.give_up(slot);
        }
    }

    /// A FLUSH may take its time, but the write that it belongs to can be carried out elsewhere, and a switch waits for it.
    fn flush_hangs(&self, slot: u16) -> bool {
        let old = |entry: &Slot| {
            matches!(entry.used, Use::Piece { flushing: true, moved: false, .. })
                && self.now - entry.sent_at >= self.program.quiesce
        };
        self.lane_at(slot).in_order().any(|(_, entry)| old(entry))
    }
}
