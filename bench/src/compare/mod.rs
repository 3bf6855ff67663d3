// SPDX-License-Identifier: MIT OR Apache-2.0
//! Peers side by side: the same storage, the same client, the same minutes.
//!
//! Rule: within a round every target is measured once per workload, one right after the other, and the order of targets
//! rotates from round to round; results are medians of ratios within rounds (see [`summary`]). The alternative, a long run
//! of each target after the other, measures the machine's mood.

mod fio;
mod markdown;
pub(crate) mod rig;
mod sample;
pub mod summary;
mod workload;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;

pub use rig::{Storage, Target};
pub use sample::{Figures, Sample};
pub use workload::{Client, DEFAULT_WORKLOADS, Workload};

use crate::load::{self, Control, LoadOptions};
use crate::machine::Machine;
use crate::peers::{self, PeerError};
use crate::stats::median;
use crate::units::{parse_bytes, parse_seconds};
use crate::usage::{CpuTime, MachineTime};
use rig::{Binaries, Rig, Running};
use summary::{Goal, Row};

/// What is compared.
#[derive(Args, Clone, Debug)]
pub struct CompareOptions {
    /// Rounds; every target is measured once per workload in each
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,
    /// Length of one sample
    #[arg(long, value_parser = parse_seconds, default_value = "3", value_name = "SECONDS")]
    pub seconds: Duration,
    /// Workloads: PATTERN-BLOCK-DEPTH, and -flushN behind it for a FLUSH after N writes
    #[arg(long, value_delimiter = ',', default_value = DEFAULT_WORKLOADS, value_name = "LIST")]
    pub workloads: Vec<Workload>,
    /// Targets
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "direct,haproxy,nbdkit-nbd,holdfast",
        value_name = "LIST"
    )]
    pub targets: Vec<Target>,
    /// Who sends the requests
    #[arg(long, value_enum, default_value = "fio")]
    pub client: Client,
    /// Size of the storage
    #[arg(long = "size", value_parser = parse_bytes, default_value = "256m", value_name = "BYTES")]
    pub size_bytes: u64,
    /// What stands behind the targets
    #[arg(long, value_enum, default_value = "memory")]
    pub storage: Storage,
    /// Another holdfast binary, for the target holdfast-other
    #[arg(long, value_name = "FILE")]
    pub other: Option<PathBuf>,
    /// The holdfast binary [default: HOLDFAST_BIN, or beside this program]
    #[arg(long, value_name = "FILE")]
    pub holdfast: Option<PathBuf>,
}

/// Everything that came of a comparison.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// Where it was made.
    pub machine: Machine,
    /// Rounds asked for.
    pub rounds: u32,
    /// Length of one sample.
    pub seconds: f64,
    /// `fio` or `own`.
    pub client: String,
    /// Summary.
    pub rows: Vec<Row>,
    /// Goals.
    pub goals: Vec<Goal>,
    /// All samples.
    pub samples: Vec<Sample>,
}

/// Compares.
///
/// # Errors
///
/// Something did not start, or the storage died. A target that fails is in its samples.
pub fn run(options: &CompareOptions, progress: &mut dyn FnMut(&Sample)) -> Result<Outcome, PeerError> {
    let dir = tempfile::tempdir().map_err(|e| PeerError::new(format!("no temporary directory: {e}")))?;
    let needs_holdfast = options.targets.iter().any(|target| target.is_holdfast());
    let holdfast = if needs_holdfast { Some(peers::binary(options.holdfast.as_deref())?) } else { None };
    let machine = Machine::here(holdfast.as_deref());
    let binaries = Binaries { own: holdfast, other: options.other.clone() };
    let (storage, size_bytes) = (options.storage, options.size_bytes);
    let mut rig = Rig::start(dir.path(), storage, size_bytes, &options.targets, &binaries)?;
    let mut samples = Vec::new();
    for round in 0..options.rounds {
        for workload in &options.workloads {
            for turn in 0..rig.targets.len() {
                let index = (turn + round as usize) % rig.targets.len();
                let sample = take_sample(&mut rig, index, round, workload, options, dir.path())?;
                progress(&sample);
                samples.push(sample);
            }
        }
    }
    Ok(Outcome {
        machine,
        rounds: options.rounds,
        seconds: options.seconds.as_secs_f64(),
        client: format!("{:?}", options.client).to_lowercase(),
        rows: summary::rows(&samples),
        goals: summary::goals(&samples),
        samples,
    })
}

impl Outcome {
    /// As Markdown.
    pub fn markdown(&self) -> String {
        markdown::render(self)
    }

    /// How it was measured and what disturbed, in one line.
    fn conditions(&self) -> String {
        let share = |part: fn(&Sample) -> f64| {
            let of = |sample: &Sample| (sample.wall_s > 0.0).then(|| part(sample) / sample.wall_s);
            median(&self.samples.iter().filter_map(of).collect::<Vec<f64>>()).unwrap_or_default()
        };
        format!(
            "{} rounds of {} s, client {}; medians, ratios within rounds as median (lowest-highest); \
             processors busy with anything else: {:.2}, taken by the hypervisor: {:.2}",
            self.rounds,
            self.seconds,
            self.client,
            share(|sample| sample.other_cpu_s),
            share(|sample| sample.steal_s),
        )
    }
}

/// Processor times before or after a sample.
struct Meter {
    storage_s: f64,
    proxy_s: Option<f64>,
    machine: MachineTime,
    at: Instant,
}

impl Meter {
    fn read(rig: &mut Rig, index: usize) -> Result<Self, PeerError> {
        let storage_s = rig.storage.process.cpu()?.total_s();
        let proxy = &mut rig.targets[index].proxy;
        // A proxy that is gone shows as the client's error.
        let proxy_s = proxy.as_mut().and_then(|proxy| proxy.process().cpu().ok()).map(CpuTime::total_s);
        Ok(Self { storage_s, proxy_s, machine: MachineTime::now(), at: Instant::now() })
    }
}

fn take_sample(
    rig: &mut Rig,
    index: usize,
    round: u32,
    workload: &Workload,
    options: &CompareOptions,
    dir: &Path,
) -> Result<Sample, PeerError> {
    rig.settle()?;
    let before = Meter::read(rig, index)?;
    let measured = run_client(&rig.targets[index], workload, options, dir);
    let after = Meter::read(rig, index)?;
    let (figures, error) = match measured {
        Ok(figures) => (Some(figures), None),
        Err(error) => (None, Some(error.to_string())),
    };
    let storage_cpu_s = after.storage_s - before.storage_s;
    let proxy_cpu_s = after.proxy_s.zip(before.proxy_s).map(|(after, before)| after - before);
    let ours = storage_cpu_s + proxy_cpu_s.unwrap_or(0.0) + figures.map_or(0.0, |f: Figures| f.client_cpu_s);
    let busy_s = after.machine.busy_s - before.machine.busy_s;
    Ok(Sample {
        round,
        workload: workload.name.clone(),
        target: rig.targets[index].target.name().to_owned(),
        figures,
        error,
        proxy_cpu_s,
        storage_cpu_s,
        other_cpu_s: (busy_s - ours).max(0.0),
        steal_s: after.machine.steal_s - before.machine.steal_s,
        wall_s: after.at.duration_since(before.at).as_secs_f64(),
    })
}

fn run_client(
    target: &Running,
    workload: &Workload,
    options: &CompareOptions,
    dir: &Path,
) -> Result<Figures, PeerError> {
    if options.client == Client::Fio {
        return fio::run(&target.uri, workload, options.seconds, options.size_bytes, dir);
    }
    let load = LoadOptions {
        pattern: workload.pattern,
        block_bytes: workload.block_bytes,
        depth: workload.depth,
        duration: options.seconds,
        flush_every: workload.flush_every.map(u64::from),
        ..LoadOptions::new(&target.uri)
    };
    let report = load::run(&load, &Arc::new(Control::default()))?;
    if !report.is_clean() {
        return Err(PeerError::new(report.to_string()));
    }
    Ok(Figures {
        requests: report.requests(),
        iops: report.iops,
        p50_us: report.latency.p50_us,
        p99_us: report.latency.p99_us,
        client_cpu_s: report.cpu.total_s(),
    })
}
