// SPDX-License-Identifier: MIT OR Apache-2.0
//! How long a host waits when one of two paths fails, against what the project promises.
//!
//! One kind of request at one depth in each run, so that a stalled read cannot hide behind a write. Every round runs the
//! control, which is the same without a fault, right before the faults; its own longest gap is taken off theirs, so that
//! what is left is the fault's and not the machine's. Everything is started anew for each run.
//!
//! A machine that other work shares shows more than Holdfast does: the report marks what is within its limit and judges
//! nothing. The same limits hold exactly in virtual time in the tests of the engine (`stalls`).

mod case;
mod rig;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;

pub use case::{Case, Kind};

use crate::load::{self, Control, LoadOptions, Pattern};
use crate::machine::Machine;
use crate::peers::PeerError;
use crate::place::{Place, PlaceOptions};
use crate::silence;
use crate::stats::quantile;
use rig::Rig;

/// Answers that are awaited before the fault: both paths are in use, and reads of their size are measured.
const ANSWERS_BEFORE_FAULT: u64 = 500;
/// How often the load is looked at meanwhile.
const LOOK_INTERVAL: Duration = Duration::from_millis(2);
/// Longest wait for those answers.
const ANSWERS_TIMEOUT: Duration = Duration::from_secs(20);
/// For how long a run goes on after its fault, beside the limit.
const AFTER_FAULT: Duration = Duration::from_millis(250);

/// What is measured.
#[derive(Args, Clone, Debug)]
pub struct StallOptions {
    /// Runs of each kind, at each depth
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub runs: u32,
    /// Kinds of run, interleaved; silence needs root, for a network namespace of its own
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "reset,kill,silence,silence-unhedged,silence-gate,stop",
        value_name = "LIST"
    )]
    pub kinds: Vec<Kind>,
    /// Requests in flight of the only host
    #[arg(long, value_delimiter = ',', default_value = "1,32", value_name = "LIST")]
    pub depths: Vec<u32>,
    /// Where, and of what.
    #[command(flatten)]
    pub place: PlaceOptions,
}

/// One run.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    /// Kind of run.
    pub kind: String,
    /// `read` or `write`.
    pub command: String,
    /// Requests in flight.
    pub depth: u32,
    /// Its round.
    pub round: u32,
    /// Longest time without an answer.
    pub longest_gap_ms: f64,
    /// Requests answered.
    pub requests: u64,
    /// Error replies and lost connections.
    pub errors: u64,
}

/// All runs of one kind at one depth.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Kind of run.
    pub kind: String,
    /// `read` or `write`.
    pub command: String,
    /// Requests in flight.
    pub depth: u32,
    /// Runs.
    pub runs: usize,
    /// Longest gap of the control: median over the runs.
    pub control_p50_ms: f64,
    /// What the fault adds to it.
    pub p50_ms: f64,
    /// See above.
    pub p90_ms: f64,
    /// See above.
    pub p99_ms: f64,
    /// What is promised.
    pub limit_ms: f64,
    /// Errors over all runs.
    pub errors: u64,
}

/// Everything that came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// Where it was measured.
    pub machine: Machine,
    /// Summary.
    pub rows: Vec<Row>,
    /// All runs, the controls with them.
    pub runs: Vec<Run>,
}

/// Measures.
///
/// # Errors
///
/// Something did not start, or silence is wanted and this user may not make it.
pub fn run(options: &StallOptions, progress: &mut dyn FnMut(&Run)) -> Result<Outcome, PeerError> {
    let place = Place::in_memory(&options.place)?;
    let cases = case::cases(&options.kinds);
    if cases.iter().any(|case| case.kind.is_silence()) {
        silence::enter_namespace()?;
    }
    let mut runs = Vec::new();
    for round in 0..options.runs {
        for &depth in &options.depths {
            for case in &cases {
                let home = place.home(&format!("{}-{}-{depth}-{round}", case.kind.name(), case.command()))?;
                let run = one_run(*case, depth, round, &home, &place.image, &place.binary)?;
                progress(&run);
                runs.push(run);
            }
        }
    }
    let mut rows = Vec::new();
    for case in cases.iter().filter(|case| case.kind != Kind::Control) {
        rows.extend(options.depths.iter().filter_map(|&depth| row(*case, depth, &runs)));
    }
    Ok(Outcome { machine: place.machine, rows, runs })
}

fn one_run(
    case: Case,
    depth: u32,
    round: u32,
    dir: &Path,
    image: &Path,
    binary: &Path,
) -> Result<Run, PeerError> {
    let mut rig = Rig::start(dir, image, binary, case.kind)?;
    let load = LoadOptions {
        // Front to back: what is in doubt on a path that stands keeps its place for as long as that lasts (W13), and a host
        // that wrote there again would measure that.
        pattern: if case.writes { Pattern::Write } else { Pattern::RandRead },
        depth,
        // Ended by the control.
        duration: Duration::from_hours(1),
        ..LoadOptions::new(&rig.uri())
    };
    let control = Arc::new(Control::default());
    let shared = Arc::clone(&control);
    let host = std::thread::spawn(move || load::run(&load, &shared));
    let started = Instant::now();
    while control.answered() < ANSWERS_BEFORE_FAULT
        && started.elapsed() < ANSWERS_TIMEOUT
        && !host.is_finished()
    {
        std::thread::sleep(LOOK_INTERVAL);
    }
    let injected = rig.check_both_used().and_then(|()| rig.inject(case.kind));
    if injected.is_ok() {
        std::thread::sleep(AFTER_FAULT + case.limit);
    }
    let healed = rig.heal(case.kind);
    control.stop();
    let report = host.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    injected.and(healed)?;
    Ok(Run {
        kind: case.kind.name().to_owned(),
        command: case.command().to_owned(),
        depth,
        round,
        longest_gap_ms: report.longest_gap_ms,
        requests: report.requests(),
        errors: report.error_count() + report.lost_connections.len() as u64,
    })
}

fn row(case: Case, depth: u32, runs: &[Run]) -> Option<Row> {
    let of = |kind: Kind| {
        let fits =
            move |run: &&Run| run.kind == kind.name() && run.command == case.command() && run.depth == depth;
        runs.iter().filter(fits)
    };
    let controls: Vec<f64> = of(Kind::Control).map(|run| run.longest_gap_ms).collect();
    let added: Vec<f64> = of(case.kind)
        .filter_map(|run| {
            let control = of(Kind::Control).find(|control| control.round == run.round)?;
            Some((run.longest_gap_ms - control.longest_gap_ms).max(0.0))
        })
        .collect();
    Some(Row {
        kind: case.kind.name().to_owned(),
        command: case.command().to_owned(),
        depth,
        runs: added.len(),
        control_p50_ms: quantile(&controls, 0.5)?,
        p50_ms: quantile(&added, 0.5)?,
        p90_ms: quantile(&added, 0.9)?,
        p99_ms: quantile(&added, 0.99)?,
        limit_ms: case.limit.as_secs_f64() * 1e3,
        errors: of(case.kind).map(|run| run.errors).sum(),
    })
}

impl Row {
    /// Up to which quantile it is within the limit.
    fn within(&self) -> &'static str {
        match self.limit_ms {
            limit if self.p99_ms <= limit => "all",
            limit if self.p90_ms <= limit => "p90",
            limit if self.p50_ms <= limit => "p50",
            _ => "**no**",
        }
    }
}

impl Outcome {
    /// No host saw an error.
    pub fn is_clean(&self) -> bool {
        self.runs.iter().all(|run| run.errors == 0 && run.requests > 0)
    }

    /// As Markdown.
    pub fn markdown(&self) -> String {
        let mut lines = vec![
            "| fault | requests | depth | runs | control p50 ms | added p50 ms | p90 ms | p99 ms | limit ms | within | host errors |"
                .to_owned(),
            "|---|---|---:|---:|---:|---:|---:|---:|---:|---|---:|".to_owned(),
        ];
        lines.extend(self.rows.iter().map(|row| {
            format!(
                "| {} | {} | {} | {} | {:.1} | {:.1} | {:.1} | {:.1} | {:.0} | {} | {} |",
                row.kind,
                row.command,
                row.depth,
                row.runs,
                row.control_p50_ms,
                row.p50_ms,
                row.p90_ms,
                row.p99_ms,
                row.limit_ms,
                row.within(),
                row.errors
            )
        }));
        format!("{}\n{}\n", self.machine.markdown(), lines.join("\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::{Kind, Run, case, row};

    fn run(kind: Kind, round: u32, longest_gap_ms: f64) -> Run {
        let (command, kind) = ("read".to_owned(), kind.name().to_owned());
        Run { kind, command, depth: 1, round, longest_gap_ms, requests: 1, errors: 0 }
    }

    /// A fault is charged with what it adds to the control of its own round, and never with less than nothing.
    #[test]
    fn the_machines_own_gaps_are_taken_off() {
        let runs = [
            run(Kind::Control, 0, 10.0),
            run(Kind::Stop, 0, 14.0),
            run(Kind::Control, 1, 50.0),
            run(Kind::Stop, 1, 40.0),
            run(Kind::Control, 2, 1.0),
            run(Kind::Stop, 2, 31.0),
        ];
        let cases = case::cases(&[Kind::Stop]);
        let read = *cases.iter().find(|case| case.kind == Kind::Stop && !case.writes).expect("a read case");
        let row = row(read, 1, &runs).expect("a row");
        assert_eq!((row.runs, row.control_p50_ms), (3, 10.0));
        assert_eq!((row.p50_ms, row.p90_ms, row.p99_ms), (4.0, 30.0, 30.0));
        assert_eq!((row.limit_ms, row.within()), (20.0, "p50"));
    }
}
