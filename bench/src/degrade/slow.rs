// SPDX-License-Identifier: MIT OR Apache-2.0
//! A path is slow: how much of the other's speed is left?
//!
//! One path is behind nbdkit's delay filter. Within a round the device with the default selector, the same with
//! `round-robin` and no hedged reads, and one with the fast path alone are measured one after the other, each
//! started anew, so that none has been held back for what it was in another run.

use serde::Serialize;

use super::Bench;
use super::host::Host;
use super::rig::{Rig, Setup, words};
use super::sample::{Sample, ratio};
use crate::compare::summary::{Goal, Spread};
use crate::load::LoadOptions;
use crate::peers::PeerError;
use crate::stats::median;

const PART: &str = "slow";
const DEPTHS: [u32; 2] = [1, 32];
/// Name, whether it has the slow path, lines of its configuration. By turns and without second copies, which would find
/// the slow path too: that is what others do.
const TARGETS: [(&str, bool, &[&str]); 3] = [
    (LATENCY, true, &[]),
    (ROUND_ROBIN, true, &["selector = \"round-robin\"", "hedge = { mode = \"off\" }"]),
    (FAST, false, &[]),
];
const DELAY_MS: u32 = 30;
const LATENCY: &str = "latency";
const ROUND_ROBIN: &str = "round-robin";
const FAST: &str = "fast";
/// Goal: against round-robin.
const ROUND_ROBIN_LEAST: f64 = 3.0;
/// Goal: against the fast path alone.
const FAST_LEAST: f64 = 0.95;

/// All runs at one depth.
#[derive(Clone, Debug, Serialize)]
pub struct SlowRow {
    /// Requests in flight.
    pub depth: u32,
    /// Rounds.
    pub runs: usize,
    /// Answers per second of the fast path alone: median over the rounds.
    pub fast_iops: f64,
    /// Answers per second against round-robin.
    pub to_round_robin: Spread,
    /// Answers per second against the fast path alone.
    pub to_fast: Spread,
    /// Errors over all runs.
    pub errors: u64,
}

/// Takes all samples.
pub(super) fn measure(bench: &mut Bench<'_>) -> Result<(), PeerError> {
    for round in 0..bench.options.runs {
        for depth in DEPTHS {
            for turn in 0..TARGETS.len() {
                one_run(bench, depth, round, turn)?;
            }
        }
    }
    Ok(())
}

fn one_run(bench: &mut Bench<'_>, depth: u32, round: u32, turn: usize) -> Result<(), PeerError> {
    let (target, has_slow, keys) = TARGETS[(turn + round as usize) % TARGETS.len()];
    let (warmup, seconds, place) = (bench.options.warmup, bench.options.seconds, &bench.place);
    let delay_ms = bench.options.delay_ms;
    let setup = Setup {
        a: has_slow.then(|| words(&place.image, delay_ms + DELAY_MS)),
        b: words(&place.image, delay_ms),
        keys: keys.iter().map(|&key| key.to_owned()).collect(),
        ..Setup::default()
    };
    let home = place.home(&format!("{PART}-{target}-{depth}-{round}"))?;
    let rig = Rig::start(&home, &place.binary, &setup)?;
    let host = Host::start(LoadOptions { depth, duration: warmup + seconds, ..LoadOptions::new(&rig.uri()) });
    let report = host.join()?;
    rig.check_all_used()?;
    let turn = turn as u32;
    let sample = Sample { target, command: "read", depth, round, turn, ..Sample::of(PART) };
    bench.take(sample.with(&report, warmup, seconds));
    Ok(())
}

/// One row for each depth.
pub(super) fn rows(samples: &[Sample]) -> Vec<SlowRow> {
    DEPTHS.iter().filter_map(|depth| row(samples, *depth)).collect()
}

fn row(samples: &[Sample], depth: u32) -> Option<SlowRow> {
    let of = |target| {
        let fits =
            move |sample: &&Sample| sample.part == PART && sample.depth == depth && sample.target == target;
        samples.iter().filter(fits)
    };
    let against = |base| {
        let ratios = of(LATENCY).filter_map(|ours| {
            let base = of(base).find(|base| base.round == ours.round)?;
            ratio(ours, base)
        });
        Spread::of(&ratios.collect::<Vec<f64>>())
    };
    Some(SlowRow {
        depth,
        runs: of(LATENCY).count(),
        fast_iops: median(&of(FAST).map(Sample::rate).collect::<Vec<f64>>())?,
        to_round_robin: against(ROUND_ROBIN)?,
        to_fast: against(FAST)?,
        errors: of(LATENCY).chain(of(ROUND_ROBIN)).map(|sample| sample.errors).sum(),
    })
}

/// The goals of all rows.
pub(super) fn goals(rows: &[SlowRow]) -> Vec<Goal> {
    let of_row = |row: &SlowRow| {
        let goal = |base: &str, ratio: Spread, least: f64| Goal {
            what: format!("slow, depth {}: throughput >= {least} x {base}", row.depth),
            measured: ratio.median,
            met: ratio.median >= least,
        };
        [
            goal(ROUND_ROBIN, row.to_round_robin, ROUND_ROBIN_LEAST),
            goal("the fast path alone", row.to_fast, FAST_LEAST),
        ]
    };
    rows.iter().flat_map(of_row).collect()
}

#[cfg(test)]
mod tests {
    use super::{Sample, goals, rows};

    fn sample(target: &'static str, depth: u32, round: u32, answers: u64) -> Sample {
        let windows = vec![answers];
        Sample { target, command: "read", depth, round, windows, ..Sample::of(super::PART) }
    }

    #[test]
    fn depths_and_rounds_are_kept_apart() {
        let samples = [
            sample("fast", 1, 0, 100),
            sample("latency", 1, 0, 96),
            sample("round-robin", 1, 0, 48),
            sample("latency", 32, 0, 900),
            sample("round-robin", 32, 0, 100),
            sample("fast", 32, 0, 1000),
            sample("round-robin", 1, 1, 1),
            sample("fast", 1, 1, 10),
            sample("latency", 1, 1, 10),
        ];
        let rows = rows(&samples);
        assert_eq!((rows[0].depth, rows[0].runs, rows[0].fast_iops), (1, 2, 550.0));
        assert_eq!((rows[0].to_round_robin.low, rows[0].to_round_robin.high), (2.0, 10.0));
        assert_eq!((rows[0].to_fast.low, rows[0].to_fast.high), (0.96, 1.0));
        assert_eq!((rows[1].to_round_robin.median, rows[1].to_fast.median), (9.0, 0.9));
        let met: Vec<bool> = goals(&rows).iter().map(|goal| goal.met).collect();
        assert_eq!(met, [true, true, true, false]);
    }
}
