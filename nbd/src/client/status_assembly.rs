// SPDX-License-Identifier: MIT OR Apache-2.0
//! The reply to one BLOCK_STATUS: extents of the one context that the client role selects.
//!
//! A lawful chunk may hold 2^20 descriptors (16 MiB), so they are read as they come and only the first
//! [`EXTENTS_KEPT_MAX`] are kept: an answer may always stop short of the request, so a shorter one is as
//! good.

use alloc::vec::Vec;

use crate::chunk::ChunkType;
use crate::client::error_chunk::ReplyState;
use crate::client::{ChunkHeader, ErrorChunk, ReplyViolation};
use crate::errno::Errno;
use crate::extent::Extent;
use crate::limits::EXTENTS_KEPT_MAX;
use crate::wire::Reader;

/// Judges the chunks of the reply to one BLOCK_STATUS.
#[derive(Clone, Debug)]
pub struct StatusAssembly {
    state: ReplyState,
    len: u64,
    one_extent: bool,
    context_id: u32,
    has_status: bool,
    /// Bytes of descriptors that are still to come.
    left_bytes: u32,
    descriptor_bytes: usize,
    /// The front of a descriptor that was cut by the end of a piece.
    carry: [u8; 16],
    carry_bytes: usize,
    /// Bytes of the export that the extents so far describe.
    described: u64,
    extents: Vec<Extent>,
}

impl StatusAssembly {
    /// For a BLOCK_STATUS of `len` bytes at `offset` where `context_id` is selected; `one_extent` when it
    /// carried REQ_ONE.
    pub fn new(offset: u64, len: u64, one_extent: bool, context_id: u32) -> Self {
        Self {
            state: ReplyState::new(offset, len),
            len,
            one_extent,
            context_id,
            has_status: false,
            left_bytes: 0,
            descriptor_bytes: 8,
            carry: [0; 16],
            carry_bytes: 0,
            described: 0,
            extents: Vec::new(),
        }
    }

    /// Takes a simple reply, which can only be an error.
    ///
    /// # Errors
    ///
    /// Close the connection.
    pub fn accept_simple(&mut self, result: Result<(), Errno>) -> Result<(), ReplyViolation> {
        if result.is_ok() {
            return Err(self.state.poison(ReplyViolation::SimpleReply));
        }
        self.state.simple(result)
    }

    /// Takes a chunk and its inline payload. The rest of a status chunk, [`left_bytes`](Self::left_bytes),
    /// must go through [`feed`](Self::feed).
    ///
    /// # Errors
    ///
    /// Close the connection.
    ///
    /// # Panics
    ///
    /// When the descriptors of the last chunk were not all fed.
    pub fn accept<'a>(
        &mut self,
        header: &ChunkHeader,
        inline: &'a [u8],
    ) -> Result<Option<ErrorChunk<'a>>, ReplyViolation> {
        assert_eq!(self.left_bytes, 0, "the last status chunk was not fed");
        self.judge(header, inline).map_err(|violation| self.state.poison(violation))
    }

    fn judge<'a>(
        &mut self,
        header: &ChunkHeader,
        inline: &'a [u8],
    ) -> Result<Option<ErrorChunk<'a>>, ReplyViolation> {
        self.state.begin(header)?;
        let error = match header.kind {
            ChunkType::None => None,
            ChunkType::BlockStatus | ChunkType::BlockStatusExt => {
                self.begin_list(header, inline)?;
                None
            }
            kind if kind.is_error() => Some(self.state.error(header, inline)?),
            kind => return Err(ReplyViolation::NotForCommand(kind)),
        };
        if self.state.is_done() && !self.state.has_error() && !self.has_status {
            return Err(ReplyViolation::Incomplete { missing: self.len });
        }
        Ok(error)
    }

    /// Bytes of descriptors that are still to come.
    pub fn left_bytes(&self) -> u32 {
        self.left_bytes
    }

    /// Takes descriptors in pieces of any size, at most [`left_bytes`](Self::left_bytes) in all.
    ///
    /// # Errors
    ///
    /// Close the connection.
    pub fn feed(&mut self, mut bytes: &[u8]) -> Result<(), ReplyViolation> {
        assert!(bytes.len() <= self.left_bytes as usize, "more descriptors than the chunk has");
        self.left_bytes -= bytes.len() as u32;
        while !bytes.is_empty() {
            let taken = bytes.len().min(self.descriptor_bytes - self.carry_bytes);
            self.carry[self.carry_bytes..self.carry_bytes + taken].copy_from_slice(&bytes[..taken]);
            self.carry_bytes += taken;
            bytes = &bytes[taken..];
            if self.carry_bytes == self.descriptor_bytes {
                self.carry_bytes = 0;
                self.descriptor().map_err(|violation| self.state.poison(violation))?;
            }
        }
        Ok(())
    }

    /// How the request ended, once the last chunk was accepted and fed: the first error, or EIO after a
    /// violation. The extents follow one another from the offset of the request, cover at least one byte and
    /// nothing behind its end, and carry only the flags of `base:allocation`.
    pub fn outcome(&self) -> Option<Result<&[Extent], Errno>> {
        if self.left_bytes > 0 {
            return None;
        }
        self.state.outcome().map(|result| result.map(|()| self.extents.as_slice()))
    }

    fn begin_list(&mut self, header: &ChunkHeader, inline: &[u8]) -> Result<(), ReplyViolation> {
        let mut fields = Reader(inline);
        let id = fields.u32().unwrap_or(0);
        if id != self.context_id {
            return Err(ReplyViolation::UnknownContext(id));
        }
        if self.has_status {
            return Err(ReplyViolation::RepeatedContext(id));
        }
        self.has_status = true;
        self.left_bytes = header.len - header.inline_bytes();
        if header.kind == ChunkType::BlockStatusExt {
            self.descriptor_bytes = 16;
            let count = fields.u32().unwrap_or(0);
            if u64::from(count) * 16 != u64::from(self.left_bytes) {
                return Err(ReplyViolation::DescriptorCount(count));
            }
        }
        Ok(())
    }

    /// One whole descriptor is in `carry`.
    fn descriptor(&mut self) -> Result<(), ReplyViolation> {
        let mut fields = Reader(&self.carry[..self.descriptor_bytes]);
        let mut field = || {
            let value = if self.descriptor_bytes == 16 { fields.u64() } else { fields.u32().map(u64::from) };
            value.unwrap_or(0)
        };
        let (len, flags) = (field(), field());
        if len == 0 {
            return Err(ReplyViolation::EmptyExtent);
        }
        let too_many = self.one_extent && (self.described > 0 || len > self.len);
        if too_many || self.described >= self.len {
            return Err(ReplyViolation::ExtentsPastEnd);
        }
        let len = len.min(self.len - self.described);
        self.described += len;
        if self.extents.len() < EXTENTS_KEPT_MAX {
            self.extents.push(Extent { len, flags: flags & (Extent::HOLE | Extent::ZERO) });
        }
        Ok(())
    }
}
