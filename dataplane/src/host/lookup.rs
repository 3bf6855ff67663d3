// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a host is told of an export, and the start of its session.
//!
//! A device whose paths are all down answers from the geometry that was recorded. One
//! that was never seen holds the handshake for `handshake_timeout`, then refuses with the
//! reason (design 3.3). It waits once: a client that asks for contexts, INFO and GO one after
//! the other is not held for each of them.

use engine::{Event, SessionId};
use nbd::gate::{NODE_CONTEXT, access_context};
use nbd::server::{ExportInfo, LookupError, Purpose};
use nbd::{BlockSizes, TransmissionFlags};
use program::{Geometry, HostSessions};
use ring::{Expect, Fd};

use crate::host::handshake::Stage;
use crate::host::inbox::Inbox;
use crate::host::session::{Phase, Session};
use crate::log;
use crate::mailbox::NewSession;
use crate::outbox::Outbox;
use crate::reactor::Reactor;
use crate::slab::Key;
use crate::timers::Due;

/// What a host is told of a device that was never seen.
pub(crate) const NOT_REACHED: &str = "no path of this device has been reached yet, so its size is not known";

impl Reactor {
    pub(crate) fn handshake_list(&mut self, key: Key) {
        let Some(shaking) = self.handshakes.get_mut(key) else { return };
        let names = self.node.directory.names(&shaking.shown);
        shaking.machine.answer_list(names.iter().map(String::as_str));
    }

    pub(crate) fn handshake_lookup(&mut self, key: Key, name: &str, purpose: Purpose) {
        let Some(shaking) = self.handshakes.get_mut(key) else { return };
        if shaking.turned_away {
            let max = self.program.node.max_sessions;
            let text = format!("this node serves max_sessions = {max} host connections and has that many");
            shaking.machine.answer_lookup(Err(LookupError::Policy(text)));
            return;
        }
        match self.node.directory.find(&shaking.shown, name) {
            None => self.handshake_lookup_claim(key, name, purpose),
            Some((name, export)) => {
                if let Some(geometry) = export.geometry {
                    let program = self.program.devices.iter().find(|device| device.name == name);
                    let alone = program.is_some_and(|device| device.host_sessions == HostSessions::Exclusive);
                    let mut info = export_info(&name, &geometry, alone);
                    // To be read, and not selected: no BLOCK_STATUS answers for them.
                    if purpose == Purpose::ListContexts {
                        if export.gate.is_none() {
                            info.contexts.push(NODE_CONTEXT.to_owned());
                        }
                        let told = program.and_then(|device| device.told_access);
                        info.contexts.extend(told.map(|access| access_context(access.as_str())));
                    }
                    self.handshake_answer_plain(key, info, export.gate.as_deref(), purpose);
                } else if shaking.waited {
                    shaking.machine.answer_lookup(Err(LookupError::Shutdown(NOT_REACHED.into())));
                } else {
                    self.handshake_wait(key);
                }
            }
        }
    }

    /// Until a path has told the geometry.
    pub(crate) fn handshake_wait(&mut self, key: Key) {
        let deadline = self.clock.now() + self.program.node.handshake_timeout;
        let Some(shaking) = self.handshakes.get_mut(key) else { return };
        shaking.stage = Stage::Waiting;
        shaking.deadline = deadline;
        self.timers.set(deadline, Due::Handshake(key));
    }

    /// The directory has changed: handshakes that wait for a geometry ask again.
    pub(crate) fn handshakes_look_again(&mut self) {
        for key in self.handshakes.keys() {
            let Some(shaking) = self.handshakes.get_mut(key) else { continue };
            if matches!(shaking.stage, Stage::Waiting) {
                let deadline = shaking.deadline;
                shaking.stage = Stage::Haggling;
                self.handshake_advance(key);
                // Still nothing: the time does not start anew.
                if let Some(shaking) = self.handshakes.get_mut(key)
                    && matches!(shaking.stage, Stage::Waiting)
                {
                    shaking.deadline = deadline;
                }
            }
        }
    }

    pub(crate) fn handshake_give_up_waiting(&mut self, key: Key) {
        let deadline = self.clock.now() + self.program.node.handshake_timeout;
        let Some(shaking) = self.handshakes.get_mut(key) else { return };
        log::warning!("handshake", "{} refused: {NOT_REACHED}", shaking.peer);
        shaking.waited = true;
        shaking.machine.answer_lookup(Err(LookupError::Shutdown(NOT_REACHED.into())));
        shaking.stage = Stage::Haggling;
        shaking.deadline = deadline;
        self.timers.set(deadline, Due::Handshake(key));
        self.handshake_advance(key);
    }

    /// Serves a host that has finished its handshake on a device of this reactor.
    pub(crate) fn session_begin(&mut self, new: NewSession) {
        let NewSession { fd, peer, session, claim, rest, ticket } = new;
        let Some(device_key) = self.device_named(&session.export.name) else {
            log::warning!("handshake", "{peer} closed: {} is gone", session.export.name);
            return;
        };
        if let Some(why) = claim.as_ref().and_then(|claim| self.gate_bars(device_key, claim)) {
            log::warning!("gate", "{peer} closed: {why}");
            return;
        }
        self.end_older_sessions(device_key, &peer);
        let mode = session.session_mode();
        let now = self.clock.now();
        let key = self.sessions.insert(Session {
            fd: Some(Fd::new(fd)),
            peer,
            device: device_key,
            limits: session.limits(),
            mode,
            phase: Phase::Serving,
            inbox: Inbox::new(mode.reply.is_extended()),
            outbox: Outbox::default(),
            in_flight: 0,
            unanswered: 0,
            held_bytes: 0,
            paused: None,
            receiving: false,
            expect: Expect::Now,
            dirty: false,
            refused: None,
            closed: false,
            progress_at: now,
            payload_since: now,
            heard_at: now,
            claim,
            linger_until: 0,
            _ticket: ticket,
        });
        if let Some(device) = self.devices.get_mut(device_key) {
            device.sessions.push(key);
        }
        self.feed(device_key, Event::SessionOpened(SessionId(key.index)));
        self.session_unread(key, &rest);
        if self.is_stopping(device_key) && self.sessions.get(key).is_some() {
            self.session_finish(key);
        }
    }
}

impl Reactor {
    /// W21: what a host sent on a connection that it gave up must not be carried out after
    /// what it sends now. What was started there is finished first, by the range locks.
    fn end_older_sessions(&mut self, device: Key, peer: &str) {
        let Some(entry) = self.devices.get(device) else { return };
        if entry.program.host_sessions != HostSessions::Exclusive {
            return;
        }
        let same =
            |key: &Key| self.sessions.get(*key).is_some_and(|old| identity(&old.peer) == identity(peer));
        let older: Vec<Key> = entry.sessions.iter().copied().filter(same).collect();
        for key in older {
            self.session_lost(
                key,
                &"replaced by a new session of the same host (host_sessions = \"exclusive\")",
            );
        }
    }
}

/// Who a peer is: its address without the port; all Unix sockets are one.
fn identity(peer: &str) -> &str {
    match peer.rsplit_once(':') {
        Some((address, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => address,
        _ => peer,
    }
}

/// A geometry as the handshake tells it. BLOCK_STATUS is always offered: where the
/// storage cannot tell, "unknown" is a lawful answer.
pub(crate) fn export_info(name: &str, geometry: &Geometry, alone: bool) -> ExportInfo {
    let mut info = ExportInfo::new(name, geometry.size_bytes);
    info.flags = TransmissionFlags(geometry.transmission_flags);
    if alone {
        info.flags = info.flags.without(TransmissionFlags::CAN_MULTI_CONN);
    }
    info.block = BlockSizes {
        min_bytes: geometry.min_block_bytes,
        preferred_bytes: geometry.preferred_block_bytes,
        max_bytes: geometry.max_payload_bytes,
    };
    info.base_allocation = true;
    info
}
