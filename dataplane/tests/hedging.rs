// SPDX-License-Identifier: MIT OR Apache-2.0
//! Late reads on real sockets: the second copy answers the host in milliseconds, and what the first one brings
//! later reaches nobody (design 3.2, 3.5).

mod common;

use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use common::host::Host;
use common::server::{Connection, SIZE_BYTES, Server};
use common::{Running, device, memory, nbd, path, program, public};
use nbd::Command;
use program::PathState;

const LEN: u64 = 65_536;

/// Answers reads with 0xbb; those of `LEN` bytes only when told to.
fn serve(mut connection: Connection, told: &Receiver<()>) {
    while let Some((header, _)) = connection.request() {
        if header.command == Command::Disconnect as u16 {
            return;
        }
        if header.len == LEN && told.recv().is_err() {
            return;
        }
        let data = vec![0xbb; header.len as usize];
        if connection.reply(header.cookie, 0, &data).is_err() {
            return;
        }
    }
}

#[test]
fn the_late_copy_reaches_nobody() {
    let server = Server::bind();
    let stuck = nbd(server.address(), "disk");
    let (tell, told) = channel();
    let serving = server.run(move |_, connection| {
        serve(connection, &told);
        false
    });
    let paths = vec![path("zeroes", memory(SIZE_BYTES)), path("stuck", stuck)];
    let running = Running::start(program(vec![public()], vec![device("vol0", paths)]));
    running.await_paths("vol0", &[PathState::Up, PathState::Up]);
    let mut host = Host::simple(running.address(0), "vol0");
    let started = Instant::now();
    // In turn: one of them goes to the path that does not answer.
    for _ in 0..2 {
        let data = host.read(0, LEN).unwrap();
        assert!(data.iter().all(|&byte| byte == 0), "the copy that answered in time");
    }
    let took = started.elapsed();
    let hedges = running.status("vol0").hedges;
    assert_eq!((hedges.sent, hedges.won, hedges.lost), (1, 1, 0));
    assert!(took < Duration::from_millis(900), "the age that moves a read is 1 s, this took {took:?}");
    tell.send(()).unwrap();
    running.await_status("vol0", |status| status.paths.iter().all(|path| path.in_flight == 0));
    // The session is in step: nothing of the late data went to it.
    let data = host.read(4096, 512).unwrap();
    assert!(data.iter().all(|&byte| byte == 0) || data.iter().all(|&byte| byte == 0xbb));
    assert_eq!(running.status("vol0").paths.iter().map(|path| path.reads).sum::<u64>(), 4);
    drop(host);
    running.stop(5 * program::SECOND);
    serving.join().unwrap();
}
