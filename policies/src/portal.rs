// SPDX-License-Identifier: MIT OR Apache-2.0
//! Over which of its addresses a path connects next.
//!
//! **Model.** The portals of a path are several doors to one server, in order of preference. A lost
//! connection begins a *round*: each portal gets one attempt at once, best first, before
//! the path counts as failed. After that each has a back-off of its own, so a dead address slows
//! down only itself.
//!
//! ```text
//! connected --lost--> round: every portal untried
//! round     --attempt fails--> next untried portal, at once
//! round     --all tried------> the path has failed; the portal whose back-off ends first is next
//! any       --connected------> in use; its back-off is forgotten, those of the others are not
//! ```
//!
//! The round begins with the best portal that is not the one just lost; that one is last: it
//! is the one address of which something is known, and it is bad.
//!
//! **Return.** Connected over a lesser portal for 1 min, a better one whose back-off has ended is tried beside
//! the connection in use, which is given up only when the better one passed. So the preferred link
//! is used again without a gap, and a dead one is tried no more often than its back-off says.
//!
//! Rejected: round-robin over the portals with one back-off for the path. With one dead address of
//! two, every second attempt of a path would be spent on it, for ever.

use alloc::vec::Vec;

use crate::limits::PORTAL_RETURN_AFTER;
use crate::{Backoff, Nanos};

/// The portals of one path.
#[derive(Clone, Debug)]
pub struct Portals {
    entries: Vec<Entry>,
    in_use: Option<InUse>,
    /// The one that was lost last; tried last in its round.
    lost: Option<usize>,
}

#[derive(Clone, Debug, Default)]
struct Entry {
    backoff: Backoff,
    not_before: Nanos,
    /// It had its attempt of this round.
    tried: bool,
}

#[derive(Clone, Copy, Debug)]
struct InUse {
    portal: usize,
    since: Nanos,
}

/// What to do to get a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// Connect over this portal now.
    Now(usize),
    /// Ask again at this time.
    At(Nanos),
}

impl Portals {
    /// `portals` in order of preference, at least one; none was tried. Allocates.
    pub fn new(portals: usize) -> Self {
        let entries = (0..portals.max(1)).map(|_| Entry::default()).collect();
        Self { entries, in_use: None, lost: None }
    }

    /// What to do next for a path without a connection.
    pub fn next(&self, now: Nanos) -> Attempt {
        let untried = |&portal: &usize| !self.entries[portal].tried;
        let order = (0..self.entries.len()).filter(|&portal| Some(portal) != self.lost).chain(self.lost);
        if let Some(portal) = order.clone().find(untried) {
            return Attempt::Now(portal);
        }
        let first = order.min_by_key(|&portal| self.entries[portal].not_before);
        let portal = first.unwrap_or_else(|| unreachable!("a path has at least one portal"));
        let at = self.entries[portal].not_before;
        if at <= now { Attempt::Now(portal) } else { Attempt::At(at) }
    }

    /// An attempt failed, in connecting, handshake or identity. `draw` is uniform over all of
    /// `u64`. Whether the path has failed now: it has no connection and no untried portal.
    pub fn on_failed(&mut self, now: Nanos, portal: usize, draw: u64) -> bool {
        let entry = &mut self.entries[portal];
        entry.tried = true;
        if entry.backoff.attempts() == 0 {
            // This attempt was the one without a wait.
            entry.backoff.next_delay(draw);
        }
        entry.not_before = now.saturating_add(entry.backoff.next_delay(draw));
        self.in_use.is_none() && self.is_exhausted()
    }

    /// A connection over this portal passed the handshake and the identity check.
    pub fn on_connected(&mut self, now: Nanos, portal: usize) {
        self.entries[portal] = Entry { tried: true, ..Entry::default() };
        self.in_use = Some(InUse { portal, since: now });
        self.lost = None;
    }

    /// The connection in use was lost: a round begins.
    pub fn on_lost(&mut self) {
        self.lost = self.in_use.take().map(|in_use| in_use.portal).or(self.lost);
        for entry in &mut self.entries {
            entry.tried = false;
        }
    }

    /// Portal in use.
    pub fn in_use(&self) -> Option<usize> {
        self.in_use.map(|in_use| in_use.portal)
    }

    /// How long the portal in use has been, nanoseconds; 0 if none is.
    pub fn used_for(&self, now: Nanos) -> u64 {
        self.in_use.map_or(0, |in_use| now.saturating_sub(in_use.since))
    }

    /// Every portal had its attempt of this round.
    pub fn is_exhausted(&self) -> bool {
        self.entries.iter().all(|entry| entry.tried)
    }

    /// A better portal to try beside the connection in use, if one is due.
    pub fn return_to(&self, now: Nanos) -> Option<usize> {
        self.better().find(|&(_, due)| due <= now).map(|(portal, _)| portal)
    }

    /// When [`Portals::return_to`] will name one; may lie in the past. `None` if the best is in
    /// use, or none.
    pub fn next_return(&self) -> Option<Nanos> {
        self.better().map(|(_, due)| due).min()
    }

    /// Asserts what must hold between any two calls.
    pub fn check_invariants(&self) {
        assert!(!self.entries.is_empty());
        let known = |portal: Option<usize>| portal.is_none_or(|portal| portal < self.entries.len());
        assert!(known(self.in_use()) && known(self.lost));
        assert!(self.in_use.is_none() || self.lost.is_none(), "what is connected is not lost");
    }

    /// Portals better than the one in use, best first, with the time their attempt is due.
    fn better(&self) -> impl Iterator<Item = (usize, Nanos)> {
        let in_use = self.in_use.unwrap_or(InUse { portal: 0, since: 0 });
        let settled = in_use.since.saturating_add(PORTAL_RETURN_AFTER);
        self.entries[..in_use.portal]
            .iter()
            .enumerate()
            .map(move |(portal, entry)| (portal, entry.not_before.max(settled)))
    }
}
