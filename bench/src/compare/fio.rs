// SPDX-License-Identifier: MIT OR Apache-2.0
//! fio as the client: one job, one connection, libnbd.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde::Deserialize;

use super::sample::Figures;
use super::workload::Workload;
use crate::load::Pattern;
use crate::peers::{PeerError, search_path};
use crate::usage::CpuTime;

/// The part of fio's JSON that is used.
#[derive(Deserialize)]
struct Output {
    jobs: Vec<Job>,
}

#[derive(Deserialize)]
struct Job {
    error: i64,
    read: Direction,
    write: Direction,
}

#[derive(Deserialize)]
struct Direction {
    iops: f64,
    total_ios: u64,
    clat_ns: Latency,
}

#[derive(Deserialize)]
struct Latency {
    #[serde(default)]
    percentile: std::collections::BTreeMap<String, f64>,
}

/// Runs fio against a URI for `duration` over the first `size_bytes`.
///
/// # Errors
///
/// fio cannot be started, or met an error.
pub(super) fn run(
    uri: &str,
    workload: &Workload,
    duration: Duration,
    size_bytes: u64,
    dir: &Path,
) -> Result<Figures, PeerError> {
    let output_path = dir.join("fio.json");
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", "fio"]).env("PATH", search_path());
    command.args(["--name=compare", "--ioengine=nbd", "--thread", "--time_based", "--norandommap"]);
    command.args([
        format!("--uri={uri}"),
        format!("--rw={}", rw(workload.pattern)),
        format!("--bs={}", workload.block_bytes),
        format!("--iodepth={}", workload.depth),
        format!("--runtime={}ms", duration.as_millis()),
        format!("--size={size_bytes}"),
        "--output-format=json".to_owned(),
        format!("--output={}", output_path.display()),
    ]);
    if let Some(writes) = workload.flush_every {
        command.arg(format!("--fsync={writes}"));
    }
    let before = CpuTime::of_ended_children();
    let ended = command.stdin(Stdio::null()).current_dir(dir).output();
    let cpu = CpuTime::of_ended_children() - before;
    let ended = ended.map_err(|e| PeerError::new(format!("cannot start fio: {e}")))?;
    let text = std::fs::read_to_string(&output_path).unwrap_or_default();
    let words = String::from_utf8_lossy(&ended.stderr).trim().to_owned();
    let failed = |why: &str| PeerError::new(format!("fio: {why} {words}"));
    if !ended.status.success() {
        return Err(failed(&ended.status.to_string()));
    }
    let figures = parse(&text, workload.pattern).ok_or_else(|| failed("no usable figures"))?;
    Ok(Figures { client_cpu_s: cpu.total_s(), ..figures })
}

fn rw(pattern: Pattern) -> &'static str {
    match pattern {
        Pattern::RandRead => "randread",
        Pattern::RandWrite => "randwrite",
        Pattern::Read => "read",
        Pattern::Write => "write",
        Pattern::Mixed => "randrw",
    }
}

/// Figures of the only job; `None` when it met an error or did nothing.
fn parse(text: &str, pattern: Pattern) -> Option<Figures> {
    // Notes may come before the document.
    let output: Output = serde_json::from_str(&text[text.find('{')?..]).ok()?;
    let job = output.jobs.into_iter().next().filter(|job| job.error == 0)?;
    let direction = if pattern.writes() { job.write } else { job.read };
    let us = |percent: &str| direction.clat_ns.percentile.get(percent).map_or(f64::NAN, |ns| ns / 1e3);
    let (p50_us, p99_us) = (us("50.000000"), us("99.000000"));
    let figures =
        Figures { requests: direction.total_ios, iops: direction.iops, p50_us, p99_us, client_cpu_s: 0.0 };
    (figures.requests > 0).then_some(figures)
}

#[cfg(test)]
mod tests {
    use super::parse;
    use crate::load::Pattern;

    const OUTPUT: &str = r#"fio: a note
{"jobs": [{"error": 0,
  "read": {"iops": 0.0, "total_ios": 0, "clat_ns": {"min": 0}},
  "write": {"iops": 1000.5, "total_ios": 3000, "clat_ns": {"percentile": {"50.000000": 2500, "99.000000": 9000}}}
}]}"#;

    #[test]
    fn the_direction_of_the_workload_is_taken() {
        let figures = parse(OUTPUT, Pattern::RandWrite).expect("figures");
        assert_eq!((figures.requests, figures.p50_us, figures.p99_us), (3000, 2.5, 9.0));
        assert!(parse(OUTPUT, Pattern::RandRead).is_none(), "nothing was read");
    }

    #[test]
    fn a_job_with_an_error_has_no_figures() {
        assert!(parse(&OUTPUT.replace("\"error\": 0", "\"error\": 5"), Pattern::RandWrite).is_none());
    }
}
