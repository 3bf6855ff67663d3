// SPDX-License-Identifier: MIT OR Apache-2.0
//! NBD URIs (the NBD URI specification, RFC 3986) and `file:` URIs of local storage.
//!
//! ```
//! use nbd::uri::{Host, Transport, Uri};
//!
//! let uri = Uri::parse("nbd://storage1/vol%200").unwrap();
//! let Uri::Nbd(nbd) = &uri else { panic!() };
//! assert_eq!(nbd.transport, Transport::Tcp { host: Host::Name("storage1".into()), port: 10809 });
//! assert_eq!(nbd.export, "vol 0");
//! assert_eq!(uri.to_string(), "nbd://storage1/vol%200");
//!
//! let error = Uri::parse("nbd+unix:///vol0").unwrap_err();
//! assert_eq!(error.to_string(), "at byte 16: the socket is missing; allowed: nbd+unix:///EXPORT?socket=PATH");
//! ```
//!
//! Where the specification leaves a choice, this parser is strict, because its input is configuration: a
//! guess would become a path to the wrong storage. So a host must be named, parameters must be known and are
//! given once, and what cannot be obeyed (a user name, anonymous TLS) is refused instead of ignored.
//! Experimental parameters (`x-...`) are unknown too.

mod display;
mod error;
mod host;
mod parse;
mod percent;
mod query;

use alloc::string::String;
use alloc::vec::Vec;

pub use error::{UriError, UriProblem};
pub use host::Host;

/// Port of NBD, assigned by IANA.
pub const DEFAULT_PORT: u16 = 10809;

/// Longest path of a Unix socket that Linux takes, in bytes.
pub const SOCKET_PATH_MAX_BYTES: usize = 107;

/// Longest path of a file that Linux takes, in bytes.
pub const FILE_PATH_MAX_BYTES: usize = 4095;

/// Where storage is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Uri {
    /// An export of an NBD server.
    Nbd(NbdUri),
    /// A file or block device of this machine: `file:///absolute/path`.
    File {
        /// Absolute path, as bytes because Linux paths are; without NUL.
        path: Vec<u8>,
    },
}

/// An export of an NBD server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NbdUri {
    /// How to reach the server.
    pub transport: Transport,
    /// Name of the export; empty for the server's default one. A [valid name](crate::is_valid_name).
    pub export: String,
    /// TLS parameters of `nbds` and `nbds+unix`; `None` means no TLS.
    pub tls: Option<TlsParameters>,
}

/// How to reach an NBD server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// TCP.
    Tcp {
        /// Name or address.
        host: Host,
        /// Port, never 0.
        port: u16,
    },
    /// A Unix socket.
    Unix {
        /// Path as bytes, at most [`SOCKET_PATH_MAX_BYTES`]; one that begins with NUL is an abstract name.
        path: Vec<u8>,
    },
}

/// How TLS must be done; certificates are the only kind (X.509).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TlsParameters {
    /// Name the server's certificate must have; `None` for the host of the URI (`tls-hostname`).
    pub hostname: Option<String>,
    /// Whether the certificate is checked (`tls-verify-peer`). Default: true.
    pub verify_peer: bool,
}

impl Default for TlsParameters {
    fn default() -> Self {
        Self { hostname: None, verify_peer: true }
    }
}
