// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reply headers: simple (16 bytes), structured chunk (20), extended chunk (32).
//!
//! Which of them may come is fixed by the dialect, and a length that its type cannot have is refused here,
//! before anybody reserves memory for it. What is inside the chunk is the business of the request's assembly.

use crate::chunk::{ChunkType, FLAG_DONE};
use crate::decoded::{Decoded, WireViolation};
use crate::errno::Errno;
use crate::limits::{ERROR_CHUNK_MAX_BYTES, EXTENTS_READ_MAX, PAYLOAD_MAX_BYTES};
use crate::mode::ReplyMode;
use crate::request::word;
use crate::wire::{EXTENDED_REPLY_MAGIC, SIMPLE_REPLY_MAGIC, STRUCTURED_REPLY_MAGIC};

/// Longest reply header, in bytes.
pub const CHUNK_HEADER_MAX: usize = 32;

const SIMPLE_BYTES: usize = 16;
const STRUCTURED_BYTES: usize = 20;
const EXTENDED_BYTES: usize = 32;

/// One reply header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyHeader {
    /// A whole reply, but for the data of a successful READ, which follows at the length of the request.
    Simple {
        /// Cookie of the request.
        cookie: u64,
        /// How it ended; numbers as by [`Errno::from_wire`].
        result: Result<(), Errno>,
    },
    /// One chunk of a reply; its payload follows.
    Chunk(ChunkHeader),
}

/// Header of a chunk whose length is possible for its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkHeader {
    /// What it is.
    pub kind: ChunkType,
    /// Last of its reply. Unknown flags are ignored, as the document demands.
    pub done: bool,
    /// Cookie of the request.
    pub cookie: u64,
    /// Offset of the request (extended headers only).
    pub offset: Option<u64>,
    /// Payload bytes that follow.
    pub len: u32,
}

impl ChunkHeader {
    /// Payload bytes at the front that the assembly of the request must see in one piece: at most
    /// [`ERROR_CHUNK_MAX_BYTES`]. The rest is data of a READ or extents.
    #[inline]
    pub fn inline_bytes(&self) -> u32 {
        match self.kind {
            ChunkType::OffsetData | ChunkType::BlockStatusExt => 8,
            ChunkType::BlockStatus => 4,
            _ => self.len,
        }
    }
}

impl ReplyHeader {
    /// Decodes a header from the front of `input`. A wrong magic number is reported as soon as its four bytes
    /// are there.
    #[inline]
    pub fn decode(input: &[u8], mode: ReplyMode) -> Decoded<Self> {
        let Some(magic) = input.first_chunk::<4>() else {
            return Decoded::NeedMore;
        };
        match (u32::from_be_bytes(*magic), mode) {
            (SIMPLE_REPLY_MAGIC, ReplyMode::Simple | ReplyMode::Structured) => {
                let Some(bytes) = input.first_chunk::<SIMPLE_BYTES>() else {
                    return Decoded::NeedMore;
                };
                let result = Errno::from_wire(word!(u32, bytes, 4)).map_or(Ok(()), Err);
                let header = Self::Simple { cookie: word!(u64, bytes, 8), result };
                Decoded::Header { header, consumed: SIMPLE_BYTES }
            }
            (STRUCTURED_REPLY_MAGIC, ReplyMode::Structured) => {
                let Some(bytes) = input.first_chunk::<STRUCTURED_BYTES>() else {
                    return Decoded::NeedMore;
                };
                Self::chunk(bytes, mode, None, u64::from(word!(u32, bytes, 16)))
            }
            (EXTENDED_REPLY_MAGIC, ReplyMode::Extended) => {
                let Some(bytes) = input.first_chunk::<EXTENDED_BYTES>() else {
                    return Decoded::NeedMore;
                };
                Self::chunk(bytes, mode, Some(word!(u64, bytes, 16)), word!(u64, bytes, 24))
            }
            (other, _) => Decoded::Violation(WireViolation::ReplyMagic(other)),
        }
    }

    #[inline]
    fn chunk<const N: usize>(
        bytes: &[u8; N],
        mode: ReplyMode,
        offset: Option<u64>,
        len: u64,
    ) -> Decoded<Self> {
        let wire_kind = word!(u16, bytes, 6);
        let done = word!(u16, bytes, 4) & FLAG_DONE != 0;
        let Some(kind) = ChunkType::from_wire(wire_kind).filter(|kind| is_in_mode(*kind, mode)) else {
            return Decoded::Violation(WireViolation::ChunkType(wire_kind));
        };
        if !is_possible_length(kind, len) {
            return Decoded::Violation(WireViolation::ChunkLength { kind: wire_kind, len });
        }
        if kind == ChunkType::None && !done {
            return Decoded::Violation(WireViolation::NoneNotDone);
        }
        // Every possible length is far below 2^32.
        let header = ChunkHeader { kind, done, cookie: word!(u64, bytes, 8), offset, len: len as u32 };
        Decoded::Header { header: Self::Chunk(header), consumed: N }
    }
}

/// Extents have 32 bits in one dialect and 64 in the other, never mixed.
fn is_in_mode(kind: ChunkType, mode: ReplyMode) -> bool {
    match kind {
        ChunkType::BlockStatus => !mode.is_extended(),
        ChunkType::BlockStatusExt => mode.is_extended(),
        _ => true,
    }
}

fn is_possible_length(kind: ChunkType, len: u64) -> bool {
    match kind {
        ChunkType::None => len == 0,
        ChunkType::OffsetData => (9..=8 + u64::from(PAYLOAD_MAX_BYTES)).contains(&len),
        ChunkType::OffsetHole => len == 12,
        ChunkType::BlockStatus => is_list(len, 4, 8),
        ChunkType::BlockStatusExt => is_list(len, 8, 16),
        ChunkType::Error | ChunkType::UnknownError(_) => (6..=ERROR_CHUNK_MAX_BYTES).contains(&len),
        ChunkType::ErrorOffset => (14..=ERROR_CHUNK_MAX_BYTES).contains(&len),
    }
}

/// A fixed part and at least one, at most 2^20 descriptors.
fn is_list(len: u64, fixed_bytes: u64, each_bytes: u64) -> bool {
    match len.checked_sub(fixed_bytes) {
        Some(list) => list > 0 && list.is_multiple_of(each_bytes) && list / each_bytes <= EXTENTS_READ_MAX,
        None => false,
    }
}
