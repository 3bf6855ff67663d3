// SPDX-License-Identifier: MIT OR Apache-2.0
//! Programs that are not read from a file, with the defaults of one.
//!
//! They are made by parsing a small configuration text, so there is no second
//! place where a default is written.

use controlplane::config::{Config, Environment, Source};
use program::{DeviceProgram, Program};

/// Parses a text of our own.
pub(crate) fn config(name: &str, text: &str, environment: &Environment) -> Config {
    match Config::parse(Source::new(name, text), environment) {
        Ok(config) => config,
        // Invariant: the texts are constants and quoted values; tests parse each of them.
        Err(mistakes) => panic!("the built-in configuration has mistakes:\n{mistakes}"),
    }
}

/// A program without devices.
pub(crate) fn empty_program(environment: &Environment) -> Program {
    config("(built in)", "", environment).program().clone()
}

/// A device with default settings and one path to a URI.
///
/// # Errors
///
/// What is wrong with the URI.
pub(crate) fn device_at(name: &str, path: &str, uri: &str) -> Result<DeviceProgram, String> {
    let uri = controlplane::config::quote(uri);
    let text = format!("[[device]]\nname = \"d\"\n[[device.path]]\nname = \"p\"\nuri = {uri}\n");
    let environment = Environment { host_name: "localhost".to_owned(), cores: 1, state_dir: None };
    let config = Config::parse(Source::new("(built in)", text), &environment)
        .map_err(|mistakes| mistakes.lines().collect::<Vec<_>>().join("; "))?;
    let mut device = config.program().devices[0].clone();
    name.clone_into(&mut device.name);
    path.clone_into(&mut device.paths[0].name);
    Ok(device)
}

/// A device with default settings and one path, whose target is to be set.
pub(crate) fn device(name: &str, path: &str) -> DeviceProgram {
    let text = "[[device]]\nname = \"d\"\n[[device.path]]\nname = \"p\"\nuri = \"file:///x\"\n";
    let environment = Environment { host_name: "localhost".to_owned(), cores: 1, state_dir: None };
    let mut device = config("(built in)", text, &environment).program().devices[0].clone();
    name.clone_into(&mut device.name);
    path.clone_into(&mut device.paths[0].name);
    device
}
