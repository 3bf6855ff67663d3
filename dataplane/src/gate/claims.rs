// SPDX-License-Identifier: MIT OR Apache-2.0
//! Claims on their way through the owner of a device.
//!
//! ```text
//! Queued -> Asked --register refuses, or cannot be used--> refused
//!             \---granted--> Waiting --what it ends is over--> admitted
//! any --drain_max--> refused; what was raised stays
//! ```
//!
//! An admission is a promise about others, not about the one who gets it: until its session begins it may be
//! overtaken itself, so the beginning of a session judges it again.

use std::io;
use std::sync::Arc;

use policies::fence::{Refusal, holds_up};
use program::{MILLISECOND, Nanos};

use crate::gate::Gate;
use crate::gate::register::{Granted, Wish};
use crate::jobs::{Job, Task};
use crate::mailbox::Mail;
use crate::reactor::Reactor;
use crate::slab::Key;
use crate::timers::Due;

/// Between two looks at the words of other processes, which nothing announces.
const OTHERS_POLL: Nanos = 2 * MILLISECOND;

/// A claim for the owner of a device.
pub(crate) struct ClaimMail {
    pub(crate) device: String,
    /// Reactor and key of the handshake.
    pub(crate) from: (usize, Key),
    pub(crate) wish: Wish,
}

/// Why a claim is refused, for the client's operator.
pub(crate) enum ClaimRefused {
    Policy(String),
    Shutdown,
}

/// A claim in work.
pub(crate) struct Claiming {
    number: u64,
    from: (usize, Key),
    wish: Wish,
    deadline: Nanos,
    granted: Option<Granted>,
}

impl Reactor {
    /// A claim has come.
    pub(crate) fn gate_claim(&mut self, mail: ClaimMail) {
        let ClaimMail { device, from, wish } = mail;
        let now = self.clock.now();
        let key = self.device_named(&device).filter(|key| !self.is_stopping(*key));
        let Some(key) = key else { return self.gate_answer(from, Err(ClaimRefused::Shutdown)) };
        if let Some(refusal) = self.known_conflict(key, &wish) {
            return self.gate_answer(from, Err(ClaimRefused::Policy(refusal.to_string())));
        }
        let Some(guard) = self.devices.get_mut(key).and_then(|device| device.guard.as_mut()) else {
            return self.gate_answer(from, Err(ClaimRefused::Policy("this export is no gate".into())));
        };
        guard.claims_made += 1;
        let number = guard.claims_made;
        let deadline = now + guard.gate.fence.drain_max;
        guard.claims.push(Claiming { number, from, wish, deadline, granted: None });
        self.timers.set(deadline, Due::Gate(key));
        self.gate_ask(key);
    }

    /// Lets the register judge the next claim.
    fn gate_ask(&mut self, device: Key) {
        let Some(guard) = self.devices.get_mut(device).and_then(|device| device.guard.as_mut()) else {
            return;
        };
        let next = guard.claims.iter().find(|claim| claim.granted.is_none());
        let Some(Claiming { number, wish, .. }) = next.filter(|_| guard.asking.is_none()) else { return };
        guard.asking = Some(*number);
        let task = Task::Claim { gate: guard.gate.clone(), wish: Box::new(wish.clone()) };
        self.jobs.start(Job { lane: device, cookie: *number, wanted: Arc::new(true.into()), task });
    }

    /// What only the sessions that are here can tell; strangers are told nothing of them.
    fn known_conflict(&self, device: Key, wish: &Wish) -> Option<Refusal> {
        if !wish.standing.is_trusted() {
            return None;
        }
        let sessions = &self.devices.get(device)?.sessions;
        let claims = || sessions.iter().filter_map(|key| self.sessions.get(*key)?.claim.as_ref());
        if claims().any(|claim| claim.session == wish.session) {
            return Some(Refusal::SessionKnown);
        }
        let foreign = |session| claims().any(|claim| claim.session == session && claim.member != wish.member);
        wish.kill.is_some_and(foreign).then_some(Refusal::KillOfOther)
    }

    /// The register has judged.
    pub(crate) fn gate_judged(
        &mut self,
        device_key: Key,
        number: u64,
        outcome: io::Result<Result<Granted, Refusal>>,
    ) {
        self.gate_take(device_key, number, outcome);
        self.gate_ask(device_key);
    }

    fn gate_take(&mut self, device_key: Key, number: u64, outcome: io::Result<Result<Granted, Refusal>>) {
        let Some(device) = self.devices.get_mut(device_key) else { return };
        let Some(guard) = device.guard.as_mut() else { return };
        guard.asking = None;
        let Some(at) = guard.claims.iter().position(|claim| claim.number == number) else { return };
        let refused = match outcome {
            Ok(Ok(granted)) => {
                guard.claims[at].granted = Some(granted);
                self.gate_judge(device_key);
                self.run_events();
                return self.gate_look(device_key);
            }
            Ok(Err(refusal)) => refusal.to_string(),
            Err(error) => {
                let device = &device.program.name;
                crate::log::error!(
                    "gate",
                    "{device}: the register cannot be used, claims are refused: {error}"
                );
                format!("the gate's register cannot be used: {error}")
            }
        };
        let from = guard.claims.remove(at).from;
        self.gate_answer(from, Err(ClaimRefused::Policy(refused)));
    }

    /// Looks whether claims that wait may be answered.
    pub(crate) fn gate_look(&mut self, device_key: Key) {
        let now = self.clock.now();
        let (mut at, mut poll) = (0, false);
        while let Some(device) = self.devices.get(device_key) {
            let Some(guard) = device.guard.as_ref() else { return };
            let Some(claim) = guard.claims.get(at) else { break };
            let over = now >= claim.deadline;
            let Some(granted) = claim.granted else {
                if over {
                    let text = "another gate process has been changing the register for all of drain_max";
                    self.gate_answer_at(device_key, at, Err(ClaimRefused::Policy(text.into())));
                } else {
                    at += 1;
                }
                continue;
            };
            let here = self.sessions_in_the_way(&device.sessions, claim.wish.kill);
            let elsewhere = others_in_the_way(&guard.gate, granted.generation);
            let answer = if here == 0 && elsewhere == 0 {
                Ok(granted)
            } else if over {
                Err(ClaimRefused::Policy(format!(
                    "sessions that this claim ends still have requests in execution ({here} sessions here, \
                     {elsewhere} other gate processes) after drain_max; what was raised stays, try again"
                )))
            } else {
                poll |= elsewhere > 0;
                at += 1;
                continue;
            };
            self.gate_answer_at(device_key, at, answer);
        }
        self.gate_look_again(device_key, poll);
    }

    /// Nothing announces what other processes do: looks again soon, if that is what is waited for. At most one
    /// such timer is set.
    fn gate_look_again(&mut self, device: Key, poll: bool) {
        let now = self.clock.now();
        let Some(guard) = self.devices.get_mut(device).and_then(|device| device.guard.as_mut()) else {
            return;
        };
        if poll && guard.look_at.is_none_or(|at| at <= now) {
            guard.look_at = Some(now + OTHERS_POLL);
            self.timers.set(now + OTHERS_POLL, Due::Gate(device));
        }
    }

    fn gate_answer_at(&mut self, device: Key, at: usize, answer: Result<Granted, ClaimRefused>) {
        let Some(guard) = self.devices.get_mut(device).and_then(|device| device.guard.as_mut()) else {
            return;
        };
        let from = guard.claims.remove(at).from;
        self.gate_answer(from, answer);
    }

    fn sessions_in_the_way(&self, sessions: &[Key], kill: Option<u128>) -> usize {
        let claims = sessions.iter().filter_map(|key| self.sessions.get(*key)?.claim.as_ref());
        claims
            .filter(|claim| claim.ended.is_some_and(|why| holds_up(why, Some(claim.session) == kill)))
            .count()
    }

    /// The device goes: nobody waits for it any more.
    pub(crate) fn gate_close(&mut self, device: Key) {
        let Some(guard) = self.devices.get_mut(device).and_then(|device| device.guard.as_mut()) else {
            return;
        };
        for claim in std::mem::take(&mut guard.claims) {
            self.gate_answer(claim.from, Err(ClaimRefused::Shutdown));
        }
    }

    fn gate_answer(&mut self, (reactor, handshake): (usize, Key), answer: Result<Granted, ClaimRefused>) {
        if reactor == self.index {
            self.handshake_claimed(handshake, answer);
        } else {
            self.node.mailboxes[reactor].send(Mail::Claimed(handshake, answer));
        }
    }
}

/// Other processes that are not through. One that cannot be asked about is in the way.
fn others_in_the_way(gate: &Gate, generation: u64) -> usize {
    gate.register.others_in_the_way(generation).unwrap_or(usize::MAX)
}
