// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which path is slow against its siblings, and when it is the storage that is slow.
//!
//! **Model.** A path that works but takes ten times as long as the others drags everything
//! that is dealt to it. What "slow" is depends on the medium, the load and the size of the
//! requests, so no figure can say it; the siblings can. They lead to the same storage at the same
//! time, so what only one of them shows is not the storage.
//!
//! **A window** lasts 5 s. Reads and writes apart, by size class, each path has the median of
//! what it answered. Where a path and a sibling have the same class, it is compared with the
//! lower median of its siblings; if it carried more than that sibling, it may be slower by as
//! much. Siblings are the paths of its own group and of lesser ones: that the far site is slower than the
//! near one is why it is the lesser ([`crate::group`]). The window is slow if more than half of the requests so compared are in classes
//! above 3 times. A window without anything to compare says nothing, and after 300 s without
//! one that does, the earlier ones are forgotten.
//!
//! ```text
//! normal  --10 of the last 12 windows slow, 100 requests in them--> demoted
//! demoted --300 s without a slow window---------------------------> normal, history forgotten
//! ```
//!
//! * **Demoted is not failed**: it is used while no path in good standing is usable
//!   ([`crate::standing`]), keeps its lanes and its canaries, and those measure it.
//! * **At most one path per minute, never the last** in good standing; the slowest first. What
//!   is spared is told, once.
//! * **All slow is the storage.** The median over the paths against the device's own
//!   baseline, by the same rule: an alarm, and nothing is demoted while it lasts. That is
//!   why siblings and not the past decide about a path.
//!
//! Medians, not means: one request of 2 s does not make a window slow. Windows, not an
//! average: a path that is slow for 10 s each minute is not demoted and back each minute.
//! The `latency` selector steers around a slow path within requests; this rule is what protects
//! the others, and what an operator hears of.

use alloc::vec::Vec;

use crate::Nanos;
use crate::latency::size_class;
use crate::limits::{
    MICROSECOND, SELECTOR_CANDIDATES_MAX, SIZE_CLASSES, SLOW_BASELINE_FALL_DIVISOR,
    SLOW_BASELINE_RISE_DIVISOR, SLOW_BUCKETS, SLOW_CLEAN, SLOW_DEMOTION_INTERVAL, SLOW_FACTOR,
    SLOW_SAMPLES_MIN, SLOW_WINDOW, SLOW_WINDOWS, SLOW_WINDOWS_SLOW,
};

/// Reads and writes, by size.
const CLASSES: usize = 2 * SIZE_CLASSES;

/// A decision, with the figures it rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlowChange {
    /// Use this path only while no other in good standing is usable.
    Demoted {
        /// Index of the path.
        path: usize,
        /// What was seen.
        seen: SlowSeen,
    },
    /// It is slow, and stays as it is.
    Spared {
        /// Index of the path.
        path: usize,
        /// What was seen.
        seen: SlowSeen,
        /// Why nothing is done.
        because: Spared,
    },
    /// Clean for long enough; in good standing again.
    Restored {
        /// Index of the path.
        path: usize,
        /// Time without a slow window, nanoseconds.
        clean_ns: u64,
    },
    /// All paths are slow against the device's own past.
    StorageSlow {
        /// Median of the paths in the last window, nanoseconds.
        median_ns: u64,
        /// What it usually is, nanoseconds.
        baseline_ns: u64,
    },
    /// No longer.
    StorageNormal,
}

/// Figures of a slow path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlowSeen {
    /// Its median in the class that was worst in the last window, nanoseconds.
    pub median_ns: u64,
    /// The lower median of its siblings in that class, nanoseconds.
    pub siblings_ns: u64,
    /// Slow windows among the last 12.
    pub windows_slow: u32,
    /// Requests in these windows.
    pub samples: u32,
}

/// Why a slow path is not demoted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Spared {
    /// No other path in good standing is usable.
    LastUsable,
    /// The storage is slow as a whole.
    StorageSlow,
    /// Another was demoted less than a minute ago.
    TooSoon,
}

/// Compares the paths of one device. 3.5 KiB per path; allocates only in `new` and `set_paths`.
#[derive(Clone, Debug)]
pub struct SlowPaths {
    paths: Vec<Compared>,
    /// End of the window; `None` until something is recorded.
    window_end: Option<Nanos>,
    last_demotion: Option<Nanos>,
    storage: History,
    storage_slow: bool,
    storage_seen: (u64, u64),
    /// Long-run medians of the device by class; 0 = unknown.
    baselines: [u64; CLASSES],
    /// Next path whose change is to be told.
    cursor: usize,
}

#[derive(Clone, Debug)]
struct Compared {
    counts: [[u32; SLOW_BUCKETS]; CLASSES],
    /// Of the window that was closed last.
    medians: [Median; CLASSES],
    history: History,
    seen: SlowSeen,
    demoted: bool,
    spared: Option<Spared>,
}

/// The last windows that were judged.
#[derive(Clone, Debug, Default)]
struct History {
    /// Latest in the lowest bit; 1 = slow.
    slow: u16,
    samples: [u32; SLOW_WINDOWS as usize],
    next: usize,
    /// End of the last slow window.
    last_slow: Nanos,
    /// End of the last window.
    last_judged: Nanos,
}

impl SlowPaths {
    /// Nothing is known of any of the paths.
    pub fn new(paths: usize) -> Self {
        Self {
            paths: (0..paths).map(|_| Compared::new()).collect(),
            window_end: None,
            last_demotion: None,
            storage: History::default(),
            storage_slow: false,
            storage_seen: (0, 0),
            baselines: [0; CLASSES],
            cursor: paths,
        }
    }

    /// The device has so many paths now; the ones beyond are new or gone. Without samples of
    /// the running window: which of them belongs to whom has changed.
    pub fn set_paths(&mut self, paths: usize) {
        self.paths.resize_with(paths, Compared::new);
        for path in &mut self.paths {
            path.counts = [[0; SLOW_BUCKETS]; CLASSES];
        }
        self.cursor = paths;
    }

    /// Takes the service time of a request or canary that a path answered.
    pub fn record(&mut self, now: Nanos, path: usize, write: bool, len_bytes: u64, service_ns: u64) {
        self.window_end.get_or_insert(now.saturating_add(SLOW_WINDOW));
        let class = usize::from(write) * SIZE_CLASSES + size_class(len_bytes);
        let count = &mut self.paths[path].counts[class][bucket(service_ns / MICROSECOND)];
        *count = count.saturating_add(1);
    }

    /// The next decision, if one is due; call until it is `None`. `in_good_standing` has an entry
    /// for each path: usable, and neither suspect, held out, on probation nor marginal. So has `groups`: 0 for the
    /// best group, 1 for the next, and so on.
    ///
    /// # Panics
    ///
    /// If a slice has another length than there are paths.
    pub fn poll(&mut self, now: Nanos, in_good_standing: &[bool], groups: &[u32]) -> Option<SlowChange> {
        assert_eq!(in_good_standing.len(), self.paths.len(), "an entry for each path");
        assert_eq!(groups.len(), self.paths.len(), "an entry for each path");
        if self.window_end.is_some_and(|end| end <= now) {
            self.close_window(now, groups);
            self.window_end = None;
            self.cursor = 0;
            if let Some(change) = self.storage_change(now) {
                return Some(change);
            }
        }
        while self.cursor < self.paths.len() {
            let path = self.cursor;
            self.cursor += 1;
            if let Some(change) = self.path_change(now, path, in_good_standing) {
                return Some(change);
            }
        }
        None
    }

    /// When [`SlowPaths::poll`] has something to do; `None` while nothing was recorded, so an
    /// idle device has no timer here.
    pub fn next_deadline(&self) -> Option<Nanos> {
        self.window_end
    }

    /// Whether the path is to be used only while no other is.
    pub fn is_demoted(&self, path: usize) -> bool {
        self.paths[path].demoted
    }

    /// Whether all paths are slow.
    pub fn is_storage_slow(&self) -> bool {
        self.storage_slow
    }

    /// Figures of the path's last windows, for status and `explain`.
    pub fn seen(&self, path: usize) -> SlowSeen {
        self.paths[path].figures()
    }

    /// How long no window of the path was slow, nanoseconds; a demoted one is restored by it.
    pub fn clean_for(&self, path: usize, now: Nanos) -> u64 {
        self.paths[path].history.clean_ns(now)
    }

    /// An operator reinstates the path, or it leads elsewhere now: its history is forgotten.
    pub fn clear(&mut self, path: usize) {
        self.paths[path] = Compared::new();
    }

    /// Asserts what must hold between any two calls.
    pub fn check_invariants(&self) {
        assert!(self.cursor <= self.paths.len());
        for history in self.paths.iter().map(|path| &path.history).chain([&self.storage]) {
            assert!(u32::from(history.slow) >> SLOW_WINDOWS == 0, "only remembered windows count");
        }
    }

    fn close_window(&mut self, now: Nanos, groups: &[u32]) {
        for path in &mut self.paths {
            path.medians = core::array::from_fn(|class| median(&path.counts[class]));
            path.counts = [[0; SLOW_BUCKETS]; CLASSES];
        }
        let medians: [Median; CLASSES] = core::array::from_fn(|class| self.lower_median(class, |_| true));
        self.judge_storage(now, &medians);
        for path in 0..self.paths.len() {
            self.judge(now, path, groups);
        }
    }

    /// Compares one path with its siblings.
    fn judge(&mut self, now: Nanos, path: usize, groups: &[u32]) {
        let (mut compared, mut slow) = (0_u32, 0_u32);
        let mut worst = SlowSeen::default();
        for class in 0..CLASSES {
            let own = self.paths[path].medians[class];
            let siblings = self.lower_median(class, |other| other != path && groups[other] >= groups[path]);
            if own.count == 0 || siblings.count == 0 {
                continue;
            }
            compared = compared.saturating_add(own.count);
            // More load may cost more time, in proportion.
            let load = u64::from(own.count.max(siblings.count));
            let limit_ns =
                siblings.ns.saturating_mul(SLOW_FACTOR).saturating_mul(load) / u64::from(siblings.count);
            if own.ns > limit_ns {
                slow = slow.saturating_add(own.count);
            }
            if own.ns.saturating_mul(worst.siblings_ns.max(1)) >= worst.median_ns.saturating_mul(siblings.ns)
            {
                worst = SlowSeen { median_ns: own.ns, siblings_ns: siblings.ns, ..worst };
            }
        }
        if compared > 0 {
            let path = &mut self.paths[path];
            path.history.push(now, compared, slow > compared / 2);
            path.seen = worst;
        }
    }

    /// Compares the device with its own past.
    fn judge_storage(&mut self, now: Nanos, medians: &[Median; CLASSES]) {
        let (mut compared, mut slow) = (0_u32, 0_u32);
        for (median, baseline) in medians.iter().zip(&mut self.baselines) {
            if median.count == 0 {
                continue;
            }
            if *baseline == 0 {
                *baseline = median.ns;
                continue;
            }
            compared = compared.saturating_add(median.count);
            if median.ns > baseline.saturating_mul(SLOW_FACTOR) {
                slow = slow.saturating_add(median.count);
                self.storage_seen = (median.ns, *baseline);
            }
            *baseline = if median.ns > *baseline {
                *baseline + (median.ns - *baseline).div_ceil(SLOW_BASELINE_RISE_DIVISOR)
            } else {
                *baseline - (*baseline - median.ns) / SLOW_BASELINE_FALL_DIVISOR
            };
        }
        if compared > 0 {
            self.storage.push(now, compared, slow > compared / 2);
        }
    }

    fn storage_change(&mut self, now: Nanos) -> Option<SlowChange> {
        if self.storage_slow && self.storage.is_clean(now) {
            self.storage_slow = false;
            return Some(SlowChange::StorageNormal);
        }
        if !self.storage_slow && self.storage.is_slow() {
            self.storage_slow = true;
            let (median_ns, baseline_ns) = self.storage_seen;
            return Some(SlowChange::StorageSlow { median_ns, baseline_ns });
        }
        None
    }

    fn path_change(&mut self, now: Nanos, path: usize, in_good_standing: &[bool]) -> Option<SlowChange> {
        let it = &self.paths[path];
        if it.demoted {
            if !it.history.is_clean(now) {
                return None;
            }
            let clean_ns = self.clean_for(path, now);
            self.paths[path] = Compared::new();
            return Some(SlowChange::Restored { path, clean_ns });
        }
        if !it.history.is_slow() {
            self.paths[path].spared = None;
            return None;
        }
        let seen = it.figures();
        let others = (0..self.paths.len())
            .any(|other| other != path && in_good_standing[other] && !self.paths[other].demoted);
        let too_soon =
            self.last_demotion.is_some_and(|last| now < last.saturating_add(SLOW_DEMOTION_INTERVAL));
        let spared = if !others {
            Some(Spared::LastUsable)
        } else if self.storage_slow {
            Some(Spared::StorageSlow)
        } else if too_soon || self.is_outdone(path) {
            Some(Spared::TooSoon)
        } else {
            None
        };
        let told = core::mem::replace(&mut self.paths[path].spared, spared);
        match spared {
            Some(_) if spared == told => None,
            Some(because) => Some(SlowChange::Spared { path, seen, because }),
            None => {
                self.paths[path].demoted = true;
                self.last_demotion = Some(now);
                Some(SlowChange::Demoted { path, seen })
            }
        }
    }

    /// A later path is slower still, and only one goes per minute.
    fn is_outdone(&self, path: usize) -> bool {
        let ratio = |seen: &SlowSeen| seen.median_ns.saturating_mul(1_000) / seen.siblings_ns.max(1);
        let own = ratio(&self.paths[path].seen);
        self.paths[path + 1..]
            .iter()
            .any(|other| !other.demoted && other.history.is_slow() && ratio(&other.seen) > own)
    }

    /// Lower median of the medians of the paths that are not demoted and have samples.
    fn lower_median(&self, class: usize, of: impl Fn(usize) -> bool) -> Median {
        let mut medians = [Median::default(); SELECTOR_CANDIDATES_MAX];
        let mut len = 0;
        for (_, it) in self.paths.iter().enumerate().filter(|(path, it)| of(*path) && !it.demoted) {
            let median = it.medians[class];
            if median.count > 0 && len < medians.len() {
                medians[len] = median;
                len += 1;
            }
        }
        let medians = &mut medians[..len];
        medians.sort_unstable_by_key(|median| (median.ns, median.count));
        medians.get(len.saturating_sub(1) / 2).copied().unwrap_or_default()
    }
}

/// Median service time of one class of one path in a window.
#[derive(Clone, Copy, Debug, Default)]
struct Median {
    ns: u64,
    /// 0 = no sample.
    count: u32,
}

impl Compared {
    const fn new() -> Self {
        Self {
            counts: [[0; SLOW_BUCKETS]; CLASSES],
            medians: [Median { ns: 0, count: 0 }; CLASSES],
            history: History {
                slow: 0,
                samples: [0; SLOW_WINDOWS as usize],
                next: 0,
                last_slow: 0,
                last_judged: 0,
            },
            seen: SlowSeen { median_ns: 0, siblings_ns: 0, windows_slow: 0, samples: 0 },
            demoted: false,
            spared: None,
        }
    }

    fn figures(&self) -> SlowSeen {
        SlowSeen {
            windows_slow: self.history.slow.count_ones(),
            samples: self.history.samples(),
            ..self.seen
        }
    }
}

fn median(counts: &[u32; SLOW_BUCKETS]) -> Median {
    let count = counts.iter().fold(0_u32, |sum, &in_bucket| sum.saturating_add(in_bucket));
    let mut below = 0_u64;
    for (bucket, &in_bucket) in counts.iter().enumerate() {
        below += u64::from(in_bucket);
        if count > 0 && below * 2 >= u64::from(count) {
            return Median { ns: bucket_middle_ns(bucket), count };
        }
    }
    Median::default()
}

impl History {
    fn push(&mut self, now: Nanos, samples: u32, slow: bool) {
        if now.saturating_sub(self.last_judged) >= SLOW_CLEAN {
            // What was before a pause says nothing of today.
            (self.slow, self.samples) = (0, [0; SLOW_WINDOWS as usize]);
        }
        self.last_judged = now;
        self.slow = (self.slow << 1 | u16::from(slow)) & ((1 << SLOW_WINDOWS) - 1);
        self.samples[self.next] = samples;
        self.next = (self.next + 1) % self.samples.len();
        if slow {
            self.last_slow = now;
        }
    }

    fn samples(&self) -> u32 {
        self.samples.iter().fold(0, |sum, &samples| sum.saturating_add(samples))
    }

    fn is_slow(&self) -> bool {
        let now_slow = self.slow & 1 != 0;
        now_slow && self.slow.count_ones() >= SLOW_WINDOWS_SLOW && self.samples() >= SLOW_SAMPLES_MIN
    }

    fn is_clean(&self, now: Nanos) -> bool {
        self.clean_ns(now) >= SLOW_CLEAN
    }

    fn clean_ns(&self, now: Nanos) -> u64 {
        now.saturating_sub(self.last_slow)
    }
}

/// Four buckets to each doubling, below 4 us one for each microsecond.
fn bucket(us: u64) -> usize {
    if us < 4 {
        return us as usize;
    }
    let exponent = u64::BITS - 1 - us.leading_zeros();
    let quarter = (us >> (exponent - 2)) & 3;
    ((exponent as usize - 1) * 4 + quarter as usize).min(SLOW_BUCKETS - 1)
}

/// The middle of a bucket; of the open one, of what it would be.
fn bucket_middle_ns(bucket: usize) -> u64 {
    let half_us = MICROSECOND / 2;
    if bucket < 4 {
        return bucket as u64 * MICROSECOND + half_us;
    }
    let exponent = bucket / 4 + 1;
    let low_us = (4 + bucket as u64 % 4) << (exponent - 2);
    let width_us = 1_u64 << (exponent - 2);
    (2 * low_us + width_us) * half_us
}
