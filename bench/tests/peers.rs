// SPDX-License-Identifier: MIT OR Apache-2.0
//! The comparison in a tiny mode against the real peers, so that neither a new version of one nor a change here breaks it
//! unseen. Numbers of such short samples mean nothing and are not judged; that they are there and add up is.
//!
//! Needs nbdkit, HAProxy and fio, which `tests/run` installs. Holdfast itself is measured where its binary is built.

use std::time::Duration;

use bench::compare::{self, Client, CompareOptions, Sample, Storage, Target, Workload};

fn tiny(client: Client, targets: &[Target]) -> CompareOptions {
    let workload = |text: &str| text.parse::<Workload>().expect("a workload");
    CompareOptions {
        rounds: 2,
        seconds: Duration::from_millis(200),
        workloads: vec![workload("randread-4k-8"), workload("write-64k-2")],
        targets: targets.to_vec(),
        client,
        size_bytes: 4 << 20,
        storage: Storage::Memory,
        other: None,
        holdfast: None,
    }
}

fn check(client: Client) {
    let targets = [Target::Direct, Target::Haproxy, Target::NbdkitNbd];
    let mut told = 0;
    let mut tell = |_: &Sample| told += 1;
    let outcome = compare::run(&tiny(client, &targets), &mut tell).expect("the peers run");
    assert_eq!((told, outcome.samples.len()), (12, 12));
    for sample in &outcome.samples {
        let figures = sample.figures.as_ref().unwrap_or_else(|| panic!("{sample:?}"));
        assert!(figures.requests > 0 && figures.iops > 0.0 && figures.p50_us > 0.0, "{sample:?}");
        assert_eq!(sample.proxy_cpu_s.is_none(), sample.target == "direct", "{sample:?}");
    }
    // Targets take turns at being first.
    assert_eq!(
        (outcome.samples[0].target.as_str(), outcome.samples[6].target.as_str()),
        ("direct", "haproxy")
    );
    assert_eq!(outcome.rows.len(), 6);
    assert!(outcome.rows.iter().all(|row| row.rounds == 2 && row.iops_to_haproxy.is_some()));
    let markdown = outcome.markdown();
    for word in ["**randread-4k-8**", "| nbdkit-nbd |", "kernel", "nbdkit 1.", "HAProxy"] {
        assert!(markdown.contains(word), "{word} is missing: {markdown}");
    }
}

#[test]
fn peers_are_compared_with_fio() {
    check(Client::Fio);
}

#[test]
fn peers_are_compared_with_our_own_client() {
    check(Client::Own);
}

#[test]
fn a_missing_binary_is_said_before_anything_is_started() {
    let mut options = tiny(Client::Own, &[Target::Holdfast]);
    options.holdfast = Some("/nonexistent/holdfast".into());
    let error = compare::run(&options, &mut |_| {}).expect_err("there is none").to_string();
    assert!(error.contains("no holdfast at /nonexistent/holdfast"), "{error}");
}
