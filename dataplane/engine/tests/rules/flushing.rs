// SPDX-License-Identifier: MIT OR Apache-2.0
//! A FLUSH and the caches it is for (rules F1, F2, F9, F10).

use engine::{Close, Event, SessionId};
use nbd::Command::{Flush, Write};
use nbd::Errno;
use program::{DeviceProgram, PathCommand, SECOND};

use crate::script::{Script, device, offer};

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
