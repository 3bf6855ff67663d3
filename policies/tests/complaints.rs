// SPDX-License-Identifier: MIT OR Apache-2.0
//! What users of comparable systems complain of, as far as a decision alone can answer it.
//!
//! The numbers are those of `docs/complaints.md`, which tells each story and names the tests that
//! need an engine or real servers.

mod support;

use policies::evidence::{CanaryState, Sign, Unanswered, characterise};
use policies::explain::{Decision, Explain, Subject};
use policies::faults::{
    Fault, FaultClass, LaneAction, PathAction, RequestAction, Scope, Spread, act, classify_errno, verdict,
};
use policies::hedge::{Answer, PendingRead};
use policies::limits::{BACKOFF_CAP, HEDGE_BUDGET_PPM, NO_PATH_HOLD, READ_DEADLINE, WRITE_DEADLINE};
use policies::selector::{Candidate, Kind};
use policies::silence::TcpEvidence;
use policies::standing::{Held, Standing, in_use, standing};
use policies::timing::{Times, violations};
use policies::{
    Backoff, FailureLimit, Hedge, Latency, Marginal, Outrun, Pacing, Probation, Selector, SlowPaths,
    request_deadline,
};
use support::{Draws, MILLISECOND, SECOND};

const PAGE: &str = include_str!("../../docs/complaints.md");
const THIS: &str = include_str!("complaints.rs");

/// The page and this file name the same tests.
#[test]
fn the_page_names_every_test_here() {
    let named: std::collections::BTreeSet<&str> =
        PAGE.split('`').skip(1).step_by(2).filter_map(|code| code.strip_prefix("complaints::")).collect();
    let written: std::collections::BTreeSet<&str> = THIS
        .lines()
        .filter_map(|line| line.strip_prefix("fn complaint_"))
        .filter_map(|rest| rest.split('(').next())
        .collect();
    let named: std::collections::BTreeSet<String> = named.into_iter().map(str::to_owned).collect();
    let written: std::collections::BTreeSet<String> =
        written.into_iter().map(|name| format!("complaint_{name}")).collect();
    assert_eq!(named, written);
}

/// A server that restarts is tried again at once, and then for ever.
#[test]
fn complaint_3_a_restarted_server_is_connected_again() {
    for sign in [Sign::ConnectionLost, Sign::ConnectRefused, Sign::ErrorReply(108)] {
        let it = act(characterise(&sign).expect("a fault"));
        assert_eq!((it.lane, it.path), (LaneAction::Replace, PathAction::Reconnect), "{sign:?}");
        assert_eq!(it.request, RequestAction::RetryElsewhere, "one slow request loses nothing");
    }
    assert_eq!(Backoff::new().next_delay(u64::MAX), 0);
}

/// Packets dropped, not refused: seen within a second whatever the round trip, not in minutes.
#[test]
fn complaint_4_dropped_packets_are_seen_within_a_second() {
    for rto_us in [5_000, 204_000, 1_000_000, 120_000_000] {
        let at = |last_ack_ms| Unanswered {
            tcp: Some(TcpEvidence { unacked: 1, notsent_bytes: 0, last_ack_ms, rto_us }),
            window_was_closed: false,
            canary: CanaryState::Young,
            oldest_age: u64::from(last_ack_ms) * MILLISECOND,
            deadline: READ_DEADLINE,
        };
        let seen = (0..=1_000).find(|&ms| characterise(&Sign::Unanswered(at(ms))).is_some());
        let ms = seen.expect("within a second");
        assert!((200..=1_000).contains(&ms), "RTO {rto_us} us: {ms} ms");
    }
}

/// A dying path takes nothing from the others: it loses its standing, they keep theirs.
#[test]
fn complaint_5_a_dying_path_leaves_the_healthy_ones_alone() {
    let dying = standing(Held { suspect: true, ..Held::default() });
    let healthy = standing(Held::default());
    assert_eq!(in_use([dying, healthy, healthy]), Some(Standing::Good));
    // One that hangs while in use does not collect the slots of the device.
    let mut selector = Selector::new(Kind::Latency);
    let mut in_flight = [0_u32; 2];
    for n in 0..1_000 {
        let candidates = in_flight.map(|in_flight| Candidate {
            in_flight,
            in_flight_bytes: u64::from(in_flight) * 4_096,
            weight: 1,
            expected_ns: 100_000,
            last_used: n,
            share_ppm: 1_000_000,
        });
        // Path 1 never answers, path 0 at once.
        let chosen = selector.choose(n, 4_096, &candidates);
        in_flight[1] += u32::from(chosen == 1);
    }
    assert!(in_flight[1] <= 1, "{in_flight:?}");
}

/// The check is good and the I/O fails: a good canary takes nothing of the evidence back.
#[test]
fn complaint_6_good_checks_do_not_cancel_failed_io() {
    let (mut limit, mut marginal) = (FailureLimit::new(), Marginal::new());
    let mut now = 0;
    for _ in 0..6 {
        let mut probation = Probation::start(now);
        for _ in 0..3 {
            now += SECOND;
            probation.on_canary(now, true);
            marginal.on_good(now);
        }
        assert_eq!(probation.share_ppm(now), 50_000, "it returns with a few requests, not with all");
        now += SECOND;
        for _ in 0..2 {
            marginal.on_trouble(now);
        }
        limit.on_failure(now);
    }
    assert!(limit.holds_out(now, false), "six failures in half a minute, whatever the checks said");
    assert!(marginal.is_marginal(now), "12 spoilt requests, whatever the checks said");
}

/// "Healthy", and I/O stuck for hours: the age of the oldest request is a watchdog of its own.
#[test]
fn complaint_7_stuck_io_is_seen_beside_good_checks() {
    let stuck = |canary, oldest_age| Unanswered {
        tcp: Some(TcpEvidence { unacked: 0, notsent_bytes: 0, last_ack_ms: 10, rto_us: 204_000 }),
        window_was_closed: false,
        canary,
        oldest_age,
        deadline: request_deadline(WRITE_DEADLINE, 4_096, false),
    };
    for canary in [CanaryState::Answered, CanaryState::Young, CanaryState::NotAsked] {
        let fault = characterise(&Sign::Unanswered(stuck(canary, 3 * SECOND))).expect("it is late");
        assert_eq!(act(fault).request, RequestAction::RetryElsewhere, "{canary:?}");
        assert_eq!(characterise(&Sign::Unanswered(stuck(canary, SECOND))), None, "{canary:?}");
    }
}

/// One of eight paths closed: no burst on the seven others.
#[test]
fn complaint_8_moved_requests_come_back_paced() {
    let mut latency = Latency::new();
    (0..100).for_each(|_| latency.record(true, 4_096, MILLISECOND));
    let mut pacing = Pacing::new();
    pacing.on_moved(SECOND, 100, &latency);
    let at_once = pacing.allowance(SECOND, 100);
    assert!((1..=10).contains(&at_once), "a tenth of what is there at most: {at_once}");
}

/// One error is enough to lose a filesystem: what nobody knows is tried elsewhere.
#[test]
fn complaint_9_an_unknown_error_is_tried_elsewhere() {
    for wire in (0..=4_096).chain([u32::MAX]) {
        let request = verdict(classify_errno(wire)).request;
        let known = [1, 22, 27, 28, 75, 95, 122].contains(&wire);
        assert_eq!(request == RequestAction::ToHost, known, "{wire}");
    }
}

/// Queueing ends by default, and after a server's reboot, not before.
#[test]
fn complaint_10_the_hold_is_bounded_and_longer_than_what_it_waits_for() {
    let times = Times::default();
    assert_eq!(times.hold, Some(NO_PATH_HOLD));
    assert_eq!(violations(&times), []);
    let short = Times { hold: Some(WRITE_DEADLINE), ..times };
    assert!(violations(&short).iter().any(|it| it.larger == "hold"), "a hold below a deadline is refused");
    const { assert!(NO_PATH_HOLD >= 10 * BACKOFF_CAP, "many attempts fit") }
}

/// Load is no fault: it takes nothing away and is not answered with more load.
#[test]
fn complaint_11_load_makes_no_path_faulty() {
    for scope in Scope::ALL {
        let it = act(Fault { scope, ..Fault::first_sight(FaultClass::Overload) }.repeated());
        assert_eq!((it.lane, it.path), (LaneAction::Keep, PathAction::Keep), "{scope:?}");
        assert_eq!(it.request, RequestAction::Wait);
    }
    // 128 MiB ahead of a read are no lateness.
    assert!(request_deadline(READ_DEADLINE, 128 << 20, false) > 16 * SECOND);
    // Hedging stops when all paths are slow.
    let mut hedge = Hedge::new(HEDGE_BUDGET_PPM, 128);
    (0..5_000).for_each(|n| hedge.on_reply(n * MILLISECOND, 4_096, MILLISECOND));
    let late = PendingRead {
        len_bytes: 4_096,
        age: 50 * MILLISECOND,
        one_at_a_time: false,
        other_paths: 1,
        recovering: false,
        median_ns: 10 * MILLISECOND,
    };
    assert!(matches!(hedge.decide(&late), Answer::No(_)));
}

/// A slow member is demoted and not failed, and the last one is neither.
#[test]
fn complaint_12_a_slow_path_is_demoted_and_the_last_one_kept() {
    for (others, demoted) in [(true, true), (false, false)] {
        let mut slow = SlowPaths::new(2);
        for window in 0..20 {
            for _ in 0..20 {
                slow.record(window * 5 * SECOND, 0, false, 4_096, MILLISECOND);
                slow.record(window * 5 * SECOND, 1, false, 4_096, 8 * SECOND);
            }
            while slow.poll((window + 1) * 5 * SECOND, &[others, true], &[0; 2]).is_some() {}
        }
        assert_eq!(slow.is_demoted(1), demoted);
        let standing = standing(Held { slow: slow.is_demoted(1), ..Held::default() });
        assert_eq!(in_use([standing]), Some(standing), "alone, it is used all the same");
    }
    // A last path that is late is given four times as long.
    let ages = [false, true].map(|last| request_deadline(READ_DEADLINE, 0, last));
    assert_eq!(ages, [SECOND, 4 * SECOND]);
}

/// A path that leads to other data is refused, whoever else it concerns and however often.
#[test]
fn complaint_13_other_data_is_never_served() {
    let first = characterise(&Sign::WrongIdentity).expect("a fault");
    for paths in 1..4 {
        let all =
            Spread { server_paths: paths, server_faulty: paths, device_paths: paths, device_faulty: paths };
        for fault in [first, first.repeated(), first.seen_on(all)] {
            assert_eq!((act(fault).lane, act(fault).path), (LaneAction::Refuse, PathAction::Refuse));
        }
    }
}

/// An upgrade of the storage may take hours: attempts never end, only their distance grows.
#[test]
fn complaint_14_reconnecting_never_gives_up() {
    let (mut backoff, mut draws) = (Backoff::new(), Draws::new(14));
    let mut waited = 0;
    while waited < 24 * 3_600 * SECOND {
        let delay = backoff.next_delay(draws.any());
        assert!(delay <= BACKOFF_CAP + BACKOFF_CAP / 4);
        waited += delay;
    }
    assert!(backoff.attempts() > 2_000);
}

/// A flickering adapter: thousands of equal signs, one entry with a count, a path held out, and
/// three hedges instead of three hundred.
#[test]
fn complaint_16_a_flickering_link_makes_no_storm() {
    let (mut limit, mut explain) = (FailureLimit::new(), Explain::new(1));
    let mut events = 0;
    for n in 0..5_000 {
        let now = n * 10 * MILLISECOND;
        limit.on_failure(now);
        let held = limit.holds_out(now, false);
        let what = if held { "held out" } else { "reconnecting" };
        events += u32::from(explain.record(Decision::new(now, Subject::Path(0), what, "failure-limit")));
    }
    assert!(events <= 6, "{events} events for 5,000 flickers in 50 s");
    let last = explain.last(Subject::Path(0)).expect("it is kept");
    assert!(last.times > 1_000, "{last}");
    let mut outrun = Outrun::new();
    assert_eq!([0, 0, 0].map(|_| outrun.on_won(SECOND, 10, 5, false)), [false, false, true]);
}
