// SPDX-License-Identifier: MIT OR Apache-2.0
//! From samples to rows: medians, and ratios within a round.
//!
//! A ratio is taken between two samples of the same round and workload, which were measured seconds apart, and then the
//! median over the rounds is taken. On a shared machine absolute rates move by large factors between rounds; such ratios
//! hardly move. The lowest and highest are kept beside the median, so that anybody can see what it is worth.

use serde::{Deserialize, Serialize};

use super::rig::Target;
use super::sample::{Figures, Sample};
use crate::stats::median;

/// Median, lowest and highest of some values.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Middle.
    pub median: f64,
    /// Lowest.
    pub low: f64,
    /// Highest.
    pub high: f64,
}

/// One target under one workload.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// Name of the workload.
    pub workload: String,
    /// Name of the target.
    pub target: String,
    /// Rounds that gave figures.
    pub rounds: usize,
    /// Requests per second.
    pub iops: Option<f64>,
    /// Requests per second against direct access in the same round.
    pub iops_to_direct: Option<Spread>,
    /// Requests per second against HAProxy in the same round.
    pub iops_to_haproxy: Option<Spread>,
    /// Median latency.
    pub p50_us: Option<f64>,
    /// Median latency against HAProxy in the same round.
    pub p50_to_haproxy: Option<Spread>,
    /// 99 % latency.
    pub p99_us: Option<f64>,
    /// Processor time of the proxy per request.
    pub proxy_cpu_us: Option<f64>,
    /// The same against HAProxy in the same round.
    pub proxy_cpu_to_haproxy: Option<Spread>,
    /// Processor time of the storage per request.
    pub storage_cpu_us: Option<f64>,
    /// Processor time of the client per request.
    pub client_cpu_us: Option<f64>,
    /// Processors busy with something else, on average over the samples.
    pub other_cpus: Option<f64>,
}

/// A goal of the project and how it was met.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Goal {
    /// What must hold.
    pub what: String,
    /// Median of the per-round ratios.
    pub measured: f64,
    /// Whether it holds.
    pub met: bool,
}

impl Spread {
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        let low = values.iter().copied().min_by(f64::total_cmp)?;
        let high = values.iter().copied().max_by(f64::total_cmp)?;
        Some(Self { median: median(values)?, low, high })
    }
}

/// One row for each workload and target, in the order in which they first occur.
pub fn rows(samples: &[Sample]) -> Vec<Row> {
    let mut keys: Vec<(&str, &str)> = Vec::new();
    for sample in samples {
        let key = (sample.workload.as_str(), sample.target.as_str());
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    // Targets rotate within a round, so the first round alone gives their order.
    keys.iter().map(|(workload, target)| row(samples, workload, target)).collect()
}

fn row(samples: &[Sample], workload: &str, target: &str) -> Row {
    let ours = pick(samples, workload, target);
    let direct = pick(samples, workload, Target::Direct.name());
    let haproxy = pick(samples, workload, Target::Haproxy.name());
    let middle = |value: &dyn Fn(&Sample) -> Option<f64>| {
        median(&ours.iter().filter_map(|sample| value(sample)).collect::<Vec<f64>>())
    };
    let proxy_cpu = |sample: &Sample| sample.us_per_request(sample.proxy_cpu_s?);
    Row {
        workload: workload.to_owned(),
        target: target.to_owned(),
        rounds: ours.iter().filter(|sample| sample.figures.is_some()).count(),
        iops: middle(&iops),
        iops_to_direct: ratio(&ours, &direct, iops),
        iops_to_haproxy: ratio(&ours, &haproxy, iops),
        p50_us: middle(&p50),
        p50_to_haproxy: ratio(&ours, &haproxy, p50),
        p99_us: middle(&|sample| sample.figure(|figures: &Figures| figures.p99_us)),
        proxy_cpu_us: middle(&proxy_cpu),
        proxy_cpu_to_haproxy: ratio(&ours, &haproxy, proxy_cpu),
        storage_cpu_us: middle(&|sample| sample.us_per_request(sample.storage_cpu_s)),
        client_cpu_us: middle(&|sample| sample.us_per_request(sample.figures?.client_cpu_s)),
        other_cpus: middle(&|sample| (sample.wall_s > 0.0).then(|| sample.other_cpu_s / sample.wall_s)),
    }
}

fn iops(sample: &Sample) -> Option<f64> {
    sample.figure(|figures| figures.iops)
}

fn p50(sample: &Sample) -> Option<f64> {
    sample.figure(|figures| figures.p50_us)
}

fn pick<'a>(samples: &'a [Sample], workload: &str, target: &str) -> Vec<&'a Sample> {
    samples.iter().filter(|sample| sample.workload == workload && sample.target == target).collect()
}

/// Ratios within rounds; rounds where either failed are left out.
fn ratio(ours: &[&Sample], base: &[&Sample], value: impl Fn(&Sample) -> Option<f64>) -> Option<Spread> {
    let ratios: Vec<f64> = ours
        .iter()
        .filter_map(|sample| {
            let partner = base.iter().find(|partner| partner.round == sample.round)?;
            let (ours, base) = (value(sample)?, value(partner)?);
            (base > 0.0 && !ours.is_nan()).then_some(ours / base)
        })
        .collect();
    Spread::of(&ratios)
}

/// The project's goals, as far as these samples speak of them.
pub fn goals(samples: &[Sample]) -> Vec<Goal> {
    let holdfast = Target::Holdfast.name();
    let (haproxy, nbdkit) = (Target::Haproxy.name(), Target::NbdkitNbd.name());
    let against = |workload: &str, base: &str, value: fn(&Sample) -> Option<f64>| {
        ratio(&pick(samples, workload, holdfast), &pick(samples, workload, base), value)
    };
    let mut goals = Vec::new();
    let mut judge = |what: String, measured: Option<Spread>, met: fn(f64) -> bool| {
        if let Some(Spread { median, .. }) = measured {
            goals.push(Goal { what, measured: median, met: met(median) });
        }
    };
    for workload in ["randread-4k-32", "randwrite-4k-32"] {
        let against_haproxy = against(workload, haproxy, iops);
        judge(format!("{workload}: IOPS >= 1.0 x HAProxy"), against_haproxy, |ratio| ratio >= 1.0);
        let against_nbdkit = against(workload, nbdkit, iops);
        judge(format!("{workload}: IOPS >= 1.5 x nbdkit's nbd plugin"), against_nbdkit, |ratio| ratio >= 1.5);
    }
    for workload in ["randread-4k-1", "randwrite-4k-1"] {
        let latency = against(workload, haproxy, p50);
        judge(format!("{workload}: median latency < HAProxy's"), latency, |ratio| ratio < 1.0);
    }
    for base in [Target::HoldfastOther.name(), Target::HoldfastBare.name()] {
        let mut seen: Vec<&str> = samples.iter().map(|sample| sample.workload.as_str()).collect();
        seen.dedup();
        seen.sort_unstable();
        seen.dedup();
        for workload in seen {
            judge(format!("{workload}: IOPS >= 0.97 x {base}"), against(workload, base, iops), |r| r >= 0.97);
        }
    }
    goals
}

#[cfg(test)]
mod tests {
    use super::{Figures, Sample, Spread, goals, rows};

    fn sample(round: u32, target: &str, iops: f64, proxy_cpu_s: Option<f64>) -> Sample {
        let figures = Figures { requests: 1000, iops, p50_us: 1e6 / iops, p99_us: 0.0, client_cpu_s: 0.5 };
        Sample {
            round,
            workload: "randread-4k-32".to_owned(),
            target: target.to_owned(),
            figures: Some(figures),
            error: None,
            proxy_cpu_s,
            storage_cpu_s: 0.25,
            other_cpu_s: 0.1,
            steal_s: 0.0,
            wall_s: 1.0,
        }
    }

    /// The machine is five times slower in the second round: ratios within rounds do not see it.
    #[test]
    fn ratios_are_taken_within_rounds() {
        let samples = [
            sample(0, "direct", 1000.0, None),
            sample(0, "haproxy", 400.0, Some(0.02)),
            sample(0, "holdfast", 500.0, Some(0.01)),
            sample(1, "holdfast", 110.0, Some(0.02)),
            sample(1, "haproxy", 100.0, Some(0.02)),
            sample(1, "direct", 200.0, None),
        ];
        let rows = rows(&samples);
        let holdfast = rows.iter().find(|row| row.target == "holdfast").expect("a row");
        let to_direct = holdfast.iops_to_direct.expect("a ratio");
        assert!((to_direct.median - 0.525).abs() < 1e-9, "{to_direct:?}");
        assert_eq!((to_direct.low, to_direct.high), (0.5, 0.55));
        assert_eq!(holdfast.iops_to_haproxy.map(|Spread { median, .. }| median), Some(1.175));
        assert_eq!(holdfast.proxy_cpu_us, Some(15.0));
        assert_eq!(holdfast.proxy_cpu_to_haproxy.map(|Spread { median, .. }| median), Some(0.75));
        assert_eq!(holdfast.storage_cpu_us, Some(250.0));
        let direct = rows.iter().find(|row| row.target == "direct").expect("a row");
        assert_eq!((direct.proxy_cpu_us, direct.rounds), (None, 2));
    }

    #[test]
    fn goals_are_judged_by_the_median_and_can_be_missed() {
        let mut samples = vec![sample(0, "haproxy", 400.0, None), sample(0, "holdfast", 500.0, None)];
        let judged = goals(&samples);
        assert_eq!(judged.len(), 1, "nbdkit's plugin was not measured");
        assert!(judged[0].met);
        samples.push(sample(0, "nbdkit-nbd", 400.0, None));
        let judged = goals(&samples);
        assert_eq!(judged.iter().map(|goal| goal.met).collect::<Vec<bool>>(), [true, false]);
    }

    #[test]
    fn a_failed_sample_is_left_out() {
        let mut failed = sample(1, "holdfast", 1.0, None);
        failed.figures = None;
        let samples = [sample(0, "haproxy", 400.0, None), sample(0, "holdfast", 500.0, None), failed];
        let rows = rows(&samples);
        assert_eq!((rows[1].rounds, rows[1].iops), (1, Some(500.0)));
    }
}
