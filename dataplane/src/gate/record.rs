// SPDX-License-Identifier: MIT OR Apache-2.0
//! The durable record of a register: what it says, and the page that says it.
//!
//! ```text
//!    0  "HFGATE\0" and the format
//!    8  sequence: of two pages the higher one counts
//!   16  volume UUID
//!   32  highest epoch
//!   40  index of its holder, ff ff ff ff for nobody
//!   44  cache generation
//!   52  boot id of the kernel that the generation was counted under
//!   68  count of members, then for each: length of its name, name, floor
//! 8184  xxh3 of everything before
//! ```
//!
//! Numbers are big-endian. Two pages are written in turn, so that a torn write leaves the other one.

use policies::fence::{Member, Register};
use policies::limits::FENCE_MEMBERS_MAX;
use xxhash_rust::xxh3::xxh3_64;

/// Bytes of one page.
pub(crate) const PAGE_BYTES: usize = 8192;
const CHECKSUM_AT: usize = PAGE_BYTES - 8;
const MAGIC: &[u8; 7] = b"HFGATE\0";
/// | format | reason |
/// |---|---|
/// | 1 | first one |
const FORMAT: u8 = 1;

const _: () =
    assert!(70 + FENCE_MEMBERS_MAX * (1 + nbd::gate::MEMBER_MAX_BYTES + 8) <= CHECKSUM_AT, "it must fit");

/// See the module header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) sequence: u64,
    pub(crate) volume: u128,
    pub(crate) cache_generation: u64,
    pub(crate) boot: u128,
    pub(crate) register: Register,
}

/// Why a page says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unusable {
    /// Torn, changed or not ours.
    Damaged,
    /// Written by a later version.
    Newer(u8),
}

impl Record {
    pub(crate) fn encode(&self) -> [u8; PAGE_BYTES] {
        let mut page = [0; PAGE_BYTES];
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            page[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        put(MAGIC);
        put(&[FORMAT]);
        put(&self.sequence.to_be_bytes());
        put(&self.volume.to_be_bytes());
        put(&self.register.epoch.to_be_bytes());
        put(&self.register.holder.map_or(u32::MAX, |index| index as u32).to_be_bytes());
        put(&self.cache_generation.to_be_bytes());
        put(&self.boot.to_be_bytes());
        put(&(self.register.members.len() as u16).to_be_bytes());
        for member in &self.register.members {
            put(&[member.name.len() as u8]);
            put(member.name.as_bytes());
            put(&member.floor.to_be_bytes());
        }
        let checksum = xxh3_64(&page[..CHECKSUM_AT]);
        page[CHECKSUM_AT..].copy_from_slice(&checksum.to_be_bytes());
        page
    }

    pub(crate) fn decode(page: &[u8; PAGE_BYTES]) -> Result<Self, Unusable> {
        let (body, checksum) = page.split_at(CHECKSUM_AT);
        if xxh3_64(body).to_be_bytes() != checksum {
            return Err(Unusable::Damaged);
        }
        let body = body.strip_prefix(MAGIC).ok_or(Unusable::Damaged)?;
        match body[0] {
            FORMAT => Self::decode_body(&body[1..]).ok_or(Unusable::Damaged),
            0 => Err(Unusable::Damaged),
            newer => Err(Unusable::Newer(newer)),
        }
    }

    fn decode_body(mut body: &[u8]) -> Option<Self> {
        let body = &mut body;
        let sequence = u64::from_be_bytes(take(body)?);
        let volume = u128::from_be_bytes(take(body)?);
        let epoch = u64::from_be_bytes(take(body)?);
        let holder = u32::from_be_bytes(take(body)?);
        let cache_generation = u64::from_be_bytes(take(body)?);
        let boot = u128::from_be_bytes(take(body)?);
        let count = usize::from(u16::from_be_bytes(take(body)?));
        let mut members = Vec::new();
        for _ in 0..count.min(FENCE_MEMBERS_MAX + 1) {
            let [len] = take(body)?;
            let (name, rest) = body.split_at_checked(usize::from(len))?;
            *body = rest;
            let name = str::from_utf8(name).ok().filter(|name| nbd::gate::is_valid_member(name))?;
            members.push(Member { name: name.to_owned(), floor: u64::from_be_bytes(take(body)?) });
        }
        let holder = (holder != u32::MAX).then_some(holder as usize);
        let lawful = members.len() <= FENCE_MEMBERS_MAX && holder.is_none_or(|index| index < members.len());
        let register = Register { epoch, holder, members };
        lawful.then_some(Self { sequence, volume, cache_generation, boot, register })
    }
}

fn take<const N: usize>(from: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = from.split_first_chunk::<N>()?;
    *from = rest;
    Some(*head)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(members: usize) -> Record {
        let member = |index: usize| Member { name: format!("m{index}"), floor: index as u64 };
        Record {
            sequence: 9,
            volume: 1 << 100,
            cache_generation: 3,
            boot: 5,
            register: Register {
                epoch: 7,
                holder: members.checked_sub(1),
                members: (0..members).map(member).collect(),
            },
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        for members in [0, 1, FENCE_MEMBERS_MAX] {
            assert_eq!(Record::decode(&record(members).encode()), Ok(record(members)));
        }
        let mut long = record(FENCE_MEMBERS_MAX);
        for (index, member) in long.register.members.iter_mut().enumerate() {
            member.name = format!("{index:064}");
        }
        assert_eq!(Record::decode(&long.encode()), Ok(long));
    }

    #[test]
    fn every_changed_byte_and_every_torn_page_is_noticed() {
        let page = record(2).encode();
        let older = Record { sequence: 8, ..record(1) }.encode();
        for at in 0..PAGE_BYTES {
            let mut changed = page;
            changed[at] ^= 1;
            assert_eq!(Record::decode(&changed), Err(Unusable::Damaged), "byte {at}");
            let mut torn = older;
            torn[..at].copy_from_slice(&page[..at]);
            assert!(torn == older || Record::decode(&torn) == Err(Unusable::Damaged), "torn at {at}");
        }
        assert_eq!(Record::decode(&[0; PAGE_BYTES]), Err(Unusable::Damaged));
    }

    #[test]
    fn a_later_format_is_told_apart() {
        let mut page = record(1).encode();
        page[7] = 2;
        let checksum = xxh3_64(&page[..CHECKSUM_AT]);
        page[CHECKSUM_AT..].copy_from_slice(&checksum.to_be_bytes());
        assert_eq!(Record::decode(&page), Err(Unusable::Newer(2)));
    }
}
