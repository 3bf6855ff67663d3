// SPDX-License-Identifier: MIT OR Apache-2.0
//! Finding requests in what a host sends.
//!
//! Bytes come in pieces of any size; at most one header and one payload are in progress.
//! Headers are decoded in place in the receive chunk. The payload of a small WRITE is
//! copied from it; of a larger one, what is in the chunk is copied and the rest is
//! received straight into the request's buffer. In a stream of large writes only the
//! header is asked for next, so that no payload is copied at all.

use nbd::server::AcceptedRequest;
use nbd::{Decoded, REQUEST_HEADER_MAX, RequestHeader, WireViolation};
use ring::{Buffer, BufferMut, Pool};

use crate::limits::{CHUNK_BYTES, COPY_BYTES_MAX, RECV_BYTES_MIN, RECV_WHOLE_BYTES_MAX};

/// What was found.
pub(crate) enum Found {
    /// Nothing complete; the input is used up.
    Nothing,
    /// A header. [`Inbox::begin_payload`] or [`Inbox::begin_skip`] follows if data does.
    Header(RequestHeader),
    /// The whole payload of an accepted WRITE.
    Payload(AcceptedRequest, Buffer),
    /// The payload of a refused request is skipped.
    Skipped,
    /// The next header cannot be found.
    Violation(WireViolation),
}

/// What the next bytes are.
enum Expect {
    Header,
    Payload {
        request: AcceptedRequest,
        buffer: BufferMut,
        filled: usize,
    },
    /// The buffer is with the ring; bytes arrive in it by themselves.
    Direct {
        request: AcceptedRequest,
        filled: usize,
    },
    Skip {
        left: u64,
    },
}

/// How to receive next.
pub(crate) enum Receive {
    /// At most this many bytes into a chunk.
    Chunk(usize),
    /// Into this range of this buffer.
    Direct { buffer: BufferMut, at: usize, len: usize, whole: bool },
}

/// See the module header.
pub(crate) struct Inbox {
    header: [u8; REQUEST_HEADER_MAX],
    header_len: usize,
    /// 28 or 32.
    header_bytes: usize,
    expect: Expect,
    recv_bytes: usize,
    /// Received behind a request that had to wait.
    rest: Option<(BufferMut, usize)>,
}

impl Inbox {
    pub(crate) fn new(extended: bool) -> Self {
        Self {
            header: [0; REQUEST_HEADER_MAX],
            header_len: 0,
            header_bytes: if extended { 32 } else { 28 },
            expect: Expect::Header,
            recv_bytes: RECV_BYTES_MIN,
            rest: None,
        }
    }

    /// At a frame boundary: nothing of a next request has come.
    pub(crate) fn is_at_boundary(&self) -> bool {
        self.header_len == 0 && matches!(self.expect, Expect::Header) && self.rest.is_none()
    }

    /// A payload has begun and is not complete.
    pub(crate) fn is_in_payload(&self) -> bool {
        matches!(self.expect, Expect::Payload { .. } | Expect::Direct { .. })
    }

    /// Looks for the next thing in `input` and takes its bytes from the front.
    pub(crate) fn find(&mut self, input: &mut &[u8]) -> Found {
        match &mut self.expect {
            Expect::Header => self.find_header(input),
            Expect::Payload { buffer, filled, .. } => {
                let len = input.len().min(buffer.len() - *filled);
                buffer[*filled..*filled + len].copy_from_slice(&input[..len]);
                *filled += len;
                *input = &input[len..];
                self.finish_payload()
            }
            Expect::Skip { left } => {
                let len = (*left).min(input.len() as u64);
                *left -= len;
                *input = &input[len as usize..];
                if *left > 0 {
                    return Found::Nothing;
                }
                self.expect = Expect::Header;
                Found::Skipped
            }
            Expect::Direct { .. } => panic!("input came beside a direct receive"),
        }
    }

    fn find_header(&mut self, input: &mut &[u8]) -> Found {
        let extended = self.header_bytes == REQUEST_HEADER_MAX;
        if self.header_len > 0 {
            let len = input.len().min(self.header_bytes - self.header_len);
            self.header[self.header_len..self.header_len + len].copy_from_slice(&input[..len]);
            self.header_len += len;
            *input = &input[len..];
            return match RequestHeader::decode(&self.header[..self.header_len], extended) {
                Decoded::Header { header, .. } => {
                    self.header_len = 0;
                    Found::Header(header)
                }
                Decoded::NeedMore => Found::Nothing,
                Decoded::Violation(violation) => Found::Violation(violation),
            };
        }
        match RequestHeader::decode(input, extended) {
            Decoded::Header { header, consumed } => {
                *input = &input[consumed..];
                Found::Header(header)
            }
            Decoded::NeedMore => {
                self.header[..input.len()].copy_from_slice(input);
                self.header_len = input.len();
                *input = &[];
                Found::Nothing
            }
            Decoded::Violation(violation) => Found::Violation(violation),
        }
    }

    /// The payload of `request` follows, and belongs in `buffer`.
    pub(crate) fn begin_payload(&mut self, request: AcceptedRequest, buffer: BufferMut) {
        assert!(matches!(self.expect, Expect::Header) && buffer.len() == request.payload_bytes as usize);
        self.expect = Expect::Payload { request, buffer, filled: 0 };
    }

    /// `bytes` of a payload that nobody wants follow; not zero.
    pub(crate) fn begin_skip(&mut self, bytes: u64) {
        assert!(matches!(self.expect, Expect::Header) && bytes > 0);
        self.expect = Expect::Skip { left: bytes };
    }

    fn finish_payload(&mut self) -> Found {
        match std::mem::replace(&mut self.expect, Expect::Header) {
            Expect::Payload { request, buffer, filled } if filled == buffer.len() => {
                self.note_payload(buffer.len());
                Found::Payload(request, buffer.freeze())
            }
            unfinished => {
                self.expect = unfinished;
                Found::Nothing
            }
        }
    }

    /// A receive into a chunk brought `len` bytes: ask for more while they come full.
    pub(crate) fn note_chunk(&mut self, len: usize) {
        if len < self.recv_bytes {
            return;
        }
        self.recv_bytes = (self.recv_bytes * 2).clamp(RECV_BYTES_MIN, CHUNK_BYTES);
    }

    fn note_payload(&mut self, len: usize) {
        if len > COPY_BYTES_MAX {
            self.recv_bytes = self.header_bytes;
        }
    }

    /// How to receive next. The buffer of a direct receive comes back by
    /// [`Inbox::direct_done`].
    pub(crate) fn receive(&mut self) -> Receive {
        match std::mem::replace(&mut self.expect, Expect::Header) {
            Expect::Payload { request, buffer, filled } if buffer.len() - filled > COPY_BYTES_MAX => {
                self.expect = Expect::Direct { request, filled };
                let len = buffer.len() - filled;
                Receive::Direct { buffer, at: filled, len, whole: len <= RECV_WHOLE_BYTES_MAX }
            }
            other => {
                self.expect = other;
                Receive::Chunk(self.recv_bytes)
            }
        }
    }

    /// A direct receive brought `len` bytes.
    pub(crate) fn direct_done(&mut self, buffer: BufferMut, len: usize) -> Found {
        let Expect::Direct { request, filled } = std::mem::replace(&mut self.expect, Expect::Header) else {
            panic!("a buffer came back that was not lent");
        };
        self.expect = Expect::Payload { request, buffer, filled: filled + len };
        self.finish_payload()
    }

    /// Keeps what was received behind a request that must wait, so that its chunk can go
    /// back at once.
    pub(crate) fn keep(&mut self, input: &[u8], pool: &Pool) {
        assert!(self.rest.is_none(), "two rests of one session");
        if input.is_empty() {
            return;
        }
        let mut rest = pool.take(input.len());
        rest.copy_from_slice(input);
        self.rest = Some((rest, 0));
    }

    /// What was kept, to go on with.
    pub(crate) fn take_rest(&mut self) -> Option<(BufferMut, usize)> {
        self.rest.take()
    }

    /// Puts back what was not used of it.
    pub(crate) fn put_rest(&mut self, rest: BufferMut, at: usize) {
        assert!(self.rest.is_none(), "two rests of one session");
        if at < rest.len() {
            self.rest = Some((rest, at));
        }
    }

    /// The session reads no further: whatever was in progress is dropped. The payload
    /// length of an accepted WRITE that will not be complete, if there was one.
    pub(crate) fn abandon(&mut self) -> Option<usize> {
        self.rest = None;
        self.header_len = 0;
        match std::mem::replace(&mut self.expect, Expect::Header) {
            Expect::Payload { request, .. } | Expect::Direct { request, .. } => {
                Some(request.payload_bytes as usize)
            }
            Expect::Header | Expect::Skip { .. } => None,
        }
    }
}
