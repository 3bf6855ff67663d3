// SPDX-License-Identifier: MIT OR Apache-2.0
//! Addresses that no two tests share.
//!
//! Asking the kernel for a free port and handing it to another process is a race between
//! tests that run at once. 127.0.0.0/8 has room for an address per test instead, so every
//! test may use the same fixed ports. An address is taken by listening on one port of it
//! for as long as the test process lives.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::wait;

/// Port that marks an address as taken.
const CLAIM_PORT: u16 = 1009;

/// A loopback address of this caller alone.
pub fn loopback() -> Ipv4Addr {
    static SEQUENCE: AtomicU32 = AtomicU32::new(0);
    for _ in 0..1000 {
        let sequence = SEQUENCE.fetch_add(1, Ordering::Relaxed);
        let [_, b, c, d] = (std::process::id() << 2).wrapping_add(sequence).to_be_bytes();
        // 127.0.x.x stays free for people.
        let address = Ipv4Addr::new(127, b | 0x40, c, d);
        if let Ok(listener) = TcpListener::bind((address, CLAIM_PORT)) {
            // The claim holds until the process ends.
            std::mem::forget(listener);
            return address;
        }
    }
    panic!("no loopback address is free")
}

/// Where something listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// TCP.
    Tcp(SocketAddr),
    /// Unix stream socket.
    Unix(PathBuf),
}

impl Endpoint {
    /// TCP at an address.
    pub fn tcp(ip: impl Into<IpAddr>, port: u16) -> Self {
        Self::Tcp(SocketAddr::new(ip.into(), port))
    }

    /// Unix socket at a path.
    pub fn unix(path: impl AsRef<Path>) -> Self {
        Self::Unix(path.as_ref().to_owned())
    }

    /// NBD URI of an export here.
    pub fn uri(&self, export: &str) -> String {
        match self {
            Self::Tcp(address) => format!("nbd://{address}/{export}"),
            Self::Unix(path) => format!("nbd+unix:///{export}?socket={}", path.display()),
        }
    }

    /// Tries to connect once.
    pub fn connects(&self) -> io::Result<()> {
        match self {
            Self::Tcp(address) => {
                TcpStream::connect_timeout(address, Duration::from_secs(1)).map(|_stream| ())
            }
            Self::Unix(path) => UnixStream::connect(path).map(|_stream| ()),
        }
    }

    /// Waits until somebody listens here.
    pub fn await_listening(&self) {
        wait::until(&format!("{self} to listen"), || self.connects().ok());
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}
