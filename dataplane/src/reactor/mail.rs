// SPDX-License-Identifier: MIT OR Apache-2.0
//! Mail: from the control plane, other reactors, helper threads.

use engine::Event;
use program::{DeviceExplanation, DeviceStatus};

use crate::mailbox::Mail;
use crate::reactor::Reactor;
use crate::slab::Key;
use crate::tokens::{Asked, token};

impl Reactor {
    pub(crate) fn await_mail(&mut self) {
        let key = Key { index: 0, generation: 0 };
        self.ring.read_event(token(Asked::Mail, key), &self.wake);
    }

    pub(crate) fn mail(&mut self) {
        self.wake.acknowledge();
        while let Some(mail) = self.node.mailboxes[self.index].take() {
            self.deliver(mail);
            self.run_events();
        }
        self.await_mail();
    }

    fn deliver(&mut self, mail: Mail) {
        match mail {
            Mail::Session(new) => self.session_begin(*new),
            Mail::Claim(claim) => self.gate_claim(*claim),
            Mail::Claimed(handshake, answer) => self.handshake_claimed(handshake, answer),
            Mail::Apply(program, listeners) => self.apply(&program, listeners),
            Mail::Path { device, path, command } => {
                if let Some(key) = self.device_named(&device) {
                    self.feed(key, Event::Path { path, command });
                }
            }
            Mail::Device { device, command } => {
                if let Some(key) = self.device_named(&device) {
                    self.feed(key, Event::Device(command));
                }
            }
            // Whoever asked may have given up waiting.
            Mail::Snapshot(answer) => drop(answer.send(self.snapshot())),
            Mail::Explain(device, answer) => drop(answer.send(self.explain(&device))),
            Mail::Directory => self.handshakes_look_again(),
            Mail::Job(done) => self.job_done(done),
            Mail::Shutdown(bound) => self.stop(bound),
            Mail::StopHidden => self.stop_hidden(),
        }
    }

    fn explain(&self, name: &str) -> Option<DeviceExplanation> {
        let device = self.devices.get(self.device_named(name)?)?;
        Some(device.engine.explain(self.clock.now()))
    }

    fn snapshot(&self) -> Vec<DeviceStatus> {
        let now = self.clock.now();
        self.devices
            .iter()
            .filter(|(_, device)| !device.removed)
            .map(|(_, device)| {
                let mut status = device.engine.status(now);
                status.sessions = device
                    .sessions
                    .iter()
                    .filter_map(|key| self.sessions.get(*key))
                    .filter(|session| !session.closed || session.is_ended())
                    .map(crate::host::session::Session::status)
                    .collect();
                status
            })
            .collect()
    }
}
