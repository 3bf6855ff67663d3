// SPDX-License-Identifier: MIT OR Apache-2.0
//! Over which address a path connects, and when a lost connection is a failed path (design 3.4).
//!
//! A path may have several portals: doors to one server. While another door may be open the
//! path has not failed: its place in the group, its standing and its cache stay, and the failure limit
//! hears nothing. `policies::portal` says which door is next; here is who tells it.
//!
//! ```text
//! last connection lost, or its link silent --> a round over all portals, the lost one last
//! another portal connects, identity proven --> only a portal failed
//! all were tried, or only the lost one is left --> the path failed (`steering::path_failed`)
//! connected over a lesser portal for 1 min --> a better one is tried *beside* it; when that
//!                                              is proven, the old connection is drained
//! ```
//!
//! A path with one portal has failed when its last connection is lost, or its link is silent;
//! once, if the one follows from the other.
//!
//! Lanes beside those that are in use are marked `beside` until they are accepted: they are not counted
//! among the lanes a path has, and if they fail nothing happens to the path.

use policies::Attempt;
use policies::faults::FaultClass;
use program::Nanos;

use crate::engine::Engine;
use crate::lane::{Lane, LaneState};
use crate::path::Admin;

impl Engine {
    /// The portal of a new connection: that of the others, or the next to be tried.
    pub(crate) fn portal_for(&self, index: usize) -> usize {
        let portals = &self.paths[index].portals;
        match (portals.in_use(), portals.next(self.now)) {
            (Some(portal), _) | (None, Attempt::Now(portal)) => portal,
            // Asked before its time, by an operator or to finish another session.
            (None, Attempt::At(_)) => 0,
        }
    }

    /// Whether an accepted lane of the path other than this one carries I/O.
    fn is_carried_beside(&self, index: usize, slot: u16) -> bool {
        let lanes = self.paths[index].lanes.iter().filter(|&&other| other != slot);
        lanes.map(|&other| self.lane_at(other)).any(Lane::is_up)
    }

    /// A lane that carried I/O broke or is given up. If it was the last one of its path, the
    /// path has lost its connection: by its own fault, or only a portal's.
    pub(crate) fn connection_lost(&mut self, index: usize, slot: u16, class: FaultClass) {
        if self.paths[index].portals.in_use().is_none() || self.is_carried_beside(index, slot) {
            return;
        }
        self.begin_round(index);
        let counted = core::mem::take(&mut self.paths[index].silent_counted);
        if self.paths[index].portal_count() == 1 && !counted {
            self.path_failed(index, class);
        }
    }

    fn begin_round(&mut self, index: usize) {
        let path = &mut self.paths[index];
        path.lost_portal = path.portals.in_use();
        path.portals.on_lost();
    }

    /// A link is silent, or with several portals a lane's canary is late or its server does not read. If it was the path's last: other
    /// portals are tried before the path is given up; without another the path has failed, whether the link answers
    /// again or not.
    pub(crate) fn link_silent(&mut self, index: usize) {
        let lanes = &self.paths[index].lanes;
        let trusted = lanes.iter().any(|&slot| self.lane_at(slot).is_trusted());
        if trusted || self.paths[index].portals.in_use().is_none() {
            return;
        }
        if self.paths[index].portal_count() > 1 {
            self.begin_round(index);
        } else if !core::mem::replace(&mut self.paths[index].silent_counted, true) {
            self.path_failed(index, FaultClass::Silent);
        }
    }

    /// The lane answers after all.
    pub(crate) fn link_answers(&mut self, slot: u16) {
        let lane = self.lane_at(slot);
        let (index, portal) = (lane.path, lane.portal);
        let now = self.now;
        let path = &mut self.paths[index];
        path.silent_counted = false;
        if path.portals.in_use().is_none() {
            path.lost_portal = None;
            path.portals.on_connected(now, portal);
        }
    }

    /// A lane passed its identity check. Returns whether only a portal had failed, so that the
    /// path keeps its place.
    pub(crate) fn portal_connected(&mut self, slot: u16) -> bool {
        let now = self.now;
        let lane = self.lane_at_mut(slot);
        lane.accepted = true;
        let beside = core::mem::replace(&mut lane.beside, false);
        let (index, portal) = (lane.path, lane.portal);
        let path = &mut self.paths[index];
        path.silent_counted = false;
        if path.portals.in_use() == Some(portal) {
            return false;
        }
        if beside && path.portals.in_use().is_some_and(|better| better < portal) {
            // What was silent answers again, and it is the better door.
            return false;
        }
        let over_other = path.portals.used_for(now);
        path.portals.on_connected(now, portal);
        let lost = path.lost_portal.take();
        if lost == Some(portal) && path.portal_count() > 1 {
            // Every door was tried, and this one had failed before.
            self.path_failed(index, FaultClass::TransportReset);
        }
        if beside && lost.is_none() {
            self.decide_portal_return(index, portal, over_other);
        }
        if beside {
            self.leave_others(index, slot);
        }
        let only_a_portal = lost.is_some_and(|lost| lost != portal);
        if only_a_portal {
            self.decide_portal(index, portal);
        }
        only_a_portal
    }

    /// The better portal carries from now on; the others finish what they have.
    fn leave_others(&mut self, index: usize, slot: u16) {
        let lanes = self.paths[index].lanes.clone();
        for other in lanes.into_iter().filter(|&other| other != slot) {
            let lane = self.lane_at_mut(other);
            if lane.is_trusted() {
                lane.state = LaneState::Draining;
                if lane.is_empty() {
                    self.finish_drain(other);
                }
            }
        }
    }

    /// A connection that never carried I/O could not be made, or not be proven. Whether every
    /// portal has had its attempt.
    pub(crate) fn attempt_failed(&mut self, lane: &Lane, class: FaultClass, draw: u64) -> bool {
        let (index, now) = (lane.path, self.now);
        if !self.is_carried_beside(index, lane.id.slot) && self.paths[index].portals.in_use().is_some() {
            // It was closed on purpose; that it does not come back is another matter.
            self.paths[index].portals.on_lost();
        }
        let path = &mut self.paths[index];
        let exhausted = path.portals.on_failed(now, lane.portal, draw);
        let failed = exhausted && path.portal_count() > 1 && path.lost_portal.take().is_some();
        if failed {
            self.path_failed(index, class);
        }
        exhausted
    }

    /// When the next attempt of a path without a connection may be made.
    pub(crate) fn next_attempt(&self, index: usize) -> Nanos {
        match self.paths[index].portals.next(self.now) {
            Attempt::Now(_) => self.now,
            Attempt::At(at) => at,
        }
    }

    /// Opens lanes over other portals beside those that are there.
    pub(crate) fn open_beside(&mut self) {
        for index in 0..self.paths.len() {
            if let Some(portal) = self.portal_beside(index) {
                let lane = self.open_lane_over(index, portal, None);
                self.lane_at_mut(lane.slot).beside = true;
            }
        }
    }

    /// The portal to be tried beside the connection in use, if one is due.
    fn portal_beside(&self, index: usize) -> Option<usize> {
        if !self.may_connect_beside(index) {
            return None;
        }
        let portals = &self.paths[index].portals;
        if portals.in_use().is_some() {
            return portals.return_to(self.now);
        }
        let Attempt::Now(portal) = portals.next(self.now) else { return None };
        let mut up =
            self.paths[index].lanes.iter().map(|&slot| self.lane_at(slot)).filter(|lane| lane.is_up());
        // Without any lane it is no beside; over their own portal it would be the same again.
        let first = up.next()?;
        (first.portal != portal && up.all(|lane| lane.portal != portal)).then_some(portal)
    }

    fn may_connect_beside(&self, index: usize) -> bool {
        let path = &self.paths[index];
        path.portal_count() > 1
            && path.admin == Admin::In
            && path.refusal.is_none()
            && path.reconnect_at <= self.now
            && !self.is_draining()
            // A second connection to a server without multi-conn would be a second cache (F1).
            && !self.active.write_through
            && path.lanes.iter().all(|&slot| !self.lane_at(slot).beside)
    }

    /// When [`Engine::open_beside`] has something to do next.
    pub(crate) fn next_beside(&self) -> Option<Nanos> {
        let due = |index: usize| {
            let path = &self.paths[index];
            self.may_connect_beside(index).then(|| path.portals.next_return()).flatten()
        };
        (0..self.paths.len()).filter_map(due).min()
    }

    /// A lane beside others that turned out not to be needed: the better portal answers again.
    pub(crate) fn close_unneeded(&mut self, slot: u16) {
        let lane = self.lane_at(slot);
        let in_use = self.paths[lane.path].portals.in_use();
        if in_use.is_some_and(|portal| portal != lane.portal) {
            self.lane_at_mut(slot).state = LaneState::Draining;
            self.finish_drain(slot);
        }
    }
}
