// SPDX-License-Identifier: MIT OR Apache-2.0
//! One test per rule the engine carries out; the numbers are those of the rules.
#![allow(missing_docs)]

mod behind;
mod caches;
mod costs;
mod explained;
mod fencing;
mod hedging;
mod liveness;
mod partial;
mod portals;
mod recording;
mod retention;
mod rig;
mod script;
mod simulated;
mod stalls;
mod steering;
mod unanswered;

use engine::{Action, Close, Event, HostRequest, Offer, RequestTag, SendData, SessionId};
use nbd::Command::{Flush, Read, Trim, Write, WriteZeroes};
use nbd::{CommandFlags, Errno, TransmissionFlags as Flags};
use program::{AccessPolicy, DeviceProgram, MILLISECOND, NoPath, PathCommand, ReportKind, SECOND, Writers};
use script::{MIB, SIZE, Script, Sent, device, offer, without};

fn on_path(script: &Script, path: usize) -> Vec<Sent> {
    script.sent.iter().copied().filter(|sent| sent.path == path).collect()
}

/// W2, W3: what was in flight moves at once, a write with the same bytes.
#[test]
fn a_reset_moves_what_was_in_flight() {
    let mut s = Script::up(&device(2));
    let read = s.request(Read, 0, 4096);
    let write = s.request(Write, 8192, 4096);
    let (first, second) = (s.take(), s.take());
    assert_ne!(first.path, second.path, "round-robin uses both");
    s.reset(first.path);
    let moved = s.take();
    assert_eq!((moved.command, moved.offset, moved.path), (Read, 0, second.path));
    s.answer(moved, Ok(()));
    s.answer(second, Ok(()));
    assert_eq!((s.result(read), s.result(write)), (Some(Ok(())), Some(Ok(()))));

    let write = s.request(Write, 0, 4096);
    let sent = s.take();
    s.open_path(first.path, offer());
    s.reset(sent.path);
    s.wait(0);
    let again = s.take();
    assert_eq!(
        (again.data, again.offset, again.len),
        (sent.data, sent.offset, sent.len),
        "W3: the same bytes"
    );
    s.answer(again, Ok(()));
    assert_eq!(s.result(write), Some(Ok(())));
}

/// A write whose connection was lost after it had left, answered by the other path.
fn write_in_doubt(s: &mut Script) {
    let a = s.request(Write, 0, 8192);
    let sent = s.take();
    s.reset(sent.path);
    let again = s.take();
    assert_ne!(again.path, sent.path);
    s.answer(again, Ok(()));
    assert_eq!(s.result(a), Some(Ok(())), "W4: a single writer's host is answered");
}

/// W4: a later overlapping write waits for `quiesce`; others do not; the release is reported.
#[test]
fn a_write_in_doubt_quarantines_its_range() {
    let mut s = Script::up(&device(2));
    write_in_doubt(&mut s);
    assert_eq!(s.engine.status(s.now).quarantined, 1);
    let over = s.request(Write, 4096, 8192);
    assert!(s.nothing_sent(), "W4: the successor waits");
    let trim = s.request(Trim, 0, 512);
    assert!(s.nothing_sent(), "W9: a trim waits like a write");
    let beside = s.request(Write, 8192 + 4096, 4096);
    let sent = s.take();
    assert_eq!(sent.offset, 12288, "W4: others go on");
    s.answer(sent, Ok(()));
    assert_eq!(s.result(beside), Some(Ok(())));
    let read = s.request(Read, 0, 4096);
    let sent = s.take();
    s.answer(sent, Ok(()));
    assert_eq!(s.result(read), Some(Ok(())), "reads of the range are free");
    s.wait_alive(4_900 * MILLISECOND, |_| true);
    assert!(on_path(&s, 0).iter().chain(&on_path(&s, 1)).all(|sent| sent.command == Read));
    s.wait_alive(200 * MILLISECOND, |_| true);
    while s.result(over).is_none() || s.result(trim).is_none() {
        let sent = s.take();
        s.answer(sent, Ok(()));
    }
    assert!(s.events.contains(&"quarantine_unproven"), "a release without proof is reported");
}

/// 2.1: a frame that was cut never executes, one that never left is no ghost.
#[test]
fn a_frame_that_did_not_leave_whole_is_not_in_doubt() {
    for sent_bytes in [0, 28, 28 + 8191] {
        let mut s = Script::up(&device(2));
        s.request(Write, 0, 8192);
        let sent = s.take();
        s.reset_after(sent.path, sent_bytes);
        let again = s.take();
        s.answer(again, Ok(()));
        assert_eq!(s.engine.status(s.now).quarantined, 0, "{sent_bytes} bytes had left");
    }
}

/// W15: storage that is slow over all paths is waited for; the answer comes where it was asked first.
#[test]
fn no_lane_is_given_up_while_nobody_answers() {
    let mut s = Script::up(&device(2));
    s.wait_alive(100 * MILLISECOND, |_| true);
    let tag = s.request(Read, 0, 4096);
    let slow = s.take();
    s.wait(5 * SECOND);
    assert_eq!(s.closing, [], "it may still answer");
    s.answer(slow, Ok(()));
    assert_eq!(s.result(tag), Some(Ok(())));
}

/// W15: an idle sibling is well, though it has answered nothing since.
#[test]
fn a_lane_is_given_up_while_the_others_are_idle() {
    let mut s = Script::up(&device(2));
    s.wait_alive(100 * MILLISECOND, |_| true);
    while s.state(0) != "down" {
        s.wait_alive(10 * MILLISECOND, |sent| sent.path != 0);
    }
    s.sent.clear();
    s.wait(1_900 * MILLISECOND);
    assert_eq!(s.closing, []);
    s.wait(200 * MILLISECOND);
    assert!(!s.closing.is_empty() && s.nothing_sent(), "given up, and the other had nothing to answer");
}

/// W1, W15: a server that only stops answering keeps its connection; its late reply ends
/// the quarantine.
#[test]
fn a_stalled_lane_becomes_a_zombie_and_its_late_reply_is_proof() {
    let mut s = Script::up(&device(2));
    let a = s.request(Write, 0, 4096);
    let stuck = s.take();
    let dead = stuck.path;
    s.wait_alive(1_900 * MILLISECOND, |sent| sent.path != dead);
    assert_eq!(s.state(dead), "down", "its canary is overdue");
    assert_eq!(s.result(a), None);
    s.wait_alive(200 * MILLISECOND, |sent| sent.path != dead);
    let moved = s.sent.iter().position(|sent| sent.command == Write).expect("W15: moved at its age");
    let moved = s.sent.remove(moved).expect("found");
    assert_ne!(moved.path, dead);
    s.answer(moved, Ok(()));
    assert_eq!(s.result(a), Some(Ok(())));
    assert!(s.closing.is_empty(), "W15: age closes nothing");
    s.wait_alive(60 * SECOND, |sent| sent.path != dead);
    assert_eq!(s.engine.status(s.now).paths[dead].zombies, 1);
    let b = s.request(Write, 0, 4096);
    assert!(!s.sent.iter().any(|sent| sent.command == Write), "W13: known alive, so no timer ends it");
    s.answer(stuck, Ok(()));
    let sent =
        s.sent.iter().copied().find(|sent| sent.command == Write).expect("proof releases the successor");
    s.answer(sent, Ok(()));
    assert_eq!(s.result(b), Some(Ok(())));
    assert!(s.closing.contains(&(stuck.lane, Close::Abort)), "nothing is left on the zombie");
    assert!(!s.events.contains(&"quarantine_unproven"));
}

/// W5: with other writers the answer itself waits.
#[test]
fn many_writers_get_no_answer_before_proof() {
    let mut s = Script::up(&DeviceProgram { writers: Writers::Many, ..device(2) });
    let a = s.request(Write, 0, 4096);
    let sent = s.take();
    s.reset(sent.path);
    let again = s.take();
    s.answer(again, Ok(()));
    assert_eq!(s.result(a), None);
    s.wait_alive(5 * SECOND, |_| true);
    assert_eq!(s.result(a), Some(Ok(())));
}

/// W6: discards are cut to 32 MiB, two in flight.
#[test]
fn a_large_trim_is_cut_and_paced() {
    let mut s = Script::up(&device(2));
    let trim = s.request(Trim, 0, 200 * MIB);
    let mut seen = 0;
    while s.result(trim).is_none() {
        assert!(s.sent.len() <= 2, "two discards in flight");
        let sent = s.take();
        assert!(sent.len <= 32 * MIB);
        seen += sent.len;
        s.answer(sent, Ok(()));
    }
    assert_eq!(seen, 200 * MIB);
}

/// W7: definite errors go to the host; EIO is tried on one other path, then believed.
#[test]
fn errors_are_told_apart() {
    for errno in [Errno::Perm, Errno::Invalid, Errno::NoSpace, Errno::Overflow, Errno::NotSupported] {
        let mut s = Script::up(&device(2));
        let tag = s.request(Write, 0, 4096);
        let sent = s.take();
        s.answer(sent, Err(errno));
        assert_eq!(s.result(tag), Some(Err(errno)));
        assert_eq!(s.engine.status(s.now).quarantined, 0, "W14: an error reply ends the request");
    }
    let mut s = Script::up(&device(2));
    let tag = s.request(Read, 0, 4096);
    let first = s.take();
    s.answer(first, Err(Errno::Io));
    let second = s.take();
    assert_ne!(second.path, first.path);
    s.answer(second, Err(Errno::Io));
    assert_eq!(s.result(tag), Some(Err(Errno::Io)), "both say so: believed");
}

/// W7, 3.3: ESHUTDOWN is a path leaving, never the host's.
#[test]
fn eshutdown_moves_the_request_and_drains_the_lane() {
    let mut s = Script::up(&device(2));
    let tag = s.request(Write, 0, 4096);
    let first = s.take();
    s.answer(first, Err(Errno::Shutdown));
    assert!(s.closing.contains(&(first.lane, Close::Disconnect)));
    let second = s.take();
    assert_ne!(second.path, first.path);
    s.answer(second, Ok(()));
    assert_eq!(s.result(tag), Some(Ok(())));
}

/// 3.5: a path whose storage errs where the other succeeds is taken out, and comes back
/// over canaries.
#[test]
fn a_path_that_answers_eio_alone_is_taken_out() {
    let mut s = Script::up(&device(2));
    while s.state(0) == "up" {
        let tag = s.request(Read, 0, 4096);
        while s.result(tag).is_none() {
            let sent = s.take();
            let result = if sent.path == 0 { Err(Errno::Io) } else { Ok(()) };
            s.answer(sent, result);
        }
        assert_eq!(s.result(tag), Some(Ok(())));
        assert!(s.replies.len() < 20, "it must be noticed");
    }
    assert_eq!(s.state(0), "down");
    s.wait_alive(20 * SECOND, |_| true);
    assert_eq!(s.state(0), "up");
}

/// F2: every domain with an uncovered write is flushed; F10: one always is.
#[test]
fn flush_goes_to_every_dirty_domain() {
    let mut s = Script::up(&device(2));
    let flush = s.request(Flush, 0, 0);
    let sent = s.take();
    assert_eq!((sent.command, s.nothing_sent()), (Flush, true), "F10: asked although nothing is dirty");
    s.answer(sent, Ok(()));
    assert_eq!(s.result(flush), Some(Ok(())));
    for n in 0..2 {
        s.request(Write, n * 4096, 4096);
        let sent = s.take();
        s.answer(sent, Ok(()));
    }
    let flush = s.request(Flush, 0, 0);
    let (a, b) = (s.take(), s.take());
    assert_eq!((a.command, b.command), (Flush, Flush));
    assert_ne!(a.path, b.path, "F1: two servers, two domains");
    s.answer(a, Ok(()));
    assert_eq!(s.result(flush), None, "F2: never on a subset");
    s.answer(b, Ok(()));
    assert_eq!(s.result(flush), Some(Ok(())));
}

/// F9: a failed FLUSH is told to every session once, and is not asked again for a better answer.
#[test]
fn a_failed_flush_is_told_to_every_session() {
    let mut s = Script::up(&device(2));
    s.event(Event::SessionOpened(SessionId(2)));
    s.request(Write, 0, 4096);
    let sent = s.take();
    let sent_data = sent.data;
    s.answer(sent, Ok(()));
    let flush = s.request(Flush, 0, 0);
    let sent = s.take();
    s.answer(sent, Err(Errno::Io));
    assert_eq!(s.result(flush), Some(Err(Errno::Io)));
    assert!(s.nothing_sent() && s.events.contains(&"flush_failed"));
    let told = s.request_of(SessionId(2), Flush, 0, 0);
    assert_eq!(s.result(told), Some(Err(Errno::Io)));
    let flush = s.request_of(SessionId(2), Flush, 0, 0);
    let again = s.take();
    assert_eq!((again.command, again.offset, again.data), (Write, 0, sent_data), "F6: written again first");
    s.answer(again, Ok(()));
    for _ in 0..2 {
        // Ours after the replay, and the host's.
        let sent = s.take();
        assert_eq!(sent.command, Flush);
        s.answer(sent, Ok(()));
    }
    assert_eq!(s.result(flush), Some(Ok(())));
}

/// F2: an operator's drain leaves nothing unflushed behind, so a later FLUSH does not wait.
#[test]
fn a_drained_path_is_flushed_before_it_is_closed() {
    let mut s = Script::up(&device(2));
    s.request(Write, 0, 4096);
    let sent = s.take();
    s.answer(sent, Ok(()));
    s.event(Event::Path { path: sent.path, command: PathCommand::Drain });
    let flush = s.take();
    assert_eq!((flush.path, flush.command), (sent.path, Flush));
    s.answer(flush, Ok(()));
    assert!(s.closing.contains(&(flush.lane, Close::Disconnect)));
    let host = s.request(Flush, 0, 0);
    let flush = s.take();
    assert_ne!(flush.path, sent.path);
    s.answer(flush, Ok(()));
    assert_eq!(s.result(host), Some(Ok(())));
}

/// W15: a FLUSH may take as long as the storage needs.
#[test]
fn a_slow_flush_fails_no_path() {
    let mut s = Script::up(&device(2));
    let flush = s.request(Flush, 0, 0);
    let sent = s.take();
    s.wait_alive(30 * SECOND, |_| true);
    assert_eq!((s.state(0), s.state(1)), ("up", "up"));
    s.answer(sent, Ok(()));
    assert_eq!(s.result(flush), Some(Ok(())));
}

/// F1: `same_cache` joins paths into one domain.
#[test]
fn paths_of_one_cache_need_one_flush() {
    let mut program = device(2);
    for path in &mut program.paths {
        path.same_cache = Some("array".into());
    }
    let mut s = Script::up(&program);
    for n in 0..2 {
        s.request(Write, n * 4096, 4096);
        let sent = s.take();
        s.answer(sent, Ok(()));
    }
    s.request(Flush, 0, 0);
    s.take();
    assert!(s.nothing_sent());
}

/// F2, F6: where nothing is retained a FLUSH whose domain is down waits for it, is sent
/// there, and says what it assumes.
#[test]
fn a_flush_waits_for_a_lost_domain() {
    let mut s = Script::up(&DeviceProgram { retention_bytes: 0, ..device(2) });
    s.request(Write, 0, 4096);
    let sent = s.take();
    s.answer(sent, Ok(()));
    s.reset(sent.path);
    let flush = s.request(Flush, 0, 0);
    assert!(s.nothing_sent(), "the other domain cannot answer for it");
    s.wait(0);
    s.open_path(sent.path, offer());
    s.wait_alive(SECOND, |_| true);
    let flushed = s.take();
    assert_eq!((flushed.command, flushed.path), (Flush, sent.path));
    s.answer(flushed, Ok(()));
    assert_eq!(s.result(flush), Some(Ok(())));
    assert!(s.events.contains(&"cache_unproven"));
}

/// 3.3: what a path lacks is emulated there.
#[test]
fn a_path_without_fua_zeroes_or_trim_serves() {
    let bare = Offer {
        flags: Flags::HAS_FLAGS.with(Flags::SEND_FLUSH).with(Flags::CAN_MULTI_CONN),
        max_payload_bytes: MIB as u32,
        ..offer()
    };
    let mut s = Script::new(&device(1));
    s.open_all(&bare);
    let tag = s.request_with(Write, CommandFlags::FUA, 0, 4096);
    let sent = s.take();
    assert!(!sent.flags.contains(CommandFlags::FUA));
    s.answer(sent, Ok(()));
    assert_eq!(s.result(tag), None, "FUA: not before the FLUSH");
    let sent = s.take();
    assert_eq!(sent.command, Flush);
    s.answer(sent, Ok(()));
    assert_eq!(s.result(tag), Some(Ok(())));

    let trim = s.request(Trim, 0, MIB);
    assert_eq!(s.result(trim), Some(Ok(())), "a hint");
    let zeroes = s.request(WriteZeroes, 0, 2 * MIB);
    while s.result(zeroes).is_none() {
        let sent = s.take();
        assert_eq!((sent.command, sent.data, sent.len), (Write, SendData::Zeroes, MIB));
        s.answer(sent, Ok(()));
    }
    let fast = s.request_with(WriteZeroes, CommandFlags::FAST_ZERO, 0, MIB);
    assert_eq!(s.result(fast), Some(Err(Errno::NotSupported)), "not promised, so not slow either");
}

/// 3.3: requests above a path's limit are cut, and a read's parts come back in order.
#[test]
fn large_requests_are_cut_to_the_paths_limit() {
    let mut s = Script::new(&device(1));
    s.open_all(&Offer { max_payload_bytes: 64 << 10, ..offer() });
    let tag = s.request(Read, 0, 256 << 10);
    let parts: Vec<Sent> = s.sent.drain(..).collect();
    assert_eq!(parts.iter().map(|part| part.offset).collect::<Vec<_>>(), [0, 65536, 131_072, 196_608]);
    for part in parts.iter().rev() {
        s.answer(*part, Ok(()));
    }
    assert_eq!(s.result(tag), Some(Ok(())));
    // Answered last to first: buffers 4, 3, 2, 1 belong to parts 1 to 4.
    assert_eq!(
        s.released.iter().map(|buffer| buffer.0).collect::<Vec<_>>(),
        [4, 3, 2, 1],
        "in order of offset"
    );
}

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

/// 3.8: other data is refused and gets no host request.
#[test]
fn a_path_to_other_data_is_refused() {
    let mut s = Script::new(&DeviceProgram { identity: None, ..device(2) });
    s.open_path(0, offer());
    s.open_path(1, offer());
    while let Some(read) = s.sent.pop_front() {
        assert_eq!(read.data, SendData::Digest);
        s.answer_digest(read, u128::from(read.offset) + u128::from(read.path as u64), false);
    }
    assert_eq!((s.state(0), s.state(1)), ("up", "refused"));
    assert!(s.reason(1).contains("other data"), "{}", s.reason(1));
    for n in 0..10 {
        s.request(Read, n * 4096, 4096);
    }
    assert!(s.sent.iter().all(|sent| sent.path == 0));
}

/// 3.8: a blank volume proves nothing until a written block reads back equal.
#[test]
fn a_blank_path_waits_for_a_written_block() {
    let mut s = Script::new(&DeviceProgram { identity: None, ..device(2) });
    s.open_path(0, offer());
    s.open_path(1, offer());
    while let Some(read) = s.sent.pop_front() {
        s.answer_digest(read, 0, true);
    }
    assert_eq!(s.state(1), "unproven");
    s.wait_alive(100 * MILLISECOND, |_| true);
    let write = s.request(Write, 40960, 4096);
    let sent = s.take();
    assert_eq!(sent.path, 0, "no host I/O on an unproven path");
    s.answer(sent, Ok(()));
    assert_eq!(s.result(write), Some(Ok(())));
    s.wait(50 * MILLISECOND);
    let mut compared = false;
    while let Some(read) = s.sent.pop_front() {
        compared |= read.offset == 40960 && read.path == 1;
        s.answer_digest(read, u128::from(read.offset == 40960), read.offset != 40960);
    }
    assert!(compared, "the written block was compared");
    assert_eq!(s.state(1), "up");
}

/// 3.8: a check that the accepted path holds up is not the returning path's fault: it is not
/// closed and backed off for it, and takes over what hangs on the other.
#[test]
fn a_hung_reference_is_not_held_against_a_returning_path() {
    let mut s = Script::new(&DeviceProgram { identity: None, ..device(2) });
    let content = |sent: &Sent| u128::from(sent.offset) + 1;
    s.open_path(0, offer());
    s.open_path(1, offer());
    while let Some(read) = s.sent.pop_front() {
        s.answer_digest(read, content(&read), false);
    }
    assert_eq!((s.state(0), s.state(1)), ("up", "up"));
    s.reset(1);
    // On a sampled place: the check waits for its range, too.
    let write = s.request(Write, 0, 4096);
    assert_eq!(s.take().path, 0, "from here on path 0 answers nothing");
    s.open_path(1, offer());
    let returning = s.lanes.iter().find(|(_, path, _)| *path == 1).expect("just opened").0;
    for _ in 0..80 {
        s.wait(100 * MILLISECOND);
        for sent in std::mem::take(&mut s.sent) {
            match (sent.path, sent.data) {
                (1, SendData::Digest) => s.answer_digest(sent, content(&sent), false),
                (1, _) => s.answer(sent, Ok(())),
                _ => s.sent.push_back(sent),
            }
        }
    }
    assert!(s.closing.iter().all(|(lane, _)| *lane != returning), "the returning path was blamed");
    assert_eq!(s.result(write), Some(Ok(())), "path 1: {} {}", s.state(1), s.reason(1));
}

/// 3.8: a path whose disk fails is no reference while another one is well: the others come back beside it.
#[test]
fn a_path_that_answers_eio_keeps_no_other_one_out() {
    let mut s = Script::new(&DeviceProgram { identity: None, ..device(3) });
    let content = |sent: &Sent| u128::from(sent.offset) + 1;
    for path in 0..3 {
        s.open_path(path, offer());
    }
    let answer = |s: &mut Script, failing: Option<usize>| {
        for sent in std::mem::take(&mut s.sent) {
            match sent.data {
                _ if failing == Some(sent.path) => s.answer(sent, Err(Errno::Io)),
                SendData::Digest => s.answer_digest(sent, content(&sent), false),
                _ => s.answer(sent, Ok(())),
            }
        }
    };
    while !s.nothing_sent() {
        answer(&mut s, None);
    }
    assert_eq!([s.state(0), s.state(1), s.state(2)], ["up"; 3]);
    for block in 0..30 {
        s.request(Read, block * 4096, 4096);
        while !s.nothing_sent() {
            answer(&mut s, Some(0));
        }
    }
    assert_eq!(s.state(0), "down", "W7: {}", s.reason(0));
    s.reset(2);
    s.wait(10 * MILLISECOND);
    s.open_path(2, offer());
    for _ in 0..20 {
        answer(&mut s, Some(0));
        s.wait(10 * MILLISECOND);
    }
    assert_ne!(s.state(2), "unproven", "{}", s.reason(2));
}

/// 3.8: where it is the only other path, what is known of the content decides: a path that was proven
/// before comes back, one that leads to other data does not.
#[test]
fn a_reference_that_cannot_be_read_is_none() {
    let geometry = Script::up(&device(1)).engine.geometry().expect("known once a path is up");
    let recorded = Some(program::Recorded { geometry, samples: vec![(0, 1)] });
    for (shift, states) in [(0, ["up", "probation"]), (7, ["refused", "refused"])] {
        let mut s = Script::new(&DeviceProgram { identity: None, recorded: recorded.clone(), ..device(2) });
        let mut failing = false;
        let answer = |s: &mut Script, failing: bool, shift: u128| {
            for sent in std::mem::take(&mut s.sent) {
                match sent.data {
                    _ if failing && sent.path == 0 => s.answer(sent, Err(Errno::Io)),
                    SendData::Digest => s.answer_digest(sent, u128::from(sent.offset) + 1 + shift, false),
                    _ => s.answer(sent, Ok(())),
                }
            }
        };
        for path in 0..2 {
            s.open_path(path, offer());
            while !s.nothing_sent() {
                answer(&mut s, failing, 0);
            }
        }
        assert_eq!([s.state(0), s.state(1)], ["up"; 2]);
        failing = true;
        s.reset(1);
        s.wait(10 * MILLISECOND);
        s.open_path(1, offer());
        for _ in 0..20 {
            answer(&mut s, failing, shift);
            s.wait(10 * MILLISECOND);
        }
        assert!(states.contains(&s.state(1)), "{}: {}", s.state(1), s.reason(1));
    }
}

/// 3.8: without a live path the recorded samples decide.
#[test]
fn the_first_path_up_is_checked_against_the_record() {
    let geometry = {
        let s = Script::up(&device(1));
        s.engine.geometry().expect("known once a path is up")
    };
    let recorded = Some(program::Recorded { geometry, samples: vec![(0, 77)] });
    for (digest, state) in [(77, "up"), (78, "refused")] {
        let mut s = Script::new(&DeviceProgram { identity: None, recorded: recorded.clone(), ..device(2) });
        s.open_path(1, offer());
        let read = s.take();
        assert_eq!((read.offset, read.data), (0, SendData::Digest));
        s.answer_digest(read, digest, false);
        assert_eq!(s.state(1), state);
    }
}

/// 3.8: a block that is about to be written is out of the record before the write is sent, or a crash of ours between
/// the two would leave a record that turns the storage away.
#[test]
fn a_block_leaves_the_record_before_it_is_written() {
    let mut s = Script::new(&DeviceProgram { identity: None, ..device(1) });
    s.open_path(0, offer());
    s.wait(SECOND);
    let sample = s.take();
    assert_eq!(sample.data, SendData::Digest);
    s.answer_digest(sample, 77, false);
    let (tag, payload) = (RequestTag(1), Some(s.buffer()));
    let (session, flags) = (SessionId(1), CommandFlags::empty());
    let write =
        HostRequest { tag, session, command: Write, flags, offset: sample.offset + 512, len: 512, payload };
    s.engine.handle(s.now, Event::Request(write));
    let actions: Vec<Action> = std::iter::from_fn(|| s.engine.next_action()).collect();
    let told = actions.iter().position(|action| match action {
        Action::Report(ReportKind::Samples(known)) => known.iter().all(|(at, _)| *at != sample.offset),
        _ => false,
    });
    let sent = actions.iter().position(|action| matches!(action, Action::Send { command: Write, .. }));
    assert!(told.is_some() && sent.is_some() && told < sent, "{actions:?}");
}

/// 3.3, F11: what cannot stand behind the device is refused, with the reason.
#[test]
fn paths_that_do_not_fit_are_refused() {
    let smaller = Offer { size_bytes: SIZE - 4096, ..offer() };
    let coarser = Offer { min_block_bytes: 4096, ..offer() };
    let cases = [
        (smaller, "hosts were told the larger size"),
        (coarser, "blocks of at least"),
        (without(Flags::SEND_FLUSH), "no FLUSH"),
    ];
    for (bad, reason) in cases {
        let mut s = Script::new(&device(2));
        s.open_path(0, offer());
        s.open_path(1, bad);
        assert_eq!(s.state(1), "refused");
        assert!(s.reason(1).contains(reason), "{}", s.reason(1));
    }
    let mut s = Script::new(&device(2));
    s.open_path(0, offer());
    s.open_path(1, Offer { size_bytes: SIZE * 2, ..offer() });
    assert_eq!(s.state(1), "up", "a larger path is accepted at the exported size");
    assert!(s.events.contains(&"path_larger"));
}

/// W18: a server without multi-conn narrows the device to one path with FUA.
#[test]
fn without_multi_conn_one_path_with_fua() {
    let mut s = Script::new(&device(2));
    s.open_path(0, without(Flags::CAN_MULTI_CONN));
    s.open_path(1, offer());
    for n in 0..4 {
        s.request(Write, n * 4096, 4096);
    }
    assert!(s.sent.iter().all(|sent| sent.path == s.sent[0].path && sent.flags.contains(CommandFlags::FUA)));
    assert_eq!(s.engine.status(s.now).access, AccessPolicy::ActivePassive);
}

/// W20: a planned switch starts on the new path when the old one has answered.
#[test]
fn a_planned_switch_never_has_both_paths_busy() {
    let mut s = Script::up(&DeviceProgram { access: AccessPolicy::ActivePassive, ..device(2) });
    for n in 0..4 {
        s.request(Write, n * 4096, 4096);
    }
    let busy: Vec<Sent> = s.sent.drain(..).collect();
    assert!(busy.iter().all(|sent| sent.path == 0));
    for command in [PathCommand::Drain, PathCommand::Reinstate] {
        s.event(Event::Path { path: 0, command });
    }
    s.event(Event::Path { path: 0, command: PathCommand::Drain });
    let next = s.request(Write, 40960, 4096);
    for (n, sent) in busy.iter().enumerate() {
        assert!(s.nothing_sent(), "{n} of 4 answered, the new path must wait");
        s.answer(*sent, Ok(()));
    }
    let flush = s.take();
    assert_eq!((flush.path, flush.command), (0, Flush), "W18: a planned switch ends with a FLUSH");
    assert!(s.nothing_sent(), "and the new path waits for it");
    s.answer(flush, Ok(()));
    let sent = s.take();
    assert_eq!(sent.path, 1);
    s.answer(sent, Ok(()));
    assert_eq!(s.result(next), Some(Ok(())));
}

/// W20: with `proven` a stopped server's reads are waited for as its writes are: it may still
/// work on them while the other path is used.
#[test]
fn proven_exclusion_waits_for_reads_too() {
    let (access, exclusive) = (AccessPolicy::ActivePassive, program::Exclusive::Proven);
    let mut s = Script::up(&DeviceProgram { access, exclusive, ..device(2) });
    let read = s.request(Read, 0, 4096);
    let stuck = s.take();
    assert_eq!(stuck.path, 0);
    let host_requests = |s: &Script| s.sent.iter().filter(|sent| sent.data != SendData::Digest).count();
    s.wait_alive(20 * SECOND, |sent| sent.path == 1);
    assert_eq!(s.state(0), "down");
    assert!(s.closing.is_empty(), "the reply on the old connection is the only proof");
    assert_eq!((host_requests(&s), s.result(read)), (0, None), "W20: no time is a proof");
    s.answer(stuck, Ok(()));
    assert_eq!(s.result(read), Some(Ok(())));
    let write = s.request(Write, 0, 4096);
    let at = s.sent.iter().position(|sent| sent.command == Write).expect("the new path is free to start");
    let sent = s.sent.remove(at).expect("just found");
    assert_eq!(sent.path, 1);
    s.answer(sent, Ok(()));
    assert_eq!(s.result(write), Some(Ok(())));
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
    assert!(s.engine.is_idle());
    let flush = s.take();
    assert_eq!(flush.command, Flush, "nothing acknowledged stays behind in a cache");
    s.answer(flush, Ok(()));
    assert!(s.closing.iter().any(|(_, how)| *how == Close::Disconnect));
}

/// Per-path cap: a hung path cannot hold every slot, and the rest waits in order.
#[test]
fn the_in_flight_cap_queues_in_order() {
    let mut s = Script::up(&device(1));
    let tags: Vec<u64> = (0..20).map(|n| s.request(Read, n * 4096, 4096)).collect();
    assert_eq!(s.sent.len(), 8);
    let mut offsets = Vec::new();
    while let Some(sent) = s.sent.pop_front() {
        offsets.push(sent.offset / 4096);
        s.answer(sent, Ok(()));
    }
    assert_eq!(offsets, (0..20).collect::<Vec<_>>());
    assert!(tags.iter().all(|&tag| s.result(tag) == Some(Ok(()))));
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
