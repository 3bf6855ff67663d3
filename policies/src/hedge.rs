// SPDX-License-Identifier: MIT OR Apache-2.0
//! When a read that takes long is sent to a second path as well.
//!
//! **Model.** A read older than nearly all of its like is probably on a path that has stopped or
//! slowed down. A second copy elsewhere costs one read and saves the wait: the first good
//! answer wins, the other is drained. That hides a silent path within milliseconds, long
//! before any rule may call it failed. Sent without measure it doubles the load exactly when
//! the storage can bear it least, so it is bounded three times:
//!
//! * **Threshold.** Per size class, the age that 95 % of the device's reads stay below; it
//!   slides to 99 % as the budget empties. At least 1 ms. With fewer than 100 samples: 10 ms.
//! * **Budget.** Each read earns 3 % of a hedge; at most as many are saved up as one path may
//!   have in flight, so that everything on a path that falls silent can be hedged at once,
//!   and a quiet device can hedge at all.
//! * **Exclusions**, in the order they are told:
//!
//! | no hedge | because |
//! |---|---|
//! | off | the budget is 0 |
//! | active-passive | the other path may belong to a passive controller |
//! | no other path | the last path never gets a second copy (rule W15) |
//! | recovering | a path is on probation: the tail is known to be odd, and the load to come |
//! | overload | the median of the paths is above 3 x its baseline: all are slow, it is the load |
//! | budget | see above |
//!
//! **The samples are of all copies**, each from its own sending, whoever won: the times of the
//! winners alone would pull the threshold down with each hedge, and with it up the hedges. But for those
//! that a silent link held up: they tell of the link.
//!
//! **Won hedges are evidence.** Three hedges in a row won against a path that sent no byte
//! meanwhile, and has owed one for 50 ms, make it suspect ([`Outrun`]): the reads behind them need not
//! wait for their own thresholds. For less than that a server that was not scheduled looks the same; it
//! is given that time as long as half of the budget is left.
//!
//! Rejected: a fixed threshold (right for one medium and one load only), and hedging a share
//! of reads at once (pays for every read what only the slowest need).

use crate::Nanos;
use crate::latency::{Histogram, size_class};
use crate::limits::{
    FULL_SHARE_PPM, HEDGE_BASELINE_FALL_DIVISOR, HEDGE_BASELINE_RISE_DIVISOR, HEDGE_BASELINE_SAMPLES_MIN,
    HEDGE_BASELINE_WINDOW, HEDGE_COLD, HEDGE_FLOOR, HEDGE_OVERLOAD_FACTOR, HEDGE_QUANTILE_MAX_PPM,
    HEDGE_QUANTILE_MIN_PPM, HEDGE_SAMPLES_MIN, HEDGE_SUSPECT_AFTER, HEDGE_WINS_SUSPECT,
    LATENCY_OUTLIER_FACTOR, MICROSECOND, SIZE_CLASSES,
};

/// A read in flight with one copy, and what surrounds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PendingRead {
    /// Its length.
    pub len_bytes: u64,
    /// Nanoseconds since it was sent.
    pub age: Nanos,
    /// The device is active-passive.
    pub one_at_a_time: bool,
    /// Usable paths that carry no copy of it and have room.
    pub other_paths: u32,
    /// A path of the device is on probation.
    pub recovering: bool,
    /// Median over the usable paths of the expected service time of such a read, in
    /// nanoseconds ([`crate::Latency::expected_ns`]); 0 = unknown.
    pub median_ns: u64,
}

/// Why a read is not hedged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// The budget is configured as 0.
    Off,
    /// Active-passive.
    OneAtATime,
    /// Nowhere to send it.
    NoOtherPath,
    /// A path is on probation.
    Recovering,
    /// All paths are slow.
    Overload,
    /// The budget is spent.
    Budget,
}

/// What to do about a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Send a second copy now; the budget is charged.
    Send,
    /// Ask again when the read has this age.
    AtAge(Nanos),
    /// Not this one, as things are.
    No(Refusal),
}

/// Counts since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HedgeCounts {
    /// Reads sent by hosts.
    pub reads: u64,
    /// Second copies sent.
    pub hedges: u64,
    /// Second copies that answered first.
    pub won: u64,
    /// Second copies that did not.
    pub lost: u64,
    /// Reads old enough that were not hedged for overload.
    pub refused_overload: u64,
    /// Reads old enough that were not hedged for want of budget.
    pub refused_budget: u64,
}

/// Decides for the reads of one device. About 1 KiB; never allocates.
#[derive(Clone, Debug)]
pub struct Hedge {
    budget_ppm: u32,
    /// Hedges that can be saved up.
    burst: u32,
    /// Saved up, in millionths of a hedge.
    credit_ppm: u64,
    classes: [Class; SIZE_CLASSES],
    counts: HedgeCounts,
}

/// Reads of one size class, over all paths.
#[derive(Clone, Debug, Default)]
struct Class {
    histogram: Histogram,
    /// Long-run service time; 0 = unknown.
    baseline_ns: u64,
    window_start: Nanos,
    window_sum_ns: u64,
    window_samples: u32,
}

impl Hedge {
    /// `budget_ppm`: extra reads in millionths of the reads, 0 = off, default 30,000.
    /// `burst`: the in-flight cap of one path, at least 1. Starts with a full budget.
    pub fn new(budget_ppm: u32, burst: u32) -> Self {
        let burst = burst.max(1);
        Self {
            budget_ppm,
            burst,
            credit_ppm: u64::from(burst) * u64::from(FULL_SHARE_PPM),
            classes: core::array::from_fn(|_| Class::default()),
            counts: HedgeCounts::default(),
        }
    }

    /// Changes the budget; what is measured stays, and what is saved up within the new burst.
    pub fn set_budget(&mut self, budget_ppm: u32, burst: u32) {
        self.budget_ppm = budget_ppm;
        self.burst = burst.max(1);
        self.credit_ppm = self.credit_ppm.min(self.full_ppm());
    }

    /// Less than half of what can be saved up is left.
    pub fn is_low(&self) -> bool {
        self.credit_ppm < self.full_ppm() / 2
    }

    /// A host's read was sent for the first time.
    pub fn on_read(&mut self) {
        self.counts.reads += 1;
        self.credit_ppm = (self.credit_ppm + u64::from(self.budget_ppm)).min(self.full_ppm());
    }

    /// A copy of a read was answered well, `service_ns` after that copy was sent; winners and
    /// losers alike.
    pub fn on_reply(&mut self, now: Nanos, len_bytes: u64, service_ns: u64) {
        self.classes[size_class(len_bytes)].record(now, service_ns.max(1));
    }

    /// A hedged read has its first good answer: from the second copy or from the first.
    pub fn on_settled(&mut self, second_won: bool) {
        let count = if second_won { &mut self.counts.won } else { &mut self.counts.lost };
        *count += 1;
    }

    /// Age at which a read of this length is hedged, in nanoseconds.
    pub fn threshold(&self, len_bytes: u64) -> Nanos {
        let class = size_class(len_bytes);
        if let Some(age) = self.classes[class].quantile(self.quantile_ppm()) {
            return age.max(HEDGE_FLOOR);
        }
        // The nearest smaller class bounds it from below.
        let known = self.classes[..class].iter().rev().find_map(|c| c.quantile(self.quantile_ppm()));
        known.unwrap_or(0).max(HEDGE_COLD)
    }

    /// Whether to send a second copy of a read.
    pub fn decide(&mut self, read: &PendingRead) -> Answer {
        let refusal = if self.budget_ppm == 0 {
            Some(Refusal::Off)
        } else if read.one_at_a_time {
            Some(Refusal::OneAtATime)
        } else if read.other_paths == 0 {
            Some(Refusal::NoOtherPath)
        } else if read.recovering {
            Some(Refusal::Recovering)
        } else {
            None
        };
        if let Some(refusal) = refusal {
            return Answer::No(refusal);
        }
        let threshold = self.threshold(read.len_bytes);
        if read.age < threshold {
            return Answer::AtAge(threshold);
        }
        if self.is_overloaded(read.len_bytes, read.median_ns) {
            self.counts.refused_overload += 1;
            return Answer::No(Refusal::Overload);
        }
        let Some(rest_ppm) = self.credit_ppm.checked_sub(u64::from(FULL_SHARE_PPM)) else {
            self.counts.refused_budget += 1;
            return Answer::No(Refusal::Budget);
        };
        self.credit_ppm = rest_ppm;
        self.counts.hedges += 1;
        Answer::Send
    }

    /// Whether a median expected service time (0 = unknown) is above three times the baseline.
    pub fn is_overloaded(&self, len_bytes: u64, median_ns: u64) -> bool {
        let baseline_ns = self.baseline_ns(len_bytes);
        baseline_ns != 0 && median_ns > baseline_ns.saturating_mul(HEDGE_OVERLOAD_FACTOR)
    }

    /// Long-run service time of reads of this length, in nanoseconds; 0 = unknown.
    pub fn baseline_ns(&self, len_bytes: u64) -> u64 {
        self.classes[size_class(len_bytes)].baseline_ns
    }

    /// Second copies that may be sent now.
    pub fn credit(&self) -> u32 {
        (self.credit_ppm / u64::from(FULL_SHARE_PPM)) as u32
    }

    /// For status and `explain`.
    pub fn counts(&self) -> HedgeCounts {
        self.counts
    }

    /// Asserts what must hold between any two calls.
    pub fn check_invariants(&self) {
        assert!(self.burst >= 1 && self.credit_ppm <= self.full_ppm(), "no more than a burst is saved");
        let HedgeCounts { hedges, won, lost, .. } = self.counts;
        assert!(won + lost <= hedges, "only hedged reads are won or lost");
    }

    fn full_ppm(&self) -> u64 {
        u64::from(self.burst) * u64::from(FULL_SHARE_PPM)
    }

    fn quantile_ppm(&self) -> u32 {
        let slide = u64::from(HEDGE_QUANTILE_MAX_PPM - HEDGE_QUANTILE_MIN_PPM);
        HEDGE_QUANTILE_MAX_PPM
            - (u128::from(slide) * u128::from(self.credit_ppm) / u128::from(self.full_ppm())) as u32
    }
}

impl Class {
    fn record(&mut self, now: Nanos, service_ns: u64) {
        self.histogram.record(service_ns / MICROSECOND);
        if self.window_samples == 0 {
            self.window_start = now;
        }
        // One hiccup of seconds is not the load of a window.
        let cap_ns = if self.baseline_ns == 0 { u64::MAX } else { self.baseline_ns * LATENCY_OUTLIER_FACTOR };
        self.window_sum_ns = self.window_sum_ns.saturating_add(service_ns.min(cap_ns));
        self.window_samples += 1;
        if now.saturating_sub(self.window_start) >= HEDGE_BASELINE_WINDOW {
            self.close_window();
        }
    }

    fn close_window(&mut self) {
        if self.window_samples >= HEDGE_BASELINE_SAMPLES_MIN {
            let mean_ns = self.window_sum_ns / u64::from(self.window_samples);
            self.baseline_ns = match self.baseline_ns {
                0 => mean_ns,
                old if mean_ns > old => old + (mean_ns - old).div_ceil(HEDGE_BASELINE_RISE_DIVISOR),
                old => old - (old - mean_ns) / HEDGE_BASELINE_FALL_DIVISOR,
            };
        }
        self.window_sum_ns = 0;
        self.window_samples = 0;
    }

    fn quantile(&self, q_ppm: u32) -> Option<Nanos> {
        let known = self.histogram.samples() >= HEDGE_SAMPLES_MIN;
        known.then(|| self.histogram.quantile_us(q_ppm).saturating_mul(MICROSECOND))
    }
}

/// Hedges won against one path.
#[derive(Clone, Debug, Default)]
pub struct Outrun {
    in_a_row: u32,
    /// When the first of these was sent.
    since: Nanos,
}

impl Outrun {
    /// None yet.
    pub const fn new() -> Self {
        Self { in_a_row: 0, since: 0 }
    }

    /// A hedge won now against a copy that was sent on this path at `sent_at`; the path's last
    /// byte came at `last_byte_at`; `budget_is_low`: [`Hedge::is_low`]. Whether the path is suspect now.
    pub fn on_won(&mut self, now: Nanos, sent_at: Nanos, last_byte_at: Nanos, budget_is_low: bool) -> bool {
        // A path that sends something lives: slower than its sibling is all that is shown.
        if last_byte_at > sent_at {
            self.in_a_row = 0;
            return false;
        }
        if self.in_a_row == 0 {
            self.since = sent_at;
        }
        self.in_a_row = self.in_a_row.saturating_add(1);
        let silent = self.silent(now, last_byte_at);
        self.in_a_row >= HEDGE_WINS_SUSPECT && (silent >= HEDGE_SUSPECT_AFTER || budget_is_low)
    }

    /// How long the path has owed a byte, in nanoseconds: not since it was idle.
    pub fn silent(&self, now: Nanos, last_byte_at: Nanos) -> Nanos {
        now.saturating_sub(self.since.max(last_byte_at))
    }

    /// The path answered something.
    pub fn on_byte(&mut self) {
        self.in_a_row = 0;
    }

    /// Hedges won in a row.
    pub fn in_a_row(&self) -> u32 {
        self.in_a_row
    }
}
