// SPDX-License-Identifier: MIT OR Apache-2.0
//! Decisions about which paths carry I/O, and about having none (design 3.4, 3.7; W18, W20).
//!
//! Which paths are used is worked out anew after every change; what is kept is when the
//! outcome differs from the time before, and why a better group is not used yet.

use policies::Rank;
use policies::distance::Moved;
use policies::explain::{Decision, Limit};
use policies::group::AccessState;
use program::{AccessPolicy, Exclusive, Failback, Nanos, NoPath};

use crate::engine::Engine;

/// The figure of an access state.
const ACCESS_STATE: &str = "access state (2 optimized, 1 non-optimized, 0 standby)";

/// The outcome that was told last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Grouping {
    rank: Option<Rank>,
    /// Rank of a better group that is usable and not used.
    better: Option<Rank>,
    members: u64,
    writers: u64,
    usable: u64,
    last_resort: bool,
    waiting_for: Option<usize>,
    held_since: Option<Nanos>,
    write_through: bool,
}

/// A path's place in the sets above; those beyond share the last.
fn bit(path: usize) -> u64 {
    1 << path.min(63)
}

impl Engine {
    fn grouping(&self) -> Grouping {
        let set = |paths: &[usize]| paths.iter().fold(0, |set, &path| set | bit(path));
        let best = self.usable().map(|path| self.rank(path)).max();
        let members = set(&self.active.members);
        Grouping {
            rank: self.active.rank,
            better: best.filter(|_| members != 0).filter(|&best| Some(best) > self.active.rank),
            members,
            writers: set(&self.active.writers),
            usable: self.usable().fold(0, |set, path| set | bit(path)),
            last_resort: self.active.last_resort && members != 0,
            waiting_for: self.active.waiting_for,
            held_since: self.held_since,
            write_through: self.active.write_through,
        }
    }

    /// They would be used if their group were, as far as their standing goes.
    fn usable(&self) -> impl Iterator<Item = usize> {
        (0..self.paths.len()).filter(|&path| {
            let steering = &self.paths[path].steering;
            steering.is_of(self.active.best) && steering.answers()
        })
    }

    /// The figures of a path's rank that tell it from another's; of equal ones the priority.
    pub(crate) fn rank_figures(&self, decision: &Decision, index: usize, against: Rank) -> Decision {
        let rank = self.rank(index);
        if rank.priority != against.priority || rank == against {
            let [own, other] = [rank, against].map(|rank| u64::from(rank.priority));
            decision.count("priority", own, Limit::AtLeast(other))
        } else if rank.access != against.access {
            decision.count(ACCESS_STATE, rank.access as u64, Limit::AtLeast(against.access as u64))
        } else {
            let steps = |rank: Rank| u64::from(rank.distance.0);
            decision.count("steps of distance", steps(rank), Limit::AtMost(steps(against))).time(
                "its distance",
                self.distance_ns(index).unwrap_or(0),
                Limit::Informs,
            )
        }
    }

    /// After every regrouping: what is different now.
    pub(crate) fn decide_group(&mut self) {
        let new = self.grouping();
        if new == self.grouping {
            return;
        }
        let old = core::mem::replace(&mut self.grouping, new.clone());
        if new.write_through != old.write_through {
            self.decide_coherence(new.write_through);
        }
        self.decide_places(&old, &new);
        if (new.members | new.writers, new.last_resort) != (old.members | old.writers, old.last_resort) {
            self.decide_members(&new);
        }
        if new.better.is_some() && new.better != old.better {
            self.decide_failback();
        }
        if new.waiting_for.is_some() && new.waiting_for != old.waiting_for {
            self.decide_exclusive();
        }
        if new.held_since.is_some() != old.held_since.is_some() {
            self.decide_hold(old.held_since);
        }
    }

    /// Who carries requests now, and who is kept ready. One that is out is out for a reason
    /// that was told.
    fn decide_places(&mut self, old: &Grouping, new: &Grouping) {
        let (before, after) = (old.members | old.writers, new.members | new.writers);
        for index in 0..self.paths.len() {
            let (was, is) = (before & bit(index) != 0, after & bit(index) != 0);
            let ready = new.usable & bit(index) != 0;
            if is && !was {
                self.decide_carries(index);
            } else if ready && !is && (was || old.usable & bit(index) == 0) {
                self.decide_stands_by(index);
            }
        }
    }

    fn decide_members(&mut self, new: &Grouping) {
        let after = new.members | new.writers;
        let usable = self.usable().count() as u64;
        let decision = match self.active.rank {
            None => return,
            Some(_) if new.last_resort => self
                .on_device("use suspect paths", "W15")
                .count("usable paths", usable, Limit::AtMost(0))
                .refused("use none", "a path is never held back when it is the last one")
                .until("a path is usable again"),
            Some(rank) => self
                .on_device("use the group", "3.4")
                .count("its priority", u64::from(rank.priority), Limit::Informs)
                .count("paths in use", u64::from(after.count_ones()), Limit::Above(0))
                .count("usable paths", usable, Limit::Informs)
                .until("no path of it is usable, or a better group is and the failback rule lets it"),
        };
        let decision = match self.active.rank {
            Some(rank) if rank.distance.0 > 0 => {
                decision.count("its steps of distance", u64::from(rank.distance.0), Limit::Informs)
            }
            Some(rank) if rank.access < AccessState::Optimized => {
                decision.count(ACCESS_STATE, rank.access as u64, Limit::Informs)
            }
            _ => decision,
        };
        let others = self.usable().any(|path| Some(self.rank(path)) < self.active.rank);
        let decision = if others {
            decision.refused("use lower groups too", "a better one has a usable path")
        } else {
            decision
        };
        let one = self.active.policy == AccessPolicy::ActivePassive;
        let decision = if one {
            decision.refused("use several paths", "active-passive: one at a time")
        } else {
            decision
        };
        self.decide(&decision);
    }

    fn decide_carries(&mut self, index: usize) {
        let group = self.active.rank.unwrap_or_else(|| self.rank(index));
        let decision = self
            .rank_figures(&self.on_path(index, "carry requests", "3.4"), index, group)
            .until("it fails, is slower than its siblings, or a better group takes over");
        self.decide(&decision);
    }

    fn decide_stands_by(&mut self, index: usize) {
        let group = self.active.rank.unwrap_or_else(|| self.rank(index));
        let decision = self.rank_figures(&self.on_path(index, "stand by", "3.4"), index, group);
        let decision = if self.rank(index) < group {
            decision.until("no path of a better group is usable")
        } else {
            decision
                .refused("use it beside the other", "active-passive: one path at a time")
                .until("the path in use is not usable any more")
        };
        self.decide(&decision);
    }

    /// A better group is usable and must wait.
    fn decide_failback(&mut self) {
        let Some(rank) = self.active.rank else { return };
        let better = || self.usable().filter(|&path| self.rank(path) > rank);
        let since = better().map(|path| self.ranked_since(path)).min().unwrap_or(self.now);
        let Some(best) = better().max_by_key(|&path| self.rank(path)) else { return };
        let waits = |decision: Decision, limit| {
            let decision = decision.time("better group usable for", self.now - since, limit);
            self.rank_figures(&decision, best, rank)
        };
        let decision = self.on_device("stay with the lower group", "failback");
        let decision = match self.program.failback {
            Failback::After(delay) => waits(decision, Limit::AtLeast(delay))
                .refused("go back at once", "a path that comes back is as likely as any to leave again")
                .until("the better group has been usable that long, or `path reinstate`"),
            Failback::Manual => waits(decision, Limit::Informs)
                .refused("go back", "`failback = \"manual\"` is configured")
                .until("`path reinstate`"),
            Failback::Immediate => return,
        };
        self.decide(&decision);
    }

    /// What was measured puts a path into another group.
    pub(crate) fn decide_moved(&mut self, moved: &Moved) {
        let away = moved.to > moved.from;
        let what = if away { "group it behind nearer storage" } else { "group it with nearer storage" };
        let decision = self
            .on_path(moved.path, what, "distance")
            .time("its distance", moved.distance_ns, Limit::Informs)
            .time("of the nearest", moved.nearest_ns, Limit::Informs)
            .count("steps of distance", u64::from(moved.to), Limit::Informs);
        let decision = if away {
            decision
                .refused("use it like the others", "what it is given takes so much longer")
                .until("it is at most twice as far as the nearer ones, or `groups = \"priority\"`")
        } else {
            decision
                .until("it is more than 4 times as far as others of its group, or `groups = \"priority\"`")
        };
        self.decide(&decision);
    }

    /// Active-passive: the new path may not start yet (W20).
    fn decide_exclusive(&mut self) {
        let Some(old) = self.active.waiting_for else { return };
        let open: u32 = self.paths[old].lanes.iter().map(|&slot| self.lane_at(slot).in_flight).sum();
        let doubts = self.doubts.iter().filter(|doubt| doubt.path == old).count() as u64;
        let proven = self.program.exclusive == Exclusive::Proven;
        let decision = self
            .on_path(old, "the next path waits for this one", "W20")
            .count("requests in flight", u64::from(open), Limit::Informs)
            .count("writes in doubt", doubts, Limit::Informs)
            .refused("let the next one start", "one path at a time: this one may still work on something")
            .until(match (proven, self.awaits_word(old)) {
                (true, _) => "proof that nothing is left on it",
                (false, true) => "its gate has finished its session, or after half a second",
                (false, false) => "its requests are answered",
            });
        self.decide(&decision);
    }

    fn decide_coherence(&mut self, narrow: bool) {
        let decision = if narrow {
            self.on_device("one path at a time, every write with FUA", "W18")
                .refused("use all paths", "they do not share one cache, so a read could miss a write")
                .until("every server offers multi-conn, and `coherent` is not false")
        } else {
            self.on_device("use the configured access policy", "W18")
                .until("a server without multi-conn, or `coherent = false`")
        };
        self.decide(&decision);
    }

    fn decide_hold(&mut self, since: Option<Nanos>) {
        let waiting = self.requests.len() as u64;
        let decision = match (since, self.program.no_path) {
            (Some(since), _) => self
                .on_device("a path is back: requests go on", "3.7")
                .time("without a path for", self.now - since, Limit::Informs)
                .count("requests waiting", waiting, Limit::Informs)
                .until("the last path is lost again"),
            (None, NoPath::Fail) => self
                .on_device("no path: fail requests", "3.7")
                .count("requests waiting", waiting, Limit::Informs)
                .refused("hold them", "`no_path = \"fail\"` is configured")
                .until("a path is back"),
            (None, NoPath::Hold(hold)) => self
                .on_device("no path: hold requests", "3.7")
                .count("requests waiting", waiting, Limit::Informs)
                .time("hold", hold, Limit::Informs)
                .refused("fail them", "a host takes an error for a failed disk")
                .until("a path is back, the hold is over, or `device fail-now`"),
            (None, NoPath::Forever) => self
                .on_device("no path: hold requests", "3.7")
                .count("requests waiting", waiting, Limit::Informs)
                .refused("fail them", "`no_path` is to hold them for ever")
                .until("a path is back, or `device fail-now`"),
        };
        self.decide(&decision);
    }

    /// The hold is over, or was ended (3.7). `hold`: how long it was to last.
    pub(crate) fn decide_hold_over(&mut self, rule: &'static str, hold: Option<Nanos>) {
        let lasted = self.held_since.map_or(0, |since| self.now - since);
        let decision = self
            .on_device("fail requests", rule)
            .time("without a path for", lasted, hold.map_or(Limit::Informs, Limit::AtLeast))
            .count("requests waiting", self.requests.len() as u64, Limit::Informs)
            .until("a path is back");
        self.decide(&decision);
    }
}
