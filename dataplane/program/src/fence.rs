// SPDX-License-Identifier: MIT OR Apache-2.0
//! The gate: what a storage end enforces, and the key both ends share (semantics 2.4).

use alloc::string::String;
use core::fmt;

use crate::{Nanos, Writers};

/// The fence in front of a device; the device is then a gate's export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FenceProgram {
    /// Where epochs and floors of the volume are kept.
    pub register: RegisterPlace,
    /// One writing member at a time, or several with floors of their own.
    pub writers: Writers,
    /// A host without a claim may write. Default: it may only read.
    pub allow_unfenced: bool,
    /// When what was written and not flushed may be lost.
    pub cache: CacheLife,
    /// How long a claim waits for the sessions it ends; then it is refused.
    pub drain_max: Nanos,
    /// A claimed session that sends nothing for this long is ended; 0: never.
    pub idle_limit: Nanos,
}

/// Where the register of a volume is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegisterPlace {
    /// A file that every gate process of the volume on this host uses. The storage is this kernel's own: when a
    /// gate process has ended, what it had in execution is over.
    Shared(String),
    /// A file that one gate process uses at a time: the storage is another server, which may go on with what a
    /// dead gate process had sent it.
    Exclusive(String),
    /// Memory of this process: the volume ends with it too.
    Memory,
}

/// How long what was written and not flushed lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheLife {
    /// As long as this kernel runs: files and block devices.
    Boot,
    /// Known only as long as this process runs: memory, other servers.
    Process,
}

/// The key that gates and their clients share: 256 bits.
#[derive(Clone, PartialEq, Eq)]
pub struct GateKey(pub [u8; 32]);

impl fmt::Debug for GateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GateKey(..)")
    }
}
