// SPDX-License-Identifier: MIT OR Apache-2.0
//! Canaries: when a lane is asked with a small read, and what the answer does to its path.
//!
//! | the lane | next canary |
//! |---|---|
//! | of a path that is out for its errors | after the canary interval, errors or not |
//! | of a path in probation without a share | after [`PROBATION_CANARY_INTERVAL`] |
//! | has requests out | after some time without a byte, sooner if it was not asked lately (W16, `policies::silence`) |
//! | any | by `policies::canary`: in use every interval, idle ever less often |
//!
//! A lane has one canary out. Errors in a row take a path out while another is there; good answers bring it
//! back by way of its probation.

use alloc::format;
use alloc::string::String;

use nbd::Errno;
use policies::limits::{LAST_PATH_FACTOR, PROBATION_CANARY_INTERVAL, STRIKES};
use program::Nanos;

use crate::LaneId;
use crate::engine::Engine;
use crate::lane::{Lane, LaneState, Use};
use crate::record::DecisionPoint;

impl Engine {
    /// How long a canary may be unanswered.
    pub(crate) fn canary_deadline(&self, slot: u16) -> Nanos {
        let patience = if self.is_last(slot) { LAST_PATH_FACTOR } else { 1 };
        self.program.canary.deadline * patience
    }

    pub(crate) fn check_probation(&mut self) {
        let mut changed = false;
        for index in 0..self.paths.len() {
            let now = self.now;
            if let Some(over) = self.paths[index].probation.take_if(|probation| probation.done(now)) {
                self.decide_full_share(index, over.started());
                changed = true;
            }
        }
        if changed {
            self.regroup();
        }
    }

    pub(crate) fn canary_due(&self, slot: u16) -> Option<Nanos> {
        let lane = self.lane_at(slot);
        if lane.state != LaneState::Up || lane.canary_sent.is_some() || self.is_draining() {
            return None;
        }
        let path = &self.paths[lane.path];
        let waits_for_canaries =
            path.sick || path.probation.as_ref().is_some_and(|probation| probation.share_ppm(self.now) == 0);
        if waits_for_canaries {
            let pace = if path.sick { self.program.canary.interval } else { PROBATION_CANARY_INTERVAL };
            return Some(lane.last_canary + pace);
        }
        let regular = path.canary.next_due(lane.last_reply, self.is_busy());
        Some(self.quiet_due(lane).map_or(regular, |quiet| quiet.min(regular)))
    }

    /// W16: with work in flight and not a byte for a while, a read tells whether
    /// the server or only that request is slow.
    fn quiet_due(&self, lane: &Lane) -> Option<Nanos> {
        let oldest = lane.slot(lane.oldest()?).sent_at.max(lane.last_active);
        let patient = oldest + policies::silence::probe_after(0, true);
        // How long a FLUSH takes says nothing, and is not known.
        let Some((_, slot)) = lane.in_order().find(|(_, slot)| !slot.patient) else { return Some(patient) };
        let quiet_since = slot.sent_at.max(lane.last_active);
        let asked_lately = quiet_since < lane.last_canary + self.program.canary.interval;
        let expected_ns = self.paths[lane.path].latency.expected_ns(slot.write, slot.len);
        Some((quiet_since + policies::silence::probe_after(expected_ns, asked_lately)).min(patient))
    }

    pub(crate) fn send_canaries(&mut self) {
        let slots = || (0..self.lanes.len() as u16).filter(|&slot| self.lanes[slot as usize].is_some());
        if !slots().filter_map(|slot| self.canary_due(slot)).any(|due| due <= self.now) {
            return;
        }
        // An idle device is woken once for all its lanes.
        let early = if self.is_busy() { 0 } else { self.program.canary.idle / 8 };
        for slot in 0..self.lanes.len() as u16 {
            let due = self.lanes[slot as usize].as_ref().and_then(|_| self.canary_due(slot));
            if due.is_none_or(|due| due > self.now + early) {
                continue;
            }
            if !self.lane_at(slot).has_spare() {
                continue;
            }
            let now = self.now;
            let block = u64::from(self.lane_at(slot).offer().min_block_bytes.max(512));
            let len = block.min(self.lane_at(slot).offer().size_bytes);
            let lane = self.lane_at_mut(slot);
            lane.canary_sent = Some(now);
            lane.last_canary = now;
            let path = lane.path;
            self.paths[path].canary.on_sent(now);
            if len > 0 {
                self.internal_read(slot, Use::Canary, 0, len);
            }
        }
    }

    pub(crate) fn canary_reply(&mut self, id: LaneId, result: Result<(), Errno>) {
        let now = self.now;
        let lane = self.lane_mut(id);
        let sent = lane.canary_sent.take();
        let index = lane.path;
        let good = result.is_ok();
        let tells_speed = sent.is_some_and(|sent| lane.tells_speed(sent));
        match sent {
            Some(sent) if good => {
                self.paths[index].steering.marginal.on_good(now);
                if tells_speed {
                    self.slow.record(now, index, false, 0, now - sent);
                    self.note(|_| DecisionPoint::Canary { path: index, service_ns: now - sent });
                }
            }
            _ => {}
        }
        self.count_probe(index, good);
        let path = &mut self.paths[index];
        let before = path.probation.as_ref().map(|probation| probation.share_ppm(now));
        if path.sick && path.probation.is_none() {
            path.probation = Some(policies::Probation::start(now));
        }
        if let Some(probation) = path.probation.as_mut() {
            probation.on_canary(now, good);
            if path.sick && probation.share_ppm(now) > 0 {
                path.sick = false;
                path.strikes = 0;
                path.explain("probation", String::from("canaries are good again: a small share first"));
            }
        }
        let after = path.probation.as_ref().map(|probation| probation.share_ppm(now));
        if before != after || !good {
            self.decide_probation_step(index, good);
        }
        if before != after {
            self.regroup();
        }
    }

    /// A read of our own was answered, with an error or not.
    pub(crate) fn count_probe(&mut self, index: usize, good: bool) {
        // One that is out already is asked so that it tells when it is well.
        if !good && !self.paths[index].sick {
            self.in_trouble(index);
        }
        let path = &mut self.paths[index];
        if !good {
            path.errors += 1;
            path.strikes = path.strikes.saturating_add(1);
        } else if !path.sick {
            path.strikes = 0;
        }
        if path.strikes >= STRIKES && !path.sick && self.has_sibling(index) {
            let text = format!("{STRIKES} canary reads in a row were answered with an error");
            self.sicken(index, text);
        }
    }
}
