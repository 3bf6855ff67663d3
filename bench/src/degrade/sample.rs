// SPDX-License-Identifier: MIT OR Apache-2.0
//! What one host saw.

use std::time::Duration;

use serde::Serialize;

use super::windows;
use crate::load::Report;

/// One run of a host.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Sample {
    /// `dying`, `slow` or `flapping`.
    pub part: &'static str,
    /// What was measured: a kind of death, or what it is compared with.
    pub target: &'static str,
    /// `read`, `write` or `mixed`.
    pub command: &'static str,
    /// Requests in flight.
    pub depth: u32,
    /// Its round.
    pub round: u32,
    /// Place within the round.
    pub turn: u32,
    /// Answers in each tenth of a second before those that are counted.
    pub before: Vec<u64>,
    /// Answers in each tenth of a second that is counted.
    pub windows: Vec<u64>,
    /// Error replies and lost connections, over the whole run.
    pub errors: u64,
}

impl Sample {
    /// Empty, of one part.
    pub(super) fn of(part: &'static str) -> Self {
        Self { part, ..Self::default() }
    }

    /// With what a host reports; counted is `length` from `from` on.
    pub(super) fn with(mut self, report: &Report, from: Duration, length: Duration) -> Self {
        self.before = windows::between(&report.answers_per_100ms, Duration::ZERO, from);
        self.windows = windows::between(&report.answers_per_100ms, from, length);
        self.errors = report.error_count() + report.lost_connections.len() as u64;
        self
    }

    /// Answers per second, gaps included.
    pub fn rate(&self) -> f64 {
        windows::rate(&self.windows).unwrap_or_default()
    }
}

/// Answers per second of one against another; `None` without anything to compare with.
pub(super) fn ratio(ours: &Sample, base: &Sample) -> Option<f64> {
    (base.rate() > 0.0).then(|| ours.rate() / base.rate())
}
