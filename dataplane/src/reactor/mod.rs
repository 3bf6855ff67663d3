// SPDX-License-Identifier: MIT OR Apache-2.0
//! One reactor: a thread, a ring, and the devices it owns.
//!
//! A turn: take in every completion, hand events to the engines and carry out what they
//! ask, then submit everything in one system call and wait in it. Replies and requests
//! that became ready in a turn leave together, one send per connection.
//!
//! Nothing is re-entrant. What the driver finds out while it carries out actions is
//! queued (`events`, `answers`) and handed over afterwards.

mod act;
mod apply;
mod complete;
mod mail;
pub(crate) mod stop;
mod turn;

use std::collections::VecDeque;
use std::sync::Arc;

use engine::{Event, LaneId};
use nbd::Errno;
use program::{Nanos, Program};
use ring::wake::WakeSource;
use ring::{Pool, Ring, RingConfig, RingError};

use crate::budget::Budget;
use crate::clock::ReactorClock;
use crate::device::Device;
use crate::host::handshake::Shaking;
use crate::host::listener::Listening;
use crate::host::session::Session;
use crate::jobs::Jobs;
use crate::lane::Lane;
use crate::lane::local::FileRequest;
use crate::lane::pending::Pending;
use crate::limits::{CHUNK_BYTES, CHUNKS, SWEEP, TRIM};
use crate::node::Node;
use crate::outbox::Messages;
use crate::reactor::stop::Stopping;
use crate::requests::{Held, Requests};
use crate::slab::{Key, Slab};
use crate::spin::Spin;
use crate::timers::{Due, Timers};

/// A connection that wants something at the end of the turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Conn {
    Handshake(Key),
    Session(Key),
    Lane(Key),
}

/// See the module header.
pub(crate) struct Reactor {
    pub(crate) index: usize,
    pub(crate) node: Arc<Node>,
    pub(crate) program: Arc<Program>,
    pub(crate) ring: Ring,
    wake: WakeSource,
    pub(crate) pool: Pool,
    pub(crate) budget: Budget,
    pub(crate) clock: ReactorClock,
    pub(crate) timers: Timers,
    pub(crate) jobs: Jobs,
    pub(crate) listeners: Slab<Listening>,
    pub(crate) handshakes: Slab<Shaking>,
    pub(crate) sessions: Slab<Session>,
    pub(crate) devices: Slab<Device>,
    pub(crate) lanes: Slab<Lane>,
    pub(crate) files: Slab<FileRequest>,
    pub(crate) requests: Requests,
    pub(crate) held: Held,
    pub(crate) messages: Messages,
    /// Connections with something to send.
    pub(crate) dirty: Vec<Conn>,
    /// Connections whose receive found no chunk.
    pub(crate) starved: Vec<Conn>,
    /// Sessions without a request in flight that wait for memory, in order.
    pub(crate) memory_queue: VecDeque<Key>,
    /// For engines, after the actions at hand.
    pub(crate) events: VecDeque<(Key, Event)>,
    /// Local requests that are done, likewise.
    pub(crate) answers: VecDeque<(Key, LaneId, Pending, Result<(), Errno>)>,
    /// Sessions that a gate has ended and that are to be cut off.
    pub(crate) gate_ended: Vec<Key>,
    /// Devices with an event in this turn.
    touched: Vec<Key>,
    pub(crate) scratch: Vec<u8>,
    /// Time of the earliest alarm that is set, and which one it is.
    alarm: Option<(Nanos, Key)>,
    alarms: u32,
    /// Real time before which turns do not gather.
    gather_again_at: Nanos,
    spin: Spin,
    pub(crate) stopping: Stopping,
    /// Everything has ended, or the bound has passed.
    done: bool,
}

impl Reactor {
    /// Sets up a reactor for the calling thread.
    pub(crate) fn new(index: usize, node: Arc<Node>, program: Arc<Program>) -> Result<Self, RingError> {
        let ring =
            Ring::new(RingConfig { chunks: CHUNKS, chunk_bytes: CHUNK_BYTES, ..RingConfig::default() })?;
        let wake = node.mailboxes[index].waker().source().map_err(RingError::Other)?;
        let limit = memory_of(&program, &ring);
        let jobs = Jobs::new(node.mailboxes[index].clone());
        let mut reactor = Self {
            index,
            node,
            program,
            ring,
            wake,
            pool: Pool::new(limit),
            budget: Budget::new(limit),
            clock: ReactorClock::new(ring::clock::boottime_ns()),
            timers: Timers::default(),
            jobs,
            listeners: Slab::new(),
            handshakes: Slab::new(),
            sessions: Slab::new(),
            devices: Slab::new(),
            lanes: Slab::new(),
            files: Slab::new(),
            requests: Slab::new(),
            held: Held::default(),
            messages: Messages::default(),
            dirty: Vec::new(),
            starved: Vec::new(),
            memory_queue: VecDeque::new(),
            events: VecDeque::new(),
            answers: VecDeque::new(),
            gate_ended: Vec::new(),
            touched: Vec::new(),
            scratch: Vec::new(),
            alarm: None,
            alarms: 0,
            gather_again_at: 0,
            spin: Spin::new(ring::cpu::allowed().len()),
            stopping: Stopping::No,
            done: false,
        };
        reactor.await_mail();
        let now = reactor.clock.now();
        reactor.timers.set(now + SWEEP, Due::Sweep);
        reactor.timers.set(now + TRIM, Due::Trim);
        Ok(reactor)
    }

    /// A session that is known to be in the table.
    pub(crate) fn session_mut(&mut self, key: Key) -> &mut Session {
        self.sessions.get_mut(key).expect("a session outlives its operations and requests")
    }

    /// The lane an engine names, unless it is down and the engine has not heard yet.
    pub(crate) fn lane_key(&self, device: Key, id: LaneId) -> Option<Key> {
        self.devices.get(device)?.lane(id)
    }

    /// The device of that name which is in the program now.
    pub(crate) fn device_named(&self, name: &str) -> Option<Key> {
        self.devices
            .iter()
            .find(|(_, device)| !device.removed && device.program.name == name)
            .map(|(key, _)| key)
    }

    /// Gives an event to an engine and carries out what it asks.
    pub(crate) fn feed(&mut self, key: Key, event: Event) {
        let now = self.clock.now();
        let Some(device) = self.devices.get_mut(key) else { return };
        device.engine.handle(now, event);
        self.touch(key);
        self.carry_out(key);
    }

    /// Does what an engine has asked.
    pub(crate) fn carry_out(&mut self, key: Key) {
        while let Some(action) = self.devices.get_mut(key).and_then(|device| device.engine.next_action()) {
            self.act(key, action);
        }
    }

    /// Hands over what was found out meanwhile.
    pub(crate) fn run_events(&mut self) {
        loop {
            if let Some((device, lane, pending, result)) = self.answers.pop_front() {
                self.lane_answered(device, lane, pending, result);
            } else if let Some((device, event)) = self.events.pop_front() {
                let down = matches!(event, Event::LaneDown { .. });
                self.feed(device, event);
                if down {
                    self.device_forget(device);
                }
            } else if let Some(session) = self.gate_ended.pop() {
                self.gate_cut(session);
            } else {
                return;
            }
        }
    }
}

/// This reactor's part of the node's memory, less what its receive chunks take.
fn memory_of(program: &Program, ring: &Ring) -> usize {
    let share = program.node.memory_bytes / program.node.reactors.max(1) as u64;
    (share as usize).saturating_sub(ring.chunk_memory_bytes())
}

impl Reactor {
    /// Ends the loop; dropping the ring cancels and waits for what is armed.
    fn finished(&mut self) {
        self.done = true;
    }

    /// Its deadline is to be looked at.
    fn touch(&mut self, key: Key) {
        if let Some(device) = self.devices.get_mut(key)
            && !device.touched
        {
            device.touched = true;
            self.touched.push(key);
        }
    }
}
