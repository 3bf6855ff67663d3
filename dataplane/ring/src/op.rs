// SPDX-License-Identifier: MIT OR Apache-2.0
//! Operations in flight: what each owns, and what comes back.
//!
//! One slab slot per operation; the slot's index and generation travel through the
//! kernel as `user_data`. The resources of an operation leave the slab only with its
//! completion, so the kernel never holds a pointer to something freed.

use io_uring::types::Timespec;
use nix::errno::Errno;
use nix::sys::socket::{SockaddrStorage, UnixAddr};

use crate::{BufferMut, Chunk, Fd, Message};

/// One operation has ended (or, for `more`, has produced one of several results).
pub struct Completion {
    /// As given with the operation.
    pub token: u64,
    /// Bytes or descriptor number moved, or the error.
    pub result: Result<u32, Errno>,
    /// A receive left bytes behind: the next one finds some at once.
    pub left_bytes: bool,
    /// The operation goes on: another completion of the same token follows.
    pub more: bool,
    /// What the operation owned, back to its owner.
    pub resource: Resource,
}

/// What comes back with a completion.
pub enum Resource {
    /// Nothing.
    None,
    /// Received bytes ([`crate::Ring::recv_chunk`]); absent at EOF and on errors.
    Chunk(Chunk),
    /// The buffer of a receive or read.
    Buffer(BufferMut),
    /// The message of a send or write; not advanced yet.
    Message(Box<Message>),
    /// A connection ([`crate::Ring::accept`]).
    Accepted(Fd),
}

/// A connect address at a stable place.
pub(crate) enum ConnectAddress {
    Ip(SockaddrStorage),
    Unix(UnixAddr),
}

/// What an operation holds while it is in flight.
pub(crate) enum Op {
    Accept {
        _fd: Fd,
    },
    Connect {
        _fd: Fd,
        _address: Box<ConnectAddress>,
    },
    RecvChunk {
        _fd: Fd,
    },
    RecvInto {
        _fd: Fd,
        buffer: BufferMut,
    },
    Send {
        _fd: Fd,
        message: Box<Message>,
    },
    Read {
        _fd: Fd,
        buffer: BufferMut,
    },
    Write {
        _fd: Fd,
        message: Box<Message>,
    },
    /// Without memory: fsync, fallocate, shutdown.
    Plain {
        _fd: Fd,
    },
    Event {
        _fd: Fd,
        _value: Box<[u8; 8]>,
    },
    Alarm {
        after: Box<Timespec>,
    },
    /// Its own completion is of no interest.
    Cancel {
        _fd: Option<Fd>,
    },
}

struct Entry {
    generation: u32,
    token: u64,
    op: Option<Op>,
}

/// The slab. Slots are reused; the generation tells the uses apart, which makes a
/// completion of an unknown operation detectable.
#[derive(Default)]
pub(crate) struct Ops {
    entries: Vec<Entry>,
    free: Vec<u32>,
    live: usize,
}

impl Ops {
    /// Stores `op`; the result is its `user_data`.
    pub(crate) fn insert(&mut self, token: u64, op: Op) -> u64 {
        self.live += 1;
        let index = self.free.pop().unwrap_or_else(|| {
            let index = u32::try_from(self.entries.len()).expect("fewer than 2^32 operations");
            self.entries.push(Entry { generation: 0, token: 0, op: None });
            index
        });
        let entry = &mut self.entries[index as usize];
        assert!(entry.op.is_none(), "a free slot held an operation");
        entry.token = token;
        entry.op = Some(op);
        u64::from(entry.generation) << 32 | u64::from(index)
    }

    /// The operation has ended: its token and what it held.
    pub(crate) fn remove(&mut self, user_data: u64) -> (u64, Op) {
        let index = user_data as u32;
        let entry = self.entry(user_data);
        let token = entry.token;
        let op = entry.op.take().expect("a completion of an operation that had ended");
        entry.generation = entry.generation.wrapping_add(1);
        self.free.push(index);
        self.live -= 1;
        (token, op)
    }

    /// The token of an operation that goes on.
    pub(crate) fn token(&mut self, user_data: u64) -> u64 {
        self.entry(user_data).token
    }

    pub(crate) fn live(&self) -> usize {
        self.live
    }

    fn entry(&mut self, user_data: u64) -> &mut Entry {
        let entry = &mut self.entries[user_data as u32 as usize];
        assert_eq!(entry.generation, (user_data >> 32) as u32, "a completion of an operation long gone");
        entry
    }
}
