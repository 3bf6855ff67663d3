// SPDX-License-Identifier: MIT OR Apache-2.0
//! Is a lane well? Canaries, silence, request age; and the timer (rules W15, W16).
//!
//! Lane silence and request age are two things. A lane without a byte for 100 ms
//! is looked at through the kernel: an unacknowledged link is *silent* and is
//! aborted after a second; its requests move at once. A request past its age
//! moves by itself and makes the lane *suspect*: nothing new is issued on it while
//! a sibling is usable, but it stays open, for its late reply is worth more than a
//! closed socket. Only if it stays suspect for [`GIVE_UP`], while others are idle or answer what
//! was sent later, it becomes a zombie and the path connects anew. The last usable path is
//! given four times as long, and then it is shown as down but used all the same: there
//! is nowhere to go.
//!
//! Work in flight is looked at every [`TICK`]; an idle device has no tick, only
//! its next canary.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use nbd::Errno;
use policies::faults::FaultClass;
use policies::limits::{
    ASK_AGAIN, DEVICE_BUSY, GIVE_UP, LAST_PATH_FACTOR, PROBATION_CANARY_INTERVAL, SAMPLE_INTERVAL,
    SILENCE_PROBE_AFTER, SILENT_ABORT, STRIKES, ZOMBIE_SAMPLE_INTERVAL,
};
use program::{DeviceCommand, MILLISECOND, Nanos, NoPath, Unproven, Writers};

use crate::engine::Engine;
use crate::lane::{Cause, Lane, LaneState, Slot, Suspicion, Use};
use crate::path::Admin;
use crate::record::DecisionPoint;
use crate::request::RequestState;
use crate::slab::Key;
use crate::{Action, Close, LaneId};

/// How often lanes with work in flight are looked at.
pub(crate) const TICK: Nanos = 25 * MILLISECOND;

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
        self.check_probation();
        self.steer();
        if self.failback.next_deadline().is_some_and(|due| due <= self.now) {
            self.regroup();
        }
        self.open_lanes();
        self.send_canaries();
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
            .chain(self.next_steering())
            .chain(self.next_beside())
            .chain(self.next_pace())
            .chain(self.next_verify().map(|due| due.max(self.next_tick)))
            .min()
    }

    fn is_short_of_lanes(&self, index: usize) -> bool {
        let path = &self.paths[index];
        let live = path.lanes.iter().filter(|&&slot| {
            !matches!(self.lane_at(slot).state, LaneState::Zombie | LaneState::Closing | LaneState::Draining)
        });
        !self.stopping && path.admin == Admin::In && live.count() == 0
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
        self.next_tick = self.next_tick.min(self.lane_at(slot).next_sample);
    }

    /// No other lane is trusted.
    pub(crate) fn is_last(&self, slot: u16) -> bool {
        let path = self.lane_at(slot).path;
        let sibling = |&other: &u16| other != slot && self.lane_at(other).is_trusted();
        !self.has_sibling(path) && !self.paths[path].lanes.iter().any(sibling)
    }

    /// The first request past its age (W15): whether it writes, and how old it is.
    fn overdue(&self, slot: u16) -> Option<(bool, Nanos)> {
        self.overdue_slot(slot).map(|(entry, _)| (entry.write, self.now - entry.sent_at))
    }

    /// The same: the request, and the age it was allowed.
    pub(crate) fn overdue_slot(&self, slot: u16) -> Option<(&Slot, Nanos)> {
        let last = self.is_last(slot);
        self.lane_at(slot).in_order().find_map(|(_, entry)| {
            self.is_overdue(entry, last).then(|| (entry, self.allowed_age(entry, last)))
        })
    }

    /// How long a canary may be unanswered.
    pub(crate) fn canary_deadline(&self, slot: u16) -> Nanos {
        let patience = if self.is_last(slot) { LAST_PATH_FACTOR } else { 1 };
        self.program.canary.deadline * patience
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
        let last = self.is_last(slot);
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
            let rule = match cause {
                Cause::LinkSilent | Cause::WindowClosed => "W16",
                Cause::Overdue | Cause::CanaryOverdue => "W15",
                Cause::Outrun => "hedge",
            };
            self.paths[path].explain(rule, text);
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
        }
        self.blame(path);
        if last {
            // Nowhere to go: it is shown, and used all the same (W15).
            return;
        }
        let (read, write) = (self.program.deadline.read, self.program.deadline.write);
        self.move_pieces(slot, |entry| {
            // Reads may move at any suspicion (W2). A write moves when its lane is
            // silent or when it is itself overdue (W15); its range stays locked.
            let base = if entry.write { write } else { read };
            let due = policies::request_deadline(base, entry.ahead + entry.len, false);
            !entry.write || cause == Cause::LinkSilent || now - entry.sent_at >= due
        });
        let lane = self.lane_at(slot);
        if cause == Cause::LinkSilent && lane.in_order().any(|(_, entry)| entry.write) {
            // W16: nothing can come of it any more but a ghost.
            let (id, gate) = (lane.id, lane.offer().gate);
            self.fence(id, path, gate);
        }
    }

    fn check_suspicion(&mut self, slot: u16) {
        let Some(suspicion) = self.lane_at(slot).suspicion else { return };
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
        } else if self.overdue(slot).is_some() && self.has_sibling(index) {
            self.give_up(slot);
        }
    }

    /// W13: as long as its connection stands a zombie's writes are known alive. At the
    /// hold they are let go without proof, and the zombie is kept for what its late replies
    /// tell; with several writers nothing could be mended then, so it is closed instead.
    fn check_zombie(&mut self, slot: u16) {
        self.sample_zombie(slot);
        let lane = self.lane_at(slot);
        let hold = match self.program.no_path {
            _ if self.program.unproven == Unproven::Hold && self.rules.w13_hold => Nanos::MAX,
            NoPath::Hold(hold) => hold,
            NoPath::Fail => self.program.quiesce,
            NoPath::Forever => Nanos::MAX,
        };
        if !self.owes_proof(lane) {
            self.decide_zombie_over(slot, "close the old connection: nothing on it can land any more");
            self.close(slot, Close::Abort);
            return;
        }
        let oldest = lane.oldest().map_or(0, |index| lane.slot(index).sent_at);
        if self.now - oldest < hold {
            return;
        }
        if self.program.writers == Writers::Many {
            self.decide_zombie_over(slot, "close the old connection: the hold is over");
            self.close(slot, Close::Abort);
            return;
        }
        let path = lane.path;
        let due = lane.in_order().filter(|(_, entry)| entry.write && self.now - entry.sent_at >= hold);
        let pieces: Vec<Key> = due
            .filter_map(|(_, entry)| match entry.used {
                Use::Piece { piece, .. } => Some(piece),
                _ => None,
            })
            .filter(|&piece| self.pieces.get(piece).quarantine.is_some())
            .collect();
        for piece in pieces {
            self.report_let_go(piece, path);
            self.decide_let_go(piece, path);
            self.let_go(piece, path);
        }
    }

    /// W13: what says that a zombie's writes are alive is that its peer's kernel acknowledges.
    fn sample_zombie(&mut self, slot: u16) {
        let now = self.now;
        let lane = self.lane_at_mut(slot);
        if now >= lane.next_sample && !lane.offer().local {
            lane.next_sample = now + ZOMBIE_SAMPLE_INTERVAL;
            let id = lane.id;
            self.act(Action::SampleTcp(id));
        }
    }

    fn check_probation(&mut self) {
        let mut changed = false;
        for index in 0..self.paths.len() {
            let now = self.now;
            if let Some(over) = self.paths[index].probation.take_if(|probation| probation.done(now)) {
                self.decide_full_share(index, over.started());
                changed = true;
            }
        }
        if changed {
            self.regroup();
        }
    }

    fn canary_due(&self, slot: u16) -> Option<Nanos> {
        let lane = self.lane_at(slot);
        if lane.state != LaneState::Up || lane.canary_sent.is_some() || self.stopping {
            return None;
        }
        let path = &self.paths[lane.path];
        let waits_for_canaries =
            path.sick || path.probation.as_ref().is_some_and(|probation| probation.share_ppm(self.now) == 0);
        if waits_for_canaries {
            let pace = if path.sick { self.program.canary.interval } else { PROBATION_CANARY_INTERVAL };
            return Some(lane.last_canary + pace);
        }
        let regular = path.canary.next_due(lane.last_reply, self.is_busy());
        Some(self.quiet_due(lane).map_or(regular, |quiet| quiet.min(regular)))
    }

    /// W16: with work in flight and not a byte for a while, a read tells whether
    /// the server or only that request is slow.
    fn quiet_due(&self, lane: &Lane) -> Option<Nanos> {
        let oldest = lane.slot(lane.oldest()?);
        let quiet_since = oldest.sent_at.max(lane.last_active);
        let asked_lately = quiet_since < lane.last_canary + self.program.canary.interval;
        // How long a FLUSH takes says nothing, and is not known.
        let latency = &self.paths[lane.path].latency;
        let expected_ns = if oldest.patient { 0 } else { latency.expected_ns(oldest.write, oldest.len) };
        Some(quiet_since + policies::silence::probe_after(expected_ns, asked_lately))
    }

    fn send_canaries(&mut self) {
        let slots = || (0..self.lanes.len() as u16).filter(|&slot| self.lanes[slot as usize].is_some());
        if !slots().filter_map(|slot| self.canary_due(slot)).any(|due| due <= self.now) {
            return;
        }
        // An idle device is woken once for all its lanes.
        let early = if self.is_busy() { 0 } else { self.program.canary.idle / 8 };
        for slot in 0..self.lanes.len() as u16 {
            let due = self.lanes[slot as usize].as_ref().and_then(|_| self.canary_due(slot));
            if due.is_none_or(|due| due > self.now + early) {
                continue;
            }
            if !self.lane_at(slot).has_spare() {
                continue;
            }
            let now = self.now;
            let block = u64::from(self.lane_at(slot).offer().min_block_bytes.max(512));
            let len = block.min(self.lane_at(slot).offer().size_bytes);
            let lane = self.lane_at_mut(slot);
            lane.canary_sent = Some(now);
            lane.last_canary = now;
            let path = lane.path;
            self.paths[path].canary.on_sent(now);
            if len > 0 {
                self.internal_read(slot, Use::Canary, 0, len);
            }
        }
    }

    pub(crate) fn canary_reply(&mut self, id: LaneId, result: Result<(), Errno>) {
        let now = self.now;
        let lane = self.lane_mut(id);
        let sent = lane.canary_sent.take();
        let index = lane.path;
        let good = result.is_ok();
        match sent {
            Some(sent) if good => {
                self.answered_well(index, false, 0, now - sent);
                self.note(|_| DecisionPoint::Canary { path: index, service_ns: now - sent });
            }
            // One that is out already is asked so that it tells when it is well.
            _ if !self.paths[index].sick => self.in_trouble(index),
            _ => {}
        }
        let path = &mut self.paths[index];
        if !good {
            path.errors += 1;
            path.strikes = path.strikes.saturating_add(1);
        } else if !path.sick {
            path.strikes = 0;
        }
        if path.strikes >= STRIKES && !path.sick && self.has_sibling(index) {
            let text = format!("{STRIKES} canary reads in a row were answered with an error");
            self.sicken(index, text);
        }
        let path = &mut self.paths[index];
        let before = path.probation.as_ref().map(|probation| probation.share_ppm(now));
        if path.sick && path.probation.is_none() {
            path.probation = Some(policies::Probation::start(now));
        }
        if let Some(probation) = path.probation.as_mut() {
            probation.on_canary(now, good);
            if path.sick && probation.share_ppm(now) > 0 {
                path.sick = false;
                path.strikes = 0;
                path.explain("probation", String::from("canaries are good again: a small share first"));
            }
        }
        let after = path.probation.as_ref().map(|probation| probation.share_ppm(now));
        if before != after || !good {
            self.decide_probation_step(index, good);
        }
        if before != after {
            self.regroup();
        }
    }

    /// How long a request may wait for want of a path.
    pub(crate) fn hold_time(&self) -> Nanos {
        match self.program.no_path {
            NoPath::Hold(hold) => hold,
            NoPath::Fail => 0,
            NoPath::Forever => Nanos::MAX,
        }
    }

    fn hold_end(&self) -> Option<Nanos> {
        match (self.held_since, self.program.no_path) {
            (Some(since), NoPath::Hold(hold)) if !self.failed => Some(since + hold),
            _ => None,
        }
    }

    fn check_hold(&mut self) {
        let over = self.hold_end().is_some_and(|end| end <= self.now);
        let at_once = self.held_since.is_some() && self.program.no_path == NoPath::Fail;
        if !over && !at_once {
            return;
        }
        if over {
            let hold = self.hold_end().zip(self.held_since).map(|(end, since)| end - since);
            self.decide_hold_over("3.7", hold);
            self.event(
                "hold_over",
                None,
                "3.7",
                String::from("no path came back within the hold: requests fail with EIO until one does"),
            );
            self.end_hold();
            return;
        }
        self.fail_unstarted();
    }

    /// An operator's command.
    pub(crate) fn device_command(&mut self, command: DeviceCommand) {
        match command {
            DeviceCommand::FailNow if self.held_since.is_some() => {
                self.event("hold_ended", None, "operator", String::from("ended by `device fail-now`"));
                self.decide_hold_over("operator", None);
                self.end_hold();
            }
            DeviceCommand::FailNow => {}
            DeviceCommand::ClearLoss => {
                if self.lost_writes.take().is_some() {
                    let text = "an operator has taken note of the loss: FLUSH and FUA work again";
                    self.event("loss_cleared", None, "F9", text.into());
                }
            }
        }
    }

    /// Requests fail until a path is back.
    fn end_hold(&mut self) {
        self.failed = true;
        // Also what is on lanes that do not answer: there are no others.
        let all: Vec<Key> = self.requests.iter().map(|(key, _)| key).collect();
        self.fail_all(&all, Errno::Io);
    }

    /// Fails every request that waits: for a path, for a range, for a domain.
    pub(crate) fn fail_unstarted(&mut self) {
        let waiting: Vec<Key> =
            self.requests.iter().map(|(key, _)| key).filter(|&key| self.waits(key)).collect();
        let errno = self.held_errno();
        self.fail_all(&waiting, errno);
    }

    /// One that fails may end another (a grant): only those that are still there.
    fn fail_all(&mut self, keys: &[Key], errno: Errno) {
        for &key in keys {
            if self.requests.contains(key) {
                self.fail_request(key, errno);
            }
        }
    }

    /// Nothing of it is on a live lane.
    fn waits(&self, key: Key) -> bool {
        let request = self.requests.get(key);
        if matches!(request.state, RequestState::Blocked | RequestState::AwaitingReplay) {
            return true;
        }
        let mut next = request.first_piece;
        let mut queued = false;
        while let Some(piece) = next {
            let piece = self.pieces.get(piece);
            queued |= piece.queued && piece.state != crate::request::PieceState::Done;
            next = piece.next;
        }
        queued
    }

    /// Requests that waited too long for something other than a path: a
    /// quarantine or proof (W13, W20), a cache domain (F2), a second opinion on an EIO.
    fn check_waiting(&mut self) {
        let (now, hold) = (self.now, self.hold_time());
        let switch_hangs = self.switch_hangs(hold);
        let due: Vec<Key> = self
            .requests
            .iter()
            .filter(|(key, request)| {
                let flush = request.host.command == nbd::Command::Flush;
                let blocked = request.state == RequestState::Blocked && self.ranges.quarantined() > 0;
                // W5 with `unproven = "hold"`: proof may never come.
                let unproven =
                    request.state == RequestState::AwaitingProof && self.program.unproven == Unproven::Hold;
                let stuck = (flush || switch_hangs) && self.waits(*key);
                (blocked || unproven || stuck) && now - request.accepted >= hold
            })
            .map(|(key, _)| key)
            .collect();
        self.fail_all(&due, Errno::Io);
        self.believe_parked();
    }

    fn believe_parked(&mut self) {
        let now = self.now;
        let due: Vec<Key> = self
            .active
            .parked
            .iter()
            .copied()
            .filter(|&key| self.pieces.get(key).believe_at.is_some_and(|at| at <= now))
            .collect();
        for key in due {
            self.active.parked.retain(|&parked| parked != key);
            self.pieces.get_mut(key).queued = false;
            if self.pieces.get(key).state == crate::request::PieceState::Done {
                self.forget_piece(key);
            } else {
                self.piece_failed(key, Errno::Io);
            }
        }
        self.ask_again();
    }

    /// The other paths are away, and the one that answered EIO may have been
    /// mended: until the EIO is believed it is asked again every [`ASK_AGAIN`].
    fn ask_again(&mut self) {
        if self.active.parked.is_empty() || self.now < self.active.ask_again {
            return;
        }
        self.active.ask_again = self.now + ASK_AGAIN;
        for &key in &self.active.parked {
            self.pieces.get_mut(key).refused_by = 0;
        }
        self.unpark();
    }
}
