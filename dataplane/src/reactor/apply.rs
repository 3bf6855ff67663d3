// SPDX-License-Identifier: MIT OR Apache-2.0
//! A changed program, one reactor's part of it.
//!
//! Devices that are the same are not touched: their sessions do not notice. The first
//! program is applied the same way, to a reactor that has nothing yet.

use std::hash::{BuildHasher, RandomState};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use engine::{Engine, Event};
use program::{DeviceProgram, Listener, Program};

use crate::device::Device;
use crate::gate::guard::Guard;
use crate::reactor::stop::Stopping;
use crate::reactor::{Reactor, memory_of};
use crate::slab::Key;

impl Reactor {
    pub(crate) fn apply(&mut self, program: &Arc<Program>, listeners: Vec<(Listener, OwnedFd)>) {
        self.program = program.clone();
        let limit = memory_of(program, &self.ring);
        self.pool.set_budget_bytes(limit);
        self.budget.set_memory(limit);
        self.apply_devices(program);
        self.apply_listeners(program, listeners);
        if self.stopping > Stopping::No {
            self.stop_what_is_due();
        }
    }

    fn apply_devices(&mut self, program: &Program) {
        for key in self.devices.keys() {
            let Some(device) = self.devices.get(key) else { continue };
            let wanted = program.devices.iter().find(|wanted| wanted.name == device.program.name);
            match wanted {
                _ if device.removed => {}
                None => self.device_remove(key),
                Some(same) if *same == device.program => {}
                Some(changed) => self.device_change(key, changed.clone()),
            }
        }
        for device in &program.devices {
            let mine = self.node.directory.owner(&device.name) == Some(self.index);
            if mine && self.device_named(&device.name).is_none() {
                self.device_add(device.clone());
            }
        }
    }

    fn device_add(&mut self, program: DeviceProgram) {
        // Jitter must differ between processes and devices; nothing else depends on it.
        let seed = RandomState::new().hash_one(&program.name);
        let gate = self.node.directory.gate(&program.name);
        // What a gate before this one had sent to its server may still be carried out (W10).
        let unclean = program.unclean || gate.as_ref().is_some_and(|gate| gate.register.unclean);
        let told = DeviceProgram { unclean, ..program.clone() };
        let engine = Engine::new(&told, seed, self.clock.now());
        let mut device = Device::new(program, engine);
        device.guard = gate.map(Guard::new);
        let key = self.devices.insert(device);
        self.carry_out(key);
        self.touch(key);
    }

    fn device_change(&mut self, key: Key, program: DeviceProgram) {
        let Some(device) = self.devices.get_mut(key) else { return };
        device.memory.retain(|name, _| program.paths.iter().any(|path| path.name == *name));
        device.program = program.clone();
        self.feed(key, Event::Program(Box::new(program)));
    }

    /// Sessions end at a frame boundary, then the device goes.
    fn device_remove(&mut self, key: Key) {
        let Some(device) = self.devices.get_mut(key) else { return };
        device.removed = true;
        self.gate_close(key);
        self.device_stop(key, Event::Abandon { why: "the device was taken out of the configuration" });
        self.device_forget(key);
    }

    /// Takes a removed device out of the table once nothing refers to it.
    pub(crate) fn device_forget(&mut self, key: Key) {
        let gone = self
            .devices
            .get(key)
            .is_some_and(|device| device.removed && device.sessions.is_empty() && !device.has_lanes());
        let waiting = self.events.iter().any(|(device, _)| *device == key);
        if gone && !waiting {
            self.device_discard(key);
            self.devices.remove(key);
        }
    }

    /// Nothing will flush what a device still retains.
    pub(crate) fn device_discard(&mut self, key: Key) {
        let Some(device) = self.devices.get_mut(key) else { return };
        device.engine.discard_retained();
        self.budget.retain(std::mem::take(&mut device.retained_bytes), 0);
        device.count_hedges(&mut self.budget);
        self.carry_out(key);
    }

    fn apply_listeners(&mut self, program: &Program, new: Vec<(Listener, OwnedFd)>) {
        for key in self.listeners.keys() {
            let Some(listening) = self.listeners.get_mut(key) else { continue };
            let wanted = program.listeners.iter().find(|wanted| wanted.address == listening.listener.address);
            match wanted {
                Some(wanted) => listening.listener.exports = wanted.exports.clone(),
                None => self.listener_close(key),
            }
        }
        for (listener, fd) in new {
            self.listen(listener, fd);
        }
    }
}
