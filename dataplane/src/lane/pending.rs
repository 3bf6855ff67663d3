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

    /// Whether the server stands by what it has sent although the rest never came (NBD spec, `NBD_CMD_READ`).
    ///
    /// After a simple header a server that fails sends nothing more and disconnects: what came is good. A chunk of data
    /// it must fill up with padding, and may tell later: so only a chunk marked as the last is good as it comes, and what
    /// came before it if no error did.
    fn is_vouched_for(&self) -> bool {
        match &self.assembly {
            Assembly::Fresh => true,
            Assembly::Read(read) => read.outcome() == Some(Ok(())),
            Assembly::Status(_) | Assembly::Plain(_) => false,
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

    /// The read of which the most has arrived and is good: its cookie, the data. What is in a receive is not there.
    pub(crate) fn take_part(&mut self) -> Option<(u64, BufferMut)> {
        let lands = |pending: &&mut Pending| {
            let read = pending.command == Command::Read && pending.landing == Landing::Land;
            read && pending.buffer.is_some() && pending.is_vouched_for()
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

#[cfg(test)]
mod tests {
    use nbd::ChunkType;
    use nbd::client::ChunkHeader;
    use ring::Pool;

    use super::*;

    const LEN: u32 = 16 << 10;

    /// A read of 16 KiB whose data chunk of `len` bytes had the flag `done`, and of which 8 KiB have arrived.
    fn broken_off(chunks: &[(ChunkType, u32, bool)]) -> Option<usize> {
        let mut read = ReadAssembly::new(0, LEN, false);
        for &(kind, len, done) in chunks {
            let chunk = ChunkHeader { kind, done, cookie: 1, offset: None, len };
            // An offset of 0, or an EIO without a text, at the front of either.
            let inline = if kind == ChunkType::Error { &[0, 0, 0, 5, 0, 0][..] } else { &[0; 8][..] };
            read.accept(&chunk, inline).expect("it is lawful");
        }
        part_of(Assembly::Read(read))
    }

    fn part_of(assembly: Assembly) -> Option<usize> {
        let pool = Pool::new(1 << 20);
        let mut table = Table::default();
        table.insert(Pending {
            cookie: 1,
            command: Command::Read,
            flags: CommandFlags::empty(),
            offset: 0,
            len: LEN.into(),
            landing: Landing::Land,
            buffer: Some(pool.take(LEN as usize)),
            arrived: 8 << 10,
            assembly,
            dispatched: None,
            frame: 0..28,
        });
        table.take_part().map(|(_, data)| data.len())
    }

    /// NBD spec, `NBD_CMD_READ`: a server that fails after a simple header sends no further data.
    #[test]
    fn a_part_of_a_simple_reply_is_good() {
        assert_eq!(part_of(Assembly::Fresh), Some(8 << 10));
    }

    /// NBD spec, structured replies: a chunk that may still fail is padded, and the error comes behind it.
    #[test]
    fn a_chunk_that_may_still_fail_is_not() {
        let (data, error) = (ChunkType::OffsetData, ChunkType::Error);
        assert_eq!(broken_off(&[(data, 8 + LEN, true)]), Some(8 << 10));
        assert_eq!(broken_off(&[(data, 8 + LEN, false)]), None, "padding, perhaps");
        assert_eq!(broken_off(&[(error, 6, false), (data, 8 + LEN, true)]), None, "an error came before");
    }
}
