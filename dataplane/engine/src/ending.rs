// SPDX-License-Identifier: MIT OR Apache-2.0
//! The device ends in order: this node stops, or the device is taken out (rules W10, F9).
//!
//! ```text
//! serving --Shutdown--> settling --------------------------------> draining --> its lanes are closed
//!                         | what is acknowledged is stable;            ^
//!                         | or it cannot be made so: a loss, told     |
//!                         +-------------------------------------------+
//! ```
//!
//! What is retained goes with this process, so it is made durable first: writes under way are answered, a replay
//! is finished, and a FLUSH of our own covers every cache. Paths connect again meanwhile. What cannot be made durable
//! is a loss for good (F9), for nobody could write it again: no path that may be written for [`PATIENCE`], a FLUSH
//! that fails [`ATTEMPTS_MAX`] times, or the driver's time is over. The driver records a loss, and the
//! next process goes on telling it.
//!
//! Where nothing is retained nothing can be done, and a cache that is not known to be flushed makes the end no clean
//! one ([`Engine::is_clean`]).

use alloc::format;
use alloc::string::String;

use nbd::Errno;
use program::{Nanos, NoPath, SECOND, Target};

use crate::engine::Engine;
use crate::request::{Origin, Request};

/// So long a path that may be written is waited for.
const PATIENCE: Nanos = 10 * SECOND;
/// A FLUSH that is answered with an error is asked so often; in between everything is written again.
const ATTEMPTS_MAX: u32 = 3;

/// How far the end is; see the module header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Nobody asked for it.
    No,
    /// What is acknowledged is made durable.
    Settling {
        /// FLUSHes sent for it.
        attempts: u32,
        /// Since when no path may be written.
        stuck_since: Option<Nanos>,
    },
    /// Nothing is sent any more but what closes the lanes.
    Draining,
}

impl Engine {
    /// [`crate::Event::Shutdown`]; once more: the time for it is over.
    pub(crate) fn shutdown(&mut self) {
        match self.ending {
            Ending::No => {
                self.ending = Ending::Settling { attempts: 0, stuck_since: None };
                self.fail_unstarted();
                self.settle();
            }
            Ending::Settling { .. } => {
                self.lose_unsettled("the time to stop was over");
                self.drain_all();
            }
            Ending::Draining => {}
        }
    }

    /// Nothing of hosts is begun any more.
    pub(crate) fn is_ending(&self) -> bool {
        self.ending != Ending::No
    }

    /// The lanes are being closed.
    pub(crate) fn is_draining(&self) -> bool {
        self.ending == Ending::Draining
    }

    /// After every event of a device that ends.
    pub(crate) fn settle(&mut self) {
        let Ending::Settling { attempts, stuck_since } = self.ending else { return };
        let now = self.now;
        let stuck_since = if self.active.writers.is_empty() { stuck_since.or(Some(now)) } else { None };
        self.ending = Ending::Settling { attempts, stuck_since };
        let writing =
            |request: &Request| request.origin == Origin::Host && request.host.command.is_write_like();
        if !self.retains() || self.lost_writes.is_some() {
            self.drain_all();
        } else if self.requests.iter().any(|(_, request)| writing(request)) {
            // They end, or the driver's time does.
        } else if !self.is_unsettled() {
            self.drain_all();
        } else if stuck_since.is_some_and(|since| now >= since + PATIENCE) {
            self.lose_unsettled("no path could be written");
            self.drain_all();
        } else if self.replay.is_none() && !self.retention.is_flushing() && now >= self.retention.next_flush()
        {
            if attempts == ATTEMPTS_MAX {
                self.lose_unsettled("FLUSH was answered with errors");
                self.drain_all();
            } else {
                self.ending = Ending::Settling { attempts: attempts + 1, stuck_since };
                self.own_flush();
            }
        }
    }

    /// Acknowledged writes that are in no stable storage as far as is known.
    fn is_unsettled(&self) -> bool {
        let open = |domain: &crate::flush::Domain| {
            domain.acked > domain.flushed || domain.lost.is_some() || domain.rewrite
        };
        self.replay.is_some() || self.domains.iter().any(open)
    }

    fn lose_unsettled(&mut self, why: &str) {
        if self.retains() && self.lost_writes.is_none() && self.is_unsettled() {
            self.lose_writes(format!(
                "this node stopped before all acknowledged writes could be made durable: {why}; what was not flushed may be in the storage's cache or gone"
            ));
        }
    }

    fn drain_all(&mut self) {
        self.ending = Ending::Draining;
        self.fail_unstarted();
        for path in 0..self.paths.len() {
            self.paths[path].explain("stop", String::from("this node stops"));
            self.drain(path);
        }
    }

    /// When [`Engine::settle`] has something to do next.
    pub(crate) fn next_settling(&self) -> Option<Nanos> {
        let Ending::Settling { stuck_since, .. } = self.ending else { return None };
        let again = Some(self.retention.next_flush()).filter(|&at| at > self.now);
        stuck_since.map(|since| since + PATIENCE).into_iter().chain(again).min()
    }

    /// What a request is told that will not be carried out. ESHUTDOWN is for the
    /// driver: it closes the session without an answer, so that the host re-sends
    /// to whoever serves next; a host never sees it (design 3.3).
    pub(crate) fn held_errno(&self) -> Errno {
        if self.is_ending() { Errno::Shutdown } else { Errno::Io }
    }

    /// Whether new requests fail at once.
    pub(crate) fn must_fail_now(&self) -> bool {
        let no_path = self.held_since.is_some() && self.program.no_path == NoPath::Fail;
        self.is_ending() || self.failed || no_path
    }

    /// Whether nothing that was sent may still be executed, and no cache is left unflushed: what a clean stop is (W10).
    pub fn is_clean(&self) -> bool {
        let zombies = self.lanes.iter().flatten().any(|lane| lane.in_order().any(|(_, slot)| slot.write));
        let remote = |domain: usize| {
            let of_it = self.paths.iter().filter(|path| path.domain == domain);
            of_it.into_iter().any(|path| matches!(path.program.target, Target::Nbd { .. }))
        };
        let unflushed = |(index, domain): (usize, &crate::flush::Domain)| {
            domain.inherited || (domain.acked > domain.flushed && remote(index))
        };
        self.doubts.is_empty()
            && self.ghosts.is_empty()
            && self.recovering.is_none()
            && !zombies
            && !self.domains.iter().enumerate().any(unflushed)
    }
}
