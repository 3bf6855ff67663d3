// SPDX-License-Identifier: MIT OR Apache-2.0
//! How fast a path is held to be, and what is no measure of it (design 3.4).

use engine::{Event, SendData, TcpSample};
use nbd::Command::{Flush, Read, Write};
use nbd::{CommandFlags, TransmissionFlags as Flags};
use program::{DeviceProgram, MILLISECOND, Nanos, SECOND, SelectorKind};

use crate::script::{MIB, Script, Sent, device, without};

const QUICK: Nanos = MILLISECOND / 10;

/// Paths of one cache, with room for everything, of which the quickest is taken.
fn by_latency(paths: usize) -> DeviceProgram {
    let mut program = device(paths);
    program.selector = SelectorKind::Latency;
    for path in &mut program.paths {
        path.in_flight = 64;
        path.same_cache = Some("array".into());
    }
    program
}

/// A read as it was sent; what else was sent stays.
fn read(s: &mut Script, offset: u64) -> Sent {
    s.request(Read, offset, 4096);
    let at = s.sent.iter().rposition(|sent| sent.data == SendData::Land).expect("a read is sent");
    s.sent.remove(at).expect("found")
}

/// Reads, one at a time, that take so long on each path; how many each got.
fn reads(s: &mut Script, count: usize, takes: [Nanos; 2]) -> [usize; 2] {
    let mut got = [0; 2];
    for _ in 0..count {
        let sent = read(s, 0);
        s.wait_alive(takes[sent.path], |_| true);
        s.answer(sent, Ok(()));
        got[sent.path] += 1;
    }
    got
}

/// A database has a FLUSH under way all the time, and they all go to one of the paths of a cache. That must
/// not keep it from being measured again.
#[test]
fn a_path_that_flushes_all_the_time_is_measured_again() {
    let mut s = Script::up(&by_latency(2));
    reads(&mut s, 100, [20 * MILLISECOND, QUICK]);
    assert_eq!(reads(&mut s, 100, [20 * MILLISECOND, QUICK])[0], 0, "it is known to be slow");
    let start = s.now;
    let mut got = 0;
    while got == 0 {
        s.request(Flush, 0, 0);
        let at = s.sent.iter().position(|sent| sent.command == Flush).expect("a FLUSH is sent");
        let flush = s.sent.remove(at).expect("found");
        assert_eq!(flush.path, 0);
        got = reads(&mut s, 20, [QUICK, QUICK])[0];
        s.answer(flush, Ok(()));
        assert!(s.now < start + 3 * SECOND, "it rests for ever");
    }
}

/// Where FUA is emulated a FLUSH is the slow half of a write: nothing else tells that a path has many of them.
#[test]
fn a_flush_that_ends_an_emulated_fua_is_load() {
    let mut program = by_latency(2);
    program.selector = SelectorKind::QueueDepth;
    let mut s = Script::new(&program);
    s.open_all(&without(Flags::SEND_FUA));
    for n in 0..8 {
        s.request_with(Write, CommandFlags::FUA, n * 4096, 4096);
    }
    let (ours, others): (Vec<Sent>, Vec<Sent>) = s.sent.drain(..).partition(|sent| sent.path == 0);
    assert_eq!((ours.len(), others.len()), (4, 4));
    for write in ours {
        s.answer(write, Ok(()));
    }
    assert_eq!(s.sent.iter().filter(|sent| sent.command == Flush && sent.path == 0).count(), 4);
    s.sent.clear();
    let paths: Vec<usize> = (0..4).map(|n| read(&mut s, MIB + n * 4096).path).collect();
    assert_eq!(paths.iter().filter(|&&path| path == 0).count(), 2, "four wait on each: {paths:?}");
}

/// What is sent to a server that does one thing at a time waits for its FLUSH, the first request too.
#[test]
fn a_flush_is_load_where_the_server_keeps_order() {
    let mut program = by_latency(2);
    program.selector = SelectorKind::QueueDepth;
    let mut s = Script::up(&program);
    s.request(Flush, 0, 0);
    let first = s.take();
    assert_eq!(first.path, 0);
    let behind: Vec<Sent> = (0..4).map(|n| read(&mut s, n * 4096)).collect();
    assert_eq!(behind.iter().filter(|sent| sent.path == 0).count(), 2, "nothing is known of it yet");
    s.answer(first, Ok(()));
    for sent in behind {
        s.answer(sent, Ok(()));
    }
    s.request(Flush, 0, 0);
    assert_eq!(s.take().path, 0);
    for n in 0..4 {
        let sent = read(&mut s, n * 4096);
        assert_eq!(sent.path, 1, "the FLUSH is one request more");
        s.answer(sent, Ok(()));
    }
}

/// W16: a link was silent for a moment, and then the answers came. How long that took says nothing of the
/// path: were it a measure, the path would rest for many times as long.
#[test]
fn what_a_silent_link_held_up_is_no_measure_of_a_path() {
    let mut s = Script::up(&by_latency(2));
    reads(&mut s, 100, [QUICK, QUICK]);
    let sent: Vec<Sent> = (0..32).map(|n| read(&mut s, n * 4096)).collect();
    let (stuck, fine): (Vec<Sent>, Vec<Sent>) = sent.into_iter().partition(|sent| sent.path == 0);
    assert_eq!(stuck.len(), 16);
    for sent in fine {
        s.answer(sent, Ok(()));
    }
    s.wait(300 * MILLISECOND);
    let sample = TcpSample { unacked: 16, last_ack_ms: 300, rto_us: 5_000, ..TcpSample::default() };
    s.event(Event::Tcp { lane: stuck[0].lane, sample });
    assert_eq!(s.state(0), "down");
    // What waits is asked elsewhere, a few at a time, and is answered there at once.
    while let Some(at) = s.sent.iter().position(|sent| sent.path == 1) {
        let moved = s.sent.remove(at).expect("found");
        s.answer(moved, Ok(()));
    }
    s.wait_alive(300 * MILLISECOND, |sent| sent.path == 1);
    // A read's answer is the first sign of life, and a canary's the last.
    for sent in stuck.into_iter().chain(std::mem::take(&mut s.sent)) {
        assert_eq!(sent.path, 0);
        s.answer(sent, Ok(()));
    }
    assert_eq!(s.state(0), "up", "{}", s.reason(0));
    let got = reads(&mut s, 100, [QUICK, QUICK]);
    assert!((40..=60).contains(&got[0]), "{got:?}");
}
