// SPDX-License-Identifier: MIT OR Apache-2.0
//! The receiving half of a connection: bytes in, answers out.
//!
//! Headers and data are taken from one buffer that is refilled by one `recv` at a time. Data of a READ are kept only where
//! somebody wants to check them; else they are passed over in the buffer, having been copied once, by the kernel, as for
//! any host.

use std::io;
use std::time::Instant;

use nbd::client::{ChunkHeader, ReadPiece, ReplyHeader};
use nbd::{Command, Decoded, Errno};

use super::{Answer, Connection, Reply, Slot};
use crate::load::error::ConnectionError;

const INPUT_BYTES: usize = 256 * 1024;

/// What has come and was not yet taken apart.
#[derive(Debug)]
pub(super) struct Input {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
}

/// Data of a READ that are on their way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arriving {
    slot: u32,
    at: u32,
    left: u32,
}

impl Connection {
    /// Takes what has come, or waits for something if `wait`, and hands every complete answer to `on_answer`. Returns whether
    /// anything came.
    ///
    /// # Errors
    ///
    /// The connection is broken; what is in flight will never be answered.
    pub(in crate::load) fn receive(
        &mut self,
        wait: bool,
        mut on_answer: impl FnMut(Answer<'_>),
    ) -> Result<bool, ConnectionError> {
        self.input.make_room();
        let received = match self.socket.receive(&mut self.input.buffer[self.input.end..], wait) {
            Ok(0) => return Err(ConnectionError::Closed),
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(ConnectionError::Io(error)),
        };
        self.input.end += received;
        let now = Instant::now();
        let before = self.in_flight();
        while self.take_one(now, &mut on_answer)? {}
        if self.in_flight() < before {
            self.gap.on_answer(now, self.in_flight());
        }
        Ok(true)
    }

    /// Takes one header, or one stretch of data, from the input; false when more has to come first.
    fn take_one(
        &mut self,
        now: Instant,
        on_answer: &mut impl FnMut(Answer<'_>),
    ) -> Result<bool, ConnectionError> {
        if self.arriving.is_some() {
            return Ok(self.take_data(now, on_answer));
        }
        let input = &self.input.buffer[self.input.start..self.input.end];
        let (header, consumed) = match ReplyHeader::decode(input, self.mode) {
            Decoded::NeedMore => return Ok(false),
            Decoded::Violation(violation) => return Err(ConnectionError::Wire(violation)),
            Decoded::Header { header, consumed } => (header, consumed),
        };
        match header {
            ReplyHeader::Simple { cookie, result } => {
                self.input.start += consumed;
                self.take_simple(now, cookie, result, on_answer)?;
            }
            ReplyHeader::Chunk(chunk) => {
                let whole = consumed + chunk.inline_bytes() as usize;
                if input.len() < whole {
                    return Ok(false);
                }
                self.input.start += whole;
                self.take_chunk(now, &chunk, on_answer)?;
            }
        }
        Ok(true)
    }

    fn take_simple(
        &mut self,
        now: Instant,
        cookie: u64,
        result: Result<(), Errno>,
        on_answer: &mut impl FnMut(Answer<'_>),
    ) -> Result<(), ConnectionError> {
        let index = self.slot_of(cookie)?;
        let mode = self.mode;
        let piece = match &mut self.slots[index as usize].reply {
            Reply::Plain(reply) => reply.accept_simple(result).map(|()| ReadPiece::End),
            Reply::Read(assembly) => assembly.accept_simple(mode, result),
        };
        self.take_piece(now, index, &piece.map_err(ConnectionError::Reply)?, on_answer);
        Ok(())
    }

    /// The chunk's inline payload ends where the input now begins.
    fn take_chunk(
        &mut self,
        now: Instant,
        chunk: &ChunkHeader,
        on_answer: &mut impl FnMut(Answer<'_>),
    ) -> Result<(), ConnectionError> {
        let index = self.slot_of(chunk.cookie)?;
        let inline = &self.input.buffer[self.input.start - chunk.inline_bytes() as usize..self.input.start];
        let piece = match &mut self.slots[index as usize].reply {
            Reply::Plain(reply) => reply.accept(chunk, inline).map(|_| ReadPiece::End),
            // The words of an error are not kept, so that nothing of the input is borrowed any more.
            Reply::Read(assembly) => assembly.accept(chunk, inline).map(|piece| match piece {
                ReadPiece::Data { at, len } => ReadPiece::Data { at, len },
                ReadPiece::Zeroes { at, len } => ReadPiece::Zeroes { at, len },
                ReadPiece::Error(_) | ReadPiece::End => ReadPiece::End,
            }),
        };
        self.take_piece(now, index, &piece.map_err(ConnectionError::Reply)?, on_answer);
        Ok(())
    }

    fn take_piece(
        &mut self,
        now: Instant,
        index: u32,
        piece: &ReadPiece<'_>,
        on_answer: &mut impl FnMut(Answer<'_>),
    ) {
        let keep_data = self.keep_data;
        let slot = &mut self.slots[index as usize];
        match *piece {
            ReadPiece::Data { at, len } => {
                slot.make_place(keep_data);
                self.arriving = Some(Arriving { slot: index, at, left: len });
            }
            ReadPiece::Zeroes { at, len } => {
                slot.make_place(keep_data);
                if keep_data {
                    slot.data[at as usize..][..len as usize].fill(0);
                }
                self.finish_if_done(now, index, on_answer);
            }
            ReadPiece::Error(_) | ReadPiece::End => self.finish_if_done(now, index, on_answer),
        }
    }

    /// Takes arriving data; false when there are none in the input.
    fn take_data(&mut self, now: Instant, on_answer: &mut impl FnMut(Answer<'_>)) -> bool {
        let Some(Arriving { slot, at, left }) = self.arriving else { return false };
        let input = &self.input.buffer[self.input.start..self.input.end];
        let taken = input.len().min(left as usize);
        if taken == 0 && left > 0 {
            return false;
        }
        if self.keep_data {
            self.slots[slot as usize].data[at as usize..][..taken].copy_from_slice(&input[..taken]);
        }
        self.input.start += taken;
        let left = left - taken as u32;
        self.arriving = (left > 0).then_some(Arriving { slot, at: at + taken as u32, left });
        if left == 0 {
            self.finish_if_done(now, slot, on_answer);
        }
        true
    }

    fn finish_if_done(&mut self, now: Instant, index: u32, on_answer: &mut impl FnMut(Answer<'_>)) {
        let slot = &mut self.slots[index as usize];
        let outcome = match &slot.reply {
            Reply::Plain(reply) => reply.outcome(),
            Reply::Read(assembly) => assembly.outcome(),
        };
        let Some(result) = outcome else { return };
        let request = slot.request.take().unwrap_or_else(|| panic!("slot_of found it in flight"));
        let latency = now.saturating_duration_since(slot.queued_at);
        let is_kept = request.command == Command::Read && result.is_ok();
        let data = if is_kept { &slot.data[..] } else { &[] };
        on_answer(Answer { request, result, latency, data });
        self.free.push(index);
    }

    fn slot_of(&self, cookie: u64) -> Result<u32, ConnectionError> {
        let (generation, index) = ((cookie >> 32) as u32, cookie as u32);
        let is_ours = |slot: &Slot| slot.generation == generation && slot.request.is_some();
        if !self.slots.get(index as usize).is_some_and(is_ours) {
            return Err(ConnectionError::UnknownCookie(cookie));
        }
        // Only a server that is out of its mind gets here; its answers prove nothing.
        if self.queue.contains(&index) {
            return Err(ConnectionError::TooEarly(cookie));
        }
        Ok(index)
    }
}

impl Slot {
    /// Room for what a READ returns.
    fn make_place(&mut self, keep_data: bool) {
        let len = self.request.map_or(0, |request| request.len as usize);
        if keep_data && self.data.len() < len {
            self.data.resize(len, 0);
        }
    }
}

impl Input {
    /// Nothing yet.
    pub(super) fn new() -> Self {
        Self { buffer: vec![0; INPUT_BYTES].into(), start: 0, end: 0 }
    }

    /// What is left moves to the front, so that a header is never cut by the end of the buffer.
    fn make_room(&mut self) {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        assert!(self.end < self.buffer.len(), "a header and its inline payload fit many times");
    }
}
