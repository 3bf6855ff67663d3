// SPDX-License-Identifier: MIT OR Apache-2.0
//! When a path that stays up spoils too many requests.
//!
//! **Model.** A path with a bad cable or a sick adapter never fails for good: one request in fifty is
//! answered late or with an error that no other path confirms. Its checks are good, its
//! failures too few for [`crate::failure_limit`], and each spoilt request costs a host a second.
//! So requests *in trouble* are counted against all: those that had to be moved because of this path,
//! and canaries that failed. Not counted is what the storage is to blame for (scope device in
//! [`crate::faults`]), or a path would be marginal for a full disk.
//!
//! ```text
//! good      --10 in trouble within a minute, and 1 % of its requests--> marginal
//! marginal  --1 min without trouble (doubling up to 10 min)-----------> good
//! ```
//!
//! Marginal means used only while no path in good standing is ([`crate::standing`]); canaries go
//! on and show when it is well. 10 min in good standing forget the doubling.
//!
//! Both conditions are needed: 1 % alone makes two of 50 a verdict, 10 alone makes a busy path
//! marginal for one in a million. Rejected: test reads at a high rate for minutes, as dm-multipath
//! does; real I/O shows the same at no cost.

use crate::Nanos;
use crate::limits::{
    FULL_SHARE_PPM, MARGINAL_BUCKET, MARGINAL_BUCKETS, MARGINAL_CLEAN, MARGINAL_CLEAN_CAP, MARGINAL_RATE_PPM,
    MARGINAL_TROUBLED_MIN,
};

/// Requests of one path by outcome.
#[derive(Clone, Debug, Default)]
pub struct Marginal {
    buckets: [Counts; MARGINAL_BUCKETS],
    /// Number of the latest bucket since time 0.
    latest: u64,
    /// Since when it is, or last was, marginal.
    since: Option<Nanos>,
    /// When it returns, or last returned, unless there is trouble before.
    until: Option<Nanos>,
    /// Times it became marginal since that was last forgotten.
    times: u32,
}

/// Requests within the window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// All that the path answered or spoilt.
    pub requests: u32,
    /// Those in trouble.
    pub troubled: u32,
}

impl Marginal {
    /// No request yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A request or canary was answered well.
    pub fn on_good(&mut self, now: Nanos) {
        self.count(now, false);
    }

    /// A request had to be moved because of this path, or a canary failed. Whether the path
    /// became marginal by it.
    pub fn on_trouble(&mut self, now: Nanos) -> bool {
        self.count(now, true);
        if self.is_marginal(now) {
            self.until = Some(now.saturating_add(self.clean_time()));
            return false;
        }
        let Counts { requests, troubled } = self.counts(now);
        let (troubled_ppm, limit_ppm) =
            (u64::from(troubled) * u64::from(FULL_SHARE_PPM), u64::from(MARGINAL_RATE_PPM));
        if troubled < MARGINAL_TROUBLED_MIN || troubled_ppm < u64::from(requests) * limit_ppm {
            return false;
        }
        if self.until.is_none_or(|until| now.saturating_sub(until) >= MARGINAL_CLEAN_CAP) {
            self.times = 0;
        }
        self.times = self.times.saturating_add(1);
        self.since = Some(now);
        self.until = Some(now.saturating_add(self.clean_time()));
        true
    }

    /// Whether the path is to be used only while no other is.
    pub fn is_marginal(&self, now: Nanos) -> bool {
        self.until.is_some_and(|until| now < until)
    }

    /// When a marginal path returns if it stays out of trouble; `None` if it never was
    /// marginal. May lie in the past.
    pub fn until(&self) -> Option<Nanos> {
        self.until
    }

    /// Since when it is, or last was, marginal.
    pub fn since(&self) -> Option<Nanos> {
        self.since
    }

    /// Requests of the last minute.
    pub fn counts(&self, now: Nanos) -> Counts {
        let number = now / MARGINAL_BUCKET;
        let gone = number.saturating_sub(self.latest).min(MARGINAL_BUCKETS as u64) as usize;
        let kept = self.buckets[..MARGINAL_BUCKETS - gone].iter();
        kept.fold(Counts::default(), |sum, counts| Counts {
            requests: sum.requests.saturating_add(counts.requests),
            troubled: sum.troubled.saturating_add(counts.troubled),
        })
    }

    /// An operator reinstates the path: nothing is remembered.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Asserts what must hold between any two calls.
    pub fn check_invariants(&self) {
        assert!(self.buckets.iter().all(|counts| counts.troubled <= counts.requests));
        assert_eq!(self.since.is_some(), self.until.is_some());
        assert!(self.since.zip(self.until).is_none_or(|(since, until)| since <= until && self.times > 0));
    }

    fn clean_time(&self) -> Nanos {
        let doublings = self.times.saturating_sub(1);
        let time = 1_u64.checked_shl(doublings).and_then(|factor| MARGINAL_CLEAN.checked_mul(factor));
        time.map_or(MARGINAL_CLEAN_CAP, |time| time.min(MARGINAL_CLEAN_CAP))
    }

    /// The latest bucket is the first.
    fn count(&mut self, now: Nanos, troubled: bool) {
        let number = (now / MARGINAL_BUCKET).max(self.latest);
        let gone = (number - self.latest).min(MARGINAL_BUCKETS as u64) as usize;
        self.buckets.rotate_right(gone % MARGINAL_BUCKETS);
        self.buckets[..gone].fill(Counts::default());
        self.latest = number;
        let bucket = &mut self.buckets[0];
        bucket.requests = bucket.requests.saturating_add(1);
        bucket.troubled = bucket.troubled.saturating_add(u32::from(troubled)).min(bucket.requests);
    }
}
