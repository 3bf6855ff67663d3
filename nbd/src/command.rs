// SPDX-License-Identifier: MIT OR Apache-2.0
//! Commands and command flags (protocol document, "Request types", "Command flags").

/// Request type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum Command {
    /// Read `len` bytes.
    Read = 0,
    /// Write the payload.
    Write = 1,
    /// Finish what is outstanding, then close; no reply.
    Disconnect = 2,
    /// Make every write answered before this one durable.
    Flush = 3,
    /// Discard; content undefined afterwards.
    Trim = 4,
    /// Hint to prefetch.
    Cache = 5,
    /// Make the range read as zeroes.
    WriteZeroes = 6,
    /// Report allocation of the range.
    BlockStatus = 7,
}

impl Command {
    /// From the wire; `None` for anything else, which is answered EINVAL.
    pub const fn from_wire(value: u16) -> Option<Self> {
        match value {
            0 => Some(Self::Read),
            1 => Some(Self::Write),
            2 => Some(Self::Disconnect),
            3 => Some(Self::Flush),
            4 => Some(Self::Trim),
            5 => Some(Self::Cache),
            6 => Some(Self::WriteZeroes),
            7 => Some(Self::BlockStatus),
            _ => None,
        }
    }

    /// Changes the content of the device (rule W9: the same rules for all three).
    pub const fn is_write_like(self) -> bool {
        matches!(self, Self::Write | Self::Trim | Self::WriteZeroes)
    }
}

/// Flags of one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct CommandFlags(pub u16);

impl CommandFlags {
    /// Durable before the reply.
    pub const FUA: Self = Self(1 << 0);
    /// WRITE_ZEROES must not punch a hole.
    pub const NO_HOLE: Self = Self(1 << 1);
    /// READ must come in one data chunk.
    pub const DF: Self = Self(1 << 2);
    /// BLOCK_STATUS wants one extent.
    pub const REQ_ONE: Self = Self(1 << 3);
    /// WRITE_ZEROES must be fast or fail with ENOTSUP.
    pub const FAST_ZERO: Self = Self(1 << 4);
    /// Extended headers: the length field is a payload length.
    pub const PAYLOAD_LEN: Self = Self(1 << 5);

    /// No flag.
    pub const fn empty() -> Self {
        Self(0)
    }

    /// All of `other` set here.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Without `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}
