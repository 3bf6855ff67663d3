// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reads that go on elsewhere after a part of their data has come (W2, design 3.2).

use engine::{BufferId, Event, SessionId};
use nbd::Command::{Read, Write};
use nbd::Errno;
use program::{DeviceProgram, MILLISECOND};

use crate::script::{MIB, Script, Sent, device};

const PART: u64 = 16_384;

/// Of a read that was sent, so much has come; then its connection breaks.
fn break_off(s: &mut Script, sent: Sent, len: u64) -> BufferId {
    let data = s.buffer();
    s.event(Event::ReadPart { lane: sent.lane, cookie: sent.cookie, data, len });
    s.reset(sent.path);
    data
}

fn is_free(s: &Script, buffer: BufferId) -> bool {
    s.released.contains(&buffer) && !s.given.contains(&buffer)
}

#[test]
fn only_the_rest_is_read_elsewhere() {
    let mut s = Script::up(&device(2));
    let read = s.request(Read, MIB, MIB);
    let sent = s.take();
    let part = break_off(&mut s, sent, PART);
    let rest = s.take();
    assert_eq!((rest.path, rest.offset, rest.len), (1 - sent.path, MIB + PART, MIB - PART));
    assert!(s.nothing_sent());
    s.answer(rest, Ok(()));
    assert_eq!(s.result(read), Some(Ok(())));
    assert_eq!((s.given.len(), s.given[0]), (2, part), "in order");
    let status = s.engine.status(s.now);
    assert_eq!((status.in_flight, status.reads, status.resent), (0, 1, 1));
}

/// The second path breaks too, and what it brought counts as well.
#[test]
fn a_read_goes_on_twice() {
    let mut s = Script::up(&device(3));
    let read = s.request(Read, 0, MIB);
    let first = s.take();
    let one = break_off(&mut s, first, PART);
    let second = s.take();
    let two = break_off(&mut s, second, PART);
    let third = s.take();
    assert_eq!((third.offset, third.len), (2 * PART, MIB - 2 * PART));
    s.answer(third, Ok(()));
    assert_eq!((s.result(read), &s.given[..2]), (Some(Ok(())), &[one, two][..]));
}

/// Such a read may be cut further where the other path takes less.
#[test]
fn the_rest_is_cut_to_the_other_paths_limit() {
    let mut s = Script::new(&device(2));
    s.open_path(0, crate::script::offer());
    s.open_path(1, engine::Offer { max_payload_bytes: 512 << 10, ..crate::script::offer() });
    // One of two goes over the path that takes all of it.
    let reads = [s.request(Read, 0, MIB), s.request(Read, MIB, MIB)];
    let whole = *s.sent.iter().find(|sent| sent.len == MIB).expect("round-robin uses both");
    s.sent.retain(|sent| sent.cookie != whole.cookie || sent.lane != whole.lane);
    break_off(&mut s, whole, PART);
    while !s.nothing_sent() {
        let sent = s.take();
        assert!(sent.path == 1 && sent.len <= 512 << 10);
        s.answer(sent, Ok(()));
    }
    assert!(reads.iter().all(|&read| s.result(read) == Some(Ok(()))));
}

/// What came is all of it: that it is good was still to be said.
#[test]
fn data_without_the_servers_last_word_counts_for_nothing() {
    for len in [MIB, 0] {
        let mut s = Script::up(&device(2));
        s.request(Read, 0, MIB);
        let sent = s.take();
        let part = break_off(&mut s, sent, len);
        assert!(is_free(&s, part));
        let again = s.take();
        assert_eq!((again.offset, again.len), (0, MIB));
    }
}

/// A copy that is waited for elsewhere, or was given up on, leaves nothing to continue.
#[test]
fn parts_of_other_copies_are_dropped() {
    let mut s = Script::up(&DeviceProgram { hedge_budget_ppm: 30_000, ..device(2) });
    let read = s.request(Read, 0, MIB);
    let first = s.take();
    s.wait(10 * MILLISECOND);
    let second = s.take();
    let part = break_off(&mut s, first, PART);
    assert!(is_free(&s, part) && s.nothing_sent());
    s.answer(second, Ok(()));
    assert_eq!((s.result(read), s.given.len()), (Some(Ok(())), 1));

    let mut s = Script::up(&device(2));
    let read = s.request(Read, 0, MIB);
    let stuck = s.take();
    s.wait_alive(1_200 * MILLISECOND, |sent| sent.path != stuck.path);
    let moved = s.sent.iter().position(|sent| sent.len == MIB).expect("moved at its age");
    let moved = s.sent.remove(moved).expect("found");
    let part = break_off(&mut s, stuck, PART);
    assert!(is_free(&s, part));
    s.answer(moved, Ok(()));
    assert_eq!((s.result(read), s.given.len()), (Some(Ok(())), 1));
}

/// The part goes with the request if the rest cannot be read.
#[test]
fn a_rest_that_fails_fails_the_read() {
    let mut s = Script::up(&device(3));
    let read = s.request(Read, 0, MIB);
    let sent = s.take();
    let part = break_off(&mut s, sent, PART);
    for _ in 0..2 {
        let rest = s.take();
        s.answer(rest, Err(Errno::Io));
    }
    assert_eq!(s.result(read), Some(Err(Errno::Io)), "W7: two said so");
    assert!(is_free(&s, part));
    assert_eq!(s.engine.status(s.now).in_flight, 0);
}

#[test]
fn a_host_that_leaves_meanwhile() {
    let mut s = Script::up(&device(2));
    let read = s.request(Read, 0, MIB);
    let sent = s.take();
    break_off(&mut s, sent, PART);
    s.event(Event::SessionClosed { session: SessionId(1), clean: false });
    let rest = s.take();
    s.answer(rest, Ok(()));
    assert_eq!((s.result(read), s.released.len()), (Some(Ok(())), 2));
}

/// A write over the part is acknowledged before the rest is read. The read was open all the time, so it may
/// return the part from before that write, as any read that is carried out in parts may.
#[test]
fn a_write_in_between_changes_nothing() {
    let mut s = Script::up(&device(2));
    let read = s.request(Read, 0, MIB);
    let sent = s.take();
    let part = break_off(&mut s, sent, PART);
    let rest = s.take();
    let write = s.request(Write, 0, MIB);
    let over = s.take();
    s.answer(over, Ok(()));
    assert_eq!(s.result(write), Some(Ok(())));
    s.answer(rest, Ok(()));
    assert_eq!((s.result(read), s.given[0]), (Some(Ok(())), part));
}
