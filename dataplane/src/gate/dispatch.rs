// SPDX-License-Identifier: MIT OR Apache-2.0
//! The fence right before a request is submitted, and what happens to sessions that it ends.

use engine::LaneId;
use policies::fence::Ended;

use crate::gate::Claimed;
use crate::host::session::Session;
use crate::reactor::Reactor;
use crate::slab::Key;
use crate::timers::Due;

/// Whether a request may be executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Passage {
    /// No gate.
    Free,
    /// Yes; to be ended under this generation.
    Granted(u64),
    /// No: its session is ended.
    Barred,
}

impl Reactor {
    /// A request that changes data, of whatever session, is about to be submitted.
    pub(crate) fn gate_pass(&mut self, device: Key, lane: LaneId, cookie: u64) -> Passage {
        loop {
            let Some(guard) = self.devices.get_mut(device).and_then(|device| device.guard.as_mut()) else {
                return Passage::Free;
            };
            let Some(generation) = guard.begin() else {
                self.gate_judge(device);
                continue;
            };
            if guard.ended > 0 && self.is_of_ended_session(device, lane, cookie) {
                self.gate_done(device, generation);
                return Passage::Barred;
            }
            return Passage::Granted(generation);
        }
    }

    /// It is no longer in execution.
    pub(crate) fn gate_done(&mut self, device: Key, generation: u64) {
        if let Some(guard) = self.devices.get_mut(device).and_then(|device| device.guard.as_mut()) {
            guard.end(generation);
        }
    }

    fn is_of_ended_session(&self, device: Key, lane: LaneId, cookie: u64) -> bool {
        let Some(device) = self.devices.get(device) else { return false };
        let Some(session) = device.engine.session_of(lane, cookie) else { return false };
        device
            .sessions
            .iter()
            .find(|key| key.index == session.0)
            .and_then(|key| self.sessions.get(*key))
            .is_some_and(Session::is_ended)
    }

    /// Judges the sessions of a device anew, if there was a raise or a kill since. What is ended executes and
    /// answers nothing from here on, and is cut off as soon as no engine is at work.
    pub(crate) fn gate_judge(&mut self, device_key: Key) {
        let Some(device) = self.devices.get_mut(device_key) else { return };
        let Some(guard) = device.guard.as_mut() else { return };
        if !guard.must_judge() {
            return;
        }
        let register = &guard.gate.register;
        let kills = register.live.kills();
        for key in &device.sessions {
            let Some(claim) = self.sessions.get_mut(*key).and_then(|session| session.claim.as_mut()) else {
                continue;
            };
            if claim.ended.is_some() {
                continue;
            }
            claim.ended = register.ended(claim.index, claim.epoch, claim.session, claim.kills);
            claim.kills = kills;
            if claim.ended.is_some() {
                guard.ended += 1;
                self.gate_ended.push(*key);
            }
        }
        guard.judged();
    }

    /// Cuts off a session that was ended.
    pub(crate) fn gate_cut(&mut self, key: Key) {
        let Some(session) = self.sessions.get(key) else { return };
        let Some(claim) = session.claim.as_ref() else { return };
        let why = match claim.ended {
            Some(Ended::Killed) => "it was killed",
            _ => "a higher epoch or floor has overtaken it",
        };
        let text = format!("{} at epoch {}: {why} (semantics 2.4)", claim.member, claim.epoch);
        crate::log::info!("gate", "session of {} ended, {text}", session.peer);
        self.session_lost(key, &text);
    }

    /// Why an admitted session may not begin, if it may not: it was overtaken on its way, or is here already.
    pub(crate) fn gate_bars(&self, device: Key, claim: &Claimed) -> Option<&'static str> {
        let device = self.devices.get(device)?;
        let guard = device.guard.as_ref()?;
        let mut claims = device.sessions.iter().filter_map(|key| self.sessions.get(*key)?.claim.as_ref());
        if claims.any(|other| other.session == claim.session) {
            return Some("a session of the same id is open");
        }
        let ended = guard.gate.register.ended(claim.index, claim.epoch, claim.session, claim.kills);
        ended.map(|_| "its claim was overtaken before it began")
    }

    /// A session has left the table.
    pub(crate) fn gate_session_gone(&mut self, device: Key, was_ended: bool) {
        if let Some(guard) = self.devices.get_mut(device).and_then(|device| device.guard.as_mut())
            && was_ended
        {
            guard.ended -= 1;
            // Not at once: an engine may be at work.
            self.timers.set(self.clock.now(), Due::Gate(device));
        }
    }

    /// Once in a while: raises and kills of other processes end idle sessions too, and silent ones go.
    pub(crate) fn gate_sweep(&mut self) {
        let now = self.clock.now();
        let mut silent = Vec::new();
        let guarded: Vec<Key> =
            self.devices.iter().filter(|(_, device)| device.guard.is_some()).map(|(key, _)| key).collect();
        for key in guarded {
            self.gate_judge(key);
            let Some(device) = self.devices.get(key) else { continue };
            let Some(guard) = device.guard.as_ref() else { continue };
            let limit = guard.gate.fence.idle_limit;
            let is_silent = |key: &Key| {
                let session = self.sessions.get(*key);
                session.is_some_and(|session| {
                    session.claim.is_some() && limit > 0 && now.saturating_sub(session.heard_at) > limit
                })
            };
            silent.extend(device.sessions.iter().copied().filter(is_silent));
        }
        self.run_events();
        for key in silent {
            if self.sessions.get(key).is_some() {
                self.session_finish(key);
            }
        }
    }
}
