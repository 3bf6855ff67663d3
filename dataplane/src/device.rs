// SPDX-License-Identifier: MIT OR Apache-2.0
//! One device on its reactor: the engine, and what the driver keeps beside it.

use std::collections::{BTreeMap, VecDeque};

use engine::{Engine, LaneId};
use program::{DeviceProgram, Nanos, PathProgram};
use ring::file::Memory;

use crate::budget::Budget;
use crate::gate::guard::Guard;
use crate::limits::GATE_SESSIONS_MAX;
use crate::slab::Key;

/// A lane as its engine names it.
struct Bound {
    id: LaneId,
    key: Key,
    /// Path name: indices may change with the program.
    path: String,
}

/// See the module header.
pub(crate) struct Device {
    pub(crate) program: DeviceProgram,
    pub(crate) engine: Engine,
    /// By lane slot.
    lanes: Vec<Option<Bound>>,
    pub(crate) sessions: Vec<Key>,
    /// The fence, at a gate.
    pub(crate) guard: Option<Guard>,
    /// Session ids claimed at gates, by lane, the newest last: a lane can be named in a kill after it is gone.
    gate_sessions: VecDeque<(LaneId, u128)>,
    /// Memory targets by path name.
    pub(crate) memory: BTreeMap<String, Memory>,
    /// No longer in the program; goes when its sessions and lanes are gone.
    pub(crate) removed: bool,
    /// Had an event since its deadline was looked at.
    pub(crate) touched: bool,
    /// Bytes its engine retained when last looked at.
    pub(crate) retained_bytes: usize,
    /// Bytes promised to its second copies of reads when last looked at.
    pub(crate) hedged_bytes: usize,
    /// The earliest timer that is set.
    pub(crate) timer_at: Option<Nanos>,
}

impl Drop for Device {
    fn drop(&mut self) {
        // In doubt or in execution at the end: whoever has the register next must know.
        if let Some(guard) = self.guard.as_ref().filter(|_| self.engine.is_idle() && self.engine.is_clean()) {
            guard.gate.register.leave_clean();
        }
    }
}

impl Device {
    pub(crate) fn new(program: DeviceProgram, engine: Engine) -> Self {
        Self {
            program,
            engine,
            lanes: Vec::new(),
            sessions: Vec::new(),
            guard: None,
            gate_sessions: VecDeque::new(),
            memory: BTreeMap::new(),
            removed: false,
            touched: false,
            retained_bytes: 0,
            hedged_bytes: 0,
            timer_at: None,
        }
    }

    /// Promises memory to second copies of reads, or takes it back.
    pub(crate) fn count_hedges(&mut self, budget: &mut Budget) {
        let hedged = self.engine.hedged_bytes() as usize;
        budget.hedge(std::mem::replace(&mut self.hedged_bytes, hedged), hedged);
    }

    pub(crate) fn bind_lane(&mut self, id: LaneId, key: Key, path: usize) {
        let slot = usize::from(id.slot);
        if slot >= self.lanes.len() {
            self.lanes.resize_with(slot + 1, || None);
        }
        assert!(self.lanes[slot].is_none(), "the engine opened a lane twice");
        self.lanes[slot] = Some(Bound { id, key, path: self.program.paths[path].name.clone() });
    }

    pub(crate) fn unbind_lane(&mut self, id: LaneId) {
        if let Some(slot) = self.lanes.get_mut(usize::from(id.slot)) {
            slot.take_if(|bound| bound.id == id);
        }
    }

    pub(crate) fn lane(&self, id: LaneId) -> Option<Key> {
        let bound = self.lanes.get(usize::from(id.slot))?.as_ref()?;
        (bound.id == id).then_some(bound.key)
    }

    /// The path of a lane, as the program has it now.
    pub(crate) fn path_of(&self, id: LaneId) -> Option<&PathProgram> {
        let bound = self.lanes.get(usize::from(id.slot))?.as_ref()?;
        self.program.paths.iter().find(|path| path.name == bound.path)
    }

    /// A lane claims at a gate under this session id.
    pub(crate) fn note_gate_session(&mut self, id: LaneId, session: u128) {
        if self.gate_sessions.len() == GATE_SESSIONS_MAX {
            self.gate_sessions.pop_front();
        }
        self.gate_sessions.push_back((id, session));
    }

    /// The session id a lane claimed under, also after it is gone.
    pub(crate) fn gate_session(&self, id: LaneId) -> Option<u128> {
        self.gate_sessions.iter().rev().find(|(lane, _)| *lane == id).map(|(_, session)| *session)
    }

    pub(crate) fn has_lanes(&self) -> bool {
        self.lanes.iter().any(Option::is_some)
    }
}
