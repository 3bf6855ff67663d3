// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the services of one node share: the running program, events, snapshots.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use program::{ControlCommand, DeviceCommand, DeviceExplanation, PathCommand, Program};

use super::events::{Event, EventPage, Events};
use super::reload::{ConfigFile, ReloadError, Reloaded, prepare};
use super::snapshots::{Snapshot, Snapshots};
use crate::clock;
use crate::config::{Config, LoadError, ShownValue};
use crate::limits::{SNAPSHOT_TIMEOUT, SNAPSHOT_WAIT_MAX};
use crate::log::{self, Level};
use crate::plane::{CommandFailed, DataPlane};
use crate::state::StateDir;

/// What a node is made of.
pub(crate) struct NodeParts {
    pub(crate) config: Config,
    pub(crate) program: Arc<Program>,
    pub(crate) file: Option<ConfigFile>,
    /// Where records are, if any are kept.
    pub(crate) records: Option<Arc<StateDir>>,
    pub(crate) data_plane: Arc<dyn DataPlane>,
}

/// Shared by the services and the API.
pub(crate) struct Node {
    name: String,
    started: Instant,
    started_text: String,
    events: Events,
    snapshots: Arc<Snapshots>,
    data_plane: Arc<dyn DataPlane>,
    file: Option<ConfigFile>,
    records: Option<Arc<StateDir>>,
    running: Mutex<Running>,
    /// One reload at a time.
    reloading: tokio::sync::Mutex<()>,
    reports_dropped: AtomicU64,
}

struct Running {
    config: Arc<Config>,
    program: Arc<Program>,
}

/// Why a path command was not passed on.
#[derive(Debug)]
pub(crate) enum PathCommandError {
    NoDevice,
    /// The names of the paths there are.
    NoPath(Vec<String>),
    Refused(CommandFailed),
}

impl Node {
    pub(crate) fn new(parts: NodeParts) -> Arc<Self> {
        let run = format!("{}-{}", clock::now_text(), std::process::id());
        Arc::new(Self {
            name: parts.config.node_name().to_owned(),
            started: Instant::now(),
            started_text: clock::now_text(),
            events: Events::new(run),
            snapshots: Snapshots::new(Arc::clone(&parts.data_plane)),
            data_plane: parts.data_plane,
            file: parts.file,
            records: parts.records,
            running: Mutex::new(Running { config: Arc::new(parts.config), program: parts.program }),
            reloading: tokio::sync::Mutex::new(()),
            reports_dropped: AtomicU64::new(0),
        })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn started_text(&self) -> &str {
        &self.started_text
    }

    pub(crate) fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// The program in force.
    pub(crate) fn program(&self) -> Arc<Program> {
        Arc::clone(&self.running().program)
    }

    /// Every effective value with its origin.
    pub(crate) fn shown_config(&self) -> Vec<ShownValue> {
        let config = Arc::clone(&self.running().config);
        config.shown()
    }

    /// The file the configuration comes from.
    pub(crate) fn config_path(&self) -> Option<String> {
        self.file.as_ref().map(|file| file.path.display().to_string())
    }

    /// Logs and keeps an event.
    pub(crate) fn add_event(&self, level: Level, event: Event) {
        event.log(level);
        self.events.add(event);
    }

    /// Name of this run; numbers of events begin again with each.
    pub(crate) fn run(&self) -> &str {
        self.events.run()
    }

    pub(crate) fn last_event(&self) -> u64 {
        self.events.last()
    }

    pub(crate) async fn events(&self, after: u64, limit: usize, wait: Duration) -> EventPage {
        self.events.page_when_there(after, limit, wait).await
    }

    pub(crate) fn count_dropped(&self, reports: u64) {
        self.reports_dropped.fetch_add(reports, Ordering::Relaxed);
    }

    pub(crate) fn reports_dropped(&self) -> u64 {
        self.reports_dropped.load(Ordering::Relaxed)
    }

    /// Status of all devices of the program in force.
    pub(crate) async fn snapshot(&self) -> Snapshot {
        self.snapshots.get(&self.program()).await
    }

    /// Why a device of the program is as it is; `None` if the data plane does not answer in time.
    pub(crate) async fn explain(&self, device: &str) -> Option<DeviceExplanation> {
        let (data_plane, device) = (Arc::clone(&self.data_plane), device.to_owned());
        let asked = tokio::task::spawn_blocking(move || data_plane.explain(&device, SNAPSHOT_TIMEOUT));
        // On time-out the helper thread ends by itself: it waits no longer than it was told.
        tokio::time::timeout(SNAPSHOT_WAIT_MAX, asked).await.ok()?.ok()?
    }

    /// How long ago the data plane last answered.
    pub(crate) fn last_answer_age(&self) -> Option<Duration> {
        self.snapshots.last_answer().map(|taken| taken.elapsed())
    }

    /// Passes a command for one path on.
    pub(crate) fn command_path(
        &self,
        device: &str,
        path: &str,
        command: PathCommand,
    ) -> Result<(), PathCommandError> {
        let program = self.program();
        let known =
            program.devices.iter().find(|known| known.name == device).ok_or(PathCommandError::NoDevice)?;
        if !known.paths.iter().any(|known| known.name == path) {
            return Err(PathCommandError::NoPath(known.paths.iter().map(|path| path.name.clone()).collect()));
        }
        let message = ControlCommand::Path { device: device.to_owned(), path: path.to_owned(), command };
        self.data_plane.send(message).map_err(PathCommandError::Refused)?;
        let word = match command {
            PathCommand::Fail => "fail",
            PathCommand::Reinstate => "reinstate",
            PathCommand::Drain => "drain",
        };
        let event = Event {
            device: Some(device.to_owned()),
            path: Some(path.to_owned()),
            ..Event::own("path_command", format!("the operator ordered: {word}"))
        };
        self.add_event(Level::Info, event);
        Ok(())
    }

    /// Passes a command for a device on; `word` is what the operator calls it.
    pub(crate) fn command_device(
        &self,
        device: &str,
        command: DeviceCommand,
        word: &str,
    ) -> Result<(), PathCommandError> {
        if !self.program().devices.iter().any(|known| known.name == device) {
            return Err(PathCommandError::NoDevice);
        }
        let message = ControlCommand::Device { device: device.to_owned(), command };
        self.data_plane.send(message).map_err(PathCommandError::Refused)?;
        let event = Event {
            device: Some(device.to_owned()),
            ..Event::own("device_command", format!("the operator ordered: {word}"))
        };
        self.add_event(Level::Info, event);
        Ok(())
    }

    /// Reads the configuration file again; on any error the old program stays in force.
    pub(crate) async fn reload(&self) -> Result<Reloaded, ReloadError> {
        let _reloading = self.reloading.lock().await;
        let outcome = self.try_reload().await;
        match &outcome {
            Ok(reloaded) => {
                let what = if reloaded.changed { "the new program is in force" } else { "nothing changed" };
                let text = format!("{what}, generation {}", reloaded.generation);
                self.add_event(Level::Info, Event::own("reloaded", text));
                for warning in &reloaded.warnings {
                    log::warning(warning, &[]);
                }
            }
            Err(error) => {
                self.add_event(Level::Error, Event::own("reload_failed", error.to_string()));
                if let ReloadError::Load(LoadError::Mistakes(findings)) = error {
                    for line in findings.lines() {
                        log::error(&line, &[]);
                    }
                }
            }
        }
        outcome
    }

    async fn try_reload(&self) -> Result<Reloaded, ReloadError> {
        let file = self.file.clone().ok_or(ReloadError::NoFile)?;
        let (config, program) = {
            let running = self.running();
            (Arc::clone(&running.config), Arc::clone(&running.program))
        };
        let records = self.records.clone();
        let prepared =
            tokio::task::spawn_blocking(move || prepare(&file, &config, &program, records.as_deref())).await;
        let next = match prepared {
            Ok(next) => next.map_err(ReloadError::Load)?,
            // Only a panic ends up here; it was a bug and was printed.
            Err(error) => return Err(ReloadError::Refused(CommandFailed(error.to_string()))),
        };
        let program = Arc::new(next.program);
        if next.changed {
            self.data_plane
                .send(ControlCommand::Apply(Arc::clone(&program)))
                .map_err(ReloadError::Refused)?;
        }
        self.snapshots.retain(&program);
        let generation = program.generation;
        *self.running() = Running { config: Arc::new(next.config), program };
        Ok(Reloaded { generation, changed: next.changed, warnings: next.warnings })
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        // Both fields are replaced together, so a panic elsewhere spoils nothing.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
