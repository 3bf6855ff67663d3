// SPDX-License-Identifier: MIT OR Apache-2.0
//! Host requests between acceptance and answer, and the buffers engines hold.

use engine::{BufferId, RequestTag};
use nbd::{Command, CommandFlags};
use ring::Buffer;

use crate::slab::{Key, Slab};

/// One accepted request.
pub(crate) struct Request {
    pub(crate) session: Key,
    pub(crate) cookie: u64,
    pub(crate) command: Command,
    pub(crate) flags: CommandFlags,
    pub(crate) offset: u64,
    pub(crate) len: u64,
    /// Counts for this much of its session's share until the reply is sent.
    pub(crate) charge: usize,
    /// Reserved for the reply's data until it is there.
    pub(crate) reserved: usize,
    /// Data of the answer so far. One buffer is the rule, and it needs no list.
    pub(crate) data: Option<Buffer>,
    pub(crate) more: Vec<Buffer>,
}

pub(crate) fn tag_of(key: Key) -> RequestTag {
    RequestTag(u64::from(key.generation) << 32 | u64::from(key.index))
}

pub(crate) fn key_of(tag: RequestTag) -> Key {
    Key { index: tag.0 as u32, generation: (tag.0 >> 32) as u32 }
}

/// Buffers whose tokens engines hold, by token.
#[derive(Default)]
pub(crate) struct Held {
    buffers: Vec<Option<Buffer>>,
    free: Vec<u32>,
}

impl Held {
    /// Gives a buffer to an engine.
    pub(crate) fn lend(&mut self, buffer: Buffer) -> BufferId {
        if let Some(index) = self.free.pop() {
            self.buffers[index as usize] = Some(buffer);
            return BufferId(index);
        }
        self.buffers.push(Some(buffer));
        BufferId((self.buffers.len() - 1) as u32)
    }

    /// A buffer an engine holds.
    pub(crate) fn get(&self, id: BufferId) -> &Buffer {
        self.buffers[id.0 as usize].as_ref().expect("the engine named a buffer it has given up")
    }

    /// An engine gives a buffer up.
    pub(crate) fn take(&mut self, id: BufferId) -> Buffer {
        let buffer = self.buffers[id.0 as usize].take().expect("the engine gave a buffer up twice");
        self.free.push(id.0);
        buffer
    }

    pub(crate) fn len(&self) -> usize {
        self.buffers.len() - self.free.len()
    }
}

/// The requests of one reactor.
pub(crate) type Requests = Slab<Request>;
