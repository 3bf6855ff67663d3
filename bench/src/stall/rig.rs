// SPDX-License-Identifier: MIT OR Apache-2.0
//! Two paths to one file, Holdfast above them, and the fault on the first.

use std::path::Path;

use nix::sys::signal::Signal;

use super::Kind;
use crate::failover::relay::Relay;
use crate::peers::{self, Device, Holdfast, Listener, PeerError, Process};
use crate::silence::Silence;

const DEVICE: &str = "vol0";

/// Storage with two addresses.
struct Storage {
    servers: Vec<Process>,
    ports: [u16; 2],
    export: &'static str,
}

/// What runs during one run. Fields end in this order.
pub(super) struct Rig {
    node: Holdfast,
    relay: Option<Relay>,
    storage: Storage,
    silence: Option<Silence>,
}

impl Rig {
    /// Starts everything and waits until both paths are up.
    pub(super) fn start(dir: &Path, image: &Path, binary: &Path, kind: Kind) -> Result<Self, PeerError> {
        let storage = match kind {
            Kind::SilenceGate => gate(dir, image, binary)?,
            _ => nbdkits(dir, image)?,
        };
        let relay = if kind == Kind::Reset { Some(Relay::start(storage.ports[0])?) } else { None };
        let first = relay.as_ref().map_or(storage.ports[0], Relay::port);
        let paths = [first, storage.ports[1]].map(|port| peers::uri_of(port, storage.export)).to_vec();
        let mut keys = Vec::new();
        if kind == Kind::SilenceUnhedged {
            keys.push("hedge = { mode = \"off\" }".to_owned());
        }
        let device = Device { name: DEVICE.to_owned(), keys, paths };
        let mut node = Holdfast::start("holdfast", dir, binary, &[device])?;
        node.await_all_up()?;
        Ok(Self { node, relay, storage, silence: None })
    }

    /// Where the host connects.
    pub(super) fn uri(&self) -> String {
        self.node.uri(DEVICE)
    }

    /// Fails unless both paths have carried requests: a fault on an unused path would prove nothing.
    pub(super) fn check_both_used(&self) -> Result<(), PeerError> {
        self.node.check_all_used()
    }

    /// Lets it happen.
    pub(super) fn inject(&mut self, kind: Kind) -> Result<(), PeerError> {
        match kind {
            Kind::Control => Ok(()),
            Kind::Kill => {
                self.storage.servers[0].kill();
                Ok(())
            }
            Kind::Stop => self.storage.servers[0].signal(Signal::SIGSTOP),
            Kind::Reset => match self.relay.as_ref().map(Relay::reset) {
                Some(ends) if ends > 0 => Ok(()),
                _ => Err(PeerError::new("there was no connection to reset".to_owned())),
            },
            Kind::Silence | Kind::SilenceUnhedged | Kind::SilenceGate => {
                self.silence = Some(Silence::of(self.storage.ports[0])?);
                Ok(())
            }
        }
    }

    /// Lets it end, so that what is still waited for comes.
    pub(super) fn heal(&mut self, kind: Kind) -> Result<(), PeerError> {
        match kind {
            Kind::Stop => self.storage.servers[0].signal(Signal::SIGCONT),
            _ => self.silence.take().map_or(Ok(()), Silence::end),
        }
    }
}

fn nbdkits(dir: &Path, image: &Path) -> Result<Storage, PeerError> {
    let server = |name: &str| peers::of_image(name, dir, image);
    let [one, two]: [Listener; 2] = [server("storage-0")?, server("storage-1")?];
    let ports = [one.port, two.port];
    Ok(Storage { servers: vec![one.process, two.process], ports, export: "" })
}

/// One gate at two addresses; its register begins anew.
fn gate(dir: &Path, image: &Path, binary: &Path) -> Result<Storage, PeerError> {
    let ports = [peers::free_port()?, peers::free_port()?];
    let listen = ports.map(|port| format!("--listen=127.0.0.1:{port}"));
    let mut arguments = vec!["gate".to_owned(), format!("--export={DEVICE}={}", image.display())];
    arguments.push(format!("--state-dir={}", dir.display()));
    arguments.extend(listen);
    let mut server = Process::start("gate", dir, &binary.display().to_string(), &arguments)?;
    for port in ports {
        server.await_listening(port)?;
    }
    Ok(Storage { servers: vec![server], ports, export: DEVICE })
}
