// SPDX-License-Identifier: MIT OR Apache-2.0
//! Real storage servers: nbdkit, qemu-nbd, nbd-server.
//!
//! One handle for all: start, kill, start again at the same address, stop and go on.

mod log;
mod nbd_server;
mod nbdkit;
mod qemu_nbd;
mod trace;

pub use log::{Interval, read_log};
pub use nbd_server::NbdServer;
pub use nbdkit::Nbdkit;
pub use qemu_nbd::QemuNbd;
pub use trace::{Change, Trace};

use crate::{Command, Endpoint, Namespace, Process, TestDir, wait};

/// A server that stays in the foreground.
#[derive(Debug)]
pub struct Server {
    name: String,
    command: Command,
    endpoint: Endpoint,
    process: Process,
    namespace: Option<String>,
}

impl Server {
    /// Runs `command`, which listens at `endpoint` inside `namespace`, and waits until it does.
    pub fn start(
        dir: &TestDir,
        name: &str,
        command: Command,
        endpoint: &Endpoint,
        namespace: Option<&Namespace>,
    ) -> Self {
        remove_stale_socket(endpoint);
        let process = command.spawn(dir, name);
        let mut server = Self {
            name: name.to_owned(),
            command,
            endpoint: endpoint.clone(),
            process,
            namespace: namespace.map(|n| n.name().to_owned()),
        };
        server.await_listening();
        server
    }

    /// Where it listens.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Kills it at once.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again with the same command, after [`Server::kill`].
    pub fn restart(&mut self, dir: &TestDir) {
        assert!(self.process.try_wait().is_some(), "{} is running", self.name);
        remove_stale_socket(&self.endpoint);
        self.process = self.command.spawn(dir, &self.name);
        self.await_listening();
    }

    /// Stops all its threads.
    pub fn stop(&self) {
        self.process.stop();
    }

    /// Lets it go on.
    pub fn go_on(&self) {
        self.process.go_on();
    }

    fn await_listening(&mut self) {
        let (process, endpoint) = (&mut self.process, &self.endpoint);
        let namespace = self.namespace.as_deref();
        wait::until(&format!("{} to listen at {endpoint}", self.name), || {
            process.assert_running();
            is_listening(endpoint, namespace).then_some(())
        });
    }
}

/// Whether somebody listens, seen from outside: inside a namespace one cannot connect
/// from here, but its table of sockets can be read through any process that is in it.
fn is_listening(endpoint: &Endpoint, namespace: Option<&str>) -> bool {
    match (endpoint, namespace) {
        (Endpoint::Tcp(address), Some(namespace)) => {
            let filter = format!("sport = :{}", address.port());
            let listed = crate::run("ip", ["netns", "exec", namespace, "ss", "-Htln", &filter]);
            listed.contains(&format!("{address}")) || listed.contains("0.0.0.0") || listed.contains('*')
        }
        _ => endpoint.connects().is_ok(),
    }
}

/// A server that was killed leaves its Unix socket behind and then cannot bind it.
fn remove_stale_socket(endpoint: &Endpoint) {
    if let Endpoint::Unix(path) = endpoint {
        let _ = std::fs::remove_file(path);
    }
}
