// SPDX-License-Identifier: MIT OR Apache-2.0
//! Writes that were let go without proof, and land (rule W13).

use engine::{Event, Offer, SendData};
use nbd::Command::{Flush, Read, Write};
use nbd::{CommandFlags, Errno, TransmissionFlags as Flags};
use program::{DeviceProgram, SECOND, Writers};

use crate::fencing::{gate, short_hold, stalled, write_sent};
use crate::script::{Script, Sent, offer, without};

/// A FLUSH, answered by all but the path of `stuck`.
fn flush_beside(s: &mut Script, stuck: &Sent) {
    let flush = s.request(Flush, 0, 0);
    while s.result(flush).is_none() {
        let sent = s.take();
        if sent.path != stuck.path {
            s.answer(sent, Ok(()));
        }
    }
    s.sent.clear();
}

/// W13: let go at the hold, the zombie stays; its late reply has what is newer written again.
#[test]
fn a_ghost_that_lands_is_repaired() {
    let mut s = Script::up(&short_hold());
    let stuck = stalled(&mut s);
    let b = s.request(Write, 2048, 4096);
    s.wait_alive(20 * SECOND, |sent| sent.path != stuck.path);
    let newer = write_sent(&s).expect("let go at the hold");
    assert!(s.events.contains(&"quarantine_unproven"));
    s.sent.retain(|sent| sent.cookie != newer.cookie || sent.lane != newer.lane);
    s.answer(newer, Ok(()));
    assert_eq!(s.result(b), Some(Ok(())));
    assert_eq!(s.engine.status(s.now).ghosts, 1);
    // Another flush makes B durable and its bytes free, but not for the ghost.
    flush_beside(&mut s, &stuck);
    s.answer(stuck, Ok(()));
    assert!(s.events.contains(&"ghost_repaired"));
    let read = s.request(Read, 2048, 512);
    let repair = s.take();
    let SendData::Buffer { buffer, .. } = newer.data else { panic!("a write has a payload") };
    assert_eq!((repair.offset, repair.len), (2048, 2048), "what of B is over A");
    assert_eq!(repair.data, SendData::Buffer { buffer, at: 0 });
    assert!(s.nothing_sent(), "nobody reads the ghost");
    s.answer(repair, Ok(()));
    let rest: Vec<Sent> = std::iter::from_fn(|| s.sent.pop_front()).collect();
    assert!(rest.iter().any(|sent| sent.command == Flush), "W13: and flushed");
    for sent in rest {
        s.answer(sent, Ok(()));
    }
    assert_eq!(s.result(read), Some(Ok(())));
    assert_eq!((s.engine.status(s.now).ghosts, s.engine.retained_bytes()), (0, 0));
}

/// A ghost at 0 and a write of two pieces, the first over it, that are sent and not answered. Returns both.
fn under_way(offer: Offer, flags: CommandFlags) -> (Script, Sent, u64) {
    let mut s = Script::new(&short_hold());
    s.open_all(&Offer { max_payload_bytes: 4096, ..offer });
    let stuck = stalled(&mut s);
    let b = s.request_with(Write, flags, 0, 8192);
    s.wait_alive(20 * SECOND, |sent| sent.path != stuck.path);
    s.sent.retain(|sent| sent.path != stuck.path && sent.data != SendData::Digest);
    assert_eq!(s.engine.status(s.now).ghosts, 1);
    (s, stuck, b)
}

/// W13: a write that was sent before the late reply of a ghost under it, and is answered after, may have been
/// overwritten: it is sent again before its host is answered, and a part of it that was answered before, too.
#[test]
fn a_write_under_way_while_a_ghost_lands_is_sent_again() {
    for early in [false, true] {
        let (mut s, stuck, b) = under_way(offer(), CommandFlags::empty());
        let (over, beside) = (s.take(), s.take());
        assert_eq!((over.offset, beside.offset), (0, 4096));
        if early {
            s.answer(over, Ok(()));
        }
        s.answer(stuck, Ok(()));
        if !early {
            s.answer(over, Ok(()));
        }
        let again = write_sent(&s).expect("W13: it may have been executed before the ghost");
        assert_eq!((again.offset, again.data), (over.offset, over.data));
        s.answer(beside, Ok(()));
        assert_eq!(s.result(b), None);
        s.answer(again, Ok(()));
        assert_eq!(s.result(b), Some(Ok(())));
    }
}

/// W13, F3: where FUA is emulated the ghost may come between a write and its FLUSH; that write is sent again, too.
#[test]
fn a_ghost_between_a_write_and_its_flush_has_both_sent_again() {
    let (mut s, stuck, b) = under_way(without(Flags::SEND_FUA), CommandFlags::FUA);
    let (over, beside) = (s.take(), s.take());
    s.answer(over, Ok(()));
    s.answer(beside, Ok(()));
    let (flush, other) = (s.take(), s.take());
    assert_eq!((flush.command, other.command), (Flush, Flush));
    s.answer(stuck, Ok(()));
    s.answer(flush, Ok(()));
    s.answer(other, Ok(()));
    assert_eq!(s.result(b), None);
    let again = write_sent(&s).expect("W13: that FLUSH may have covered the ghost's bytes");
    assert_eq!((again.offset, again.data), (over.offset, over.data));
    while let Some(sent) = s.sent.pop_front() {
        s.answer(sent, Ok(()));
    }
    assert_eq!(s.result(b), Some(Ok(())));
}

/// W13, W14: a late error means that it was never executed; nothing is to be repaired.
#[test]
fn a_ghost_that_fails_needs_no_repair() {
    let mut s = Script::up(&short_hold());
    let stuck = stalled(&mut s);
    s.request(Write, 0, 4096);
    s.wait_alive(20 * SECOND, |sent| sent.path != stuck.path);
    let newer = write_sent(&s).expect("let go at the hold");
    s.answer(newer, Ok(()));
    s.sent.clear();
    s.answer(stuck, Err(Errno::Io));
    assert!(!s.events.contains(&"ghost_repaired") && write_sent(&s).is_none());
    assert_eq!(s.engine.status(s.now).ghosts, 0);
}

/// A ghost at 0 with B, answered over the other path, newer than it; returns it, and what B was sent as.
fn haunted(s: &mut Script) -> (Sent, Sent) {
    let stuck = stalled(s);
    let b = s.request(Write, 0, 4096);
    s.wait_alive(20 * SECOND, |sent| sent.path != stuck.path);
    let newer = write_sent(s).expect("let go at the hold");
    s.sent.retain(|sent| sent.cookie != newer.cookie || sent.lane != newer.lane);
    s.answer(newer, Ok(()));
    assert_eq!(s.result(b), Some(Ok(())));
    s.sent.clear();
    (stuck, newer)
}

/// W13, F6: a ghost lands while what is over it is to be written again for another reason, a cache that may be lost. That
/// the cache turns out to be kept does not undo the ghost.
#[test]
fn a_ghost_that_lands_while_a_cache_is_away_is_repaired() {
    let mut s = Script::new(&short_hold());
    for path in 0..2 {
        s.open_path(path, gate(path as u128, false));
    }
    let (stuck, newer) = haunted(&mut s);
    s.reset(newer.path);
    assert!(s.nothing_sent(), "no path to write it again over");
    s.answer(stuck, Ok(()));
    assert!(s.events.contains(&"ghost_repaired"));
    s.open_path(newer.path, gate(newer.path as u128, false));
    s.wait_alive(SECOND, |sent| sent.command != Write);
    let repair = write_sent(&s).expect("it is written again");
    assert_eq!((repair.offset, repair.data), (newer.offset, newer.data));
}

/// W13, F9: the end waits for a repair, also where nothing is retained otherwise; without a path for it that is a loss.
#[test]
fn the_end_waits_for_a_repair() {
    for (retention_bytes, back) in [(0, true), (0, false), (64 << 20, true), (64 << 20, false)] {
        let mut s = Script::up(&DeviceProgram { retention_bytes, ..short_hold() });
        let (stuck, newer) = haunted(&mut s);
        s.reset(newer.path);
        s.answer(stuck, Ok(()));
        assert!(s.events.contains(&"ghost_repaired") && write_sent(&s).is_none(), "no path to write it over");
        s.event(Event::Shutdown);
        if back {
            s.open_path(newer.path, offer());
            let repair = write_sent(&s).expect("it is written again");
            assert_eq!((repair.offset, repair.path), (newer.offset, newer.path));
            while let Some(sent) = s.sent.pop_front() {
                s.answer(sent, Ok(()));
            }
        } else {
            s.wait(6 * SECOND);
        }
        assert_eq!(s.losses.is_empty(), back, "{retention_bytes}: {:?}", s.losses);
    }
}

/// F7, W13: a write was let go while we were the only writer. It lands when others write the device too: what is newest there
/// may be theirs, so nothing is written over it, and the loss is told; also when we are the only one again by then.
#[test]
fn a_ghost_is_not_repaired_over_others() {
    for (closed, back) in [(true, false), (false, false), (false, true)] {
        let program = short_hold();
        let mut s = Script::up(&program);
        let stuck = stalled(&mut s);
        let b = s.request(Write, 2048, 4096);
        s.wait_alive(20 * SECOND, |sent| sent.path != stuck.path);
        let newer = write_sent(&s).expect("let go at the hold");
        s.sent.retain(|sent| sent.cookie != newer.cookie || sent.lane != newer.lane);
        s.answer(newer, Ok(()));
        assert_eq!(s.result(b), Some(Ok(())));
        flush_beside(&mut s, &stuck);
        s.event(Event::Program(Box::new(DeviceProgram { writers: Writers::Many, ..program.clone() })));
        if back {
            s.event(Event::Program(Box::new(program)));
        }
        if closed {
            s.wait_alive(SECOND, |_| true);
            assert!(s.closing.iter().any(|(lane, _)| *lane == stuck.lane));
            s.down(stuck.lane, engine::LaneFault::ByUs);
            s.wait_alive(20 * SECOND, |_| true);
        } else {
            s.answer(stuck, Ok(()));
        }
        assert!(write_sent(&s).is_none(), "closed {closed}, {:?}", write_sent(&s));
        assert_eq!(s.losses.iter().flatten().count(), 1, "closed: {closed}, back: {back}");
    }
}
