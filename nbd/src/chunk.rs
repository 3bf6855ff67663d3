// SPDX-License-Identifier: MIT OR Apache-2.0
//! Types of reply chunks (protocol document, "Structured reply types").

/// Last chunk of a reply.
pub(crate) const FLAG_DONE: u16 = 1 << 0;

/// Type of a reply chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChunkType {
    /// End of the reply, no payload.
    None,
    /// An offset, then data.
    OffsetData,
    /// An offset and a length that read as zeroes.
    OffsetHole,
    /// Extents of 32 bits (structured replies).
    BlockStatus,
    /// Extents of 64 bits (extended headers).
    BlockStatusExt,
    /// An error.
    Error,
    /// An error at an offset.
    ErrorOffset,
    /// A type we do not know with bit 15 set: the reply is an error, the connection goes on.
    UnknownError(u16),
}

impl ChunkType {
    /// Type on the wire.
    pub const fn to_wire(self) -> u16 {
        match self {
            Self::None => 0,
            Self::OffsetData => 1,
            Self::OffsetHole => 2,
            Self::BlockStatus => 5,
            Self::BlockStatusExt => 6,
            Self::Error => 0x8001,
            Self::ErrorOffset => 0x8002,
            Self::UnknownError(kind) => kind,
        }
    }

    /// From the wire; `None` for a type that is neither known nor an error, which ends the connection.
    pub const fn from_wire(value: u16) -> Option<Self> {
        Some(match value {
            0 => Self::None,
            1 => Self::OffsetData,
            2 => Self::OffsetHole,
            5 => Self::BlockStatus,
            6 => Self::BlockStatusExt,
            0x8001 => Self::Error,
            0x8002 => Self::ErrorOffset,
            kind if kind & 0x8000 != 0 => Self::UnknownError(kind),
            _ => return None,
        })
    }

    /// One of the error chunks.
    pub const fn is_error(self) -> bool {
        self.to_wire() & 0x8000 != 0
    }
}
