// SPDX-License-Identifier: MIT OR Apache-2.0
//! The measurements of Holdfast itself in a tiny mode: the binary is started, driven, disturbed and ended as in a real run.
//!
//! What such short runs measure is not judged. What must hold in any run, however short, is: no error, no wrong data.
//! Needs the built binary and nbdkit: `HOLDFAST_BIN`, or the one built beside this test.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bench::compare::{self, Client, CompareOptions, Storage, Target};
use bench::degrade::{self, DegradeOptions, Medium};
use bench::failover::{self, FailoverOptions, Fault};
use bench::place::PlaceOptions;
use bench::scale::{self, ScaleOptions};
use bench::stall::{self, Kind, StallOptions};

fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("HOLDFAST_BIN") {
        return PathBuf::from(path);
    }
    let test = std::env::current_exe().expect("a test knows its own program");
    let profile = test.parent().and_then(Path::parent).expect("tests are in PROFILE/deps");
    let path = profile.join("holdfast");
    assert!(path.exists(), "{} is not built: run `cargo build -p holdfast` first", path.display());
    path
}

#[test]
fn holdfast_is_compared() {
    let options = CompareOptions {
        rounds: 1,
        seconds: Duration::from_millis(200),
        workloads: vec!["randwrite-4k-32".parse().expect("a workload")],
        targets: vec![
            Target::Direct,
            Target::Haproxy,
            Target::Holdfast,
            Target::HoldfastOnePath,
            Target::HoldfastBare,
            Target::HoldfastOther,
        ],
        client: Client::Own,
        size_bytes: 4 << 20,
        storage: Storage::File,
        other: Some(binary()),
        holdfast: Some(binary()),
    };
    let outcome = compare::run(&options, &mut |_| {}).expect("everything runs");
    let failed: Vec<_> = outcome.samples.iter().filter(|sample| sample.error.is_some()).collect();
    assert!(failed.is_empty(), "{failed:?}");
    assert_eq!(outcome.goals.len(), 3, "HAProxy, the other build, no retention: {:?}", outcome.goals);
}

fn place() -> PlaceOptions {
    PlaceOptions { size_bytes: 64 << 20, holdfast: Some(binary()), keep: None }
}

#[test]
fn faults_are_survived() {
    let options = FailoverOptions {
        runs: 1,
        faults: vec![Fault::Control, Fault::Kill, Fault::Reset, Fault::Stop],
        seconds: Duration::from_millis(300),
        depth: 8,
        read_percent: 50,
        place: place(),
    };
    let outcome = failover::run(&options, &mut |_| {}).expect("everything runs");
    assert!(outcome.is_clean(), "{:?}", outcome.runs);
    let kinds: Vec<&str> = outcome.rows.iter().map(|row| row.fault.as_str()).collect();
    assert_eq!(kinds, ["control", "kill", "reset", "stop"]);
}

/// Silence needs root and nft, and is left to the command.
#[test]
fn stalls_are_measured() {
    let options = StallOptions {
        runs: 1,
        kinds: vec![Kind::Reset, Kind::Kill, Kind::Stop],
        depths: vec![8],
        place: place(),
    };
    let outcome = stall::run(&options, &mut |_| {}).expect("everything runs");
    assert!(outcome.is_clean(), "{:?}", outcome.runs);
    let rows = outcome.rows.iter().map(|row| format!("{} {}", row.kind, row.command));
    let expected = ["reset read", "kill read", "stop read", "reset write", "kill write", "stop write"];
    assert_eq!(rows.collect::<Vec<String>>(), expected);
}

/// Silence is left to the command here too.
#[test]
fn degradation_is_measured() {
    let options = DegradeOptions {
        runs: 1,
        flapping_runs: 1,
        kinds: vec![degrade::Kind::Reset, degrade::Kind::Kill, degrade::Kind::Slow, degrade::Kind::Flapping],
        seconds: Duration::from_millis(200),
        warmup: Duration::from_millis(300),
        flapping_for: Duration::from_secs(5),
        delay_ms: 1,
        storage: Medium::File,
        place: place(),
    };
    let outcome = degrade::run(&options, &mut |_| {}).expect("everything runs");
    assert!(outcome.is_clean(), "{:?}", outcome.samples);
    let rows = outcome.dying.iter().map(|row| format!("{} {}", row.kind, row.command));
    assert_eq!(rows.collect::<Vec<String>>(), ["reset read", "kill read", "reset write", "kill write"]);
    assert_eq!(outcome.slow.iter().map(|row| row.depth).collect::<Vec<u32>>(), [1, 32]);
    assert_eq!(outcome.flapping.as_ref().map(|row| (row.runs, row.pairs)), Some((1, 1)));
    assert_eq!(outcome.goals.len(), 14);
    let markdown = outcome.markdown();
    for word in ["| reset | read |", "slow path", "flapping path", "host errors = 0"] {
        assert!(markdown.contains(word), "{word} is missing: {markdown}");
    }
}

#[test]
fn scale_is_measured() {
    let options = ScaleOptions {
        connections: 20,
        devices: 4,
        paths: 2,
        seconds: Duration::from_millis(200),
        settle: Duration::from_millis(1),
        holdfast: Some(binary()),
    };
    let outcome = scale::run(&options).expect("everything runs");
    assert!(outcome.start_s > 0.0 && outcome.rss_before_mib > 0.0 && outcome.rss_with_devices_mib > 0.0);
}
