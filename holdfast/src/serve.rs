// SPDX-License-Identifier: MIT OR Apache-2.0
//! `holdfast serve` and `holdfast check`.

use std::path::Path;

use controlplane::config::{Config, Environment, Findings, LoadError, load};
use controlplane::read_gate_key;
use controlplane::services::{ConfigFile, first_program, give_epoch};
use controlplane::state::StateDir;

use program::GateKey;

use crate::cli::{CheckArgs, ServeArgs};
use crate::demo;
use crate::failure::{Failure, Status};
use crate::output;
use crate::run::{ControlPlan, Plan, run};

/// Runs a node until it is told to stop.
pub(crate) fn serve(arguments: &ServeArgs) -> Result<(), Failure> {
    match &arguments.config {
        Some(file) => serve_file(file, arguments),
        None => serve_demo(arguments),
    }
}

fn serve_file(file: &Path, arguments: &ServeArgs) -> Result<(), Failure> {
    let environment = environment(arguments.state_dir.as_deref())?;
    let config = load(file, &environment).map_err(|error| load_failure(&error))?;
    warn(config.warnings());
    let key = gate_key(config.gate_key())?;
    let mut state = open(&config.state_dir())?;
    let mut program = first_program(&config, Some(&state));
    let epoch = state.take_epoch().map_err(|error| Failure::new(Status::System, error.to_string()))?;
    give_epoch(&mut program, epoch, key);
    // A later reload must find the file from wherever the process is then.
    let path = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    let control = ControlPlan { config, file: Some(ConfigFile { path, environment }), state, record: true };
    run(Plan { program, control: Some(control), drain: arguments.drain, announce: None })
}

/// The key in a file, if one is named.
pub(crate) fn gate_key(file: Option<&Path>) -> Result<Option<GateKey>, Failure> {
    let key = file.map(read_gate_key).transpose();
    key.map_err(|why| Failure::new(Status::Configuration, why))
}

fn serve_demo(arguments: &ServeArgs) -> Result<(), Failure> {
    let demo = demo::prepare(arguments.state_dir.as_deref())?;
    let state = open(&demo.config.state_dir())?;
    let control = ControlPlan { config: demo.config, file: None, state, record: false };
    run(Plan {
        program: demo.program,
        control: Some(control),
        drain: arguments.drain,
        announce: Some(demo.text),
    })
}

/// Reports every mistake in a file; touches nothing.
pub(crate) fn check(arguments: &CheckArgs) -> Result<(), Failure> {
    let config =
        load(&arguments.config, &Environment::of_this_machine()).map_err(|error| load_failure(&error))?;
    warn(config.warnings());
    output::print(&format!("{}: good, {}\n", arguments.config.display(), summary(&config)));
    Ok(())
}

fn summary(config: &Config) -> String {
    let program = config.program();
    let paths: usize = program.devices.iter().map(|device| device.paths.len()).sum();
    let count = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    format!("{} with {}", count(program.devices.len(), "device"), count(paths, "path"))
}

fn environment(state_dir: Option<&Path>) -> Result<Environment, Failure> {
    let state_dir = state_dir.map(|dir| std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned()));
    let text = |dir: &std::path::PathBuf| dir.to_str().map(str::to_owned);
    let text = state_dir.as_ref().map(|dir| {
        text(dir).ok_or_else(|| Failure::new(Status::Usage, "the name of the state directory is not UTF-8"))
    });
    Ok(Environment { state_dir: text.transpose()?, ..Environment::of_this_machine() })
}

fn open(dir: &Path) -> Result<StateDir, Failure> {
    StateDir::open(dir).map_err(|error| Failure::new(Status::System, error.to_string()))
}

fn warn(findings: &Findings) {
    eprint!("{}", findings.render(output::colour_on_stderr()));
}

/// A configuration that cannot be used: its mistakes are printed as they are.
pub(crate) fn load_failure(error: &LoadError) -> Failure {
    match error {
        LoadError::Unreadable(text) => Failure::new(Status::Configuration, text.clone()),
        LoadError::Mistakes(findings) => {
            eprint!("{}", findings.render(output::colour_on_stderr()));
            let count = findings.len();
            let text = format!("{count} mistake{} in the configuration", if count == 1 { "" } else { "s" });
            Failure::new(Status::Configuration, text)
        }
    }
}
