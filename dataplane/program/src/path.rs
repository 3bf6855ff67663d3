// SPDX-License-Identifier: MIT OR Apache-2.0
//! One path: where it leads and how it ranks.

use alloc::string::String;
use alloc::vec::Vec;

/// One route from this member to the storage behind a device.
#[derive(Clone, Debug, PartialEq)]
pub struct PathProgram {
    /// Unique within the device.
    pub name: String,
    /// As configured, for display.
    pub uri: String,
    /// Where it leads.
    pub target: Target,
    /// Higher wins; paths of equal priority form a group, but for access states and distances. Default 50.
    pub priority: u32,
    /// What the storage says of this path, whatever it says itself; `None`: what it says.
    pub access_state: Option<AccessState>,
    /// Share relative to the other paths of its group, at least 1. Default 1.
    pub weight: u32,
    /// Connections of this path. Default 1.
    pub lanes: u16,
    /// Requests in flight on this path at most. Default 128.
    pub in_flight: u32,
    /// The server finishes its work before it closes after DISC + half-close (semantics 2.3).
    pub drains: bool,
    /// Paths with the same text share one volatile cache (rule F1).
    pub same_cache: Option<String>,
    /// Never write through this path.
    pub read_only: bool,
}

/// What a storage server says of a path to it. Among paths of equal priority the better ones form a better group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum AccessState {
    /// The way to go. What says nothing is this.
    #[default]
    Optimized,
    /// Takes requests at a cost: through another controller, or over a longer way.
    NonOptimized,
    /// Takes requests only while nothing else does.
    Standby,
}

impl AccessState {
    /// Every state, the best first.
    pub const ALL: [Self; 3] = [Self::Optimized, Self::NonOptimized, Self::Standby];

    /// The word in the configuration, on the command line and on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Optimized => "optimized",
            Self::NonOptimized => "non-optimized",
            Self::Standby => "standby",
        }
    }

    /// The state of a word; `None` if it is none.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }
}

/// Where a path leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// An NBD server, over one of several portals that are tried in order.
    Nbd {
        /// At least one.
        portals: Vec<Portal>,
        /// Export name; empty is the server's default.
        export: String,
        /// Local source address of TCP portals.
        bind: Option<core::net::IpAddr>,
    },
    /// A local file or block device, absolute path.
    File {
        /// Absolute path.
        path: String,
        /// Create it with this size, in bytes, if it does not exist.
        create_bytes: Option<u64>,
    },
    /// Memory of this process that ends with it.
    Memory {
        /// Size in bytes.
        size_bytes: u64,
    },
}

/// One address of an NBD server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Portal {
    /// Host name or numeric address, and port.
    Tcp {
        /// Host name, IPv4 or IPv6 address without brackets.
        host: String,
        /// Port, default 10809.
        port: u16,
    },
    /// Unix stream socket by file-system path.
    Unix(String),
}
