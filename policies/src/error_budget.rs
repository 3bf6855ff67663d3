// SPDX-License-Identifier: MIT OR Apache-2.0
//! What failures cost the hosts of a device, in numbers, and whose it was.
//!
//! **Model.** "It hung for a bit" becomes three figures: how long the device had no path, how many
//! requests waited longer than a bound, and how long the longest did. Each is put down to a
//! *cause*: the path that was to blame, if one, and the rule that dealt with it.
//!
//! | figure | definition |
//! |---|---|
//! | unavailable | time in which a request would have had no path to go to |
//! | delayed | requests answered later than the bound after they came from the host |
//! | excess | sum of what these waited beyond the bound |
//! | worst | the longest wait of a request |
//!
//! The definitions are part of the interface: a figure that changes its meaning with a version
//! cannot be compared. A request counts once, when it is answered, whatever it went through, to
//! the cause of its *last* move or hold; without one, to the storage (no path, rule `storage`).
//!
//! 32 causes are told apart; what comes beyond is one entry called `other`, so a bound on memory
//! never makes the sums wrong.

use crate::Nanos;
use crate::limits::BUDGET_CAUSES_MAX;

/// Who and what delayed a request or took the device away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cause {
    /// Index of the path to blame; `None` = no single one.
    pub path: Option<usize>,
    /// Rule number or name, e.g. `W15`.
    pub rule: &'static str,
}

impl Cause {
    /// Requests that were slow without being moved or held.
    pub const STORAGE: Self = Self { path: None, rule: "storage" };
    /// What there was no room for.
    pub const OTHER: Self = Self { path: None, rule: "other" };
}

/// What is put down to one cause, or to all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Time without a path, nanoseconds.
    pub unavailable: Nanos,
    /// Requests that waited longer than the bound.
    pub delayed: u64,
    /// Sum of their waits beyond the bound, nanoseconds.
    pub excess: Nanos,
    /// The longest wait, nanoseconds.
    pub worst: Nanos,
}

/// The account of one device since it was made or reset.
#[derive(Clone, Debug)]
pub struct ErrorBudget {
    bound: Nanos,
    requests: u64,
    causes: [(Cause, Cost); BUDGET_CAUSES_MAX],
    causes_len: usize,
    other: Cost,
    unavailable: Option<(Nanos, Cause)>,
}

impl ErrorBudget {
    /// `bound`: wait above which a request counts as delayed; default 1 s
    /// ([`crate::limits::BUDGET_DELAY_BOUND`]).
    pub const fn new(bound: Nanos) -> Self {
        const NOTHING: Cost = Cost { unavailable: 0, delayed: 0, excess: 0, worst: 0 };
        Self {
            bound,
            requests: 0,
            causes: [(Cause::OTHER, NOTHING); BUDGET_CAUSES_MAX],
            causes_len: 0,
            other: NOTHING,
            unavailable: None,
        }
    }

    /// No path is left, because of this. While that lasts, further causes change nothing.
    pub fn on_unavailable(&mut self, now: Nanos, cause: Cause) {
        self.unavailable.get_or_insert((now, cause));
    }

    /// A path is there again.
    pub fn on_available(&mut self, now: Nanos) {
        if let Some((since, cause)) = self.unavailable.take() {
            let cost = self.of(cause);
            cost.unavailable = cost.unavailable.saturating_add(now.saturating_sub(since));
        }
    }

    /// A request was answered `waited` after it came; `moved_by` = why it was last moved or held.
    pub fn on_answered(&mut self, waited: Nanos, moved_by: Option<Cause>) {
        self.requests += 1;
        let Some(excess) = waited.checked_sub(self.bound).filter(|&excess| excess > 0) else { return };
        let cost = self.of(moved_by.unwrap_or(Cause::STORAGE));
        cost.delayed += 1;
        cost.excess = cost.excess.saturating_add(excess);
        cost.worst = cost.worst.max(waited);
    }

    /// Requests answered, in time or not.
    pub fn requests(&self) -> u64 {
        self.requests
    }

    /// The bound.
    pub fn bound(&self) -> Nanos {
        self.bound
    }

    /// What each cause has cost until `now`, an outage that lasts included; `other` last, if any.
    pub fn costs(&self, now: Nanos) -> impl Iterator<Item = (Cause, Cost)> {
        let open = self.unavailable.map(|(since, cause)| (cause, now.saturating_sub(since)));
        let known = &self.causes[..self.causes_len];
        let is_known = open.is_some_and(|(cause, _)| known.iter().any(|it| it.0 == cause));
        let has_room = self.causes_len < BUDGET_CAUSES_MAX;
        let first = open.filter(|_| !is_known && has_room).map(|(cause, _)| (cause, Cost::default()));
        let overflows = open.is_some() && !is_known && !has_room;
        let other = (self.other != Cost::default() || overflows).then_some((Cause::OTHER, self.other));
        known.iter().copied().chain(first).chain(other).map(move |(cause, mut cost)| {
            let (lasting, time) = open.unwrap_or((Cause::OTHER, 0));
            if lasting == cause || (overflows && cause == Cause::OTHER) {
                cost.unavailable = cost.unavailable.saturating_add(time);
            }
            (cause, cost)
        })
    }

    /// All costs together.
    pub fn total(&self, now: Nanos) -> Cost {
        self.costs(now).fold(Cost::default(), |sum, (_, cost)| Cost {
            unavailable: sum.unavailable.saturating_add(cost.unavailable),
            delayed: sum.delayed.saturating_add(cost.delayed),
            excess: sum.excess.saturating_add(cost.excess),
            worst: sum.worst.max(cost.worst),
        })
    }

    /// An operator starts a new account; an outage that lasts counts from now.
    pub fn reset(&mut self, now: Nanos) {
        let lasting = self.unavailable.map(|(_, cause)| (now, cause));
        *self = Self { unavailable: lasting, ..Self::new(self.bound) };
    }

    fn of(&mut self, cause: Cause) -> &mut Cost {
        let known = self.causes[..self.causes_len].iter().position(|it| it.0 == cause);
        match known {
            Some(at) => &mut self.causes[at].1,
            None if self.causes_len < BUDGET_CAUSES_MAX => {
                let at = self.causes_len;
                self.causes[at].0 = cause;
                self.causes_len += 1;
                &mut self.causes[at].1
            }
            None => &mut self.other,
        }
    }
}
