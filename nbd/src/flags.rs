// SPDX-License-Identifier: MIT OR Apache-2.0
//! Transmission flags of an export (protocol document, "Transmission flags").

use crate::mode::ReplyMode;

/// What an export can do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TransmissionFlags(pub u16);

impl TransmissionFlags {
    /// Always set.
    pub const HAS_FLAGS: Self = Self(1 << 0);
    /// Writes are refused with EPERM.
    pub const READ_ONLY: Self = Self(1 << 1);
    /// FLUSH works.
    pub const SEND_FLUSH: Self = Self(1 << 2);
    /// FUA works.
    pub const SEND_FUA: Self = Self(1 << 3);
    /// A hint.
    pub const ROTATIONAL: Self = Self(1 << 4);
    /// TRIM works.
    pub const SEND_TRIM: Self = Self(1 << 5);
    /// WRITE_ZEROES and NO_HOLE work.
    pub const SEND_WRITE_ZEROES: Self = Self(1 << 6);
    /// DF works; structured replies only.
    pub const SEND_DF: Self = Self(1 << 7);
    /// All connections share one cache.
    pub const CAN_MULTI_CONN: Self = Self(1 << 8);
    /// CACHE works.
    pub const SEND_CACHE: Self = Self(1 << 10);
    /// FAST_ZERO works.
    pub const SEND_FAST_ZERO: Self = Self(1 << 11);

    /// Only the flags above, and of those only what a session of this dialect can have: SEND_DF needs chunks,
    /// SEND_FAST_ZERO needs SEND_WRITE_ZEROES. The other bits are experiments we take no part in (RESIZE,
    /// BLOCK_STATUS_PAYLOAD) or undefined.
    #[must_use]
    pub const fn lawful(self, mode: ReplyMode) -> Self {
        let mut flags = Self(self.0 & 0b1101_1111_1111);
        if !mode.has_chunks() {
            flags = flags.without(Self::SEND_DF);
        }
        if !flags.contains(Self::SEND_WRITE_ZEROES) {
            flags = flags.without(Self::SEND_FAST_ZERO);
        }
        flags
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
