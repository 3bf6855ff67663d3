// SPDX-License-Identifier: MIT OR Apache-2.0
//! How the reply to one request can be unlawful. Each of these ends the connection.

use core::fmt;

use crate::chunk::ChunkType;

/// A server broke the protocol in the reply to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReplyViolation {
    /// A simple reply to a READ where chunks were agreed, or a successful one to a BLOCK_STATUS.
    SimpleReply,
    /// A chunk that this command does not have.
    NotForCommand(ChunkType),
    /// A chunk after the one with DONE.
    AfterDone,
    /// An extended chunk whose offset is not that of the request.
    OffsetMismatch {
        /// Offset of the request.
        asked: u64,
        /// Offset of the chunk.
        got: u64,
    },
    /// Data, a hole or an error outside the request.
    OutOfRange {
        /// First byte.
        offset: u64,
        /// Length in bytes.
        len: u64,
    },
    /// Data or a hole over what an earlier chunk described.
    Overlap {
        /// First byte.
        offset: u64,
        /// Length in bytes.
        len: u64,
    },
    /// DONE without error, but not everything was described.
    Incomplete {
        /// Bytes that are missing.
        missing: u64,
    },
    /// More separate pieces than [`READ_PIECES_MAX`](crate::limits::READ_PIECES_MAX).
    TooManyPieces,
    /// A second content chunk although DF was set.
    Fragmented,
    /// An empty hole.
    EmptyHole,
    /// An error chunk with error 0, which must not be.
    ErrorIsZero,
    /// An error text longer than its chunk or than 4096 bytes.
    ErrorText,
    /// More error chunks than [`ERROR_CHUNKS_MAX`](crate::limits::ERROR_CHUNKS_MAX).
    TooManyErrors,
    /// A status chunk for a context that was not selected.
    UnknownContext(u32),
    /// A second status chunk for one context.
    RepeatedContext(u32),
    /// A descriptor count that does not fit the length of the chunk.
    DescriptorCount(u32),
    /// An extent of length 0.
    EmptyExtent,
    /// More extents than the request allows: several with REQ_ONE, or one that begins at or behind the end of
    /// the request.
    ExtentsPastEnd,
}

impl fmt::Display for ReplyViolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SimpleReply => f.write_str("simple reply where a chunk is due"),
            Self::NotForCommand(kind) => write!(f, "{kind:?} chunk to a command that has none"),
            Self::AfterDone => f.write_str("chunk after the last"),
            Self::OffsetMismatch { asked, got } => write!(f, "reply for offset {got}, but {asked} was asked"),
            Self::OutOfRange { offset, len } => write!(f, "chunk {offset}+{len} outside the request"),
            Self::Overlap { offset, len } => write!(f, "chunk {offset}+{len} over an earlier one"),
            Self::Incomplete { missing } => write!(f, "reply ends with {missing} bytes missing"),
            Self::TooManyPieces => f.write_str("reply in too many pieces"),
            Self::Fragmented => f.write_str("several content chunks in spite of DF"),
            Self::EmptyHole => f.write_str("hole of length 0"),
            Self::ErrorIsZero => f.write_str("error chunk with error 0"),
            Self::ErrorText => f.write_str("error text longer than its chunk"),
            Self::TooManyErrors => f.write_str("too many error chunks"),
            Self::UnknownContext(id) => write!(f, "status of a context that was not selected ({id})"),
            Self::RepeatedContext(id) => write!(f, "second status of context {id}"),
            Self::DescriptorCount(count) => write!(f, "descriptor count {count} does not fit the chunk"),
            Self::EmptyExtent => f.write_str("extent of length 0"),
            Self::ExtentsPastEnd => f.write_str("extents behind the end of the request"),
        }
    }
}

impl core::error::Error for ReplyViolation {}
