// SPDX-License-Identifier: MIT OR Apache-2.0
//! Status of all devices, in bounded time whatever the data plane does.
//!
//! Asking the data plane blocks (at most [`SNAPSHOT_TIMEOUT`]), so it happens
//! on a helper thread, one question at a time, and its answer serves all who were
//! waiting when it was asked; none is older than the request it serves, so a
//! command and then `status` shows what the command did. Who has waited
//! [`SNAPSHOT_WAIT_MAX`] gets the last known values with their age instead: an
//! operator looks at status when things go wrong, which is the worst moment to
//! hang. A device that did not answer keeps its last known status, and one that
//! never did is listed from the program, so every configured device is there.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use program::{
    Access, AccessPolicy, DeviceProgram, DeviceState, DeviceStatus, Fence, PathState, PathStatus, Program,
    Unproven,
};

use tokio::sync::OwnedMutexGuard;

use crate::limits::{SNAPSHOT_TIMEOUT, SNAPSHOT_WAIT_MAX};
use crate::plane::DataPlane;

/// Status of all devices of the program, in its order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshot {
    pub(crate) devices: Vec<Sample>,
}

/// Status of one device and when it was told.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) status: DeviceStatus,
    /// `None`: the device has not told anything yet.
    pub(crate) taken: Option<Instant>,
}

/// Takes snapshots and keeps the last one.
pub(crate) struct Snapshots {
    data_plane: Arc<dyn DataPlane>,
    last: Mutex<Last>,
    /// Held while the data plane is asked.
    asking: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Default)]
struct Last {
    /// When the question was put.
    taken: Option<Instant>,
    devices: HashMap<String, (Instant, DeviceStatus)>,
}

impl Snapshots {
    pub(crate) fn new(data_plane: Arc<dyn DataPlane>) -> Arc<Self> {
        Arc::new(Self { data_plane, last: Mutex::default(), asking: Arc::default() })
    }

    /// Status of the devices of `program`, fresh if the data plane answers in time.
    pub(crate) async fn get(self: &Arc<Self>, program: &Program) -> Snapshot {
        // Whatever came of it, the last values are what there is.
        let _ = tokio::time::timeout(SNAPSHOT_WAIT_MAX, self.refresh(Instant::now())).await;
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        Snapshot { devices: program.devices.iter().map(|device| sample(device, &last)).collect() }
    }

    /// When the last question that the data plane answered was put.
    pub(crate) fn last_answer(&self) -> Option<Instant> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).taken
    }

    /// Asks the data plane, unless an answer to a question put after `since` is there.
    async fn refresh(self: &Arc<Self>, since: Instant) {
        let asking = Arc::clone(&self.asking).lock_owned().await;
        if self.last_answer().is_none_or(|taken| taken < since) {
            // In a task of its own: who gives up waiting must not make room for a second question.
            let _ = tokio::spawn(Arc::clone(self).ask(asking)).await;
        }
    }

    async fn ask(self: Arc<Self>, _asking: OwnedMutexGuard<()>) {
        let now = Instant::now();
        let data_plane = Arc::clone(&self.data_plane);
        let answer = tokio::task::spawn_blocking(move || data_plane.snapshot(SNAPSHOT_TIMEOUT)).await;
        // A panic in the data plane's snapshot is its own affair; the last values stay.
        let Ok(answer) = answer else { return };
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.taken = Some(now);
        for status in answer {
            last.devices.insert(status.name.clone(), (now, status));
        }
    }

    /// Forgets devices that are no longer configured.
    pub(crate) fn retain(&self, program: &Program) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let names: HashSet<&str> = program.devices.iter().map(|device| device.name.as_str()).collect();
        last.devices.retain(|name, _| names.contains(name.as_str()));
    }
}

fn sample(device: &DeviceProgram, last: &Last) -> Sample {
    match last.devices.get(&device.name) {
        Some((taken, status)) => Sample { status: status.clone(), taken: Some(*taken) },
        None => Sample { status: untold(device), taken: None },
    }
}

/// What can be said of a device that has not told anything.
fn untold(device: &DeviceProgram) -> DeviceStatus {
    let fence = if device.unproven == Unproven::Hold { Fence::Hold } else { Fence::Assume };
    let path = |path: &program::PathProgram| PathStatus {
        name: path.name.clone(),
        uri: path.uri.clone(),
        state: PathState::Down,
        access: Access::Unavailable,
        priority: path.priority,
        group: 1,
        access_state: path.access_state.unwrap_or_default(),
        distance_us: 0,
        in_flight: 0,
        reads: 0,
        writes: 0,
        bytes: 0,
        errors: 0,
        p50_us: 0,
        p99_us: 0,
        fence,
        lanes_up: 0,
        zombies: 0,
        reason: "the data plane has not told its state yet".to_owned(),
    };
    DeviceStatus {
        name: device.name.clone(),
        access: device.access,
        state: DeviceState::Unknown,
        size_bytes: device.recorded.as_ref().map_or(0, |recorded| recorded.geometry.size_bytes),
        fence,
        quiesce: device.quiesce,
        sessions: Vec::new(),
        in_flight: 0,
        held: 0,
        quarantined: 0,
        ghosts: 0,
        retained_bytes: 0,
        replaying: false,
        lost_writes: String::new(),
        reads: 0,
        writes: 0,
        errors: 0,
        resent: 0,
        hedges: program::HedgeStatus::default(),
        budget: program::BudgetStatus::default(),
        paths: device.paths.iter().map(path).collect(),
    }
}

/// The word of an access policy.
pub(crate) const fn policy_word(policy: AccessPolicy) -> &'static str {
    match policy {
        AccessPolicy::ActiveActive => "active-active",
        AccessPolicy::ActivePassive => "active-passive",
    }
}
