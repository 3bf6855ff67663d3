// SPDX-License-Identifier: MIT OR Apache-2.0
//! Retention and replay (F5-F7, F9): what is acknowledged outlives the cache that took it.

use engine::{Event, GateOffer, Offer, SendData, SessionId};
use nbd::Command::{Flush, Read, Trim, Write, WriteZeroes};
use nbd::{CommandFlags, Errno, TransmissionFlags as Flags};
use program::{AccessPolicy, DeviceCommand, DeviceProgram, MILLISECOND, SECOND, Writers};

use crate::script::{MIB, Script, Sent, device, offer, without};

/// A write that was answered by the storage; returns what was sent.
fn acknowledged(s: &mut Script, offset: u64, len: u64) -> Sent {
    let tag = s.request(Write, offset, len);
    let sent = s.take();
    s.answer(sent, Ok(()));
    assert_eq!(s.result(tag), Some(Ok(())));
    sent
}

/// Answers everything that is sent until nothing is.
fn answer_all(s: &mut Script) -> Vec<Sent> {
    let mut answered = Vec::new();
    while !s.nothing_sent() {
        let sent = s.take();
        s.answer(sent, Ok(()));
        answered.push(sent);
    }
    answered
}

fn writes(sent: &[Sent]) -> Vec<(u64, u64, SendData)> {
    let mut writes: Vec<_> = sent
        .iter()
        .filter(|sent| sent.command == Write)
        .map(|sent| (sent.offset, sent.len, sent.data))
        .collect();
    writes.sort_by_key(|write| write.0);
    writes
}

/// F6: with the last connection of a cache its acknowledged writes are written again through
/// another path, at once, and a FLUSH covers them there.
#[test]
fn a_lost_cache_is_written_again() {
    let mut s = Script::up(&device(2));
    let sent = acknowledged(&mut s, 4096, 8192);
    assert!(
        !s.released.iter().any(|buffer| SendData::Buffer { buffer: *buffer, at: 0 } == sent.data),
        "pinned"
    );
    s.reset(sent.path);
    let read = s.request(Read, 8192, 4096);
    let beside = s.request(Read, MIB, 4096);
    let flush = s.request(Flush, 0, 0);
    let (again, free) = (s.take(), s.take());
    assert_eq!((again.command, again.offset, again.len, again.data), (Write, 4096, 8192, sent.data));
    assert_ne!(again.path, sent.path);
    assert_eq!((free.command, free.offset), (Read, MIB), "only what is lost waits");
    assert!(s.nothing_sent(), "F6: a read of it waits; F2: so does FLUSH");
    s.answer(free, Ok(()));
    assert_eq!((s.result(beside), s.result(read), s.result(flush)), (Some(Ok(())), None, None));
    s.answer(again, Ok(()));
    let rest = answer_all(&mut s);
    assert!(
        rest.iter().any(|sent| sent.command == Flush && sent.path == again.path),
        "F2: there it is flushed"
    );
    assert_eq!((s.result(read), s.result(flush)), (Some(Ok(())), Some(Ok(()))));
    assert!(s.events.contains(&"cache_replayed") && !s.events.contains(&"cache_unproven"));
    assert_eq!(s.engine.retained_bytes(), 0);
    assert!(s.released.iter().any(|buffer| SendData::Buffer { buffer: *buffer, at: 0 } == sent.data));
}

/// F5: X1 through one path, X2 over it through another, the first loses its cache: X1 must not come back.
#[test]
fn what_is_newer_in_another_cache_is_not_written_over() {
    let mut s = Script::up(&device(2));
    let first = acknowledged(&mut s, 0, 8192);
    let second = acknowledged(&mut s, 0, 8192);
    assert_ne!(first.path, second.path, "round-robin");
    s.reset(first.path);
    assert!(s.nothing_sent(), "nothing of it is the newest");
}

/// F5: a part that is covered by anything newer is left out, whatever that was.
#[test]
fn only_what_is_newest_is_written_again() {
    for newer in [Write, WriteZeroes, Trim] {
        let mut s = Script::up(&device(2));
        let first = acknowledged(&mut s, 0, 12288);
        let flags = if newer == Write { CommandFlags::FUA } else { CommandFlags::empty() };
        let tag = s.request_with(newer, flags, 4096, 4096);
        let over = s.take();
        assert_ne!(over.path, first.path);
        s.answer(over, Ok(()));
        assert_eq!(s.result(tag), Some(Ok(())));
        s.reset(first.path);
        let again = answer_all(&mut s);
        let SendData::Buffer { buffer, .. } = first.data else { panic!("a write has a payload") };
        let expected = vec![
            (0, 4096, SendData::Buffer { buffer, at: 0 }),
            (8192, 4096, SendData::Buffer { buffer, at: 8192 }),
        ];
        assert_eq!(writes(&again), expected, "{newer:?} over the middle");
    }
}

/// F6: what a host writes during the replay is newer; the rest of the segment is still written.
#[test]
fn a_host_write_overtakes_a_replay() {
    let mut s = Script::up(&device(2));
    let first = acknowledged(&mut s, 0, 8192);
    // Sent before the loss, through the other path; it holds the range.
    let x = s.request(Write, 0, 4096);
    let newer = s.take();
    assert_ne!(newer.path, first.path);
    s.reset(first.path);
    assert!(s.nothing_sent(), "W8: the segment waits for the write that came first");
    s.answer(newer, Ok(()));
    assert_eq!(s.result(x), Some(Ok(())));
    let again = answer_all(&mut s);
    let SendData::Buffer { buffer, .. } = first.data else { panic!("a write has a payload") };
    assert_eq!(writes(&again), [(4096, 4096, SendData::Buffer { buffer, at: 4096 })]);
}

/// F6: zeroes are written again as zeroes.
#[test]
fn zeroes_are_written_again() {
    let mut s = Script::up(&device(2));
    let tag = s.request_with(WriteZeroes, CommandFlags::NO_HOLE, 0, MIB);
    let sent = s.take();
    s.answer(sent, Ok(()));
    assert_eq!(s.result(tag), Some(Ok(())));
    s.reset(sent.path);
    let again = s.take();
    assert_eq!((again.command, again.offset, again.len), (WriteZeroes, 0, MIB));
    assert!(again.flags.contains(CommandFlags::NO_HOLE));
}

/// F6: with one path the replay waits for it, and reads of the lost ranges with it.
#[test]
fn a_single_path_is_written_again_when_it_is_back() {
    let mut s = Script::up(&device(1));
    let sent = acknowledged(&mut s, 0, 4096);
    s.reset(0);
    let read = s.request(Read, 0, 4096);
    s.wait(SECOND);
    s.open_path(0, offer());
    let again = s.take();
    assert_eq!((again.command, again.data), (Write, sent.data), "before the read");
    s.answer(again, Ok(()));
    answer_all(&mut s);
    assert_eq!(s.result(read), Some(Ok(())));
}

/// F2, F4: a FLUSH that is out when its domain is lost begins anew after the replay.
#[test]
fn a_flush_in_flight_begins_anew() {
    let mut s = Script::up(&device(2));
    let first = acknowledged(&mut s, 0, 4096);
    acknowledged(&mut s, 8192, 4096);
    let flush = s.request(Flush, 0, 0);
    let (one, two) = (s.take(), s.take());
    let (lost, other) = if one.path == first.path { (one, two) } else { (two, one) };
    s.answer(other, Ok(()));
    s.reset(lost.path);
    let again = s.take();
    assert_eq!((again.command, again.data), (Write, first.data));
    s.answer(again, Ok(()));
    assert_eq!(s.result(flush), None, "F2: not before what was written again is flushed");
    let rest = answer_all(&mut s);
    assert!(rest.iter().all(|sent| sent.command == Flush && sent.path == other.path));
    assert_eq!(s.result(flush), Some(Ok(())));
}

/// A write that is not answered yet is lost in part: that part is sent again.
#[test]
fn a_part_of_an_open_write_is_sent_again() {
    let small = Offer { max_payload_bytes: 4096, ..offer() };
    let mut s = Script::new(&device(2));
    s.open_all(&small);
    let tag = s.request(Write, 0, 8192);
    let (one, two) = (s.take(), s.take());
    assert_ne!(one.path, two.path, "two pieces, two caches");
    s.answer(one, Ok(()));
    s.reset(one.path);
    let again = s.take();
    assert_eq!((again.offset, again.data), (one.offset, one.data));
    s.answer(again, Ok(()));
    assert_eq!(s.result(tag), None);
    s.answer(two, Ok(()));
    assert_eq!(s.result(tag), Some(Ok(())));
}

fn gate(nonce: u128, cache_generation: u64) -> Offer {
    let gate = GateOffer { volume: 7, nonce, cache_generation, epoch: 1, killed: false };
    Offer { gate: Some(gate), ..offer() }
}

/// F6: the same gate with the same cache generation has lost nothing.
#[test]
fn a_gate_that_kept_its_cache_needs_no_replay() {
    for (nonce, generation, kept) in [(1, 5, true), (2, 5, true), (2, 6, false)] {
        let mut s = Script::new(&device(1));
        s.open_all(&gate(1, 5));
        acknowledged(&mut s, 0, 4096);
        s.reset(0);
        s.wait(SECOND);
        s.open_path(0, gate(nonce, generation));
        assert_eq!(s.nothing_sent(), kept, "nonce {nonce}, generation {generation}");
        let flush = s.request(Flush, 0, 0);
        let sent = answer_all(&mut s);
        assert_eq!(sent.iter().any(|sent| sent.command == Write), !kept);
        assert_eq!(s.result(flush), Some(Ok(())));
    }
}

/// F1: paths to one gate share its cache, so one FLUSH is enough, and a path that is
/// lost takes no cache with it.
#[test]
fn paths_to_one_gate_are_one_domain() {
    let mut s = Script::new(&device(2));
    s.open_all(&gate(1, 5));
    let first = acknowledged(&mut s, 0, 4096);
    acknowledged(&mut s, 8192, 4096);
    s.reset(first.path);
    assert!(s.nothing_sent(), "the gate is still there");
    let flush = s.request(Flush, 0, 0);
    let sent = answer_all(&mut s);
    assert_eq!(sent.len(), 1);
    assert_eq!(s.result(flush), Some(Ok(())));
    assert_eq!(s.engine.retained_bytes(), 0);
}

/// F5: half of the limit brings a FLUSH of our own, all of it FUA on every write.
#[test]
fn the_limit_is_kept_by_flushing() {
    let mut s = Script::up(&DeviceProgram { retention_bytes: 64 << 10, ..device(1) });
    for n in 0..7 {
        acknowledged(&mut s, n * 4096, 4096);
    }
    assert!(s.nothing_sent());
    s.request(Write, 28672, 8192);
    let sent = s.take();
    s.answer(sent, Ok(()));
    let flush = s.take();
    assert_eq!(flush.command, Flush, "more than half");
    for n in 9..16 {
        acknowledged(&mut s, n * 4096, 4096);
    }
    let durable = s.request(Write, MIB, 4096);
    let sent = s.take();
    assert!(sent.flags.contains(CommandFlags::FUA), "full: {} bytes", s.engine.retained_bytes());
    s.answer(sent, Ok(()));
    assert_eq!(s.result(durable), Some(Ok(())));
    s.answer(flush, Ok(()));
    let sent = acknowledged(&mut s, 2 * MIB, 4096);
    assert!(!sent.flags.contains(CommandFlags::FUA));
}

/// F5: what a higher limit once allowed is not allowed for ever.
#[test]
fn a_lower_limit_bounds_the_history() {
    let high = device(2);
    let mut s = Script::up(&high);
    let n = 12_000;
    let fill = |s: &mut Script, n: u64| {
        for at in 0..n {
            s.request(WriteZeroes, (at % 900) << 12, 4096);
            s.serve(|sent| sent.command == WriteZeroes);
        }
    };
    fill(&mut s, n);
    // Another device takes some of the room.
    s.engine.set_retention_limit(4 << 20);
    let flush = s.request(Flush, 0, 0);
    answer_all(&mut s);
    assert_eq!((s.result(flush), s.engine.retained_bytes()), (Some(Ok(())), 0));
    s.event(Event::Program(Box::new(DeviceProgram { retention_bytes: 64 << 10, ..high })));
    fill(&mut s, n - 500);
    assert!(s.engine.retained_bytes() < 3 * (64 << 10), "{} of {}", s.engine.retained_bytes(), 64 << 10);
}

/// F2, W7: a path that answers EIO may keep a FLUSH waiting for long, and fail it in the end. What its cache holds is
/// written again through the others.
#[test]
fn a_flush_does_not_wait_for_a_path_that_answers_eio() {
    let mut s = Script::up(&DeviceProgram { access: AccessPolicy::ActivePassive, ..device(2) });
    let sent = acknowledged(&mut s, 4096, 8192);
    let read = s.request(Read, MIB, 4096);
    let refused = s.take();
    assert_eq!(refused.path, sent.path);
    s.answer(refused, Err(Errno::Io));
    let elsewhere = s.take();
    assert_ne!(elsewhere.path, sent.path);
    s.answer(elsewhere, Ok(()));
    assert_eq!((s.result(read), s.state(sent.path)), (Some(Ok(())), "down"));
    let flush = s.request(Flush, 0, 0);
    let again = s.take();
    assert_eq!((again.command, again.path, again.data), (Write, elsewhere.path, sent.data));
    s.answer(again, Ok(()));
    let sent = answer_all(&mut s);
    assert!(sent.iter().any(|sent| sent.command == Flush));
    assert!(sent.iter().all(|sent| sent.path == elsewhere.path), "{sent:?}");
    assert_eq!(s.result(flush), Some(Ok(())));
}

/// Writes of 1 MiB until a FLUSH of our own follows one; how many, and the FLUSH.
fn until_own_flush(s: &mut Script) -> (u64, Sent) {
    for n in 0..64 {
        acknowledged(s, n * MIB, MIB);
        if !s.nothing_sent() {
            let flush = s.take();
            assert_eq!(flush.command, Flush);
            return (n + 1, flush);
        }
    }
    panic!("64 MiB kept, and no FLUSH");
}

/// F5: where a FLUSH costs nothing there is no reason to keep much.
#[test]
fn a_cheap_flush_is_asked_for_earlier() {
    let mut s = Script::up(&device(1));
    let (kept, flush) = until_own_flush(&mut s);
    assert_eq!(kept, 32, "half of the limit, for nothing is known yet");
    s.answer(flush, Ok(()));
    let (kept, flush) = until_own_flush(&mut s);
    assert_eq!(kept, 8);
    s.wait(10 * MILLISECOND);
    s.answer(flush, Ok(()));
    let (kept, _) = until_own_flush(&mut s);
    assert_eq!(kept, 32, "this one was not cheap");
}

/// F9: what cannot be written again is lost; FLUSH and FUA say so on every session, for good.
#[test]
fn a_loss_is_sticky_on_every_session() {
    let mut s = Script::up(&device(2));
    s.event(Event::SessionOpened(SessionId(2)));
    let sent = acknowledged(&mut s, 0, 4096);
    s.reset(sent.path);
    let again = s.take();
    s.answer(again, Err(Errno::NoSpace));
    assert!(s.events.contains(&"writes_lost"));
    for _ in 0..2 {
        for session in [SessionId(1), SessionId(2)] {
            let flush = s.request_of(session, Flush, 0, 0);
            assert_eq!(s.result(flush), Some(Err(Errno::Io)));
        }
    }
    let fua = s.request_with(Write, CommandFlags::FUA, 8192, 4096);
    assert_eq!(s.result(fua), Some(Err(Errno::Io)));
    let plain = s.request(Write, 8192, 4096);
    let sent = s.take();
    s.answer(sent, Ok(()));
    assert_eq!(s.result(plain), Some(Ok(())), "other requests go on");
    s.event(Event::Device(DeviceCommand::ClearLoss));
    let flush = s.request(Flush, 0, 0);
    answer_all(&mut s);
    assert_eq!(s.result(flush), Some(Ok(())));
}

/// F7: with several writers nothing may be written over later, so every write is durable at once.
#[test]
fn several_writers_write_through() {
    let mut s = Script::up(&DeviceProgram { writers: Writers::Many, ..device(1) });
    let tag = s.request(Write, 0, 4096);
    let sent = s.take();
    assert!(sent.flags.contains(CommandFlags::FUA));
    s.answer(sent, Ok(()));
    assert_eq!(s.result(tag), Some(Ok(())));

    let mut s = Script::new(&DeviceProgram { writers: Writers::Many, ..device(1) });
    s.open_all(&without(Flags::SEND_FUA));
    let tag = s.request(Write, 0, 4096);
    let sent = s.take();
    s.answer(sent, Ok(()));
    assert_eq!(s.result(tag), None, "FUA is emulated");
    let flush = s.take();
    s.answer(flush, Ok(()));
    assert_eq!(s.result(tag), Some(Ok(())));
}

/// F7, F9: a gate that lost its cache under several writers: nothing can mend that.
#[test]
fn several_writers_are_told_of_a_lost_cache() {
    let mut s = Script::new(&DeviceProgram { writers: Writers::Many, ..device(1) });
    s.open_all(&gate(1, 5));
    let sent = acknowledged(&mut s, 0, 4096);
    assert!(!sent.flags.contains(CommandFlags::FUA), "the gate will tell");
    s.reset(0);
    s.wait(SECOND);
    s.open_path(0, gate(2, 6));
    let flush = s.request(Flush, 0, 0);
    assert_eq!(s.result(flush), Some(Err(Errno::Io)));
    assert!(s.events.contains(&"writes_lost"));
}
