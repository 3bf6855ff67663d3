// SPDX-License-Identifier: MIT OR Apache-2.0
//! One test per rule the engine carries out; the numbers are those of the rules.
#![allow(missing_docs)]

mod behind;
mod caches;
mod costs;
mod doubt;
mod ending;
mod explained;
mod fencing;
mod flushing;
mod ghosts;
mod groups;
mod hedging;
mod holding;
mod identity;
mod liveness;
mod partial;
mod portals;
mod recording;
mod retention;
mod rig;
mod script;
mod simulated;
mod speed;
mod stalls;
mod steering;
mod unanswered;
mod verdicts;

use engine::{Close, Event, Offer, SendData};
use nbd::Command::{Flush, Read, Trim, Write, WriteZeroes};
use nbd::{CommandFlags, Errno, TransmissionFlags as Flags};
use program::{AccessPolicy, DeviceProgram, PathCommand, SECOND};
use script::{MIB, Script, Sent, device, offer};

fn on_path(script: &Script, path: usize) -> Vec<Sent> {
    script.sent.iter().copied().filter(|sent| sent.path == path).collect()
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

/// W20: back on the path that is waited for, there is nothing to wait for: it is one path, whatever it still owes.
#[test]
fn back_on_the_old_path_there_is_nothing_to_wait_for() {
    let mut s = Script::up(&DeviceProgram { access: AccessPolicy::ActivePassive, ..device(2) });
    s.request(Write, 0, 4096);
    let slow = s.take();
    assert_eq!(slow.path, 0);
    s.event(Event::Path { path: 0, command: PathCommand::Drain });
    let waits = s.request(Read, 40960, 4096);
    assert!(s.nothing_sent(), "the other path must wait");
    s.event(Event::Path { path: 0, command: PathCommand::Reinstate });
    s.open_path(0, offer());
    s.event(Event::Path { path: 1, command: PathCommand::Drain });
    let read = s.sent.iter().copied().find(|sent| sent.data == SendData::Land).expect("it is sent");
    assert_eq!(read.path, 0);
    s.answer(read, Ok(()));
    assert_eq!(s.result(waits), Some(Ok(())));
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
