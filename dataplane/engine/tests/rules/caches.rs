// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which cache holds what, when gates tell and when a process of ours has ended before (F1, F2, F6, W10).

use std::collections::BTreeSet;

use engine::{Event, GateOffer, LaneFault, Offer, SendData, SessionId};
use nbd::Command::{Flush, Read, Write};
use nbd::Errno;
use program::{
    DeviceCommand, DeviceProgram, MILLISECOND, Nanos, NoPath, PathCommand, SECOND, Unproven, Writers,
};

use crate::fencing::write_sent;
use crate::script::{Script, Sent, device, offer};

/// More than are written again at once.
const WRITES: u64 = 40;

fn gate(nonce: u128, cache_generation: u64) -> Offer {
    let gate = GateOffer { volume: 7, nonce, cache_generation, epoch: 1, killed: false };
    Offer { gate: Some(gate), ..offer() }
}

fn write_all(s: &mut Script) -> BTreeSet<u64> {
    for n in 0..WRITES {
        s.request(Write, n * 8192, 4096);
        let sent = s.take();
        s.answer(sent, Ok(()));
    }
    (0..WRITES).map(|n| n * 8192).collect()
}

/// Answers everything until nothing is sent; where writes went.
fn answer_all(s: &mut Script) -> BTreeSet<u64> {
    let mut written = BTreeSet::new();
    while let Some(sent) = s.sent.pop_front() {
        if sent.command == Write {
            written.insert(sent.offset);
        }
        s.answer(sent, Ok(()));
    }
    written
}

/// F6: a second lane with the new generation says nothing of what went with the old one.
#[test]
fn the_next_lane_of_a_new_generation_keeps_no_old_cache() {
    let mut program = device(2);
    for path in &mut program.paths {
        path.same_cache = Some("one".into());
    }
    let mut s = Script::new(&program);
    s.open_all(&gate(1, 5));
    let all = write_all(&mut s);
    s.reset(0);
    s.reset(1);
    s.wait(SECOND);
    s.open_path(0, gate(2, 6));
    s.open_path(1, gate(2, 6));
    s.sent.retain(|sent| sent.command == Write);
    assert_eq!(answer_all(&mut s), all, "everything is written again");
}

/// F6, F9: what a failed FLUSH dropped does not come back because its server kept its cache since.
#[test]
fn a_kept_cache_does_not_mend_a_failed_flush() {
    let mut s = Script::new(&device(2));
    s.open_all(&gate(1, 5));
    let all = write_all(&mut s);
    s.request(Flush, 0, 0);
    let sent = s.take();
    s.answer(sent, Err(Errno::Io));
    s.request(Flush, 0, 0);
    s.request(Flush, 0, 0);
    let first: Vec<_> = s.sent.drain(..).collect();
    assert!(first.iter().all(|sent| sent.command == Write) && first.len() < all.len());
    let (lost, kept): (Vec<_>, Vec<_>) = first.into_iter().partition(|sent| sent.path == 1);
    drop(lost);
    s.reset(1);
    s.wait(SECOND);
    let again: Vec<_> = s.sent.drain(..).filter(|sent| sent.command == Write).collect();
    s.open_path(1, gate(1, 5));
    let mut written: BTreeSet<u64> = kept.iter().chain(&again).map(|sent| sent.offset).collect();
    for sent in kept.into_iter().chain(again) {
        s.answer(sent, Ok(()));
    }
    written.extend(answer_all(&mut s));
    assert_eq!(written, all, "everything is written again");
}

/// 2.3: a path that one reload took away and another brought back leads to the same gate.
#[test]
fn a_restarted_gate_ends_a_doubt_after_reloads() {
    let program = DeviceProgram { unproven: Unproven::Hold, ..device(2) };
    let mut s = Script::new(&program);
    s.open_all(&gate(1, 5));
    s.request(Write, 0, 4096);
    let sent = s.take();
    s.reset(sent.path);
    let again = s.take();
    s.answer(again, Ok(()));
    assert_eq!(s.engine.status(s.now).quarantined, 1);
    let mut without = program.clone();
    without.paths.remove(sent.path);
    while let Some((lane, _)) = s.opening.first().copied() {
        // What was to ask the gate does not get through.
        s.opening.retain(|(of, _)| *of != lane);
        s.event(Event::LaneDown { lane, fault: LaneFault::Closed, sent_bytes: 0 });
        s.event(Event::Program(Box::new(without.clone())));
    }
    s.event(Event::Program(Box::new(program)));
    let back = s.opening.iter().position(|(_, path)| *path == sent.path).expect("it is connecting");
    let lane = s.opening[back].0;
    s.open(lane, gate(2, 6));
    assert_eq!(s.engine.status(s.now).quarantined, 0);
}

/// W3, F6: a write of which a copy is in doubt, for good with `hold`, is lost from a cache. It is written again over its own
/// doubt, for that copy has the same bytes; a newer write still waits for both.
#[test]
fn a_doubt_does_not_keep_its_own_write_from_being_written_again() {
    let mut s = Script::up(&DeviceProgram { unproven: Unproven::Hold, ..device(2) });
    let a = s.request(Write, 0, 4096);
    let sent = s.take();
    s.reset(sent.path);
    let again = s.take();
    s.answer(again, Ok(()));
    assert_eq!((s.result(a), s.engine.status(s.now).quarantined), (Some(Ok(())), 1));
    let b = s.request(Write, 0, 8192);
    assert!(s.nothing_sent(), "W4: a newer write waits");
    s.open_path(sent.path, offer());
    s.reset(again.path);
    let replayed = s.take();
    assert_eq!((replayed.command, replayed.offset, replayed.len), (Write, 0, 4096));
    assert_eq!((replayed.path, replayed.data), (sent.path, sent.data), "W3: the same bytes");
    s.answer(replayed, Ok(()));
    let flush = s.request(Flush, 0, 0);
    answer_all(&mut s);
    assert_eq!((s.result(flush), s.result(b)), (Some(Ok(())), None));
    assert!(s.losses.is_empty(), "{:?}", s.losses);
}

/// The same if it is the copy that was written again that is in doubt, and no path was there for it until the hold.
#[test]
fn what_was_written_again_in_vain_is_written_again_once_more() {
    let no_path = NoPath::Hold(20 * SECOND);
    let mut s = Script::up(&DeviceProgram { unproven: Unproven::Hold, no_path, ..device(2) });
    let a = s.request(Write, 0, 4096);
    let sent = s.take();
    s.answer(sent, Ok(()));
    s.reset(sent.path);
    let replayed = s.take();
    assert_eq!((s.result(a), replayed.command), (Some(Ok(())), Write));
    s.reset(replayed.path);
    s.wait(21 * SECOND);
    assert!(s.losses.is_empty(), "it waits for a path");
    s.open_path(replayed.path, offer());
    let again = s.take();
    assert_eq!((again.command, again.offset, again.data), (Write, 0, sent.data));
}

/// F5: what is written while nothing is kept is not noted, so what was kept before must not come over it later.
#[test]
fn what_was_kept_before_a_reload_does_not_come_back() {
    let keeping = device(2);
    let mut s = Script::up(&keeping);
    let write = |s: &mut Script| {
        let write = s.request(Write, 0, 4096);
        let sent = s.take();
        s.answer(sent, Ok(()));
        assert_eq!(s.result(write), Some(Ok(())));
        sent.path
    };
    let first = write(&mut s);
    s.event(Event::Program(Box::new(DeviceProgram { retention_bytes: 0, ..keeping.clone() })));
    let flush = s.take();
    assert_eq!((flush.command, flush.path), (Flush, first), "it is made durable once more");
    assert_eq!(s.engine.retained_bytes(), 0);
    let second = write(&mut s);
    s.event(Event::Program(Box::new(keeping)));
    s.reset(first);
    if second != first {
        s.wait(0);
    }
    assert!(s.sent.iter().all(|sent| sent.command != Write), "{:?}", s.sent);
}

/// F6: a reload that ends retention while a replay is under way ends nothing of that.
#[test]
fn a_replay_outlives_a_reload_that_ends_retention() {
    let keeping = device(2);
    let mut s = Script::new(&keeping);
    for path in 0..2 {
        s.open_path(path, gate(path as u128, 5));
    }
    let mut written = Vec::new();
    for offset in [0, 8192] {
        s.request(Write, offset, 4096);
        let sent = s.take();
        written.push((sent.path, sent.offset));
        s.answer(sent, Ok(()));
    }
    assert_ne!(written[0].0, written[1].0, "one in either cache");
    s.reset(0);
    s.reset(1);
    s.event(Event::Program(Box::new(DeviceProgram { retention_bytes: 0, ..keeping })));
    s.wait(SECOND);
    s.open_path(0, gate(0, 5));
    s.wait_alive(SECOND, |sent| sent.command != Write);
    let of_other = written.iter().find(|(path, _)| *path == 1).expect("one of them").1;
    assert!(s.sent.iter().any(|sent| (sent.command, sent.offset) == (Write, of_other)), "{:?}", s.sent);
}

/// F2, F6: what was acknowledged before anything was kept cannot be written again, so FLUSH waits for its server.
#[test]
fn what_was_not_kept_is_not_taken_for_written_again() {
    let keeping = device(2);
    let mut s = Script::up(&DeviceProgram { retention_bytes: 0, ..keeping.clone() });
    s.request(Write, 0, 4096);
    let sent = s.take();
    let path = sent.path;
    s.answer(sent, Ok(()));
    s.event(Event::Program(Box::new(keeping)));
    assert_eq!(s.sent.iter().map(|sent| (sent.command, sent.path)).collect::<Vec<_>>(), [(Flush, path)]);
    s.reset(path);
    let flush = s.request(Flush, 0, 0);
    answer_all(&mut s);
    assert_eq!(s.result(flush), None, "its server is away");
    s.open_path(path, offer());
    answer_all(&mut s);
    assert_eq!(s.result(flush), Some(Ok(())));
    assert!(s.events.contains(&"cache_unproven"));
}

/// F7: when others are to write the device too, nothing is written again any more that has not begun to be, nor what waits
/// for its range. It is told as lost.
#[test]
fn what_waits_to_be_written_again_is_lost_to_others() {
    let one = device(2);
    let mut s = Script::up(&one);
    s.request(Write, 0, 4096);
    let acked = s.take();
    s.answer(acked, Ok(()));
    let open = s.request(Write, 0, 8192);
    let held = s.take();
    assert_ne!(acked.path, held.path);
    s.reset(acked.path);
    assert!(s.nothing_sent() && s.losses.is_empty(), "it waits for a write that is not answered");
    s.event(Event::Program(Box::new(DeviceProgram { writers: Writers::Many, ..one })));
    assert!(s.losses.iter().flatten().any(|loss| loss.starts_with("4096 bytes")), "{:?}", s.losses);
    s.answer(held, Err(Errno::NoSpace));
    assert_eq!(s.result(open), Some(Err(Errno::NoSpace)));
    assert!(s.sent.iter().all(|sent| sent.command != Write), "{:?}", s.sent);
}

/// The same for what has its range and no room on a path yet.
#[test]
fn what_no_path_has_taken_is_left_to_others() {
    let one = device(2);
    let mut s = Script::up(&one);
    let mut on_0 = 0;
    for n in 0..24 {
        s.request(Write, n << 20, 4096);
        let sent = s.take();
        on_0 += u32::from(sent.path == 0);
        s.answer(sent, Ok(()));
    }
    assert_eq!(on_0, 12);
    s.reset(0);
    let under_way: Vec<Sent> = s.sent.drain(..).collect();
    assert_eq!(under_way.len(), 8, "so many fit on path 1");
    s.event(Event::Program(Box::new(DeviceProgram { writers: Writers::Many, ..one })));
    // Others write the same blocks now. Much later path 1 answers.
    s.wait_alive(SECOND / 2, |_| true);
    for sent in under_way {
        s.answer(sent, Ok(()));
    }
    let written: Vec<u64> = s.sent.iter().filter(|sent| sent.command == Write).map(|it| it.offset).collect();
    assert!(written.is_empty(), "F7: {written:?}, losses {:?}", s.losses);
}

/// Something acknowledged was lost with its server, is being written again over the other path, and that one is lost too.
fn written_again_in_vain(program: &DeviceProgram) -> Script {
    let mut s = Script::up(program);
    s.request(Write, 0, 4096);
    let sent = s.take();
    s.answer(sent, Ok(()));
    s.reset(sent.path);
    assert!(write_sent(&s).is_some());
    s.reset(1 - sent.path);
    s
}

/// A path comes back after a minute.
fn a_path_comes_back(s: &mut Script) {
    s.wait(60 * SECOND);
    s.open_path(0, offer());
    s.wait_alive(10 * SECOND, |_| true);
}

/// And for what was on a path that is lost.
#[test]
fn what_was_moved_is_left_to_others() {
    let one = device(2);
    let mut s = written_again_in_vain(&one);
    s.event(Event::Program(Box::new(DeviceProgram { writers: Writers::Many, ..one })));
    a_path_comes_back(&mut s);
    assert!(write_sent(&s).is_none(), "F7: written a minute later; losses {:?}", s.losses);
}

/// The same if nothing was kept any more before.
#[test]
fn two_reloads_leave_it_to_others() {
    let one = device(2);
    let mut s = Script::up(&one);
    s.request(Write, 0, 4096);
    let sent = s.take();
    s.answer(sent, Ok(()));
    s.reset(1 - sent.path);
    s.reset(sent.path);
    assert!(s.nothing_sent());
    let none = DeviceProgram { retention_bytes: 0, ..one };
    s.event(Event::Program(Box::new(none.clone())));
    s.event(Event::Program(Box::new(DeviceProgram { writers: Writers::Many, ..none })));
    a_path_comes_back(&mut s);
    assert!(write_sent(&s).is_none(), "F7: written a minute later");
    assert!(!s.losses.is_empty());
}

/// And for what a FLUSH has failed for, which was to be written again with the next one.
#[test]
fn what_a_flush_failed_for_is_left_to_others() {
    let mut one = DeviceProgram { no_path: NoPath::Forever, ..device(2) };
    one.paths[1].read_only = true;
    let mut s = Script::up(&one);
    s.request(Write, 0, 4096);
    let sent = s.take();
    s.answer(sent, Ok(()));
    s.request(Write, 1 << 20, 4096);
    s.take();
    s.request(Flush, 0, 0);
    let flush = s.take();
    assert_eq!(flush.command, Flush);
    s.answer(flush, Err(Errno::Io));
    s.event(Event::Path { path: 0, command: PathCommand::Drain });
    s.event(Event::Program(Box::new(DeviceProgram { writers: Writers::Many, ..one })));
    let read = s.request(Read, 0, 4096);
    s.serve(|sent| sent.path == 1);
    assert_eq!((s.result(read), s.losses.iter().flatten().count()), (Some(Ok(())), 1));
}

/// Nor is it written when there is one writer again: others may have written there meanwhile.
#[test]
fn what_was_left_to_others_is_left_for_good() {
    let one = device(2);
    let mut s = written_again_in_vain(&one);
    s.event(Event::Program(Box::new(DeviceProgram { writers: Writers::Many, ..one.clone() })));
    s.event(Event::Program(Box::new(one)));
    a_path_comes_back(&mut s);
    assert!(write_sent(&s).is_none() && s.losses.iter().flatten().count() == 1, "{:?}", s.losses);
}

/// Reads do not wait for what will not be written.
#[test]
fn what_is_left_to_others_keeps_no_read_waiting() {
    let one = device(2);
    let mut s = Script::up(&one);
    s.request(Write, 0, 4096);
    let acked = s.take();
    s.answer(acked, Ok(()));
    s.request(Write, 0, 8192);
    let held = s.take();
    assert_ne!(acked.path, held.path);
    s.reset(acked.path);
    let read = s.request(Read, 0, 4096);
    assert!(s.nothing_sent());
    s.event(Event::Program(Box::new(DeviceProgram { writers: Writers::Many, ..one })));
    s.serve(|sent| sent.data == SendData::Land);
    assert_eq!(s.result(read), Some(Ok(())), "nothing is to be written there");
}

/// F6, F9: nothing was kept, and the gate's next connection tells of another cache while one to the old is still thought to
/// stand: what was not flushed is told as lost.
#[test]
fn a_new_generation_beside_a_standing_connection_is_a_loss_where_nothing_is_kept() {
    let mut program = DeviceProgram { retention_bytes: 0, ..device(2) };
    for path in &mut program.paths {
        path.same_cache = Some("one".into());
    }
    let mut s = Script::new(&program);
    s.open_all(&gate(1, 5));
    s.request(Write, 0, 4096);
    let sent = s.take();
    s.answer(sent, Ok(()));
    s.reset(1 - sent.path);
    s.wait(SECOND);
    assert!(s.losses.is_empty());
    s.open_path(1 - sent.path, gate(2, 6));
    assert_eq!(s.losses.iter().flatten().count(), 1, "{:?}", s.events);
    let flush = s.request(Flush, 0, 0);
    answer_all(&mut s);
    assert_eq!(s.result(flush), Some(Err(Errno::Io)), "F9");
}

/// W10, F2, F8: what a process before left in the servers' caches is flushed at once, without a host asking; until
/// that is answered a FLUSH of a host asks all of them for it as well.
#[test]
fn after_a_crash_a_flush_goes_to_every_cache() {
    let mut s = Script::up(&DeviceProgram { unclean: true, ..device(2) });
    let own = [s.take(), s.take()];
    assert!(own.iter().all(|sent| sent.command == Flush) && own[0].path != own[1].path);
    let flush = s.request(Flush, 0, 0);
    let (one, other) = (s.take(), s.take());
    assert!(one.command == Flush && other.command == Flush && one.path != other.path);
    s.answer(one, Ok(()));
    assert_eq!(s.result(flush), None);
    s.answer(other, Ok(()));
    assert_eq!(s.result(flush), Some(Ok(())));
    for sent in own {
        s.answer(sent, Ok(()));
    }
    s.request(Flush, 0, 0);
    assert_eq!(s.sent.len(), 1, "F10: any will do from then on");
}

/// W10: a path that does not come back is waited for as long as its writes are, and that is told.
#[test]
fn after_a_crash_a_cache_that_stays_away_is_not_waited_for_for_ever() {
    let mut s = Script::new(&DeviceProgram { unclean: true, ..device(2) });
    s.open_path(0, offer());
    let own = s.take();
    assert_eq!((own.command, own.path), (Flush, 0));
    s.answer(own, Ok(()));
    let flush = s.request(Flush, 0, 0);
    s.wait_alive(4 * SECOND, |_| true);
    assert_eq!(s.result(flush), None);
    s.wait_alive(2 * SECOND, |_| true);
    for sent in flushes_of(&mut s, 0) {
        s.answer(sent, Ok(()));
    }
    assert_eq!(s.result(flush), Some(Ok(())), "F10: asked somewhere");
    assert!(s.events.contains(&"cache_unproven"));
    s.open_path(1, offer());
    assert_eq!(flushes_of(&mut s, 1).len(), 1, "it is back, and asked");
}

/// Takes the FLUSHes that a path was sent.
fn flushes_of(s: &mut Script, path: usize) -> Vec<Sent> {
    let is_one = |sent: &Sent| sent.command == Flush && sent.path == path;
    let flushes = s.sent.iter().copied().filter(is_one).collect();
    s.sent.retain(|sent| !is_one(sent));
    flushes
}

/// Path 1 answers nothing until that is noticed; returns a canary that it owes.
fn falls_silent(s: &mut Script) -> Sent {
    while s.state(1) != "down" {
        s.wait_alive(100 * MILLISECOND, |sent| sent.path == 0);
        assert!(s.now < 120 * SECOND, "it is noticed");
    }
    let owed = s.sent.iter().copied().find(|sent| sent.path == 1).expect("it was asked");
    s.sent.clear();
    owed
}

/// W10, F2: however long ago our crash was, a cache that was there since is waited for while its link is only silent;
/// when that is gone for `quiesce` it is told and FLUSH goes on, and when it is back FLUSH waits for it again.
#[test]
fn after_a_crash_a_cache_whose_link_is_silent_is_waited_for() {
    let mut s = Script::up(&DeviceProgram { unclean: true, ..device(2) });
    let own = s.take();
    assert_eq!(own.path, 0, "that of path 1 is not answered");
    s.answer(own, Ok(()));
    s.wait_alive(6 * SECOND, |_| true);
    falls_silent(&mut s);
    let flush = s.request(Flush, 0, 0);
    assert_eq!((s.result(flush), s.nothing_sent()), (None, true), "F2: the other cache is inherited as well");
    s.reset(1);
    s.wait_alive(4 * SECOND, |_| true);
    assert_eq!((s.result(flush), s.events.contains(&"cache_unproven")), (None, false));
    s.wait_alive(2 * SECOND, |_| true);
    assert!(s.events.contains(&"cache_unproven"));
    for sent in flushes_of(&mut s, 0) {
        s.answer(sent, Ok(()));
    }
    assert_eq!(s.result(flush), Some(Ok(())), "F10: asked somewhere");

    s.open_path(1, offer());
    assert_eq!(flushes_of(&mut s, 1).len(), 1, "at once");
    let canary = falls_silent(&mut s);
    let flush = s.request(Flush, 0, 0);
    assert_eq!((s.result(flush), s.nothing_sent()), (None, true), "it was back");
    s.answer(canary, Ok(()));
    let sent = s.take();
    assert_eq!((sent.command, sent.path), (Flush, 1));
    s.answer(sent, Ok(()));
    assert_eq!(s.result(flush), Some(Ok(())));
}

/// F2, F4: a FLUSH that waits for room on its path asks another when the path is gone and nothing is dirty there any more,
/// because a FLUSH before it has covered that.
#[test]
fn a_queued_flush_of_a_clean_cache_does_not_wait_for_its_path() {
    let mut program = device(2);
    program.paths[0].in_flight = 1;
    let mut s = Script::up(&program);
    s.request(Write, 0, 4096);
    let write = s.take();
    assert_eq!(write.path, 0);
    s.answer(write, Ok(()));
    let flushes = [(); 3].map(|()| s.request(Flush, 0, 0));
    let first = s.take();
    assert!(first.path == 0 && s.nothing_sent(), "there is room for one");
    s.answer(first, Ok(()));
    assert_eq!(s.take().path, 0, "the second");
    s.reset(0);
    for sent in flushes_of(&mut s, 1) {
        s.answer(sent, Ok(()));
    }
    assert_eq!(flushes.map(|flush| s.result(flush)), [Some(Ok(())); 3]);
}

/// W10, W7: nor is a path waited for without end that stands and answers errors: what is behind it is told as unproven.
#[test]
fn after_a_crash_a_path_that_answers_eio_is_waited_for_as_long() {
    let mut s = Script::up(&DeviceProgram { unclean: true, ..device(2) });
    for own in flushes_of(&mut s, 1) {
        s.answer(own, Ok(()));
    }
    s.wait_alive(6 * SECOND, |_| true);
    flushes_of(&mut s, 0);
    while s.state(0) != "down" {
        s.request(Read, 0, 4096);
        while !s.nothing_sent() {
            let sent = s.take();
            s.answer(sent, if sent.path == 0 { Err(Errno::Io) } else { Ok(()) });
        }
    }
    let flush = s.request(Flush, 0, 0);
    stays_sick(&mut s, 4 * SECOND);
    assert_eq!((s.result(flush), s.events.contains(&"cache_unproven")), (None, false));
    stays_sick(&mut s, 2 * SECOND);
    assert!(s.events.contains(&"cache_unproven"));
    for sent in flushes_of(&mut s, 1) {
        s.answer(sent, Ok(()));
    }
    assert_eq!(s.result(flush), Some(Ok(())));
}

/// For so long path 0 answers its canaries with EIO, and path 1 well.
fn stays_sick(s: &mut Script, time: Nanos) {
    let end = s.now + time;
    while s.now < end {
        s.wait_alive(10 * MILLISECOND, |sent| sent.path == 1);
        while let Some(at) = s.sent.iter().position(|sent| sent.path == 0 && sent.command == Read) {
            let canary = s.sent.remove(at).expect("just found");
            s.answer(canary, Err(Errno::Io));
        }
    }
}

/// F9: nothing is retained of what the process before left in a cache, so if the first FLUSH of it fails that is a
/// loss, told once, of which also sessions hear that are opened later, until an operator clears it.
#[test]
fn an_inherited_cache_that_fails_its_flush_is_a_loss() {
    let mut s = Script::up(&DeviceProgram { unclean: true, ..device(2) });
    assert_eq!(s.sent.len(), 2, "one of our own, before a host asks");
    for sent in std::mem::take(&mut s.sent) {
        s.answer(sent, Err(Errno::Io));
    }
    assert_a_loss_until_cleared(&mut s);
}

/// F6, F9: the same if a gate comes back with another cache before any FLUSH has asked the one that is inherited.
#[test]
fn an_inherited_cache_that_is_another_one_now_is_a_loss() {
    let mut s = Script::new(&DeviceProgram { unclean: true, ..device(1) });
    s.open_all(&gate(1, 5));
    s.reset(0);
    s.wait(SECOND);
    s.open_path(0, gate(2, 6));
    assert_a_loss_until_cleared(&mut s);
}

fn assert_a_loss_until_cleared(s: &mut Script) {
    s.event(Event::SessionOpened(SessionId(2)));
    for _ in 0..2 {
        let flush = s.request_of(SessionId(2), Flush, 0, 0);
        assert_eq!(s.result(flush), Some(Err(Errno::Io)));
    }
    assert_eq!(s.events.iter().filter(|&&name| name == "writes_lost").count(), 1);
    s.event(Event::Device(DeviceCommand::ClearLoss));
    let flush = s.request_of(SessionId(2), Flush, 0, 0);
    answer_all(s);
    assert_eq!(s.result(flush), Some(Ok(())));
}

/// F4: a FLUSH whose lane is lost where nothing is dirty does not wait for that path.
#[test]
fn a_flush_of_nothing_goes_elsewhere() {
    let mut s = Script::up(&device(2));
    let flush = s.request(Flush, 0, 0);
    let sent = s.take();
    s.reset(sent.path);
    let again = s.take();
    assert_ne!(again.path, sent.path);
    s.answer(again, Ok(()));
    assert_eq!(s.result(flush), Some(Ok(())));
}
