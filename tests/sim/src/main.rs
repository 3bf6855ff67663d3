// SPDX-License-Identifier: MIT OR Apache-2.0
//! The long run, one run told in full, and the table of `docs/simulation.md`.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::Parser;
use engine::Rules;
use sim::coverage::Coverage;
use sim::run::{again, run_with, tell};
use sim::sabotage::Sabotage;
use sim::switches::{Detection, SABOTAGES, hunt, reasons};

/// Seconds between two lines of progress.
const PROGRESS_S: u64 = 10;

/// Runs seeds of the deterministic simulator.
#[derive(Debug, Parser)]
#[command(name = "sim")]
struct Options {
    /// Run this seed alone.
    #[arg(long)]
    seed: Option<u64>,
    /// With --seed: tell everything that happens.
    #[arg(long, requires = "seed")]
    story: bool,
    /// How many seeds.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Threads.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1024))]
    jobs: u64,
    /// Turn one rule off (the names are those of `engine::Rules`).
    #[arg(long)]
    without: Option<String>,
    /// Stop after this many failures.
    #[arg(long, default_value_t = 10)]
    failures: u64,
    /// Print how long each damage takes to be found, as the table of docs/simulation.md.
    #[arg(long)]
    detections: bool,
}

#[derive(Debug, Default)]
struct Total {
    seeds: u64,
    requests: u64,
    virtual_ns: u64,
    failures: u64,
    coverage: Coverage,
    /// Wall time and number of the seed that took longest: a run away shows here.
    slowest: (Duration, u64),
}

fn main() -> ExitCode {
    let options = Options::parse();
    let Some(rules) = options.without.as_deref().map_or(Some(Rules::ALL), Rules::without) else {
        eprintln!("sim: there is no such rule; there are {}", Rules::NAMES.join(", "));
        return ExitCode::from(2);
    };
    if options.detections {
        return detections(options.seeds);
    }
    if let Some(seed) = options.seed {
        return one(seed, rules, options.story);
    }
    let start = Instant::now();
    let total = many(&options, rules, start);
    summary(&total, start);
    let missing = total.coverage.missing();
    // A short run need not meet everything; a long one must (T6).
    let incomplete = total.seeds >= 1000 && options.without.is_none() && !missing.is_empty();
    if incomplete {
        println!("never exercised: {}", missing.join(", "));
    }
    if total.failures > 0 || incomplete { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn one(seed: u64, rules: Rules, story: bool) -> ExitCode {
    let outcome = tell(seed, rules, Sabotage::None, story);
    println!("seed {seed}: {} requests, trace {:016x}", outcome.requests, outcome.trace);
    match outcome.failure {
        Some(failure) => {
            println!("seed {seed}: {failure}");
            ExitCode::FAILURE
        }
        None => ExitCode::SUCCESS,
    }
}

fn many(options: &Options, rules: Rules, start: Instant) -> Total {
    let next = AtomicU64::new(options.from);
    let stop = AtomicBool::new(false);
    let told = AtomicU64::new(0);
    let total = Mutex::new(Total::default());
    let work = || {
        while !stop.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= options.from + options.seeds {
                return;
            }
            let begun = Instant::now();
            let outcome = run_with(seed, rules, Sabotage::None);
            let took = begun.elapsed();
            let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
            total.seeds += 1;
            total.slowest = total.slowest.max((took, seed));
            total.requests += outcome.requests;
            total.virtual_ns += outcome.time;
            total.coverage.add(&outcome.coverage);
            if let Some(failure) = outcome.failure {
                total.failures += 1;
                println!("seed {seed}: {failure}\n    {}", again(seed));
                stop.fetch_or(total.failures >= options.failures, Ordering::Relaxed);
            }
            let seconds = start.elapsed().as_secs();
            if seconds >= told.load(Ordering::Relaxed) + PROGRESS_S {
                told.store(seconds, Ordering::Relaxed);
                println!("{seconds} s: {} seeds, {} requests", total.seeds, total.requests);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..options.jobs {
            scope.spawn(work);
        }
    });
    total.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn summary(total: &Total, start: Instant) {
    let wall = start.elapsed().as_secs_f64();
    println!("{}", total.coverage);
    println!(
        "{} seeds, {} requests in {} s of virtual time, {wall:.1} s: {:.0} requests a minute; {} failures",
        total.seeds,
        total.requests,
        total.virtual_ns / program::SECOND,
        total.requests as f64 / wall * 60.0,
        total.failures
    );
    println!("slowest: seed {}, {:.2} s", total.slowest.1, total.slowest.0.as_secs_f64());
}

/// The table of `docs/simulation.md`.
fn detections(most: u64) -> ExitCode {
    println!("| turned off | seeds | simulated requests | seconds | found as |");
    println!("|---|---|---|---|---|");
    let mut missed = false;
    let mut row = |name: &str, found: Option<Detection>| {
        let Some(found) = found else {
            missed = true;
            println!("| `{name}` | not found in {most} | | | |");
            return;
        };
        println!(
            "| `{name}` | {} | {} | {:.2} | `{}` |",
            found.seeds,
            found.requests,
            found.took.as_secs_f64(),
            found.failure.rule
        );
    };
    for name in Rules::NAMES {
        let (Some(rules), Some(reasons)) = (Rules::without(name), reasons(name)) else { continue };
        row(name, hunt(rules, Sabotage::None, reasons, most));
    }
    for (sabotage, reasons) in SABOTAGES {
        row(&format!("sabotage: {sabotage:?}"), hunt(Rules::ALL, sabotage, reasons, most));
    }
    if missed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
