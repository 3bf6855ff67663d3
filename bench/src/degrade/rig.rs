// SPDX-License-Identifier: MIT OR Apache-2.0
//! Paths `a` and `b` with servers of their own to one image, Holdfast above them, and what befalls `a`.

use std::path::Path;

use super::Kind;
use crate::failover::relay::Relay;
use crate::peers::{self, Device, Holdfast, Listener, PeerError};
use crate::silence::{Prepared, Silence};

const DEVICE: &str = "vol0";
/// Name of the server of path `a`.
pub(super) const SERVER_A: &str = "storage-a";
/// More than any host here has in flight.
const DELAYED_THREADS: u32 = 64;

/// What a run is made of.
#[derive(Clone, Debug, Default)]
pub(super) struct Setup {
    /// Words for the server of path `a`, as [`words`] makes them; `None`: there is no such path.
    pub(super) a: Option<Vec<String>>,
    /// The same for `b`.
    pub(super) b: Vec<String>,
    /// Path `a` goes over a relay that can reset it.
    pub(super) relayed: bool,
    /// Lines of the device's configuration.
    pub(super) keys: Vec<String>,
}

/// What runs during one run. Fields end in this order.
pub(super) struct Rig {
    node: Holdfast,
    relay: Option<Relay>,
    prepared: Option<Prepared>,
    silence: Option<Silence>,
    a: Option<Listener>,
    _b: Listener,
}

impl Rig {
    /// Starts everything and waits until all paths are up.
    pub(super) fn start(dir: &Path, binary: &Path, setup: &Setup) -> Result<Self, PeerError> {
        let a = setup.a.as_ref().map(|words| peers::nbdkit(SERVER_A, dir, words)).transpose()?;
        let b = peers::nbdkit("storage-b", dir, &setup.b)?;
        let relay = match &a {
            Some(a) if setup.relayed => Some(Relay::start(a.port)?),
            _ => None,
        };
        let port_a = relay.as_ref().map(Relay::port).or(a.as_ref().map(|a| a.port));
        let paths = port_a.into_iter().chain([b.port]).map(|port| peers::uri_of(port, "")).collect();
        let device = Device { name: DEVICE.to_owned(), keys: setup.keys.clone(), paths };
        let mut node = Holdfast::start("holdfast", dir, binary, &[device])?;
        node.await_all_up()?;
        Ok(Self { node, relay, prepared: None, silence: None, a, _b: b })
    }

    /// Where the host connects.
    pub(super) fn uri(&self) -> String {
        self.node.uri(DEVICE)
    }

    /// Fails unless all paths have carried requests: what befalls an unused path would prove nothing.
    pub(super) fn check_all_used(&self) -> Result<(), PeerError> {
        self.node.check_all_used()
    }

    /// So that path `a` dies in the moment it is to.
    pub(super) fn prepare(&mut self, kind: Kind) -> Result<(), PeerError> {
        let port = self.a.as_ref().map(|a| a.port).filter(|_| kind == Kind::Silence);
        self.prepared = port.map(Silence::prepare).transpose()?;
        Ok(())
    }

    /// Lets path `a` die.
    pub(super) fn end_a(&mut self, kind: Kind) -> Result<(), PeerError> {
        match kind {
            // The relay goes first, and its port with it: its connections are reset and new ones refused.
            Kind::Reset => drop(self.relay.take()),
            Kind::Silence => {
                let prepared = self.prepared.take();
                let prepared =
                    prepared.ok_or_else(|| PeerError::new("no silence was prepared".to_owned()))?;
                self.silence = Some(prepared.begin()?);
            }
            Kind::Kill | Kind::Slow | Kind::Flapping => {}
        }
        if kind != Kind::Silence {
            drop(self.a.take());
        }
        Ok(())
    }

    /// Ends a silence, so that what is still waited for comes.
    pub(super) fn heal(&mut self) -> Result<(), PeerError> {
        self.silence.take().map_or(Ok(()), Silence::end)
    }

    /// Hands over the server of path `a`.
    pub(super) fn take_a(&mut self) -> Option<Listener> {
        self.a.take()
    }
}

/// Words for an nbdkit on `image` that takes so long for each request.
pub(super) fn words(image: &Path, delay_ms: u32) -> Vec<String> {
    let file = ["file".to_owned(), image.display().to_string()];
    if delay_ms == 0 {
        // One thread per connection: nbdkit 1.32 aborts when a connection with several replies pending goes away.
        return ["--threads=1".to_owned()].into_iter().chain(file).collect();
    }
    // A request sleeps in its thread.
    let filter = [format!("--threads={DELAYED_THREADS}"), "--filter=delay".to_owned()];
    let delays = [format!("rdelay={delay_ms}ms"), format!("wdelay={delay_ms}ms")];
    filter.into_iter().chain(file).chain(delays).collect()
}
