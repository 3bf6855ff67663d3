// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which request comes next.
//!
//! Random places are drawn with replacement from the worker's region; sequential ones run through it and start again.
//! With a ledger, a block that has a WRITE in flight is passed over for a WRITE (two would have no order), and a mixed load
//! writes a block before it reads it, so that every READ can be judged.

use nbd::Command;

use super::connection::Request;
use super::ledger::Ledger;
use super::options::{LoadOptions, Pattern};
use super::stamp::Random;

/// Requests of one worker.
#[derive(Debug)]
pub(super) struct Plan {
    pattern: Pattern,
    read_percent: u64,
    block_bytes: u32,
    /// First byte of the region.
    offset: u64,
    blocks: u64,
    next_block: u64,
    random: Random,
}

impl Plan {
    /// For `blocks` blocks from byte `offset`.
    pub(super) fn new(options: &LoadOptions, offset: u64, blocks: u64, seed: u64) -> Self {
        assert!(blocks > 0, "a worker has blocks");
        Self {
            pattern: options.pattern,
            read_percent: u64::from(options.read_percent),
            block_bytes: options.block_bytes,
            offset,
            blocks,
            next_block: 0,
            random: Random::new(seed),
        }
    }

    /// The next request; its mark is the floor of a READ.
    pub(super) fn next(&mut self, ledger: Option<&Ledger>) -> Request {
        match self.pattern {
            Pattern::RandRead => {
                let block = self.random.below(self.blocks);
                self.read(block, ledger)
            }
            Pattern::RandWrite => {
                let block = self.random.below(self.blocks);
                self.write(block, ledger)
            }
            Pattern::Read => {
                let block = self.sequential();
                self.read(block, ledger)
            }
            Pattern::Write => {
                let block = self.sequential();
                self.write(block, ledger)
            }
            Pattern::Mixed => self.mixed(ledger),
        }
    }

    /// A READ of this block.
    pub(super) fn read(&self, block: u64, ledger: Option<&Ledger>) -> Request {
        self.request(Command::Read, block, ledger.map_or(0, |ledger| ledger.floor(block)))
    }

    fn mixed(&mut self, ledger: Option<&Ledger>) -> Request {
        let block = self.random.below(self.blocks);
        let wants_read = self.random.below(100) < self.read_percent;
        if wants_read && ledger.is_none_or(|ledger| ledger.is_known(block)) {
            return self.read(block, ledger);
        }
        self.write(block, ledger)
    }

    fn write(&self, mut block: u64, ledger: Option<&Ledger>) -> Request {
        // There are more blocks than requests in flight, so this ends.
        while ledger.is_some_and(|ledger| ledger.is_writing(block)) {
            block = (block + 1) % self.blocks;
        }
        self.request(Command::Write, block, 0)
    }

    fn sequential(&mut self) -> u64 {
        let block = self.next_block;
        self.next_block = (block + 1) % self.blocks;
        block
    }

    fn request(&self, command: Command, block: u64, mark: u64) -> Request {
        let offset = self.offset + block * u64::from(self.block_bytes);
        Request { command, offset, len: self.block_bytes, block, mark }
    }
}

#[cfg(test)]
mod tests {
    use nbd::Command;

    use super::Plan;
    use crate::load::{Ledger, LoadOptions, Pattern};

    fn plan(pattern: Pattern) -> Plan {
        let options = LoadOptions { pattern, ..LoadOptions::new("nbd://localhost") };
        Plan::new(&options, 8192, 4, 1)
    }

    #[test]
    fn sequential_requests_wrap_and_random_ones_stay_inside() {
        let mut plan = plan(Pattern::Read);
        let offsets: Vec<u64> = (0..5).map(|_| plan.next(None).offset).collect();
        assert_eq!(offsets, [8192, 12288, 16384, 20480, 8192]);
        let mut plan = super::tests::plan(Pattern::RandWrite);
        let mut seen = [false; 4];
        for _ in 0..200 {
            let request = plan.next(None);
            assert_eq!((request.command, request.len), (Command::Write, 4096));
            seen[((request.offset - 8192) / 4096) as usize] = true;
        }
        assert_eq!(seen, [true; 4]);
    }

    /// Otherwise two writes without an order would make any content right, or a read could not be judged.
    #[test]
    fn with_a_ledger_every_request_has_one_right_answer() {
        let mut ledger = Ledger::new(1, 1, 8192, 4, 4096);
        let mut plan = plan(Pattern::Mixed);
        let mut written = Vec::new();
        for _ in 0..3 {
            let mut request = plan.next(Some(&ledger));
            while request.command == Command::Read {
                request = plan.next(Some(&ledger));
            }
            ledger.begin_write(request.block, &mut [0; 4096]);
            written.push(request.block);
        }
        written.sort_unstable();
        written.dedup();
        assert_eq!(written.len(), 3, "each write has a block of its own");
        for _ in 0..50 {
            let request = plan.next(Some(&ledger));
            assert_eq!(request.command, Command::Write, "nothing is acknowledged, so nothing can be read");
        }
    }
}
