// SPDX-License-Identifier: MIT OR Apache-2.0
//! Why things stand as they do at this moment.
//!
//! Worked out from the state when somebody asks, so it is never stale: what holds a path
//! where it is, the figure that counts now with the limit it is compared with, and what ends it.
//! How it came to this is what the rings keep.
//!
//! | state | what counts |
//! |---|---|
//! | up, standby | rank against that of the group in use |
//! | probation | good canaries, or what is left of the small share |
//! | down | the operator; errors; a suspicion; a connection or a check under way; the next attempt |
//! | refused, unproven | what was compared; when it is asked again |
//! | drained | what is still in flight |
//! | held, slow | what the rule counted, and what is left of its time |

use policies::explain::{Decision, Limit, Subject, Unit};
use policies::limits::{GIVE_UP, PROBATION_CANARIES, SILENT_ABORT};
use program::{DeviceState, Nanos, NoPath, PathState};

use crate::engine::Engine;
use crate::lane::{Cause, Lane, LaneState, Suspicion};
use crate::path::Admin;

impl Engine {
    /// Why a path is in its state.
    pub(crate) fn path_now(&self, index: usize, now: Nanos) -> Decision {
        let path = &self.paths[index];
        let about = |what, rule| Decision::new(now, Subject::Path(index), what, rule);
        match path.state {
            PathState::Up | PathState::Standby => self.used_now(index, now),
            PathState::Probation => self.probation_now(index, now),
            PathState::Refused => about("refused", path.rule)
                .time("asked again in", path.reconnect_at.saturating_sub(now), Limit::Informs)
                .refused("use it all the same", "hosts would see other data, or less than they were told")
                .until("the server offers what fits when it is asked again; `path reinstate` asks at once"),
            PathState::Unproven => self.unproven_now(index, now),
            PathState::Drained => about("taken out by `path drain`", "operator")
                .count("requests in flight", self.in_flight_on(index), Limit::Informs)
                .until("`path reinstate`"),
            PathState::Down => self.down_now(index, now),
            PathState::Slow | PathState::Held => self.standing_now(index, now),
        }
    }

    fn in_flight_on(&self, index: usize) -> u64 {
        self.paths[index].lanes.iter().map(|&slot| u64::from(self.lane_at(slot).in_flight)).sum()
    }

    fn used_now(&self, index: usize, now: Nanos) -> Decision {
        let path = &self.paths[index];
        let (group, rank) = (self.active.rank.unwrap_or_else(|| self.rank(index)), self.rank(index));
        let carries = self.active.members.contains(&index) || self.active.writers.contains(&index);
        let what = if carries { "carries requests" } else { "stands by" };
        let about = Decision::new(now, Subject::Path(index), what, "3.4").time(
            "usable for",
            now.saturating_sub(path.steering.since),
            Limit::Informs,
        );
        let about = self.rank_figures(&about, index, group);
        match carries {
            true => about
                .count(
                    "requests in flight",
                    self.in_flight_on(index),
                    Limit::AtMost(u64::from(path.program.in_flight)),
                )
                .until("a fault, a late request, or a better group that takes over"),
            false if rank < group => about
                .refused("use it beside them", "a better group has a usable path")
                .until("no path of a better group is usable"),
            false if rank > group => {
                let waited = now.saturating_sub(self.ranked_since(index));
                let (limit, because) = match self.program.failback {
                    program::Failback::After(delay) => (delay, "the failback rule wants it stable first"),
                    _ => (0, "`failback = \"manual\"`"),
                };
                about
                    .time("stable for", waited, Limit::AtLeast(limit))
                    .refused("go back to it at once", because)
                    .until("it was stable that long, or `path reinstate`")
            }
            false => about
                .refused("use it beside the other", "active-passive: one path at a time")
                .until("the path in use is not usable any more"),
        }
    }

    fn probation_now(&self, index: usize, now: Nanos) -> Decision {
        let about = Decision::new(now, Subject::Path(index), "on probation after a failure", "probation");
        let Some(probation) = self.paths[index].probation.as_ref() else { return about };
        let about = about
            .time("back for", now.saturating_sub(probation.started()), Limit::Informs)
            .count(
                "good canary reads in a row",
                u64::from(probation.good_canaries()),
                Limit::AtLeast(u64::from(PROBATION_CANARIES)),
            )
            .figure(
                "share of the requests now",
                u64::from(probation.share_ppm(now)),
                Unit::Ppm,
                Limit::Informs,
            );
        match probation.next_deadline() {
            Some(end) => about
                .time("full share in", end.saturating_sub(now), Limit::Informs)
                .refused("give it all at once", "a small share of real requests shows what a probe cannot")
                .until("that time without a bad canary"),
            None => about
                .refused("give it requests", "a path that comes back is as likely as any to leave again")
                .until("three good canary reads in a row, then 5 % of the requests for 10 s"),
        }
    }

    fn unproven_now(&self, index: usize, now: Nanos) -> Decision {
        let lanes = self.paths[index].lanes.iter().filter_map(|&slot| self.lane_at(slot).verify.as_ref());
        let equal = lanes.map(|verify| verify.figures().0).max().unwrap_or(0);
        Decision::new(now, Subject::Path(index), "not proven to be the same device", "3.8")
            .count("blocks that read equal", u64::from(equal), Limit::Informs)
            .count("of them with content that tells devices apart", 0, Limit::AtLeast(1))
            .refused("use it", "a blank volume looks like any other")
            .until("a block that a host writes reads back equal through it, or `id` in the configuration")
    }

    fn down_now(&self, index: usize, now: Nanos) -> Decision {
        let path = &self.paths[index];
        let about = |what, rule| Decision::new(now, Subject::Path(index), what, rule);
        let lanes = || path.lanes.iter().map(|&slot| self.lane_at(slot));
        if path.admin == Admin::Failed {
            return about("taken out by `path fail`", "operator")
                .count("requests in flight", self.in_flight_on(index), Limit::Informs)
                .until("`path reinstate`");
        }
        if path.sick {
            let good = path.probation.as_ref().map_or(0, policies::Probation::good_canaries);
            return about("out: its storage answers errors that other paths do not", "W7")
                .count(
                    "good canary reads in a row",
                    u64::from(good),
                    Limit::AtLeast(u64::from(PROBATION_CANARIES)),
                )
                .refused("use it", "every request on it would have to be sent again")
                .until("three good canary reads in a row");
        }
        // One that was given up is suspect for good; the path has left it behind.
        let used = || lanes().filter(|lane| lane.state == LaneState::Up);
        if let Some((lane, suspicion)) = used().find_map(|lane| lane.suspicion.map(|it| (lane, it))) {
            return self.suspect_now(lane, suspicion, now);
        }
        let found = |state| lanes().find(|lane| lane.state == state);
        if let Some(lane) = found(LaneState::Verifying) {
            let equal = lane.verify.as_ref().map_or(0, |verify| verify.figures().0);
            return about("connected; its identity is being checked", "3.8")
                .count("blocks that read equal so far", u64::from(equal), Limit::Informs)
                .time("connected for", now.saturating_sub(lane.opened_at), Limit::Informs)
                .until("its blocks read equal to those of an accepted path");
        }
        if lanes().any(|lane| matches!(lane.state, LaneState::Up | LaneState::Draining)) {
            return about("connected, nothing new is given to it", path.rule)
                .count("requests in flight", self.in_flight_on(index), Limit::Informs)
                .until("its old requests are over and it connects anew");
        }
        self.unconnected_now(index, now, found(LaneState::Opening))
    }

    fn suspect_now(&self, lane: &Lane, suspicion: Suspicion, now: Nanos) -> Decision {
        let (what, rule, limit, until) = match suspicion.cause {
            Cause::LinkSilent => (
                "suspect: the link is silent",
                "W16",
                SILENT_ABORT,
                "a reply on the connection; else it is closed at the limit and opened anew",
            ),
            Cause::Overdue => (
                "suspect: a request is unanswered past its age",
                "W15",
                GIVE_UP,
                "a reply on the connection; else it is given up at the limit and the path connects anew",
            ),
            Cause::Outrun => (
                "suspect: other paths answered its late reads first",
                "hedge",
                GIVE_UP,
                "a reply on the connection; else it is given up at the limit and the path connects anew",
            ),
            Cause::WindowClosed => (
                "suspect: its server does not read",
                "W16",
                GIVE_UP,
                "a reply on the connection; else it is given up at the limit and the path connects anew",
            ),
            Cause::CanaryOverdue => (
                "suspect: a canary read is unanswered",
                "W15",
                GIVE_UP,
                "a reply on the connection; else it is given up at the limit and the path connects anew",
            ),
        };
        let about = Decision::new(now, Subject::Path(lane.path), what, rule)
            .time("suspect for", now.saturating_sub(suspicion.since), Limit::Below(limit))
            .time("last reply ago", now.saturating_sub(lane.last_reply), Limit::Informs)
            .count("requests in flight", u64::from(lane.in_flight), Limit::Informs)
            .until(until);
        if self.active.last_resort && self.active.members.contains(&lane.path) {
            about.refused("stop using it", "no other path is usable: it is used all the same")
        } else {
            about.refused("close it at once", "a late reply is the only proof for its writes")
        }
    }

    fn unconnected_now(&self, index: usize, now: Nanos, opening: Option<&Lane>) -> Decision {
        let path = &self.paths[index];
        let lanes = path.lanes.iter().map(|&slot| self.lane_at(slot));
        let old = lanes.filter(|lane| lane.state == LaneState::Zombie).count() as u64;
        let about = |what| {
            Decision::new(now, Subject::Path(index), what, "3.5")
                .count("old connections kept for late replies", old, Limit::Informs)
                .count("attempts since it last worked", u64::from(path.attempts), Limit::Informs)
                .refused("give the path up", "a configured path is tried for ever")
        };
        match opening {
            Some(lane) => about("not connected; an attempt is under way")
                .time("it has taken", now.saturating_sub(lane.opened_at), Limit::Informs)
                .until("the server answers the handshake and shows the right data"),
            None => about("not connected; waiting before the next attempt")
                .time("next attempt in", path.reconnect_at.saturating_sub(now), Limit::Informs)
                .until("that attempt succeeds; `path reinstate` tries at once"),
        }
    }

    /// Why the device is in its state.
    pub(crate) fn device_now(&self, now: Nanos) -> Decision {
        let about = |what, rule| Decision::new(now, Subject::Device, what, rule);
        let configured = self.paths.iter().filter(|path| path.admin != Admin::Removed).count() as u64;
        let in_order =
            self.paths.iter().filter(|path| matches!(path.state, PathState::Up | PathState::Standby));
        let in_order = in_order.count() as u64;
        let held_for = self.held_since.map_or(0, |since| now.saturating_sub(since));
        match self.device_state() {
            DeviceState::Unknown => about("no path has told its size yet", "3.3")
                .time("without a path for", held_for, Limit::Informs)
                .refused("offer it to hosts", "what they are told first must hold for good")
                .until("a path connects, or `size` in the configuration"),
            DeviceState::Optimal => about("every path is in order", "3.4")
                .count("paths up or standing by", in_order, Limit::AtLeast(configured))
                .until("a path fails"),
            DeviceState::Degraded => about("served, with fewer paths than configured", "3.4")
                .count("paths up or standing by", in_order, Limit::AtLeast(configured))
                .until("every path is up or standing by"),
            DeviceState::Recovering => about("writes wait: the last stop was not clean", "W10")
                .time("at most", self.recovering.map_or(0, |end| end.saturating_sub(now)), Limit::Informs)
                .refused("write at once", "what the old process sent may still be carried out")
                .until("every path leads to a gate that took our claim, or that time has passed"),
            DeviceState::Held => {
                let about = about("no path: requests are held", "3.7")
                    .time("for", held_for, self.hold_limit())
                    .count("requests waiting", self.requests.len() as u64, Limit::Informs)
                    .refused("fail them", "a host takes an error for a failed disk");
                about.until("a path is back; the hold is over; or `device fail-now`")
            }
            DeviceState::Failed => about("no path: requests fail", "3.7")
                .time("for", held_for, Limit::Informs)
                .refused("hold them", "the hold is over, was ended, or none is configured")
                .until("a path is back"),
        }
    }

    fn hold_limit(&self) -> Limit {
        match self.program.no_path {
            NoPath::Hold(hold) => Limit::Below(hold),
            NoPath::Fail | NoPath::Forever => Limit::Informs,
        }
    }
}
