// SPDX-License-Identifier: MIT OR Apache-2.0
//! The only source of chance in a run: SplitMix64, seeded once.

use program::Nanos;

/// See the module header.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// Equal seeds draw equal numbers.
    pub fn new(seed: u64) -> Self {
        // Neighbouring seeds must not run in step.
        let mut rng = Self(seed.wrapping_mul(0xd134_2543_de82_ef95));
        rng.draw();
        rng
    }

    /// Uniform over all of `u64`.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform below `n`, which is not 0.
    pub fn below(&mut self, n: u64) -> u64 {
        // The bias of a 64-bit modulus is far below anything a run could notice.
        self.draw() % n
    }

    /// Uniform in `from..=to`.
    pub fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.below(to - from + 1)
    }

    /// Even over orders of magnitude in `from..=to`, both above 0: short and long alike.
    pub fn spread(&mut self, from: Nanos, to: Nanos) -> Nanos {
        let octaves = u64::from((to / from).max(1).ilog2());
        let low = from << self.below(octaves + 1);
        self.between(low, (low * 2).min(to).max(low))
    }

    /// True `ppm` times in a million.
    pub fn chance(&mut self, ppm: u32) -> bool {
        self.below(1_000_000) < u64::from(ppm)
    }

    /// One of the values, which are not empty.
    pub fn pick<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.below(values.len() as u64) as usize]
    }

    /// Index drawn by weight; the sum is above 0.
    pub fn weighted(&mut self, weights: &[u32]) -> usize {
        let mut at = self.below(weights.iter().map(|&weight| u64::from(weight)).sum());
        for (index, &weight) in weights.iter().enumerate() {
            if at < u64::from(weight) {
                return index;
            }
            at -= u64::from(weight);
        }
        unreachable!("the draw is below the sum")
    }
}
