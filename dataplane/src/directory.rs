// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which exports there are, who owns them, and what hosts may be told of them.
//!
//! Read in handshakes and written when a device appears, goes or learns its geometry;
//! never on the path of a request, so one lock serves all reactors.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use program::{Exports, Geometry, Program};

use crate::gate::Gate;

/// One export.
#[derive(Clone)]
pub(crate) struct Export {
    /// Index of the reactor that owns the device.
    pub(crate) reactor: usize,
    /// `None` until a path told it.
    pub(crate) geometry: Option<Geometry>,
    /// The fence in front of it.
    pub(crate) gate: Option<Arc<Gate>>,
    /// Visible on listeners that show the public devices.
    public: bool,
}

/// All exports by name.
#[derive(Default)]
pub(crate) struct Directory {
    exports: RwLock<BTreeMap<String, Export>>,
}

impl Directory {
    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<String, Export>> {
        // Nothing panics while it holds the lock; a panic elsewhere ends the process.
        self.exports.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<String, Export>> {
        self.exports.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over the devices of a program: those that stay keep their owner and
    /// geometry and gate, new ones go to the reactor with the fewest devices.
    pub(crate) fn apply(&self, program: &Program, reactors: usize, gates: &BTreeMap<String, Arc<Gate>>) {
        let hidden = hidden_names(program);
        let mut exports = self.write();
        exports.retain(|name, _| program.devices.iter().any(|device| device.name == *name));
        let mut load = vec![0_usize; reactors];
        for export in exports.values() {
            load[export.reactor] += 1;
        }
        for device in &program.devices {
            let public = !hidden.contains(&device.name.as_str());
            if let Some(export) = exports.get_mut(&device.name) {
                export.public = public;
                continue;
            }
            let reactor = (0..reactors).min_by_key(|index| load[*index]).unwrap_or(0);
            load[reactor] += 1;
            let gate = gates.get(&device.name).cloned();
            exports.insert(device.name.clone(), Export { reactor, geometry: None, gate, public });
        }
    }

    /// A device knows what it offers.
    pub(crate) fn offer(&self, name: &str, geometry: Geometry) {
        if let Some(export) = self.write().get_mut(name) {
            export.geometry = Some(geometry);
        }
    }

    /// Visible on listeners that show the public devices.
    pub(crate) fn is_public(&self, name: &str) -> bool {
        self.read().get(name).is_none_or(|export| export.public)
    }

    pub(crate) fn gate(&self, name: &str) -> Option<Arc<Gate>> {
        self.read().get(name)?.gate.clone()
    }

    pub(crate) fn owner(&self, name: &str) -> Option<usize> {
        self.read().get(name).map(|export| export.reactor)
    }

    /// What a host that asks for `name` on a listener gets: the canonical name and the
    /// export. The empty name means the only visible device.
    pub(crate) fn find(&self, shown: &Exports, name: &str) -> Option<(String, Export)> {
        let exports = self.read();
        if name.is_empty() {
            let mut visible = exports.iter().filter(|(name, export)| is_visible(shown, name, export));
            let (only, export) = visible.next()?;
            return visible.next().is_none().then(|| (only.clone(), export.clone()));
        }
        let export = exports.get(name)?;
        is_visible(shown, name, export).then(|| (name.to_owned(), export.clone()))
    }

    /// Names a listener shows.
    pub(crate) fn names(&self, shown: &Exports) -> Vec<String> {
        let exports = self.read();
        exports
            .iter()
            .filter(|(name, export)| is_visible(shown, name, export))
            .map(|(name, _)| name.clone())
            .collect()
    }
}

fn is_visible(shown: &Exports, name: &str, export: &Export) -> bool {
    match shown {
        Exports::Public => export.public,
        Exports::Only(names) => names.iter().any(|only| only == name),
    }
}

/// Devices that some listener shows by name are hidden from the public ones.
fn hidden_names(program: &Program) -> Vec<&str> {
    program
        .listeners
        .iter()
        .filter_map(|listener| match &listener.exports {
            Exports::Only(names) => Some(names),
            Exports::Public => None,
        })
        .flatten()
        .map(String::as_str)
        .collect()
}
