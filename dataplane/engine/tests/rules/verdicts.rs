// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is done with a connection is what the fault table says (design 3.5, `policies::faults`), class by class.

use engine::{Event, LaneFault, Offer, TcpSample};
use nbd::Command::{Read, Write};
use nbd::Errno;
use policies::faults::{FaultClass, LaneAction, verdict};
use program::{MILLISECOND, SECOND};

use crate::script::{SIZE, Script, Sent, device, offer};

/// What became of the connection that showed the fault.
fn done_with(s: &mut Script, shown: Sent) -> LaneAction {
    if s.state(shown.path) == "refused" {
        return LaneAction::Refuse;
    }
    let stands = s.lanes.iter().any(|(lane, ..)| *lane == shown.lane);
    let closing = s.closing.iter().any(|(lane, _)| *lane == shown.lane);
    if !stands || closing {
        s.wait_alive(5 * SECOND, |_| true);
        assert!(s.opening.iter().any(|(_, path)| *path == shown.path), "it is not connected anew");
        return LaneAction::Replace;
    }
    s.sent.clear();
    for n in 0..20 {
        s.request(Read, (1 << 24) + n * 4096, 4096);
    }
    let used = s.sent.iter().any(|sent| sent.lane == shown.lane);
    if used { LaneAction::Keep } else { LaneAction::SuspectKeepOpen }
}

/// A device of two paths with a write in flight on one.
fn in_flight() -> (Script, Sent) {
    let mut s = Script::up(&device(2));
    s.request(Write, 0, 4096);
    let sent = s.take();
    (s, sent)
}

fn lost(fault: LaneFault) -> LaneAction {
    let (mut s, sent) = in_flight();
    s.down(sent.lane, fault);
    done_with(&mut s, sent)
}

fn answered(error: Errno) -> LaneAction {
    let (mut s, sent) = in_flight();
    s.answer(sent, Err(error));
    done_with(&mut s, sent)
}

fn silent() -> LaneAction {
    let (mut s, sent) = in_flight();
    s.wait(450 * MILLISECOND);
    let sample = TcpSample { unacked: 1, last_ack_ms: 450, rto_us: 204_000, ..TcpSample::default() };
    s.event(Event::Tcp { lane: sent.lane, sample });
    done_with(&mut s, sent)
}

/// Late, on a connection whose canaries are answered.
fn late() -> LaneAction {
    let (mut s, sent) = in_flight();
    s.wait_alive(2_100 * MILLISECOND, |_| true);
    done_with(&mut s, sent)
}

fn not_opened(event: impl Fn(&mut Script)) -> LaneAction {
    let (mut s, sent) = in_flight();
    s.reset(sent.path);
    s.wait(SECOND);
    event(&mut s);
    done_with(&mut s, sent)
}

#[test]
fn a_connection_is_treated_as_the_table_says() {
    let smaller = Offer { size_bytes: SIZE / 2, ..offer() };
    let opening = |s: &Script| s.opening[0];
    let cases = [
        (FaultClass::TransportReset, lost(LaneFault::Reset("test".into()))),
        (FaultClass::TransportReset, lost(LaneFault::Closed)),
        (FaultClass::ProtocolViolation, lost(LaneFault::Protocol("test".into()))),
        (FaultClass::Refused, not_opened(|s| s.refuse_connect(opening(s).1))),
        (
            FaultClass::Unreachable,
            not_opened(|s| {
                let (lane, _) = s.opening.remove(0);
                let fault = LaneFault::Unreachable("test".into());
                s.event(Event::LaneDown { lane, fault, sent_bytes: 0 });
            }),
        ),
        (FaultClass::Silent, silent()),
        (FaultClass::DeadlinePassed, late()),
        (FaultClass::StorageError, answered(Errno::Io)),
        (FaultClass::Capacity, answered(Errno::NoSpace)),
        (FaultClass::RequestError, answered(Errno::Invalid)),
        (FaultClass::IdentityChange, not_opened(|s| s.open_path(opening(s).1, smaller))),
    ];
    for (class, done) in cases {
        assert_eq!(done, verdict(class).lane, "{class:?}");
    }
}
