// SPDX-License-Identifier: MIT OR Apache-2.0
//! Content that proves where and when it was written (rule T1).
//!
//! Every 512-byte sector carries its writer, the writer's sequence number, its own sector
//! number and a checksum. So a read tells apart: the right data, older data (a lost or
//! resurrected write), data of another place, and torn or damaged data.

/// Bytes of a sector.
const SECTOR: usize = 512;

/// Who wrote a block, and which of its writes it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The writer's number.
    pub writer: u16,
    /// Rises with every write of this writer.
    pub sequence: u64,
}

impl Stamp {
    /// First eight bytes of every sector; unique for each write.
    pub fn head(self) -> u64 {
        assert!(self.sequence < 1 << 48, "a sequence number has 48 bits");
        u64::from(self.writer) << 48 | self.sequence
    }

    /// Content of a block at a byte offset; both are multiples of 512.
    pub fn fill(self, offset: u64, len: usize) -> Vec<u8> {
        assert!(offset.is_multiple_of(SECTOR as u64) && len.is_multiple_of(SECTOR), "whole sectors only");
        let mut block = Vec::with_capacity(len);
        for index in 0..len / SECTOR {
            block.extend_from_slice(&self.sector(offset / SECTOR as u64 + index as u64));
        }
        block
    }

    /// Which stamp a block carries; says what is wrong if it is not one whole block of
    /// this offset.
    pub fn check(offset: u64, block: &[u8]) -> Result<Self, String> {
        let head = crate::wire::u64_at(block, 0);
        let stamp = Self { writer: (head >> 48) as u16, sequence: head & ((1 << 48) - 1) };
        for (index, sector) in block.chunks(SECTOR).enumerate() {
            let number = offset / SECTOR as u64 + index as u64;
            if sector != stamp.sector(number) {
                return Err(describe(number, stamp, sector));
            }
        }
        Ok(stamp)
    }

    fn sector(self, number: u64) -> [u8; SECTOR] {
        let mut sector = [0; SECTOR];
        sector[0..8].copy_from_slice(&self.head().to_be_bytes());
        sector[8..16].copy_from_slice(&number.to_be_bytes());
        let mut state = (self.head() ^ number.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        for chunk in sector[16..SECTOR - 8].chunks_mut(8) {
            // xorshift64: cheap, and no two sectors look alike.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            chunk.copy_from_slice(&state.to_be_bytes());
        }
        let sum = checksum(&sector[..SECTOR - 8]);
        sector[SECTOR - 8..].copy_from_slice(&sum.to_be_bytes());
        sector
    }
}

/// FNV-1a, 64 bits.
fn checksum(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

fn describe(number: u64, block: Stamp, sector: &[u8]) -> String {
    let intact = checksum(&sector[..SECTOR - 8]) == crate::wire::u64_at(sector, SECTOR - 8);
    let (head, place) = (crate::wire::u64_at(sector, 0), crate::wire::u64_at(sector, 8));
    if sector.iter().all(|byte| *byte == 0) {
        format!("sector {number} is zero")
    } else if !intact {
        format!("sector {number} is damaged: begins {:02x?}", &sector[..16])
    } else if place != number {
        format!("sector {number} holds data of sector {place}")
    } else {
        format!("sector {number} is torn: write {head:#x} inside a block of write {:#x}", block.head())
    }
}

#[cfg(test)]
mod tests {
    use super::Stamp;

    /// The checker is the suites' oracle: it must tell every kind of damage.
    #[test]
    fn damage_is_told_apart() {
        let stamp = Stamp { writer: 3, sequence: 77 };
        let good = stamp.fill(8192, 4096);
        assert_eq!(Stamp::check(8192, &good), Ok(stamp));

        let elsewhere = Stamp::check(4096, &good).expect_err("it belongs to another offset");
        assert!(elsewhere.contains("holds data of sector 16"), "{elsewhere}");

        let mut damaged = good.clone();
        damaged[1000] ^= 1;
        assert!(Stamp::check(8192, &damaged).expect_err("a bit is wrong").contains("damaged"));

        let mut torn = good.clone();
        torn[2048..].copy_from_slice(&Stamp { writer: 3, sequence: 76 }.fill(8192 + 2048, 2048));
        assert!(Stamp::check(8192, &torn).expect_err("two writes in one block").contains("torn"));

        let mut zeroed = good;
        zeroed[512..1024].fill(0);
        assert!(Stamp::check(8192, &zeroed).expect_err("a sector is lost").contains("is zero"));
    }
}
