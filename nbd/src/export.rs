// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an export can take: its name and its size constraints.

use crate::limits::{BLOCK_MIN_MAX_BYTES, PAYLOAD_MAX_BYTES, STRING_MAX_BYTES};

/// A string as the protocol document wants export names, descriptions and contexts: at most 4096 bytes of
/// UTF-8, no NUL.
pub fn is_valid_name(name: &str) -> bool {
    name.len() <= STRING_MAX_BYTES && !name.as_bytes().contains(&0)
}

/// Size constraints of an export (protocol document, "Size constraints"), all in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BlockSizes {
    /// Alignment and granularity of every request: a power of two, 1 to 64 KiB.
    pub min_bytes: u32,
    /// Size from which requests are efficient: a power of two, at least 512 and at least the minimum.
    pub preferred_bytes: u32,
    /// Largest payload of one request, at least the preferred size.
    pub max_bytes: u32,
}

impl BlockSizes {
    /// What holds where nothing was negotiated: 1, 4 KiB, 32 MiB.
    pub const DEFAULT: Self = Self { min_bytes: 1, preferred_bytes: 4096, max_bytes: PAYLOAD_MAX_BYTES };

    /// Whether the three obey the protocol document; qemu's client refuses an export that does not.
    pub const fn is_valid(&self) -> bool {
        self.min_bytes.is_power_of_two()
            && self.min_bytes <= BLOCK_MIN_MAX_BYTES
            && self.preferred_bytes.is_power_of_two()
            && self.preferred_bytes >= 512
            && self.preferred_bytes >= self.min_bytes
            && self.max_bytes >= self.preferred_bytes
    }

    /// What a client that did not ask may assume, so it need not be told.
    pub(crate) const fn is_within_defaults(&self) -> bool {
        self.min_bytes == 1 && self.max_bytes >= PAYLOAD_MAX_BYTES
    }

    /// What the client role makes of a server's numbers: the minimum is law, so a senseless one gives `None`,
    /// and so does a payload smaller than any preferred size may be; the rest is put right, and the payload
    /// is never more than [`PAYLOAD_MAX_BYTES`] nor a broken multiple of the minimum.
    pub(crate) fn sanitised(min_bytes: u32, preferred_bytes: u32, max_bytes: u32) -> Option<Self> {
        let floor = min_bytes.max(512);
        if !min_bytes.is_power_of_two() || min_bytes > BLOCK_MIN_MAX_BYTES || max_bytes < floor {
            return None;
        }
        let max_bytes = max_bytes.min(PAYLOAD_MAX_BYTES) & !(min_bytes - 1);
        let wanted =
            if preferred_bytes.is_power_of_two() { preferred_bytes } else { Self::DEFAULT.preferred_bytes };
        let preferred_bytes = wanted.max(floor).min(1 << max_bytes.ilog2());
        Some(Self { min_bytes, preferred_bytes, max_bytes })
    }
}

impl Default for BlockSizes {
    fn default() -> Self {
        Self::DEFAULT
    }
}
