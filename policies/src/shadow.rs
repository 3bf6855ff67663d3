// SPDX-License-Identifier: MIT OR Apache-2.0
//! What another policy would have done with what has happened.
//!
//! **Model.** A change of a selector or a budget is a guess until it runs, and when it runs it
//! is too late. A *shadow* is a set of policies with the proposed settings that is fed the decision
//! points of a device as they come, live or from a record, with what was seen and what was
//! decided. It decides too, touches nothing, and counts where it differs.
//!
//! | decision point | what the shadow says |
//! |---|---|
//! | a path was chosen | which one it would have chosen |
//! | a read became late | whether it would have sent a second copy |
//! | a path failed | until when it would have held it out |
//! | service times were compared | which path it would have demoted or restored |
//!
//! What is answered, new paths and what an operator forgives are told to it as well: its own
//! policies learn from the same things as those that run. Hold-outs and demotions have no
//! settings in a [`Proposal`], so those are what ran decided too.
//!
//! **What it cannot know.** The world answers the decisions that were made, not those of the
//! shadow: on the path it would have chosen nobody measured that request. So what it
//! would have saved is an *estimate* from the expected times of that moment, always named so,
//! and a policy that feeds back on itself (a queue it would have built) is judged on the
//! queues that were there. Counts of differing decisions are exact.
//!
//! With the settings that run, fed from the start, a shadow never differs: that is its own test.

use alloc::vec;
use alloc::vec::Vec;
use core::ops::AddAssign;

use crate::hedge::{Answer, Hedge, PendingRead};
use crate::selector::{Candidate, Kind, Selector};
use crate::slow::{SlowChange, SlowPaths};
use crate::{FailureLimit, Nanos};

/// The settings to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// Selector of the device.
    pub kind: Kind,
    /// Budget of hedged reads in parts per million; 0 = off.
    pub hedge_ppm: u32,
    /// In-flight cap of a path: the burst of the budget.
    pub burst: u32,
}

/// A decision point of the running engine, with what it decided, or what a shadow beside it starts with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DecisionPoint {
    /// A record starts here, or goes on after a gap: a shadow is made by it.
    Started {
        /// Settings that run.
        settings: Proposal,
        /// Paths that the device has.
        paths: usize,
        /// Points that were dropped before this one.
        dropped: u64,
    },
    /// A reload: these settings run from now on.
    Settings(Proposal),
    /// A request was sent.
    Chosen {
        /// Its length.
        len_bytes: u64,
        /// It is a host's read, sent for the first time.
        first_read: bool,
        /// As given to the selector.
        candidates: Vec<Candidate>,
        /// Index into them.
        chosen: usize,
    },
    /// A host's READ or WRITE was answered well, and its time tells how fast the path is.
    Answered {
        /// Index of the path.
        path: usize,
        /// Write or read.
        write: bool,
        /// Its length.
        len_bytes: u64,
        /// Nanoseconds from its sending.
        service_ns: u64,
    },
    /// The same of a canary.
    Canary {
        /// Index of the path.
        path: usize,
        /// Nanoseconds from its sending.
        service_ns: u64,
    },
    /// The service times of the paths were compared, one change at a time.
    Compared {
        /// As given to [`SlowPaths::poll`].
        in_good_standing: Vec<bool>,
        /// Likewise.
        groups: Vec<u32>,
    },
    /// A read was old enough to be looked at.
    Late {
        /// As given to the hedge.
        read: PendingRead,
        /// A second copy was sent.
        hedged: bool,
    },
    /// A path failed, by a fault that counts against it.
    Failed {
        /// Index of the path.
        path: usize,
    },
    /// An operator reinstated a path: nothing is held against it.
    Forgiven {
        /// Index of the path.
        path: usize,
    },
    /// The device has so many paths now.
    Paths {
        /// How many.
        paths: usize,
    },
}

/// Where the shadow differs, or what it would have done by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Would {
    /// The same, or there was nothing to decide.
    Same,
    /// Another candidate.
    Choose {
        /// Index into the candidates.
        instead: usize,
        /// Expected wait of the one chosen less that of this one, in nanoseconds, at the
        /// queues of the moment; negative = longer. An estimate; `None` if one is unknown.
        estimated_gain_ns: Option<i64>,
    },
    /// Sent a second copy of the read.
    Hedge,
    /// Not sent the second copy that was sent.
    NotHedge,
    /// Held the path out until then.
    HoldOut(Nanos),
    /// Demoted or restored a path, or found the storage slow.
    Slow(SlowChange),
}

/// Sums over all decision points so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Requests sent.
    pub choices: u64,
    /// Of them, those with more than one candidate.
    pub choices_open: u64,
    /// Of these, those that would have gone elsewhere.
    pub choices_differ: u64,
    /// Of these, those whose gain can be estimated.
    pub choices_estimated: u64,
    /// Sum of the estimated gains, nanoseconds.
    pub estimated_gain_ns: i64,
    /// Late reads that were looked at.
    pub late_reads: u64,
    /// Of them, those where one of the two would have sent a second copy and the other not.
    pub late_reads_differ: u64,
    /// Second copies that were sent.
    pub hedges: u64,
    /// Second copies the shadow would have sent.
    pub hedges_shadow: u64,
    /// Failures for which it would have held the path out.
    pub hold_outs: u64,
    /// Paths it would have demoted.
    pub demotions: u64,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.choices += other.choices;
        self.choices_open += other.choices_open;
        self.choices_differ += other.choices_differ;
        self.choices_estimated += other.choices_estimated;
        self.estimated_gain_ns = self.estimated_gain_ns.saturating_add(other.estimated_gain_ns);
        self.late_reads += other.late_reads;
        self.late_reads_differ += other.late_reads_differ;
        self.hedges += other.hedges;
        self.hedges_shadow += other.hedges_shadow;
        self.hold_outs += other.hold_outs;
        self.demotions += other.demotions;
    }
}

/// Policies with proposed settings that run beside the real ones.
#[derive(Clone, Debug)]
pub struct Shadow {
    selector: Selector,
    hedge: Hedge,
    slow: SlowPaths,
    limits: Vec<FailureLimit>,
    tally: Tally,
}

impl Shadow {
    /// Beside a device with so many paths. Allocates.
    pub fn new(proposal: Proposal, paths: usize) -> Self {
        Self {
            selector: Selector::new(proposal.kind),
            hedge: Hedge::new(proposal.hedge_ppm, proposal.burst),
            slow: SlowPaths::new(paths),
            limits: vec![FailureLimit::new(); paths],
            tally: Tally::default(),
        }
    }

    /// Other settings from now on, as a reload brings them; what was learnt stays.
    pub fn set_proposal(&mut self, proposal: Proposal) {
        self.selector.set_kind(proposal.kind);
        self.hedge.set_budget(proposal.hedge_ppm, proposal.burst);
    }

    /// Feeds one decision point; times may not fall.
    ///
    /// # Panics
    ///
    /// If it names a path that there is not, or compares another number of paths.
    pub fn on(&mut self, now: Nanos, point: &DecisionPoint) -> Would {
        match *point {
            // For who keeps the shadow: only that knows what is proposed.
            DecisionPoint::Started { .. } | DecisionPoint::Settings(_) => Would::Same,
            DecisionPoint::Chosen { len_bytes, first_read, ref candidates, chosen } => {
                if first_read {
                    self.hedge.on_read();
                }
                self.choose(now, len_bytes, candidates, chosen)
            }
            DecisionPoint::Answered { path, write, len_bytes, service_ns } => {
                if !write {
                    self.hedge.on_reply(now, len_bytes, service_ns);
                }
                self.slow.record(now, path, write, len_bytes, service_ns);
                Would::Same
            }
            DecisionPoint::Canary { path, service_ns } => {
                self.slow.record(now, path, false, 0, service_ns);
                Would::Same
            }
            DecisionPoint::Compared { ref in_good_standing, ref groups } => {
                self.compare(now, in_good_standing, groups)
            }
            DecisionPoint::Late { ref read, hedged } => self.late(read, hedged),
            DecisionPoint::Failed { path } => {
                let held = self.limits[path].on_failure(now);
                self.tally.hold_outs += u64::from(held.is_some());
                held.map_or(Would::Same, Would::HoldOut)
            }
            DecisionPoint::Forgiven { path } => {
                self.limits[path].clear();
                self.slow.clear(path);
                Would::Same
            }
            DecisionPoint::Paths { paths } => {
                self.slow.set_paths(paths);
                self.limits.resize(paths, FailureLimit::new());
                Would::Same
            }
        }
    }

    /// Sums so far.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    fn choose(&mut self, now: Nanos, len_bytes: u64, candidates: &[Candidate], chosen: usize) -> Would {
        self.tally.choices += 1;
        self.tally.choices_open += u64::from(candidates.len() > 1);
        let instead = self.selector.choose(now, len_bytes, candidates);
        if instead == chosen {
            return Would::Same;
        }
        self.tally.choices_differ += 1;
        let wait = |candidate: &Candidate| {
            let ns = candidate.expected_ns.saturating_mul(u64::from(candidate.in_flight) + 1);
            (ns > 0).then_some(i64::try_from(ns).unwrap_or(i64::MAX))
        };
        let gain = wait(&candidates[chosen]).zip(wait(&candidates[instead]));
        let estimated_gain_ns = gain.map(|(real, shadow)| real - shadow);
        self.tally.choices_estimated += u64::from(gain.is_some());
        self.tally.estimated_gain_ns =
            self.tally.estimated_gain_ns.saturating_add(estimated_gain_ns.unwrap_or(0));
        Would::Choose { instead, estimated_gain_ns }
    }

    fn late(&mut self, read: &PendingRead, hedged: bool) -> Would {
        self.tally.hedges += u64::from(hedged);
        let would = self.hedge.decide(read) == Answer::Send;
        self.tally.hedges_shadow += u64::from(would);
        self.tally.late_reads += 1;
        self.tally.late_reads_differ += u64::from(would != hedged);
        match (would, hedged) {
            (true, false) => Would::Hedge,
            (false, true) => Would::NotHedge,
            _ => Would::Same,
        }
    }

    fn compare(&mut self, now: Nanos, in_good_standing: &[bool], groups: &[u32]) -> Would {
        let Some(change) = self.slow.poll(now, in_good_standing, groups) else { return Would::Same };
        self.tally.demotions += u64::from(matches!(change, SlowChange::Demoted { .. }));
        Would::Slow(change)
    }
}
