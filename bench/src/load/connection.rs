// SPDX-License-Identifier: MIT OR Apache-2.0
//! One NBD connection with many requests in flight.
//!
//! Model: a fixed number of slots, one per request in flight. Sending is gathered: whatever is queued goes out in one
//! `sendmsg`, headers and payloads as slices, nothing copied. Receiving is in bulk: one `recv` takes everything that has
//! come, up to 256 KiB, and then the replies are taken apart. So at depth 32 the generator costs a fraction of a system
//! call per request, and what is measured is the server.
//!
//! Time is read once per batch, not once per request; the latency of a request may therefore be too long by the time its
//! batch took to be taken apart, which is microseconds.

mod receive;

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nbd::client::{PlainReply, ReadAssembly};
use nbd::{Command, CommandFlags, Errno, REQUEST_HEADER_MAX, ReplyMode, encode_disconnect, encode_request};

use receive::{Arriving, Input};

use super::error::ConnectionError;
use super::gap::Gap;
use super::socket::Socket;

/// Slices of one `sendmsg`: half of them headers. The kernel allows 1024.
const SLICES_MAX: usize = 128;

/// A request, before it is sent and after it was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// READ, WRITE or FLUSH.
    pub(super) command: Command,
    /// First byte; 0 for FLUSH.
    pub(super) offset: u64,
    /// Length in bytes; 0 for FLUSH.
    pub(super) len: u32,
    /// The caller's: block number.
    pub(super) block: u64,
    /// The caller's: sequence number of a WRITE, floor of a READ.
    pub(super) mark: u64,
}

/// An answered request.
#[derive(Debug)]
pub(super) struct Answer<'a> {
    /// What was asked.
    pub(super) request: Request,
    /// How it ended.
    pub(super) result: Result<(), Errno>,
    /// From the time it was queued to the time its reply was taken from the socket.
    pub(super) latency: Duration,
    /// What a successful READ returned, where data are kept.
    pub(super) data: &'a [u8],
}

/// One connection.
#[derive(Debug)]
pub(super) struct Connection {
    socket: Socket,
    mode: ReplyMode,
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Slots whose frames are not sent whole, in order.
    queue: VecDeque<u32>,
    /// Bytes of the first of them that are sent.
    front_sent: usize,
    input: Input,
    /// Data of a READ that are arriving.
    arriving: Option<Arriving>,
    keep_data: bool,
    /// Payload of WRITEs that are not stamped.
    plain_payload: Arc<[u8]>,
    gap: Gap,
}

#[derive(Debug)]
struct Slot {
    request: Option<Request>,
    /// Part of the cookie, so that an answer that comes twice is noticed.
    generation: u32,
    queued_at: Instant,
    header: [u8; REQUEST_HEADER_MAX],
    /// Stamped payload of a WRITE, or what a READ returned.
    data: Vec<u8>,
    reply: Reply,
}

#[derive(Debug)]
enum Reply {
    Plain(PlainReply),
    Read(ReadAssembly),
}

impl Connection {
    /// Over a negotiated socket. `keep_data` keeps what READs return; `plain_payload` is at least one block long.
    pub(super) fn new(
        socket: Socket,
        mode: ReplyMode,
        depth: u32,
        keep_data: bool,
        plain_payload: Arc<[u8]>,
    ) -> Self {
        let now = Instant::now();
        let slot = |_| Slot {
            request: None,
            generation: 0,
            queued_at: now,
            header: [0; REQUEST_HEADER_MAX],
            data: Vec::new(),
            reply: Reply::Plain(PlainReply::new(0, 0)),
        };
        Self {
            socket,
            mode,
            slots: (0..depth).map(slot).collect(),
            free: (0..depth).rev().collect(),
            queue: VecDeque::with_capacity(depth as usize),
            front_sent: 0,
            input: Input::new(),
            arriving: None,
            keep_data,
            plain_payload,
            gap: Gap::default(),
        }
    }

    /// Whether another request may be queued.
    pub(super) fn has_room(&self) -> bool {
        !self.free.is_empty()
    }

    /// Requests queued or sent, and not answered.
    pub(super) fn in_flight(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Whether something waits to be sent.
    pub(super) fn wants_to_send(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Silence on this connection.
    pub(super) fn gap(&mut self) -> &mut Gap {
        &mut self.gap
    }

    /// Queues a request. `stamp` fills the payload of a stamped WRITE and returns its mark; without it a WRITE carries any
    /// bytes.
    ///
    /// # Panics
    ///
    /// When there is no [room](Self::has_room).
    pub(super) fn submit(
        &mut self,
        now: Instant,
        mut request: Request,
        stamp: Option<impl FnOnce(&mut [u8]) -> u64>,
    ) {
        let index = self.free.pop().unwrap_or_else(|| panic!("a request beyond the depth"));
        let slot = &mut self.slots[index as usize];
        slot.generation = slot.generation.wrapping_add(1);
        slot.queued_at = now;
        slot.data.clear();
        if let Some(stamp) = stamp {
            slot.data.resize(request.len as usize, 0);
            request.mark = stamp(&mut slot.data);
        }
        slot.reply = match request.command {
            Command::Read => Reply::Read(ReadAssembly::new(request.offset, request.len, false)),
            _ => Reply::Plain(PlainReply::new(request.offset, u64::from(request.len))),
        };
        slot.request = Some(request);
        let cookie = u64::from(slot.generation) << 32 | u64::from(index);
        let (command, len) = (request.command, u64::from(request.len));
        encode_request(
            self.mode,
            command,
            CommandFlags::empty(),
            cookie,
            request.offset,
            len,
            &mut slot.header,
        );
        self.queue.push_back(index);
        self.gap.on_send(now);
    }

    /// Sends as much as the socket takes now.
    ///
    /// # Errors
    ///
    /// The connection is broken.
    pub(super) fn send(&mut self) -> Result<(), ConnectionError> {
        while !self.queue.is_empty() {
            let sent = self.send_some().map_err(ConnectionError::Io)?;
            if sent == 0 {
                return Ok(());
            }
            self.take_sent(sent);
        }
        Ok(())
    }

    fn send_some(&self) -> io::Result<usize> {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let mut used = 0;
        let mut skip = self.front_sent;
        for index in &self.queue {
            if used + 2 > SLICES_MAX {
                break;
            }
            let (header, payload) = self.frame(*index);
            for part in [header, payload] {
                let skipped = skip.min(part.len());
                skip -= skipped;
                if skipped < part.len() {
                    slices[used] = IoSlice::new(&part[skipped..]);
                    used += 1;
                }
            }
        }
        self.socket.send(&slices[..used])
    }

    fn take_sent(&mut self, sent: usize) {
        self.front_sent += sent;
        while let Some(index) = self.queue.front() {
            let (header, payload) = self.frame(*index);
            let frame_bytes = header.len() + payload.len();
            if self.front_sent < frame_bytes {
                return;
            }
            self.front_sent -= frame_bytes;
            self.queue.pop_front();
        }
        assert!(self.front_sent == 0, "more was sent than was queued");
    }

    /// Header and payload of a queued request.
    fn frame(&self, index: u32) -> (&[u8], &[u8]) {
        let slot = &self.slots[index as usize];
        let header = &slot.header[..self.mode.request_header_bytes()];
        let payload = match slot.request {
            Some(Request { command: Command::Write, .. }) if !slot.data.is_empty() => &slot.data[..],
            Some(Request { command: Command::Write, len, .. }) => &self.plain_payload[..len as usize],
            _ => &[],
        };
        (header, payload)
    }

    /// Requests that were never answered; the connection must not be used any more.
    pub(super) fn abandon(&mut self, now: Instant) -> Vec<Request> {
        self.gap.end(now);
        self.slots.iter_mut().filter_map(|slot| slot.request.take()).collect()
    }

    /// Tells the server that nothing more will come; a broken connection cannot be told.
    pub(super) fn disconnect(&mut self) {
        let mut header = [0; REQUEST_HEADER_MAX];
        let header_bytes = encode_disconnect(self.mode, &mut header);
        let _ = self.socket.send(&[IoSlice::new(&header[..header_bytes])]);
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
