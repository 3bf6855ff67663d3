// SPDX-License-Identifier: MIT OR Apache-2.0
//! The long run, one run told in full, shadows, and the table of `docs/simulation.md`.

mod watch;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::Parser;
use engine::Rules;
use sim::coverage::Coverage;
use sim::run::{again, record, tell};
use sim::sabotage::Sabotage;
use sim::shadow::Proposed;
use sim::switches::{Detection, SABOTAGES, hunt, reasons};
use sim::world::Outcome;
use watch::Watch;

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
    /// Tell what these settings would have done: selector=NAME,hedge=SHARE, or one of them.
    #[arg(long, value_name = "SETTINGS", conflicts_with = "detections")]
    shadow: Option<Proposed>,
    /// Write all decision points to this file.
    #[arg(long, value_name = "FILE", conflicts_with = "detections")]
    record: Option<PathBuf>,
    /// Decision points that an engine keeps at most.
    #[arg(long, value_name = "N", default_value_t = 1 << 20, value_parser = clap::value_parser!(u64).range(1..))]
    record_at_most: u64,
    /// With --shadow: run nothing, read the decision points of this file.
    #[arg(long, value_name = "FILE", requires = "shadow", conflicts_with_all = ["seed", "record", "without"])]
    replay: Option<PathBuf>,
}

impl Options {
    fn run(&self, seed: u64, rules: Rules) -> Outcome {
        if self.shadow.is_none() && self.record.is_none() {
            return tell(seed, rules, Sabotage::None, self.story);
        }
        record(seed, rules, self.story, self.record_at_most as usize)
    }
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
    match watched(&options, rules) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("sim: {error}");
            ExitCode::from(2)
        }
    }
}

/// Runs what is asked for, with a shadow or a record beside it if that is asked for too.
fn watched(options: &Options, rules: Rules) -> Result<ExitCode, String> {
    let mut watch = Watch::new(options.shadow, options.record.as_deref())?;
    if let Some(file) = &options.replay {
        watch.replay(file)?;
        watch.end()?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(seed) = options.seed {
        let code = one(options, seed, rules, &mut watch);
        watch.end()?;
        return Ok(code);
    }
    let watch = Mutex::new(watch);
    let code = long(options, rules, &watch);
    watch.into_inner().unwrap_or_else(PoisonError::into_inner).end()?;
    Ok(code)
}

fn long(options: &Options, rules: Rules, watch: &Mutex<Watch>) -> ExitCode {
    let start = Instant::now();
    let total = many(options, rules, watch, start);
    summary(&total, start);
    let missing = total.coverage.missing();
    // A short run need not meet everything; a long one must (T6).
    let incomplete = total.seeds >= 1000 && options.without.is_none() && !missing.is_empty();
    if incomplete {
        println!("never exercised: {}", missing.join(", "));
    }
    if total.failures > 0 || incomplete { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn one(options: &Options, seed: u64, rules: Rules, watch: &mut Watch) -> ExitCode {
    let outcome = options.run(seed, rules);
    watch.take(seed, outcome.records);
    println!("seed {seed}: {} requests, trace {:016x}", outcome.requests, outcome.trace);
    match outcome.failure {
        Some(failure) => {
            println!("seed {seed}: {failure}");
            ExitCode::FAILURE
        }
        None => ExitCode::SUCCESS,
    }
}

fn many(options: &Options, rules: Rules, watch: &Mutex<Watch>, start: Instant) -> Total {
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
            let outcome = options.run(seed, rules);
            let took = begun.elapsed();
            watch.lock().unwrap_or_else(PoisonError::into_inner).take(seed, outcome.records);
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
