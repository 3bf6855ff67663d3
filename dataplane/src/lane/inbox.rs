// SPDX-License-Identifier: MIT OR Apache-2.0
//! Finding replies in what a server sends: the same game as `host::inbox`, client side.
//!
//! Headers are decoded in place. The data of a READ goes to the buffer of its request,
//! copied from the chunk when little is left of it, received directly when much is.

use nbd::client::{CHUNK_HEADER_MAX, ChunkHeader, ReplyHeader};
use nbd::{Decoded, ReplyMode, WireViolation};

use crate::limits::{CHUNK_BYTES, COPY_BYTES_MAX, RECV_BYTES_MIN};

/// What was found.
pub(crate) enum Found {
    /// Nothing complete; the input is used up.
    Nothing,
    Header(ReplyHeader),
    /// A chunk whose fixed part is complete, in [`Inbox::inline`].
    Chunk(ChunkHeader),
    /// Bytes of a READ: so many at the front of the input, for this place.
    Data {
        cookie: u64,
        at: usize,
        len: usize,
    },
    /// Bytes of a status chunk at the front of the input.
    Status {
        cookie: u64,
        len: usize,
    },
    Violation(WireViolation),
}

/// What the next bytes are.
#[derive(Clone, Copy)]
enum Expect {
    Header,
    /// The fixed part of a chunk.
    Inline {
        chunk: ChunkHeader,
    },
    /// Data of a READ for `at` of its buffer.
    Data {
        cookie: u64,
        at: usize,
        left: usize,
    },
    /// Descriptors of a status chunk.
    Status {
        cookie: u64,
        left: usize,
    },
}

/// See the module header.
pub(crate) struct Inbox {
    header: [u8; CHUNK_HEADER_MAX],
    header_len: usize,
    expect: Expect,
    /// Fixed part of the present chunk: 4 to 8 bytes, more for errors.
    pub(crate) inline: Vec<u8>,
    recv_bytes: usize,
    /// Bytes of the shortest reply header.
    header_bytes: usize,
}

impl Inbox {
    pub(crate) fn new(mode: ReplyMode) -> Self {
        Self {
            header: [0; CHUNK_HEADER_MAX],
            header_len: 0,
            expect: Expect::Header,
            inline: Vec::new(),
            recv_bytes: RECV_BYTES_MIN,
            // A chunk of data: its header and the offset in front of the data.
            header_bytes: match mode {
                ReplyMode::Simple => 16,
                ReplyMode::Structured => 28,
                ReplyMode::Extended => 40,
            },
        }
    }

    /// Looks for the next thing in `input`; takes its bytes from the front, except for
    /// data, whose taker calls [`Inbox::took`].
    pub(crate) fn find(&mut self, input: &mut &[u8], mode: ReplyMode) -> Found {
        match self.expect {
            Expect::Header => self.find_header(input, mode),
            Expect::Inline { chunk } => {
                let want = chunk.inline_bytes() as usize;
                let len = input.len().min(want - self.inline.len());
                self.inline.extend_from_slice(&input[..len]);
                *input = &input[len..];
                if self.inline.len() < want {
                    return Found::Nothing;
                }
                self.expect = Expect::Header;
                Found::Chunk(chunk)
            }
            Expect::Data { .. } | Expect::Status { .. } if input.is_empty() => Found::Nothing,
            Expect::Data { cookie, at, left } => Found::Data { cookie, at, len: left.min(input.len()) },
            Expect::Status { cookie, left } => Found::Status { cookie, len: left.min(input.len()) },
        }
    }

    fn find_header(&mut self, input: &mut &[u8], mode: ReplyMode) -> Found {
        if self.header_len == 0 {
            match ReplyHeader::decode(input, mode) {
                Decoded::Header { header, consumed } => {
                    *input = &input[consumed..];
                    return Found::Header(header);
                }
                Decoded::Violation(violation) => return Found::Violation(violation),
                Decoded::NeedMore => {}
            }
        }
        // A header in pieces: rare, so byte by byte is simple enough.
        while let Some((first, rest)) = input.split_first() {
            self.header[self.header_len] = *first;
            self.header_len += 1;
            *input = rest;
            match ReplyHeader::decode(&self.header[..self.header_len], mode) {
                Decoded::Header { header, .. } => {
                    self.header_len = 0;
                    return Found::Header(header);
                }
                Decoded::Violation(violation) => return Found::Violation(violation),
                Decoded::NeedMore => {}
            }
        }
        Found::Nothing
    }

    /// The fixed part of `chunk` follows.
    pub(crate) fn begin_inline(&mut self, chunk: ChunkHeader) {
        self.inline.clear();
        self.expect = Expect::Inline { chunk };
    }

    /// `len` bytes of data for `at` of the buffer of `cookie` follow.
    pub(crate) fn begin_data(&mut self, cookie: u64, at: usize, len: usize) {
        assert!(len > 0 && matches!(self.expect, Expect::Header));
        if len > COPY_BYTES_MAX {
            self.recv_bytes = self.header_bytes;
        }
        self.expect = Expect::Data { cookie, at, left: len };
    }

    /// `len` bytes of descriptors follow.
    pub(crate) fn begin_status(&mut self, cookie: u64, len: usize) {
        assert!(len > 0 && matches!(self.expect, Expect::Header));
        self.expect = Expect::Status { cookie, left: len };
    }

    /// So many bytes of data or descriptors were taken. `true`: all of them.
    pub(crate) fn took(&mut self, len: usize) -> bool {
        match &mut self.expect {
            Expect::Data { at, left, .. } => {
                *at += len;
                *left -= len;
                if *left > 0 {
                    return false;
                }
            }
            Expect::Status { left, .. } => {
                *left -= len;
                if *left > 0 {
                    return false;
                }
            }
            Expect::Header | Expect::Inline { .. } => panic!("data was taken that nobody expected"),
        }
        self.expect = Expect::Header;
        true
    }

    /// Data that is worth a receive of its own: for whom, where, how much.
    pub(crate) fn direct(&self) -> Option<(u64, usize, usize)> {
        match self.expect {
            Expect::Data { cookie, at, left } if left > COPY_BYTES_MAX => Some((cookie, at, left)),
            _ => None,
        }
    }

    /// Bytes to ask of the next receive into a chunk.
    pub(crate) fn recv_bytes(&self) -> usize {
        self.recv_bytes
    }

    /// A receive into a chunk brought `len` bytes: ask for more while they come full.
    pub(crate) fn note_chunk(&mut self, len: usize) {
        if len >= self.recv_bytes {
            self.recv_bytes = (self.recv_bytes * 2).clamp(RECV_BYTES_MIN, CHUNK_BYTES);
        }
    }
}
