// SPDX-License-Identifier: MIT OR Apache-2.0
//! Requests in flight on one lane.
//!
//! Indexed by the low 16 bits of the cookie, which the engine keeps small; the whole
//! cookie is compared, so a reply to a request long answered, or to none, is seen.

use nbd::client::{PlainReply, ReadAssembly, StatusAssembly};
use nbd::{Command, CommandFlags};
use ring::BufferMut;

/// A read that broke off goes on at a multiple of this, so that no block is put together of two moments.
const PART_BLOCK_BYTES: u64 = 4096;

/// What becomes of the data of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Landing {
    /// There is none.
    None,
    /// Goes to the engine in a buffer.
    Land,
    /// Is digested.
    Digest,
}

/// Judges the chunks of one reply.
pub(crate) enum Assembly {
    /// No chunk has come.
    Fresh,
    Read(ReadAssembly),
    Status(Box<StatusAssembly>),
    Plain(PlainReply),
}

/// One request.
pub(crate) struct Pending {
    pub(crate) cookie: u64,
    pub(crate) command: Command,
    pub(crate) flags: CommandFlags,
    pub(crate) offset: u64,
    pub(crate) len: u64,
    pub(crate) landing: Landing,
    /// Where its data arrives; with the ring during a direct receive.
    pub(crate) buffer: Option<BufferMut>,
    /// Bytes of its data that are there, from the beginning without a gap.
    pub(crate) arrived: usize,
    pub(crate) assembly: Assembly,
    /// At a gate: the generation a change of data was dispatched under.
    pub(crate) dispatched: Option<u64>,
    /// Its frame in the bytes of the lane.
    pub(crate) frame: std::ops::Range<u64>,
}

impl Pending {
    /// Data has arrived at `at`.
    pub(crate) fn note_arrived(&mut self, at: usize, len: usize) {
        if at == self.arrived {
            self.arrived += len;
        }
    }

    /// Bytes that are there up to the end of a whole block of the device.
    fn whole_blocks(&self) -> usize {
        let end = self.offset + self.arrived as u64;
        (end - end % PART_BLOCK_BYTES).saturating_sub(self.offset) as usize
    }
}

/// See the module header.
#[derive(Default)]
pub(crate) struct Table {
    slots: Vec<Option<Pending>>,
}

impl Table {
    fn index(cookie: u64) -> usize {
        usize::from(cookie as u16)
    }

    pub(crate) fn insert(&mut self, pending: Pending) {
        let index = Self::index(pending.cookie);
        if index >= self.slots.len() {
            self.slots.resize_with(index + 1, || None);
        }
        let slot = &mut self.slots[index];
        assert!(slot.is_none(), "the engine used a cookie twice");
        *slot = Some(pending);
    }

    pub(crate) fn get_mut(&mut self, cookie: u64) -> Option<&mut Pending> {
        self.slots.get_mut(Self::index(cookie))?.as_mut().filter(|pending| pending.cookie == cookie)
    }

    pub(crate) fn remove(&mut self, cookie: u64) -> Option<Pending> {
        let slot = self.slots.get_mut(Self::index(cookie))?;
        slot.take_if(|pending| pending.cookie == cookie)
    }

    /// The read of which the most has arrived: its cookie, the data, its length. What is in a receive is not there.
    pub(crate) fn take_part(&mut self) -> Option<(u64, BufferMut)> {
        let lands = |pending: &&mut Pending| {
            pending.command == Command::Read && pending.landing == Landing::Land && pending.buffer.is_some()
        };
        let longest =
            self.slots.iter_mut().flatten().filter(lands).max_by_key(|pending| pending.whole_blocks())?;
        let len = longest.whole_blocks();
        let mut buffer = longest.buffer.take_if(|_| len > 0)?;
        buffer.truncate(len);
        Some((longest.cookie, buffer))
    }

    /// Forgets all; their buffers go back.
    pub(crate) fn clear(&mut self) {
        self.slots.clear();
    }

    /// A frame that begins before `sent` bytes and ends behind it.
    pub(crate) fn has_cut(&self, sent: u64) -> bool {
        self.slots.iter().flatten().any(|pending| pending.frame.start < sent && sent < pending.frame.end)
    }
}
