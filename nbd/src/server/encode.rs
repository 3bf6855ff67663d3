// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reply headers, written in front of data that stays where it is.
//!
//! A READ is always answered in one data chunk that carries DONE, so the driver sends two pieces: the header
//! from here, and the buffer. That is only right because the data is complete before the reply begins (a
//! chunk must not be DONE while reading it can still fail). Replies without data use the simple form also
//! where chunks were agreed: it is allowed, shorter, and every client knows it. Errors use an error chunk
//! there, so that they can carry a text; for READ the document demands it.
//!
//! Extended chunks repeat the offset of the request, so every function takes it.

use alloc::vec::Vec;

use crate::chunk::{ChunkType, FLAG_DONE};
use crate::errno::Errno;
use crate::limits::STRING_MAX_BYTES;
use crate::mode::ReplyMode;
use crate::text::cut;
use crate::wire::{EXTENDED_REPLY_MAGIC, SIMPLE_REPLY_MAGIC, STRUCTURED_REPLY_MAGIC};

/// Longest reply header, in bytes: an extended chunk header and the offset of its data.
pub const REPLY_HEADER_MAX: usize = 40;

/// Writes reply headers of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyEncoder {
    /// Dialect of the session.
    pub mode: ReplyMode,
    /// Cookie of the request.
    pub cookie: u64,
    /// Offset of the request.
    pub offset: u64,
}

/// Fills an array from the front.
struct Front<'a> {
    out: &'a mut [u8; REPLY_HEADER_MAX],
    at: usize,
}

impl Front<'_> {
    #[inline]
    fn put<const N: usize>(&mut self, bytes: [u8; N]) {
        self.out[self.at..self.at + N].copy_from_slice(&bytes);
        self.at += N;
    }
}

impl ReplyEncoder {
    /// For a request of a session.
    pub const fn new(mode: ReplyMode, cookie: u64, offset: u64) -> Self {
        Self { mode, cookie, offset }
    }

    /// Header of a successful READ of `len_bytes`; the data follows it on the wire. 16, 28 or 40 bytes.
    #[inline]
    pub fn read_ok(&self, len_bytes: u32, out: &mut [u8; REPLY_HEADER_MAX]) -> usize {
        let mut front = Front { out, at: 0 };
        if self.mode == ReplyMode::Simple {
            self.simple(&mut front, 0);
        } else {
            self.chunk(&mut front, ChunkType::OffsetData, FLAG_DONE, 8 + u64::from(len_bytes));
            front.put(self.offset.to_be_bytes());
        }
        front.at
    }

    /// The whole reply of a request that succeeded and has no data. 16 bytes, or 32 with extended headers.
    #[inline]
    pub fn done(&self, out: &mut [u8; REPLY_HEADER_MAX]) -> usize {
        let mut front = Front { out, at: 0 };
        if self.mode.is_extended() {
            self.chunk(&mut front, ChunkType::None, FLAG_DONE, 0);
        } else {
            self.simple(&mut front, 0);
        }
        front.at
    }

    /// The whole reply of a request that failed, without a text. 16, 26 or 38 bytes.
    #[inline]
    pub fn error(&self, errno: Errno, out: &mut [u8; REPLY_HEADER_MAX]) -> usize {
        self.error_header(errno, 0, out)
    }

    /// As [`error`](Self::error), with a text for people where the dialect can carry one, cut to 4096 bytes;
    /// appended to `out`.
    pub fn error_with_text(&self, errno: Errno, text: &str, out: &mut Vec<u8>) {
        let text = if self.mode.has_chunks() { cut(text, STRING_MAX_BYTES) } else { "" };
        let mut header = [0; REPLY_HEADER_MAX];
        let header_bytes = self.error_header(errno, text.len() as u16, &mut header);
        out.extend_from_slice(&header[..header_bytes]);
        out.extend_from_slice(text.as_bytes());
    }

    #[inline]
    fn error_header(&self, errno: Errno, text_bytes: u16, out: &mut [u8; REPLY_HEADER_MAX]) -> usize {
        let mut front = Front { out, at: 0 };
        if self.mode == ReplyMode::Simple {
            self.simple(&mut front, errno.to_wire());
        } else {
            self.chunk(&mut front, ChunkType::Error, FLAG_DONE, 6 + u64::from(text_bytes));
            front.put(errno.to_wire().to_be_bytes());
            front.put(text_bytes.to_be_bytes());
        }
        front.at
    }

    /// Header of a status chunk with `payload_bytes` behind it.
    pub(super) fn status_header(
        &self,
        last: bool,
        payload_bytes: u64,
        out: &mut [u8; REPLY_HEADER_MAX],
    ) -> usize {
        let mut front = Front { out, at: 0 };
        let kind = if self.mode.is_extended() { ChunkType::BlockStatusExt } else { ChunkType::BlockStatus };
        self.chunk(&mut front, kind, if last { FLAG_DONE } else { 0 }, payload_bytes);
        front.at
    }

    #[inline]
    fn simple(&self, front: &mut Front<'_>, error: u32) {
        front.put(SIMPLE_REPLY_MAGIC.to_be_bytes());
        front.put(error.to_be_bytes());
        front.put(self.cookie.to_be_bytes());
    }

    #[inline]
    fn chunk(&self, front: &mut Front<'_>, kind: ChunkType, flags: u16, payload_bytes: u64) {
        let extended = self.mode.is_extended();
        front.put(if extended { EXTENDED_REPLY_MAGIC } else { STRUCTURED_REPLY_MAGIC }.to_be_bytes());
        front.put(flags.to_be_bytes());
        front.put(kind.to_wire().to_be_bytes());
        front.put(self.cookie.to_be_bytes());
        if extended {
            front.put(self.offset.to_be_bytes());
            front.put(payload_bytes.to_be_bytes());
        } else {
            // Every payload of ours is below PAYLOAD_MAX_BYTES plus a few fixed fields.
            front.put((payload_bytes as u32).to_be_bytes());
        }
    }
}
