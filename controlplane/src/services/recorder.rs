// SPDX-License-Identifier: MIT OR Apache-2.0
//! Keeps what the data plane learnt of each device in the state directory.
//!
//! A record that cannot be written is kept in memory, told once as an event,
//! and tried again: the device works without it, it only could not be offered
//! after a restart with every path down.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use program::{DeviceProgram, Geometry, Program, Recorded, Target};

use super::inbox::{Loss, Update};
use crate::state::StateDir;

/// What is known of each device and what of it is not on disk yet.
#[derive(Debug)]
pub(crate) struct Recorder {
    state: Option<Arc<StateDir>>,
    known: BTreeMap<String, Known>,
    /// Devices that are recorded and are or were in the program.
    served: BTreeSet<String>,
    /// Devices whose record is not on disk yet.
    pending: BTreeSet<String>,
    /// Devices whose marker is to go: they have finished and left nothing in doubt (W10).
    clean: BTreeSet<String>,
    /// Losses that are not on disk yet, or not gone from it (F9).
    losses: BTreeMap<String, Loss>,
}

#[derive(Clone, Debug, Default)]
struct Known {
    geometry: Option<Geometry>,
    samples: Vec<(u64, u128)>,
}

impl Recorder {
    /// Starts from what the program says was recorded; without a state
    /// directory nothing is ever written.
    pub(crate) fn new(state: Option<Arc<StateDir>>, program: &Program) -> Self {
        let mut recorder = Self {
            state,
            known: BTreeMap::new(),
            served: BTreeSet::new(),
            pending: BTreeSet::new(),
            clean: BTreeSet::new(),
            losses: BTreeMap::new(),
        };
        recorder.adopt(program);
        recorder
    }

    /// Takes over what a new program says was recorded of devices not known yet.
    pub(crate) fn adopt(&mut self, program: &Program) {
        for device in &program.devices {
            if is_recorded(device) {
                self.served.insert(device.name.clone());
            } else {
                self.served.remove(&device.name);
            }
            if let Some(recorded) = &device.recorded {
                self.known.entry(device.name.clone()).or_insert_with(|| Known {
                    geometry: Some(recorded.geometry),
                    samples: recorded.samples.clone(),
                });
            }
        }
    }

    /// Notes what a device reported; a device that is not recorded is left out. One that was taken out of the program may
    /// still have a loss to tell.
    pub(crate) fn note(&mut self, device: &str, update: Update) {
        if self.state.is_none() || !self.served.contains(device) {
            return;
        }
        if update.clean {
            self.clean.insert(device.to_owned());
        }
        if let Some(loss) = update.loss {
            self.losses.insert(device.to_owned(), loss);
        }
        if update.geometry.is_none() && update.samples.is_none() {
            return;
        }
        let known = self.known.entry(device.to_owned()).or_default();
        known.geometry = update.geometry.or(known.geometry);
        if let Some(samples) = update.samples {
            known.samples = samples;
        }
        self.pending.insert(device.to_owned());
    }

    /// Whether something waits to be written.
    pub(crate) fn is_pending(&self) -> bool {
        !self.pending.is_empty() || !self.clean.is_empty() || !self.losses.is_empty()
    }

    /// Writes what is pending on a helper thread; returns the devices that failed, with the reason.
    pub(crate) async fn write(&mut self) -> Vec<(String, String)> {
        let Some(state) = self.state.clone() else { return Vec::new() };
        let mut failed = Vec::new();
        for device in std::mem::take(&mut self.pending) {
            // Samples alone are no record; they are written when the geometry is known.
            let Some(recorded) = self.known.get(&device).and_then(Known::recorded) else { continue };
            let (state, name) = (Arc::clone(&state), device.clone());
            let stored = tokio::task::spawn_blocking(move || state.store(&name, &recorded)).await;
            let problem = match stored {
                Ok(Ok(())) => continue,
                Ok(Err(error)) => error.to_string(),
                Err(error) => error.to_string(),
            };
            self.pending.insert(device.clone());
            failed.push((device, problem));
        }
        // Before the marker goes: a crash between the two must not look like a clean stop without a loss.
        for (device, loss) in std::mem::take(&mut self.losses) {
            let (state, name, told) = (Arc::clone(&state), device.clone(), loss.clone());
            let noted = tokio::task::spawn_blocking(move || state.note_loss(&name, told.0.as_deref())).await;
            let problem = match noted {
                Ok(Ok(())) => continue,
                Ok(Err(error)) => error.to_string(),
                Err(error) => error.to_string(),
            };
            failed.push((device.clone(), problem));
            self.losses.insert(device, loss);
        }
        let (wait, clean) =
            std::mem::take(&mut self.clean).into_iter().partition(|device| self.losses.contains_key(device));
        self.clean = wait;
        let clean: BTreeSet<String> = clean;
        for device in clean {
            let (state, name) = (Arc::clone(&state), device.clone());
            let marked = tokio::task::spawn_blocking(move || state.mark_clean(&name)).await;
            if let Ok(Err(error)) = marked {
                // The next start waits although it need not: safe, and told here.
                failed.push((device, error.to_string()));
            }
        }
        failed
    }
}

impl Known {
    fn recorded(&self) -> Option<Recorded> {
        Some(Recorded { geometry: self.geometry?, samples: self.samples.clone() })
    }
}

/// Memory ends with the process, and its record would describe another volume.
pub(crate) fn is_recorded(device: &DeviceProgram) -> bool {
    !device.paths.iter().any(|path| matches!(path.target, Target::Memory { .. }))
}
