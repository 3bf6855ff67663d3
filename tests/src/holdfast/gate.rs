// SPDX-License-Identifier: MIT OR Apache-2.0
//! A running `holdfast gate`.

use super::command;
use crate::{Endpoint, Process, TestDir};

/// A gate process; killed on drop.
#[derive(Debug)]
pub struct Gate {
    process: Process,
    endpoint: Endpoint,
}

impl Gate {
    /// Exports each volume (name, and a file or the URI of an NBD server) at all of these addresses.
    ///
    /// All gates of a test that are started so share the registers, as on one storage host.
    pub fn start(dir: &TestDir, name: &str, endpoints: &[Endpoint], exports: &[(String, String)]) -> Self {
        Self::start_on_host(dir, "registers", name, endpoints, exports)
    }

    /// The same with registers of its own, as a gate of another storage host has.
    pub fn start_on_host(
        dir: &TestDir,
        host: &str,
        name: &str,
        endpoints: &[Endpoint],
        exports: &[(String, String)],
    ) -> Self {
        let mut gate = command(&["gate", "--reactors", "1", "--state-dir", &dir.text(host)]);
        for endpoint in endpoints {
            let Endpoint::Tcp(address) = endpoint else { panic!("a gate is used over TCP here") };
            gate = gate.args(["--listen".to_owned(), address.to_string()]);
        }
        for (export, volume) in exports {
            gate = gate.args(["--export".to_owned(), format!("{export}={volume}")]);
        }
        let process = gate.spawn(dir, name);
        let gate = Self { process, endpoint: endpoints[0].clone() };
        endpoints.iter().for_each(Endpoint::await_listening);
        gate
    }

    /// Where it listens first.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Stops all its threads.
    pub fn stop(&self) {
        self.process.stop();
    }

    /// Lets it go on.
    pub fn go_on(&self) {
        self.process.go_on();
    }
}
