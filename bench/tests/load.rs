// SPDX-License-Identifier: MIT OR Apache-2.0
//! The load generator in a tiny mode: its books must agree with the server's, and `--verify` must notice every lie.
//!
//! Runs end by a count of requests and not by time, so nothing here depends on how fast the machine is.

mod support;

use std::sync::Arc;
use std::time::Duration;

use bench::load::{self, Control, LoadOptions, Pattern, Replies, Report};
use support::{Lie, Server};

const SIZE_BYTES: usize = 64 * 4096;
const REQUESTS: u64 = 2000;

/// A verified mixed load over few blocks, so that each is written and read many times.
fn options(server: &Server) -> LoadOptions {
    LoadOptions {
        pattern: Pattern::Mixed,
        depth: 8,
        duration: Duration::from_hours(1),
        requests: Some(REQUESTS),
        verify: true,
        ..LoadOptions::new(&server.uri())
    }
}

fn run(options: &LoadOptions) -> Report {
    load::run(options, &Arc::new(Control::default())).expect("the load starts")
}

fn run_against(lie: Lie) -> (Report, Server) {
    let server = Server::start(SIZE_BYTES, lie);
    let report = run(&options(&server));
    (report, server)
}

#[test]
fn books_agree_with_the_servers() {
    for replies in [Replies::Simple, Replies::Structured, Replies::Extended] {
        let server = Server::start(SIZE_BYTES, Lie::None);
        let report = run(&LoadOptions { replies, flush_every: Some(50), ..options(&server) });
        assert!(report.is_clean(), "{replies:?}: {report}");
        assert_eq!(report.requests(), REQUESTS);
        assert_eq!(report.answers_per_100ms.iter().sum::<u64>(), REQUESTS);
        let counts = server.counts();
        assert_eq!(
            (report.reads + report.read_back, report.writes, report.flushes),
            (counts.reads, counts.writes, counts.flushes),
            "{replies:?}"
        );
        assert!(report.flushes > 0 && report.reads > 0 && report.read_back > 0, "{report}");
    }
}

#[test]
fn many_connections_and_threads_share_the_work() {
    let server = Server::start(SIZE_BYTES, Lie::None);
    let report = run(&LoadOptions { connections: 6, threads: 2, depth: 4, ..options(&server) });
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.requests(), REQUESTS);
    assert_eq!(report.reads + report.read_back, server.counts().reads);
}

/// Every pattern and a block that fills the socket: sends that do not fit at once are continued.
#[test]
fn large_blocks_go_through_in_every_pattern() {
    for pattern in [Pattern::Read, Pattern::Write, Pattern::RandRead, Pattern::RandWrite, Pattern::Mixed] {
        let server = Server::start(32 << 20, Lie::None);
        let verify = pattern.writes();
        let sizes = LoadOptions { block_bytes: 1 << 20, depth: 16, requests: Some(64), ..options(&server) };
        let report = run(&LoadOptions { pattern, verify, ..sizes });
        assert!(report.is_clean(), "{pattern:?}: {report}");
        assert_eq!(report.requests(), 64);
    }
}

/// Two passes over all blocks, so that nothing covers up what went wrong in the second before it is read back.
fn run_two_passes(lie: Lie) -> Report {
    let server = Server::start(SIZE_BYTES, lie);
    let report = run(&LoadOptions { pattern: Pattern::Write, requests: Some(128), ..options(&server) });
    assert_eq!((report.writes, report.read_back), (128, 64));
    assert_eq!(server.counts().lies, 1);
    report
}

/// Told while the blocks are read back: then every overwriting is acknowledged, and the older content is wrong for certain. A
/// read beside an overwriting in flight may return either, so the same lie in a mixed load is no lie each time.
#[test]
fn a_stale_read_is_found() {
    let report = run_two_passes(Lie::StaleRead);
    assert_eq!(report.violations, 1, "{report}");
    assert!(report.violation_examples[0].contains("went back to write"), "{report}");
    assert!(!report.is_clean());
}

#[test]
fn a_lost_write_is_found() {
    let report = run_two_passes(Lie::LostWrite);
    assert_eq!(report.violations, 1, "{report}");
    assert!(report.violation_examples[0].starts_with("sector 0: went back to write 1,"), "{report}");
}

#[test]
fn a_misplaced_write_is_found() {
    let report = run_two_passes(Lie::MisplacedWrite);
    assert_eq!(report.violations, 1, "{report}");
}

#[test]
fn an_error_reply_is_counted_and_the_load_goes_on() {
    let (report, _server) = run_against(Lie::Error);
    assert_eq!(
        report.errors.iter().map(|(name, count)| (name.as_str(), *count)).collect::<Vec<_>>(),
        [("EIO", 1)]
    );
    assert_eq!(report.requests(), REQUESTS);
    assert_eq!(report.violations, 0, "{report}");
    assert!(!report.is_clean());
}

#[test]
fn a_closed_connection_is_counted_with_what_it_lost() {
    let (report, _server) = run_against(Lie::Close);
    // A reset or an end of the stream, as the server's unread input will have it.
    assert_eq!(report.lost_connections.len(), 1, "{report}");
    assert!(report.lost_requests >= 1, "{report}");
    assert!(!report.is_clean());
}

#[test]
fn a_load_ends_when_told_to() {
    let server = Server::start(SIZE_BYTES, Lie::None);
    let endless = LoadOptions { requests: None, ..options(&server) };
    let control = Arc::new(Control::default());
    let shared = Arc::clone(&control);
    let load = std::thread::spawn(move || load::run(&endless, &shared));
    while control.answered() < 100 {
        std::thread::yield_now();
    }
    control.stop();
    let report = load.join().expect("it ends").expect("it started");
    assert!(report.is_clean() && report.requests() >= 100, "{report}");
}

#[test]
fn what_does_not_fit_the_export_is_refused_before_anything_is_sent() {
    let server = Server::start(SIZE_BYTES, Lie::None);
    let good = options(&server);
    let bad = [
        (LoadOptions { size_bytes: Some(1 << 30), ..good.clone() }, "the export ends at"),
        (LoadOptions { pattern: Pattern::RandRead, ..good.clone() }, "--verify checks what it wrote"),
        (LoadOptions { depth: 64, ..good.clone() }, "more blocks than requests"),
        (LoadOptions { uri: "file:///tmp/x".to_owned(), ..good.clone() }, "a file has no connections"),
        (LoadOptions { uri: "nbds://localhost".to_owned(), ..good.clone() }, "no TLS"),
    ];
    for (options, words) in bad {
        let error = load::run(&options, &Arc::new(Control::default())).expect_err(words).to_string();
        assert!(error.contains(words), "{error}");
    }
    assert_eq!(server.counts(), support::Counts::default());
}
