// SPDX-License-Identifier: MIT OR Apache-2.0
//! What service time to expect of a path, from the requests it has answered.
//!
//! **Model.** For reads and writes apart, five size classes each keep a decaying average:
//! a 4 KiB read and a 1 MiB write say little about each other, and one average over both
//! would follow the mix of the host instead of the path. A new sample moves the average
//! by 1/8 of its distance and counts as at most 4 times the average, so that one hiccup
//! does not shun a path.
//!
//! **Forgetting by count.** A class with no sample among the last 256 of its path is
//! unknown again. A path that became fast again for small reads would else never get back its
//! large ones: nobody sends them, nothing measures them. Counting needs no clock, and an
//! unused path keeps what it knew (the selector re-samples it).
//!
//! **Guess low or not at all.** For an unknown class the nearest smaller one answers. That
//! can only be too low, and a guess that is too low is tried and thereby corrected. A larger
//! class or the other direction would guess too high, and a path that is wrongly held to be
//! slow is not tried: in a mix of sizes it would be left with large requests only, for good.
//! So with no smaller class the answer is "unknown", which the selector tries out.
//!
//! **Quantiles** over all requests come from a histogram of powers of two that is halved
//! at 4,096 samples: 32 counters, no allocation, older samples weigh less. Within a bucket
//! values are taken as evenly spread, so a quantile is right to within its bucket (a
//! factor of two at worst). That is enough for display and for when to hedge.

use crate::limits::{
    FULL_SHARE_PPM, HISTOGRAM_BUCKETS, HISTOGRAM_SAMPLE_WEIGHT, HISTOGRAM_SAMPLES_MAX,
    LATENCY_CLASS_MEMORY_RECORDS, LATENCY_DECAY_DIVISOR, LATENCY_OUTLIER_FACTOR, MICROSECOND,
    SIZE_CLASS_BYTES_MAX, SIZE_CLASSES,
};

/// Index of the size class of a request: <= 4 KiB, <= 16 KiB, <= 64 KiB, <= 256 KiB, larger.
pub fn size_class(len_bytes: u64) -> usize {
    SIZE_CLASS_BYTES_MAX.iter().take_while(|&&max| len_bytes > max).count()
}

/// Decaying average of one direction and size class.
#[derive(Clone, Copy, Debug, Default)]
struct Average {
    /// 0 = never measured.
    ns: u64,
    /// Number of the path's record that last moved it.
    record: u64,
}

/// Service times of one path.
#[derive(Clone, Debug, Default)]
pub struct Latency {
    /// Reads, then writes.
    averages: [[Average; SIZE_CLASSES]; 2],
    /// Samples so far.
    records: u64,
    histogram: Histogram,
}

impl Latency {
    /// Nothing is known.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the service time of an answered request, from its sending to its last byte.
    pub fn record(&mut self, write: bool, len_bytes: u64, service_ns: u64) {
        // 0 means unknown; a clock that did not move still measured something.
        let service_ns = service_ns.max(1);
        self.records += 1;
        let records = self.records;
        let average = &mut self.averages[usize::from(write)][size_class(len_bytes)];
        average.ns = if average.is_fresh(records) { average.moved_towards(service_ns) } else { service_ns };
        average.record = records;
        self.histogram.record(service_ns / MICROSECOND);
    }

    /// Expected service time of a request in nanoseconds; 0 = unknown.
    ///
    /// Of its size class if that has fresh samples, else of the nearest smaller class of the
    /// same direction that has.
    pub fn expected_ns(&self, write: bool, len_bytes: u64) -> u64 {
        let smaller_or_same = &self.averages[usize::from(write)][..=size_class(len_bytes)];
        let fresh = smaller_or_same.iter().rev().find(|average| average.is_fresh(self.records));
        fresh.map_or(0, |average| average.ns)
    }

    /// Asserts what must hold between any two calls.
    pub fn check_invariants(&self) {
        for average in self.averages.iter().flatten() {
            assert!(average.record <= self.records, "an average is not newer than its path");
            assert_eq!(average.ns == 0, average.record == 0, "measured is never unknown");
        }
        let Histogram { counts, total } = &self.histogram;
        assert_eq!(counts.iter().sum::<u32>(), *total);
        assert!(*total <= HISTOGRAM_SAMPLES_MAX * HISTOGRAM_SAMPLE_WEIGHT);
    }

    /// Service time below which `q_ppm` millionths of the recent requests stayed, in
    /// microseconds (at least 1); 0 = unknown. 500,000 is the median, 990,000 the p99.
    pub fn quantile_us(&self, q_ppm: u32) -> u64 {
        self.histogram.quantile_us(q_ppm)
    }
}

impl Average {
    fn is_fresh(&self, records: u64) -> bool {
        self.ns != 0 && records - self.record <= LATENCY_CLASS_MEMORY_RECORDS
    }

    fn moved_towards(&self, sample_ns: u64) -> u64 {
        if sample_ns > self.ns {
            let sample_ns = sample_ns.min(self.ns.saturating_mul(LATENCY_OUTLIER_FACTOR));
            // Rounded up, so that an average of a few nanoseconds can rise at all.
            self.ns + (sample_ns - self.ns).div_ceil(LATENCY_DECAY_DIVISOR)
        } else {
            self.ns - (self.ns - sample_ns) / LATENCY_DECAY_DIVISOR
        }
    }
}

/// Decaying counts by powers of two of microseconds: bucket 0 is below 1 us, bucket
/// `i` is from `2^(i-1)` to below `2^i`, the last is open.
#[derive(Clone, Debug, Default)]
pub(crate) struct Histogram {
    counts: [u32; HISTOGRAM_BUCKETS],
    total: u32,
}

impl Histogram {
    /// Counts one sample.
    pub(crate) fn record(&mut self, us: u64) {
        if self.total >= HISTOGRAM_SAMPLES_MAX * HISTOGRAM_SAMPLE_WEIGHT {
            self.halve();
        }
        let bucket = (u64::BITS - us.leading_zeros()) as usize;
        self.counts[bucket.min(HISTOGRAM_BUCKETS - 1)] += HISTOGRAM_SAMPLE_WEIGHT;
        self.total += HISTOGRAM_SAMPLE_WEIGHT;
    }

    /// Samples that still count.
    pub(crate) fn samples(&self) -> u32 {
        self.total / HISTOGRAM_SAMPLE_WEIGHT
    }

    fn halve(&mut self) {
        for count in &mut self.counts {
            *count /= 2;
        }
        self.total = self.counts.iter().sum();
    }

    /// See [`Latency::quantile_us`].
    pub(crate) fn quantile_us(&self, q_ppm: u32) -> u64 {
        if self.total == 0 {
            return 0;
        }
        let q_ppm = u64::from(q_ppm.min(FULL_SHARE_PPM));
        let rank = (u64::from(self.total) * q_ppm).div_ceil(u64::from(FULL_SHARE_PPM)).max(1);
        let mut below = 0;
        for (bucket, &count) in self.counts.iter().enumerate() {
            let count = u64::from(count);
            if below + count >= rank {
                let low_us = if bucket == 0 { 0 } else { 1_u64 << (bucket - 1) };
                let high_us = 1_u64 << bucket;
                return (low_us + (high_us - low_us) * (rank - below) / count).max(1);
            }
            below += count;
        }
        unreachable!("the ranks end at the total, which is the sum of the counts")
    }
}
