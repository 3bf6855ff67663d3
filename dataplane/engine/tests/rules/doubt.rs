// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a lost or stalled connection leaves in doubt, and what it does not (rules W1 to W6, W15).

use engine::{Close, Event, Offer, SendData};
use nbd::Command::{Flush, Read, Trim, Write};
use nbd::{CommandFlags, Errno, TransmissionFlags as Flags};
use program::{
    AccessPolicy, Coherence, DeviceProgram, Exclusive, MILLISECOND, NoPath, SECOND, Unproven, Writers,
};

use crate::on_path;
use crate::script::{Script, Sent, device, offer, without};

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
fn complaint_1_a_write_in_doubt_quarantines_its_range() {
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
    assert!(s.events.contains(&"quarantine_unproven"), "the host waited for it, and nothing proved it");
}

/// W4: what a timer ends without anybody waiting is told as well, as a number: something newer may be written over it
/// a moment later.
#[test]
fn a_doubt_that_nobody_waited_for_is_told() {
    let mut s = Script::up(&device(2));
    write_in_doubt(&mut s);
    s.wait_alive(5_100 * MILLISECOND, |_| true);
    let told = |name| s.events.iter().filter(|event| **event == name).count();
    assert_eq!((told("doubt_unproven"), told("quarantine_unproven")), (1, 0));
    assert_eq!(s.engine.status(s.now).quarantined, 0);
}

/// W13: a change of `unproven` is in force for what is in doubt already.
#[test]
fn a_changed_setting_is_in_force_for_what_is_in_doubt() {
    let mut s = Script::up(&device(2));
    write_in_doubt(&mut s);
    let hold = DeviceProgram { unproven: Unproven::Hold, ..device(2) };
    s.event(Event::Program(Box::new(hold)));
    s.wait_alive(60 * SECOND, |_| true);
    assert_eq!(s.engine.status(s.now).quarantined, 1, "no timer ends it any more");
    s.event(Event::Program(Box::new(device(2))));
    s.wait_alive(SECOND, |_| true);
    assert_eq!(s.engine.status(s.now).quarantined, 0, "`quiesce` has passed since it was lost");
}

/// W13: under `hold` a last path that flickers leaves as many doubts as there are writes, not one more each time.
#[test]
fn doubts_of_one_write_do_not_add_up() {
    let mut s = Script::up(&DeviceProgram { unproven: Unproven::Hold, ..device(1) });
    let write = s.request(Write, 0, 4096);
    for _ in 0..50 {
        s.reset(0);
        s.wait_alive(40 * SECOND, |_| true);
        if !s.opening.is_empty() {
            s.open_path(0, offer());
        }
        let all = s.engine.explain(s.now).paths[0].decisions.clone();
        let doubt = all.iter().rfind(|it| it.what == "write in doubt").expect("its frame had left");
        assert_eq!(doubt.figures[0].value, 1, "{doubt:#?}");
    }
    let at = s.sent.iter().position(|sent| sent.command == Write).expect("it is sent again each time");
    let sent = s.sent.remove(at).expect("just found");
    s.answer(sent, Ok(()));
    assert_eq!(s.result(write), Some(Ok(())));
    assert_eq!(s.engine.status(s.now).quarantined, 1, "the old copy is as open as before");
}

/// W13: every connection of a path that stopped is kept for its late replies, however many it has.
#[test]
fn every_connection_of_a_stopped_server_is_kept() {
    let mut program = device(2);
    program.paths[0].lanes = 6;
    let mut s = Script::up(&program);
    while !s.opening.is_empty() {
        s.open_all(&offer());
    }
    let mut stuck = Vec::new();
    for n in 0..24 {
        s.request(Write, n * 8192, 4096);
        let sent = s.take();
        if sent.path == 0 {
            stuck.push(sent);
        } else {
            s.answer(sent, Ok(()));
        }
    }
    let lanes: std::collections::BTreeSet<_> = stuck.iter().map(|sent| sent.lane.slot).collect();
    assert!(lanes.len() >= 4, "{lanes:?}");
    for _ in 0..60 {
        s.wait_alive(SECOND, |sent| sent.path != 0);
        s.serve(|sent| sent.path == 1);
    }
    assert_eq!(s.engine.status(s.now).paths[0].zombies as usize, lanes.len());
    assert!(!s.closing.iter().any(|(lane, _)| lanes.contains(&lane.slot)), "{:?}", s.closing);
    let over = s.request(Write, 0, 4096);
    let over_sent =
        |s: &Script| s.sent.iter().any(|sent| sent.command == Write && sent.offset == 0 && sent.path == 1);
    let first = stuck.iter().copied().find(|sent| sent.offset == 0);
    if let Some(first) = first {
        assert!(!over_sent(&s), "the old copy is known alive");
        s.answer(first, Ok(()));
    }
    assert!(over_sent(&s));
    assert_eq!(s.result(over), None);
}

/// W18: on paths whose caches are not shared a write that was answered and whose FLUSH was not may come out of its
/// cache later: it is in doubt like one that was not answered.
#[test]
fn a_write_that_an_unshared_cache_holds_is_in_doubt() {
    let program = DeviceProgram { coherent: Coherence::Incoherent, ..device(2) };
    for coherent in [true, false] {
        let mut s = Script::new(&DeviceProgram {
            coherent: if coherent { Coherence::Assumed } else { Coherence::Incoherent },
            ..program.clone()
        });
        s.open_all(&without(Flags::SEND_FUA));
        s.request_with(Write, if coherent { CommandFlags::FUA } else { CommandFlags::empty() }, 0, 4096);
        let write = s.take();
        s.answer(write, Ok(()));
        let flush = s.take();
        assert_eq!(flush.command, Flush, "3.3: FUA is emulated");
        s.reset(flush.path);
        while let Some(sent) = s.sent.pop_front() {
            s.answer(sent, Ok(()));
        }
        assert_eq!(s.engine.status(s.now).quarantined, usize::from(!coherent) as u64);
    }
}

/// The same if the server answers the FLUSH with an error, and if it is through with the write and closes: it is in that
/// cache all the same.
#[test]
fn what_no_flush_has_brought_out_of_an_unshared_cache_is_in_doubt() {
    for drained in [false, true] {
        let mut s = Script::new(&DeviceProgram { coherent: Coherence::Incoherent, ..device(2) });
        s.open_all(&without(Flags::SEND_FUA));
        let a = s.request(Write, 0, 4096);
        let write = s.take();
        if drained {
            s.event(Event::LaneSent { lane: write.lane, sent_bytes: 28 + 4096 });
            s.down(write.lane, engine::LaneFault::Drained);
        } else {
            s.answer(write, Ok(()));
            let flush = s.take();
            assert_eq!(flush.command, Flush, "3.3: FUA is emulated");
            s.answer(flush, Err(Errno::Io));
        }
        while let Some(sent) = s.sent.pop_front() {
            s.answer(sent, Ok(()));
        }
        assert_eq!(
            (s.result(a), s.engine.status(s.now).quarantined),
            (Some(Ok(())), 1),
            "drained: {drained}"
        );
    }
}

/// W18: a later FLUSH that is answered well on the same connection ends that doubt.
#[test]
fn a_later_flush_brings_it_out_of_an_unshared_cache() {
    let mut s = Script::new(&DeviceProgram { coherent: Coherence::Incoherent, ..device(2) });
    s.open_all(&without(Flags::SEND_FUA));
    s.request(Write, 0, 4096);
    let write = s.take();
    s.answer(write, Ok(()));
    let flush = s.take();
    s.answer(flush, Err(Errno::Io));
    let again = s.take();
    s.answer(again, Ok(()));
    let brings = s.take();
    s.answer(brings, Ok(()));
    assert_eq!(s.engine.status(s.now).quarantined, 1);
    s.reset(again.path);
    s.wait_alive(SECOND, |_| true);
    let b = s.request(Write, 8192, 4096);
    while let Some(sent) = s.sent.pop_front() {
        s.answer(sent, Ok(()));
    }
    assert_eq!((s.result(b), s.engine.status(s.now).quarantined), (Some(Ok(())), 0));
}

/// On an unshared cache: a write on a path that is drained, answered by it; the write, and the FLUSH that follows it there.
fn draining() -> (Script, u64, Sent) {
    let mut s = Script::new(&DeviceProgram { coherent: Coherence::Incoherent, ..device(2) });
    s.open_all(&without(Flags::SEND_FUA));
    let a = s.request(Write, 0, 4096);
    let write = s.take();
    s.event(Event::Path { path: write.path, command: program::PathCommand::Drain });
    s.answer(write, Ok(()));
    let flush = s.take();
    assert_eq!((flush.command, flush.lane), (Flush, write.lane));
    (s, a, flush)
}

/// W18: a path that is drained is flushed for what it was given before, be it answered only then.
#[test]
fn a_drained_path_flushes_what_it_answers() {
    let (mut s, a, flush) = draining();
    s.answer(flush, Ok(()));
    assert_eq!((s.result(a), s.engine.status(s.now).quarantined), (Some(Ok(())), 0));
}

/// The same path if its storage hangs in that FLUSH: the write is carried out over the other, and waited for no longer.
#[test]
fn a_drained_path_that_hangs_in_its_flush_is_given_up() {
    let (mut s, a, flush) = draining();
    for _ in 0..100 {
        s.wait_alive(SECOND / 10, |sent| sent.path != flush.path);
        s.serve(|sent| sent.path != flush.path);
    }
    assert_eq!(s.result(a), Some(Ok(())));
}

/// W18, W14: a write that is answered with an error may be there in part, in that cache.
#[test]
fn a_failed_write_on_an_unshared_cache_is_in_doubt() {
    for (errno, doubts) in [(Errno::NoSpace, 1), (Errno::Shutdown, 0)] {
        let mut s = Script::new(&DeviceProgram { coherent: Coherence::Incoherent, ..device(2) });
        s.open_all(&without(Flags::SEND_FUA));
        let a = s.request(Write, 0, 4096);
        let write = s.take();
        s.answer(write, Err(errno));
        while let Some(sent) = s.sent.pop_front() {
            s.answer(sent, Ok(()));
        }
        let told = if doubts > 0 { Err(errno) } else { Ok(()) };
        assert_eq!((s.result(a), s.engine.status(s.now).quarantined), (Some(told), doubts), "{errno:?}");
    }
}

/// W18: a write that is on its way on another path now may have been read from the cache of the one before; a read that
/// came after that one must not show what was there before it.
#[test]
fn a_read_waits_for_a_write_that_moves_between_unshared_caches() {
    for coherent in [false, true] {
        let coherence = if coherent { Coherence::Assumed } else { Coherence::Incoherent };
        let access = AccessPolicy::ActivePassive;
        let mut s = Script::new(&DeviceProgram { coherent: coherence, access, ..device(2) });
        s.open_all(&without(Flags::SEND_FUA));
        let a = s.request(Write, 4096, 4096);
        let write = s.take();
        s.reset(write.path);
        let again = s.take();
        let over = s.request(Read, 0, 8192);
        let beside = s.request(Read, 8192, 4096);
        let reads: Vec<Sent> = s.sent.drain(..).collect();
        assert_eq!(reads.len(), if coherent { 2 } else { 1 }, "coherent: {coherent}");
        for read in reads {
            s.answer(read, Ok(()));
        }
        assert_eq!((s.result(over).is_some(), s.result(beside)), (coherent, Some(Ok(()))));
        s.answer(again, Ok(()));
        while let Some(sent) = s.sent.pop_front() {
            s.answer(sent, Ok(()));
        }
        assert_eq!((s.result(a), s.result(over)), (Some(Ok(())), Some(Ok(()))));
    }
}

/// The same for one that came meanwhile: it goes on when that write is done there, though its answer waits for proof (W5).
#[test]
fn a_read_goes_on_when_the_moving_write_is_done() {
    let mut s = Script::new(&DeviceProgram {
        coherent: Coherence::Incoherent,
        writers: Writers::Many,
        unproven: Unproven::Hold,
        no_path: NoPath::Forever,
        ..device(2)
    });
    s.open_all(&without(Flags::SEND_FUA));
    s.request(Write, 4096, 4096);
    let sent = s.take();
    s.reset(sent.path);
    let again = s.take();
    let early = s.request(Read, 4096, 4096);
    assert!(s.nothing_sent());
    s.answer(again, Ok(()));
    let flush = s.take();
    assert_eq!(flush.command, Flush);
    s.answer(flush, Ok(()));
    let late = s.request(Read, 4096, 4096);
    while let Some(sent) = s.sent.pop_front() {
        s.answer(sent, Ok(()));
    }
    assert_eq!(s.result(late), Some(Ok(())), "a read that comes now is served");
    for _ in 0..3600 {
        s.wait_alive(SECOND, |_| true);
        s.serve(|sent| sent.data == SendData::Land);
    }
    assert_eq!(s.result(early), Some(Ok(())), "an hour later");
}

/// And when the part of that write is done which is read, be another part still under way.
#[test]
fn a_read_waits_for_no_more_than_its_part_of_a_moving_write() {
    let mut s = Script::new(&DeviceProgram { coherent: Coherence::Incoherent, ..device(2) });
    s.open_all(&Offer { max_payload_bytes: 4096, ..without(Flags::SEND_FUA) });
    s.request(Write, 0, 8192);
    let (a, _b) = (s.take(), s.take());
    s.reset(a.path);
    let (a, b) = (s.take(), s.take());
    let early = s.request(Read, 0, 4096);
    assert!(s.nothing_sent());
    assert_eq!((a.offset, b.offset), (0, 4096));
    s.answer(a, Ok(()));
    let flush = s.take();
    s.answer(flush, Ok(()));
    while let Some(sent) = s.sent.pop_front() {
        s.answer(sent, Ok(()));
    }
    assert_eq!(s.result(early), Some(Ok(())));
}

/// A path is left for its silence while a write is on it that is not over its age: a read has shown that write, so the
/// next one waits until it is on the other path.
#[test]
fn a_read_waits_for_a_write_on_a_path_that_was_left() {
    let mut s = Script::new(&DeviceProgram { coherent: Coherence::Incoherent, ..device(2) });
    s.open_all(&without(Flags::SEND_FUA));
    s.request(Write, 4096, 4096);
    let write = s.take();
    let seen = s.request(Read, 4096, 4096);
    let read = s.take();
    assert_eq!(read.path, write.path);
    s.answer(read, Ok(()));
    assert_eq!(s.result(seen), Some(Ok(())), "it shows what the write has put into that cache");
    let mut reads = Vec::new();
    for _ in 0..300 {
        reads.push(s.request(Read, 4096, 4096));
        s.wait_alive(SECOND / 100, |sent| sent.path != write.path);
        if let Some(sent) =
            s.sent.iter().find(|sent| sent.path != write.path && sent.data != SendData::Digest)
        {
            assert_eq!(
                sent.command,
                Write,
                "at {} ms, {}: the write is not there yet",
                s.now / MILLISECOND,
                s.state(write.path)
            );
            return;
        }
    }
    panic!("nothing was moved");
}

/// Two paths with caches of their own that were taken to share one: a write acknowledged by each, and one on its way.
fn coming_apart(program: &DeviceProgram) -> (Script, Sent) {
    let mut s = Script::up(program);
    for n in 0..2 {
        s.request(Write, n << 20, 4096);
        let sent = s.take();
        assert_eq!((sent.path, sent.flags), (n as usize, CommandFlags::empty()));
        s.answer(sent, Ok(()));
    }
    s.request(Write, 2 << 20, 4096);
    let under_way = s.take();
    s.event(Event::Program(Box::new(DeviceProgram { coherent: Coherence::Incoherent, ..program.clone() })));
    (s, under_way)
}

/// W18: paths turn out not to share a cache while they are in use: nothing new is sent before all that was acknowledged, and
/// what is on its way, is out of their caches; else it would come out over what is newer.
#[test]
fn caches_that_come_apart_are_flushed_first() {
    let (mut s, under_way) = coming_apart(&device(2));
    let new = s.request(Write, 0, 8192);
    let read = s.request(Read, 1 << 20, 4096);
    let flushes: Vec<Sent> = s.sent.drain(..).collect();
    assert!(flushes.iter().all(|sent| sent.command == Flush) && flushes.len() == 2, "{flushes:?}");
    for flush in flushes {
        s.answer(flush, Ok(()));
    }
    assert!(s.nothing_sent(), "one is still on its way");
    s.answer(under_way, Ok(()));
    let again = s.take();
    assert_eq!((again.command, again.path), (Flush, under_way.path));
    assert!(s.nothing_sent());
    s.answer(again, Ok(()));
    assert!(
        s.sent.iter().any(|sent| sent.command == Write && sent.flags == CommandFlags::FUA),
        "{:?}",
        s.sent
    );
    s.serve(|_| true);
    assert_eq!((s.result(new), s.result(read)), (Some(Ok(())), Some(Ok(()))));
}

/// The same if the one on its way is lost with its connection: another FLUSH follows, well before that.
#[test]
fn caches_that_come_apart_are_flushed_again() {
    let (mut s, under_way) = coming_apart(&device(2));
    let flushes: Vec<Sent> = s.sent.drain(..).collect();
    for flush in flushes {
        s.answer(flush, Ok(()));
    }
    s.reset(under_way.path);
    let new = s.request(Write, 4 << 20, 4096);
    for _ in 0..10 {
        s.wait_alive(SECOND / 10, |_| true);
        s.serve(|_| true);
    }
    assert_eq!(s.result(new), Some(Ok(())));
    assert!(!s.events.contains(&"cache_unproven"), "{:?}", s.events);
}

/// The same for no longer than `quiesce`, and that is told.
#[test]
fn caches_that_come_apart_are_waited_for_no_longer_than_quiesce() {
    let (mut s, _) = coming_apart(&device(2));
    let new = s.request(Write, 4 << 20, 4096);
    s.sent.clear();
    s.wait_alive(4 * SECOND, |_| true);
    assert!(s.sent.iter().all(|sent| sent.command != Write));
    s.wait_alive(2 * SECOND, |_| true);
    s.serve(|sent| sent.command == Write && sent.offset == 4 << 20);
    assert_eq!(s.result(new), Some(Ok(())));
    assert!(s.events.contains(&"cache_unproven"), "{:?}", s.events);
}

/// The same by a second path whose server has no multi-conn; where nothing was acknowledged nothing waits.
#[test]
fn a_path_without_multi_conn_takes_caches_apart() {
    for written in [false, true] {
        let mut s = Script::new(&device(2));
        s.open_path(0, offer());
        if written {
            s.request(Write, 0, 4096);
            s.serve(|_| true);
        }
        s.open_path(1, without(Flags::CAN_MULTI_CONN));
        let flush = s.sent.iter().any(|sent| sent.command == Flush && sent.path == 0);
        assert_eq!(flush, written);
        let read = s.request(Read, 1 << 20, 4096);
        s.serve(|_| true);
        assert_eq!(s.result(read), Some(Ok(())));
    }
}

/// The same if that write ends with the hold: nothing is waited for any more.
#[test]
fn a_read_that_waits_for_a_write_ends_with_the_hold() {
    let hold = 20 * SECOND;
    let program = DeviceProgram { coherent: Coherence::Incoherent, no_path: NoPath::Hold(hold), ..device(2) };
    let mut s = Script::new(&program);
    s.open_all(&without(Flags::SEND_FUA));
    let write = s.request(Write, 4096, 4096);
    let sent = s.take();
    s.reset(sent.path);
    let again = s.take();
    let read = s.request(Read, 4096, 4096);
    s.reset(again.path);
    s.wait(hold + SECOND);
    assert_eq!((s.result(write), s.result(read)), (Some(Err(Errno::Io)), Some(Err(Errno::Io))));
}

/// The same if it was moved for its age and its reply comes late: it is in that cache, no FLUSH can follow it there,
/// and what is newer waits until it is taken to be over.
#[test]
fn a_late_write_in_an_unshared_cache_is_in_doubt() {
    let program = DeviceProgram { coherent: Coherence::Incoherent, ..device(2) };
    let mut s = Script::new(&program);
    s.open_all(&without(Flags::SEND_FUA));
    let write = s.request(Write, 0, 4096);
    let late = s.take();
    let dead = late.path;
    let alive = |s: &mut Script| {
        s.wait_alive(SECOND / 10, |sent| sent.path != dead);
        s.serve(|sent| sent.path != dead);
    };
    while s.result(write).is_none() {
        assert!(s.now < 30 * SECOND, "it is moved and answered");
        alive(&mut s);
    }
    while s.engine.status(s.now).paths[dead].zombies == 0 {
        assert!(s.now < 60 * SECOND, "it is given up");
        alive(&mut s);
    }
    s.answer(late, Ok(()));
    let answered = s.now;
    assert_eq!(s.engine.status(s.now).quarantined, 1, "W18: it is in a cache of its own");
    if s.closing.iter().any(|(lane, _)| *lane == late.lane) {
        s.down(late.lane, engine::LaneFault::ByUs);
    }
    let newer = s.request(Write, 0, 4096);
    while s.result(newer).is_none() {
        assert!(s.now < answered + 30 * SECOND, "{:?}", s.events);
        alive(&mut s);
    }
    let waited = s.now - answered;
    assert!((5 * SECOND..6 * SECOND).contains(&waited), "{} ms", waited / 1_000_000);
    assert!(s.events.contains(&"quarantine_unproven"), "{:?}", s.events);
}

/// The same while its connection stands: known alive, it is waited for up to the hold, and let go then (W13).
#[test]
fn a_write_that_an_unshared_cache_holds_is_let_go_at_the_hold() {
    let program =
        DeviceProgram { coherent: Coherence::Incoherent, no_path: NoPath::Hold(20 * SECOND), ..device(2) };
    let mut s = Script::new(&program);
    s.open_all(&without(Flags::SEND_FUA));
    let write = s.request(Write, 0, 4096);
    let sent = s.take();
    let dead = sent.path;
    s.answer(sent, Ok(()));
    let stuck = s.take();
    assert_eq!(stuck.command, Flush, "3.3: FUA is emulated");
    let mut quarantined = 0;
    for _ in 0..300 {
        s.wait_alive(SECOND / 10, |sent| sent.path != dead);
        s.serve(|sent| sent.path != dead);
        quarantined = quarantined.max(s.engine.status(s.now).quarantined);
    }
    assert_eq!((s.result(write), quarantined), (Some(Ok(())), 1));
    assert_eq!(s.engine.status(s.now).quarantined, 0, "{:?}", s.events);
}

/// W20: with `proven` a read that was on a lost connection keeps the next path waiting as well: its server may be at work
/// on it. Never longer than `quiesce`, for it changes nothing.
#[test]
fn a_read_on_a_lost_connection_keeps_the_next_path_waiting() {
    for (exclusive, wait) in [(Exclusive::Proven, 5 * SECOND), (Exclusive::Issue, 0)] {
        let program = DeviceProgram { access: AccessPolicy::ActivePassive, exclusive, ..device(2) };
        let mut s = Script::up(&program);
        let read = s.request(Read, 0, 4096);
        let sent = s.take();
        s.reset(sent.path);
        let moved = |s: &Script| {
            s.sent.iter().any(|sent| sent.command == Read && sent.len == 4096 && sent.data == SendData::Land)
        };
        s.wait_alive(wait.saturating_sub(SECOND / 10), |_| true);
        assert_eq!(moved(&s), wait == 0, "{exclusive:?}");
        s.wait_alive(SECOND / 5, |_| true);
        assert!(moved(&s), "{exclusive:?}");
        let at = s.sent.iter().position(|sent| sent.data == SendData::Land).expect("just found");
        let again = s.sent.remove(at).expect("just found");
        assert_ne!(again.path, sent.path);
        s.answer(again, Ok(()));
        assert_eq!(s.result(read), Some(Ok(())));
    }
}
