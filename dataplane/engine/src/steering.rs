// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the rules hold against each path, and how far it may therefore be used (design 3.5).
//!
//! No rule takes a path away. Each says its word here, the words make a *standing*
//! (`policies::standing`), and `active` uses the paths of the best standing that exists: so the
//! last path that answers is used whatever is held against it.
//!
//! | rule | hears of | says |
//! |---|---|---|
//! | failure limit | a path that lost its last connection, or whose link is silent | held out 30 s ... 10 min |
//! | marginal | what was spoilt: a suspicion, an EIO that nobody confirms, a failed canary | demoted |
//! | slow | the service times of reads, writes and canaries, but for what a silent link held up | demoted |
//! | probation | a path that came back | proving |
//! | silence, age, canary, EIO | every lane of it is suspect; it alone answers EIO | suspect |
//!
//! A lost connection is one failure however many lanes and requests went with it, and is no
//! spoilt request besides: what is counted there is not counted here. A failure that all
//! paths share is the storage's, and nobody is blamed for it (`policies::faults`).
//!
//! Cost: a request that is answered well adds to three counters; everything else happens
//! when something goes wrong, or once in 5 s while there is I/O. An idle device has no timer here.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use policies::faults::{FaultClass, PathAction};
use policies::limits::MICROSECOND;
use policies::slow::{SlowChange, SlowSeen};
use policies::standing::{Held, Standing, standing};
use policies::{FailureLimit, Marginal, Pacing};
use program::{MILLISECOND, Nanos, SECOND};

use crate::engine::Engine;
use crate::path::Admin;
use crate::record::DecisionPoint;

/// What is held against one path.
#[derive(Debug, Default)]
pub(crate) struct Steering {
    pub(crate) limit: FailureLimit,
    pub(crate) marginal: Marginal,
    /// Of requests that were moved to it from a lost path.
    pub(crate) pacing: Pacing,
    pub(crate) paced_in_flight: u32,
    /// As of the last `regroup`; `None` while it cannot be used at all.
    pub(crate) standing: Option<Standing>,
    /// Since when it is at least that good; meaningless while there is none.
    pub(crate) since: Nanos,
    /// It was held out when last looked at: probation follows when that ends.
    held: bool,
    /// Held out, it waits before it connects again.
    pub(crate) paused: bool,
    /// Only a portal failed: it comes back to the place it had.
    pub(crate) keeps_place: bool,
}

impl Steering {
    /// It has this standing, and one at all.
    pub(crate) fn is_of(&self, standing: Option<Standing>) -> bool {
        standing.is_some() && self.standing == standing
    }

    /// Answers now, whatever else is held against it.
    pub(crate) fn answers(&self) -> bool {
        self.standing > Some(Standing::Suspect)
    }
}

impl Engine {
    /// What the rules say of a path; `None` if it cannot be used at all.
    fn held_of(&self, index: usize) -> Option<Held> {
        let path = &self.paths[index];
        if path.admin != Admin::In || !path.proven {
            return None;
        }
        let mut up = path.lanes.iter().map(|&slot| self.lane_at(slot)).filter(|lane| lane.is_up()).peekable();
        up.peek()?;
        let waits = path.probation.as_ref().is_some_and(|probation| probation.share_ppm(self.now) == 0);
        Some(Held {
            // What answers errors that others do not is no better than what does not answer.
            suspect: path.sick || up.all(|lane| lane.suspicion.is_some()),
            held_out: path.steering.limit.holds_out(self.now, false),
            proving: waits,
            slow: self.slow.is_demoted(index),
            marginal: path.steering.marginal.is_marginal(self.now),
        })
    }

    pub(crate) fn standing_of(&self, index: usize) -> Option<Standing> {
        self.held_of(index).map(standing)
    }

    /// Works out every path's standing. Whether a path came into good standing for the first
    /// time: it takes its place at once, the delay of a failback is for returning.
    pub(crate) fn mark_standings(&mut self) -> bool {
        let mut first = false;
        for index in 0..self.paths.len() {
            let after = self.standing_of(index);
            let now = self.now;
            let path = &mut self.paths[index];
            if after > path.steering.standing && !core::mem::take(&mut path.steering.keeps_place) {
                path.steering.since = now;
            }
            path.steering.standing = after;
            if after == Some(Standing::Good) {
                first |= !core::mem::replace(&mut path.was_usable, true);
            }
        }
        first
    }

    /// The path lost its last connection, by a fault of this class.
    pub(crate) fn path_failed(&mut self, index: usize, class: FaultClass) {
        let now = self.now;
        // What all paths share is nobody's fault, and holding them out would only keep the
        // device away longer.
        if self.verdict_on_failure(index, class, true).path != PathAction::HoldOut {
            self.decide_shared_failure(index);
            return;
        }
        let steering = &mut self.paths[index].steering;
        let before = steering.limit.holds_out(now, false);
        let until = steering.limit.on_failure(now);
        steering.held = until.is_some();
        self.note(|_| DecisionPoint::Failed { path: index });
        self.decide_failure(index, until);
        if let Some(until) = until.filter(|_| !before) {
            let text = held_out_text(self.paths[index].steering.limit.failures(now), until - now);
            self.event("path_held_out", Some(index), "failure-limit", text);
        }
    }

    pub(crate) fn answers_now(&self, index: usize) -> bool {
        self.standing_of(index) > Some(Standing::Suspect)
    }

    /// A path spoilt a request.
    pub(crate) fn in_trouble(&mut self, index: usize) {
        let now = self.now;
        let steering = &mut self.paths[index].steering;
        if steering.marginal.on_trouble(now) {
            let text = self.marginal_text(index);
            self.paths[index].explain("marginal", text.clone());
            self.decide_marginal(index);
            self.event("path_marginal", Some(index), "marginal", text);
            self.regroup();
        }
    }

    /// Timer work: windows are compared, hold-outs and clean times end.
    pub(crate) fn steer(&mut self) {
        self.compare_paths();
        let mut changed = false;
        for index in 0..self.paths.len() {
            let held = self.paths[index].steering.limit.holds_out(self.now, false);
            if core::mem::replace(&mut self.paths[index].steering.held, held) && !held {
                self.hold_out_ended(index);
            }
            changed |= self.standing_of(index) != self.paths[index].steering.standing;
        }
        if changed {
            self.regroup();
        }
    }

    /// Its time is over: it earns its share like any path that comes back, unless it was in use
    /// all the same.
    fn hold_out_ended(&mut self, index: usize) {
        let carries = self.active.members.contains(&index) || self.active.writers.contains(&index);
        self.decide_hold_out_over(index);
        let now = self.now;
        let path = &mut self.paths[index];
        if path.steering.standing.is_some() {
            path.backoff.reset();
        }
        if path.steering.standing.is_some() && !carries {
            path.probation = Some(policies::Probation::start(now));
            path.explain(
                "probation",
                String::from("its hold-out time is over: canaries first, then a small share"),
            );
        }
    }

    /// A path that is held out has lost its connection: it is in no hurry to connect. At once, one that flickers would be
    /// reset and told of ten times a second; it waits like one that cannot be reached, unless something waits for it.
    pub(crate) fn pace_held_out(&mut self, index: usize) {
        let (now, domain) = (self.now, self.paths[index].domain);
        let path = &self.paths[index];
        let held = path.admin == Admin::In && path.steering.limit.holds_out(now, false);
        // Only a gate, asked over it, ends a doubt sooner.
        let gated = path.offer.is_some_and(|offer| offer.gate.is_some());
        let to_be_fenced = gated && self.doubts.iter().any(|doubt| doubt.path == index && doubt.in_flight);
        let sibling =
            if path.writable() { self.has_writable_sibling(index) } else { self.has_sibling(index) };
        if !held || to_be_fenced || !sibling || self.flush_waits_for(domain) {
            return;
        }
        let draw = self.draw();
        let path = &mut self.paths[index];
        path.steering.paused = true;
        path.reconnect_at = path.reconnect_at.max(now + path.backoff.next_delay(draw));
        self.decide_pause(index);
    }

    /// No path is left: those that wait though they may be well are tried now.
    pub(crate) fn end_pauses(&mut self) {
        for path in &mut self.paths {
            if core::mem::take(&mut path.steering.paused) {
                path.reconnect_at = self.now;
            }
        }
    }

    fn compare_paths(&mut self) {
        if self.slow.next_deadline().is_none_or(|due| due > self.now) {
            return;
        }
        let mut good = core::mem::take(&mut self.good_standing);
        good.clear();
        good.extend((0..self.paths.len()).map(|index| {
            let held = self.held_of(index).map(|held| Held { slow: false, ..held });
            held.map(standing) == Some(Standing::Good) && self.paths[index].probation.is_none()
        }));
        let groups: Vec<u32> = (0..self.paths.len()).map(|index| self.group_of(index)).collect();
        loop {
            self.note(|_| DecisionPoint::Compared { in_good_standing: good.clone(), groups: groups.clone() });
            let Some(change) = self.slow.poll(self.now, &good, &groups) else { break };
            self.tell_slow(change);
        }
        self.good_standing = good;
    }

    fn tell_slow(&mut self, change: SlowChange) {
        match change {
            SlowChange::Demoted { path, seen } => {
                let text = slow_text(&seen);
                self.paths[path].explain("slow", text.clone());
                self.decide_slow(path, &seen, None);
                self.event("path_slow", Some(path), "slow", text);
            }
            SlowChange::Spared { path, seen, because } => {
                self.decide_slow(path, &seen, Some(because));
                let why = crate::decide::spared_text(because);
                let text = format!("{}; it is used all the same: {why}", slow_text(&seen));
                self.event("path_slow_spared", Some(path), "slow", text);
            }
            SlowChange::Restored { path, clean_ns } => {
                let text = String::from("no slow window for 5 min: in good standing again");
                self.decide_restored(path, clean_ns);
                self.event("path_restored", Some(path), "slow", text);
            }
            SlowChange::StorageSlow { median_ns, baseline_ns } => {
                let text = format!(
                    "all paths are slow, so it is the storage: a median of {} us, usually {} us; no path is demoted for it",
                    median_ns / MICROSECOND,
                    baseline_ns / MICROSECOND
                );
                self.decide_storage_slow(Some((median_ns, baseline_ns)));
                self.event("storage_slow", None, "slow", text);
            }
            SlowChange::StorageNormal => {
                let text = String::from("the storage is as fast as it usually is again");
                self.decide_storage_slow(None);
                self.event("storage_normal", None, "slow", text);
            }
        }
    }

    /// When [`Engine::steer`] has something to do next.
    pub(crate) fn next_steering(&self) -> Option<Nanos> {
        let now = self.now;
        let paths = self.paths.iter().filter(|path| path.steering.standing.is_some());
        let times = paths.flat_map(|path| {
            let marginal = path.steering.marginal.until().filter(|&until| now < until);
            [path.steering.limit.next_deadline(now), marginal]
        });
        // On an idle device a window lasts until the next canary: it need not be woken for it.
        let window = self.slow.next_deadline().filter(|_| self.is_busy());
        times.flatten().chain(window).min()
    }

    /// An operator reinstates the path: nothing is held against it.
    pub(crate) fn forgive(&mut self, index: usize) {
        self.paths[index].steering.limit.clear();
        self.paths[index].steering.marginal.clear();
        self.slow.clear(index);
        self.note(|_| DecisionPoint::Forgiven { path: index });
    }

    /// Why a path that answers is not in use, or not like the others; for status.
    pub(crate) fn standing_reason(&self, index: usize) -> Option<(&'static str, String)> {
        let steering = &self.paths[index].steering;
        match steering.standing? {
            Standing::HeldOut => {
                let until = steering.limit.held_until().unwrap_or(self.now);
                let left = until.saturating_sub(self.now);
                Some(("failure-limit", held_out_text(steering.limit.failures(self.now), left)))
            }
            Standing::Demoted if self.slow.is_demoted(index) => {
                Some(("slow", slow_text(&self.slow.seen(index))))
            }
            Standing::Demoted => Some(("marginal", self.marginal_text(index))),
            Standing::Good | Standing::Proving | Standing::Suspect => None,
        }
    }

    fn marginal_text(&self, index: usize) -> String {
        let marginal = &self.paths[index].steering.marginal;
        let counts = marginal.counts(self.now);
        let left = marginal.until().unwrap_or(self.now).saturating_sub(self.now);
        format!(
            "it spoilt {} of {} requests within a minute: used while nothing better is, until {} s pass without another",
            counts.troubled,
            counts.requests,
            left / SECOND
        )
    }
}

fn held_out_text(failures: u32, left: Nanos) -> String {
    format!(
        "{failures} failures within 10 min: held out for {} s, unless no other path is left",
        left / SECOND
    )
}

fn slow_text(seen: &SlowSeen) -> String {
    let SlowSeen { median_ns, siblings_ns, windows_slow, samples } = *seen;
    format!(
        "slow in {windows_slow} of the last 12 windows of 5 s ({samples} requests): a median of {}.{} ms where its siblings need {}.{} ms",
        median_ns / MILLISECOND,
        median_ns % MILLISECOND / (MILLISECOND / 10),
        siblings_ns / MILLISECOND,
        siblings_ns % MILLISECOND / (MILLISECOND / 10)
    )
}
