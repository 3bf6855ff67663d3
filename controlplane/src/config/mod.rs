// SPDX-License-Identifier: MIT OR Apache-2.0
//! Configuration: a TOML file in, a [`Program`] out, or every mistake at once.
//!
//! Steps, each in its own file: text to checked settings (`reader`, by the key
//! table in `keys`), settings to effective values with their origins
//! (`effective`), checks over several keys (`checks`), values to the program
//! (`build`). Nothing here touches anything but the file it reads: no name is
//! resolved, no path opened, so `check` is safe to run anywhere.

mod address;
mod build;
mod checks;
mod effective;
mod keys;
mod load;
mod loops;
mod mistake;
mod reader;
mod scalar;
mod show;
mod source;
mod suggest;
mod target;
mod units;
mod value;
mod warnings;

pub use address::{parse_listen, parse_tcp};
pub use effective::{Effective, Origin, Settings};
pub use keys::{Fallback, Key, Kind, Later, Section};
pub use load::{LoadError, load};
pub use mistake::{Findings, Mistake, Severity};
pub use show::{ShownValue, reference_rows, to_toml};
pub use source::{Position, Source};
pub use target::Endpoint;
pub use units::{format_duration, format_size, parse_size};
pub use value::{Value, quote};

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use program::{DeviceProgram, Program};
use reader::DeviceTable;

/// What the configuration depends on beside its text.
#[derive(Clone, Debug)]
pub struct Environment {
    /// Default of `node.name`.
    pub host_name: String,
    /// What `reactors = "auto"` means.
    pub cores: usize,
    /// Replaces `node.state_dir`, from the command line.
    pub state_dir: Option<String>,
}

impl Environment {
    /// The machine's host name and number of usable cores.
    pub fn of_this_machine() -> Self {
        let host_name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
        Self {
            host_name: host_name.filter(|name| !name.is_empty()).unwrap_or_else(|| "localhost".to_owned()),
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            state_dir: None,
        }
    }
}

/// A configuration without mistakes.
#[derive(Clone, Debug)]
pub struct Config {
    node: Settings,
    listen: Settings,
    devices: Vec<(Settings, Vec<Settings>)>,
    program: Program,
    warnings: Findings,
}

impl Config {
    /// Reads a configuration text.
    ///
    /// # Errors
    ///
    /// Every mistake in it.
    pub fn parse(source: Source, environment: &Environment) -> Result<Self, Findings> {
        let (document, mut mistakes, is_toml) = reader::read(&source);
        let mut node = Settings::resolve(Section::Node, &document.node, None, &source);
        if node.entry("name").span.is_none() {
            node.set("name", Value::Text(environment.host_name.clone()), Origin::Computed);
        }
        if let Some(dir) = &environment.state_dir {
            node.set("state_dir", Value::Text(dir.clone()), Origin::CommandLine);
        }
        let listen = Settings::resolve(Section::Listen, &document.listen, None, &source);
        let resolved: Vec<_> =
            document.devices.iter().map(|table| resolve_device(table, &document.defaults, &source)).collect();
        mistakes.extend(checks::node(&node, &listen));
        mistakes.extend(checks::names(&resolved, &source));
        mistakes.extend(loops::loops(&listen, &resolved));
        for (table, (device, paths)) in document.devices.iter().zip(&resolved) {
            // In a text that is not TOML, what seems to be missing may have been skipped.
            if is_toml {
                mistakes.extend(checks::missing(table, device, paths));
            }
            mistakes.extend(checks::device(device, paths));
        }
        let devices: Option<Vec<DeviceProgram>> =
            resolved.iter().map(|(device, paths)| build::device(device, paths)).collect();
        let Some(devices) = devices.filter(|_| mistakes.is_empty()) else {
            return Err(Findings::new(Severity::Error, source, mistakes));
        };
        let program = Program {
            generation: 0,
            node: build::node(&node, &listen, environment.cores),
            listeners: build::listeners(&listen),
            devices,
        };
        let warnings = Findings::new(Severity::Warning, source, warnings::all(&node, &listen, &resolved));
        Ok(Self { node, listen, devices: resolved, program, warnings })
    }

    /// The program, with generation 0 and nothing recorded.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// Findings that do not keep the node from starting.
    pub fn warnings(&self) -> &Findings {
        &self.warnings
    }

    /// Name of the node.
    pub fn node_name(&self) -> &str {
        self.node.text("name").unwrap_or_default()
    }

    /// Where state is kept.
    pub fn state_dir(&self) -> PathBuf {
        Path::new(self.node.text("state_dir").unwrap_or_default()).to_owned()
    }

    /// File with the key for gates.
    pub fn gate_key(&self) -> Option<&Path> {
        self.node.text("gate_key").map(Path::new)
    }

    /// Values that a reload cannot change.
    pub(crate) fn fixed_values(&self) -> impl Iterator<Item = &Effective> {
        self.node.iter().chain(self.listen.iter()).filter(|entry| !entry.key.reload)
    }

    /// Takes over what a reload cannot change from the configuration that runs.
    pub(crate) fn keep_fixed(&mut self, running: &Self) {
        self.node.keep_fixed(&running.node);
        self.listen.keep_fixed(&running.listen);
    }

    /// Where the API listens, `None` if it is off.
    pub fn api(&self) -> Option<SocketAddr> {
        self.listen.socket("api")
    }
}

fn resolve_device(
    table: &DeviceTable,
    defaults: &reader::Table,
    source: &Source,
) -> (Settings, Vec<Settings>) {
    let device = Settings::resolve(Section::Device, &table.table, Some(defaults), source);
    let paths = table.paths.iter().map(|path| Settings::resolve(Section::Path, path, None, source)).collect();
    (device, paths)
}
