// SPDX-License-Identifier: MIT OR Apache-2.0
//! An orderly end loses nothing silently: what is acknowledged is made durable first, or its loss is told and recorded
//! (W10, F9).

use engine::{Close, Event};
use nbd::Command::{Flush, Write};
use nbd::Errno;
use program::{DeviceCommand, DeviceProgram, NoPath, SECOND};

use crate::script::{Script, Sent, device, offer};

/// A device with one acknowledged write that nothing has flushed, and the path that carried it.
fn dirty(program: &DeviceProgram) -> (Script, usize) {
    let mut s = Script::up(program);
    s.request(Write, 0, 4096);
    let sent = s.take();
    s.answer(sent, Ok(()));
    (s, sent.path)
}

fn take(s: &mut Script, command: nbd::Command) -> Sent {
    let at = s.sent.iter().position(|sent| sent.command == command);
    let at = at.unwrap_or_else(|| panic!("no {command:?} among {:?}", s.sent));
    s.sent.remove(at).expect("just found")
}

fn is_over(s: &Script) -> bool {
    s.engine.is_idle()
        && s.lanes.iter().all(|(lane, ..)| s.closing.iter().any(|(closing, _)| closing == lane))
}

/// The replay, the FLUSH and the end; the path that carried them.
fn is_written_again_and_flushed(s: &mut Script) -> usize {
    let again = take(s, Write);
    s.answer(again, Ok(()));
    let flush = take(s, Flush);
    s.answer(flush, Ok(()));
    assert!(is_over(s) && s.engine.is_clean() && s.losses.is_empty(), "{:?}", s.losses);
    again.path
}

#[test]
fn what_is_acknowledged_is_flushed_first() {
    let (mut s, path) = dirty(&device(2));
    s.event(Event::Shutdown);
    assert!(s.closing.is_empty(), "not before the FLUSH is answered");
    let flush = take(&mut s, Flush);
    assert_eq!(flush.path, path);
    s.answer(flush, Ok(()));
    assert!(is_over(&s) && s.closing.iter().all(|(_, how)| *how == Close::Disconnect));
    assert!(s.engine.is_clean() && s.losses.is_empty());
}

#[test]
fn nothing_to_flush_ends_at_once() {
    let mut s = Script::up(&device(2));
    s.event(Event::Shutdown);
    assert!(is_over(&s) && s.engine.is_clean());
}

/// F6: its cache may be lost; it is written again through the other path before the end.
#[test]
fn a_replay_is_finished_first() {
    let (mut s, path) = dirty(&device(2));
    s.reset(path);
    s.event(Event::Shutdown);
    assert_ne!(is_written_again_and_flushed(&mut s), path);
}

/// The storage server died with its cache, and the node is stopped before it is back.
#[test]
fn without_a_path_it_is_a_loss_that_is_recorded() {
    let (mut s, path) = dirty(&device(1));
    s.reset(path);
    s.event(Event::Shutdown);
    s.wait(4 * SECOND);
    assert!(s.losses.is_empty() && !s.engine.is_ended(), "it is waited for");
    s.wait(2 * SECOND);
    assert_eq!(s.losses.len(), 1, "{:?}", s.events);
    let why = s.losses[0].clone().expect("a loss");
    assert!(why.contains("no path could be written") && s.events.contains(&"writes_lost"), "{why}");
    assert!(s.engine.is_ended(), "nothing is waited for any more");
    // The next process was told of it.
    let mut next = Script::up(&DeviceProgram { lost_writes: Some(why), ..device(1) });
    assert!(
        next.events.contains(&"writes_lost") && next.losses.is_empty(),
        "told again, and recorded already"
    );
    let flush = next.request(Flush, 0, 0);
    assert_eq!(next.result(flush), Some(Err(Errno::Io)), "F9: until an operator has taken note");
    assert!(!next.engine.status(next.now).lost_writes.is_empty());
    next.event(Event::Device(DeviceCommand::ClearLoss));
    assert_eq!(next.losses, [None]);
    let flush = next.request(Flush, 0, 0);
    let sent = take(&mut next, Flush);
    next.answer(sent, Ok(()));
    assert_eq!(next.result(flush), Some(Ok(())));
}

/// A loss that is told already is no reason to lose more: what else is acknowledged is made stable, or told as well.
#[test]
fn a_told_loss_is_no_reason_to_lose_more() {
    let before = "4096 bytes at 8192 were acknowledged, and are lost";
    for comes_back in [true, false] {
        let (mut s, path) = dirty(&DeviceProgram { lost_writes: Some(before.into()), ..device(1) });
        s.reset(path);
        s.event(Event::Shutdown);
        assert!(!s.engine.is_ended() && s.losses.is_empty());
        if comes_back {
            s.wait(SECOND);
            s.open_all(&offer());
            is_written_again_and_flushed(&mut s);
            continue;
        }
        s.wait(6 * SECOND);
        let told = s.losses[0].clone().expect("a loss");
        assert!(
            told.starts_with(before) && told.contains("; ") && told.contains("no path could be written"),
            "{told}"
        );
        assert_eq!(s.engine.status(s.now).lost_writes, told, "an operator takes note of both");
        s.event(Event::Device(DeviceCommand::ClearLoss));
        assert_eq!(s.losses.last(), Some(&None));
    }
}

/// Nor does it hide what the process before left in a cache that cannot be flushed: both are named (W10, F9).
#[test]
fn a_told_loss_hides_no_inherited_one() {
    let before = "4096 bytes at 8192 were acknowledged, and are lost";
    let mut s = Script::up(&DeviceProgram { lost_writes: Some(before.into()), unclean: true, ..device(1) });
    for _ in 0..3 {
        s.wait_alive(SECOND, |_| true);
        while let Some(at) = s.sent.iter().position(|sent| sent.command == Flush) {
            let flush = s.sent.remove(at).expect("just found");
            s.answer(flush, Err(Errno::Io));
        }
    }
    let told = s.engine.status(s.now).lost_writes;
    assert!(told.starts_with(before) && told.matches("the process before this one").count() == 1, "{told}");
    assert_eq!(s.losses, [Some(told)], "recorded once");
}

#[test]
fn a_path_that_comes_back_in_time_saves_it() {
    let (mut s, path) = dirty(&device(1));
    s.reset(path);
    s.event(Event::Shutdown);
    s.wait(3 * SECOND);
    s.open_all(&offer());
    is_written_again_and_flushed(&mut s);
}

/// A FLUSH that fails is asked again, after everything is written again; not for ever.
#[test]
fn a_flush_that_fails_is_a_loss_after_three() {
    let (mut s, _) = dirty(&device(1));
    s.event(Event::Shutdown);
    let mut flushes = 0;
    while s.losses.is_empty() {
        assert!(s.now < 60 * SECOND, "it does not end");
        s.wait(SECOND / 10);
        for sent in std::mem::take(&mut s.sent) {
            flushes += usize::from(sent.command == Flush);
            s.answer(sent, if sent.command == Flush { Err(Errno::Io) } else { Ok(()) });
        }
    }
    assert_eq!(flushes, 3 + 1, "and one as its connection is closed");
    assert!(s.losses[0].as_ref().is_some_and(|why| why.contains("FLUSH was answered with errors")));
}

/// A FLUSH that fails with nothing to cover loses nothing.
#[test]
fn a_flush_that_fails_with_nothing_to_cover_is_no_loss() {
    let (mut s, _) = dirty(&device(1));
    s.request(Flush, 0, 0);
    let flush = take(&mut s, Flush);
    s.answer(flush, Ok(()));
    s.request(Flush, 0, 0);
    s.event(Event::Shutdown);
    let flush = take(&mut s, Flush);
    s.answer(flush, Err(Errno::Io));
    assert!(is_over(&s) && s.losses.is_empty(), "{:?}", s.losses);
}

/// The driver's time is over, or the device is taken out: what may be lost is told. What is only not flushed is in a
/// cache that stands, and the next process is to flush it.
#[test]
fn no_more_time_is_a_loss_if_something_may_be_lost() {
    let over = || Event::Abandon { why: "the time to stop was over" };
    for settling in [true, false] {
        let (mut s, path) = dirty(&device(1));
        if settling {
            s.event(Event::Shutdown);
            s.event(Event::Shutdown);
        }
        assert!(s.losses.is_empty(), "asked twice is no news");
        s.event(over());
        assert!(s.losses.is_empty() && !s.engine.is_clean());
        s.reset(path);
        assert_eq!(s.losses.len(), 1, "its connection went before the last FLUSH was answered");
        assert!(s.engine.is_ended());

        let (mut s, path) = dirty(&device(1));
        s.reset(path);
        if settling {
            s.event(Event::Shutdown);
        }
        s.event(over());
        assert_eq!(s.losses.len(), 1);
        assert!(s.losses[0].as_ref().is_some_and(|why| why.contains("the time to stop was over")));
        assert!(s.engine.is_ended() && !s.engine.is_clean());
    }
}

/// Segments of a replay whose path goes in the middle of it do not keep the device.
#[test]
fn a_replay_that_breaks_off_ends() {
    let mut s = Script::up(&device(2));
    for n in 0..40 {
        s.request(Write, n * 8192, 4096);
        let sent = s.take();
        s.answer(sent, Ok(()));
    }
    s.reset(0);
    s.event(Event::Shutdown);
    assert!(s.sent.iter().any(|sent| sent.command == Write), "it is under way");
    s.reset(1);
    s.wait(6 * SECOND);
    assert_eq!(s.losses.len(), 1, "{:?}", s.events);
    assert!(s.engine.is_ended());
}

/// A write of a host that waits for a path does not hold up the end beyond that patience, nor spin the timer.
#[test]
fn a_write_without_a_path_is_given_back() {
    let mut s = Script::up(&device(1));
    let write = s.request(Write, 0, 4096);
    s.take();
    s.event(Event::Shutdown);
    s.reset(0);
    s.wait(4 * SECOND);
    assert_eq!(s.result(write), None);
    s.wait(20 * SECOND);
    assert_eq!(s.result(write), Some(Err(Errno::Shutdown)), "the host sends it again elsewhere");
    assert!(s.engine.is_ended(), "nothing is waited for any more");
}

/// With nothing retained there is nothing to be done: the next process must not take it for a clean stop.
#[test]
fn a_cache_that_is_not_flushed_is_no_clean_stop() {
    let (mut s, path) = dirty(&DeviceProgram { retention_bytes: 0, ..device(1) });
    s.reset(path);
    s.event(Event::Shutdown);
    assert!(s.engine.is_ended() && !s.engine.is_clean());
}

/// `no_path = "fail"` is about having no path: what waits in order of arrival is not failed for it while a range
/// elsewhere is quarantined.
#[test]
fn no_path_fail_fails_nothing_while_there_is_one() {
    let program = DeviceProgram { no_path: NoPath::Fail, unproven: program::Unproven::Hold, ..device(2) };
    let mut s = Script::up(&program);
    s.request(Write, 1 << 20, 4096);
    let lost = s.take();
    s.reset(lost.path);
    let again = take(&mut s, Write);
    s.answer(again, Ok(()));
    assert_eq!(s.engine.status(s.now).quarantined, 1);
    s.wait_alive(SECOND, |_| true);
    s.open_path(lost.path, offer());
    let first = s.request(Write, 0, 4096);
    let second = s.request(Write, 0, 4096);
    s.wait_alive(8 * SECOND, |_| true);
    assert_eq!((s.result(first), s.result(second)), (None, None), "{:?}", s.events);
    // Over the quarantine: as long as `quiesce`, for nothing will prove it.
    let over = s.request(Write, 1 << 20, 4096);
    s.wait_alive(4 * SECOND, |_| true);
    assert_eq!(s.result(over), None);
    s.wait_alive(2 * SECOND, |_| true);
    assert_eq!(s.result(over), Some(Err(Errno::Io)));
    assert!(s.losses.is_empty());
}
