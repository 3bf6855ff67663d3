// SPDX-License-Identifier: MIT OR Apache-2.0
//! `holdfast status` for people.

use controlplane::api::{BudgetDocument, CostDocument, DeviceDocument, PathDocument, StatusDocument};
use controlplane::config::{format_duration, format_size};

/// The node in a line, then its devices.
pub(crate) fn status(document: &StatusDocument) -> String {
    let node = &document.node;
    let config = node.config.as_deref().unwrap_or("built in");
    let head = format!(
        "node {}  holdfast {}  up {}  configuration {config}, generation {}\n",
        clean(&node.name),
        node.version,
        uptime(node.uptime_s),
        node.generation,
    );
    if document.devices.is_empty() {
        return format!("{head}\nno devices\n");
    }
    format!("{head}\n{}", devices(&document.devices))
}

/// One block for each device.
pub(crate) fn devices(devices: &[DeviceDocument]) -> String {
    devices.iter().map(device).collect::<Vec<_>>().join("\n")
}

fn device(device: &DeviceDocument) -> String {
    let size =
        if device.size_bytes == 0 { "size unknown".to_owned() } else { format_size(device.size_bytes) };
    let quiesce = format_duration(device.quiesce_ms * program::MILLISECOND);
    let fence = match device.fence.as_str() {
        "assume" => format!("assume {quiesce}"),
        other => other.to_owned(),
    };
    let mut lines = vec![format!(
        "{}  {}  {}  {size}  fence {fence}{}{}",
        clean(&device.name),
        device.state.to_uppercase(),
        device.policy,
        if device.listed { "" } else { "  (not listed)" },
        age(device.age_ms),
    )];
    lines.push(format!(
        "  {} sessions, {} in flight, {} held, {} quarantined, {} reads, {} writes, {} errors, {} resent",
        device.sessions.len(),
        device.inflight,
        device.held,
        device.quarantined,
        device.reads,
        device.writes,
        device.errors,
        device.resent,
    ));
    let hedges = device.hedges;
    if hedges.sent + hedges.refused > 0 {
        lines.push(format!(
            "  {} late reads sent twice: {} won, {} lost; {} refused",
            hedges.sent, hedges.won, hedges.lost, hedges.refused
        ));
    }
    if device.ghosts > 0 {
        lines.push(format!("  {} writes were let go without proof and may still land", device.ghosts));
    }
    if device.replaying {
        lines.push("  acknowledged writes are being written again".to_owned());
    }
    if !device.lost_writes.is_empty() {
        lines.push(format!(
            "  LOST WRITES: {}; FLUSH fails until `holdfast device clear-loss {}`",
            clean(&device.lost_writes),
            clean(&device.name)
        ));
    }
    lines
        .extend(budget(&of_failures(&device.budget), device.budget.bound_ms).map(|cost| format!("  {cost}")));
    lines.extend(columns(&device.paths));
    lines.join("\n") + "\n"
}

/// All causes together but the start of the node, which is no failure.
fn of_failures(budget: &BudgetDocument) -> CostDocument {
    let failures = budget.causes.iter().filter(|cause| cause.rule != "start");
    failures.fold(CostDocument::default(), |sum, cause| CostDocument {
        unavailable_ms: sum.unavailable_ms + cause.unavailable_ms,
        delayed: sum.delayed + cause.delayed,
        excess_ms: sum.excess_ms + cause.excess_ms,
        worst_ms: sum.worst_ms.max(cause.worst_ms),
        ..sum
    })
}

/// What failures cost, if they cost anything: `no path for 3.2 s; 12 requests above 1 s, 4.5 s in all, worst 2.1 s`.
pub(crate) fn budget(cost: &CostDocument, bound_ms: u64) -> Option<String> {
    let seconds = |ms: u64| match ms {
        0..1000 => format!("{ms} ms"),
        _ => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
    };
    let away = (cost.unavailable_ms > 0).then(|| format!("no path for {}", seconds(cost.unavailable_ms)));
    let late = (cost.delayed > 0).then(|| {
        format!(
            "{} requests took longer than {}, {} beyond it in all, the worst {}",
            cost.delayed,
            seconds(bound_ms),
            seconds(cost.excess_ms),
            seconds(cost.worst_ms)
        )
    });
    let parts: Vec<String> = away.into_iter().chain(late).collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// Values older than this are said to be old.
const FRESH_MS: u64 = 2000;

fn age(age_ms: Option<u64>) -> String {
    match age_ms {
        None => "  (nothing known yet)".to_owned(),
        Some(age_ms) if age_ms > FRESH_MS => {
            format!("  (as of {} s ago: the data plane does not answer)", age_ms / 1000)
        }
        Some(_) => String::new(),
    }
}

const HEADER: [&str; 11] =
    ["PATH", "STATE", "ACCESS", "PRIO", "IN FLIGHT", "READS", "WRITES", "ERRORS", "P50 us", "P99 us", "URI"];
/// The columns that hold numbers, which are set to the right.
const NUMBERS: std::ops::Range<usize> = 3..10;

fn columns(paths: &[PathDocument]) -> Vec<String> {
    let rows: Vec<[String; 11]> =
        std::iter::once(HEADER.map(str::to_owned)).chain(paths.iter().map(row)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..HEADER.len()).map(width).collect();
    let line = |row: &[String; 11]| {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| {
            if NUMBERS.contains(&column) { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
        });
        format!("  {}", cells.collect::<Vec<_>>().join("  ")).trim_end().to_owned()
    };
    let mut lines = vec![line(&rows[0])];
    for (path, row) in paths.iter().zip(&rows[1..]) {
        lines.push(line(row));
        if !path.reason.is_empty() {
            lines.push(format!("      {}", clean(&path.reason)));
        }
    }
    lines
}

fn row(path: &PathDocument) -> [String; 11] {
    let latency = |us: u64| if us == 0 { "-".to_owned() } else { us.to_string() };
    [
        clean(&path.name),
        path.state.clone(),
        path.access.clone(),
        path.priority.to_string(),
        path.inflight.to_string(),
        path.reads.to_string(),
        path.writes.to_string(),
        path.errors.to_string(),
        latency(path.p50_us),
        latency(path.p99_us),
        clean(&path.uri),
    ]
}

fn uptime(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// A name or a reason may come from a peer; a terminal must not obey it.
pub(crate) fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use controlplane::api::NodeDocument;

    fn document() -> StatusDocument {
        let path = |name: &str, state: &str, reason: &str| PathDocument {
            name: name.to_owned(),
            uri: format!("nbd://10.0.1.5/{name}"),
            state: state.to_owned(),
            access: "optimized".to_owned(),
            priority: 50,
            inflight: 12,
            reads: 1000,
            p50_us: if reason.is_empty() { 150 } else { 0 },
            p99_us: if reason.is_empty() { 2500 } else { 0 },
            reason: reason.to_owned(),
            ..PathDocument::default()
        };
        let device = DeviceDocument {
            name: "vol0".to_owned(),
            policy: "active-active".to_owned(),
            state: "degraded".to_owned(),
            size_bytes: 1 << 30,
            fence: "assume".to_owned(),
            quiesce_ms: 5000,
            listed: true,
            age_ms: Some(0),
            paths: vec![path("a", "up", ""), path("long-name", "down", "no ACK for 412 ms\x1b[2J")],
            ..DeviceDocument::default()
        };
        let node = NodeDocument {
            name: "m1".to_owned(),
            version: "1".to_owned(),
            generation: 1,
            ..NodeDocument::default()
        };
        StatusDocument { node, devices: vec![device], ..StatusDocument::default() }
    }

    #[test]
    fn failures_are_shown_with_what_they_cost() {
        let cause = |rule: &str, unavailable_ms, delayed| CostDocument {
            rule: rule.to_owned(),
            unavailable_ms,
            delayed,
            excess_ms: delayed * 500,
            worst_ms: if delayed > 0 { 2_050 } else { 0 },
            path: None,
        };
        let mut budget =
            BudgetDocument { causes: vec![cause("start", 9_000, 0)], ..BudgetDocument::default() };
        assert_eq!(super::budget(&of_failures(&budget), 1000), None, "a start is no failure");
        budget.causes.extend([cause("W15", 0, 3), cause("3.5", 40, 0)]);
        assert_eq!(
            super::budget(&of_failures(&budget), 1000).as_deref(),
            Some(
                "no path for 40 ms; 3 requests took longer than 1.0 s, 1.5 s beyond it in all, the worst 2.0 s"
            )
        );
    }

    #[test]
    fn the_table_is_aligned_and_clean() {
        let shown = status(&document());
        let expected = "\
node m1  holdfast 1  up 0 s  configuration built in, generation 1

vol0  DEGRADED  active-active  1GiB  fence assume 5s
  0 sessions, 0 in flight, 0 held, 0 quarantined, 0 reads, 0 writes, 0 errors, 0 resent
  PATH       STATE  ACCESS     PRIO  IN FLIGHT  READS  WRITES  ERRORS  P50 us  P99 us  URI
  a          up     optimized    50         12   1000       0       0     150    2500  nbd://10.0.1.5/a
  long-name  down   optimized    50         12   1000       0       0       -       -  nbd://10.0.1.5/long-name
      no ACK for 412 ms\u{fffd}[2J
";
        assert_eq!(shown, expected);
    }

    #[test]
    fn old_and_missing_values_are_said_to_be_so() {
        let mut document = document();
        document.devices[0].age_ms = Some(7500);
        assert!(status(&document).contains("(as of 7 s ago: the data plane does not answer)"));
        document.devices[0].age_ms = None;
        assert!(status(&document).contains("(nothing known yet)"));
        document.devices.clear();
        assert!(status(&document).ends_with("no devices\n"));
    }
}
