// SPDX-License-Identifier: MIT OR Apache-2.0
//! How requests and replies look on one connection: the three dialects of the transmission phase.
//!
//! One value instead of two booleans, because extended headers supersede structured replies and the fourth
//! combination does not exist.

/// Dialect of the transmission phase, fixed by the handshake.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ReplyMode {
    /// 28-byte requests, 16-byte replies.
    #[default]
    Simple,
    /// 28-byte requests; READ and BLOCK_STATUS are answered in chunks with 20-byte headers, the rest either
    /// way.
    Structured,
    /// 32-byte requests; every reply is a chunk with a 32-byte header.
    Extended,
}

impl ReplyMode {
    /// Replies may come in chunks (errors can carry a text, DF and BLOCK_STATUS exist).
    pub const fn has_chunks(self) -> bool {
        !matches!(self, Self::Simple)
    }

    /// 32-byte headers with 64-bit lengths.
    pub const fn is_extended(self) -> bool {
        matches!(self, Self::Extended)
    }

    /// Bytes of a request header: 28 or 32.
    pub const fn request_header_bytes(self) -> usize {
        if self.is_extended() { 32 } else { 28 }
    }
}

/// The option that ended a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EnteredBy {
    /// EXPORT_NAME: the old way, without errors and without block sizes.
    ExportName,
    /// GO.
    Go,
}
