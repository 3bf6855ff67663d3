// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the simulator found, each reduced to a few events.

use engine::{Event, SessionId};
use nbd::Command::{Flush, Write};
use nbd::{CommandFlags, Errno, TransmissionFlags as Flags};
use program::{
    AccessPolicy, DeviceProgram, Exclusive, MILLISECOND, NoPath, PathCommand, SECOND, SelectorKind, Unproven,
    Writers,
};

use crate::script::{Script, device, offer, without};

/// Retains nothing, so that the domain itself must be flushed.
fn bare(paths: usize) -> DeviceProgram {
    DeviceProgram { retention_bytes: 0, ..device(paths) }
}

/// Answers everything that is sent until nothing is.
fn answer_all(s: &mut Script) {
    while !s.nothing_sent() {
        let sent = s.take();
        s.answer(sent, Ok(()));
    }
}

/// F2: a reload made new cache domains for paths that stayed, and the next FLUSH waited for
/// the old ones until the hold ended. What is written stays where it is.
#[test]
fn a_reload_keeps_what_is_to_be_flushed() {
    let program = bare(2);
    let mut s = Script::up(&program);
    s.request(Write, 0, 4096);
    let sent = s.take();
    s.answer(sent, Ok(()));
    s.event(Event::Program(Box::new(DeviceProgram { selector: SelectorKind::QueueDepth, ..program })));
    let flush = s.request(Flush, 0, 0);
    let asked = s.take();
    assert_eq!(asked.path, sent.path, "F2: where it was written");
    s.answer(asked, Ok(()));
    assert_eq!(s.result(flush), Some(Ok(())));
}

/// F2, 3.8: a path that is to be used in another way still leads to the same cache and the
/// same device; while it was down, both were forgotten.
#[test]
fn a_path_that_is_used_differently_keeps_its_cache_and_its_proof() {
    let mut program = DeviceProgram { identity: None, ..bare(1) };
    let mut s = Script::up(&program);
    answer_all(&mut s);
    s.request(Write, 0, 4096);
    let sent = s.take();
    s.answer(sent, Ok(()));
    s.reset(0);
    program.paths[0].in_flight += 1;
    s.event(Event::Program(Box::new(program)));
    let flush = s.request(Flush, 0, 0);
    s.wait(SECOND);
    s.open_all(&offer());
    assert_ne!(s.state(0), "unproven", "3.8: nothing else is there to compare with");
    s.wait_alive(SECOND, |_| true);
    let asked = s.take();
    assert_eq!(asked.command, Flush);
    s.answer(asked, Ok(()));
    assert_eq!(s.result(flush), Some(Ok(())));
}

/// F9: the FLUSH that ends an emulated FUA is a FLUSH: what its error says is lost is not
/// that write alone.
#[test]
fn a_failed_flush_of_an_emulated_fua_is_told_to_every_session() {
    let mut s = Script::new(&device(2));
    s.open_all(&without(Flags::SEND_FUA));
    s.event(Event::SessionOpened(SessionId(2)));
    let write = s.request_with(Write, CommandFlags::FUA, 0, 4096);
    let sent = s.take();
    s.answer(sent, Ok(()));
    let emulated = s.take();
    assert_eq!((emulated.command, emulated.path), (Flush, sent.path));
    s.answer(emulated, Err(Errno::Io));
    answer_all(&mut s);
    assert_eq!(s.result(write), Some(Ok(())), "W7: done through the other path");
    let flushes = [s.request(Flush, 0, 0), s.request_of(SessionId(2), Flush, 0, 0)];
    answer_all(&mut s);
    assert_eq!(flushes.map(|flush| s.result(flush)), [Some(Err(Errno::Io)); 2]);
}

/// F9: of two FLUSHes of one session, one that was on its way elsewhere when the other
/// failed has not covered what may be lost.
#[test]
fn the_first_flush_to_be_answered_tells_of_a_failed_one() {
    let mut s = Script::up(&device(2));
    for _ in 0..2 {
        s.request(Write, 0, 4096);
        let sent = s.take();
        s.answer(sent, Ok(()));
    }
    let both = s.request(Flush, 0, 0);
    let (one, other) = (s.take(), s.take());
    assert_ne!(one.path, other.path);
    let second = s.request(Flush, 0, 0);
    let (on_one, on_other) = (s.take(), s.take());
    s.answer(one, Err(Errno::Io));
    s.answer(on_one, Ok(()));
    s.answer(on_other, Ok(()));
    assert_eq!(s.result(second), Some(Err(Errno::Io)), "it is answered first");
    s.answer(other, Ok(()));
    assert_eq!(s.result(both), Some(Err(Errno::Io)));
}

/// W7: a server that leaves may accept connections until it is gone; it was called again at
/// once, hundreds of times a second. And that it does not FLUSH any more is no loss.
#[test]
fn a_server_that_leaves_is_not_called_at_once() {
    let mut s = Script::up(&bare(2));
    let first = s.request(Write, 0, 4096);
    let sent = s.take();
    s.answer(sent, Ok(()));
    let second = s.request(Write, 8192, 4096);
    let other = s.take();
    s.answer(other, Ok(()));
    let leaves = s.request(Write, 0, 4096);
    let refused = s.take();
    s.answer(refused, Err(Errno::Shutdown));
    let drain = s.sent.iter().position(|sent| sent.command == Flush).expect("drained with a FLUSH");
    let drain = s.sent.remove(drain).expect("found");
    s.answer(drain, Err(Errno::Shutdown));
    answer_all(&mut s);
    assert_eq!([first, second, leaves].map(|tag| s.result(tag)), [Some(Ok(())); 3]);
    s.reset(refused.path);
    s.wait_alive(900 * MILLISECOND, |_| true);
    assert!(s.opening.is_empty(), "it said that it leaves");
    let flush = s.request(Flush, 0, 0);
    s.wait_alive(200 * MILLISECOND, |_| true);
    s.open_path(refused.path, offer());
    s.wait_alive(SECOND, |_| true);
    answer_all(&mut s);
    assert_eq!(s.result(flush), Some(Ok(())), "F2: it waited for that server, and nothing is lost");
}

/// W5, W13: without a timer proof may never come; the answer waits as long as anything may.
#[test]
fn many_writers_without_proof_wait_for_the_hold() {
    let mut s = Script::up(&DeviceProgram {
        writers: Writers::Many,
        unproven: Unproven::Hold,
        no_path: NoPath::Hold(20 * SECOND),
        ..device(2)
    });
    let write = s.request(Write, 0, 4096);
    let sent = s.take();
    s.reset(sent.path);
    answer_all(&mut s);
    s.wait_alive(19 * SECOND, |_| true);
    assert_eq!(s.result(write), None, "W5");
    s.wait_alive(2 * SECOND, |_| true);
    assert_eq!(s.result(write), Some(Err(Errno::Io)), "W13");
    assert_eq!(s.engine.status(s.now).quarantined, 1, "W14");
}

/// W20: the path that was used before is no second path; and a second one waits no longer
/// than the hold.
#[test]
fn waiting_for_proof_ends() {
    let program = DeviceProgram {
        access: AccessPolicy::ActivePassive,
        exclusive: Exclusive::Proven,
        unproven: Unproven::Hold,
        no_path: NoPath::Hold(20 * SECOND),
        ..device(2)
    };
    let mut s = Script::up(&program);
    let write = s.request(Write, 0, 4096);
    let sent = s.take();
    s.reset(sent.path);
    s.wait_alive(19 * SECOND, |_| true);
    assert!(s.sent.iter().all(|sent| sent.command != Write), "W20: the other path waits for proof");
    s.wait_alive(2 * SECOND, |_| true);
    assert_eq!(s.result(write), Some(Err(Errno::Io)));

    let mut s = Script::up(&DeviceProgram { paths: program.paths[..1].to_vec(), ..program });
    let write = s.request(Write, 0, 4096);
    s.take();
    s.reset(0);
    s.event(Event::Path { path: 0, command: PathCommand::Reinstate });
    s.open_all(&offer());
    s.wait_alive(SECOND, |_| true);
    answer_all(&mut s);
    assert_eq!(s.result(write), Some(Ok(())));
}

/// F9: of two FLUSHes on their way to one cache, one is told that it failed and the other
/// that all is well: what they should have covered is written again all the same.
#[test]
fn a_good_flush_beside_a_failed_one_covers_nothing() {
    let mut s = Script::up(&device(1));
    s.request(Write, 0, 4096);
    let written = s.take();
    s.answer(written, Ok(()));
    let both = [s.request(Flush, 0, 0), s.request(Flush, 0, 0)];
    let (first, second) = (s.take(), s.take());
    s.answer(first, Err(Errno::Io));
    s.answer(second, Ok(()));
    assert_eq!(both.map(|flush| s.result(flush)), [Some(Err(Errno::Io)); 2]);
    s.wait(MILLISECOND);
    let flush = s.request(Flush, 0, 0);
    let again = s.take();
    assert_eq!((again.command, again.data), (Write, written.data));
    s.answer(again, Ok(()));
    answer_all(&mut s);
    assert_eq!(s.result(flush), Some(Ok(())));
}
