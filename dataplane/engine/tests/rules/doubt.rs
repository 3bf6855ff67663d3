// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a lost or stalled connection leaves in doubt, and what it does not (rules W1 to W6, W15).

use engine::Close;
use nbd::Command::{Read, Trim, Write};
use program::{DeviceProgram, MILLISECOND, SECOND, Writers};

use crate::on_path;
use crate::script::{Script, device, offer};

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
