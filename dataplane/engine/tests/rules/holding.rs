// SPDX-License-Identifier: MIT OR Apache-2.0
//! No path: what is held, for how long, and what ends it (design 3.7, 3.5, 2.5).

use engine::{Close, Event, SendData, SessionId};
use nbd::Command::{Flush, Read, Trim, Write, WriteZeroes};
use nbd::{CommandFlags, Errno, TransmissionFlags as Flags};
use program::{AccessPolicy, Coherence, DeviceCommand, DeviceProgram, MILLISECOND, NoPath, SECOND};

use crate::fencing::write_sent;
use crate::script::{Script, device, offer, without};

/// 3.7: requests are held, then fail, and new ones fail at once until a path is back.
#[test]
fn requests_are_held_while_no_path_is_there() {
    let mut s = Script::up(&DeviceProgram { no_path: NoPath::Hold(20 * SECOND), ..device(1) });
    let read = s.request(Read, 0, 4096);
    s.take();
    s.reset(0);
    assert_eq!(s.engine.status(s.now).state.as_str(), "held");
    s.wait(19 * SECOND);
    assert_eq!(s.result(read), None);
    s.wait(SECOND);
    assert_eq!(s.result(read), Some(Err(Errno::Io)));
    let late = s.request(Read, 0, 4096);
    assert_eq!(s.result(late), Some(Err(Errno::Io)), "fails at once");
    s.open_all(&offer());
    let after = s.request(Read, 0, 4096);
    let sent = s.take();
    s.answer(sent, Ok(()));
    assert_eq!(s.result(after), Some(Ok(())));
}

/// Two paths, the second for reads alone; the first is lost, or its server hangs with a write.
fn unwritable(hangs: bool) -> (Script, u64) {
    let mut program = DeviceProgram { no_path: NoPath::Hold(20 * SECOND), ..device(2) };
    program.paths[1].read_only = true;
    // In a lesser group, too: reads go there all the same when the better one does not answer.
    program.paths[1].priority = 40;
    let mut s = Script::up(&program);
    let write = s.request(Write, 0, 4096);
    assert_eq!(s.take().path, 0);
    if !hangs {
        s.reset(0);
    }
    while s.state(0) == "up" {
        assert!(s.now < 10 * SECOND, "it is suspected");
        s.wait_alive(SECOND / 100, |sent| sent.path != 0);
    }
    (s, write)
}

/// 3.7: with a path for reads alone left, reads go on; what changes the storage waits for a path as if there were none.
#[test]
fn writes_are_held_while_no_path_may_be_written() {
    for hangs in [false, true] {
        let (mut s, write) = unwritable(hangs);
        let held = [Write, Trim, WriteZeroes].map(|command| s.request(command, 1 << 20, 4096));
        s.wait_alive(19 * SECOND, |sent| sent.path != 0);
        let read = s.request(Read, 0, 4096);
        let at = s.sent.iter().position(|sent| sent.data == SendData::Land).expect("reads go on");
        let sent = s.sent.remove(at).expect("just found");
        assert_eq!(sent.path, 1);
        s.answer(sent, Ok(()));
        assert_eq!(s.result(read), Some(Ok(())), "hangs: {hangs}");
        assert_eq!((s.result(write), held.map(|tag| s.result(tag))), (None, [None; 3]), "hangs: {hangs}");
        s.wait_alive(2 * SECOND, |sent| sent.path != 0);
        let failed = Some(Err(Errno::Io));
        assert_eq!((s.result(write), held.map(|tag| s.result(tag))), (failed, [failed; 3]), "hangs: {hangs}");
        assert_eq!(s.events.iter().filter(|name| **name == "hold_over").count(), 1);
        let late = s.request(Write, 1 << 20, 4096);
        s.wait_alive(SECOND / 10, |sent| sent.path != 0);
        assert_eq!(s.result(late), failed, "at once");
    }
}

/// The same ended by the operator.
#[test]
fn an_operator_ends_the_hold_of_writes() {
    let (mut s, write) = unwritable(true);
    s.event(Event::Device(DeviceCommand::FailNow));
    s.wait_alive(SECOND / 10, |sent| sent.path != 0);
    assert_eq!(s.result(write), Some(Err(Errno::Io)));
    assert!(s.events.contains(&"hold_ended"), "{:?}", s.events);
}

/// Two paths, the second for reads alone.
fn one_writable(no_path: NoPath) -> DeviceProgram {
    let mut program = DeviceProgram { no_path, ..device(2) };
    program.paths[1].read_only = true;
    program
}

/// 3.7: that a path for reads alone comes and goes is nothing to a write.
#[test]
fn a_path_for_reads_alone_that_flaps_does_not_prolong_the_hold() {
    let mut s = Script::up(&one_writable(NoPath::Hold(20 * SECOND)));
    s.reset(0);
    let write = s.request(Write, 0, 4096);
    for _ in 0..20 {
        s.wait_alive(10 * SECOND, |_| true);
        s.reset(1);
        s.wait(SECOND);
        for _ in 0..100 {
            if s.opening.iter().any(|(_, of)| *of == 1) {
                break;
            }
            s.wait(SECOND);
        }
        s.open_path(1, offer());
    }
    assert_eq!(s.result(write), Some(Err(Errno::Io)), "{} s with a hold of 20 s", s.now / SECOND - 1);
}

/// Nor does it take back what an operator has ended.
#[test]
fn fail_now_holds_until_a_writable_path_is_back() {
    let mut s = Script::up(&one_writable(NoPath::Hold(600 * SECOND)));
    s.reset(0);
    s.event(Event::Device(DeviceCommand::FailNow));
    let write = s.request(Write, 0, 4096);
    s.wait_alive(SECOND / 10, |_| true);
    assert_eq!(s.result(write), Some(Err(Errno::Io)));
    s.reset(1);
    s.wait(SECOND);
    s.open_path(1, offer());
    let write = s.request(Write, 0, 4096);
    s.wait_alive(60 * SECOND, |_| true);
    assert_eq!(s.result(write), Some(Err(Errno::Io)));
}

/// The same with one path at a time: a path that hangs is not preferred for being writable.
#[test]
fn one_path_at_a_time_reads_go_on_without_a_writable_path() {
    for hold in [2 * SECOND, 20 * SECOND] {
        let program = one_writable(NoPath::Hold(hold));
        let mut s = Script::up(&DeviceProgram { access: AccessPolicy::ActivePassive, ..program });
        s.request(Write, 0, 4096);
        assert_eq!(s.take().path, 0);
        let read = s.request(Read, 1 << 20, 4096);
        for _ in 0..3000 {
            s.wait_alive(SECOND / 100, |sent| sent.path != 0);
            s.serve(|sent| sent.path == 1);
        }
        assert_eq!((s.state(1), s.result(read)), ("up", Some(Ok(()))), "hold: {} s", hold / SECOND);
    }
}

/// And where requests without a path fail at once.
#[test]
fn with_no_path_fail_reads_go_on_without_a_writable_path() {
    let mut s =
        Script::up(&DeviceProgram { access: AccessPolicy::ActivePassive, ..one_writable(NoPath::Fail) });
    s.request(Write, 0, 4096);
    assert_eq!(s.take().path, 0);
    for _ in 0..400 {
        s.wait_alive(SECOND / 100, |sent| sent.path != 0);
        // Not at once: while anything comes the one that may be written is used.
        if s.state(1) == "up" {
            break;
        }
    }
    let read = s.request(Read, 1 << 20, 4096);
    s.wait_alive(SECOND / 10, |sent| sent.path != 0);
    s.serve(|sent| sent.path == 1);
    assert_eq!((s.state(0), s.state(1), s.result(read)), ("down", "up", Some(Ok(()))));
}

/// W20: the writable path is back: it is used again at once, when what is on the other is answered.
#[test]
fn one_path_at_a_time_goes_back_to_the_writable_one() {
    let mut s = Script::up(&DeviceProgram {
        access: AccessPolicy::ActivePassive,
        ..one_writable(NoPath::Hold(20 * SECOND))
    });
    s.reset(0);
    s.wait(SECOND);
    let read = s.request(Read, 0, 4096);
    let on_1 = s.take();
    assert_eq!((on_1.path, on_1.data), (1, SendData::Land));
    let write = s.request(Write, 0, 4096);
    s.open_path(0, offer());
    assert!(s.result(write).is_none() && write_sent(&s).is_none(), "W20");
    s.answer(on_1, Ok(()));
    assert_eq!(s.result(read), Some(Ok(())));
    s.serve(|sent| sent.path == 0);
    assert_eq!(s.result(write), Some(Ok(())));
    s.request(Read, 0, 4096);
    assert_eq!(s.sent.iter().find(|sent| sent.data == SendData::Land).expect("a read").path, 0);
}

/// What waits to be written again heads the queue of writes, and is not failed with them: nothing piles up behind it.
#[test]
fn failed_writes_leave_nothing_behind() {
    let mut program = DeviceProgram { no_path: NoPath::Hold(20 * SECOND), ..device(3) };
    program.paths[2].read_only = true;
    let mut s = Script::up(&program);
    let acked = loop {
        s.request(Write, 0, 4096);
        let sent = s.take();
        s.answer(sent, Ok(()));
        if sent.path == 0 {
            break sent;
        }
    };
    s.reset(acked.path);
    assert!(write_sent(&s).is_some(), "written again on path 1");
    s.reset(1);
    s.wait_alive(21 * SECOND, |_| true);
    s.sent.clear();
    for _ in 0..200 {
        let tags: Vec<u64> = (0..10).map(|n| s.request(Write, (1 + n) << 20, 4096)).collect();
        s.wait_alive(50 * MILLISECOND, |_| true);
        assert!(tags.iter().all(|&tag| s.result(tag) == Some(Err(Errno::Io))));
    }
    let waiting = s.engine.status(s.now).held;
    assert!(waiting < 100, "nothing of a host is unanswered, {waiting} pieces are queued");
}

/// A device that hosts know to be read-only.
#[test]
fn a_device_for_reads_alone_misses_no_writable_path() {
    let mut program = DeviceProgram { no_path: NoPath::Hold(20 * SECOND), ..device(2) };
    for path in &mut program.paths {
        path.read_only = true;
    }
    let mut s = Script::up(&program);
    for _ in 0..60 {
        let read = s.request(Read, 0, 4096);
        s.wait_alive(SECOND, |_| true);
        s.serve(|sent| sent.path == 0);
        s.serve(|sent| sent.path == 1);
        assert_eq!(s.result(read), Some(Ok(())));
    }
    assert!(!s.events.contains(&"hold_over"), "hosts saw no EIO: {:?}", s.events);
}

/// W15: for a write a path for reads alone is no other path to go to.
#[test]
fn a_slow_write_is_not_moved_to_where_nothing_may_be_written() {
    for beside in [false, true] {
        let mut program = one_writable(NoPath::Fail);
        if !beside {
            program.paths.truncate(1);
        }
        let mut s = Script::up(&program);
        let write = s.request(Write, 0, 4096);
        let sent = s.take();
        assert_eq!(sent.path, 0);
        for _ in 0..50 {
            s.wait_alive(100 * MILLISECOND, |sent| sent.path != 0);
        }
        if s.result(write).is_none() {
            s.answer(sent, Ok(()));
        }
        assert_eq!(s.result(write), Some(Ok(())), "beside: {beside}");
    }
}

/// W15: with one path at a time a block that hangs, and the canaries that read it, take no write to other blocks away: the
/// only path that may be written is used as long as anything comes over it.
#[test]
fn a_block_that_hangs_stops_no_other_writes() {
    for access in [AccessPolicy::ActivePassive, AccessPolicy::ActiveActive] {
        let mut s = Script::up(&DeviceProgram { access, ..one_writable(NoPath::Hold(600 * SECOND)) });
        s.request(Write, 0, 4096);
        assert_eq!(s.take().path, 0);
        for n in 1..200 {
            let write = s.request(Write, n << 12, 4096);
            for _ in 0..10 {
                while let Some(sent) = s.sent.pop_front() {
                    if sent.offset != 0 || sent.path != 0 {
                        s.answer(sent, Ok(()));
                    }
                }
                s.wait(10 * MILLISECOND);
            }
            assert_eq!(s.result(write), Some(Ok(())), "{access:?}, at {} ms", s.now / MILLISECOND);
        }
    }
}

/// W7: nor does a block that cannot be read: its path takes writes all the same.
#[test]
fn a_block_that_cannot_be_read_stops_no_writes() {
    for no_path in [NoPath::Fail, NoPath::Hold(600 * SECOND)] {
        let mut s =
            Script::up(&DeviceProgram { access: AccessPolicy::ActivePassive, ..one_writable(no_path) });
        s.request(Read, 0, 4096);
        let sent = s.take();
        assert_eq!(sent.path, 0);
        s.answer(sent, Err(Errno::Io));
        let write = s.request(Write, 2 << 20, 4096);
        for _ in 0..5 {
            while let Some(sent) = s.sent.pop_front() {
                let bad = sent.path == 0 && sent.data == SendData::Land;
                s.answer(sent, if bad { Err(Errno::Io) } else { Ok(()) });
            }
            s.wait(10 * MILLISECOND);
        }
        assert_eq!(s.result(write), Some(Ok(())), "{no_path:?}");
    }
}

/// W18: a read that waits for a write which hangs, where requests without a path fail at once, is answered.
#[test]
fn a_read_behind_a_write_that_hangs_is_answered() {
    let program = DeviceProgram { coherent: Coherence::Incoherent, ..one_writable(NoPath::Fail) };
    let mut s = Script::up(&program);
    s.request(Write, 0, 4096);
    assert_eq!(s.take().path, 0);
    s.wait_alive(30 * SECOND, |sent| sent.path != 0);
    let read = s.request(Read, 0, 4096);
    for _ in 0..10 {
        s.wait_alive(SECOND, |sent| sent.path != 0);
        s.serve(|sent| sent.path == 1);
    }
    assert_eq!(s.result(read), Some(Err(Errno::Io)));
}

/// F3, W15: the FLUSH of an emulated FUA has nowhere else to go either.
#[test]
fn the_flush_of_a_slow_write_is_not_moved_there_either() {
    for access in [AccessPolicy::ActivePassive, AccessPolicy::ActiveActive] {
        let mut s = Script::new(&DeviceProgram { access, ..one_writable(NoPath::Fail) });
        s.open_all(&without(Flags::SEND_FUA));
        let write = s.request_with(Write, CommandFlags::FUA, 0, 4096);
        let sent = s.take();
        s.answer(sent, Ok(()));
        let flush = s.take();
        assert_eq!((flush.command, flush.path), (Flush, 0));
        s.wait_alive(5 * SECOND, |sent| sent.path != 0);
        assert_eq!(s.result(write), None, "{access:?}");
        s.answer(flush, Ok(()));
        assert_eq!(s.result(write), Some(Ok(())));
    }
}

/// W15: a server that leaves finishes a write that no other path takes.
#[test]
fn a_slow_write_of_a_server_that_leaves_is_waited_for() {
    let mut s = Script::up(&one_writable(NoPath::Fail));
    s.request(Write, 1 << 20, 4096);
    let other = s.take();
    let write = s.request(Write, 0, 4096);
    let sent = s.take();
    s.answer(other, Err(Errno::Shutdown));
    s.wait_alive(12 * SECOND, |sent| sent.path != 0);
    s.answer(sent, Ok(()));
    assert_eq!(s.result(write), Some(Ok(())));
}

/// 3.5: nor is it one while the only writable path is held out.
#[test]
fn a_held_out_path_is_tried_while_writes_wait_for_it() {
    for beside in [false, true] {
        let mut program = one_writable(NoPath::Hold(20 * SECOND));
        if !beside {
            program.paths.truncate(1);
        }
        let mut s = Script::up(&program);
        let write = s.request(Write, 0, 4096);
        let mut most = 0;
        for _ in 0..14 {
            s.reset(0);
            let from = s.now;
            while !s.opening.iter().any(|(_, of)| *of == 0) {
                assert!(
                    s.result(write).is_none(),
                    "beside {beside}: EIO, {} s without an attempt",
                    (s.now - from) / SECOND
                );
                s.wait_alive(SECOND / 10, |_| true);
            }
            most = most.max((s.now - from) / MILLISECOND);
            s.open_path(0, offer());
        }
        assert!(most < 1000, "beside {beside}: {most} ms without an attempt");
    }
}

/// 3.5: a path that cannot be opened is told of once, not at every attempt, and again after
/// it was open.
#[test]
fn an_unreachable_path_is_told_of_once() {
    let told = |s: &Script| s.events.iter().filter(|name| **name == "path_unreachable").count();
    let mut s = Script::new(&device(1));
    for _ in 0..5 {
        s.refuse_connect(0);
        s.wait(30 * SECOND);
    }
    assert_eq!(told(&s), 1);
    assert!(s.reason(0).contains("nothing listens there"), "{}", s.reason(0));
    s.open_path(0, offer());
    s.reset(0);
    assert_eq!(told(&s), 1, "a change of state tells of this");
    s.refuse_connect(0);
    assert_eq!(told(&s), 2);
}

/// 3.7, W15: a last path that only stopped answering is shown, used all the same, and the
/// hold ends for what is on it too; its write stays in doubt.
#[test]
fn a_stalled_last_path_is_held() {
    let mut s = Script::up(&DeviceProgram { no_path: NoPath::Hold(20 * SECOND), ..device(1) });
    let write = s.request(Write, 0, 4096);
    let stuck = s.take();
    s.wait(10 * SECOND);
    assert_eq!((s.state(0), s.engine.status(s.now).state.as_str()), ("down", "held"));
    assert!(s.closing.is_empty() && s.result(write).is_none(), "nowhere to go, so nothing is given up");
    s.wait(20 * SECOND);
    assert_eq!(s.result(write), Some(Err(Errno::Io)));
    assert_eq!(s.engine.status(s.now).quarantined, 1, "W14: answered with an error, still in doubt");
    s.answer(stuck, Ok(()));
    assert_eq!(s.engine.status(s.now).quarantined, 0);
    assert_eq!(s.state(0), "up");
}

/// 2.5: a host that left without DISC: what was not started is dropped.
#[test]
fn what_a_lost_host_had_not_started_is_dropped() {
    let mut s = Script::up(&device(1));
    let a = s.request(Write, 0, 4096);
    let b = s.request(Write, 0, 4096);
    let sent = s.take();
    s.event(Event::SessionClosed { session: SessionId(1), clean: false });
    assert_eq!(s.result(b), Some(Err(Errno::Io)), "accounted for; the driver has nobody to tell");
    assert_eq!(s.result(a), None);
    s.answer(sent, Ok(()));
    assert_eq!(s.result(a), Some(Ok(())));
    assert!(s.nothing_sent());
}

/// 3.7: shutdown ends the hold; the host is not told an error, it re-sends elsewhere.
#[test]
fn shutdown_finishes_what_is_in_flight_only() {
    let mut s = Script::up(&device(1));
    let a = s.request(Write, 0, 4096);
    let b = s.request(Write, 0, 4096);
    let sent = s.take();
    s.event(Event::Shutdown);
    assert_eq!(s.result(b), Some(Err(Errno::Shutdown)));
    s.answer(sent, Ok(()));
    assert_eq!(s.result(a), Some(Ok(())));
    let flush = s.take();
    assert_eq!(flush.command, Flush, "nothing acknowledged stays behind in a cache");
    s.answer(flush, Ok(()));
    assert!(s.engine.is_idle() && s.engine.is_clean());
    assert!(s.closing.iter().any(|(_, how)| *how == Close::Disconnect));
}

/// Reconnects back off, are capped, and never give up (3.5).
#[test]
fn reconnects_never_give_up() {
    let mut s = Script::new(&device(1));
    let mut attempts = Vec::new();
    for _ in 0..20 {
        let (lane, _) = s.opening.pop().expect("another attempt");
        attempts.push(s.now);
        s.event(Event::LaneDown { lane, fault: engine::LaneFault::Refused("test".into()), sent_bytes: 0 });
        s.wait(60 * SECOND);
        assert!(s.opening.len() == 1, "within a minute");
    }
    assert!(s.reason(0).contains("nothing listens there"), "{}", s.reason(0));
}
