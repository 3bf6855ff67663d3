// SPDX-License-Identifier: MIT OR Apache-2.0
//! The report, to be pasted into `docs/benchmarks.md`.

use std::fmt::Write as _;

use super::Outcome;
use crate::compare::summary::Spread;

/// The whole report.
pub(super) fn render(outcome: &Outcome) -> String {
    let mut text = outcome.machine.markdown();
    text += "- ratios within rounds as median (lowest-highest)\n";
    for words in &outcome.skipped {
        // Writing to a String cannot fail; the same goes for every `let _` below.
        let _ = writeln!(text, "- left out: {words}");
    }
    dying(&mut text, outcome);
    slow(&mut text, outcome);
    flapping(&mut text, outcome);
    let _ = write!(text, "\n| goal | measured | met |\n|---|---:|---|\n");
    for goal in &outcome.goals {
        let met = if goal.met { "yes" } else { "**no**" };
        let _ = writeln!(text, "| {} | {:.3} | {met} |", goal.what, goal.measured);
    }
    text
}

fn dying(text: &mut String, outcome: &Outcome) {
    if outcome.dying.is_empty() {
        return;
    }
    *text += "\n| death | requests | runs | b alone, IOPS | after it, to b alone | good windows | of b alone | b alone, after to before | host errors |\n\
              |---|---|---:|---:|---:|---:|---:|---:|---:|\n";
    for row in &outcome.dying {
        let cells = [
            row.runs.to_string(),
            format!("{:.0}", row.alone_iops),
            spread(row.ratio),
            spread(row.good),
            spread(row.alone_good),
            spread(row.alone_ratio),
            row.errors.to_string(),
        ];
        let _ = writeln!(text, "| {} | {} | {} |", row.kind, row.command, cells.join(" | "));
    }
}

fn slow(text: &mut String, outcome: &Outcome) {
    if outcome.slow.is_empty() {
        return;
    }
    *text += "\n| slow path, depth | rounds | fast path alone, IOPS | to round-robin | to the fast path alone | host errors |\n\
              |---:|---:|---:|---:|---:|---:|\n";
    for row in &outcome.slow {
        let (round_robin, fast) = (spread(row.to_round_robin), spread(row.to_fast));
        let _ = writeln!(
            text,
            "| {} | {} | {:.0} | {round_robin} | {fast} | {} |",
            row.depth, row.runs, row.fast_iops, row.errors
        );
    }
}

fn flapping(text: &mut String, outcome: &Outcome) {
    let Some(row) = &outcome.flapping else { return };
    *text += "\n| flapping path, runs | pairs | path out, IOPS | to path out | path out, to the slice before | host errors |\n\
              |---:|---:|---:|---:|---:|---:|\n";
    let (ratio, out) = (spread(row.ratio), spread(row.out_ratio));
    let _ = writeln!(
        text,
        "| {} | {} | {:.0} | {ratio} | {out} | {} |",
        row.runs, row.pairs, row.out_iops, row.errors
    );
}

fn spread(Spread { median, low, high }: Spread) -> String {
    format!("{median:.3} ({low:.3}-{high:.3})")
}
