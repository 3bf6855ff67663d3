// SPDX-License-Identifier: MIT OR Apache-2.0
//! Decisions about a path's standing: held out, demoted, spared; portals; pacing (design 3.4, 3.5).

use policies::explain::{Decision, Limit};
use policies::hedge::Refusal;
use policies::limits::{
    FAILURES_ALLOWED, HEDGE_OVERLOAD_FACTOR, MARGINAL_RATE_PPM, MARGINAL_TROUBLED_MIN, PACING_MOVED_MIN,
    PORTAL_RETURN_AFTER, SLOW_CLEAN, SLOW_FACTOR, SLOW_SAMPLES_MIN, SLOW_WINDOWS_SLOW,
};
use policies::slow::{SlowSeen, Spared};
use policies::{Standing, Subject};
use program::Nanos;

use crate::engine::Engine;

impl Engine {
    /// A path failed. `until`: it is held out that long.
    pub(crate) fn decide_failure(&mut self, path: usize, until: Option<Nanos>) {
        let failures = u64::from(self.paths[path].steering.limit.failures(self.now));
        let allowed = u64::from(FAILURES_ALLOWED);
        let decision = match until {
            Some(_) => self.held_out(path, self.now),
            None => self
                .on_path(path, "count a failure", "failure-limit")
                .count("failures within 10 min", failures, Limit::AtMost(allowed))
                .refused("hold it out", "so many failures are allowed")
                .until("10 min without another"),
        };
        self.decide(&decision);
    }

    fn held_out(&self, path: usize, now: Nanos) -> Decision {
        let limit = &self.paths[path].steering.limit;
        let left = limit.held_until().unwrap_or(now).saturating_sub(now);
        Decision::new(now, Subject::Path(path), "hold it out", "failure-limit")
            .count(
                "failures within 10 min",
                u64::from(limit.failures(now)),
                Limit::Above(u64::from(FAILURES_ALLOWED)),
            )
            .time("held out for", left, Limit::Informs)
            .refused("use it when it is back", "each failure moves all that is in flight on it")
            .refused("hold it out when it is the last", "a flapping path is better than none")
            .until("that time is over, no other path is left, or `path reinstate`")
    }

    /// Why a path is held out or demoted at this moment.
    pub(crate) fn standing_now(&self, index: usize, now: Nanos) -> Decision {
        match self.paths[index].steering.standing {
            Some(Standing::HeldOut) => self.held_out(index, now),
            _ if self.slow.is_demoted(index) => self.slow_now(index, now),
            _ => self.marginal_now(index, now),
        }
    }

    /// Demoted by windows that may be over: what counts now is how long none was slow.
    fn slow_now(&self, index: usize, now: Nanos) -> Decision {
        let seen = self.slow.seen(index);
        let about = Decision::new(now, Subject::Path(index), "used while nothing better is: slow", "slow")
            .time("without a slow window", self.slow.clean_for(index, now), Limit::AtLeast(SLOW_CLEAN))
            .count("slow windows of the last 12", u64::from(seen.windows_slow), Limit::Informs);
        Self::medians(&about, &seen)
            .refused("take it out", "slow is not dead, and it may be all there is left")
            .until("5 min without a slow window, or `path reinstate`")
    }

    /// The same for one that spoilt requests.
    fn marginal_now(&self, index: usize, now: Nanos) -> Decision {
        let marginal = &self.paths[index].steering.marginal;
        let counts = marginal.counts(now);
        let left = marginal.until().unwrap_or(now).saturating_sub(now);
        let what = "used while nothing better is: it spoilt requests";
        Decision::new(now, Subject::Path(index), what, "marginal")
            .time("in good standing again in", left, Limit::Informs)
            .count("requests spoilt within a minute", u64::from(counts.troubled), Limit::Informs)
            .count("of so many", u64::from(counts.requests), Limit::Informs)
            .refused("take it out", "it works, and may be all there is left")
            .until("that time passes without another, or `path reinstate`")
    }

    /// It failed, and so did every other.
    pub(crate) fn decide_shared_failure(&mut self, path: usize) {
        let decision = self
            .on_path(path, "count no failure: no other path answers either", "failure-limit")
            .count("other paths that answer", 0, Limit::AtMost(0))
            .refused("count it", "what all paths share is not this one's fault")
            .until("it fails while another path answers");
        self.decide(&decision);
    }

    /// A hold-out time is over.
    pub(crate) fn decide_hold_out_over(&mut self, path: usize) {
        let holds = u64::from(self.paths[path].steering.limit.holds());
        let decision = self
            .on_path(path, "end its hold-out", "failure-limit")
            .count("times held out", holds, Limit::Informs)
            .refused("use it at once", "canaries and a small share come first")
            .until("another failure: then for twice as long");
        self.decide(&decision);
    }

    /// It spoils too many requests.
    pub(crate) fn decide_marginal(&mut self, path: usize) {
        let decision = self.demoted_marginal(path, self.now);
        self.decide(&decision);
    }

    fn demoted_marginal(&self, path: usize, now: Nanos) -> Decision {
        let marginal = &self.paths[path].steering.marginal;
        let counts = marginal.counts(now);
        let left = marginal.until().unwrap_or(now).saturating_sub(now);
        let (troubled, requests) = (u64::from(counts.troubled), u64::from(counts.requests.max(1)));
        Decision::new(now, Subject::Path(path), "demote it", "marginal")
            .count(
                "requests spoilt within a minute",
                troubled,
                Limit::AtLeast(u64::from(MARGINAL_TROUBLED_MIN)),
            )
            .figure(
                "of its requests",
                troubled * 1_000_000 / requests,
                policies::explain::Unit::Ppm,
                Limit::AtLeast(u64::from(MARGINAL_RATE_PPM)),
            )
            .time("without another before it returns", left, Limit::Informs)
            .refused("take it out", "it works, and may be all there is left")
            .until("that time passes without another, or `path reinstate`")
    }

    fn slow_figures(decision: &Decision, seen: &SlowSeen) -> Decision {
        let windows = decision
            .count(
                "slow windows of the last 12",
                u64::from(seen.windows_slow),
                Limit::AtLeast(u64::from(SLOW_WINDOWS_SLOW)),
            )
            .count("requests in them", u64::from(seen.samples), Limit::AtLeast(u64::from(SLOW_SAMPLES_MIN)));
        Self::medians(&windows, seen)
    }

    fn medians(decision: &Decision, seen: &SlowSeen) -> Decision {
        decision
            .time("median", seen.median_ns, Limit::Above(seen.siblings_ns.saturating_mul(SLOW_FACTOR)))
            .time("its siblings'", seen.siblings_ns, Limit::Informs)
    }

    /// It is slow against its siblings. `spared`: why nothing is done.
    pub(crate) fn decide_slow(&mut self, path: usize, seen: &SlowSeen, spared: Option<Spared>) {
        let decision = match spared {
            None => Self::demoted_slow(path, self.now, seen),
            Some(because) => {
                Self::slow_figures(&self.on_path(path, "keep it though it is slow", "slow"), seen)
                    .refused("demote it", spared_text(because))
                    .until("it is fast again, or that is different")
            }
        };
        self.decide(&decision);
    }

    fn demoted_slow(path: usize, now: Nanos, seen: &SlowSeen) -> Decision {
        Self::slow_figures(&Decision::new(now, Subject::Path(path), "demote it", "slow"), seen)
            .refused("take it out", "slow is not dead, and it may be all there is left")
            .until("5 min without a slow window, or `path reinstate`")
    }

    /// It is as fast as its siblings again.
    pub(crate) fn decide_restored(&mut self, path: usize, clean: Nanos) {
        let decision = self
            .on_path(path, "use it like the others again", "slow")
            .time("without a slow window", clean, Limit::AtLeast(SLOW_CLEAN))
            .until("it is slow for most of a minute");
        self.decide(&decision);
    }

    /// All paths are slow, or are no longer.
    pub(crate) fn decide_storage_slow(&mut self, seen: Option<(Nanos, Nanos)>) {
        let decision = match seen {
            Some((median_ns, baseline_ns)) => self
                .on_device("the storage is slow", "slow")
                .time("median", median_ns, Limit::Above(baseline_ns.saturating_mul(SLOW_FACTOR)))
                .time("usually", baseline_ns, Limit::Informs)
                .refused("demote paths", "none is slower than the others")
                .until("5 min without a slow window, or it is the new normal"),
            None => self
                .on_device("the storage is as fast as it usually is", "slow")
                .refused("go on with its alarm", "no window was slow for 5 min")
                .until("most of a minute in which all paths are slow"),
        };
        self.decide(&decision);
    }

    /// A portal failed and another carries: the path did not fail.
    pub(crate) fn decide_portal(&mut self, path: usize, portal: usize) {
        let portals = self.paths[path].portal_count() as u64;
        let decision = self
            .on_path(path, "go on over another portal", "3.4")
            .count("portal", portal as u64 + 1, Limit::AtMost(portals))
            .refused("count a failure", "the path fails when all its portals have")
            .refused("begin with canaries", "it is the same server, and its identity was checked")
            .until("a better portal is back: it is tried beside this one after a minute");
        self.decide(&decision);
    }

    /// The better portal is back.
    pub(crate) fn decide_portal_return(&mut self, path: usize, portal: usize, over_other: Nanos) {
        let decision = self
            .on_path(path, "go back to the better portal", "3.4")
            .count("portal", portal as u64 + 1, Limit::Informs)
            .time("over the other one for", over_other, Limit::AtLeast(PORTAL_RETURN_AFTER))
            .until("it fails");
        self.decide(&decision);
    }

    /// Requests are late on a connection that answers others (W15, W19).
    pub(crate) fn decide_move_late(&mut self, slot: u16, requests: u64) {
        let Some((entry, allowed)) = self.overdue_slot(slot) else { return };
        let age = self.now - entry.sent_at;
        let decision = self
            .on_path(self.lane_at(slot).path, "ask another path too: late here", "W15")
            .time("unanswered", age, Limit::AtLeast(allowed))
            .count("requests", requests, Limit::Above(0))
            .refused("suspect the connection", "it answers others, or its canary: this request is slow")
            .until("the first good answer; if the other path's, it counts against this one");
        self.decide(&decision);
    }

    /// Late reads get no second copy for a while, or do again (3.5). `median`: over the paths, what a read is expected to take.
    pub(crate) fn decide_hedging(&mut self, stopped: Option<Refusal>, median: Nanos, baseline: Nanos) {
        let limit = baseline.saturating_mul(HEDGE_OVERLOAD_FACTOR);
        let decision = match stopped {
            Some(Refusal::Overload) => self
                .on_device("send no late read to a second path", "hedge")
                .time("expected of a read, median of the paths", median, Limit::Above(limit))
                .refused("send it all the same", "all paths are slow: a second copy is only more load")
                .until("the median is no more than three times what it usually is"),
            Some(_) => self
                .on_device("send no late read to a second path", "hedge")
                .refused("send it all the same", "a path is on probation, and its share is small on purpose")
                .until("its probation is over"),
            None => self
                .on_device("send late reads to a second path again", "hedge")
                .time("expected of a read, median of the paths", median, Limit::Informs)
                .until("all paths are slow, or one is on probation"),
        };
        self.decide(&decision);
    }

    /// Many requests move at once.
    pub(crate) fn decide_pacing(&mut self, path: usize, requests: u32) {
        let decision = self
            .on_path(path, "send what was in flight on it elsewhere a few at a time", "pacing")
            .count("requests moved at once", u64::from(requests), Limit::AtLeast(u64::from(PACING_MOVED_MIN)))
            .refused("send them all at once", "they would stand before everything the other paths serve")
            .until("none of them waits any more");
        self.decide(&decision);
    }
}

/// Why a slow path is kept in use.
pub(crate) const fn spared_text(because: Spared) -> &'static str {
    match because {
        Spared::LastUsable => "no other path in good standing is there",
        Spared::StorageSlow => "the storage is slow as a whole",
        Spared::TooSoon => "another path was demoted within the last minute, or is slower still",
    }
}
