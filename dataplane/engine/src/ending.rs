// SPDX-License-Identifier: MIT OR Apache-2.0
//! The device ends in order: this node stops, or the device is taken out (rules W10, F9).
//!
//! ```text
//! serving --Shutdown--> settling --stable, or it cannot be made so--> draining --> its lanes are closed
//!    |                     | Abandon                                     ^
//!    +---------------------+---------------------------------------------+
//! ```
//!
//! What is retained goes with this process, so it is made durable first: writes under way are answered, a replay
//! is finished, a write that was let go without proof is waited for, and a FLUSH of our own covers every cache. Paths connect again meanwhile. What a storage server has lost, or
//! may have, and nobody has written again by the end is a loss for good (F9): no path that may be written for
//! [`PATIENCE`], a FLUSH that fails [`ATTEMPTS_MAX`] times, or the driver's time is over. The driver records it, and
//! the next process goes on telling it. What is only not flushed is in a cache that stands: the end is no clean one
//! then ([`Engine::is_clean`]), and the next process flushes it (W10).
//!
//! A device that is taken out does not settle: another one may lead to the same storage from now on, and what is written
//! again here could overwrite what is written there. A loss that is told already is no reason to lose more.

use alloc::format;
use alloc::string::String;

use nbd::Errno;
use program::{Nanos, NoPath, SECOND, Target};

use crate::Close;
use crate::engine::Engine;
use crate::flush::Domain;
use crate::lane::{Lane, LaneState};
use crate::path::Path;
use crate::request::{Origin, Request};

/// So long a path that may be written is waited for; shorter than what a driver gives the whole.
const PATIENCE: Nanos = 5 * SECOND;
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
        /// Since when no path that answers may be written.
        stuck_since: Option<Nanos>,
    },
    /// Nothing is sent any more but what closes the lanes.
    Draining {
        /// What is lost by the end was told.
        told: bool,
    },
}

impl Engine {
    /// [`crate::Event::Shutdown`].
    pub(crate) fn shutdown(&mut self) {
        if self.ending == Ending::No {
            self.ending = Ending::Settling { attempts: 0, stuck_since: None };
            self.end_rests();
            self.fail_unstarted();
            if !self.rules.f9_end_settles {
                self.drain_all(true);
            }
        }
    }

    /// [`crate::Event::Abandon`].
    pub(crate) fn abandon(&mut self, why: &str) {
        if !self.is_draining() {
            let told = self.lose_unsettled(why);
            self.drain_all(told);
        }
    }

    /// Nothing of hosts is begun any more.
    pub(crate) fn is_ending(&self) -> bool {
        self.ending != Ending::No
    }

    /// The lanes are being closed.
    pub(crate) fn is_draining(&self) -> bool {
        matches!(self.ending, Ending::Draining { .. })
    }

    /// Whether nothing is left to be done but to close the lanes.
    pub fn is_ended(&self) -> bool {
        self.is_draining() && self.is_idle()
    }

    /// After every event of a device that ends.
    pub(crate) fn settle(&mut self) {
        match self.ending {
            Ending::Settling { attempts, stuck_since } => {
                let active = &self.active;
                let stuck = active.writers.is_empty() || active.last_resort || active.waiting_for.is_some();
                let stuck_since = if stuck { stuck_since.or(Some(self.now)) } else { None };
                self.ending = Ending::Settling { attempts, stuck_since };
                self.settle_further(attempts, stuck_since);
            }
            Ending::Draining { told } if self.has_no_lane() => {
                self.fail_unstarted();
                self.fail_unproven();
                let told = told || self.lose_unsettled("its connections were lost before it was flushed");
                self.ending = Ending::Draining { told };
            }
            Ending::No | Ending::Draining { .. } => {}
        }
    }

    fn settle_further(&mut self, attempts: u32, stuck_since: Option<Nanos>) {
        let out_of_patience = stuck_since.is_some_and(|since| self.now >= since + PATIENCE);
        if out_of_patience {
            // Writes that no path takes are given back, and those that wait for a proof.
            self.fail_unstarted();
            self.fail_unproven();
        }
        let writing =
            |request: &Request| request.origin == Origin::Host && request.host.command.is_write_like();
        if self.requests.iter().any(|(_, request)| writing(request)) {
            // They end, or the driver's time does.
        } else if self.has_ghosts() && self.rules.w13_repair {
            // One that lands is repaired (W13): nobody else could. It ends, or the driver's time does.
        } else if !self.is_unsettled() || (!self.retains() && self.replay.is_none()) {
            self.drain_all(false);
        } else if out_of_patience {
            let told = self.lose_unsettled("no path could be written");
            self.drain_all(told);
        } else if self.replay.is_some()
            || self.retention.is_flushing()
            || self.now < self.retention.next_flush()
        {
            // Under way.
        } else if attempts == ATTEMPTS_MAX {
            let told = self.lose_unsettled("FLUSH was answered with errors");
            self.drain_all(told);
        } else {
            self.ending = Ending::Settling { attempts: attempts + 1, stuck_since };
            self.own_flush();
        }
    }

    /// Acknowledged writes that are in no stable storage as far as is known.
    fn is_unsettled(&self) -> bool {
        self.has_lost() || self.domains.iter().any(|domain| domain.acked > domain.flushed)
    }

    /// Some of it may be in no storage at all, and is still to be written again.
    fn has_lost(&self) -> bool {
        let lost =
            |domain: &Domain| domain.lost.is_some() || (domain.rewrite && domain.acked > domain.flushed);
        self.replay.is_some() || self.domains.iter().any(lost)
    }

    fn has_no_lane(&self) -> bool {
        !self.lanes.iter().flatten().any(|lane| matches!(lane.state, LaneState::Up | LaneState::Draining))
    }

    /// Whether something was lost.
    fn lose_unsettled(&mut self, why: &str) -> bool {
        let lost = self.has_lost() && self.rules.f9_end_settles;
        if lost {
            self.lose_writes(format!(
                "a storage server lost its cache or its connections, and what it had acknowledged was not written again before the end: {why}"
            ));
        }
        lost
    }

    /// `told`: what is lost by that was told.
    fn drain_all(&mut self, told: bool) {
        self.ending = Ending::Draining { told };
        self.fail_unstarted();
        for path in 0..self.paths.len() {
            self.paths[path].explain("stop", String::from("this node stops"));
            self.drain(path);
        }
        self.close_idle_zombies();
    }

    /// Those that are only kept for another path's sake (W20): none will start any more.
    fn close_idle_zombies(&mut self) {
        for slot in 0..self.lanes.len() {
            let Some(lane) = self.lanes[slot].as_ref() else { continue };
            let lands = lane.in_order().any(|(_, entry)| self.may_land(entry));
            if lane.state == LaneState::Zombie && !lands {
                self.close(slot as u16, Close::Abort);
            }
        }
    }

    /// When [`Engine::settle`] has something to do next.
    pub(crate) fn next_settling(&self) -> Option<Nanos> {
        let Ending::Settling { stuck_since, .. } = self.ending else { return None };
        let patience = stuck_since.map(|since| since + PATIENCE);
        patience.into_iter().chain([self.retention.next_flush()]).filter(|&at| at > self.now).min()
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
        if !self.rules.w10_clean_end {
            return true;
        }
        let may_land = |lane: &Lane| lane.in_order().any(|(_, slot)| self.may_land(slot));
        let zombies = self.lanes.iter().flatten().any(may_land);
        let remote = |domain: usize| {
            let of_it = |path: &Path| path.domain == domain;
            self.paths.iter().any(|path| of_it(path) && matches!(path.program.target, Target::Nbd { .. }))
        };
        let unflushed = |(index, domain): (usize, &Domain)| {
            domain.inherited || (domain.acked > domain.flushed && remote(index))
        };
        self.doubts.is_empty()
            && self.ghosts.is_empty()
            && self.recovering.is_none()
            && !zombies
            && !self.domains.iter().enumerate().any(unflushed)
    }
}
