// SPDX-License-Identifier: MIT OR Apache-2.0
//! What ends a doubt: a gate's word (2.4), a drained connection (2.3, W1), a late reply after
//! the quarantine was let go (W13); and what a new process waits for (W10).

use engine::{Close, Event, GateOffer, LaneFault, LaneId, Offer, SendData, TcpSample};
use nbd::Command::{Read, Write};
use nbd::Errno;
use program::{AccessPolicy, DeviceCommand, DeviceProgram, MILLISECOND, NoPath, SECOND, Unproven, Writers};

use crate::script::{Script, Sent, device, offer};

pub(crate) fn gate(nonce: u128, killed: bool) -> Offer {
    let gate = GateOffer { volume: 7, nonce, cache_generation: 5, epoch: 1, killed };
    Offer { gate: Some(gate), ..offer() }
}

/// A over path 0 or 1, its lane lost, answered through the other; returns A's lane.
fn in_doubt(s: &mut Script) -> (LaneId, usize) {
    let a = s.request(Write, 0, 4096);
    let sent = s.take();
    s.reset(sent.path);
    let again = s.take();
    s.answer(again, Ok(()));
    assert_eq!(s.result(a), Some(Ok(())));
    (sent.lane, sent.path)
}

fn fencing_lane(s: &Script, target: LaneId) -> LaneId {
    *s.kills.iter().rev().find(|(_, kill)| *kill == target).map(|(lane, _)| lane).expect("a kill was sent")
}

pub(crate) fn write_sent(s: &Script) -> Option<Sent> {
    s.sent.iter().copied().find(|sent| sent.command == Write)
}

/// 2.4: with a gate the successor waits for one handshake, not for `quiesce`.
#[test]
fn a_gate_ends_a_doubt_at_once() {
    let mut s = Script::new(&DeviceProgram { unproven: Unproven::Hold, ..device(2) });
    s.open_all(&gate(1, false));
    let (target, _) = in_doubt(&mut s);
    let b = s.request(Write, 0, 4096);
    assert!(write_sent(&s).is_none(), "W4");
    let fencing = fencing_lane(&s, target);
    s.open(fencing, gate(1, true));
    let sent = write_sent(&s).expect("released by the gate");
    s.answer(sent, Ok(()));
    assert_eq!(s.result(b), Some(Ok(())));
    assert!(s.closing.contains(&(fencing, Close::Disconnect)), "it has done its work");
    assert!(s.events.contains(&"session_fenced") && !s.events.contains(&"quarantine_unproven"));
    assert_eq!(s.engine.status(s.now).fence.as_str(), "gate");
}

/// A path behind a gate is lost or suspected with a request of a host on it, and the next path takes over; whether that one
/// waited for the gate's word, and how long if the word does not come.
fn taken_over(without: &str, kind: nbd::Command, lost: bool, answers: bool) -> (bool, u64) {
    let program = DeviceProgram { access: AccessPolicy::ActivePassive, ..device(2) };
    let mut s = Script::without(without, &program);
    s.open_all(&gate(1, false));
    let asked = s.request(kind, 0, 4096);
    let stuck = s.take();
    if lost {
        s.reset(stuck.path);
    } else {
        // Its server stops: the canary tells.
        while s.state(stuck.path) == "up" {
            assert!(s.now < 10 * SECOND, "it is suspected");
            s.wait_alive(SECOND / 100, |sent| sent.path != stuck.path);
        }
    }
    let begun = s.now;
    let read = s.request(Read, 1 << 20, 4096);
    let host =
        |s: &Script| s.sent.iter().any(|sent| sent.data != SendData::Digest && sent.path != stuck.path);
    let waits = !host(&s);
    if waits && answers {
        s.open(fencing_lane(&s, stuck.lane), gate(1, true));
    }
    while !host(&s) {
        s.wait_alive(SECOND / 100, |sent| sent.path != stuck.path);
        assert!(s.now <= begun + SECOND, "no longer");
    }
    let waited = s.now - begun;
    s.wait_alive(SECOND / 10, |sent| sent.path != stuck.path);
    while let Some(at) = s.sent.iter().position(|sent| sent.path != stuck.path) {
        let sent = s.sent.remove(at).expect("just found");
        s.answer(sent, Ok(()));
    }
    assert_eq!((s.result(asked), s.result(read)), (Some(Ok(())), Some(Ok(()))));
    (waits, waited)
}

/// W20: with one path at a time the next one starts when the gate has finished the session before, be it only a read that
/// it has; a gate that does not answer is not waited for longer than half a second.
#[test]
fn one_path_at_a_time_waits_for_the_gate() {
    for (kind, lost) in [(Write, true), (Read, true), (Read, false)] {
        assert_eq!(taken_over("", kind, lost, true), (true, 0), "{kind:?}, lost: {lost}");
        let (waits, waited) = taken_over("", kind, lost, false);
        assert!(waits && (400 * MILLISECOND..=510 * MILLISECOND).contains(&waited), "{kind:?}: {waited} ns");
        assert_eq!(taken_over("w20_gate_word", kind, lost, false), (false, 0));
    }
}

/// 2.4: the lost path's own next connection has named the session too, before a path that works was asked: what its gate
/// says of it counts.
#[test]
fn the_first_word_of_a_gate_counts() {
    let mut s = Script::new(&DeviceProgram { unproven: Unproven::Hold, ..device(2) });
    s.open_path(0, gate(1, false));
    s.request(Write, 0, 4096);
    let lost = s.take();
    s.reset(0);
    s.wait(SECOND);
    let own = fencing_lane(&s, lost.lane);
    s.open_path(1, gate(1, false));
    let asking = fencing_lane(&s, lost.lane);
    assert_ne!(own, asking);
    while let Some(sent) = s.sent.pop_front() {
        s.answer(sent, Ok(()));
    }
    assert_eq!(s.engine.status(s.now).quarantined, 1);
    s.open(own, gate(1, true));
    assert_eq!(s.engine.status(s.now).quarantined, 0);
    s.open(asking, gate(1, true));
    assert_eq!(s.events.iter().filter(|name| **name == "session_fenced").count(), 1);
}

/// W20: the same where there was no path for a while.
#[test]
fn a_path_that_comes_later_waits_for_the_gate_too() {
    let mut s = Script::new(&DeviceProgram { access: AccessPolicy::ActivePassive, ..device(2) });
    s.open_path(0, gate(1, false));
    s.request(Write, 0, 4096);
    let stuck = s.take();
    s.reset(0);
    s.wait(SECOND);
    s.open_path(1, gate(1, false));
    assert!(write_sent(&s).is_none(), "the other path waits");
    let asking = fencing_lane(&s, stuck.lane);
    let on = |s: &Script| s.opening.iter().find(|(lane, _)| *lane == asking).map(|(_, path)| *path);
    assert_eq!(on(&s), Some(1), "over the path that works, though the lost one's next connection was to ask");
    s.open(asking, gate(1, true));
    assert_eq!(write_sent(&s).map(|sent| sent.path), Some(1));
}

/// W20: a read that outstays a planned switch is given up with its connection, and its server may be at work on it still:
/// when the connection is gone the gate is asked, and only then the next path begins.
#[test]
fn a_switch_waits_for_the_gate_after_a_read_that_is_given_up() {
    let mut s = Script::new(&DeviceProgram { access: AccessPolicy::ActivePassive, ..device(2) });
    s.open_all(&gate(1, false));
    let read = s.request(Read, 0, 4096);
    let stuck = s.take();
    s.event(Event::Path { path: stuck.path, command: program::PathCommand::Drain });
    let other = 1 - stuck.path;
    let host = |s: &Script| s.sent.iter().any(|sent| sent.data != SendData::Digest && sent.path == other);
    while !s.closing.iter().any(|(lane, _)| *lane == stuck.lane) {
        assert!(!host(&s) && s.now < 60 * SECOND, "it is given up");
        s.wait_alive(SECOND / 100, |sent| sent.path == other);
    }
    assert!(!host(&s), "its server may be at work on it");
    s.down(stuck.lane, LaneFault::ByUs);
    assert!(!host(&s), "the gate is asked");
    s.open(fencing_lane(&s, stuck.lane), gate(1, true));
    assert!(host(&s));
    while let Some(sent) = s.sent.pop_front() {
        s.answer(sent, Ok(()));
    }
    assert_eq!(s.result(read), Some(Ok(())));
}

/// T5: the switch makes the difference.
#[test]
fn without_its_gate_a_doubt_is_not_ended() {
    let mut s = Script::without("gate_kill", &DeviceProgram { unproven: Unproven::Hold, ..device(2) });
    s.open_all(&gate(1, false));
    in_doubt(&mut s);
    let kills = s.kills.len();
    s.request(Write, 0, 4096);
    s.wait(10 * SECOND);
    assert!(kills == 0 && s.kills.is_empty() && write_sent(&s).is_none());
}

/// 2.4: only gates that share the register of the session can speak for it; what is no gate cannot.
#[test]
fn nobody_else_can_end_a_doubt() {
    for answer in [gate(2, true), gate(1, false), offer()] {
        let mut s = Script::new(&DeviceProgram { unproven: Unproven::Hold, ..device(2) });
        s.open_all(&gate(1, false));
        let (target, _) = in_doubt(&mut s);
        s.request(Write, 0, 4096);
        let fencing = fencing_lane(&s, target);
        s.open(fencing, answer);
        assert!(write_sent(&s).is_none(), "{answer:?}");
        s.down(fencing, LaneFault::ByUs);
        s.wait_alive(200 * MILLISECOND, |_| true);
        assert_ne!(fencing_lane(&s, target), fencing, "asked again");
    }
}

/// 2.3: a gate all of whose processes were started anew executes nothing of the old ones'.
#[test]
fn a_restarted_gate_ends_a_doubt() {
    let mut s = Script::new(&DeviceProgram { unproven: Unproven::Hold, ..device(1) });
    s.open_all(&gate(1, false));
    let a = s.request(Write, 0, 4096);
    s.take();
    s.reset(0);
    s.wait(SECOND);
    s.open_path(0, gate(2, false));
    let again = s.take();
    s.answer(again, Ok(()));
    assert_eq!(s.result(a), Some(Ok(())));
    assert_eq!(s.engine.status(s.now).quarantined, 0);
}

/// 2.4: with a single path its own next connection carries the kill.
#[test]
fn the_next_connection_carries_the_kill() {
    let mut s = Script::new(&DeviceProgram { unproven: Unproven::Hold, ..device(1) });
    s.open_all(&gate(1, false));
    s.request(Write, 0, 4096);
    let sent = s.take();
    s.reset(0);
    s.wait(SECOND);
    assert_eq!(s.kills.last().map(|(_, kill)| *kill), Some(sent.lane));
    s.open_path(0, gate(1, true));
    let again = s.take();
    s.answer(again, Ok(()));
    assert_eq!(s.engine.status(s.now).quarantined, 0);
}

/// W16, 2.4: a silent link to a gate: the session is finished and its writes are free at once.
#[test]
fn a_silent_lane_to_a_gate_is_fenced() {
    let mut s = Script::new(&DeviceProgram { unproven: Unproven::Hold, ..device(2) });
    s.open_all(&gate(1, false));
    let a = s.request(Write, 0, 4096);
    let sent = s.take();
    s.wait(500 * MILLISECOND);
    let sample =
        TcpSample { unacked: 1, outq_bytes: 4124, last_ack_ms: 500, rto_us: 200_000, ..TcpSample::default() };
    s.event(Event::Tcp { lane: sent.lane, sample });
    let moved = write_sent(&s).expect("W16: moved");
    assert_ne!(moved.path, sent.path);
    let fencing = fencing_lane(&s, sent.lane);
    s.open(fencing, gate(1, true));
    assert!(s.closing.contains(&(sent.lane, Close::Abort)));
    s.down(sent.lane, LaneFault::ByUs);
    s.answer(moved, Ok(()));
    assert_eq!(s.result(a), Some(Ok(())));
    assert_eq!(s.engine.status(s.now).quarantined, 0);
}

/// A path whose server stops with A on it; A is answered through the other. Returns A as sent.
pub(crate) fn stalled(s: &mut Script) -> Sent {
    let a = s.request(Write, 0, 4096);
    let stuck = s.take();
    let dead = stuck.path;
    s.wait_alive(6 * SECOND, |sent| sent.path != dead);
    let moved = s.sent.iter().position(|sent| sent.command == Write && sent.path != dead).expect("W15");
    let moved = s.sent.remove(moved).expect("found");
    s.answer(moved, Ok(()));
    assert_eq!(s.result(a), Some(Ok(())));
    assert_eq!(s.engine.status(s.now).paths[dead].zombies, 1);
    stuck
}

pub(crate) fn short_hold() -> DeviceProgram {
    DeviceProgram { no_path: NoPath::Hold(20 * SECOND), ..device(2) }
}

/// W1, 2.3: a server that drains is sent DISC; its EOF proves everything on the connection.
#[test]
fn a_drained_connection_ends_its_doubts() {
    let mut program = DeviceProgram { unproven: Unproven::Hold, ..device(2) };
    for path in &mut program.paths {
        path.drains = true;
    }
    let mut s = Script::up(&program);
    let stuck = stalled(&mut s);
    assert!(s.closing.contains(&(stuck.lane, Close::Drain)));
    let b = s.request(Write, 0, 4096);
    assert!(s.sent.iter().all(|sent| sent.command != Write || sent.path == stuck.path));
    s.down(stuck.lane, LaneFault::Drained);
    let sent = write_sent(&s).expect("EOF is proof");
    s.answer(sent, Ok(()));
    assert_eq!(s.result(b), Some(Ok(())));
}

/// W13: with `hold` nothing is let go, and the zombie is kept: its reply is the only proof.
#[test]
fn hold_never_lets_go() {
    let mut s = Script::up(&DeviceProgram { unproven: Unproven::Hold, ..short_hold() });
    let stuck = stalled(&mut s);
    let b = s.request(Write, 0, 4096);
    s.wait_alive(60 * SECOND, |sent| sent.path != stuck.path);
    assert_eq!(s.result(b), Some(Err(Errno::Io)), "W13: EIO at the hold");
    assert!(write_sent(&s).is_none());
    assert!(!s.closing.iter().any(|(lane, _)| *lane == stuck.lane));
    s.answer(stuck, Ok(()));
    let c = s.request(Write, 0, 4096);
    let sent = write_sent(&s).expect("proven by the late reply");
    s.answer(sent, Ok(()));
    assert_eq!(s.result(c), Some(Ok(())));
}

/// W5, W13: several writers under `hold`: no answer without proof, EIO at the hold.
#[test]
fn several_writers_get_eio_at_the_hold() {
    let program = DeviceProgram { writers: Writers::Many, unproven: Unproven::Hold, ..short_hold() };
    let mut s = Script::up(&program);
    let a = s.request(Write, 0, 4096);
    let sent = s.take();
    s.reset(sent.path);
    let again = s.take();
    s.answer(again, Ok(()));
    assert_eq!(s.result(a), None);
    s.wait_alive(21 * SECOND, |_| true);
    assert_eq!(s.result(a), Some(Err(Errno::Io)));
    assert_eq!(s.engine.status(s.now).quarantined, 1, "W14: it stays in doubt");
}

/// W1: a server that stopped with its window closed is alive: our own kernel must not
/// reset the connection that its late reply will come on.
#[test]
fn a_closed_window_turns_the_user_timeout_off() {
    let mut s = Script::up(&device(2));
    s.request(Write, 0, 4096);
    let stuck = s.take();
    s.wait(200 * MILLISECOND);
    let closed =
        TcpSample { notsent_bytes: 100_000, outq_bytes: 100_000, rto_us: 200_000, ..TcpSample::default() };
    s.event(Event::Tcp { lane: stuck.lane, sample: closed });
    assert_eq!(s.timed, [(stuck.lane, false)]);
    s.event(Event::Tcp { lane: stuck.lane, sample: TcpSample::default() });
    assert_eq!(s.timed, [(stuck.lane, false), (stuck.lane, true)]);
}

/// W1, W13: a kept lane whose peer acknowledges nothing any more is not waited for: behind a
/// closed window our kernel would probe it for a quarter of an hour.
#[test]
fn a_zombie_whose_peer_is_gone_is_aborted() {
    let mut s = Script::up(&device(2));
    let stuck = stalled(&mut s);
    let closed = TcpSample { notsent_bytes: 100_000, outq_bytes: 100_000, ..TcpSample::default() };
    s.event(Event::Tcp { lane: stuck.lane, sample: TcpSample { probes: 1, ..closed } });
    assert!(s.closing.is_empty(), "a stopped server answers probes: one is always under way");
    s.event(Event::Tcp { lane: stuck.lane, sample: TcpSample { probes: 3, ..closed } });
    assert_eq!(s.closing, [(stuck.lane, Close::Abort)]);
    s.down(stuck.lane, LaneFault::ByUs);
    assert_eq!(s.engine.status(s.now).quarantined, 1, "nothing is proven: quiesce begins");
}

/// W10: after a crash of our own no write is issued before `quiesce`; reads are.
#[test]
fn a_new_process_waits_for_the_old_ones_writes() {
    let mut s = Script::up(&DeviceProgram { unclean: true, ..device(2) });
    assert_eq!(s.engine.status(s.now).state.as_str(), "recovering");
    // FLUSHes of what the old one left.
    for sent in [s.take(), s.take()] {
        s.answer(sent, Ok(()));
    }
    let write = s.request(Write, 0, 4096);
    let read = s.request(Read, 0, 4096);
    let sent = s.take();
    assert_eq!(sent.command, Read);
    s.answer(sent, Ok(()));
    assert_eq!(s.result(read), Some(Ok(())));
    s.wait_alive(4_900 * MILLISECOND, |_| true);
    assert!(write_sent(&s).is_none());
    s.wait_alive(200 * MILLISECOND, |_| true);
    let sent = write_sent(&s).expect("assumed to be over");
    s.answer(sent, Ok(()));
    assert_eq!(s.result(write), Some(Ok(())));
    assert!(s.events.contains(&"recovered_unproven"));
    assert_eq!(s.engine.status(s.now).state.as_str(), "optimal");
}

/// T5: the switch in the test above makes the difference.
#[test]
fn without_w10_writes_go_on_at_once() {
    let mut s = Script::without("w10_recovering", &DeviceProgram { unclean: true, ..device(2) });
    s.open_all(&offer());
    s.request(Write, 0, 4096);
    assert!(write_sent(&s).is_some());
}

/// W10, 2.4: gates that took the claim of the new process have finished the old one's sessions.
#[test]
fn gates_end_the_recovery() {
    let mut s = Script::new(&DeviceProgram { unclean: true, ..device(2) });
    s.request(Write, 0, 4096);
    s.open_path(0, gate(1, false));
    assert!(write_sent(&s).is_none(), "the other path may lead to anything");
    s.open_path(1, gate(1, false));
    assert!(write_sent(&s).is_some());
    assert!(s.events.contains(&"recovered"));
}

/// W10: no gate speaks for a path that was taken out of the configuration since the crash.
#[test]
fn gates_do_not_end_the_recovery_from_a_path_that_is_gone() {
    let mut s = Script::new(&DeviceProgram { unclean: true, left_elsewhere: true, ..device(1) });
    s.open_path(0, gate(1, false));
    assert!(s.events.contains(&"cache_unproven"), "nor for its cache");
    let flush = s.take();
    s.answer(flush, Ok(()));
    s.request(Write, 0, 4096);
    s.wait_alive(4_900 * MILLISECOND, |_| true);
    assert!(write_sent(&s).is_none());
    s.wait_alive(200 * MILLISECOND, |_| true);
    assert!(write_sent(&s).is_some(), "assumed to be over");
    assert!(s.events.contains(&"recovered_unproven") && !s.events.contains(&"recovered"));
}

/// 3.7: an operator ends the hold.
#[test]
fn fail_now_ends_the_hold() {
    let mut s = Script::up(&device(1));
    s.reset(0);
    let read = s.request(Read, 0, 4096);
    s.event(Event::Device(DeviceCommand::FailNow));
    assert_eq!(s.result(read), Some(Err(Errno::Io)));
    s.wait(SECOND);
    s.open_path(0, offer());
    let read = s.request(Read, 0, 4096);
    let sent = s.take();
    s.answer(sent, Ok(()));
    assert_eq!(s.result(read), Some(Ok(())));
}
