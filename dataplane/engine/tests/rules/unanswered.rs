// SPDX-License-Identifier: MIT OR Apache-2.0
//! Nothing comes: a silent link, a stopped server, a slow request and a held one are told apart (W15, W16,
//! W19), and our own pauses are none of them (W17).
//!
//! Tests named `complaint_` answer complaints of users of comparable systems: `docs/complaints.md`.

use engine::{Event, GateOffer, LaneFault, Offer, SendData, TcpSample};
use nbd::Command::{Flush, Read, Write};
use nbd::Errno;
use program::{AccessPolicy, DeviceProgram, MILLISECOND, SECOND};

use crate::script::{Script, Sent, device, offer};

/// Answers everything but what `stuck` names, as it comes.
fn serve(s: &mut Script, time: u64, stuck: impl Fn(&Sent) -> bool) {
    let end = s.now + time;
    while s.now < end {
        s.wait(10 * MILLISECOND);
        let (kept, ready): (Vec<Sent>, Vec<Sent>) = s.sent.drain(..).partition(&stuck);
        s.sent.extend(kept);
        for sent in ready {
            s.answer(sent, Ok(()));
        }
    }
}

/// W15: a read that is late on a connection that answers others moves alone; the path stays as it is.
#[test]
fn one_slow_request_moves_alone() {
    let mut s = Script::up(&device(2));
    let slow = s.request(Read, 0, 4096);
    let first = s.sent[0];
    serve(&mut s, 900 * MILLISECOND, |sent| sent.offset == 0 && sent.data == SendData::Land);
    assert_eq!(s.result(slow), None);
    serve(&mut s, 300 * MILLISECOND, |sent| *sent == first);
    assert_eq!(s.result(slow), Some(Ok(())), "the other path has answered it");
    assert_eq!((s.state(0), s.state(1)), ("up", "up"), "{} {}", s.reason(0), s.reason(1));
    assert!(s.closing.is_empty());
    let again = s.request(Read, 4096, 4096);
    serve(&mut s, 20 * MILLISECOND, |sent| *sent == first);
    assert_eq!(s.result(again), Some(Ok(())), "both go on");
    s.answer(first, Ok(()));
}

/// "Healthy", and I/O stuck for hours: writes that hang beside good canaries are answered by the other
/// path, and after ten of them this one is used for nothing while that one is there.
#[test]
fn complaint_7_stuck_io_beside_good_checks_moves_and_demotes() {
    let mut program = device(2);
    // Below this the cap alone keeps them off: what hangs holds its slots.
    program.paths[0].in_flight = 64;
    let mut s = Script::up(&program);
    let hangs = |sent: &Sent| sent.path == 0 && sent.command == Write;
    let mut tags = Vec::new();
    for n in 0..30 {
        tags.push(s.request(Write, n * 8192, 4096));
        serve(&mut s, 300 * MILLISECOND, hangs);
    }
    serve(&mut s, 3 * SECOND, hangs);
    assert!(tags.iter().all(|&tag| s.result(tag) == Some(Ok(()))));
    assert_eq!(s.state(0), "slow", "{}", s.reason(0));
    assert!(s.reason(0).contains("it spoilt"), "{}", s.reason(0));
    let stuck = s.sent.len();
    for n in 0..10 {
        s.request(Write, (1 << 20) + n * 8192, 4096);
        serve(&mut s, 20 * MILLISECOND, hangs);
    }
    assert_eq!(s.sent.len(), stuck, "no more of them");
}

fn gated() -> Offer {
    let gate = GateOffer { volume: 7, nonce: 9, cache_generation: 1, epoch: 1, killed: false };
    Offer { gate: Some(gate), ..offer() }
}

/// W19: a peer that holds a request while it answers canaries is well, however old the request is; a gate is one, and any
/// Holdfast. Of others it is held against the path.
#[test]
fn a_held_request_is_not_held_against_a_proxy() {
    let node = Offer { node: true, ..offer() };
    for (peer, access) in [
        (gated(), AccessPolicy::ActivePassive),
        (gated(), AccessPolicy::ActiveActive),
        (node, AccessPolicy::ActivePassive),
        (node, AccessPolicy::ActiveActive),
    ] {
        let mut s = Script::new(&DeviceProgram { access, ..device(1) });
        s.open_all(&peer);
        let held = s.request(Write, 0, 4096);
        let first = s.sent[0];
        serve(&mut s, 120 * SECOND, |sent| *sent == first);
        assert_eq!((s.state(0), s.result(held)), ("up", None), "{}", s.reason(0));
        s.answer(first, Ok(()));
        assert_eq!(s.result(held), Some(Ok(())));
    }
    let states = |peer: &Offer| {
        let mut s = Script::new(&DeviceProgram { access: AccessPolicy::ActivePassive, ..device(2) });
        s.open_all(peer);
        s.request(Read, 0, 4096);
        let first = s.sent[0];
        serve(&mut s, 60 * SECOND, |sent| *sent == first);
        (s.state(0), s.state(1))
    };
    assert_eq!(states(&gated()), ("up", "standby"), "no switch either");
    assert_eq!(states(&node), ("up", "standby"), "no switch either");
    assert_ne!(states(&offer()), ("up", "standby"), "a plain server's request is late");
}

/// W16: a window that is closed twice is a server that does not read: its reads move before any
/// deadline; one sample alone is load. A write waits for its age, and the last path for its patience.
#[test]
fn a_closed_window_seen_twice_steers_away() {
    let closed =
        TcpSample { notsent_bytes: 9_000, outq_bytes: 9_000, rto_us: 204_000, ..TcpSample::default() };
    let mut s = Script::up(&device(2));
    let read = s.request(Read, 0, 4096);
    let lane = s.sent[0].lane;
    let path = s.sent[0].path;
    s.wait(150 * MILLISECOND);
    s.event(Event::Tcp { lane, sample: closed });
    assert_eq!(s.state(path), "up", "one closed window is load");
    s.wait(50 * MILLISECOND);
    s.event(Event::Tcp { lane, sample: closed });
    assert_eq!(s.state(path), "down");
    assert!(s.reason(path).contains("does not read"), "{}", s.reason(path));
    let moved = s.sent.iter().copied().find(|sent| sent.path != path && sent.offset == 0 && sent.len == 4096);
    s.answer(moved.expect("W2: reads move at any suspicion"), Ok(()));
    assert_eq!(s.result(read), Some(Ok(())));

    let mut s = Script::up(&device(1));
    s.request(Read, 0, 4096);
    let lane = s.sent[0].lane;
    for _ in 0..4 {
        s.wait(150 * MILLISECOND);
        s.event(Event::Tcp { lane, sample: closed });
    }
    assert_eq!(s.state(0), "up", "there is nowhere to go");
}

/// W16: a window that is closed in two samples, and has taken bytes between them, is a slow reader's: no suspicion.
#[test]
fn a_window_that_opens_between_two_samples_is_no_fault() {
    let mut s = Script::up(&device(2));
    s.request(Write, 0, 64 << 10);
    let Sent { lane, path, .. } = s.take();
    let sample = |s: &mut Script, left| {
        let sample =
            TcpSample { notsent_bytes: left, outq_bytes: left, rto_us: 204_000, ..TcpSample::default() };
        s.wait(50 * MILLISECOND);
        s.event(Event::Tcp { lane, sample });
    };
    s.wait(100 * MILLISECOND);
    for left in [60_000, 50_000, 40_000, 30_000] {
        sample(&mut s, left);
        assert_eq!(s.state(path), "up", "{}", s.reason(path));
    }
    sample(&mut s, 30_000);
    assert_eq!(s.state(path), "down", "it takes nothing any more");
}

/// Packets dropped by a firewall: within 0.2 to 1 s, whatever the requests' deadlines are.
#[test]
fn complaint_4_a_silent_link_moves_reads_within_half_a_second() {
    let mut s = Script::up(&device(2));
    let read = s.request(Read, 0, 4096);
    let stuck = s.sent[0];
    s.wait(450 * MILLISECOND);
    let silent = TcpSample { unacked: 1, last_ack_ms: 450, rto_us: 204_000, ..TcpSample::default() };
    s.event(Event::Tcp { lane: stuck.lane, sample: silent });
    let moved = s.sent.iter().copied().find(|sent| sent.path != stuck.path && sent.data == SendData::Land);
    s.answer(moved.expect("moved at once"), Ok(()));
    assert_eq!(s.result(read), Some(Ok(())));
}

/// W17: the time an engine is told leaves our own pauses out, so a process that was stopped for an hour
/// finds no request late and no path silent: what it reaps first is what it missed.
#[test]
fn a_pause_of_our_own_fails_no_path() {
    let mut s = Script::up(&device(2));
    let tags: Vec<u64> = (0..8).map(|n| s.request(Write, n * 8192, 4096)).collect();
    s.wait(40 * MILLISECOND);
    // Here the driver was stopped for an hour; its clock (`dataplane::clock`) goes on from where it was, at most
    // 50 ms later, and it reaps before the timer.
    s.now += 50 * MILLISECOND;
    for sent in std::mem::take(&mut s.sent) {
        s.answer(sent, Ok(()));
    }
    s.event(Event::Timer);
    assert!(tags.iter().all(|&tag| s.result(tag) == Some(Ok(()))));
    assert_eq!((s.state(0), s.state(1), s.engine.status(s.now).resent), ("up", "up", 0));
}

/// W15: a write that hangs on the last path while its canaries are answered says nothing of the path, and
/// there is nowhere else to send it.
#[test]
fn a_stuck_write_on_the_last_path_makes_no_flapping() {
    let mut s = Script::up(&device(1));
    s.request(Write, 0, 4096);
    let stuck = s.sent[0];
    s.changes.clear();
    serve(&mut s, 60 * SECOND, |sent| sent.cookie == stuck.cookie);
    assert!(s.changes.is_empty(), "{:?}", s.changes);
    s.answer(stuck, Ok(()));
}

/// W15: the last path has four times the patience: what makes one of two suspect leaves it as it is, and it is
/// shown when even that is over.
#[test]
fn the_last_path_is_given_four_times_as_long() {
    for (paths, patience) in [(2, SECOND), (1, 4 * SECOND)] {
        let mut s = Script::up(&device(paths));
        s.request(Read, 0, 4096);
        let stuck = s.take();
        // Nothing of it is answered, canaries neither.
        s.wait_alive(patience - 10 * MILLISECOND, |sent| sent.path != stuck.path);
        assert_eq!(s.state(stuck.path), "up", "{paths} paths: {}", s.reason(stuck.path));
        s.wait_alive(patience / 2, |sent| sent.path != stuck.path);
        assert!(s.reason(stuck.path).contains("unanswered"), "{paths} paths: {}", s.reason(stuck.path));
    }
}

/// W15: a write that came back to the last path, where its first copy is on a connection that is being drained, waits
/// for that copy; the other connection gets it when the first has ended.
#[test]
fn the_last_path_gets_no_second_copy_while_the_first_is_drained() {
    let mut program = device(2);
    program.paths[0].lanes = 2;
    let mut s = Script::up(&program);
    let write = s.request(Write, 1 << 20, 4096);
    let first = s.take();
    assert_eq!(first.path, 0);
    let read = loop {
        s.request(Read, s.requested() as u64 * 4096, 4096);
        let sent = s.take();
        if sent.lane == first.lane {
            break sent;
        }
    };
    // Both connections of path 0 are silent, so the write goes to path 1, which is lost.
    let came = |s: &Script| s.sent.iter().any(|sent| sent.command == Write && sent.path == 1);
    while !came(&s) {
        s.wait_alive(100 * MILLISECOND, |sent| sent.path == 1);
        assert!(s.now < 60 * SECOND, "it is late");
    }
    s.reset(1);
    let sent = |s: &Script| s.sent.iter().copied().find(|sent| sent.command == Write);
    assert_eq!(sent(&s), None, "it is on path 0 already");
    s.answer(read, Err(Errno::Shutdown));
    s.wait(10 * MILLISECOND);
    assert_eq!(sent(&s), None, "and may be answered there");
    s.down(first.lane, LaneFault::Closed);
    let again = sent(&s).expect("nothing is left to wait for");
    assert!(again.path == 0 && again.lane != first.lane && again.data == first.data);
    s.answer(again, Ok(()));
    assert_eq!(s.result(write), Some(Ok(())));
}

/// W16: each link is known to be silent at its limit, also when another one's comes sooner.
#[test]
fn two_silent_links_are_known_exactly_at_their_limits() {
    let mut s = Script::up(&device(3));
    // The engine ticks from here on, in step with neither limit.
    s.request(Flush, 0, 0);
    s.take();
    let mut stuck = Vec::new();
    for sent_ms in [7, 20] {
        s.wait(sent_ms * MILLISECOND - s.now % SECOND);
        s.request(Write, s.requested() as u64 * 8192, 4096);
        stuck.push((s.take(), sent_ms));
    }
    let mut silent_ms = Vec::new();
    for now_ms in 21..300 {
        s.wait_alive(MILLISECOND, |sent| stuck.iter().all(|(stuck, _)| stuck.path != sent.path));
        for lane in std::mem::take(&mut s.sampled) {
            let Some((_, sent_ms)) = stuck.iter().find(|(sent, _)| sent.lane == lane) else { continue };
            let last_ack_ms = (now_ms - sent_ms) as u32;
            let sample = TcpSample { unacked: 1, last_ack_ms, rto_us: 5_000, ..TcpSample::default() };
            s.event(Event::Tcp { lane, sample });
        }
        let down = stuck.iter().filter(|(sent, _)| s.state(sent.path) == "down").count();
        silent_ms.extend((silent_ms.len()..down).map(|_| now_ms));
    }
    assert_eq!(silent_ms, [207, 220]);
}
