// SPDX-License-Identifier: MIT OR Apache-2.0
//! nbdkit with a plugin and filters.
//!
//! Always with one thread unless asked: nbdkit 1.32 aborts when a client drops a
//! connection while several threads have replies pending, which is what a path pull does.

use super::Server;
use crate::{Command, Endpoint, Namespace, TestDir};

/// How to run nbdkit.
#[derive(Clone, Debug)]
pub struct Nbdkit {
    plugin: Vec<String>,
    filters: Vec<String>,
    parameters: Vec<String>,
    threads: u32,
}

impl Nbdkit {
    /// Serves a file.
    pub fn file(path: &str) -> Self {
        Self::plugin(&["file", path])
    }

    /// Serves memory that ends with the process.
    pub fn memory(size: &str) -> Self {
        Self::plugin(&["memory", size])
    }

    /// Serves any plugin: its name and parameters.
    pub fn plugin(words: &[&str]) -> Self {
        let plugin = words.iter().map(|&w| w.to_owned()).collect();
        Self { plugin, filters: Vec::new(), parameters: Vec::new(), threads: 1 }
    }

    /// Adds a filter, outermost first, with its parameters.
    #[must_use]
    pub fn filter(mut self, name: &str, parameters: &[&str]) -> Self {
        self.filters.push(format!("--filter={name}"));
        self.parameters.extend(parameters.iter().map(|&p| p.to_owned()));
        self
    }

    /// Threads per connection.
    #[must_use]
    pub fn threads(mut self, threads: u32) -> Self {
        self.threads = threads;
        self
    }

    /// Starts it.
    pub fn start(&self, dir: &TestDir, name: &str, endpoint: &Endpoint) -> Server {
        Server::start(dir, name, self.command(endpoint), endpoint, None)
    }

    /// Starts it inside a namespace.
    pub fn start_within(
        &self,
        namespace: &Namespace,
        dir: &TestDir,
        name: &str,
        endpoint: &Endpoint,
    ) -> Server {
        let command = self.command(endpoint).within(namespace);
        Server::start(dir, name, command, endpoint, Some(namespace))
    }

    fn command(&self, endpoint: &Endpoint) -> Command {
        let listen = match endpoint {
            Endpoint::Tcp(address) => {
                vec!["-i".to_owned(), address.ip().to_string(), "-p".to_owned(), address.port().to_string()]
            }
            Endpoint::Unix(path) => vec!["-U".to_owned(), path.display().to_string()],
        };
        Command::new("nbdkit")
            .args(["-f".to_owned(), format!("--threads={}", self.threads)])
            .args(listen)
            .args(self.filters.iter().cloned())
            .args(self.plugin.iter().cloned())
            .args(self.parameters.iter().cloned())
    }
}
