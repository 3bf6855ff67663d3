// SPDX-License-Identifier: MIT OR Apache-2.0
//! The reply to a request that has no data in its answer: WRITE, FLUSH, TRIM, CACHE, WRITE_ZEROES.

use crate::chunk::ChunkType;
use crate::client::error_chunk::ReplyState;
use crate::client::{ChunkHeader, ErrorChunk, ReplyViolation};
use crate::errno::Errno;

/// Judges one reply without data.
#[derive(Clone, Copy, Debug)]
pub struct PlainReply {
    state: ReplyState,
}

impl PlainReply {
    /// For a request of `len` bytes at `offset`, both 0 for FLUSH.
    pub fn new(offset: u64, len: u64) -> Self {
        Self { state: ReplyState::new(offset, len) }
    }

    /// Takes a simple reply, which may come where chunks were agreed too.
    ///
    /// # Errors
    ///
    /// Close the connection.
    pub fn accept_simple(&mut self, result: Result<(), Errno>) -> Result<(), ReplyViolation> {
        self.state.simple(result)
    }

    /// Takes a chunk with all of its payload, which is inline; an error chunk is given back for its text.
    ///
    /// # Errors
    ///
    /// Close the connection.
    pub fn accept<'a>(
        &mut self,
        header: &ChunkHeader,
        inline: &'a [u8],
    ) -> Result<Option<ErrorChunk<'a>>, ReplyViolation> {
        self.judge(header, inline).map_err(|violation| self.state.poison(violation))
    }

    fn judge<'a>(
        &mut self,
        header: &ChunkHeader,
        inline: &'a [u8],
    ) -> Result<Option<ErrorChunk<'a>>, ReplyViolation> {
        self.state.begin(header)?;
        match header.kind {
            ChunkType::None => Ok(None),
            kind if kind.is_error() => self.state.error(header, inline).map(Some),
            kind => Err(ReplyViolation::NotForCommand(kind)),
        }
    }

    /// How the request ended, once the last chunk was accepted: the first error, or EIO after a violation.
    pub fn outcome(&self) -> Option<Result<(), Errno>> {
        self.state.outcome()
    }
}
