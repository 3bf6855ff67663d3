// SPDX-License-Identifier: MIT OR Apache-2.0
//! What came of looking for a header at the front of a buffer.

use core::fmt;

/// Result of decoding one header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoded<T> {
    /// The bytes so far could begin a header; more are needed.
    NeedMore,
    /// A header and the bytes it took from the front.
    Header {
        /// The header.
        header: T,
        /// Its length on the wire, in bytes.
        consumed: usize,
    },
    /// The peer broke the protocol: there is no way to find the next header, so the connection must be
    /// closed.
    Violation(WireViolation),
}

/// Why a connection can only be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WireViolation {
    /// The first word is not that of a request.
    RequestMagic(u32),
    /// The first word is not that of a reply allowed in this mode.
    ReplyMagic(u32),
    /// A chunk whose length does not fit its type, or is beyond its limit.
    ChunkLength {
        /// Type on the wire.
        kind: u16,
        /// Length on the wire, in bytes.
        len: u64,
    },
    /// A chunk type that is neither known nor an error, or not allowed in this mode.
    ChunkType(u16),
    /// A NONE chunk without the DONE flag.
    NoneNotDone,
}

impl fmt::Display for WireViolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RequestMagic(got) => write!(f, "bad request magic {got:#010x}"),
            Self::ReplyMagic(got) => write!(f, "bad reply magic {got:#010x}"),
            Self::ChunkLength { kind, len } => write!(f, "reply chunk of type {kind:#06x} with length {len}"),
            Self::ChunkType(kind) => write!(f, "reply chunk of unknown type {kind:#06x}"),
            Self::NoneNotDone => f.write_str("reply chunk NONE without the DONE flag"),
        }
    }
}

impl core::error::Error for WireViolation {}
