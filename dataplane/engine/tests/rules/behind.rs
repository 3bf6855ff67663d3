// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is sent behind a FLUSH waits for it where the server does one request at a time.

use nbd::Command::{Flush, Read, Write};
use program::{DeviceProgram, MILLISECOND};

use crate::script::{Script, Sent, device};

/// Room for everything on each path.
fn wide(paths: usize) -> DeviceProgram {
    let mut program = device(paths);
    for path in &mut program.paths {
        path.in_flight = 64;
    }
    program
}

/// A FLUSH under way, after one write so that there is something to cover.
fn flushing(program: &DeviceProgram) -> (Script, Sent) {
    let mut s = Script::up(program);
    s.request(Write, 0, 4096);
    let write = s.take();
    s.answer(write, Ok(()));
    s.request(Flush, 0, 0);
    let flush = s.take();
    assert_eq!(flush.command, Flush);
    (s, flush)
}

/// Reads that are not answered; how many of them went to this path.
fn reads_on(s: &mut Script, path: usize, reads: u64) -> usize {
    for n in 0..reads {
        s.request(Read, n * 4096, 4096);
    }
    let on_path = s.sent.iter().filter(|sent| sent.path == path).count();
    assert_eq!(s.sent.len() as u64, reads);
    on_path
}

#[test]
fn few_requests_follow_a_flush_while_another_path_has_room() {
    let (mut s, flush) = flushing(&wide(2));
    assert_eq!(reads_on(&mut s, flush.path, 40), 4);
    // The server goes on in order: the FLUSH first.
    s.answer(flush, Ok(()));
    s.sent.clear();
    assert!(reads_on(&mut s, flush.path, 40) > 4, "the path is used again");
}

#[test]
fn a_server_that_answers_past_a_flush_keeps_its_share() {
    let (mut s, flush) = flushing(&wide(2));
    assert_eq!(reads_on(&mut s, flush.path, 20), 4);
    let at = s.sent.iter().position(|sent| sent.path == flush.path).expect("four are");
    let past = s.sent.remove(at).expect("found");
    s.answer(past, Ok(()));
    s.sent.clear();
    assert!(reads_on(&mut s, flush.path, 40) > 4, "known to answer out of order");
    s.answer(flush, Ok(()));
}

/// What was ahead of a FLUSH when that was sent is answered before it by any server.
#[test]
fn an_answer_from_ahead_of_a_flush_tells_nothing() {
    let mut s = Script::up(&wide(2));
    s.request(Write, 0, 4096);
    let write = s.take();
    s.answer(write, Ok(()));
    for n in 0..8 {
        s.request(Read, n * 4096, 4096);
    }
    let ahead: Vec<Sent> = s.sent.drain(..).collect();
    s.request(Flush, 0, 0);
    let flush = s.take();
    for sent in ahead.into_iter().filter(|sent| sent.path == flush.path) {
        s.answer(sent, Ok(()));
    }
    assert_eq!(reads_on(&mut s, flush.path, 40), 4);
}

/// A path that has to earn its share gets no more of it because another has a FLUSH under way.
#[test]
fn probation_is_not_cut_short() {
    let mut s = Script::up(&wide(2));
    s.reset(1);
    s.wait(0);
    s.open_path(1, crate::script::offer());
    s.wait_alive(500 * MILLISECOND, |_| true);
    assert_eq!(s.state(1), "probation");
    s.request(Write, 0, 4096);
    let write = s.take();
    assert_eq!(write.path, 0);
    s.answer(write, Ok(()));
    s.request(Flush, 0, 0);
    assert_eq!(s.take().path, 0);
    assert!(reads_on(&mut s, 0, 40) >= 38, "it has its small share");
}

#[test]
fn the_only_path_with_room_takes_the_rest() {
    let mut program = wide(2);
    program.paths[1].in_flight = 8;
    let (mut s, flush) = flushing(&program);
    assert_eq!(flush.path, 0);
    assert_eq!(reads_on(&mut s, 0, 40), 32);
    let (mut s, flush) = flushing(&wide(1));
    assert_eq!(reads_on(&mut s, flush.path, 40), 40);
}
