// SPDX-License-Identifier: MIT OR Apache-2.0
//! After a crash of our own (rule W10).
//!
//! Every session of the old process is in doubt and its list of writes is unknown. So
//! until what it sent is over no write is issued: a host that re-sends A and then writes B
//! must not have A land behind B. Reads and FLUSH go on. It ends
//!
//! * when every path leads to a gate that took our claim: its epoch is above the old
//!   process's, whose sessions the gate has finished (semantics 2.4), unless the old process had paths that
//!   were taken out of the configuration since: no gate speaks for what it sent there; or
//! * `quiesce` after the start, which is an assumption and reported as one.
//!
//! Sockets of a dead process send nothing more (SO_LINGER 0), so the clock starts with us.
//! Local storage is not concerned: a process ends when its operations have.
//!
//! What was acknowledged and not flushed is in the servers' caches, and its list is unknown as well. So every
//! cache counts as dirty until a FLUSH was answered there (F2, F10); one of our own goes there as soon as a path
//! does, for until then a loss of that cache is noticed only if a gate tells of it (F8). A path that has not come
//! back `quiesce` after the start is waited for no longer, or one dead path would fail every FLUSH: event
//! `cache_unproven`. When it is back, FLUSH waits for it again, also while its link is only silent. If that FLUSH
//! fails, or a gate tells of another cache meanwhile, it is a loss for good (F9): nothing is retained of what the
//! process before left.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use nbd::Command;
use program::{Nanos, Target};

use crate::engine::Engine;
use crate::flush::ANY;
use crate::path::Path;
use crate::request::{Kind, PieceState};
use crate::slab::Key;

/// Begins the text of a loss of what an earlier process left.
const INHERITED: &str = "the process before this one may have left acknowledged writes";

impl Engine {
    pub(crate) fn begin_recovery(&mut self) {
        let remote = self.paths.iter().any(|path| matches!(path.program.target, Target::Nbd { .. }));
        if self.program.unclean && remote && self.rules.w10_recovering {
            self.recovering = Some(self.now + self.program.quiesce);
            self.decide_recovery(self.program.quiesce);
        }
        if self.program.unclean && remote {
            self.inheriting = Some(self.now + self.program.quiesce);
            for domain in &mut self.domains {
                domain.inherited = true;
            }
            if self.left_elsewhere {
                let text = "the process before this one had paths that are not configured any more: whether what it left in their caches is durable is up to their servers";
                self.event("cache_unproven", None, "W10", String::from(text));
            }
        }
    }

    /// Whether a FLUSH goes to a cache in which the process before this one may have left something.
    pub(crate) fn asks_for_inherited(&self, domain: usize) -> bool {
        let entry = &self.domains[domain];
        entry.inherited && (!entry.given_up || self.is_reachable(domain))
    }

    /// Whether a FLUSH of this domain can be sent, if not now then as soon as there is room.
    pub(crate) fn is_reachable(&self, domain: usize) -> bool {
        let answers = |path: &Path| path.domain == domain && path.steering.answers();
        self.paths.iter().any(answers) || self.flush_lane(domain).is_some()
    }

    /// The timer: FLUSH waits no longer for a path that has not come back.
    pub(crate) fn inheritance_due(&mut self) {
        if self.inheriting.is_none_or(|until| until > self.now) {
            return;
        }
        self.inheriting = None;
        for domain in 0..self.domains.len() {
            if self.domains[domain].inherited && !self.is_reachable(domain) {
                self.domains[domain].given_up = true;
                let path = self.paths.iter().position(|path| path.domain == domain);
                let text = "the process before this one may have left acknowledged writes in the cache behind this path, which has not come back: FLUSH is answered without it until it does";
                self.event("cache_unproven", path, "W10", String::from(text));
                if self.domains[domain].acked <= self.domains[domain].flushed {
                    // Any other, but never none at all (F10).
                    self.redirect_flushes(domain, ANY);
                }
            }
        }
    }

    /// A FLUSH of this domain failed. Nothing is retained of what the process before left, and a host whose
    /// write it was may not have come back yet: to tell the sessions there are is not enough (F9).
    pub(crate) fn inherited_failed(&mut self, domain: usize) {
        // Paths may share a cache without being declared to.
        let beside = self.domains.iter().any(|domain| domain.inherited && !domain.given_up);
        // Once; a loss that was told before is another one.
        let told = self.lost_writes.as_ref().is_some_and(|told| told.contains(INHERITED));
        if self.retains() && !told && (self.domains[domain].inherited || beside) {
            self.lose_inherited("the first FLUSH since was answered with an error");
        }
    }

    pub(crate) fn lose_inherited(&mut self, why: &str) {
        self.lose_writes(format!("{INHERITED} in the storage's cache, and {why}"));
    }

    /// The last connection to such a cache is gone: it is given as much time again.
    pub(crate) fn await_inherited(&mut self, domain: usize) {
        if self.domains[domain].inherited {
            self.domains[domain].given_up = false;
            self.inheriting = Some(self.now + self.program.quiesce);
        }
    }

    /// A FLUSH waits for such a cache, whose path stands and is not asked (it answers errors that others do not, say):
    /// not for longer than for one that is gone.
    pub(crate) fn bound_wait_for_inherited(&mut self, domain: usize) {
        let waits = self.domains.get(domain).is_some_and(|entry| entry.inherited && !entry.given_up);
        if waits && self.inheriting.is_none() && !self.is_reachable(domain) {
            self.inheriting = Some(self.now + self.program.quiesce);
        }
    }

    /// A path to such a cache is back: FLUSH waits for it as for any other, and one of our own goes there at once.
    /// The sooner what the process before left is stable, the less a second fault can lose (F8).
    pub(crate) fn inherited_is_back(&mut self, domain: usize) {
        self.domains[domain].given_up = false;
        if self.domains[domain].inherited && !self.retention.is_flushing() {
            self.own_flush();
        }
    }

    /// FLUSHes that wait for one cache ask another.
    pub(crate) fn redirect_flushes(&mut self, domain: usize, other: usize) {
        let waiting: Vec<Key> = self
            .requests
            .iter()
            .filter(|(_, request)| request.host.command == Command::Flush)
            .flat_map(|(_, request)| self.pieces_of(request.first_piece))
            .filter(|&key| matches!(self.pieces.get(key).kind, Kind::Flush { domain: of } if of == domain))
            .filter(|&key| self.pieces.get(key).state == PieceState::Queued)
            .collect();
        for key in waiting {
            self.pieces.get_mut(key).kind = Kind::Flush { domain: other };
        }
    }

    fn pieces_of(&self, first: Option<Key>) -> impl Iterator<Item = Key> {
        core::iter::successors(first, |&key| self.pieces.get(key).next)
    }

    /// Whether writes wait.
    pub(crate) fn is_recovering(&self) -> bool {
        self.recovering.is_some()
    }

    /// A path was accepted: if all of them lead to gates nothing of the old process is left.
    pub(crate) fn check_recovery(&mut self) {
        if self.recovering.is_none() || self.left_elsewhere {
            return;
        }
        // Also a path that a changed program has taken away: the process before had it.
        let claimed = |path: &Path| path.offer.is_some_and(|offer| offer.gate.is_some() || offer.local);
        let same = |path: &Path, other: &Path| path.program.target == other.program.target;
        let fenced =
            self.paths.iter().all(|path| self.paths.iter().any(|other| claimed(other) && same(path, other)));
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
        self.recovering.into_iter().chain(self.inheriting).min()
    }
}
