// SPDX-License-Identifier: MIT OR Apache-2.0
//! One gathered send: headers, buffers and the list that names them.
//!
//! Everything that is ready for a connection goes out in one system call; that is
//! worth a factor of five in CPU per request. A message owns all it refers to: header
//! bytes in an arena that never moves, references to the payload buffers, and the
//! iovec list. It is filled, moved into [`crate::Ring::send`], comes back with the
//! completion, and is either continued (short send) or cleared and used again. It grows
//! with use and keeps what it has, so the steady state allocates nothing and a thousand
//! connections with one small reply each do not pay for the largest.

use std::ptr::NonNull;

use nix::errno::Errno;

use crate::{Buffer, Fd};

/// Most parts of one message: what the kernel gathers without allocating twice.
pub const IOVECS_MAX: usize = 256;
/// Header bytes of one message.
const ARENA_BYTES_MAX: usize = 16 << 10;
/// What a new message starts with; a connection that is blocked holds little more.
const ARENA_BYTES_MIN: usize = 512;
/// Most bytes of one header.
pub(crate) const HEADER_BYTES_MAX: usize = 64;
/// Zeroes are sent from one static range, which the system maps to its page of zeroes.
const ZEROES_BYTES: usize = 1 << 20;

static ZEROES: [u8; ZEROES_BYTES] = [0; ZEROES_BYTES];

/// A gather list with the memory it names.
pub struct Message {
    iovecs: Vec<libc::iovec>,
    /// Parts before this one are sent.
    first: usize,
    arena: Box<[u8]>,
    arena_used: usize,
    /// The last part is the end of the arena, so that the next header extends it.
    header_last: bool,
    buffers: Vec<Buffer>,
    remaining: usize,
    /// Read by the kernel while the message is in flight.
    pub(crate) header: libc::msghdr,
}

impl Message {
    /// Empty.
    pub fn new() -> Box<Self> {
        Box::new(Self {
            iovecs: Vec::with_capacity(8),
            first: 0,
            arena: vec![0; ARENA_BYTES_MIN].into_boxed_slice(),
            arena_used: 0,
            header_last: false,
            buffers: Vec::new(),
            remaining: 0,
            // SAFETY: a `msghdr` of zeroes is valid: no name, no list, no control data.
            header: unsafe { std::mem::zeroed() },
        })
    }

    /// Room for one more header of at most 64 bytes and `parts` payload parts.
    pub fn has_room(&self, parts: usize) -> bool {
        self.arena_used + HEADER_BYTES_MAX <= ARENA_BYTES_MAX && self.iovecs.len() + parts < IOVECS_MAX
    }

    /// Parts that a run of `len` zero bytes takes.
    pub fn zero_parts(len: usize) -> usize {
        len.div_ceil(ZEROES_BYTES)
    }

    /// Appends header bytes.
    ///
    /// # Panics
    /// Without room; ask [`Message::has_room`] first.
    pub fn push_header(&mut self, header: &[u8]) {
        assert!(header.len() <= HEADER_BYTES_MAX && self.has_room(0), "a message without room");
        if self.arena_used + header.len() > self.arena.len() {
            self.grow_arena();
        }
        let start = self.arena_used;
        self.arena[start..start + header.len()].copy_from_slice(header);
        self.arena_used += header.len();
        self.remaining += header.len();
        if self.header_last {
            let last = self.iovecs.last_mut().expect("a header part was pushed last");
            last.iov_len += header.len();
        } else {
            let base = self.arena[start..].as_mut_ptr();
            self.iovecs.push(libc::iovec { iov_base: base.cast(), iov_len: header.len() });
            self.header_last = true;
        }
    }

    /// Doubles the arena and moves the parts that lie in it along.
    #[cold]
    fn grow_arena(&mut self) {
        let mut grown = vec![0; self.arena.len() * 2].into_boxed_slice();
        grown[..self.arena_used].copy_from_slice(&self.arena[..self.arena_used]);
        let old = self.arena.as_ptr_range();
        for part in &mut self.iovecs {
            let base = part.iov_base.cast::<u8>().cast_const();
            if old.contains(&base) {
                let at = base as usize - old.start as usize;
                part.iov_base = grown[at..].as_mut_ptr().cast();
            }
        }
        self.arena = grown;
    }

    /// Appends `len` bytes of `buffer` from `at`; keeps a reference until it is sent.
    ///
    /// # Panics
    /// For a range outside the buffer, or without room.
    pub fn push_buffer(&mut self, buffer: &Buffer, at: usize, len: usize) {
        if len == 0 {
            return;
        }
        let bytes = &buffer[at..at + len];
        self.push_part(bytes);
        self.buffers.push(buffer.clone());
    }

    /// Appends `len` zero bytes.
    ///
    /// # Panics
    /// Without room for [`Message::zero_parts`].
    pub fn push_zeroes(&mut self, mut len: usize) {
        while len > 0 {
            let part = len.min(ZEROES_BYTES);
            self.push_part(&ZEROES[..part]);
            len -= part;
        }
    }

    fn push_part(&mut self, bytes: &[u8]) {
        assert!(self.iovecs.len() < IOVECS_MAX, "a message without room");
        // The kernel only reads through this pointer (send and write operations).
        self.iovecs.push(libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() });
        self.header_last = false;
        self.remaining += bytes.len();
    }

    /// Bytes not sent yet.
    pub fn remaining(&self) -> usize {
        self.remaining
    }

    /// Nothing was pushed since it was cleared.
    pub fn is_empty(&self) -> bool {
        self.iovecs.is_empty()
    }

    /// The kernel took `sent` bytes.
    ///
    /// # Panics
    /// If that is more than there was.
    pub fn advance(&mut self, sent: usize) {
        assert!(sent <= self.remaining, "the kernel took more than it was given");
        self.remaining -= sent;
        let mut left = sent;
        while left > 0 {
            let part = &mut self.iovecs[self.first];
            if left < part.iov_len {
                // SAFETY: `left < iov_len`, so the pointer stays inside its part.
                part.iov_base = unsafe { part.iov_base.cast::<u8>().add(left).cast() };
                part.iov_len -= left;
                return;
            }
            left -= part.iov_len;
            self.first += 1;
        }
    }

    /// Forgets everything, keeps the memory.
    pub fn clear(&mut self) {
        self.iovecs.clear();
        self.first = 0;
        self.arena_used = 0;
        self.header_last = false;
        self.buffers.clear();
        self.remaining = 0;
    }

    /// Sends what can be sent at once, by a plain system call: cheaper than an operation
    /// for few connections, because there is no completion to wake up for. The bytes
    /// taken are advanced over; 0 means that the socket takes nothing now.
    pub fn send_now(&mut self, fd: &Fd) -> Result<usize, Errno> {
        let header = self.prepare();
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        // SAFETY: `prepare` points the header at parts that lie in memory we own or hold.
        let sent = unsafe { libc::sendmsg(fd.raw(), header.as_ptr(), flags) };
        match Errno::result(sent) {
            Ok(sent) => {
                self.advance(sent as usize);
                Ok(sent as usize)
            }
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ENOBUFS) => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// The list of what remains, for an operation that owns this message.
    pub(crate) fn parts(&self) -> (*const libc::iovec, usize) {
        let parts = &self.iovecs[self.first..];
        (parts.as_ptr(), parts.len())
    }

    /// Points `header` at what remains.
    pub(crate) fn prepare(&mut self) -> NonNull<libc::msghdr> {
        let (list, count) = self.parts();
        self.header.msg_iov = list.cast_mut();
        self.header.msg_iovlen = count as _;
        NonNull::from(&mut self.header)
    }

    /// What remains, as one run of bytes; for tests and cold paths.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.remaining);
        for part in &self.iovecs[self.first..] {
            // SAFETY: every part lies in our arena, in a buffer we hold or in `ZEROES`.
            bytes.extend_from_slice(unsafe {
                std::slice::from_raw_parts(part.iov_base.cast::<u8>(), part.iov_len)
            });
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Pool;

    #[test]
    fn headers_in_a_row_are_one_part() {
        let mut message = Message::new();
        message.push_header(&[1, 2]);
        message.push_header(&[3]);
        assert_eq!(message.parts().1, 1);
        assert_eq!(message.to_vec(), [1, 2, 3]);
    }

    #[test]
    fn a_short_send_leaves_the_rest() {
        let pool = Pool::new(1 << 20);
        let mut data = pool.take(4);
        data.copy_from_slice(&[3, 4, 5, 6]);
        let data = data.freeze();
        let mut message = Message::new();
        message.push_header(&[1, 2]);
        message.push_buffer(&data, 1, 3);
        message.push_zeroes(2);
        message.push_header(&[7]);
        let all = [1, 2, 4, 5, 6, 0, 0, 7];
        for cut in 0..=all.len() {
            let mut part = Message::new();
            part.push_header(&[1, 2]);
            part.push_buffer(&data, 1, 3);
            part.push_zeroes(2);
            part.push_header(&[7]);
            part.advance(cut);
            assert_eq!(part.to_vec(), all[cut..]);
            assert_eq!(part.remaining(), all.len() - cut);
        }
        assert_eq!(message.to_vec(), all);
    }

    #[test]
    fn a_message_keeps_its_buffers_until_cleared() {
        let pool = Pool::new(1 << 20);
        let mut message = Message::new();
        message.push_buffer(&pool.take(512).freeze(), 0, 512);
        assert_eq!(pool.live_bytes(), 512);
        message.clear();
        assert_eq!(pool.live_bytes(), 0);
        assert!(message.is_empty());
    }

    #[test]
    fn headers_survive_the_growth_of_their_arena() {
        let pool = Pool::new(1 << 20);
        let data = pool.take(512).freeze();
        let mut message = Message::new();
        let mut expected = Vec::new();
        for index in 0..120_u8 {
            message.push_header(&[index; 40]);
            message.push_buffer(&data, 0, 2);
            expected.extend([index; 40]);
            expected.extend(&data[..2]);
        }
        assert_eq!(message.to_vec(), expected);
    }

    #[test]
    fn long_zeroes_take_several_parts() {
        let mut message = Message::new();
        let len = 3 * ZEROES_BYTES + 1;
        assert_eq!(Message::zero_parts(len), 4);
        message.push_zeroes(len);
        assert_eq!(message.parts().1, 4);
        assert_eq!(message.remaining(), len);
    }
}
