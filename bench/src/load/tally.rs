// SPDX-License-Identifier: MIT OR Apache-2.0
//! What one worker counted, and the sum over workers.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

use super::error::ConnectionError;
use super::ledger::Findings;

/// Longest latency that is told apart from longer ones, in nanoseconds: an hour.
const LATENCY_MAX_NS: u64 = 3_600_000_000_000;
/// Significant digits of a latency.
const LATENCY_DIGITS: u8 = 3;
/// Width of a window of answers.
const WINDOW: Duration = Duration::from_millis(100);

/// Counts of one worker, or of all.
#[derive(Clone, Debug)]
pub(super) struct Tally {
    /// READs answered, without those of the final check.
    pub(super) reads: u64,
    /// WRITEs answered.
    pub(super) writes: u64,
    /// FLUSHes answered.
    pub(super) flushes: u64,
    /// READs of the final check.
    pub(super) read_back: u64,
    /// Error replies by name.
    pub(super) errors: BTreeMap<String, u64>,
    /// Connections that broke, in words.
    pub(super) lost_connections: Vec<String>,
    /// Requests that were never answered because their connection broke.
    pub(super) lost_requests: u64,
    /// What `--verify` found.
    pub(super) findings: Findings,
    /// Latency of the answered requests, in nanoseconds.
    pub(super) latency: Histogram<u64>,
    /// Longest time without an answer on any connection.
    pub(super) longest_gap: Duration,
    /// When it began, from the start of the load.
    pub(super) longest_gap_at: Option<Duration>,
    /// From the first request to the last answer, without the final check.
    pub(super) elapsed: Duration,
    /// Answers in each tenth of a second.
    pub(super) windows: Vec<u64>,
}

impl Default for Tally {
    fn default() -> Self {
        let latency = Histogram::new_with_bounds(1, LATENCY_MAX_NS, LATENCY_DIGITS);
        Self {
            reads: 0,
            writes: 0,
            flushes: 0,
            read_back: 0,
            errors: BTreeMap::new(),
            lost_connections: Vec::new(),
            lost_requests: 0,
            findings: Findings::default(),
            latency: latency.unwrap_or_else(|error| panic!("the bounds are constants: {error}")),
            longest_gap: Duration::ZERO,
            longest_gap_at: None,
            elapsed: Duration::ZERO,
            windows: Vec::new(),
        }
    }
}

impl Tally {
    /// Requests answered, the final check included.
    pub(super) fn answered(&self) -> u64 {
        self.reads + self.writes + self.flushes + self.read_back
    }

    /// Keeps the longer gap.
    pub(super) fn note_gap(&mut self, gap: Duration, at: Option<Duration>) {
        if gap > self.longest_gap {
            (self.longest_gap, self.longest_gap_at) = (gap, at);
        }
    }

    /// Answers came at a time from the start.
    pub(super) fn note_window(&mut self, at: Duration, answers: u64) {
        let index = (at.as_nanos() / WINDOW.as_nanos()) as usize;
        if self.windows.len() <= index {
            self.windows.resize(index + 1, 0);
        }
        self.windows[index] += answers;
    }

    /// A connection broke with `requests` in flight.
    pub(super) fn connection_lost(&mut self, error: &ConnectionError, requests: u64) {
        self.lost_connections.push(error.to_string());
        self.lost_requests += requests;
    }

    /// Adds the counts of another worker.
    pub(super) fn merge(&mut self, other: &Self) {
        self.reads += other.reads;
        self.writes += other.writes;
        self.flushes += other.flushes;
        self.read_back += other.read_back;
        for (name, count) in &other.errors {
            *self.errors.entry(name.clone()).or_default() += count;
        }
        self.lost_connections.extend(other.lost_connections.iter().cloned());
        self.lost_requests += other.lost_requests;
        self.findings.merge(&other.findings);
        self.latency.add(&other.latency).unwrap_or_else(|error| panic!("equal bounds: {error}"));
        self.note_gap(other.longest_gap, other.longest_gap_at);
        self.elapsed = self.elapsed.max(other.elapsed);
        if self.windows.len() < other.windows.len() {
            self.windows.resize(other.windows.len(), 0);
        }
        for (sum, part) in self.windows.iter_mut().zip(&other.windows) {
            *sum += part;
        }
    }
}
