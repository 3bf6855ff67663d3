// SPDX-License-Identifier: MIT OR Apache-2.0
//! `holdfast-bench`: the command line of the measurements.
//!
//! Exit status: 0 done and good, 1 done and not good (errors, wrong data, a goal missed with `--require-goals`), 2 not done.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use bench::compare::{self, CompareOptions, Sample};
use bench::degrade::{self, DegradeOptions};
use bench::failover::{self, FailoverOptions};
use bench::load::{self, Control, LoadOptions};
use bench::scale::{self, ScaleOptions};
use bench::stall::{self, StallOptions};
use bench::usage::raise_open_files;
use clap::{Args, Parser, Subcommand};
use serde::Serialize;

type Done = Result<bool, Box<dyn std::error::Error>>;

/// Measures Holdfast and its peers
#[derive(Parser)]
#[command(name = "holdfast-bench", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Be a host: send requests, measure the answers, verify the content if wanted
    Load(LoadArguments),
    /// Measure proxies side by side in front of the same storage
    Compare(CompareArguments),
    /// Measure the longest gap that a host sees when one of two paths fails
    Failover(FailoverArguments),
    /// Measure what a failing path adds to the longest gap that a host sees, against the promised limits
    Stall(StallArguments),
    /// Measure what a dying, slow or flapping path costs the other
    Degrade(DegradeArguments),
    /// Measure the cost of idle connections and of many devices
    Scale(ScaleArguments),
}

#[derive(Args)]
struct LoadArguments {
    #[command(flatten)]
    options: LoadOptions,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct CompareArguments {
    #[command(flatten)]
    options: CompareOptions,
    /// Write all samples and the summary as JSON
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Fail when a goal of the project is missed
    #[arg(long)]
    require_goals: bool,
}

#[derive(Args)]
struct FailoverArguments {
    #[command(flatten)]
    options: FailoverOptions,
    /// Write all runs and the summary as JSON
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Args)]
struct StallArguments {
    #[command(flatten)]
    options: StallOptions,
    /// Write all runs and the summary as JSON
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Args)]
struct DegradeArguments {
    #[command(flatten)]
    options: DegradeOptions,
    /// Write all samples and the summary as JSON
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Fail when a goal of the project is missed
    #[arg(long)]
    require_goals: bool,
}

#[derive(Args)]
struct ScaleArguments {
    #[command(flatten)]
    options: ScaleOptions,
    /// Write the result as JSON
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Fail when a bound is missed
    #[arg(long)]
    require_goals: bool,
}

fn main() -> ExitCode {
    raise_open_files();
    let done = match Cli::parse().command {
        Command::Load(arguments) => load(&arguments),
        Command::Compare(arguments) => compare(&arguments),
        Command::Failover(arguments) => failover(&arguments),
        Command::Stall(arguments) => stall(&arguments),
        Command::Degrade(arguments) => degrade(&arguments),
        Command::Scale(arguments) => scale(&arguments),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("holdfast-bench: {error}");
            ExitCode::from(2)
        }
    }
}

fn load(arguments: &LoadArguments) -> Done {
    let report = load::run(&arguments.options, &Arc::new(Control::default()))?;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{report}");
    }
    Ok(report.is_clean())
}

fn compare(arguments: &CompareArguments) -> Done {
    let mut tell = |sample: &Sample| {
        let Sample { round, workload, target, .. } = sample;
        match (&sample.figures, &sample.error) {
            (Some(figures), _) => eprintln!("round {round} {workload} {target}: {:.0} IOPS", figures.iops),
            (None, error) => eprintln!("round {round} {workload} {target}: {error:?}"),
        }
    };
    let outcome = compare::run(&arguments.options, &mut tell)?;
    println!("{}", outcome.markdown());
    write_json(arguments.out.as_ref(), &outcome)?;
    let met = outcome.goals.iter().all(|goal| goal.met);
    let failed = outcome.samples.iter().any(|sample| sample.error.is_some());
    Ok(!failed && (met || !arguments.require_goals))
}

fn failover(arguments: &FailoverArguments) -> Done {
    let mut tell = |run: &failover::Run| {
        eprintln!(
            "{} (at {:.2} s): gap {:.1} ms (at {:.2} s), {} errors, {} wrong reads",
            run.fault, run.fault_at_s, run.longest_gap_ms, run.longest_gap_at_s, run.errors, run.violations
        );
    };
    let outcome = failover::run(&arguments.options, &mut tell)?;
    println!("{}", outcome.markdown());
    write_json(arguments.out.as_ref(), &outcome)?;
    Ok(outcome.is_clean())
}

fn stall(arguments: &StallArguments) -> Done {
    let mut tell = |run: &stall::Run| {
        let stall::Run { round, kind, command, depth, longest_gap_ms, errors, .. } = run;
        eprintln!("round {round} {kind} {command} at {depth}: gap {longest_gap_ms:.1} ms, {errors} errors");
    };
    let outcome = stall::run(&arguments.options, &mut tell)?;
    println!("{}", outcome.markdown());
    write_json(arguments.out.as_ref(), &outcome)?;
    Ok(outcome.is_clean())
}

fn degrade(arguments: &DegradeArguments) -> Done {
    let mut tell = |sample: &degrade::Sample| {
        let degrade::Sample { round, part, target, command, depth, errors, .. } = sample;
        let rate = sample.rate();
        eprintln!("round {round} {part} {target} {command} at {depth}: {rate:.0} IOPS, {errors} errors");
    };
    let outcome = degrade::run(&arguments.options, &mut tell)?;
    println!("{}", outcome.markdown());
    write_json(arguments.out.as_ref(), &outcome)?;
    Ok(outcome.is_clean() && (outcome.is_met() || !arguments.require_goals))
}

fn scale(arguments: &ScaleArguments) -> Done {
    let outcome = scale::run(&arguments.options)?;
    println!("{}", outcome.markdown());
    write_json(arguments.out.as_ref(), &outcome)?;
    Ok(outcome.is_within_bounds() || !arguments.require_goals)
}

fn write_json(path: Option<&PathBuf>, value: &impl Serialize) -> Result<(), Box<dyn std::error::Error>> {
    let Some(path) = path else { return Ok(()) };
    std::fs::write(path, serde_json::to_string_pretty(value)?)
        .map_err(|error| format!("{}: {error}", path.display()).into())
}
