// SPDX-License-Identifier: MIT OR Apache-2.0
//! Content that proves what was written where, when and by whom (rule T1).
//!
//! Every 512-byte sector carries the device, its own sector number, the writer, the writer's sequence number and a
//! checksum over the whole sector. So one look at a sector tells apart: the right data, older data (a lost or
//! resurrected write), data of another place or device, and damage. Sectors and not blocks, because a storage device
//! may tear a block, never a sector.
//!
//! The filler between the header and the checksum differs from write to write. A constant one would let half of an old
//! sector pass for half of a new one until the checksum is reached, and storage that compresses or deduplicates would
//! be measured at something nobody stores.

use xxhash_rust::xxh3::xxh3_64;

/// Bytes of a sector.
pub const SECTOR_BYTES: usize = 512;

/// Marks a sector of ours; the rest of the content is judged only behind it.
const MAGIC: u64 = 0x484f_4c44_4641_5354;
const HEADER_BYTES: usize = 40;
const SUM_AT: usize = SECTOR_BYTES - 8;

/// Which write a sector comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Number of the device, the same for everybody who reads or writes it.
    pub device: u64,
    /// Number of the writer; no two writers of all time share one.
    pub writer: u64,
    /// Rises with every write of this writer, from 1.
    pub sequence: u64,
}

/// What a sector turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sector {
    /// Whole, and of this write.
    Of {
        /// Which write.
        stamp: Stamp,
        /// Sector number it was written for.
        lba: u64,
    },
    /// Nothing but zeroes.
    Zero,
    /// Not one of ours, or damaged: the checksum is wrong.
    Damaged,
}

impl Stamp {
    /// Fills `block`, which will be written at sector `lba`; it must be whole sectors.
    pub fn fill(self, lba: u64, block: &mut [u8]) {
        assert!(block.len().is_multiple_of(SECTOR_BYTES), "whole sectors only");
        for (index, sector) in block.chunks_exact_mut(SECTOR_BYTES).enumerate() {
            self.fill_sector(lba + index as u64, sector);
        }
    }

    fn fill_sector(self, lba: u64, sector: &mut [u8]) {
        let fields = [MAGIC, self.device, lba, self.writer, self.sequence];
        for (place, field) in sector.chunks_exact_mut(8).zip(fields) {
            place.copy_from_slice(&field.to_be_bytes());
        }
        let mut filler = Random::new(self.sequence ^ lba.rotate_left(24) ^ self.writer.rotate_left(40));
        for place in sector[HEADER_BYTES..SUM_AT].chunks_exact_mut(8) {
            place.copy_from_slice(&filler.next().to_be_bytes());
        }
        let sum = xxh3_64(&sector[..SUM_AT]);
        sector[SUM_AT..].copy_from_slice(&sum.to_be_bytes());
    }
}

impl Sector {
    /// Judges one sector.
    pub fn read(sector: &[u8]) -> Self {
        assert!(sector.len() == SECTOR_BYTES, "one sector");
        if word(sector, 0) != MAGIC {
            let zero = sector.iter().all(|byte| *byte == 0);
            return if zero { Self::Zero } else { Self::Damaged };
        }
        if xxh3_64(&sector[..SUM_AT]) != word(sector, SUM_AT) {
            return Self::Damaged;
        }
        let stamp = Stamp { device: word(sector, 8), writer: word(sector, 24), sequence: word(sector, 32) };
        Self::Of { stamp, lba: word(sector, 16) }
    }
}

fn word(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_be_bytes(word)
}

/// xorshift64: cheap, seeded, good enough to spread requests and fill sectors.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Equal seeds give equal sequences.
    pub fn new(seed: u64) -> Self {
        // A state of zero would stay zero; the multiplication spreads small seeds over all bits.
        Self(seed.wrapping_add(0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9) | 1)
    }

    /// The next number.
    #[allow(clippy::should_implement_trait, reason = "it never ends, so it is no Iterator")]
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::{SECTOR_BYTES, Sector, Stamp};

    const STAMP: Stamp = Stamp { device: 7, writer: 3, sequence: 77 };

    #[test]
    fn every_sector_tells_its_write_and_its_place() {
        let mut block = vec![0; 8 * SECTOR_BYTES];
        STAMP.fill(40, &mut block);
        for (index, sector) in block.chunks(SECTOR_BYTES).enumerate() {
            assert_eq!(Sector::read(sector), Sector::Of { stamp: STAMP, lba: 40 + index as u64 });
        }
    }

    #[test]
    fn any_flipped_bit_is_damage() {
        let mut good = vec![0; SECTOR_BYTES];
        STAMP.fill(40, &mut good);
        for at in 0..SECTOR_BYTES {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            assert_eq!(Sector::read(&bad), Sector::Damaged, "byte {at}");
        }
        assert_eq!(Sector::read(&[0; SECTOR_BYTES]), Sector::Zero);
    }
}
