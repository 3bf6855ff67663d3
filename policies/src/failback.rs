// SPDX-License-Identifier: MIT OR Apache-2.0
//! When a better group that has become usable takes over from the one in use.
//!
//! **Model.** Down is at once, up is by policy. If the group in use has no usable path the
//! best usable one takes over immediately, whatever the policy. A group better than the one
//! in use takes over at once, after it was usable for some time, or when an operator says so.
//!
//! The time is measured from when the better group became usable, not from when the
//! decision was first asked for, so a late question does not make the wait longer. A group is
//! usable since the first of its usable paths became so; a path that flaps starts anew, and
//! with it a group that has no other.
//!
//! Why not always at once: a path that comes back is as likely as any to leave again, and in
//! active-passive each switch costs a drain.

use crate::Nanos;
use crate::group::Rank;

/// When a better group takes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// As soon as it has a usable path.
    Immediate,
    /// When it has been usable for this long. Default 60 s
    /// ([`crate::limits::FAILBACK_AFTER`]).
    After(Nanos),
    /// Only by [`Failback::force`].
    Manual,
}

/// Decides which group of one device is used.
#[derive(Clone, Debug)]
pub struct Failback {
    when: When,
    forced: bool,
    deadline: Option<Nanos>,
}

impl Failback {
    /// No group is waiting.
    pub const fn new(when: When) -> Self {
        Self { when, forced: false, deadline: None }
    }

    /// Changes the policy; it applies from the next [`Failback::choose`].
    pub fn set_when(&mut self, when: When) {
        self.when = when;
    }

    /// The rank of the group to use from `now` on; `None` when nothing is usable.
    ///
    /// `current` is that of the group in use, if any. `usable` has an entry for each usable path:
    /// its rank and since when it is usable with it. Spends a [`Failback::force`].
    pub fn choose(&mut self, now: Nanos, current: Option<Rank>, usable: &[(Rank, Nanos)]) -> Option<Rank> {
        let forced = core::mem::take(&mut self.forced);
        self.deadline = None;
        let best = usable.iter().map(|&(rank, _)| rank).max()?;
        let Some(current) = current.filter(|&current| usable.iter().any(|path| path.0 == current)) else {
            return Some(best);
        };
        let delay = match self.when {
            _ if forced => return Some(best),
            When::Immediate => return Some(best),
            When::Manual => return Some(current),
            When::After(delay) => delay,
        };
        let is_due = |since: Nanos| since.saturating_add(delay) <= now;
        let chosen = usable
            .iter()
            .filter(|&&(rank, since)| rank > current && is_due(since))
            .map(|&(rank, _)| rank)
            .max()
            .unwrap_or(current);
        self.deadline = usable
            .iter()
            .filter(|&&(rank, _)| rank > chosen)
            .map(|&(_, since)| since.saturating_add(delay))
            .min();
        assert!(self.deadline.is_none_or(|deadline| deadline > now), "a due group was passed over");
        Some(chosen)
    }

    /// When [`Failback::choose`] will answer differently if nothing else changes. Always
    /// later than the `now` of the last call.
    pub fn next_deadline(&self) -> Option<Nanos> {
        self.deadline
    }

    /// An operator asks for the best group now. Holds for the next [`Failback::choose`] only:
    /// if no better group is usable then, nothing is left waiting.
    pub fn force(&mut self) {
        self.forced = true;
    }
}
