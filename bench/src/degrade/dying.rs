// SPDX-License-Identifier: MIT OR Apache-2.0
//! A path dies: what does the other still carry, from that moment on?
//!
//! Between two runs in which a path dies stands one with `b` alone, so that each death has one on either side, measured within
//! seconds; the windows of both together are its base. How far these two differ from each other, and how many of their own windows
//! are bad, is what the machine does by itself. Everything is started anew for each run.

use serde::Serialize;

use super::host::Host;
use super::rig::{Rig, Setup, words};
use super::sample::{Sample, ratio};
use super::windows::{rate, share_of_good};
use super::{Bench, Kind};
use crate::compare::summary::{Goal, Spread};
use crate::load::{LoadOptions, Pattern};
use crate::peers::PeerError;
use crate::stats::median;

const PART: &str = "dying";
const ALONE: &str = "alone";
const DEPTH: u32 = 32;
/// A window is good from this share of the base's median window on.
const GOOD: f64 = 0.9;
/// Goal: throughput against `b` alone.
const RATIO_LEAST: f64 = 0.9;
/// Goal: share of good windows.
const SHARE_LEAST: f64 = 0.95;

/// All deaths of one kind under one kind of request.
#[derive(Clone, Debug, Serialize)]
pub struct DyingRow {
    /// Kind of death.
    pub kind: &'static str,
    /// `read` or `write`.
    pub command: &'static str,
    /// Runs.
    pub runs: usize,
    /// Answers per second of `b` alone: median over the runs.
    pub alone_iops: f64,
    /// Answers per second from the death on, against those of `b` alone.
    pub ratio: Spread,
    /// Share of good windows from the death on.
    pub good: Spread,
    /// The same share of `b` alone.
    pub alone_good: Spread,
    /// `b` alone after the run, against before it.
    pub alone_ratio: Spread,
    /// Errors over all runs.
    pub errors: u64,
}

/// Takes all samples.
pub(super) fn measure(bench: &mut Bench<'_>, kinds: &[Kind]) -> Result<(), PeerError> {
    for round in 0..bench.options.runs {
        for writes in [false, true] {
            one_run(bench, None, writes, round, 0)?;
            for step in 0..kinds.len() {
                let kind = kinds[(step + round as usize) % kinds.len()];
                let turn = 2 * step as u32 + 1;
                one_run(bench, Some(kind), writes, round, turn)?;
                one_run(bench, None, writes, round, turn + 1)?;
            }
        }
    }
    Ok(())
}

/// `None`: `b` alone.
fn one_run(
    bench: &mut Bench<'_>,
    kind: Option<Kind>,
    writes: bool,
    round: u32,
    turn: u32,
) -> Result<(), PeerError> {
    let (warmup, seconds) = (bench.options.warmup, bench.options.seconds);
    let (target, command) = (kind.map_or(ALONE, Kind::name), if writes { "write" } else { "read" });
    let place = &bench.place;
    let words = words(&place.image, bench.options.delay_ms);
    let setup = Setup {
        a: kind.map(|_| words.clone()),
        b: words,
        relayed: kind == Some(Kind::Reset),
        ..Setup::default()
    };
    let home = place.home(&format!("{PART}-{target}-{command}-{round}-{turn}"))?;
    let mut rig = Rig::start(&home, &place.binary, &setup)?;
    kind.map_or(Ok(()), |kind| rig.prepare(kind))?;
    let host = Host::start(LoadOptions {
        // Front to back: what is in doubt keeps its place for a time (W13), and a host that wrote there again would measure
        // that, the more the smaller the image.
        pattern: if writes { Pattern::Write } else { Pattern::RandRead },
        depth: DEPTH,
        duration: warmup + seconds,
        ..LoadOptions::new(&rig.uri())
    });
    host.sleep_until(warmup.mul_f64(0.9));
    let used = rig.check_all_used();
    // Where a window of the host begins.
    host.sleep_until(warmup);
    let ended = kind.map_or(Ok(()), |kind| rig.end_a(kind));
    host.sleep_until(warmup + seconds);
    let healed = rig.heal();
    let report = host.join()?;
    used.and(ended).and(healed)?;
    let sample = Sample { target, command, depth: DEPTH, round, turn, ..Sample::of(PART) };
    bench.take(sample.with(&report, warmup, seconds));
    Ok(())
}

/// One row for each kind and kind of request.
pub(super) fn rows(samples: &[Sample], kinds: &[Kind]) -> Vec<DyingRow> {
    let mut rows = Vec::new();
    for command in ["read", "write"] {
        rows.extend(kinds.iter().filter_map(|kind| row(samples, kind.name(), command)));
    }
    rows
}

/// A death and `b` alone before and after it.
struct Trio<'a> {
    death: &'a Sample,
    before: &'a Sample,
    after: &'a Sample,
}

impl Trio<'_> {
    /// Windows of `b` alone.
    fn base(&self) -> Vec<u64> {
        [&self.before.windows[..], &self.after.windows[..]].concat()
    }

    fn ratio(&self) -> Option<f64> {
        let base = rate(&self.base()).filter(|base| *base > 0.0)?;
        Some(self.death.rate() / base)
    }
}

fn row(samples: &[Sample], kind: &'static str, command: &'static str) -> Option<DyingRow> {
    let of_command = || samples.iter().filter(|sample| sample.part == PART && sample.command == command);
    let trios = of_command().filter(|sample| sample.target == kind).filter_map(|death| {
        let at = |turn| of_command().find(|other| other.round == death.round && other.turn == turn);
        Some(Trio { death, before: at(death.turn - 1)?, after: at(death.turn + 1)? })
    });
    let trios: Vec<Trio<'_>> = trios.collect();
    let over = |value: &dyn Fn(&Trio<'_>) -> Option<f64>| {
        Spread::of(&trios.iter().filter_map(value).collect::<Vec<f64>>())
    };
    Some(DyingRow {
        kind,
        command,
        runs: trios.len(),
        alone_iops: median(&trios.iter().filter_map(|trio| rate(&trio.base())).collect::<Vec<f64>>())?,
        ratio: over(&|trio| trio.ratio())?,
        good: over(&|trio| share_of_good(&trio.death.windows, &trio.base(), GOOD))?,
        alone_good: over(&|trio| share_of_good(&trio.base(), &trio.base(), GOOD))?,
        alone_ratio: over(&|trio| ratio(trio.after, trio.before))?,
        errors: trios.iter().map(|trio| trio.death.errors).sum(),
    })
}

/// The goals of all rows.
pub(super) fn goals(rows: &[DyingRow]) -> Vec<Goal> {
    let of_row = |row: &DyingRow| {
        let name = format!("{}, {}s", row.kind, row.command);
        let (ratio, good) = (row.ratio.median, row.good.median);
        [
            Goal {
                what: format!("{name}: throughput >= {RATIO_LEAST} x b alone"),
                measured: ratio,
                met: ratio >= RATIO_LEAST,
            },
            Goal {
                what: format!("{name}: share of windows >= {GOOD} x b alone is >= {SHARE_LEAST}"),
                measured: good,
                met: good >= SHARE_LEAST,
            },
        ]
    };
    rows.iter().flat_map(of_row).collect()
}

#[cfg(test)]
mod tests {
    use super::{ALONE, DEPTH, Kind, PART, Sample, goals, rows};

    fn sample(target: &'static str, round: u32, turn: u32, windows: &[u64]) -> Sample {
        let windows = windows.to_vec();
        Sample { target, command: "read", depth: DEPTH, round, turn, windows, ..Sample::of(PART) }
    }

    /// The machine is ten times slower in the second round, and both deaths are compared with their neighbours alone.
    #[test]
    fn a_death_is_compared_with_its_neighbours() {
        let samples = [
            sample(ALONE, 0, 0, &[100, 100]),
            sample("kill", 0, 1, &[0, 100]),
            sample(ALONE, 0, 2, &[100, 100]),
            sample("reset", 0, 3, &[150, 150]),
            sample(ALONE, 0, 4, &[200, 200]),
            sample(ALONE, 1, 0, &[10, 10]),
            sample("kill", 1, 1, &[9, 9]),
            sample(ALONE, 1, 2, &[10, 2]),
        ];
        let rows = rows(&samples, &[Kind::Reset, Kind::Kill, Kind::Silence]);
        let [reset, kill] = &rows[..] else { panic!("no silence was measured: {rows:?}") };
        assert_eq!(
            (reset.kind, reset.runs, reset.ratio.median, reset.alone_ratio.median),
            ("reset", 1, 1.0, 2.0)
        );
        assert_eq!((kill.runs, kill.ratio.low, kill.ratio.high), (2, 0.5, 1.125));
        assert_eq!((kill.good.low, kill.good.high), (0.5, 1.0));
        assert_eq!((kill.alone_good.low, kill.alone_good.high), (0.75, 1.0));
        let met: Vec<bool> = goals(&rows).iter().map(|goal| goal.met).collect();
        assert_eq!(met, [true, true, false, false]);
    }
}
