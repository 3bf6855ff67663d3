// SPDX-License-Identifier: MIT OR Apache-2.0
//! How fast requests of a lost path are sent on another.
//!
//! **Model.** A path that dies with a hundred requests in flight drops them on its siblings in one
//! instant. Sent at once they stand in front of everything those siblings serve: their own
//! requests slow down just when a host has no patience left. So moved requests are dealt in a
//! window that begins small and grows while nobody feels it:
//!
//! ```text
//! window: 7 to begin with, as many as would go without pacing
//! a window of moved ones took its normal time (+6 %)  -> doubled
//! it took longer                                      -> halved, not below 1, nor below
//!                       1/19 of what else is in flight on the path (5 % of the whole)
//! each second                                         -> the 5 % double: 10 % ... 80 %, all
//! ```
//!
//! A path with room to spare takes a hundred requests within four round trips. One at its limit
//! feels it between 6 and 12 %, so the window swings around that and 90 % are kept for what it
//! had, until patience ends: after 2 s. *Normal* is what the path needed before, frozen
//! when pacing begins: an average that follows would call the slow-down normal step by step.
//! Single answers are noise; the mean of a window is compared.
//!
//! Fewer than 8 requests are not a mass and go at once; a host with one request waits for nothing.
//! The order is the caller's: oldest first, behind the range locks.
//!
//! Rejected: tokens by time. The right rate is unknown, and answers are the only clock that
//! runs at the storage's speed.

use crate::Nanos;
use crate::latency::{Latency, size_class};
use crate::limits::{
    FULL_SHARE_PPM, LATENCY_OUTLIER_FACTOR, PACING_FELT_PPM, PACING_FIRST, PACING_MOVED_MIN, PACING_PATIENCE,
    PACING_SHARE_PPM, SIZE_CLASS_BYTES_MAX, SIZE_CLASSES,
};

/// Moved requests on one surviving path.
#[derive(Clone, Debug, Default)]
pub struct Pacing {
    started: Option<Nanos>,
    window: u32,
    in_flight: u32,
    /// Most in flight in this round; so many answers end it.
    peak: u32,
    answers: u32,
    /// Sum of this round's service times, in millionths of the normal ones.
    sum_ppm: u64,
    /// Service times before, nanoseconds; 0 = unknown. Reads, then writes.
    normal_ns: [[u64; SIZE_CLASSES]; 2],
}

impl Pacing {
    /// Nothing is paced.
    pub fn new() -> Self {
        Self::default()
    }

    /// So many requests were moved at once and wait for a path; `latency` is this path's. Fewer than
    /// 8 do not start pacing; while it goes on, more of them change nothing.
    pub fn on_moved(&mut self, now: Nanos, requests: u32, latency: &Latency) {
        if self.started.is_some() || requests < PACING_MOVED_MIN {
            return;
        }
        self.started = Some(now);
        self.window = PACING_MOVED_MIN - 1;
        self.new_round();
        for (write, normal_ns) in [false, true].into_iter().zip(&mut self.normal_ns) {
            *normal_ns = core::array::from_fn(|class| {
                let len_bytes = SIZE_CLASS_BYTES_MAX.get(class).copied().unwrap_or(u64::MAX);
                latency.expected_ns(write, len_bytes)
            });
        }
    }

    /// Moved requests that may be sent on the path now. `own_in_flight`: what else it has in flight.
    /// `u32::MAX` when nothing is paced.
    pub fn allowance(&self, now: Nanos, own_in_flight: u32) -> u32 {
        let Some(started) = self.started else { return u32::MAX };
        let doublings = now.saturating_sub(started) / PACING_PATIENCE;
        let share_ppm = u64::from(PACING_SHARE_PPM) << doublings.min(16);
        let rest_ppm = u64::from(FULL_SHARE_PPM).saturating_sub(share_ppm);
        if rest_ppm == 0 {
            return u32::MAX;
        }
        let part = u64::from(own_in_flight) * share_ppm / rest_ppm;
        let first = u32::try_from(part).unwrap_or(u32::MAX).max(PACING_FIRST);
        first.max(self.window).saturating_sub(self.in_flight)
    }

    /// A moved request was sent on the path.
    pub fn on_sent(&mut self) {
        self.in_flight += 1;
        self.peak = self.peak.max(self.in_flight);
    }

    /// A moved request was answered on the path, `service_ns` after its sending.
    pub fn on_answered(&mut self, write: bool, len_bytes: u64, service_ns: u64) {
        self.in_flight = self.in_flight.saturating_sub(1);
        let normal_ns = self.normal_ns[usize::from(write)][size_class(len_bytes)];
        if normal_ns == 0 {
            return;
        }
        let full_ppm = u128::from(FULL_SHARE_PPM);
        let sample_ppm = u128::from(service_ns) * full_ppm / u128::from(normal_ns);
        let sample_ppm = sample_ppm.min(u128::from(LATENCY_OUTLIER_FACTOR) * full_ppm) as u64;
        self.answers += 1;
        self.sum_ppm = self.sum_ppm.saturating_add(sample_ppm);
        if self.answers >= self.peak {
            let felt = self.sum_ppm / u64::from(self.answers) > u64::from(PACING_FELT_PPM);
            self.window = if felt { self.peak / 2 } else { self.peak.saturating_mul(2) };
            self.new_round();
        }
    }

    fn new_round(&mut self) {
        (self.peak, self.answers, self.sum_ppm) = (self.in_flight, 0, 0);
    }

    /// No moved request waits any more.
    pub fn on_backlog_empty(&mut self) {
        self.started = None;
    }

    /// The path itself failed: what was in flight on it is moved again.
    pub fn on_path_lost(&mut self) {
        *self = Self::default();
    }

    /// When the allowance changes by time alone; `None` while nothing is paced.
    pub fn next_deadline(&self, now: Nanos) -> Option<Nanos> {
        let started = self.started?;
        let passed = now.saturating_sub(started) / PACING_PATIENCE;
        (self.allowance(now, 0) != u32::MAX)
            .then(|| started.saturating_add((passed + 1).saturating_mul(PACING_PATIENCE)))
    }

    /// Whether moved requests are held back.
    pub fn is_active(&self) -> bool {
        self.started.is_some()
    }
}
