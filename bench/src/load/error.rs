// SPDX-License-Identifier: MIT OR Apache-2.0
//! Why a load could not start, and how a connection broke under it.

use std::fmt;
use std::io;

use nbd::client::{HandshakeError, ReplyViolation};
use nbd::uri::UriError;
use nbd::{Errno, WireViolation};

/// A load could not start.
#[derive(Debug)]
pub enum LoadError {
    /// The URI is wrong.
    Uri(UriError),
    /// The URI is right, but not one that can be loaded.
    Unsupported(&'static str),
    /// Nobody answers there.
    Connect(io::Error),
    /// The server closed or kept silent.
    Handshake(io::Error),
    /// The server refused, or is no NBD server.
    Refused(HandshakeError),
    /// The options do not fit the export.
    Mismatch(String),
}

/// A connection that can only be closed.
#[derive(Debug)]
pub enum ConnectionError {
    /// The server closed it with requests in flight.
    Closed,
    /// The system's error.
    Io(io::Error),
    /// A reply header that is none.
    Wire(WireViolation),
    /// A reply that does not fit its request.
    Reply(ReplyViolation),
    /// A reply to a request that is not in flight.
    UnknownCookie(u64),
    /// A reply to a request that was not yet sent whole.
    TooEarly(u64),
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uri(error) => write!(f, "bad URI: {error}"),
            Self::Unsupported(what) => f.write_str(what),
            Self::Connect(error) => write!(f, "cannot connect: {error}"),
            Self::Handshake(error) => write!(f, "handshake: {error}"),
            Self::Refused(error) => write!(f, "handshake: {error}"),
            Self::Mismatch(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for LoadError {}

impl fmt::Display for ConnectionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("closed by the server"),
            Self::Io(error) => error.fmt(f),
            Self::Wire(violation) => violation.fmt(f),
            Self::Reply(violation) => violation.fmt(f),
            Self::UnknownCookie(cookie) => write!(f, "reply to {cookie:#x}, which is not in flight"),
            Self::TooEarly(cookie) => write!(f, "reply to {cookie:#x}, which was not sent whole"),
        }
    }
}

impl std::error::Error for ConnectionError {}

/// The field's name of an NBD error.
pub(super) fn errno_name(errno: Errno) -> &'static str {
    match errno {
        Errno::Perm => "EPERM",
        Errno::Io => "EIO",
        Errno::NoMemory => "ENOMEM",
        Errno::Invalid => "EINVAL",
        Errno::NoSpace => "ENOSPC",
        Errno::Overflow => "EOVERFLOW",
        Errno::NotSupported => "ENOTSUP",
        Errno::Shutdown => "ESHUTDOWN",
    }
}
