// SPDX-License-Identifier: MIT OR Apache-2.0
//! What TCP_INFO says about a lane that does not answer (rule W16).

mod support;

use policies::silence::{Silence, TcpEvidence, judge, limit, probe_after, silent_in};
use support::MILLISECOND;

fn evidence(unacked: u32, notsent_bytes: u32, last_ack_ms: u32, rto_us: u32) -> TcpEvidence {
    TcpEvidence { unacked, notsent_bytes, last_ack_ms, rto_us }
}

#[test]
fn table() {
    use Silence::{Answering, LinkSilent, WindowClosed};
    for (sample, expected) in [
        (evidence(0, 0, 60_000, 204_000), Answering),
        (evidence(1, 0, 407, 204_000), Answering),
        (evidence(1, 0, 408, 204_000), LinkSilent),
        // The floor: a LAN's RTO of 5 ms does not make 10 ms a fault.
        (evidence(1, 0, 199, 5_000), Answering),
        (evidence(1, 0, 200, 5_000), LinkSilent),
        // The ceiling.
        (evidence(1, 0, 999, 120_000_000), Answering),
        (evidence(1, 0, 1_000, u32::MAX), LinkSilent),
        // A stopped reader acknowledged all it took; the rest waits here.
        (evidence(0, 4_096, 0, 204_000), WindowClosed),
        (evidence(0, 4_096, 60_000, 204_000), WindowClosed),
        // Bytes move in both queues and ACKs come: slow at most.
        (evidence(3, 4_096, 10, 204_000), Answering),
        (evidence(3, 4_096, 500, 204_000), LinkSilent),
    ] {
        assert_eq!(judge(&sample), expected, "{sample:?}");
    }
}

#[test]
fn the_limit_is_bounded_on_both_sides() {
    let limits_ms =
        [0, 99_999, 100_000, 100_001, 250_000, 500_000, u32::MAX].map(|rto_us| limit(rto_us) / MILLISECOND);
    assert_eq!(limits_ms, [200, 200, 200, 200, 500, 1_000, 1_000]);
}

/// A lane is asked when its oldest request takes much longer than it should, but for one that is
/// not known or was asked a moment ago.
#[test]
fn a_lane_is_asked_by_what_its_requests_should_take() {
    let asked_ms =
        |expected_us: u64, lately| probe_after(expected_us * (MILLISECOND / 1_000), lately) / MILLISECOND;
    assert_eq!(
        [100, 5_000, 8_000, 29_999, 30_000, 1_000_000].map(|us| asked_ms(us, false)),
        [10, 10, 16, 59, 60, 60]
    );
    assert_eq!(asked_ms(0, false), 60, "nothing is known");
    assert_eq!(asked_ms(100, true), 60, "once in a canary interval");
    assert_eq!(probe_after(u64::MAX, false) / MILLISECOND, 60);
}

/// Whoever looks again after the time that is named sees the silence, and not before it.
#[test]
fn it_says_when_the_limit_is_reached() {
    assert_eq!(silent_in(&evidence(0, 4_096, 500, 5_000)), None, "no ACK is owed");
    for (last_ack_ms, rto_us, left_ms) in [
        (0, 5_000, 200),
        (187, 5_000, 13),
        (200, 5_000, 0),
        (900, 5_000, 0),
        (60, 204_000, 348),
        (0, u32::MAX, 1_000),
    ] {
        let sample = evidence(1, 0, last_ack_ms, rto_us);
        assert_eq!(silent_in(&sample), Some(left_ms * MILLISECOND), "{sample:?}");
        let later = evidence(1, 0, last_ack_ms + left_ms as u32, rto_us);
        assert_eq!(judge(&later), Silence::LinkSilent, "{later:?}");
        if left_ms > 0 {
            assert_eq!(
                judge(&evidence(1, 0, later.last_ack_ms - 1, rto_us)),
                Silence::Answering,
                "{later:?}"
            );
        }
    }
}

/// A cut link as the kernel shows it: `tcpi_rto` doubles at each retransmission. With it
/// taken as it is and no ceiling, silence was seen at 1,650 ms and denied again at 1,800 ms.
#[test]
fn a_cut_link_stays_silent_while_the_rto_doubles() {
    const TRACE: [(u32, u32, u32); 8] = [
        // ms since the cut, tcpi_rto, tcpi_backoff
        (150, 204_000, 0),
        (450, 408_000, 1),
        (900, 816_000, 2),
        (1_050, 816_000, 2),
        (1_650, 816_000, 2),
        (1_800, 1_632_000, 3),
        (2_400, 1_632_000, 3),
        (3_150, 1_632_000, 3),
    ];
    for (after_ms, rto_us, backoff) in TRACE {
        let raw = judge(&evidence(1, 0, after_ms, rto_us)) == Silence::LinkSilent;
        let before_backoff = judge(&evidence(1, 0, after_ms, rto_us >> backoff)) == Silence::LinkSilent;
        assert_eq!(raw, after_ms >= 1_000, "{after_ms} ms");
        assert_eq!(before_backoff, after_ms >= 408, "{after_ms} ms");
    }
}

/// The first request after an idle minute finds a last ACK that is a minute old.
#[test]
fn an_idle_minute_is_not_silence() {
    let sample = evidence(1, 0, 60_000, 204_000);
    assert_eq!(judge(&sample), Silence::LinkSilent, "what the bare sample would say");
    assert_eq!(judge(&sample.waiting_since(2)), Silence::Answering);
    assert_eq!(judge(&sample.waiting_since(450)), Silence::LinkSilent);
    // A recent ACK counts even if something older is still unanswered.
    assert_eq!(judge(&evidence(1, 0, 20, 204_000).waiting_since(5_000)), Silence::Answering);
}
