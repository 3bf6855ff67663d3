// SPDX-License-Identifier: MIT OR Apache-2.0
//! Opening a lane: what the path leads to, and who must be asked first.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use engine::{Event, LaneFault, LaneId};
use nbd::ReplyMode;
use program::{AccessState, Portal, Target};
use ring::Expect;
use ring::file::Memory;

use crate::jobs::{Done, Job, Outcome, Task};
use crate::lane::inbox::Inbox;
use crate::lane::pending::Table;
use crate::lane::{Lane, Stage};
use crate::outbox::Outbox;
use crate::reactor::Reactor;
use crate::slab::Key;
use crate::timers::Due;

impl Reactor {
    /// [`engine::Action::OpenLane`].
    pub(crate) fn lane_open(
        &mut self,
        device_key: Key,
        id: LaneId,
        path: usize,
        portal: usize,
        kill: Option<LaneId>,
    ) {
        let now = self.clock.now();
        let deadline = now + self.program.node.handshake_timeout;
        let device = self.devices.get_mut(device_key).expect("an engine acts for its own device");
        let target = device.program.paths[path].target.clone();
        let key = self.lanes.insert(Lane {
            device: device_key,
            id,
            stage: Stage::Preparing,
            fd: None,
            kill,
            claim: None,
            node: false,
            access: AccessState::default(),
            addresses: Vec::new(),
            wanted: Arc::new(AtomicBool::new(true)),
            local: None,
            tcp: false,
            mode: ReplyMode::Simple,
            context_id: None,
            inbox: Inbox::new(ReplyMode::Simple),
            outbox: Outbox::default(),
            pending: Table::default(),
            taken_bytes: 0,
            handshake_bytes: 0,
            queued_bytes: 0,
            quiet: false,
            half_closed: false,
            receiving: false,
            expect: Expect::Now,
            connecting: false,
            working: 0,
            dirty: false,
            deadline: Some(deadline),
        });
        device.bind_lane(id, key, path);
        self.timers.set(deadline, Due::Lane(key));
        match target {
            Target::Nbd { portals, .. } => self.lane_open_portal(key, &portals[portal]),
            Target::File { path, create_bytes } => {
                self.lane_job(key, 0, Task::Open { path, create_bytes });
            }
            Target::Memory { size_bytes } => self.lane_open_memory(key, path, size_bytes),
        }
    }

    fn lane_open_portal(&mut self, key: Key, portal: &Portal) {
        match portal {
            Portal::Unix(path) => self.lane_connect_unix(key, path),
            Portal::Tcp { host, port } => match host.parse::<IpAddr>() {
                Ok(ip) => self.lane_connect(key, SocketAddr::new(ip, *port)),
                Err(_) => self.lane_job(key, 0, Task::Resolve { host: host.clone(), port: *port }),
            },
        }
    }

    /// Asks a helper thread.
    pub(crate) fn lane_job(&self, key: Key, cookie: u64, task: Task) {
        if let Some(lane) = self.lanes.get(key) {
            self.jobs.start(Job { lane: key, cookie, wanted: lane.wanted.clone(), task });
        }
    }

    /// Memory belongs to the path: all its lanes, now and later, see the same bytes.
    fn lane_open_memory(&mut self, key: Key, path: usize, size_bytes: u64) {
        let lane = self.lanes.get(key).expect("just opened");
        let device = self.devices.get_mut(lane.device).expect("a lane's device outlives it");
        let path = device.program.paths[path].name.clone();
        let memory = match device.memory.get(&path) {
            Some(memory) => memory.try_clone(),
            None => Memory::new(size_bytes).and_then(|memory| {
                device.memory.insert(path, memory.try_clone()?);
                Ok(memory)
            }),
        };
        self.lane_memory_ready(key, memory);
    }

    /// A helper thread is done.
    pub(crate) fn job_done(&mut self, done: Done) {
        let Done { lane: key, cookie, outcome } = done;
        if let Outcome::Claim(outcome) = outcome {
            return self.gate_judged(key, cookie, outcome);
        }
        // The lane may have been closed meanwhile.
        let Some(lane) = self.lanes.get(key) else { return };
        match outcome {
            Outcome::Extents(extents) => self.lane_extents(key, cookie, extents),
            _ if !matches!(lane.stage, Stage::Preparing) => {}
            Outcome::Claim(_) => unreachable!("taken above"),
            Outcome::Storage(storage) => self.lane_file_ready(key, storage),
            Outcome::Addresses(Ok(mut addresses)) => {
                addresses.reverse();
                let Some(first) = addresses.pop() else {
                    let fault = LaneFault::Unreachable("the name has no address".into());
                    return self.lane_fail(key, fault);
                };
                if let Some(lane) = self.lanes.get_mut(key) {
                    lane.addresses = addresses;
                }
                self.lane_connect(key, first);
            }
            Outcome::Addresses(Err(error)) => {
                self.lane_fail(key, LaneFault::Unreachable(format!("the name cannot be resolved: {error}")));
            }
        }
    }

    /// The lane takes requests from now on.
    pub(crate) fn lane_opened(&mut self, key: Key, offer: engine::Offer) {
        let lane = self.lanes.get_mut(key).expect("only called for lanes in the table");
        lane.stage = Stage::Ready;
        lane.deadline = None;
        let (device, id) = (lane.device, lane.id);
        self.events.push_back((device, Event::LaneOpened { lane: id, offer }));
    }
}
