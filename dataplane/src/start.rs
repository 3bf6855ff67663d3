// SPDX-License-Identifier: MIT OR Apache-2.0
//! Why a data plane does not start or does not take a command, in words for an operator.
//!
//! Everything that is wrong with the listeners is told at once.

use std::fmt;
use std::io;

use program::SocketAddress;
use ring::RingError;

/// A listener that cannot be had.
#[derive(Debug)]
pub struct ListenError {
    /// Where.
    pub address: SocketAddress,
    /// Why.
    pub source: io::Error,
}

/// A gate's register that cannot be had.
#[derive(Debug)]
pub struct GateError {
    /// Export name.
    pub device: String,
    /// File.
    pub register: String,
    /// Why.
    pub source: io::Error,
}

/// The data plane cannot start.
#[derive(Debug)]
pub enum StartError {
    /// Every listener that failed.
    Listen(Vec<ListenError>),
    /// No io_uring.
    Ring(RingError),
    /// `memory_bytes` is too small for the number of reactors.
    Memory {
        /// What there is, in bytes.
        memory_bytes: u64,
        /// What is needed at least, in bytes.
        needed_bytes: u64,
    },
    /// No reactor is asked for.
    NoReactors,
    /// An epoch register cannot be used.
    Gate(GateError),
    /// A thread or a descriptor cannot be had.
    System(io::Error),
}

/// A command was not taken.
#[derive(Debug)]
pub enum CommandError {
    /// No device of that name; nothing was done.
    UnknownDevice(String),
    /// The device has no path of that name; nothing was done.
    UnknownPath {
        /// Device name.
        device: String,
        /// Path name asked for.
        path: String,
    },
    /// The new listeners cannot be had; the old program goes on.
    Listen(Vec<ListenError>),
    /// An epoch register cannot be used; the old program goes on.
    Gate(GateError),
    /// The number of reactors cannot be changed while running; the old program goes on.
    ReactorsChanged,
    /// The new memory is too small; the old program goes on.
    Memory {
        /// What there is, in bytes.
        memory_bytes: u64,
        /// What is needed at least, in bytes.
        needed_bytes: u64,
    },
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hint = match self.source.kind() {
            io::ErrorKind::AddrInUse => "another process listens there; stop it or choose another address",
            io::ErrorKind::PermissionDenied => {
                "this user may not listen there; choose a port above 1023 or another directory"
            }
            io::ErrorKind::AddrNotAvailable => "no interface of this machine has that address",
            io::ErrorKind::NotFound => "the directory of the socket does not exist",
            _ => "choose another address",
        };
        match &self.address {
            SocketAddress::Tcp(address) => write!(f, "cannot listen on {address}: {} ({hint})", self.source),
            SocketAddress::Unix(path) => write!(f, "cannot listen on unix:{path}: {} ({hint})", self.source),
        }
    }
}

impl fmt::Display for GateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { device, register, source } = self;
        write!(f, "cannot gate {device}: its epoch register {register} cannot be used: {source}")
    }
}

fn write_all(f: &mut fmt::Formatter<'_>, errors: &[ListenError]) -> fmt::Result {
    for (index, error) in errors.iter().enumerate() {
        let separator = if index > 0 { "\n" } else { "" };
        write!(f, "{separator}{error}")?;
    }
    Ok(())
}

fn write_memory(f: &mut fmt::Formatter<'_>, memory_bytes: u64, needed_bytes: u64) -> fmt::Result {
    let mib = 1 << 20;
    write!(
        f,
        "memory is {} MiB, but {} MiB are needed for this number of reactors; raise `memory` or lower `reactors`",
        memory_bytes / mib,
        needed_bytes.div_ceil(mib)
    )
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen(errors) => write_all(f, errors),
            Self::Ring(error) => write!(f, "{error}"),
            Self::Memory { memory_bytes, needed_bytes } => write_memory(f, *memory_bytes, *needed_bytes),
            Self::NoReactors => f.write_str("at least one reactor is needed"),
            Self::Gate(error) => write!(f, "{error}"),
            Self::System(error) => write!(f, "the system refuses a thread or a descriptor: {error}"),
        }
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownDevice(device) => write!(f, "there is no device {device}"),
            Self::UnknownPath { device, path } => write!(f, "device {device} has no path {path}"),
            Self::Listen(errors) => write_all(f, errors),
            Self::Gate(error) => write!(f, "{error}"),
            Self::ReactorsChanged => f.write_str("the number of reactors can only be changed by a restart"),
            Self::Memory { memory_bytes, needed_bytes } => write_memory(f, *memory_bytes, *needed_bytes),
        }
    }
}

impl std::error::Error for ListenError {}
impl std::error::Error for StartError {}
impl std::error::Error for CommandError {}
