// SPDX-License-Identifier: MIT OR Apache-2.0
//! The whole program of one node: listeners, memory, devices.

use alloc::string::String;
use alloc::vec::Vec;
use core::net::SocketAddr;

use crate::{DeviceProgram, GateKey, Nanos};

/// Everything a data plane runs. Immutable; a change is a new program.
#[derive(Clone, Debug, PartialEq)]
pub struct Program {
    /// Rises with every program handed down.
    pub generation: u64,
    /// Limits that hold for the node as a whole.
    pub node: NodeProgram,
    /// Where hosts connect.
    pub listeners: Vec<Listener>,
    /// Devices by name; names are unique.
    pub devices: Vec<DeviceProgram>,
}

/// Least [`NodeProgram::memory_bytes`] for each reactor; a program with less is refused.
pub const REACTOR_MEMORY_BYTES_MIN: u64 = 16 << 20;

/// Limits of the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeProgram {
    /// Reactor threads, at least 1. Cannot be changed by a reload.
    pub reactors: usize,
    /// Memory for payload in flight, in bytes, over all reactors.
    pub memory_bytes: u64,
    /// Host connections at once, negotiating ones included.
    pub max_sessions: u32,
    /// A handshake, on either side, that takes longer is closed.
    pub handshake_timeout: Nanos,
    /// This node's name at gates: 1 to 64 bytes of `A-Z a-z 0-9 . _ -`.
    pub member: String,
    /// Key for gates, ours and others'; without one gates take claims from their own host only.
    pub gate_key: Option<GateKey>,
}

/// One socket hosts connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Where to listen.
    pub address: SocketAddress,
    /// Which devices are visible there.
    pub exports: Exports,
}

/// A listening or connecting address.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SocketAddress {
    /// TCP, numeric.
    Tcp(SocketAddr),
    /// Unix stream socket by file-system path.
    Unix(String),
}

/// Which devices a listener shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exports {
    /// Every device that is not named by another listener's `Only`.
    Public,
    /// These devices only; they are hidden from `Public` listeners. The demo
    /// keeps its embedded storage out of sight this way.
    Only(Vec<String>),
}
