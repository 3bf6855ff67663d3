// SPDX-License-Identifier: MIT OR Apache-2.0
//! The reply to one READ: which bytes came, and whether the whole is lawful.
//!
//! Rule: content chunks lie inside the request, never touch a byte twice, never touch a byte that an error
//! was reported for, and cover everything when the reply ends without error. A content chunk after an error
//! chunk is allowed by the protocol document ("MAY send additional content chunks even after reporting an
//! error chunk") and changes nothing: the request has failed.
//!
//! Model: a set of covered ranges. Servers answer in one chunk or in order, where one range is enough, so
//! that one lives in the struct and nothing is allocated; only pieces out of order go to a list, which is
//! bounded.

use alloc::vec::Vec;

use crate::chunk::ChunkType;
use crate::client::error_chunk::ReplyState;
use crate::client::{ChunkHeader, ErrorChunk, ReplyViolation};
use crate::errno::Errno;
use crate::limits::READ_PIECES_MAX;
use crate::mode::ReplyMode;
use crate::wire::Reader;

/// Judges the reply to one READ.
#[derive(Clone, Debug)]
pub struct ReadAssembly {
    state: ReplyState,
    offset: u64,
    len: u32,
    dont_fragment: bool,
    /// Covered from here to `covered_to`, positions in the request; equal while nothing is.
    covered_from: u32,
    covered_to: u32,
    /// Bytes covered in all.
    covered_bytes: u32,
    /// Covered apart from the range above, in order, not touching one another or it.
    apart: Vec<(u32, u32)>,
    /// Positions that errors were reported for.
    errors_at: Vec<u32>,
}

/// What a chunk means for the buffer of the request. Positions count from the start of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadPiece<'a> {
    /// The next `len` bytes of the stream belong at `at`.
    Data {
        /// Position in the buffer.
        at: u32,
        /// Bytes.
        len: u32,
    },
    /// `len` bytes at `at` are zero; nothing more is on the wire.
    Zeroes {
        /// Position in the buffer.
        at: u32,
        /// Bytes.
        len: u32,
    },
    /// The request has failed.
    Error(ErrorChunk<'a>),
    /// Nothing but the end.
    End,
}

impl ReadAssembly {
    /// For a READ of `len` bytes at `offset`; `dont_fragment` when it carried DF.
    pub fn new(offset: u64, len: u32, dont_fragment: bool) -> Self {
        Self {
            state: ReplyState::new(offset, u64::from(len)),
            offset,
            len,
            dont_fragment,
            covered_from: 0,
            covered_to: 0,
            covered_bytes: 0,
            apart: Vec::new(),
            errors_at: Vec::new(),
        }
    }

    /// Takes a simple reply: all data or an error. It is lawful only where no chunks were agreed.
    ///
    /// # Errors
    ///
    /// Close the connection.
    #[inline]
    pub fn accept_simple(
        &mut self,
        mode: ReplyMode,
        result: Result<(), Errno>,
    ) -> Result<ReadPiece<'static>, ReplyViolation> {
        if mode.has_chunks() {
            return Err(self.state.poison(ReplyViolation::SimpleReply));
        }
        self.state.simple(result)?;
        Ok(match result {
            Ok(()) => ReadPiece::Data { at: 0, len: self.len },
            Err(errno) => ReadPiece::Error(ErrorChunk::without_text(errno)),
        })
    }

    /// Takes a chunk and its inline payload ([`ChunkHeader::inline_bytes`]).
    ///
    /// # Errors
    ///
    /// Close the connection; nothing that came for this request may be used.
    #[inline]
    pub fn accept<'a>(
        &mut self,
        header: &ChunkHeader,
        inline: &'a [u8],
    ) -> Result<ReadPiece<'a>, ReplyViolation> {
        self.judge(header, inline).map_err(|violation| self.state.poison(violation))
    }

    #[inline]
    fn judge<'a>(&mut self, header: &ChunkHeader, inline: &'a [u8]) -> Result<ReadPiece<'a>, ReplyViolation> {
        self.state.begin(header)?;
        let mut fields = Reader(inline);
        let piece = match header.kind {
            ChunkType::None => ReadPiece::End,
            ChunkType::OffsetData => {
                let offset = fields.u64().unwrap_or(u64::MAX);
                let (at, len) = self.cover(offset, header.len - 8)?;
                ReadPiece::Data { at, len }
            }
            ChunkType::OffsetHole => {
                let offset = fields.u64().unwrap_or(u64::MAX);
                let hole_bytes = fields.u32().unwrap_or(0);
                if hole_bytes == 0 {
                    return Err(ReplyViolation::EmptyHole);
                }
                let (at, len) = self.cover(offset, hole_bytes)?;
                ReadPiece::Zeroes { at, len }
            }
            ChunkType::BlockStatus | ChunkType::BlockStatusExt => {
                return Err(ReplyViolation::NotForCommand(header.kind));
            }
            _ => ReadPiece::Error(self.error(header, inline)?),
        };
        let missing = u64::from(self.len - self.covered_bytes);
        if self.state.is_done() && !self.state.has_error() && missing > 0 {
            return Err(ReplyViolation::Incomplete { missing });
        }
        Ok(piece)
    }

    /// How the request ended, once the last chunk was accepted: the first error, or EIO after a violation.
    /// The data of the last chunk may still have to arrive.
    #[inline]
    pub fn outcome(&self) -> Option<Result<(), Errno>> {
        self.state.outcome()
    }

    fn error<'a>(
        &mut self,
        header: &ChunkHeader,
        inline: &'a [u8],
    ) -> Result<ErrorChunk<'a>, ReplyViolation> {
        let error = self.state.error(header, inline)?;
        // `ReplyState` bounds both the offset and the number of these.
        self.errors_at.extend(error.offset.map(|offset| (offset - self.offset) as u32));
        Ok(error)
    }

    /// Adds a content chunk; its position and length in the buffer.
    #[inline]
    fn cover(&mut self, offset: u64, len: u32) -> Result<(u32, u32), ReplyViolation> {
        let out_of_range = ReplyViolation::OutOfRange { offset, len: u64::from(len) };
        let at =
            offset.checked_sub(self.offset).filter(|at| *at < u64::from(self.len)).ok_or(out_of_range)?;
        let from = at as u32;
        if len > self.len - from {
            return Err(out_of_range);
        }
        let to = from + len;
        if self.dont_fragment && self.covered_bytes > 0 {
            return Err(ReplyViolation::Fragmented);
        }
        let overlap = ReplyViolation::Overlap { offset, len: u64::from(len) };
        if self.errors_at.iter().any(|at| (from..to).contains(at)) {
            return Err(overlap);
        }
        if self.covered_bytes == 0 {
            (self.covered_from, self.covered_to) = (from, to);
        } else {
            self.cover_more(from, to).ok_or(overlap)?;
            if self.apart.len() >= READ_PIECES_MAX {
                return Err(ReplyViolation::TooManyPieces);
            }
        }
        self.covered_bytes += len;
        Ok((from, len))
    }

    /// Adds a further range; `None` when it touches a byte again. The main range grows where it can, and
    /// swallows what it meets.
    fn cover_more(&mut self, from: u32, to: u32) -> Option<()> {
        let next = self.apart.partition_point(|(start, _)| *start < from);
        let clear_of = |range: &(u32, u32)| to <= range.0 || range.1 <= from;
        let neighbours =
            self.apart.get(next).into_iter().chain(next.checked_sub(1).map(|at| &self.apart[at]));
        if !clear_of(&(self.covered_from, self.covered_to)) || !neighbours.into_iter().all(clear_of) {
            return None;
        }
        if from == self.covered_to {
            self.covered_to = to;
        } else if to == self.covered_from {
            self.covered_from = from;
        } else {
            self.insert_apart(next, from, to);
        }
        self.swallow_neighbours();
        Some(())
    }

    /// Keeps the list free of ranges that touch: joins the new one to its neighbours where they meet.
    fn insert_apart(&mut self, next: usize, from: u32, to: u32) {
        let joins_next = self.apart.get(next).is_some_and(|range| range.0 == to);
        let joins_before = next > 0 && self.apart[next - 1].1 == from;
        match (joins_before, joins_next) {
            (true, true) => {
                self.apart[next - 1].1 = self.apart[next].1;
                self.apart.remove(next);
            }
            (true, false) => self.apart[next - 1].1 = to,
            (false, true) => self.apart[next].0 = from,
            (false, false) => self.apart.insert(next, (from, to)),
        }
    }

    fn swallow_neighbours(&mut self) {
        let next = self.apart.partition_point(|(start, _)| *start < self.covered_to);
        if let Some(range) = self.apart.get(next).copied().filter(|range| range.0 == self.covered_to) {
            self.covered_to = range.1;
            self.apart.remove(next);
        }
        let next = self.apart.partition_point(|(start, _)| *start < self.covered_from);
        if let Some(before) = next.checked_sub(1)
            && self.apart[before].1 == self.covered_from
        {
            self.covered_from = self.apart[before].0;
            self.apart.remove(before);
        }
    }
}
