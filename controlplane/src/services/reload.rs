// SPDX-License-Identifier: MIT OR Apache-2.0
//! A changed configuration file becomes the next program, or changes nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use program::{DeviceProgram, GateKey, Program};
use serde::{Deserialize, Serialize};

use crate::config::{Config, Environment, Findings, LoadError, load};
use crate::log;
use crate::plane::CommandFailed;
use crate::services::recorder::is_recorded;
use crate::state::{Left, OtherMarker, StateDir};

/// Where the configuration comes from.
#[derive(Clone, Debug)]
pub struct ConfigFile {
    /// The file.
    pub path: PathBuf,
    /// What it is read with.
    pub environment: Environment,
}

/// What a reload did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// Generation of the program that runs now.
    pub generation: u64,
    /// Whether it differs from the one before.
    pub changed: bool,
    /// Findings in the file, and keys that need a restart.
    pub warnings: Vec<String>,
}

/// Why a reload changed nothing.
#[derive(Debug)]
pub enum ReloadError {
    /// The node runs without a configuration file.
    NoFile,
    /// The file is missing, unreadable or has mistakes.
    Load(LoadError),
    /// The data plane did not accept the program.
    Refused(CommandFailed),
}

impl fmt::Display for ReloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoFile => {
                f.write_str("this node runs without a configuration file: there is nothing to reload")
            }
            Self::Load(LoadError::Mistakes(findings)) => {
                write!(f, "the configuration has {}; the old one stays in force", count(findings))
            }
            Self::Load(error) => write!(f, "{error}; the old configuration stays in force"),
            Self::Refused(error) => {
                write!(f, "the data plane refused the new program: {error}; the old one stays in force")
            }
        }
    }
}

impl std::error::Error for ReloadError {}

/// `1 mistake`, `3 mistakes`.
pub(crate) fn count(findings: &Findings) -> String {
    let len = findings.len();
    if len == 1 { "1 mistake".to_owned() } else { format!("{len} mistakes") }
}

/// The program that `config` asks for, to be run at start.
pub fn first_program(config: &Config, state: Option<&StateDir>) -> Program {
    let mut program = config.program().clone();
    program.generation = 1;
    fill_recorded(&mut program, None, state);
    program
}

/// What a run claims with at gates: the same in every program of the run.
pub fn give_epoch(program: &mut Program, epoch: u64, key: Option<GateKey>) {
    program.node.gate_key = key;
    for device in &mut program.devices {
        device.epoch = epoch;
    }
}

/// The configuration read again, and the program that follows `running`.
pub(crate) struct Next {
    pub(crate) config: Config,
    pub(crate) program: Program,
    pub(crate) changed: bool,
    pub(crate) warnings: Vec<String>,
}

/// Reads the file again and prepares the program after `running`. Blocks on the file.
pub(crate) fn prepare(
    file: &ConfigFile,
    old: &Config,
    running: &Program,
    state: Option<&StateDir>,
) -> Result<Next, LoadError> {
    let mut config = load(&file.path, &file.environment)?;
    let mut program = config.program().clone();
    let mut warnings: Vec<String> = config.warnings().lines().collect();
    warnings.extend(needs_restart(old, &config));
    config.keep_fixed(old);
    program.node.reactors = running.node.reactors;
    program.node.member.clone_from(&running.node.member);
    program.generation = running.generation;
    let epoch = state.map_or_else(|| running.devices.first().map_or(0, |known| known.epoch), StateDir::epoch);
    give_epoch(&mut program, epoch, running.node.gate_key.clone());
    fill_recorded(&mut program, Some(running), state);
    let changed = program != *running;
    if changed {
        program.generation += 1;
    }
    Ok(Next { config, program, changed, warnings })
}

/// A device that goes on keeps the record it was started with: the data plane
/// compares programs to see which devices changed, and knows better by now.
fn fill_recorded(program: &mut Program, running: Option<&Program>, state: Option<&StateDir>) {
    // As the process before this one, or the program before this one, left them: before any is noted anew.
    let others = others_over(program, running, state);
    let names: Vec<String> = program.devices.iter().map(|device| device.name.clone()).collect();
    let served: Vec<&str> = names.iter().map(String::as_str).collect();
    for device in program.devices.iter_mut().filter(|device| is_recorded(device)) {
        let known =
            running.and_then(|running| running.devices.iter().find(|known| known.name == device.name));
        match (known, state) {
            (Some(known), _) => {
                device.recorded.clone_from(&known.recorded);
                (device.unclean, device.left_elsewhere) = (known.unclean, known.left_elsewhere);
                device.lost_writes.clone_from(&known.lost_writes);
                if let Some(state) = state {
                    // Before anything is sent over a new path.
                    mark_running(state, device, &[], &served);
                }
            }
            (None, Some(state)) => {
                device.recorded = state.load(&device.name);
                let others = others.get(&device.name).map_or(&[][..], Vec::as_slice);
                let left = mark_running(state, device, others, &served);
                device.unclean = left != Left::Nothing;
                device.left_elsewhere = left == Left::Elsewhere;
                device.lost_writes = state.loss(&device.name);
            }
            (None, None) => {}
        }
    }
}

/// By new devices: who else is or was served over their paths. A device that is renamed, over a crash or by a reload, has left
/// in doubt what it left under its old name.
fn others_over(
    program: &Program,
    running: Option<&Program>,
    state: Option<&StateDir>,
) -> BTreeMap<String, Vec<OtherMarker>> {
    let Some(state) = state else { return BTreeMap::new() };
    let runs = |name: &str| running.is_some_and(|running| running.devices.iter().any(|it| it.name == name));
    let new = program.devices.iter().filter(|device| is_recorded(device) && !runs(&device.name));
    new.map(|device| (device.name.clone(), state.others_over(&device.name, &uris(device)))).collect()
}

fn uris(device: &DeviceProgram) -> Vec<&str> {
    device.paths.iter().map(|path| path.uri.as_str()).collect()
}

/// What an earlier process that served the device, under whatever name, and did not end in order has left (W10).
fn mark_running(state: &StateDir, device: &DeviceProgram, others: &[OtherMarker], served: &[&str]) -> Left {
    match state.take_over(&device.name, &uris(device), others, served) {
        Ok(left) => left,
        Err(error) => {
            let text = "it cannot be noted that this device is served: after a crash of this node the next start would not wait for writes in doubt; this one does, for what was noted before is not known";
            log::warning(text, &[("device", device.name.as_str()), ("error", &error.to_string())]);
            Left::Elsewhere
        }
    }
}

/// Keys that differ and that only a restart changes.
fn needs_restart(old: &Config, new: &Config) -> Vec<String> {
    old.fixed_values()
        .zip(new.fixed_values())
        .filter(|(old, new)| old.value != new.value)
        .map(|(old, new)| {
            let text = |value: &Option<crate::config::Value>| {
                value.as_ref().map_or_else(|| "not set".to_owned(), crate::config::Value::to_toml)
            };
            format!(
                "`{}` stays {} until the node is restarted (the file says {})",
                new.key.name,
                text(&old.value),
                text(&new.value)
            )
        })
        .collect()
}
