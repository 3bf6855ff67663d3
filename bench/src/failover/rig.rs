// SPDX-License-Identifier: MIT OR Apache-2.0
//! Two storage servers on one file, Holdfast above them, and the fault.
//!
//! Everything is started anew for each run, so that no run pays for the one before (back-off, flap damping, probation).

use std::path::Path;

use clap::ValueEnum;
use nix::sys::signal::Signal;

use super::relay::Relay;
use crate::peers::{self, Device, Holdfast, Listener, PeerError};

/// What happens to path `p0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Fault {
    /// Nothing: the longest gap of an undisturbed run.
    Control,
    /// Its storage server is killed.
    Kill,
    /// Its connections are reset; the server lives and takes new ones.
    Reset,
    /// Its storage server is stopped and keeps its connections: silence.
    Stop,
}

impl Fault {
    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Kill => "kill",
            Self::Reset => "reset",
            Self::Stop => "stop",
        }
    }
}

/// What runs during one run. Fields end in this order.
pub(super) struct Rig {
    pub(super) node: Holdfast,
    relay: Option<Relay>,
    servers: [Listener; 2],
}

impl Rig {
    /// Starts everything and waits until both paths are up.
    pub(super) fn start(dir: &Path, image: &Path, binary: &Path, fault: Fault) -> Result<Self, PeerError> {
        let server = |name: &str| peers::of_image(name, dir, image);
        let servers = [server("storage-0")?, server("storage-1")?];
        let relay = if fault == Fault::Reset { Some(Relay::start(servers[0].port)?) } else { None };
        let first_port = relay.as_ref().map_or(servers[0].port, Relay::port);
        let paths = [first_port, servers[1].port].map(|port| peers::uri_of(port, "")).to_vec();
        let device = Device { name: "vol0".to_owned(), keys: Vec::new(), paths };
        let mut node = Holdfast::start("holdfast", dir, binary, &[device])?;
        node.await_all_up()?;
        Ok(Self { node, relay, servers })
    }

    /// Lets it happen.
    pub(super) fn inject(&mut self, fault: Fault) -> Result<(), PeerError> {
        match fault {
            Fault::Control => Ok(()),
            Fault::Kill => {
                self.servers[0].process.kill();
                Ok(())
            }
            Fault::Stop => self.servers[0].process.signal(Signal::SIGSTOP),
            Fault::Reset => match self.relay.as_ref().map(Relay::reset) {
                Some(ends) if ends > 0 => Ok(()),
                _ => Err(PeerError::new("there was no connection to reset".to_owned())),
            },
        }
    }
}
