// SPDX-License-Identifier: MIT OR Apache-2.0
//! One extent of a block status answer.

/// A run of bytes with one status. Extents follow one another from the offset of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Extent {
    /// Bytes, never zero on the wire.
    pub len: u64,
    /// Status; for `base:allocation` [`Extent::HOLE`] and [`Extent::ZERO`]. 64 bits only with extended
    /// headers.
    pub flags: u64,
}

impl Extent {
    /// Not allocated; a write may meet ENOSPC.
    pub const HOLE: u64 = 1 << 0;
    /// Reads as zeroes.
    pub const ZERO: u64 = 1 << 1;
}
