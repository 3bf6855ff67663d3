// SPDX-License-Identifier: MIT OR Apache-2.0
//! Connecting a lane.
//!
//! A path whose address is one of this node's own, and whose export is the very device, would
//! pass every check, since it reads the device through itself, and then swallow its requests.
//! The configuration finds what it can see of that; what a name or a listener on all addresses
//! hides is found here, when both ends of the connection are known.

use std::net::SocketAddr;
use std::path::Path;

use engine::LaneFault;
use program::{SocketAddress, Target};
use ring::{Errno, Fd, socket};

use crate::lane::Stage;
use crate::limits::LANE_USER_TIMEOUT_MS;
use crate::reactor::Reactor;
use crate::slab::Key;
use crate::tokens::{Asked, token};

impl Reactor {
    pub(crate) fn lane_connect(&mut self, key: Key, address: SocketAddr) {
        match self.lane_tcp_socket(key, address) {
            Ok(fd) => {
                self.ring.connect_ip(token(Asked::LaneConnect, key), &fd, address);
                self.lane_connecting(key, fd, true);
            }
            Err(error) => self.lane_fail(key, LaneFault::Unreachable(error.to_string())),
        }
    }

    pub(crate) fn lane_connect_unix(&mut self, key: Key, path: &str) {
        let fd = match socket::stream(socket::Family::Unix) {
            Ok(fd) => fd,
            Err(error) => return self.lane_fail(key, LaneFault::Unreachable(error.to_string())),
        };
        match self.ring.connect_unix(token(Asked::LaneConnect, key), &fd, Path::new(path)) {
            Ok(()) => self.lane_connecting(key, fd, false),
            Err(error) => self.lane_fail(key, LaneFault::Unreachable(format!("{path}: {}", error.desc()))),
        }
    }

    /// A socket that leaves nothing behind (rule W1), bound where the path says.
    fn lane_tcp_socket(&self, key: Key, address: SocketAddr) -> std::io::Result<Fd> {
        let fd = socket::stream(socket::Family::of(address))?;
        socket::prepare_lane(&fd, LANE_USER_TIMEOUT_MS)?;
        let lane = self.lanes.get(key).expect("only called for lanes in the table");
        let device = self.devices.get(lane.device).expect("a lane's device outlives it");
        let bind = device.path_of(lane.id).and_then(|path| match &path.target {
            Target::Nbd { bind, .. } => *bind,
            _ => None,
        });
        if let Some(source) = bind {
            socket::bind_source(&fd, source)?;
        }
        Ok(fd)
    }

    fn lane_connecting(&mut self, key: Key, fd: Fd, tcp: bool) {
        let lane = self.lanes.get_mut(key).expect("only called for lanes in the table");
        lane.fd = Some(fd);
        lane.tcp = tcp;
        lane.connecting = true;
        lane.stage = Stage::Connecting;
    }

    /// A connect has ended.
    pub(crate) fn lane_connected(&mut self, key: Key, result: Result<u32, Errno>) {
        let lane = self.lanes.get_mut(key).expect("a lane outlives its operations");
        lane.connecting = false;
        if lane.is_ending() {
            self.lane_settle(key);
            return;
        }
        match result {
            Ok(_) => {
                if self.lane_leads_back(key) {
                    let text = "the address is this node's own, and the export is this very device";
                    self.lane_fail(key, LaneFault::Unreachable(text.into()));
                } else {
                    self.lane_shake(key);
                }
            }
            // The name has another address, e.g. IPv4 beside IPv6.
            Err(_) if !lane.addresses.is_empty() => {
                if let Some(next) = lane.addresses.pop() {
                    self.lane_connect(key, next);
                }
            }
            Err(error) => self.lane_fail(key, connect_fault(error)),
        }
    }
}

impl Reactor {
    fn lane_leads_back(&self, key: Key) -> bool {
        let lane = self.lanes.get(key).expect("only called for lanes in the table");
        let device = self.devices.get(lane.device).expect("a lane's device outlives it");
        let Some(Target::Nbd { export, .. }) = device.path_of(lane.id).map(|path| &path.target) else {
            return false;
        };
        let Some((ours, theirs)) = lane.fd.as_ref().and_then(socket::ends) else { return false };
        self.program.listeners.iter().any(|listener| {
            let shown = || self.node.directory.find(&listener.exports, export);
            is_end_of(&listener.address, ours, theirs)
                && shown().is_some_and(|(name, _)| name == device.program.name)
        })
    }
}

/// Whether the far end of a connection is a listener of this machine. Both ends of a connection
/// to an address of the machine have that address, unless the path is bound to another.
fn is_end_of(listener: &SocketAddress, ours: SocketAddr, theirs: SocketAddr) -> bool {
    let SocketAddress::Tcp(listener) = listener else { return false };
    let everywhere = listener.ip().is_unspecified() && ours.ip() == theirs.ip();
    listener.port() == theirs.port() && (everywhere || listener.ip() == theirs.ip())
}

fn connect_fault(error: Errno) -> LaneFault {
    let text = error.desc().to_owned();
    match error {
        Errno::ECONNREFUSED | Errno::ENOENT => LaneFault::Refused(text),
        Errno::ECONNRESET => LaneFault::Reset(text),
        _ => LaneFault::Unreachable(text),
    }
}
