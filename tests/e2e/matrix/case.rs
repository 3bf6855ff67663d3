// SPDX-License-Identifier: MIT OR Apache-2.0
//! One cell: its host, its blocks, what was sent and what came back.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::time::Duration;

use tests_support::servers::Change;
use tests_support::wire::{Client, ClientError, Reply, command, errno};
use tests_support::{Stamp, wait};

use super::cell::{Cell, Fate, OPERATIONS, Operation, Stall, fate};
use super::site::Site;

/// Bytes of each block.
const BLOCK: usize = 4096;
/// Blocks for each operation. With both paths in use some A go over the one that is well;
/// each goes on to the next block until one is stalled.
const BLOCKS: u64 = 8;
const FIRST_BLOCK: u64 = 16;
/// More than a relay's receive buffer and its window take, so that A stays behind it.
const FILLER_BYTES: usize = 32 << 10;
const FILLER_OFFSET: u64 = 512 << 10;
/// Bytes of a request without its payload.
const HEADER: u64 = 28;
/// Long enough to take an answer that is there.
const LOOK: Duration = Duration::from_millis(1);

const X: Stamp = Stamp { writer: 0xeeee, sequence: 1 };

/// One block, written as X, then perhaps as A and B.
struct Block {
    operation: Operation,
    offset: u64,
    a: Stamp,
    b: Stamp,
    /// A was sent.
    used: bool,
    /// A is stalled.
    stalled: bool,
    /// NBD error of B's answer.
    answer: Option<u32>,
}

/// See the module header.
pub(super) struct Case {
    pub(super) cell: Cell,
    stall: Stall,
    image: String,
    host: Client,
    blocks: Vec<Block>,
    fillers: u64,
    /// What each cookie in flight stands for.
    waiting: HashMap<u64, Sent>,
}

/// A request in flight; blocks by their index.
#[derive(Clone, Copy)]
enum Sent {
    Filler,
    A(usize),
    B(usize),
}

impl Case {
    /// Opens the device and writes X everywhere, flushed.
    pub(super) fn open(site: &Site, cell: Cell, stall: Stall) -> Self {
        let name = cell.to_string();
        let blocks = OPERATIONS.iter().zip(0..).flat_map(|(operation, row)| {
            (0..BLOCKS).map(move |column| {
                let number = FIRST_BLOCK + row * BLOCKS + column;
                Block {
                    operation: *operation,
                    offset: number * BLOCK as u64,
                    a: Stamp { writer: 0xaaaa, sequence: number },
                    b: Stamp { writer: 0xbbbb, sequence: number },
                    used: false,
                    stalled: false,
                    answer: None,
                }
            })
        });
        let (image, host) = (site.dir.text(&name), site.node.open(&name));
        let mut case =
            Self { cell, stall, image, host, blocks: blocks.collect(), fillers: 0, waiting: HashMap::new() };
        for index in 0..case.blocks.len() {
            let offset = case.blocks[index].offset;
            let reply = case.host.write(offset, &X.fill(offset, BLOCK)).expect("all is well");
            assert_eq!(reply.error, 0, "{case}: X");
        }
        assert_eq!(case.host.flush().expect("all is well").error, 0, "{case}: FLUSH of X");
        case
    }

    /// Sends the next A of an operation, or with none something ahead of all A that fills
    /// every buffer on the way.
    pub(super) fn submit_next(&mut self, operation: Option<Operation>) {
        let Some(operation) = operation else { return self.submit_filler() };
        let next = self.blocks.iter().position(|block| block.operation == operation && !block.used);
        let index = next.unwrap_or_else(|| panic!("{self}: no {operation:?} was sent on path a"));
        let block = &mut self.blocks[index];
        block.used = true;
        let (command, flags) = operation.command();
        let payload = block.a.fill(block.offset, if operation.zeroes() { 0 } else { BLOCK });
        let cookie = self.host.submit(command, flags, block.offset, BLOCK as u32, &payload);
        self.waiting.insert(cookie.expect("the socket takes it"), Sent::A(index));
    }

    fn submit_filler(&mut self) {
        let offset = FILLER_OFFSET + self.fillers * FILLER_BYTES as u64;
        self.fillers += 1;
        let cookie = self.host.submit_write(offset, &vec![0xf1; FILLER_BYTES]).expect("the socket takes it");
        self.waiting.insert(cookie, Sent::Filler);
    }

    /// Whether the last request submitted was answered, that is: it went over path `b`.
    pub(super) fn went_well(&mut self, stalled: usize) -> bool {
        self.take_answers();
        assert!(self.waiting.len() >= stalled, "{self}: a stalled A was answered while its path was well");
        self.waiting.len() == stalled
    }

    /// What is unanswered now is stalled.
    pub(super) fn mark_stalled(&mut self) {
        for sent in self.waiting.values() {
            if let Sent::A(index) = *sent {
                self.blocks[index].stalled = true;
            }
        }
    }

    pub(super) fn submit_b(&mut self) {
        for (index, block) in self.blocks.iter().enumerate().filter(|(_, block)| block.used) {
            let cookie = self.host.submit_write(block.offset, &block.b.fill(block.offset, BLOCK));
            self.waiting.insert(cookie.expect("the socket takes it"), Sent::B(index));
        }
    }

    /// Every A is answered: path `b` is there all the time.
    pub(super) fn await_a(&mut self) {
        self.await_all("A");
    }

    /// Every B is answered, and every A that is not yet.
    pub(super) fn await_b(&mut self) {
        self.await_all("B");
    }

    fn await_all(&mut self, what: &str) {
        while !self.waiting.is_empty() {
            let answer = self.host.reply(|_| 0);
            let reply = answer.unwrap_or_else(|e| {
                panic!("{self}: {} of {what} are not answered: {e:?}", self.waiting.len())
            });
            self.take(&reply);
        }
    }

    fn take(&mut self, reply: &Reply) {
        match self.waiting.remove(&reply.cookie) {
            Some(Sent::B(index)) => self.blocks[index].answer = Some(reply.error),
            Some(Sent::A(_) | Sent::Filler) => {
                assert_eq!(reply.error, 0, "{self}: a write failed although a path is well");
            }
            None => panic!("{self}: an answer nobody asked for: {reply:?}"),
        }
    }

    /// Takes the answers that are there.
    fn take_answers(&mut self) {
        self.host.set_read_bound(LOOK).expect("a socket has a bound");
        loop {
            match self.host.reply(|_| 0) {
                Ok(reply) => self.take(&reply),
                Err(ClientError::Io(e)) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) => panic!("{self}: {e:?}"),
            }
        }
        self.host.set_read_bound(wait::BOUND).expect("a socket has a bound");
    }

    /// Fails unless B waits wherever A is stalled.
    pub(super) fn assert_b_waits(&mut self) {
        self.take_answers();
        for block in self.blocks.iter().filter(|block| block.stalled) {
            let operation = block.operation;
            assert!(
                block.answer.is_none(),
                "{self}, {operation:?}: B did not wait for proof: {:?}",
                block.answer
            );
        }
    }

    /// Bytes of the A that path `a` has to carry.
    pub(super) fn bytes_on_path() -> u64 {
        let frame = |operation: &Operation| HEADER + if operation.zeroes() { 0 } else { BLOCK as u64 };
        OPERATIONS.iter().map(frame).sum()
    }

    /// Stalled blocks whose A the stalled processes have begun, or made.
    fn ghosts(&self, site: &Site, done: bool) -> Vec<Operation> {
        let side = site.side(self.cell.mode);
        let Some(trace) = side.trace() else { return Vec::new() };
        let changes = trace.changes();
        let of_ghost = |block: &Block, change: &Change| {
            let head = if block.operation.zeroes() { 0 } else { block.a.head() };
            change.done == done
                && change.file == self.image
                && change.offset == block.offset
                && change.head == head
                && side.was_stalled(change.pid)
        };
        let stalled = self.blocks.iter().filter(|block| block.stalled);
        let begun = stalled.filter(|block| changes.iter().any(|change| of_ghost(block, change)));
        begun.map(|block| block.operation).collect()
    }

    /// Waits until the stalled server has begun with A.
    pub(super) fn await_begun(&self, site: &Site) {
        wait::until_true(&format!("{self}: the server to begin with A"), || {
            self.ghosts(site, false) == OPERATIONS
        });
    }

    /// Fails if a copy of A was executed although it is stalled.
    pub(super) fn assert_stalled(&self, site: &Site) {
        let ghosts = self.ghosts(site, true);
        assert!(ghosts.is_empty(), "{self}: nothing is stalled, {ghosts:?} were executed");
    }

    /// Waits until the stalled copies have met their fate, as far as one can see it (T6).
    pub(super) fn await_fate(&self, site: &Site) {
        let executed = || self.ghosts(site, true) == OPERATIONS;
        let spent = || site.is_spent(self.cell);
        let fate = fate(self.stall, self.cell);
        wait::until_true(&format!("{self}: the stalled copies to be {fate:?}"), || match fate {
            Fate::Executed | Fate::Answered => executed(),
            Fate::Discarded => spent(),
        });
    }

    /// The storage holds B, or what it may hold where B was answered with EIO.
    pub(super) fn assert_storage(&mut self, site: &Site) {
        let fate = fate(self.stall, self.cell);
        if fate == Fate::Discarded {
            let ghosts = self.ghosts(site, true);
            assert!(ghosts.is_empty(), "{self}: {ghosts:?} were carried out after all (W1)");
        }
        assert_eq!(self.host.flush().expect("a path is there").error, 0, "{self}: FLUSH");
        let disk = std::fs::read(&self.image).expect("it is there");
        for block in self.blocks.iter().filter(|block| block.used) {
            let (offset, place) = (block.offset, format!("{self}, {:?}", block.operation));
            let found = &disk[offset as usize..offset as usize + BLOCK];
            let is_b = found == block.b.fill(offset, BLOCK);
            let is_a = found == block.operation.content(block.a, offset, BLOCK);
            match block.answer {
                Some(0) => {
                    assert!(is_b, "{place}: B was answered and the storage holds {}", name(found, is_a));
                }
                Some(errno::EIO) => {
                    assert!(is_a || is_b, "{place}: B got EIO and the storage holds {}", name(found, is_a));
                }
                other => panic!("{place}: B was answered {other:?}"),
            }
        }
    }

    /// Answer to B over the stalled A of each operation.
    pub(super) fn answers(&self) -> Vec<(Operation, u32)> {
        let stalled = self.blocks.iter().filter(|block| block.stalled);
        stalled.filter_map(|block| Some((block.operation, block.answer?))).collect()
    }

    /// Reads every block through Holdfast and compares it with the storage.
    pub(super) fn assert_readable(&mut self) {
        let disk = std::fs::read(&self.image).expect("it is there");
        for index in 0..self.blocks.len() {
            let offset = self.blocks[index].offset;
            let reply = self.host.call(command::READ, 0, offset, BLOCK as u32).expect("a path is there");
            assert_eq!(reply.error, 0, "{self}: READ");
            assert!(reply.data == disk[offset as usize..offset as usize + BLOCK], "{self}: READ differs");
        }
    }
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "A stalled in {:?}, {}", self.stall, self.cell)
    }
}

fn name(found: &[u8], is_a: bool) -> String {
    if is_a { "A".to_owned() } else { format!("neither A nor B: {:02x?}", &found[..16]) }
}
