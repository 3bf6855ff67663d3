// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a path failure costs a host: the longest time without an answer (rule T8), beside a control without fault.
//!
//! The host is our own load generator with verification: a failover that loses or resurrects a write is no failover, however
//! short it was. The kinds of run are interleaved, so that each fault's control was measured in the same minutes.

pub(crate) mod relay;
mod rig;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;

pub use rig::Fault;

use crate::load::{self, Control, LoadOptions, Pattern};
use crate::machine::Machine;
use crate::peers::PeerError;
use crate::place::{Place, PlaceOptions};
use crate::stats::{median, quantile};
use crate::units::parse_seconds;
use rig::Rig;

/// Answers that are awaited before the fault, so that both paths are in use.
const ANSWERS_BEFORE_FAULT: u64 = 2000;
/// How often the load is looked at meanwhile.
const LOOK_INTERVAL: Duration = Duration::from_millis(2);

/// What is measured.
#[derive(Args, Clone, Debug)]
pub struct FailoverOptions {
    /// Runs of each kind
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub runs: u32,
    /// Kinds of run, interleaved in this order
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "control,kill,reset,stop",
        value_name = "LIST"
    )]
    pub faults: Vec<Fault>,
    /// For how long a run sends requests; the fault comes after a third of it
    #[arg(long, value_parser = parse_seconds, default_value = "3", value_name = "SECONDS")]
    pub seconds: Duration,
    /// Requests in flight of the only host
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub depth: u32,
    /// Share of READs
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u8).range(0..=100), value_name = "PERCENT")]
    pub read_percent: u8,
    /// Where, and of what.
    #[command(flatten)]
    pub place: PlaceOptions,
}

/// One run.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    /// Kind.
    pub fault: String,
    /// Longest time without an answer.
    pub longest_gap_ms: f64,
    /// When that began, from the start of the load.
    pub longest_gap_at_s: f64,
    /// When the fault was injected, likewise.
    pub fault_at_s: f64,
    /// Answers in the worst tenth of a second after the fault, against the median of those before it; `None` for a run too short
    /// to have both.
    pub worst_window: Option<f64>,
    /// Longest wait of one request.
    pub longest_latency_ms: f64,
    /// Requests answered.
    pub requests: u64,
    /// Error replies and lost connections.
    pub errors: u64,
    /// Reads that returned what they must not.
    pub violations: u64,
}

/// All runs of one kind.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Kind.
    pub fault: String,
    /// Runs.
    pub runs: usize,
    /// Longest gap: median, 90 %, longest over the runs.
    pub gap_p50_ms: f64,
    /// See above.
    pub gap_p90_ms: f64,
    /// See above.
    pub gap_max_ms: f64,
    /// Worst window after the fault: median over the runs.
    pub window_p50: Option<f64>,
    /// Longest wait of one request: median over the runs.
    pub latency_p50_ms: f64,
    /// And the longest over the runs.
    pub latency_max_ms: f64,
    /// Errors over all runs.
    pub errors: u64,
    /// Violations over all runs.
    pub violations: u64,
}

/// Everything that came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// Where it was measured.
    pub machine: Machine,
    /// Summary.
    pub rows: Vec<Row>,
    /// All runs.
    pub runs: Vec<Run>,
}

/// Measures.
///
/// # Errors
///
/// Something did not start. What the host saw is in the runs.
pub fn run(options: &FailoverOptions, progress: &mut dyn FnMut(&Run)) -> Result<Outcome, PeerError> {
    let place = Place::in_memory(&options.place)?;
    let mut runs = Vec::new();
    for number in 0..options.runs {
        for fault in &options.faults {
            let home = place.home(&format!("{}-{number}", fault.name()))?;
            let run = one_run(options, *fault, &home, &place.image, &place.binary)?;
            progress(&run);
            runs.push(run);
        }
    }
    let rows = options.faults.iter().filter_map(|fault| row(fault.name(), &runs)).collect();
    Ok(Outcome { machine: place.machine, rows, runs })
}

fn one_run(
    options: &FailoverOptions,
    fault: Fault,
    dir: &Path,
    image: &Path,
    binary: &Path,
) -> Result<Run, PeerError> {
    let mut rig = Rig::start(dir, image, binary, fault)?;
    let load = LoadOptions {
        pattern: Pattern::Mixed,
        depth: options.depth,
        read_percent: options.read_percent,
        duration: options.seconds,
        verify: true,
        ..LoadOptions::new(&rig.node.uri("vol0"))
    };
    let control = Arc::new(Control::default());
    let shared = Arc::clone(&control);
    let started = Instant::now();
    let host = std::thread::spawn(move || load::run(&load, &shared));
    while control.answered() < ANSWERS_BEFORE_FAULT && !host.is_finished() {
        std::thread::sleep(LOOK_INTERVAL);
    }
    std::thread::sleep(options.seconds / 3);
    let fault_at = started.elapsed();
    let injected = rig.node.check_all_used().and_then(|()| rig.inject(fault));
    if injected.is_err() {
        control.stop();
    }
    let report = host.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    injected?;
    Ok(Run {
        fault: fault.name().to_owned(),
        longest_gap_ms: report.longest_gap_ms,
        longest_gap_at_s: report.longest_gap_at_s,
        fault_at_s: fault_at.as_secs_f64(),
        worst_window: worst_window(&report.answers_per_100ms, fault_at, options.seconds),
        longest_latency_ms: report.latency.max_us / 1e3,
        requests: report.requests(),
        errors: report.error_count() + report.lost_connections.len() as u64,
        violations: report.violations,
    })
}

/// Fewest answers in a whole tenth of a second between the fault and the end of sending, against the median before the fault.
fn worst_window(answers: &[u64], fault_at: Duration, end: Duration) -> Option<f64> {
    let window_of = |at: Duration| (at.as_millis() / 100) as usize;
    let (fault, end) = (window_of(fault_at), window_of(end).min(answers.len()));
    // The first window holds the start, that of the fault belongs to both sides.
    let before: Vec<f64> = answers.iter().take(fault).skip(1).map(|count| *count as f64).collect();
    let after = answers.iter().take(end).skip(fault).min();
    match (median(&before), after) {
        (Some(usual), Some(worst)) if usual > 0.0 => Some(*worst as f64 / usual),
        _ => None,
    }
}

fn row(fault: &str, runs: &[Run]) -> Option<Row> {
    let runs: Vec<&Run> = runs.iter().filter(|run| run.fault == fault).collect();
    let gaps: Vec<f64> = runs.iter().map(|run| run.longest_gap_ms).collect();
    let windows: Vec<f64> = runs.iter().filter_map(|run| run.worst_window).collect();
    let latencies: Vec<f64> = runs.iter().map(|run| run.longest_latency_ms).collect();
    Some(Row {
        fault: fault.to_owned(),
        runs: runs.len(),
        gap_p50_ms: quantile(&gaps, 0.5)?,
        gap_p90_ms: quantile(&gaps, 0.9)?,
        gap_max_ms: quantile(&gaps, 1.0)?,
        window_p50: quantile(&windows, 0.5),
        latency_p50_ms: quantile(&latencies, 0.5)?,
        latency_max_ms: quantile(&latencies, 1.0)?,
        errors: runs.iter().map(|run| run.errors).sum(),
        violations: runs.iter().map(|run| run.violations).sum(),
    })
}

impl Outcome {
    /// No host saw an error or wrong data.
    pub fn is_clean(&self) -> bool {
        self.runs.iter().all(|run| run.errors == 0 && run.violations == 0 && run.requests > 0)
    }

    /// As Markdown.
    pub fn markdown(&self) -> String {
        let mut lines = vec![
            "| fault | runs | gap p50 ms | gap p90 ms | gap max ms | worst 100 ms p50 | slowest request p50 ms | max ms | host errors | wrong reads |"
                .to_owned(),
            "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|".to_owned(),
        ];
        lines.extend(self.rows.iter().map(|row| {
            format!(
                "| {} | {} | {:.1} | {:.1} | {:.1} | {} | {:.1} | {:.1} | {} | {} |",
                row.fault,
                row.runs,
                row.gap_p50_ms,
                row.gap_p90_ms,
                row.gap_max_ms,
                row.window_p50.map_or("-".to_owned(), |share| format!("{share:.2}")),
                row.latency_p50_ms,
                row.latency_max_ms,
                row.errors,
                row.violations
            )
        }));
        format!("{}\n{}\n", self.machine.markdown(), lines.join("\n"))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Run, row, worst_window};

    #[test]
    fn rows_keep_kinds_apart() {
        let run = |fault: &str, gap, errors| Run {
            fault: fault.to_owned(),
            longest_gap_ms: gap,
            longest_gap_at_s: 1.0,
            fault_at_s: 1.0,
            worst_window: None,
            longest_latency_ms: gap,
            requests: 1,
            errors,
            violations: 0,
        };
        let runs = [run("kill", 3.0, 0), run("control", 1.0, 0), run("kill", 9.0, 2)];
        let kill = row("kill", &runs).expect("a row");
        assert_eq!((kill.runs, kill.gap_p50_ms, kill.gap_max_ms, kill.errors), (2, 3.0, 9.0, 2));
        assert!(row("reset", &runs).is_none());
    }

    #[test]
    fn the_worst_window_is_found_after_the_fault_and_before_the_end() {
        let answers = [1, 100, 90, 110, 60, 20, 80, 5];
        let at = Duration::from_millis;
        assert_eq!(worst_window(&answers, at(410), at(700)), Some(0.2));
        assert_eq!(worst_window(&answers, at(0), at(700)), None, "nothing came before");
    }
}
