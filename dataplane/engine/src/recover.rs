// SPDX-License-Identifier: MIT OR Apache-2.0
//! After a crash of our own (rule W10).
//!
//! Every session of the old process is in doubt and its list of writes is unknown. So
//! until what it sent is over no write is issued: a host that re-sends A and then writes B
//! must not have A land behind B. Reads and FLUSH go on. It ends
//!
//! * when every path leads to a gate that took our claim: its epoch is above the old
//!   process's, whose sessions the gate has finished (semantics 2.4), or
//! * `quiesce` after the start, which is an assumption and reported as one.
//!
//! Sockets of a dead process send nothing more (SO_LINGER 0), so the clock starts with us.
//! Local storage is not concerned: a process ends when its operations have.

use alloc::string::String;

use program::{Nanos, Target};

use crate::engine::Engine;
use crate::path::Admin;

impl Engine {
    pub(crate) fn begin_recovery(&mut self) {
        let remote = self.paths.iter().any(|path| matches!(path.program.target, Target::Nbd { .. }));
        if self.program.unclean && remote && self.rules.w10_recovering {
            self.recovering = Some(self.now + self.program.quiesce);
            self.decide_recovery(self.program.quiesce);
        }
    }

    /// Whether writes wait.
    pub(crate) fn is_recovering(&self) -> bool {
        self.recovering.is_some()
    }

    /// A path was accepted: if all of them lead to gates nothing of the old process is left.
    pub(crate) fn check_recovery(&mut self) {
        if self.recovering.is_none() {
            return;
        }
        let fenced = self
            .paths
            .iter()
            .filter(|path| path.admin != Admin::Removed)
            .all(|path| path.offer.is_some_and(|offer| offer.gate.is_some() || offer.local));
        if fenced {
            self.recovering = None;
            self.decide_recovered(true);
            let text = "the gates have finished every session of the process before this one: writes go on";
            self.event("recovered", None, "W10", text.into());
        }
    }

    /// The timer: the assumption is made.
    pub(crate) fn recovery_due(&mut self) {
        if self.recovering.is_none_or(|until| until > self.now) {
            return;
        }
        self.recovering = None;
        self.decide_recovered(false);
        let text = "the process before this one ended without a clean stop; its writes are assumed to be over after `quiesce`";
        self.event("recovered_unproven", None, "W10", String::from(text));
    }

    pub(crate) fn next_recovery(&self) -> Option<Nanos> {
        self.recovering
    }
}

impl Engine {
    /// Whether nothing that was sent may still be executed: what a clean stop is (W10).
    pub fn is_clean(&self) -> bool {
        let zombies = self.lanes.iter().flatten().any(|lane| lane.in_order().any(|(_, slot)| slot.write));
        self.doubts.is_empty() && self.ghosts.is_empty() && self.recovering.is_none() && !zombies
    }
}
