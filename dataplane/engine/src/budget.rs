// SPDX-License-Identifier: MIT OR Apache-2.0
//! What failures cost the hosts of this device, and whose they were.
//!
//! The account is [`policies::error_budget`]; here is who is to blame. Whatever goes wrong with
//! a path in an event names it ([`Engine::blame`]); requests that are moved in the same event,
//! and an outage that begins in it, are put down to that path and the rule that dealt with it.
//!
//! | a late request | counts to |
//! |---|---|
//! | was moved or sent again | the path it was moved away from, and the rule of its last move |
//! | came behind a quarantine | the path of the write in doubt, W4 |
//! | met an outage | what took the last path |
//! | none of these | the storage |
//!
//! A request that is answered in time costs one comparison.

use alloc::vec::Vec;

use policies::{Cause, Cost};
use program::{BudgetCause, BudgetStatus, Nanos};

use crate::engine::Engine;
use crate::lane::{Lane, Use};
use crate::request::Request;
use crate::slab::Key;

/// A time in which no path was there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outage {
    /// `None`: it lasts.
    ended: Option<Nanos>,
    cause: Cause,
}

impl Engine {
    /// Something is wrong with this path, by the rule that was noted with it.
    pub(crate) fn blame(&mut self, path: usize) {
        let rule = match self.paths[path].rule {
            "" => "3.5",
            rule => rule,
        };
        self.blame_rule(path, rule);
    }

    /// The same, by this rule.
    pub(crate) fn blame_rule(&mut self, path: usize, rule: &'static str) {
        self.blamed = Some((self.turn, Cause { path: Some(path), rule }));
    }

    /// Whom something that happens in this event is put down to.
    fn culprit(&self) -> Option<Cause> {
        self.blamed.filter(|(turn, _)| *turn == self.turn).map(|(_, cause)| cause)
    }

    /// A piece is sent again: its request may be late because of that.
    pub(crate) fn note_moved(&mut self, piece: Key) {
        let cause = self.culprit();
        if let Some(request) = self.pieces.get(piece).request {
            let request = self.requests.get_mut(request);
            request.moved_by = cause.or(request.moved_by);
        }
    }

    /// A request must wait for a range; behind a quarantine that is a failure's doing.
    pub(crate) fn note_blocked(&mut self, key: Key) {
        let host = self.requests.get(key).host;
        if self.ranges.quarantined() == 0 {
            return;
        }
        let path = self.path_of_quarantine(host.offset, host.offset + host.len);
        if path.is_some() {
            self.requests.get_mut(key).moved_by = Some(Cause { path, rule: "W4" });
        }
    }

    /// The path whose open copy keeps a part of this range quarantined: in doubt, or on a connection that is kept for its
    /// late reply.
    fn path_of_quarantine(&self, start: u64, end: u64) -> Option<usize> {
        let overlaps = |piece: Key| {
            let piece = self.pieces.get(piece);
            piece.quarantine.is_some() && piece.offset < end && start < piece.end()
        };
        let kept = |lane: &&Lane| {
            let mut copies = lane.in_order();
            copies.any(
                |(_, slot)| matches!(slot.used, Use::Piece { piece, .. } if slot.write && overlaps(piece)),
            )
        };
        let in_doubt = self.doubts.iter().find(|doubt| overlaps(doubt.piece)).map(|doubt| doubt.path);
        in_doubt.or_else(|| self.lanes.iter().flatten().find(kept).map(|lane| lane.path))
    }

    /// Whether a path is there was worked out anew.
    pub(crate) fn note_served(&mut self, served: bool) {
        let lasts = self.outage.is_some_and(|outage| outage.ended.is_none());
        if served && lasts {
            self.budget.on_available(self.now);
            let now = self.now;
            self.outage = self.outage.map(|outage| Outage { ended: Some(now), ..outage });
        } else if !served && !lasts {
            let cause = self.culprit().unwrap_or(Cause { path: None, rule: "3.4" });
            self.begin_outage(cause);
        }
    }

    pub(crate) fn begin_outage(&mut self, cause: Cause) {
        self.budget.on_unavailable(self.now, cause);
        self.outage = Some(Outage { ended: None, cause });
    }

    /// A host request is answered.
    pub(crate) fn note_answered(&mut self, request: &Request) {
        let waited = self.now - request.accepted;
        let cause = if waited > self.budget.bound() { self.cause_of(request) } else { None };
        self.budget.on_answered(waited, cause);
    }

    fn cause_of(&self, request: &Request) -> Option<Cause> {
        let met = self.outage.filter(|outage| outage.ended.is_none_or(|ended| ended > request.accepted));
        request.moved_by.or(met.map(|outage| outage.cause))
    }

    /// The account, for `status`.
    pub(crate) fn budget_status(&self, now: Nanos) -> BudgetStatus {
        let named = |cause: Cause, cost: Cost| BudgetCause {
            path: cause.path.and_then(|path| self.paths.get(path)).map(|path| path.program.name.clone()),
            rule: cause.rule,
            unavailable: cost.unavailable,
            delayed: cost.delayed,
            excess: cost.excess,
            worst: cost.worst,
        };
        let mut causes: Vec<BudgetCause> = Vec::new();
        for (cause, cost) in self.budget.costs(now) {
            let new = named(cause, cost);
            // A path that was taken out and put back is the same to an operator.
            match causes.iter_mut().find(|it| it.path == new.path && it.rule == new.rule) {
                Some(it) => {
                    it.unavailable += new.unavailable;
                    it.delayed += new.delayed;
                    it.excess += new.excess;
                    it.worst = it.worst.max(new.worst);
                }
                None => causes.push(new),
            }
        }
        BudgetStatus { bound: self.budget.bound(), requests: self.budget.requests(), causes }
    }
}
