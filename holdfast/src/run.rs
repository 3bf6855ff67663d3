// SPDX-License-Identifier: MIT OR Apache-2.0
//! Running a node: start in order, wait for signals, stop in order.
//!
//! Start: control sockets, data plane, services. So a taken port or a missing
//! `io_uring` is told before any host was let in, and status can be asked as
//! soon as there is something to ask about. Stop: data plane, services; what
//! the data plane reports last is still recorded.

use std::process;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use controlplane::api::ApiListeners;
use controlplane::config::Config;
use controlplane::services::{ConfigFile, Inbox, log_report, reports};
use controlplane::state::StateDir;
use controlplane::{ControlPlane, DataPlane, Startup, log};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use program::Program;

use crate::cli::DrainArgs;
use crate::failure::{Failure, Status};
use crate::gate::shown_address;
use crate::output;
use crate::plane::Plane;
use crate::signals::{self, Wake};

/// Beyond the drain time, for what has no bound of its own: closing and joining.
const GRACE: Duration = Duration::from_secs(5);

/// A stop signal within this after the first is the same wish, not an impatient one: `timeout`,
/// terminals and supervisors signal a process and its group.
const SAME_WISH: Duration = Duration::from_millis(500);

/// What to run.
pub(crate) struct Plan {
    pub(crate) program: Program,
    /// The control plane's part; a gate has none.
    pub(crate) control: Option<ControlPlan>,
    pub(crate) drain: DrainArgs,
    /// Printed once everything runs.
    pub(crate) announce: Option<String>,
}

/// What the control plane needs.
pub(crate) struct ControlPlan {
    pub(crate) config: Config,
    pub(crate) file: Option<ConfigFile>,
    pub(crate) state: StateDir,
    /// Whether records are kept in `state`.
    pub(crate) record: bool,
}

/// Runs until a signal ends it.
pub(crate) fn run(plan: Plan) -> Result<(), Failure> {
    let set = signals::block()?;
    raise_descriptor_limit();
    let (wake, woken) = mpsc::channel();
    let program = Arc::new(plan.program);
    let (plane, control) = match plan.control {
        Some(parts) => start_node(&program, parts)?,
        None => (Plane::start(Arc::clone(&program), Box::new(|report| log_report(&report)))?, None),
    };
    signals::forward(set, wake.clone())?;
    tell_start(&program);
    if let Some(text) = &plan.announce {
        output::print(text);
    }
    wait_for_stop(&woken, control.as_ref());
    stop(&plane, control, Duration::from_secs(plan.drain.drain), &wake, &woken)
}

fn start_node(
    program: &Arc<Program>,
    parts: ControlPlan,
) -> Result<(Arc<Plane>, Option<ControlPlane>), Failure> {
    let ControlPlan { config, file, state, record } = parts;
    let listeners = ApiListeners::bind(config.api(), Some(&state.socket()))
        .map_err(|error| Failure::new(Status::Unavailable, error.to_string()))?;
    let (sink, inbox): (_, Inbox) = reports();
    let plane = Plane::start(Arc::clone(program), Box::new(move |report| sink.push(report)))?;
    let control = ControlPlane::start(Startup {
        config,
        program: Arc::clone(program),
        file,
        state,
        record,
        inbox,
        data_plane: Arc::clone(&plane) as Arc<dyn DataPlane>,
        listeners,
    });
    let control = control
        .map_err(|error| Failure::new(Status::System, format!("cannot start the services: {error}")))?;
    Ok((plane, Some(control)))
}

/// A session and a lane are a descriptor each, and the usual soft limit is 1024.
fn raise_descriptor_limit() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        // If it is refused, the limit that there is holds.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

fn tell_start(program: &Program) {
    for listener in &program.listeners {
        log::info("listening", &[("nbd", &*shown_address(&listener.address))]);
    }
    let counts = [program.devices.len(), program.devices.iter().map(|device| device.paths.len()).sum()];
    let [devices, paths] = counts.map(|count| count.to_string());
    let reactors = program.node.reactors.to_string();
    let version = env!("CARGO_PKG_VERSION");
    log::info(
        "running",
        &[("version", version), ("devices", &*devices), ("paths", &*paths), ("reactors", &*reactors)],
    );
}

fn wait_for_stop(woken: &Receiver<Wake>, control: Option<&ControlPlane>) {
    // The sender lives as long as the caller.
    while let Ok(wake) = woken.recv() {
        match (wake, control) {
            (Wake::Stop(signal), _) => {
                log::info("draining", &[("signal", signal.as_str())]);
                return;
            }
            (Wake::Reload, Some(control)) => control.reload(),
            (Wake::Reload, None) => log::info("there is no configuration file to reload", &[]),
            (Wake::Ended, _) => return,
        }
    }
}

fn stop(
    plane: &Arc<Plane>,
    control: Option<ControlPlane>,
    bound: Duration,
    wake: &Sender<Wake>,
    woken: &Receiver<Wake>,
) -> Result<(), Failure> {
    let (finishing, wake) = (Arc::clone(plane), wake.clone());
    let finish = move || {
        finishing.finish(bound);
        // The receiver is gone only when the process is ending anyway.
        let _ = wake.send(Wake::Ended);
    };
    std::thread::Builder::new()
        .name("drain".to_owned())
        .spawn(finish)
        .map_err(|error| Failure::new(Status::System, format!("cannot start a thread: {error}")))?;
    let begun = Instant::now();
    let deadline = begun + bound + GRACE;
    loop {
        match woken.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(Wake::Ended) => break,
            Ok(Wake::Reload) => {}
            Ok(Wake::Stop(_)) if begun.elapsed() < SAME_WISH => {}
            Ok(Wake::Stop(signal)) => {
                log::warning("stopped at once by a second signal", &[("signal", signal.as_str())]);
                process::exit(128 + signal as i32);
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                return Err(Failure::new(Status::Internal, "the data plane did not end in time"));
            }
        }
    }
    if let Some(control) = control {
        control.stop();
    }
    log::info("stopped", &[]);
    Ok(())
}
