// SPDX-License-Identifier: MIT OR Apache-2.0
//! Writes configuration files. Values go in as they stand in the file, so tests can also
//! write wrong ones.

use std::fmt::Write as _;

use crate::{Endpoint, TestDir, loopback};

/// A configuration with one Unix socket for hosts, an API address of its own and quick
/// times, in a test's directory.
#[derive(Clone, Debug)]
pub struct Config {
    state_dir: String,
    listen: Vec<String>,
    api: String,
    node: Vec<String>,
    listen_keys: Vec<String>,
    defaults: Vec<String>,
    devices: Vec<Device>,
}

impl Config {
    /// State and sockets in the test's directory; no TCP for hosts.
    pub fn new(dir: &TestDir) -> Self {
        // Probes are quick so that a path that is well again is known to be within tests'
        // patience; everything else is as an operator gets it.
        let canary = r#"canary = { interval = "200ms", idle = "500ms", deadline = "500ms" }"#;
        Self {
            state_dir: dir.text("state"),
            listen: vec![format!("unix:{}", dir.text("nbd.sock"))],
            api: format!("{}:10880", loopback()),
            node: Vec::new(),
            listen_keys: Vec::new(),
            defaults: vec![canary.to_owned(), r#"deadline = { read = "600ms", write = "1s" }"#.to_owned()],
            devices: Vec::new(),
        }
    }

    /// One more address for hosts.
    #[must_use]
    pub fn listen(mut self, endpoint: &Endpoint) -> Self {
        self.listen.push(match endpoint {
            Endpoint::Tcp(address) => address.to_string(),
            Endpoint::Unix(path) => format!("unix:{}", path.display()),
        });
        self
    }

    /// TCP address of the read-only API.
    #[must_use]
    pub fn api(mut self, address: &str) -> Self {
        address.clone_into(&mut self.api);
        self
    }

    /// A line of `[node]`.
    #[must_use]
    pub fn node(mut self, line: &str) -> Self {
        self.node.push(line.to_owned());
        self
    }

    /// A line of `[listen]`.
    #[must_use]
    pub fn listen_key(mut self, line: &str) -> Self {
        self.listen_keys.push(line.to_owned());
        self
    }

    /// Replaces all lines of `[defaults]`.
    #[must_use]
    pub fn defaults(mut self, lines: &[&str]) -> Self {
        self.defaults = lines.iter().map(|&l| l.to_owned()).collect();
        self
    }

    /// One more device.
    #[must_use]
    pub fn device(mut self, device: Device) -> Self {
        self.devices.push(device);
        self
    }

    /// The file's text.
    pub fn text(&self) -> String {
        let mut text = format!("[node]\nstate_dir = \"{}\"\n", self.state_dir);
        push_lines(&mut text, &self.node);
        let addresses: Vec<String> = self.listen.iter().map(|a| format!("\"{a}\"")).collect();
        let _ = write!(text, "\n[listen]\nnbd = [{}]\n", addresses.join(", "));
        let _ = writeln!(text, "api = \"{}\"", self.api);
        push_lines(&mut text, &self.listen_keys);
        text.push_str("\n[defaults]\n");
        push_lines(&mut text, &self.defaults);
        for device in &self.devices {
            device.push(&mut text);
        }
        text
    }
}

/// One device of a configuration.
#[derive(Clone, Debug)]
pub struct Device {
    lines: Vec<String>,
    paths: Vec<Vec<String>>,
}

impl Device {
    /// A device without paths.
    pub fn new(name: &str) -> Self {
        Self { lines: vec![format!("name = \"{name}\"")], paths: Vec::new() }
    }

    /// A line of the device.
    #[must_use]
    pub fn key(mut self, line: &str) -> Self {
        self.lines.push(line.to_owned());
        self
    }

    /// One more path.
    #[must_use]
    pub fn path(mut self, name: &str, uri: &str) -> Self {
        self.paths.push(vec![format!("name = \"{name}\""), format!("uri = \"{uri}\"")]);
        self
    }

    /// A line of the path added last.
    #[must_use]
    pub fn path_key(mut self, line: &str) -> Self {
        self.paths.last_mut().expect("a path was added before").push(line.to_owned());
        self
    }

    fn push(&self, text: &mut String) {
        text.push_str("\n[[device]]\n");
        push_lines(text, &self.lines);
        for path in &self.paths {
            text.push_str("\n[[device.path]]\n");
            push_lines(text, path);
        }
    }
}

fn push_lines(text: &mut String, lines: &[String]) {
    for line in lines {
        text.push_str(line);
        text.push('\n');
    }
}
