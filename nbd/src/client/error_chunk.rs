// SPDX-License-Identifier: MIT OR Apache-2.0
//! Error chunks of any type, and the count of them in one reply.

use alloc::string::String;

use crate::chunk::ChunkType;
use crate::client::{ChunkHeader, ReplyViolation};
use crate::errno::Errno;
use crate::limits::{ERROR_CHUNKS_MAX, STRING_MAX_BYTES};
use crate::text::printable;
use crate::wire::Reader;

/// One error chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorChunk<'a> {
    /// The error; as by [`Errno::from_wire`]; EIO for a chunk of an unknown type with number 0.
    pub errno: Errno,
    /// Where, for an error with an offset.
    pub offset: Option<u64>,
    /// The server's words as they came, at most 4096 bytes.
    pub text: &'a [u8],
}

impl<'a> ErrorChunk<'a> {
    /// The error of a simple reply, which has no words.
    pub(super) fn without_text(errno: Errno) -> Self {
        Self { errno, offset: None, text: &[] }
    }

    /// The server's words, printable and cut to [`PEER_TEXT_MAX_BYTES`](crate::limits::PEER_TEXT_MAX_BYTES).
    pub fn printable_text(&self) -> String {
        printable(self.text)
    }

    /// From the payload of an error chunk, which is all inline. Bytes behind the known fields are left for
    /// future fields.
    pub(super) fn parse(kind: ChunkType, payload: &'a [u8]) -> Result<Self, ReplyViolation> {
        let mut payload = Reader(payload);
        let error = payload.u32().ok_or(ReplyViolation::ErrorText)?;
        let text_bytes = usize::from(payload.u16().ok_or(ReplyViolation::ErrorText)?);
        let text = payload.bytes(text_bytes).ok_or(ReplyViolation::ErrorText)?;
        if text_bytes > STRING_MAX_BYTES {
            return Err(ReplyViolation::ErrorText);
        }
        let offset = match kind {
            ChunkType::ErrorOffset => Some(payload.u64().ok_or(ReplyViolation::ErrorText)?),
            _ => None,
        };
        let errno = match kind {
            ChunkType::UnknownError(_) => Errno::from_wire(error).unwrap_or(Errno::Io),
            _ => Errno::from_wire(error).ok_or(ReplyViolation::ErrorIsZero)?,
        };
        Ok(Self { errno, offset, text })
    }
}

/// What every reply in chunks has in common: its request's offset, its errors, its end.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReplyState {
    offset: u64,
    len: u64,
    errors: u32,
    first_error: Option<Errno>,
    done: bool,
}

impl ReplyState {
    pub(super) fn new(offset: u64, len: u64) -> Self {
        Self { offset, len, errors: 0, first_error: None, done: false }
    }

    /// Checks that a chunk may come now and belongs to the request.
    #[inline]
    pub(super) fn begin(&mut self, header: &ChunkHeader) -> Result<(), ReplyViolation> {
        if self.done {
            return Err(ReplyViolation::AfterDone);
        }
        if let Some(got) = header.offset.filter(|got| *got != self.offset) {
            return Err(ReplyViolation::OffsetMismatch { asked: self.offset, got });
        }
        self.done = header.done;
        Ok(())
    }

    /// Takes a simple reply, which is a whole one.
    #[inline]
    pub(super) fn simple(&mut self, result: Result<(), Errno>) -> Result<(), ReplyViolation> {
        if self.done {
            return Err(ReplyViolation::AfterDone);
        }
        self.done = true;
        self.first_error = self.first_error.or(result.err());
        Ok(())
    }

    /// Takes an error chunk.
    pub(super) fn error<'a>(
        &mut self,
        header: &ChunkHeader,
        payload: &'a [u8],
    ) -> Result<ErrorChunk<'a>, ReplyViolation> {
        let error = ErrorChunk::parse(header.kind, payload)?;
        if let Some(offset) = error.offset {
            let inside = offset.checked_sub(self.offset).is_some_and(|at| at < self.len);
            if !inside {
                return Err(ReplyViolation::OutOfRange { offset, len: 1 });
            }
        }
        self.errors += 1;
        if self.errors > ERROR_CHUNKS_MAX {
            return Err(ReplyViolation::TooManyErrors);
        }
        self.first_error.get_or_insert(error.errno);
        Ok(error)
    }

    /// After a violation: whatever the caller does, this request did not succeed.
    #[cold]
    pub(super) fn poison(&mut self, violation: ReplyViolation) -> ReplyViolation {
        self.done = true;
        self.first_error.get_or_insert(Errno::Io);
        violation
    }

    pub(super) fn has_error(&self) -> bool {
        self.first_error.is_some()
    }

    pub(super) fn is_done(&self) -> bool {
        self.done
    }

    /// How the request ended, once it has.
    #[inline]
    pub(super) fn outcome(&self) -> Option<Result<(), Errno>> {
        self.done.then(|| self.first_error.map_or(Ok(()), Err))
    }
}
