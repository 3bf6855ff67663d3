// SPDX-License-Identifier: MIT OR Apache-2.0
//! One operation at a server, and the tables that name operations and buffers.

use nbd::{Command, CommandFlags, Errno};
use program::Nanos;

use crate::medium::Value;
use crate::queue::{ConnIndex, OpRef};

/// What becomes of the data of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answered {
    /// There is none.
    Nothing,
    /// Comes in a buffer.
    Lands,
    /// Is digested.
    Digest,
}

/// See the module header.
#[derive(Clone, Debug)]
pub struct Op {
    /// Incarnation of the slot.
    pub generation: u32,
    /// In use.
    pub live: bool,
    /// Its connection.
    pub conn: ConnIndex,
    /// As sent.
    pub cookie: u64,
    /// As sent.
    pub command: Command,
    /// As sent.
    pub flags: CommandFlags,
    /// First sector.
    pub start: usize,
    /// Sector after the last.
    pub end: usize,
    /// What a write leaves.
    pub value: Value,
    /// See there.
    pub answered: Answered,
    /// When the engine sent it.
    pub sent_at: Nanos,
    /// A host waits for it (not a canary, not an identity read).
    pub for_host: bool,
    /// What a READ found.
    pub data: Vec<Value>,
    /// The server's verdict.
    pub result: Result<(), Errno>,
    /// It was carried out at least once.
    pub executed: bool,
}

impl Op {
    /// WRITE, WRITE_ZEROES or TRIM.
    pub fn writes(&self) -> bool {
        self.command.is_write_like()
    }
}

/// Operations by number; slots are reused.
#[derive(Debug, Default)]
pub struct Ops {
    slots: Vec<Op>,
    free: Vec<u32>,
}

impl Ops {
    /// Takes a slot.
    pub fn insert(&mut self, mut op: Op) -> u32 {
        op.live = true;
        let Some(index) = self.free.pop() else {
            self.slots.push(op);
            return (self.slots.len() - 1) as u32;
        };
        let slot = &mut self.slots[index as usize];
        op.generation = slot.generation + 1;
        // Its allocation serves again.
        op.data = std::mem::take(&mut slot.data);
        op.data.clear();
        *slot = op;
        index
    }

    /// Frees a slot; whatever still names it is void.
    pub fn remove(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        assert!(slot.live, "an operation ended twice");
        slot.live = false;
        slot.generation += 1;
        self.free.push(index);
    }

    /// The operation in a slot.
    pub fn get(&self, index: u32) -> &Op {
        &self.slots[index as usize]
    }

    /// The same, to change it.
    pub fn get_mut(&mut self, index: u32) -> &mut Op {
        &mut self.slots[index as usize]
    }

    /// Names the incarnation that is there now.
    pub fn name(&self, index: u32) -> OpRef {
        OpRef { index, generation: self.slots[index as usize].generation }
    }

    /// Whether the incarnation is still there.
    pub fn is(&self, op: OpRef) -> bool {
        let slot = &self.slots[op.index as usize];
        slot.live && slot.generation == op.generation
    }

    /// Voids what is planned for it; the slot stays.
    pub fn renew(&mut self, index: u32) -> OpRef {
        self.slots[index as usize].generation += 1;
        self.name(index)
    }

    /// Every operation that is not over.
    pub fn live(&self) -> impl Iterator<Item = &Op> {
        self.slots.iter().filter(|op| op.live)
    }
}

/// A buffer of the driver's pool, by what is in it.
#[derive(Clone, Debug, Default)]
pub enum Buffer {
    /// Free.
    #[default]
    Free,
    /// Payload of a host's WRITE: its number and first sector.
    Payload(Value, usize),
    /// What a READ brought.
    Data(Vec<Value>),
    /// What a BLOCK_STATUS brought.
    Extents,
}

/// Buffers by [`engine::BufferId`].
#[derive(Debug, Default)]
pub struct Buffers {
    slots: Vec<Buffer>,
    free: Vec<u32>,
}

impl Buffers {
    /// Takes one.
    pub fn insert(&mut self, buffer: Buffer) -> engine::BufferId {
        if let Some(index) = self.free.pop() {
            self.slots[index as usize] = buffer;
            return engine::BufferId(index);
        }
        self.slots.push(buffer);
        engine::BufferId((self.slots.len() - 1) as u32)
    }

    /// Gives one back; what was in it, [`Buffer::Free`] if it was given back before.
    pub fn remove(&mut self, id: engine::BufferId) -> Buffer {
        let buffer = std::mem::take(&mut self.slots[id.0 as usize]);
        if !matches!(buffer, Buffer::Free) {
            self.free.push(id.0);
        }
        buffer
    }

    /// What is in it.
    pub fn get(&self, id: engine::BufferId) -> &Buffer {
        &self.slots[id.0 as usize]
    }

    /// How many are in use.
    pub fn used(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}
