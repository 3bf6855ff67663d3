// SPDX-License-Identifier: MIT OR Apache-2.0
//! The comparison as Markdown, to be pasted into `docs/benchmarks.md`.

use std::fmt::Write as _;

use super::Outcome;
use super::summary::{Row, Spread};

/// The whole report.
pub(super) fn render(outcome: &Outcome) -> String {
    let mut text = outcome.machine.markdown();
    // Writing to a String cannot fail; the same goes for every `let _` below.
    let _ = writeln!(text, "- {}", outcome.conditions());
    let mut workload = "";
    for row in &outcome.rows {
        if row.workload != workload {
            workload = &row.workload;
            head(&mut text, workload);
        }
        line(&mut text, row);
    }
    if !outcome.goals.is_empty() {
        let _ = write!(text, "\n| goal | measured | met |\n|---|---:|---|\n");
        for goal in &outcome.goals {
            let met = if goal.met { "yes" } else { "**no**" };
            let _ = writeln!(text, "| {} | {:.2} | {met} |", goal.what, goal.measured);
        }
    }
    for sample in outcome.samples.iter().filter(|sample| sample.error.is_some()) {
        let error = sample.error.as_deref().unwrap_or_default();
        let _ = write!(text, "\nround {}, {}, {}: {error}\n", sample.round, sample.workload, sample.target);
    }
    text
}

fn head(text: &mut String, workload: &str) {
    let _ = write!(
        text,
        "\n**{workload}**\n\n\
         | target | IOPS | to direct | to HAProxy | p50 us | to HAProxy | p99 us | proxy CPU us/req | to HAProxy | storage CPU us/req | client CPU us/req |\n\
         |---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n"
    );
}

fn line(text: &mut String, row: &Row) {
    let cells = [
        number(row.iops, 0),
        spread(row.iops_to_direct),
        spread(row.iops_to_haproxy),
        number(row.p50_us, 1),
        spread(row.p50_to_haproxy),
        number(row.p99_us, 1),
        number(row.proxy_cpu_us, 2),
        spread(row.proxy_cpu_to_haproxy),
        number(row.storage_cpu_us, 2),
        number(row.client_cpu_us, 2),
    ];
    let _ = writeln!(text, "| {} | {} |", row.target, cells.join(" | "));
}

fn number(value: Option<f64>, digits: usize) -> String {
    value.filter(|value| !value.is_nan()).map_or("-".to_owned(), |value| format!("{value:.digits$}"))
}

fn spread(value: Option<Spread>) -> String {
    let text = |Spread { median, low, high }| format!("{median:.2} ({low:.2}-{high:.2})");
    value.map_or("-".to_owned(), text)
}
