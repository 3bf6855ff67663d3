// SPDX-License-Identifier: MIT OR Apache-2.0
//! Shutdown: finish what is in flight, close at frame boundaries, within a bound.
//!
//! In two stages over all reactors, because a device may have its storage in this very
//! process (the demo's embedded storage, on a listener of its own): the public devices
//! finish first, while the hidden ones still serve them; when the last reactor is
//! through with that, the hidden ones finish.

use engine::Event;
use program::{Exports, Nanos, ReportKind};

use crate::log;
use crate::mailbox::Mail;
use crate::reactor::Reactor;
use crate::slab::Key;
use crate::timers::Due;

/// How far the shutdown is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stopping {
    /// Not asked for.
    No,
    /// The public devices finish.
    Public,
    /// They are through here; others may not be.
    Waiting,
    /// The hidden devices finish.
    All,
}

impl Reactor {
    pub(crate) fn stop(&mut self, bound: Nanos) {
        if self.stopping > Stopping::No {
            return;
        }
        self.stopping = Stopping::Public;
        self.timers.set(self.clock.now() + bound, Due::Shutdown);
        self.stop_what_is_due();
    }

    /// Every reactor is through with its public devices.
    pub(crate) fn stop_hidden(&mut self) {
        self.stopping = Stopping::All;
        self.stop_what_is_due();
    }

    /// Whether a device is to finish now.
    pub(crate) fn is_stopping(&self, device: Key) -> bool {
        let public = || {
            self.devices
                .get(device)
                .is_none_or(|device| device.removed || self.node.directory.is_public(&device.program.name))
        };
        match self.stopping {
            Stopping::No => false,
            Stopping::Public | Stopping::Waiting => public(),
            Stopping::All => true,
        }
    }

    fn is_over(&self, shown: &Exports) -> bool {
        self.stopping == Stopping::All || (self.stopping > Stopping::No && *shown == Exports::Public)
    }

    /// No new connections and requests for the devices of this stage; their engines and
    /// sessions finish.
    pub(crate) fn stop_what_is_due(&mut self) {
        for key in self.listeners.keys() {
            if self.listeners.get(key).is_some_and(|listening| self.is_over(&listening.listener.exports)) {
                self.listener_close(key);
            }
        }
        for key in self.handshakes.keys() {
            let over = self.handshakes.get(key).is_some_and(|shaking| self.is_over(&shaking.shown));
            if let Some(shaking) = self.handshakes.get_mut(key).filter(|_| over) {
                shaking.machine.begin_shutdown();
            }
        }
        for key in self.devices.keys() {
            if self.is_stopping(key) {
                self.device_stop(key, Event::Shutdown);
            }
        }
    }

    /// Sessions close at a frame boundary, the engine finishes.
    pub(crate) fn device_stop(&mut self, key: Key, how: Event) {
        let sessions = self.devices.get(key).map(|device| device.sessions.clone());
        for session in sessions.unwrap_or_default() {
            if self.sessions.get(session).is_some() {
                self.session_finish(session);
            }
        }
        self.feed(key, how);
    }

    /// Whether the present stage is complete.
    pub(crate) fn check_stopped(&mut self) {
        if matches!(self.stopping, Stopping::No | Stopping::Waiting) {
            return;
        }
        let open = self.devices.iter().any(|(key, device)| {
            let busy = !device.engine.is_ended() || !device.sessions.is_empty() || device.has_lanes();
            busy && self.is_stopping(key)
        });
        if open {
            return;
        }
        self.report_clean();
        if self.stopping == Stopping::All {
            for key in self.handshakes.keys() {
                self.handshake_end(key);
            }
            for key in self.devices.keys() {
                self.device_discard(key);
            }
            debug_assert_eq!((self.held.len(), self.budget.reserved()), (0, 0), "memory was not given back");
            self.finished();
            return;
        }
        self.stopping = Stopping::Waiting;
        if self.node.public_is_through() {
            for mailbox in &self.node.mailboxes {
                mailbox.send(Mail::StopHidden);
            }
        }
    }

    /// Devices of this stage that leave nothing behind say so (W10).
    fn report_clean(&self) {
        for (key, device) in self.devices.iter() {
            if self.is_stopping(key) && device.engine.is_clean() {
                self.report(key, ReportKind::Clean);
            }
        }
    }

    /// The bound has passed: whatever is left is cut off.
    pub(crate) fn stop_now(&mut self) {
        log::warning!(
            "shutdown",
            "the time is over with {} sessions and {} requests open",
            self.sessions.len(),
            self.requests.len()
        );
        for key in self.devices.keys() {
            // What is lost by that is told, and recorded (F9).
            self.feed(key, Event::Abandon { why: "the time to stop was over" });
        }
        for key in self.lanes.keys() {
            self.lane_fail(key, engine::LaneFault::ByUs);
        }
        // That we cut the connections is no news of the storage.
        self.events.clear();
        self.finished();
    }
}
