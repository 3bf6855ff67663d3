// SPDX-License-Identifier: MIT OR Apache-2.0
//! A small deterministic generator, so that every run draws the same values.
#![allow(dead_code, reason = "each test file uses its own part")]

pub(crate) mod server;

/// One second in nanoseconds.
pub(crate) const SECOND: u64 = 1_000_000_000;
/// One millisecond in nanoseconds.
pub(crate) const MILLISECOND: u64 = 1_000_000;

/// SplitMix64: equidistributed, and any seed will do.
pub(crate) struct Draws(u64);

impl Draws {
    /// Draws that follow from `seed` alone.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Uniform over all of `u64`.
    pub(crate) fn any(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform over `0..end`; `end` is at least 1.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.any()) * u128::from(end)) >> 64) as u64
    }

    /// One of the items.
    pub(crate) fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len() as u64) as usize]
    }
}

/// Every sequence of `len` items, for exhaustive tests.
pub(crate) fn sequences<T: Clone>(items: &[T], len: usize) -> Vec<Vec<T>> {
    (0..len).fold(vec![Vec::new()], |all, _| {
        all.iter()
            .flat_map(|head| {
                items.iter().map(move |item| {
                    let mut longer = head.clone();
                    longer.push(item.clone());
                    longer
                })
            })
            .collect()
    })
}
