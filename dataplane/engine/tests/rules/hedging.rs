// SPDX-License-Identifier: MIT OR Apache-2.0
//! Late reads are sent to a second path (W2, design 3.5): when, when not, and what becomes of
//! both copies.

use engine::{Close, Event, LaneFault, SendData, SessionId};
use nbd::Command::{Read, Write};
use nbd::{Errno, TransmissionFlags as Flags};
use policies::limits::HEDGE_SUSPECT_AFTER;
use program::{AccessPolicy, DeviceProgram, HedgeStatus, MILLISECOND, Nanos, PathCommand, SECOND};

use crate::script::{MIB, Script, Sent, device, offer, without};

/// Age that hedges a read of a size that was never measured.
const COLD: Nanos = 10 * MILLISECOND;
/// No read is hedged younger.
const FLOOR: Nanos = MILLISECOND;
const MICROSECOND: Nanos = 1_000;

/// Reads are hedged.
fn hedging(paths: usize) -> DeviceProgram {
    DeviceProgram { hedge_budget_ppm: 30_000, ..device(paths) }
}

fn counts(s: &Script) -> HedgeStatus {
    s.engine.status(s.now).hedges
}

/// The next read of a host; a canary that is due meanwhile is answered.
fn take_read(s: &mut Script) -> Sent {
    loop {
        let sent = s.take();
        if sent.data != SendData::Digest {
            return sent;
        }
        s.answer(sent, Ok(()));
    }
}

/// No host request was sent; a canary that is due meanwhile is answered.
fn no_copy_sent(s: &mut Script) -> bool {
    while let Some(at) = s.sent.iter().position(|sent| sent.data == SendData::Digest) {
        let canary = s.sent.remove(at);
        s.answer(canary.expect("it was found"), Ok(()));
    }
    s.nothing_sent()
}

/// A read that was sent twice: its tag, the first copy and the second.
fn two_copies(s: &mut Script) -> (u64, Sent, Sent) {
    let read = s.request(Read, 0, 4096);
    let first = s.take();
    s.wait(COLD);
    let second = take_read(s);
    assert_eq!((second.command, second.offset, second.len, second.flags), (Read, 0, 4096, first.flags));
    assert_ne!(second.path, first.path, "a second copy goes elsewhere");
    (read, first, second)
}

/// Nothing of the read is left: no memory, no request.
fn nothing_left(s: &Script) {
    assert_eq!((s.engine.hedged_bytes(), s.engine.status(s.now).in_flight), (0, 0));
}

/// Reads that are answered at once on whatever path.
fn fast_reads(s: &mut Script, count: u32) {
    for _ in 0..count {
        s.request(Read, 0, 4096);
        let sent = s.take();
        s.now += 100 * MICROSECOND;
        s.answer(sent, Ok(()));
    }
}

#[test]
fn a_read_that_was_never_measured_is_hedged_at_ten_milliseconds() {
    let mut s = Script::up(&hedging(2));
    s.request(Read, 0, 4096);
    let first = s.take();
    s.wait(COLD - 1);
    assert!(s.nothing_sent(), "not before");
    s.wait(1);
    let second = s.take();
    assert_ne!(second.path, first.path);
    s.wait(45 * MILLISECOND);
    assert!(s.nothing_sent(), "there is no third copy");
}

#[test]
fn a_measured_read_is_hedged_at_the_floor_if_its_like_are_faster() {
    let mut s = Script::up(&hedging(2));
    fast_reads(&mut s, 100);
    s.request(Read, 0, 4096);
    let first = s.take();
    s.wait(FLOOR - 1);
    assert!(s.nothing_sent());
    s.wait(1);
    assert_ne!(s.take().path, first.path);
    s.request(Read, 0, MIB);
    s.take();
    s.wait(COLD - 1);
    assert!(no_copy_sent(&mut s), "another size is not measured by that");
    s.wait(1);
    assert_eq!(take_read(&mut s).len, MIB);
}

/// An age that has fallen since the timer was last set counts at once.
#[test]
fn what_was_measured_a_moment_ago_counts() {
    let mut s = Script::up(&hedging(2));
    for _ in 0..100 {
        s.request(Read, 0, 4096);
        let sent = s.take();
        s.now += MICROSECOND;
        s.answer(sent, Ok(()));
    }
    s.request(Read, 0, 4096);
    let first = s.take();
    s.wait(FLOOR);
    assert_ne!(s.take().path, first.path);
}

/// 3.2: the late copy lands in a buffer of its own and is thrown away.
#[test]
fn the_first_good_answer_wins_and_the_late_one_is_thrown_away() {
    for second_wins in [true, false] {
        let mut s = Script::up(&hedging(2));
        let (read, first, second) = two_copies(&mut s);
        assert_eq!(s.engine.hedged_bytes(), 4096, "a second copy has a buffer of its own");
        let (winner, loser) = if second_wins { (second, first) } else { (first, second) };
        s.answer(winner, Ok(()));
        assert_eq!(s.result(read), Some(Ok(())));
        assert_eq!(s.given.len(), 1);
        assert_eq!(s.engine.hedged_bytes(), 4096, "the late one still has to land");
        s.answer(loser, Ok(()));
        assert_eq!((s.given.len(), s.released.len()), (1, 2), "its data goes to nobody");
        assert_eq!(s.replies.len(), 1, "a host is answered once");
        nothing_left(&s);
        let (won, lost) = if second_wins { (1, 0) } else { (0, 1) };
        assert_eq!(counts(&s), HedgeStatus { sent: 1, won, lost, refused: 0 });
    }
}

/// A late copy that comes back with an error changes nothing.
#[test]
fn the_late_copy_may_fail() {
    let mut s = Script::up(&hedging(2));
    let (read, first, second) = two_copies(&mut s);
    s.answer(second, Ok(()));
    s.answer(first, Err(Errno::Io));
    assert_eq!((s.result(read), s.replies.len()), (Some(Ok(())), 1));
    nothing_left(&s);
}

/// An answer with an error waits for the copy that is open, whatever the error.
#[test]
fn an_error_on_one_copy_waits_for_the_other() {
    for errno in [Errno::Io, Errno::Invalid, Errno::NoSpace, Errno::Shutdown] {
        for second_fails in [true, false] {
            let mut s = Script::up(&hedging(2));
            let (read, first, second) = two_copies(&mut s);
            let (bad, good) = if second_fails { (second, first) } else { (first, second) };
            s.answer(bad, Err(errno));
            assert_eq!(s.result(read), None, "{errno:?}: the other copy may still answer");
            assert!(s.nothing_sent(), "{errno:?}: and no third one is sent");
            s.answer(good, Ok(()));
            assert_eq!(s.result(read), Some(Ok(())), "{errno:?}");
            nothing_left(&s);
            assert_eq!(counts(&s).won, u64::from(!second_fails));
            assert_eq!(counts(&s).lost, u64::from(second_fails));
        }
    }
}

/// W7, W14: an EIO of both is believed; a definite error of both goes to the host.
#[test]
fn errors_on_both_copies_are_believed() {
    for errno in [Errno::Io, Errno::Invalid] {
        let mut s = Script::up(&hedging(2));
        let (read, first, second) = two_copies(&mut s);
        s.answer(first, Err(errno));
        s.answer(second, Err(errno));
        assert_eq!(s.result(read), Some(Err(errno)));
        assert!(s.nothing_sent());
        nothing_left(&s);
        assert_eq!(counts(&s), HedgeStatus { sent: 1, won: 0, lost: 1, refused: 0 });
    }
}

#[test]
fn a_lost_lane_leaves_the_other_copy() {
    for second_lost in [true, false] {
        let mut s = Script::up(&hedging(3));
        let (read, first, second) = two_copies(&mut s);
        let (gone, left) = if second_lost { (second, first) } else { (first, second) };
        s.reset(gone.path);
        assert!(s.nothing_sent(), "the read waits for the copy that is left");
        s.answer(left, Ok(()));
        assert_eq!(s.result(read), Some(Ok(())));
        nothing_left(&s);
        assert_eq!((counts(&s).won, counts(&s).lost), (u64::from(!second_lost), u64::from(second_lost)));
    }
}

/// W2: with both copies gone the read is sent anew, and may be hedged again.
#[test]
fn with_both_lanes_lost_the_read_is_sent_anew() {
    let mut s = Script::up(&hedging(4));
    let (read, first, second) = two_copies(&mut s);
    s.reset(first.path);
    s.reset(second.path);
    let third = s.take();
    assert!(third.path != first.path && third.path != second.path);
    s.wait(COLD);
    let fourth =
        s.sent.iter().copied().find(|sent| sent.command == Read && sent.offset == 0 && sent.len == 4096);
    let fourth = fourth.expect("hedged again");
    s.answer(fourth, Ok(()));
    s.answer(third, Ok(()));
    assert_eq!((s.result(read), s.replies.len()), (Some(Ok(())), 1));
    nothing_left(&s);
    assert_eq!(counts(&s), HedgeStatus { sent: 2, won: 1, lost: 1, refused: 0 });
}

/// A path that silently holds reads is suspect as soon as three of them in a row were answered
/// elsewhere, and what waits behind them moves at once.
#[test]
fn three_hedges_in_a_row_won_against_silence_make_a_path_suspect() {
    let mut s = Script::up(&hedging(2));
    let mut stuck = Vec::new();
    for n in 0..8 {
        s.request(Read, n * 4096, 4096);
        let sent = s.take();
        if sent.path == 0 {
            stuck.push(sent);
        } else {
            s.answer(sent, Ok(()));
        }
        // Each is due a little later than the one before.
        s.wait(MILLISECOND);
    }
    assert_eq!(stuck.len(), 4);
    s.wait(COLD - 8 * MILLISECOND);
    for won in 1..=2 {
        let second = s.take();
        assert_eq!(second.path, 1);
        s.answer(second, Ok(()));
        assert_eq!((s.state(0), counts(&s).won), ("up", won));
        s.wait(2 * MILLISECOND);
    }
    // A server that was not scheduled for a moment looks the same.
    s.wait(HEDGE_SUSPECT_AFTER - 10 * MILLISECOND);
    // The canary is not answered either.
    s.sent.retain(|sent| sent.data != SendData::Digest);
    let (third, fourth) = (s.take(), s.take());
    let mut offset = 8 * 4096;
    let fresh = loop {
        s.request(Read, offset, 4096);
        let sent = s.take();
        if sent.path == 0 {
            break sent;
        }
        s.answer(sent, Ok(()));
        offset += 4096;
    };
    assert_eq!(s.state(0), "up");
    s.answer(third, Ok(()));
    assert_eq!(s.state(0), "down", "suspect at once");
    assert!(s.reason(0).contains("answered sooner by a second copy"), "{}", s.reason(0));
    let behind = s.take();
    assert_eq!((behind.path, behind.offset), (1, fresh.offset), "need not wait for its age");
    s.answer(behind, Ok(()));
    s.answer(fourth, Ok(()));
    stuck.push(fresh);
    let answered = s.replies.len();
    assert_eq!(answered as u64, fresh.offset / 4096 + 1);
    assert_eq!(s.engine.status(s.now).quarantined, 0);
    for late in stuck {
        s.answer(late, Ok(()));
    }
    assert_eq!(s.state(0), "up", "an answer ends the suspicion");
    assert_eq!(s.given.len(), answered);
    nothing_left(&s);
}

/// A path that sends something is slower than its sibling, not silent.
#[test]
fn a_byte_in_between_is_no_silence() {
    let mut s = Script::up(&hedging(2));
    for n in 0..12 {
        s.request(Read, n * 4096, 4096);
        let sent = s.take();
        if sent.path == 1 {
            s.answer(sent, Ok(()));
            continue;
        }
        s.wait(COLD);
        let second = s.take();
        if n % 4 == 0 {
            // A part of the reply came.
            s.event(Event::LaneActive(sent.lane));
        }
        s.answer(second, Ok(()));
        assert_eq!(s.state(0), "up");
    }
    assert_eq!(counts(&s).won, 6);
}

/// W15: the age of the first copy goes on making its lane suspect.
#[test]
fn a_hedged_read_still_ages() {
    let mut s = Script::up(&hedging(2));
    let (read, first, second) = two_copies(&mut s);
    s.answer(second, Ok(()));
    assert_eq!(s.result(read), Some(Ok(())));
    let (slow, other) = (first.path, second.path);
    s.wait_alive(1_100 * MILLISECOND, |sent| sent.path == other);
    assert_eq!(s.state(slow), "down");
    s.answer(first, Ok(()));
    assert_eq!(s.state(slow), "up");
    nothing_left(&s);
}

fn is_never_hedged(s: &mut Script) {
    let before = counts(s).sent;
    s.request(Read, 0, 4096);
    s.take();
    s.wait(50 * MILLISECOND);
    assert!(!s.sent.iter().any(|sent| sent.data == SendData::Land), "sent twice");
    assert_eq!(counts(s).sent, before);
}

/// The exclusions of the policy, as the engine feeds it.
#[test]
fn when_a_read_is_not_hedged() {
    is_never_hedged(&mut Script::up(&device(2)));
    is_never_hedged(&mut Script::up(&hedging(1)));
    let passive = DeviceProgram { access: AccessPolicy::ActivePassive, ..hedging(2) };
    is_never_hedged(&mut Script::up(&passive));
    // W18: incoherent paths are used one at a time.
    let mut s = Script::new(&hedging(2));
    s.open_all(&without(Flags::CAN_MULTI_CONN));
    is_never_hedged(&mut s);
    // A group is used only when no better one is there.
    let mut ranked = hedging(2);
    ranked.paths[0].priority = 60;
    is_never_hedged(&mut Script::up(&ranked));
    // Nowhere to send it in one piece.
    let mut s = Script::new(&hedging(2));
    s.open_path(0, offer());
    s.open_path(1, engine::Offer { max_payload_bytes: 2048, ..offer() });
    s.request(Read, 0, 4096);
    let sent = s.take();
    if sent.path == 0 {
        s.wait(50 * MILLISECOND);
        assert_eq!(counts(&s).sent, 0);
    }
}

/// While a path earns its share back, nothing is hedged; then it is again.
#[test]
fn not_while_a_path_recovers() {
    let mut s = Script::up(&hedging(3));
    s.reset(2);
    s.wait(0);
    s.open_path(2, offer());
    is_never_hedged(&mut s);
    assert_eq!(s.state(2), "probation");
    s.wait_alive(15 * SECOND, |_| true);
    assert_eq!(s.state(2), "up");
    while !s.nothing_sent() {
        let sent = s.take();
        s.answer(sent, Ok(()));
    }
    let (_, _, second) = two_copies(&mut s);
    s.answer(second, Ok(()));
    assert_eq!(counts(&s).won, 1);
    // Both are told, once each.
    let told: Vec<_> =
        s.engine.explain(s.now).decisions.into_iter().filter(|it| it.rule == "hedge").collect();
    let whats: Vec<_> = told.iter().map(|it| (it.what, it.times)).collect();
    assert_eq!(
        whats,
        [("send no late read to a second path", 1), ("send late reads to a second path again", 1)]
    );
    assert!(told[0].refused[0].because.contains("on probation"), "{told:#?}");
}

/// The budget starts as full as one path's in-flight cap, and 3 % of the reads fill it.
#[test]
fn the_budget_bounds_second_copies() {
    let mut s = Script::up(&hedging(2));
    // Eight saved up; eight in flight on each path, and the second copies need room.
    for round in 0..10 {
        s.request(Read, 0, 4096);
        let first = s.take();
        s.wait(COLD);
        if round == 8 {
            assert!(no_copy_sent(&mut s), "the ninth is refused");
            assert_eq!(counts(&s), HedgeStatus { sent: 8, won: 8, lost: 0, refused: 1 });
        } else if round < 8 {
            let second = take_read(&mut s);
            s.answer(second, Ok(()));
        }
        s.answer(first, Ok(()));
    }
    fast_reads(&mut s, 40);
    two_copies_of_measured(&mut s);
}

/// As many as were seen since have earned one more.
fn two_copies_of_measured(s: &mut Script) {
    s.request(Read, 0, 4096);
    let first = s.take();
    s.wait(COLD);
    let second = take_read(s);
    assert_ne!(second.path, first.path);
}

/// A second copy needs memory; a driver that has none grants none.
#[test]
fn without_memory_there_is_no_second_copy() {
    let mut s = Script::up(&hedging(2));
    s.engine.set_hedge_room(8191);
    let (_, first, second) = two_copies(&mut s);
    s.request(Read, MIB, 4096);
    s.take();
    s.wait(COLD);
    assert!(s.nothing_sent(), "one fits, two do not");
    assert_eq!(counts(&s).refused, 1);
    s.answer(second, Ok(()));
    s.answer(first, Ok(()));
    assert_eq!(s.engine.hedged_bytes(), 0);
    s.engine.set_hedge_room(4096);
    s.request(Read, 0, 4096);
    s.take();
    s.wait(COLD);
    assert_eq!(s.take().len, 4096);
}

/// A path without room now may have room in a moment.
#[test]
fn a_second_copy_waits_for_room() {
    let mut program = hedging(2);
    for path in &mut program.paths {
        path.in_flight = 2;
    }
    let mut s = Script::up(&program);
    for n in 0..4 {
        s.request(Read, n * 4096, 4096);
    }
    let all: Vec<Sent> = (0..4).map(|_| s.take()).collect();
    s.wait(COLD + 2 * MILLISECOND);
    assert!(s.nothing_sent(), "both paths are full");
    let free = *all.iter().find(|sent| sent.path == 1).expect("round-robin uses both");
    s.answer(free, Ok(()));
    s.wait(MILLISECOND);
    let second = s.take();
    assert_eq!(second.path, 1);
}

/// A host that left is answered into the void, once, and both copies are forgotten.
#[test]
fn a_host_that_leaves_with_two_copies_open() {
    for clean in [true, false] {
        let mut s = Script::up(&hedging(2));
        let (read, first, second) = two_copies(&mut s);
        s.event(Event::SessionClosed { session: SessionId(1), clean });
        s.answer(second, Ok(()));
        assert_eq!(s.result(read), Some(Ok(())));
        s.answer(first, Ok(()));
        assert_eq!((s.replies.len(), s.given.len(), s.released.len()), (1, 1, 2));
        nothing_left(&s);
    }
}

/// A path that leaves the configuration, or is drained, or fails, finishes its copy or loses it.
#[test]
fn a_path_goes_with_two_copies_open() {
    for how in 0..3 {
        for second_goes in [true, false] {
            let program = hedging(2);
            let mut s = Script::up(&program);
            let (read, first, second) = two_copies(&mut s);
            let (goes, stays) = if second_goes { (second, first) } else { (first, second) };
            match how {
                0 => s.event(Event::Path { path: goes.path, command: PathCommand::Drain }),
                1 => s.event(Event::Path { path: goes.path, command: PathCommand::Fail }),
                _ => {
                    let mut fewer = program.clone();
                    fewer.paths.remove(goes.path);
                    s.event(Event::Program(Box::new(fewer)));
                }
            }
            assert!(s.nothing_sent() && s.result(read).is_none());
            if how == 1 {
                s.wait(600 * MILLISECOND);
                assert!(s.closing.contains(&(goes.lane, Close::Abort)), "a failed path has half a second");
                s.sent.clear();
                s.down(goes.lane, LaneFault::ByUs);
                assert!(!s.sent.iter().any(|sent| sent.offset == 0 && sent.len == 4096));
                s.answer(stays, Ok(()));
            } else {
                s.answer(stays, Ok(()));
                s.answer(goes, Ok(()));
            }
            assert_eq!((s.result(read), s.given.len()), (Some(Ok(())), 1));
            nothing_left(&s);
        }
    }
}

/// A changed budget counts at once; what is open stays open.
#[test]
fn the_budget_can_be_changed() {
    let program = hedging(2);
    let mut s = Script::up(&program);
    let (read, first, second) = two_copies(&mut s);
    s.event(Event::Program(Box::new(DeviceProgram { hedge_budget_ppm: 0, ..program.clone() })));
    s.answer(second, Ok(()));
    s.answer(first, Ok(()));
    assert_eq!(s.result(read), Some(Ok(())));
    s.request(Read, 0, 4096);
    let alone = s.take();
    s.wait(5 * COLD);
    assert!(no_copy_sent(&mut s));
    s.answer(alone, Ok(()));
    s.event(Event::Program(Box::new(program)));
    let (_, _, second) = two_copies(&mut s);
    s.answer(second, Ok(()));
    assert_eq!(counts(&s).won, 2);
}

/// A device that becomes active-passive (W18) while two copies are open waits for neither in vain.
#[test]
fn the_device_becomes_active_passive_with_two_copies_open() {
    let program = hedging(2);
    let mut s = Script::up(&program);
    let (read, first, second) = two_copies(&mut s);
    s.event(Event::Program(Box::new(DeviceProgram { access: AccessPolicy::ActivePassive, ..program })));
    s.answer(second, Ok(()));
    s.answer(first, Ok(()));
    assert_eq!(s.result(read), Some(Ok(())));
    nothing_left(&s);
    is_never_hedged(&mut s);
}

/// Our own stop lets both copies finish, and sends no new ones.
#[test]
fn we_stop_with_two_copies_open() {
    let mut s = Script::up(&hedging(2));
    let (read, first, second) = two_copies(&mut s);
    s.request(Read, MIB, 4096);
    let single = s.take();
    s.event(Event::Shutdown);
    s.wait(2 * COLD);
    assert!(s.nothing_sent(), "no second copy once we stop");
    s.answer(second, Ok(()));
    s.answer(first, Ok(()));
    s.answer(single, Ok(()));
    assert_eq!(s.result(read), Some(Ok(())));
    assert_eq!(s.replies.len(), 2);
    nothing_left(&s);
}

/// Writes are never hedged (W2).
#[test]
fn writes_are_never_hedged() {
    let mut s = Script::up(&hedging(2));
    s.request(Write, 0, 4096);
    s.take();
    s.wait(55 * MILLISECOND);
    assert!(s.nothing_sent());
    assert_eq!(counts(&s).sent, 0);
}

/// Second copies are no re-sends.
#[test]
fn a_hedge_is_not_counted_as_sent_again() {
    let mut s = Script::up(&hedging(2));
    let (_, first, second) = two_copies(&mut s);
    s.answer(second, Ok(()));
    s.answer(first, Ok(()));
    let status = s.engine.status(s.now);
    assert_eq!((status.resent, status.reads), (0, 1));
    assert_eq!(status.paths.iter().map(|path| path.reads).sum::<u64>(), 2, "each path did its own");
}
