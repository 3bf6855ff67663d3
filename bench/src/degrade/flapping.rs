// SPDX-License-Identifier: MIT OR Apache-2.0
//! A path comes and goes: does the device lose anything over one that does without that path?
//!
//! Two such devices run side by side, each on a node and an image of its own; path `a` of the first flaps all the time, that of the second is out.
//! A host uses the first while what is held against the path adds up. Then hosts take turns in slices of one flap each, and each
//! slice of the first is compared with the slice of the second next to it; which of them goes first changes from pair to pair. The
//! flapping itself goes on in all slices and so costs both alike. How far slices of the second differ from one to the next is what
//! the machine does by itself.

use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use super::Bench;
use super::flapper::Flapper;
use super::host::Host;
use super::rig::{Rig, Setup, words};
use super::sample::{Sample, ratio};
use crate::compare::summary::{Goal, Spread};
use crate::load::{LoadOptions, Pattern, Report};
use crate::peers::PeerError;
use crate::stats::median;

const PART: &str = "flapping";
const FLAPPING: &str = "flapping";
const OUT: &str = "out";
const SETTLING: &str = "settling";
const DEPTH: u32 = 32;
/// Not counted, at the beginning.
const SETTLE_MAX: Duration = Duration::from_mins(1);
/// One flap.
const SLICE_MAX: Duration = Duration::from_secs(3);
/// Not counted, at the beginning of a slice.
const LEAD: Duration = Duration::from_millis(300);
/// Goal: against the device with the path out.
const LEAST: f64 = 0.99;

/// All pairs of slices.
#[derive(Clone, Debug, Serialize)]
pub struct FlappingRow {
    /// Runs.
    pub runs: usize,
    /// Pairs of slices.
    pub pairs: usize,
    /// Answers per second with the path out: median over the slices.
    pub out_iops: f64,
    /// Answers per second with the path flapping against those with the path out.
    pub ratio: Spread,
    /// Slices with the path out against the one before.
    pub out_ratio: Spread,
    /// Errors, in the time that is not counted as well.
    pub errors: u64,
}

/// Takes all samples.
pub(super) fn measure(bench: &mut Bench<'_>) -> Result<(), PeerError> {
    for round in 0..bench.options.flapping_runs {
        one_run(bench, round)?;
    }
    Ok(())
}

fn one_run(bench: &mut Bench<'_>, round: u32) -> Result<(), PeerError> {
    let (place, total) = (&bench.place, bench.options.flapping_for);
    let setup = |image: &Path| {
        let words = words(image, bench.options.delay_ms);
        Setup { a: Some(words.clone()), b: words, ..Setup::default() }
    };
    let (ours, others) = (setup(&place.image), setup(&place.copy_image()?));
    let home = place.home(&format!("{PART}-{round}"))?;
    let mut flapping = Rig::start(&home, &place.binary, &ours)?;
    let mut out = Rig::start(&place.home(&format!("{PART}-{OUT}-{round}"))?, &place.binary, &others)?;
    drop(out.take_a());
    let Some(server) = flapping.take_a() else { return Err(PeerError::new("no server to flap".to_owned())) };
    let flapper = Flapper::start(server, &home, ours.b);
    let settle = SETTLE_MAX.min(total / 2);
    let counted = total.saturating_sub(settle);
    let slice = SLICE_MAX.min(counted / 2);
    let mut take = |rig: &Rig, target, turn, from, length| {
        let sample = Sample { target, command: "mixed", depth: DEPTH, round, turn, ..Sample::of(PART) };
        one_host(rig, from + length).map(|report| bench.take(sample.with(&report, from, length)))
    };
    take(&flapping, SETTLING, 0, Duration::ZERO, settle)?;
    flapping.check_all_used()?;
    let pairs = (counted.as_secs_f64() / (2.0 * slice.as_secs_f64())).round() as u32;
    for pair in 0..pairs {
        let mut turns = [(&flapping, FLAPPING), (&out, OUT)];
        turns.rotate_left(pair as usize % 2);
        for (index, (rig, target)) in turns.into_iter().enumerate() {
            take(rig, target, 2 * pair + index as u32 + 1, LEAD, slice)?;
        }
    }
    if flapper.end()? == 0 {
        return Err(PeerError::new("the path never flapped".to_owned()));
    }
    Ok(())
}

fn one_host(rig: &Rig, duration: Duration) -> Result<Report, PeerError> {
    let (pattern, depth) = (Pattern::Mixed, DEPTH);
    Host::start(LoadOptions { pattern, depth, duration, ..LoadOptions::new(&rig.uri()) }).join()
}

/// The row, if this was measured.
pub(super) fn row(samples: &[Sample]) -> Option<FlappingRow> {
    let ours = || samples.iter().filter(|sample| sample.part == PART);
    let of = |target| ours().filter(move |sample| sample.target == target);
    let ratios = of(FLAPPING).filter_map(|flapping| {
        let is_partner =
            |out: &&Sample| out.round == flapping.round && pair_of(out.turn) == pair_of(flapping.turn);
        ratio(flapping, of(OUT).find(is_partner)?)
    });
    let ratios: Vec<f64> = ratios.collect();
    let outs: Vec<&Sample> = of(OUT).collect();
    let steps = outs.windows(2).filter(|pair| pair[0].round == pair[1].round);
    let steps: Vec<f64> = steps.filter_map(|pair| ratio(pair[1], pair[0])).collect();
    Some(FlappingRow {
        runs: of(SETTLING).count(),
        pairs: ratios.len(),
        out_iops: median(&outs.iter().map(|sample| sample.rate()).collect::<Vec<f64>>())?,
        ratio: Spread::of(&ratios)?,
        // A run that is too short has one pair alone.
        out_ratio: Spread::of(&steps).or_else(|| Spread::of(&[1.0]))?,
        errors: ours().map(|sample| sample.errors).sum(),
    })
}

/// Turn 0 is the time that is not counted.
fn pair_of(turn: u32) -> u32 {
    turn.div_ceil(2)
}

/// The goals of the row.
pub(super) fn goals(row: &FlappingRow) -> Vec<Goal> {
    let ratio = row.ratio.median;
    let errors = row.errors;
    vec![
        Goal {
            what: format!("flapping: throughput >= {LEAST} x path out"),
            measured: ratio,
            met: ratio >= LEAST,
        },
        Goal { what: "flapping: host errors = 0".to_owned(), measured: errors as f64, met: errors == 0 },
    ]
}

#[cfg(test)]
mod tests {
    use super::{DEPTH, FLAPPING, OUT, PART, SETTLING, Sample, goals, row};

    fn sample(target: &'static str, round: u32, turn: u32, answers: u64) -> Sample {
        let windows = vec![answers];
        Sample { target, command: "mixed", depth: DEPTH, round, turn, windows, ..Sample::of(PART) }
    }

    #[test]
    fn slices_are_compared_with_their_partners() {
        let samples = [
            sample(SETTLING, 0, 0, 1),
            sample(FLAPPING, 0, 1, 99),
            sample(OUT, 0, 2, 100),
            sample(OUT, 0, 3, 200),
            sample(FLAPPING, 0, 4, 200),
            sample(SETTLING, 1, 0, 1),
            sample(FLAPPING, 1, 1, 9),
            sample(OUT, 1, 2, 10),
        ];
        let row = row(&samples).expect("a row");
        assert_eq!((row.runs, row.pairs, row.out_iops), (2, 3, 1000.0));
        assert_eq!((row.ratio.low, row.ratio.median, row.ratio.high), (0.9, 0.99, 1.0));
        assert_eq!((row.out_ratio.low, row.out_ratio.high), (2.0, 2.0), "never across rounds");
        assert!(goals(&row).iter().all(|goal| goal.met));
    }
}
