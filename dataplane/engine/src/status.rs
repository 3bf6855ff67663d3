// SPDX-License-Identifier: MIT OR Apache-2.0
//! A snapshot for `holdfast status`: what is, without asking any path.

use alloc::collections::VecDeque;
use alloc::string::String;

use policies::limits::MICROSECOND;
use program::{DeviceState, DeviceStatus, Fence, Nanos, PathState, PathStatus, SessionStatus, Unproven};

use crate::engine::Engine;
use crate::lane::LaneState;
use crate::path::{Admin, Path};

impl Engine {
    /// The device as it is now. `now` must not be older than the last event.
    pub fn status(&self, now: Nanos) -> DeviceStatus {
        debug_assert!(now >= self.now, "a snapshot of the past");
        let waiting = self.queues.reads.len()
            + self.queues.writes.len()
            + self.queues.discards.len()
            + self.queues.flushes.len()
            + self.queues.moved.iter().map(VecDeque::len).sum::<usize>()
            + self.active.parked.len()
            + self.active.readers.len();
        let unwritable_since = self.active.unwritable.map(|unwritable| unwritable.since);
        DeviceStatus {
            name: self.program.name.clone(),
            access: self.active.policy,
            state: self.device_state(),
            size_bytes: self.geometry.map_or(0, |geometry| geometry.size_bytes),
            fence: self.protection(None),
            quiesce: self.program.quiesce,
            sessions: self
                .sessions
                .iter()
                .map(|session| SessionStatus {
                    peer: String::new(),
                    in_flight: session.in_flight,
                    claim: None,
                })
                .collect(),
            in_flight: self.requests.len() as u64,
            held: if self.held_since.or(unwritable_since).is_some() { waiting as u64 } else { 0 },
            quarantined: self.ranges.quarantined(),
            ghosts: self.ghosts.len() as u64,
            retained_bytes: self.retained_bytes(),
            replaying: self.replay.is_some(),
            lost_writes: self.lost_writes.clone().unwrap_or_default(),
            reads: self.counters.reads,
            writes: self.counters.writes,
            errors: self.counters.errors,
            resent: self.counters.resent,
            hedges: self.hedges.status(),
            budget: self.budget_status(now),
            paths: self
                .paths
                .iter()
                .enumerate()
                .filter(|(_, path)| path.admin != Admin::Removed)
                .map(|(index, path)| self.path_status(index, path))
                .collect(),
        }
    }

    pub(crate) fn device_state(&self) -> DeviceState {
        let all = self
            .paths
            .iter()
            .filter(|path| path.admin != Admin::Removed)
            .all(|path| matches!(path.state, PathState::Up | PathState::Standby));
        match (self.geometry.is_none(), self.failed, self.held_since.is_some()) {
            (true, ..) => DeviceState::Unknown,
            (_, true, _) => DeviceState::Failed,
            (_, _, true) if self.must_fail_now() => DeviceState::Failed,
            (_, _, true) => DeviceState::Held,
            _ if self.recovering.is_some() => DeviceState::Recovering,
            _ if all => DeviceState::Optimal,
            _ => DeviceState::Degraded,
        }
    }

    /// Protection in force: of a path as its last accepted server offered it, of the device
    /// that of its weakest path.
    fn protection(&self, path: Option<&Path>) -> Fence {
        let of = |path: &Path| match self.program.unproven {
            _ if path.offer.is_some_and(|offer| offer.gate.is_some()) => Fence::Gate,
            _ if path.program.drains => Fence::Drain,
            Unproven::Assume => Fence::Assume,
            Unproven::Hold => Fence::Hold,
        };
        let mut fences = self.paths.iter().filter(|path| path.admin != Admin::Removed).map(of);
        match path {
            Some(path) => of(path),
            None if self.paths.is_empty() || fences.clone().all(|fence| fence == Fence::Gate) => Fence::Gate,
            None if fences.all(|fence| matches!(fence, Fence::Gate | Fence::Drain)) => Fence::Drain,
            None if self.program.unproven == Unproven::Hold => Fence::Hold,
            None => Fence::Assume,
        }
    }

    fn path_status(&self, index: usize, path: &Path) -> PathStatus {
        let lanes = path.lanes.iter().map(|&slot| self.lane_at(slot));
        let up = lanes.clone().filter(|lane| lane.is_up());
        PathStatus {
            name: path.program.name.clone(),
            uri: path.program.uri.clone(),
            state: path.state,
            access: path.access,
            priority: path.program.priority,
            group: self.group_of(index) + 1,
            access_state: self.access_state(index),
            distance_us: self.distance_ns(index).map_or(0, |ns| (ns / MICROSECOND).max(1)),
            in_flight: lanes.clone().map(|lane| u64::from(lane.in_flight)).sum(),
            reads: path.reads,
            writes: path.writes,
            bytes: path.bytes,
            errors: path.errors,
            p50_us: path.latency.quantile_us(500_000),
            p99_us: path.latency.quantile_us(990_000),
            fence: self.protection(Some(path)),
            lanes_up: up.count() as u16,
            zombies: lanes.filter(|lane| lane.state == LaneState::Zombie).count() as u16,
            reason: path.reason.clone(),
        }
    }
}
