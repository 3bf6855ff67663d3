// SPDX-License-Identifier: MIT OR Apache-2.0
//! A set of ranges, told what is new of each that is added.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// Ranges seen so far, merged.
#[derive(Default)]
pub(crate) struct Covered(BTreeMap<u64, u64>);

impl Covered {
    /// Adds `[start, end)` and tells each part of it that was not covered before.
    pub(crate) fn add(&mut self, start: u64, end: u64, mut fresh: impl FnMut(u64, u64)) {
        let (mut first, mut last) = (start, end);
        let mut at = start;
        let before = self.0.range(..start).next_back().filter(|&(_, &e)| e >= start).map(|(&s, &e)| (s, e));
        let mut touching: Vec<(u64, u64)> = before.into_iter().collect();
        touching.extend(self.0.range(start..=end).map(|(&s, &e)| (s, e)));
        for (s, e) in touching {
            self.0.remove(&s);
            if at < s.min(end) {
                fresh(at, s.min(end));
            }
            at = at.max(e);
            first = first.min(s);
            last = last.max(e);
        }
        if at < end {
            fresh(at, end);
        }
        self.0.insert(first, last);
    }

    /// Whether any part of `[start, end)` was added.
    pub(crate) fn touches(&self, start: u64, end: u64) -> bool {
        self.0.range(..end).next_back().is_some_and(|(_, &last)| last > start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against a naive reference: every unit is told fresh exactly once.
    #[test]
    fn each_part_is_fresh_once() {
        let mut seed = 7_u64;
        let mut draw = |n: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % n
        };
        for _ in 0..200 {
            let mut covered = Covered::default();
            let mut seen = [false; 64];
            for _ in 0..40 {
                let start = draw(60);
                let end = start + 1 + draw(64 - start - 1).min(12);
                let mut told = [false; 64];
                covered.add(start, end, |from, to| {
                    assert!(from < to && from >= start && to <= end);
                    for unit in from..to {
                        assert!(!told[unit as usize], "told twice");
                        told[unit as usize] = true;
                    }
                });
                for unit in start..end {
                    assert_eq!(told[unit as usize], !seen[unit as usize], "unit {unit}");
                    seen[unit as usize] = true;
                }
            }
            let ranges: Vec<_> = covered.0.iter().collect();
            assert!(ranges.windows(2).all(|pair| pair[0].1 < pair[1].0), "ranges are merged and disjoint");
        }
    }
}
