// SPDX-License-Identifier: MIT OR Apache-2.0
//! What every block must hold: the oracle of `--verify` (rules T1, T2).
//!
//! Rule: a READ must return, sector by sector, a write that was at least the last one acknowledged when the READ was sent,
//! and at most the last one sent when its reply came. Anything below that floor is an acknowledged write that was lost,
//! or an older one that came back; anything above the ceiling was never written. A block has one writer and at most one
//! WRITE in flight, because NBD gives no order to overlapping WRITEs; READs may overlap it freely.
//!
//! A WRITE that failed or was never answered may have happened or not: it raises the ceiling and leaves the floor.
//! Nothing here times out, so no ghost can hide behind an "unknown" (T2).

use super::stamp::{SECTOR_BYTES, Sector, Stamp};

/// Problems that are kept in words; all of them are counted.
const EXAMPLES_MAX: usize = 10;

/// The blocks of one worker and what was written to them.
#[derive(Debug)]
pub struct Ledger {
    device: u64,
    writer: u64,
    block_bytes: usize,
    /// Sector number of the first block.
    first_lba: u64,
    /// Last sequence number sent, for all blocks.
    sequence: u64,
    blocks: Vec<Block>,
    findings: Findings,
}

/// What reads found wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// READs with at least one wrong sector.
    pub violations: u64,
    /// The first of them in words.
    pub examples: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Block {
    /// Last write sent; 0 for none.
    sent: u64,
    /// Last write acknowledged; 0 for none.
    acknowledged: u64,
    writing: bool,
}

impl Ledger {
    /// For `blocks` blocks from byte `offset`; both sizes are whole sectors.
    pub fn new(device: u64, writer: u64, offset: u64, blocks: u64, block_bytes: u32) -> Self {
        let sector = SECTOR_BYTES as u64;
        assert!(offset.is_multiple_of(sector) && u64::from(block_bytes).is_multiple_of(sector));
        Self {
            device,
            writer,
            block_bytes: block_bytes as usize,
            first_lba: offset / sector,
            sequence: 0,
            blocks: vec![Block::default(); blocks as usize],
            findings: Findings::default(),
        }
    }

    /// Blocks in all.
    pub fn blocks(&self) -> u64 {
        self.blocks.len() as u64
    }

    /// Whether a WRITE of this block is in flight.
    pub fn is_writing(&self, block: u64) -> bool {
        self.blocks[block as usize].writing
    }

    /// Whether the block's content is known: a WRITE of it was acknowledged.
    pub fn is_known(&self, block: u64) -> bool {
        self.blocks[block as usize].acknowledged > 0
    }

    /// A WRITE of `block` is about to be sent: fills its payload and returns its sequence number.
    pub fn begin_write(&mut self, block: u64, payload: &mut [u8]) -> u64 {
        let lba = self.lba(block);
        let state = &mut self.blocks[block as usize];
        assert!(!state.writing, "two writes of block {block} at once have no order");
        self.sequence += 1;
        state.writing = true;
        state.sent = self.sequence;
        let stamp = Stamp { device: self.device, writer: self.writer, sequence: self.sequence };
        stamp.fill(lba, payload);
        self.sequence
    }

    /// The WRITE with this sequence number ended.
    pub fn end_write(&mut self, block: u64, sequence: u64, acknowledged: bool) {
        let state = &mut self.blocks[block as usize];
        assert!(state.writing && state.sent == sequence, "the write that ends is the one in flight");
        state.writing = false;
        if acknowledged {
            state.acknowledged = sequence;
        }
    }

    /// Oldest write that a READ sent now may return.
    pub fn floor(&self, block: u64) -> u64 {
        self.blocks[block as usize].acknowledged
    }

    /// A READ of `block` came back; `floor` is what [`floor`](Self::floor) said when it was sent. A block that was never
    /// written by us is not judged.
    pub fn check(&mut self, block: u64, floor: u64, data: &[u8]) {
        if floor == 0 {
            return;
        }
        assert!(data.len() == self.block_bytes, "whole blocks are read");
        let lba = self.lba(block);
        let ceiling = self.blocks[block as usize].sent;
        for (index, sector) in data.chunks_exact(SECTOR_BYTES).enumerate() {
            let lba = lba + index as u64;
            if let Some(problem) = self.judge(lba, floor, ceiling, sector) {
                self.findings.add(format!("sector {lba}: {problem}"));
                return;
            }
        }
    }

    /// What was found so far.
    pub fn findings(&self) -> &Findings {
        &self.findings
    }

    fn judge(&self, lba: u64, floor: u64, ceiling: u64, sector: &[u8]) -> Option<String> {
        let allowed = if floor == ceiling {
            format!("write {floor} was acknowledged")
        } else {
            format!("writes {floor} (acknowledged) to {ceiling} (sent) are possible")
        };
        let (stamp, place) = match Sector::read(sector) {
            Sector::Of { stamp, lba } => (stamp, lba),
            Sector::Zero => return Some(format!("holds zeroes, but {allowed}")),
            Sector::Damaged => return Some(format!("is damaged or foreign: begins {:02x?}", &sector[..16])),
        };
        let Stamp { device, writer, sequence } = stamp;
        if device != self.device {
            return Some(format!("holds data of device {device:#x} instead of {:#x}", self.device));
        }
        if place != lba {
            return Some(format!("holds data of sector {place}"));
        }
        if writer != self.writer {
            return Some(format!("holds data of writer {writer:#x}, but {allowed} by {:#x}", self.writer));
        }
        if sequence < floor {
            return Some(format!("went back to write {sequence}, but {allowed}"));
        }
        if sequence > ceiling {
            return Some(format!("holds write {sequence}, which was never sent; {allowed}"));
        }
        None
    }

    fn lba(&self, block: u64) -> u64 {
        self.first_lba + block * (self.block_bytes / SECTOR_BYTES) as u64
    }
}

impl Findings {
    /// Adds those of another worker.
    pub fn merge(&mut self, other: &Self) {
        self.violations += other.violations;
        let room = EXAMPLES_MAX - self.examples.len().min(EXAMPLES_MAX);
        self.examples.extend(other.examples.iter().take(room).cloned());
    }

    fn add(&mut self, problem: String) {
        self.violations += 1;
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(problem);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Ledger;

    fn ledger() -> Ledger {
        Ledger::new(1, 2, 8192, 4, 4096)
    }

    fn write(ledger: &mut Ledger, block: u64) -> Vec<u8> {
        let mut payload = vec![0; 4096];
        let sequence = ledger.begin_write(block, &mut payload);
        ledger.end_write(block, sequence, true);
        payload
    }

    fn problem_of(ledger: &Ledger) -> &str {
        assert_eq!(ledger.findings().violations, 1);
        &ledger.findings().examples[0]
    }

    #[test]
    fn the_last_acknowledged_write_is_right() {
        let mut ledger = ledger();
        write(&mut ledger, 1);
        let newest = write(&mut ledger, 1);
        ledger.check(1, ledger.floor(1), &newest);
        assert_eq!(ledger.findings().violations, 0);
    }

    #[test]
    fn an_older_write_is_a_resurrection() {
        let mut ledger = ledger();
        let oldest = write(&mut ledger, 1);
        write(&mut ledger, 1);
        ledger.check(1, ledger.floor(1), &oldest);
        assert!(problem_of(&ledger).contains("went back to write 1"), "{}", problem_of(&ledger));
    }

    /// One old sector in a new block is a lost write as much as a whole one.
    #[test]
    fn a_torn_block_is_found() {
        let mut ledger = ledger();
        let oldest = write(&mut ledger, 1);
        let mut torn = write(&mut ledger, 1);
        torn[512..1024].copy_from_slice(&oldest[512..1024]);
        ledger.check(1, ledger.floor(1), &torn);
        assert!(problem_of(&ledger).starts_with("sector 25:"), "{}", problem_of(&ledger));
    }

    #[test]
    fn a_read_beside_a_write_may_see_either() {
        let mut ledger = ledger();
        let before = write(&mut ledger, 1);
        let floor = ledger.floor(1);
        let mut after = vec![0; 4096];
        let sequence = ledger.begin_write(1, &mut after);
        ledger.check(1, floor, &before);
        ledger.check(1, floor, &after);
        ledger.end_write(1, sequence, true);
        // The read was sent before the acknowledgement, so its floor is still the old one.
        ledger.check(1, floor, &before);
        assert_eq!(ledger.findings().violations, 0);
        ledger.check(1, ledger.floor(1), &before);
        assert_eq!(ledger.findings().violations, 1);
    }

    #[test]
    fn a_failed_write_may_have_happened_or_not() {
        let mut ledger = ledger();
        let before = write(&mut ledger, 1);
        let mut failed = vec![0; 4096];
        let sequence = ledger.begin_write(1, &mut failed);
        ledger.end_write(1, sequence, false);
        ledger.check(1, ledger.floor(1), &before);
        ledger.check(1, ledger.floor(1), &failed);
        assert_eq!(ledger.findings().violations, 0);
    }

    #[test]
    fn zeroes_other_places_and_other_writers_are_found() {
        let mut ours = ledger();
        let elsewhere = write(&mut ours, 2);
        write(&mut ours, 1);
        let floor = ours.floor(1);
        ours.check(1, floor, &elsewhere);
        ours.check(1, floor, &[0; 4096]);
        ours.check(1, floor, &[5; 4096]);
        let mut theirs = Ledger::new(1, 9, 8192, 4, 4096);
        ours.check(1, floor, &write(&mut theirs, 1));
        let mut foreign = Ledger::new(8, 2, 8192, 4, 4096);
        ours.check(1, floor, &write(&mut foreign, 1));
        let words = ["data of sector 32", "zeroes", "damaged", "data of writer", "data of device"];
        assert_eq!(ours.findings().violations, words.len() as u64);
        for (found, word) in ours.findings().examples.iter().zip(words) {
            assert!(found.contains(word), "{found}");
        }
    }
}
