// SPDX-License-Identifier: MIT OR Apache-2.0
//! Shared by the ring's tests: a ring, connected sockets, waiting for completions.

use std::io::Read;
use std::net::{TcpListener, TcpStream};

use ring::{Completion, Fd, Ring, RingConfig, Wait, socket};

/// Long enough that only a missing event lets it pass.
const PATIENCE_NS: u64 = 30_000_000_000;

pub(crate) fn ring() -> Ring {
    let config =
        RingConfig { submission_entries: 64, completion_entries: 256, chunks: 4, chunk_bytes: 16 << 10 };
    Ring::new(config).unwrap()
}

/// Waits for the next completion.
pub(crate) fn next(ring: &mut Ring) -> Completion {
    for _ in 0..8 {
        if let Some(completion) = ring.next_completion() {
            return completion;
        }
        let wait = Wait { want: 1, timeout_ns: Some(PATIENCE_NS) };
        ring.submit_and_wait(wait).unwrap();
    }
    panic!("no completion came");
}

/// A TCP lane connected through the ring, and the other end.
pub(crate) fn lane(ring: &mut Ring) -> (Fd, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let fd = socket::stream(socket::Family::of(address)).unwrap();
    socket::prepare_lane(&fd, 2000).unwrap();
    ring.connect_ip(1, &fd, address);
    assert_eq!(next(ring).result, Ok(0));
    let (peer, _) = listener.accept().unwrap();
    (fd, peer)
}

/// What the peer reads until the end: the bytes, and how it ended.
#[allow(dead_code, reason = "not every test binary uses it")]
pub(crate) fn drain(peer: &mut TcpStream) -> (usize, std::io::Result<()>) {
    let mut total = 0;
    let mut buffer = vec![0; 64 << 10];
    loop {
        match peer.read(&mut buffer) {
            Ok(0) => return (total, Ok(())),
            Ok(n) => total += n,
            Err(error) => return (total, Err(error)),
        }
    }
}
