// SPDX-License-Identifier: MIT OR Apache-2.0
//! The result of a load, for people and for programs.

use std::collections::BTreeMap;
use std::fmt;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::tally::Tally;
use crate::usage::CpuTime;

/// What came of a load. Field names are stable: scripts read them.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// From the first request to the last answer, without the final check.
    pub seconds: f64,
    /// READs answered.
    pub reads: u64,
    /// WRITEs answered.
    pub writes: u64,
    /// FLUSHes answered.
    pub flushes: u64,
    /// Requests answered per second.
    pub iops: f64,
    /// Payload per second, in MiB.
    pub mib_per_s: f64,
    /// Latency of requests.
    pub latency: Latency,
    /// Longest time without an answer on any connection that had requests in flight.
    pub longest_gap_ms: f64,
    /// When it began, from the start.
    pub longest_gap_at_s: f64,
    /// Requests answered in each tenth of a second from the start.
    pub answers_per_100ms: Vec<u64>,
    /// Error replies by name.
    pub errors: BTreeMap<String, u64>,
    /// Connections that broke, in words.
    pub lost_connections: Vec<String>,
    /// Requests never answered because of that.
    pub lost_requests: u64,
    /// Whether content was checked.
    pub verified: bool,
    /// READs of the final check.
    pub read_back: u64,
    /// READs that returned what they must not.
    pub violations: u64,
    /// The first of them in words.
    pub violation_examples: Vec<String>,
    /// Processor time of the generator, final check included.
    pub cpu: CpuTime,
}

/// Latencies in microseconds.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Latency {
    /// Shortest.
    pub min_us: f64,
    /// Mean.
    pub mean_us: f64,
    /// Median.
    pub p50_us: f64,
    /// 90 %.
    pub p90_us: f64,
    /// 99 %.
    pub p99_us: f64,
    /// 99.9 %.
    pub p999_us: f64,
    /// Longest.
    pub max_us: f64,
}

impl Report {
    pub(super) fn new(tally: &Tally, block_bytes: u32, verified: bool, cpu: CpuTime) -> Self {
        let seconds = tally.elapsed.as_secs_f64();
        let payload_bytes = (tally.reads + tally.writes) as f64 * f64::from(block_bytes);
        let per_second = |amount: f64| if seconds > 0.0 { amount / seconds } else { 0.0 };
        Self {
            seconds,
            reads: tally.reads,
            writes: tally.writes,
            flushes: tally.flushes,
            iops: per_second((tally.reads + tally.writes + tally.flushes) as f64),
            mib_per_s: per_second(payload_bytes / f64::from(1 << 20)),
            latency: Latency::of(&tally.latency),
            longest_gap_ms: tally.longest_gap.as_secs_f64() * 1e3,
            longest_gap_at_s: tally.longest_gap_at.unwrap_or_default().as_secs_f64(),
            answers_per_100ms: tally.windows.clone(),
            errors: tally.errors.clone(),
            lost_connections: tally.lost_connections.clone(),
            lost_requests: tally.lost_requests,
            verified,
            read_back: tally.read_back,
            violations: tally.findings.violations,
            violation_examples: tally.findings.examples.clone(),
            cpu,
        }
    }

    /// Requests answered, without the final check.
    pub fn requests(&self) -> u64 {
        self.reads + self.writes + self.flushes
    }

    /// Error replies of any kind.
    pub fn error_count(&self) -> u64 {
        self.errors.values().sum()
    }

    /// No error, no lost connection, no wrong content, and something was done.
    pub fn is_clean(&self) -> bool {
        self.error_count() == 0
            && self.lost_connections.is_empty()
            && self.violations == 0
            && self.requests() > 0
    }
}

impl Latency {
    fn of(histogram: &Histogram<u64>) -> Self {
        if histogram.is_empty() {
            return Self::default();
        }
        let us = |ns: u64| ns as f64 / 1e3;
        let at = |quantile| us(histogram.value_at_quantile(quantile));
        Self {
            min_us: us(histogram.min()),
            mean_us: histogram.mean() / 1e3,
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: us(histogram.max()),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Latency { min_us, p50_us, p90_us, p99_us, p999_us, max_us, .. } = self.latency;
        writeln!(
            f,
            "{} reads, {} writes, {} flushes in {:.2} s: {:.0} IOPS, {:.1} MiB/s",
            self.reads, self.writes, self.flushes, self.seconds, self.iops, self.mib_per_s
        )?;
        writeln!(
            f,
            "latency (us)   min {min_us:.0}  p50 {p50_us:.0}  p90 {p90_us:.0}  p99 {p99_us:.0}  p99.9 {p999_us:.0}  max {max_us:.0}"
        )?;
        writeln!(
            f,
            "longest gap    {:.2} ms without an answer, at {:.2} s",
            self.longest_gap_ms, self.longest_gap_at_s
        )?;
        writeln!(
            f,
            "generator      {:.2} s of processor time ({:.2} user, {:.2} system)",
            self.cpu.total_s(),
            self.cpu.user_s,
            self.cpu.system_s
        )?;
        writeln!(
            f,
            "errors         {}, {} connections lost",
            self.error_count(),
            self.lost_connections.len()
        )?;
        for (name, count) in &self.errors {
            writeln!(f, "  {name}: {count}")?;
        }
        for words in &self.lost_connections {
            writeln!(f, "  connection lost: {words}")?;
        }
        if self.verified {
            writeln!(
                f,
                "verify         {} wrong reads; {} blocks read back",
                self.violations, self.read_back
            )?;
        }
        for words in &self.violation_examples {
            writeln!(f, "  {words}")?;
        }
        Ok(())
    }
}
