// SPDX-License-Identifier: MIT OR Apache-2.0
//! Rule W1: a lane that is given up, or whose process is killed, leaves nothing behind
//! that could reach the storage later.
//!
//! What went wrong before the rule: with io_uring, close() with a receive armed sent no
//! RST at all, and a plain close() or SIGKILL left the send queue to the kernel, which
//! delivered the writes when the link healed.

mod common;

use std::io::ErrorKind;
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};

use common::{drain, lane, next, ring};
use ring::{Errno, Expect, Fd, Message, Pool, Resource, Ring, Wait, socket};

/// Tells this test binary to be the process that is killed; the value is the address.
const VICTIM: &str = "HOLDFAST_RING_TEST_VICTIM";

/// Sends until the kernel takes no more; the last send stays armed.
fn fill(ring: &mut Ring, fd: &Fd, pool: &Pool) -> usize {
    let data = pool.take(1 << 20).freeze();
    let mut accepted = 0;
    loop {
        let mut message = Message::new();
        message.push_buffer(&data, 0, data.len());
        ring.send(2, fd, message);
        ring.submit_and_wait(Wait::NONE).unwrap();
        match ring.next_completion() {
            Some(completion) => accepted += completion.result.unwrap() as usize,
            None => return accepted,
        }
    }
}

#[test]
fn an_abort_resets_at_once_with_receive_and_send_armed() {
    let mut ring = ring();
    let pool = Pool::new(64 << 20);
    let (fd, mut peer) = lane(&mut ring);
    ring.recv_chunk(3, &fd, 1 << 20, Expect::Now);
    let accepted = fill(&mut ring, &fd, &pool);
    assert!(accepted > 0);
    ring.abort(&fd);
    // Nothing was submitted since: the reset does not depend on the cancellations.
    let (read, end) = drain(&mut peer);
    assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert!(read < accepted, "the send queue was dropped, not delivered");
    let mut tokens = [next(&mut ring), next(&mut ring)].map(|completion| {
        assert!(completion.result.is_err() || completion.result == Ok(0));
        completion.token
    });
    tokens.sort_unstable();
    assert_eq!(tokens, [2, 3], "each armed operation ends with its own completion");
    assert_eq!(pool.live_bytes(), 0);
}

#[test]
fn an_aborted_descriptor_closes_after_its_operations() {
    let mut ring = ring();
    let (fd, _peer) = lane(&mut ring);
    ring.recv_chunk(3, &fd, 1, Expect::Now);
    ring.submit_and_wait(Wait::NONE).unwrap();
    ring.abort(&fd);
    assert!(fd.clone().into_owned().is_none(), "operations still hold it");
    assert!(matches!(next(&mut ring).resource, Resource::None));
    while ring.in_flight() > 0 {
        ring.submit_and_wait(Wait { want: 1, timeout_ns: None }).unwrap();
        assert!(ring.next_completion().is_none());
    }
    assert!(fd.into_owned().is_some());
}

#[test]
fn a_killed_process_leaves_no_send_queue() {
    if let Ok(address) = std::env::var(VICTIM) {
        victim(&address);
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_killed_process_leaves_no_send_queue", "--nocapture"])
        .env(VICTIM, listener.local_addr().unwrap().to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut peer, _) = listener.accept().unwrap();
    let accepted = read_report(&mut victim);
    victim.kill().unwrap();
    victim.wait().unwrap();
    await_reset(&peer);
    let (read, end) = drain(&mut peer);
    assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert!(read < accepted, "the peer got {read} of {accepted} bytes");
}

/// Reads nothing while it waits: an open window would let the queue through before the
/// kernel has ended the victim's operations, which it does shortly after the process is reaped.
fn await_reset(peer: &TcpStream) {
    use std::os::fd::AsRawFd;
    let mut poll = libc::pollfd { fd: peer.as_raw_fd(), events: 0, revents: 0 };
    // SAFETY: one valid `pollfd`.
    let ready = unsafe { libc::poll(&raw mut poll, 1, 30_000) };
    assert_eq!(ready, 1, "no reset came");
}

/// The victim prints what its kernel accepted once no more fits.
fn read_report(victim: &mut std::process::Child) -> usize {
    use std::io::{BufRead, BufReader};
    let output = BufReader::new(victim.stdout.take().unwrap());
    output
        .lines()
        .map_while(Result::ok)
        .find_map(|line| line.split_once("accepted ")?.1.parse().ok())
        .expect("the victim reports before it is killed")
}

fn victim(address: &str) -> ! {
    let mut ring = ring();
    let pool = Pool::new(64 << 20);
    let fd = socket::stream(socket::Family::Ipv4).unwrap();
    socket::prepare_lane(&fd, 0).unwrap();
    ring.connect_ip(1, &fd, address.parse().unwrap());
    assert_eq!(next(&mut ring).result, Ok(0));
    ring.recv_chunk(3, &fd, 1 << 20, Expect::Now);
    println!("\naccepted {}", fill(&mut ring, &fd, &pool));
    loop {
        ring.submit_and_wait(Wait { want: 1, timeout_ns: None }).unwrap();
    }
}

#[test]
fn resetting_a_socket_that_never_connected_is_harmless() {
    let fd = socket::stream(socket::Family::Ipv4).unwrap();
    socket::reset(&fd);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let _peer: TcpStream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
}

#[test]
fn a_cancelled_connect_ends() {
    let mut ring = ring();
    let fd = socket::stream(socket::Family::Ipv4).unwrap();
    // A backlog of one that nobody accepts from; the next connection stays in SYN-SENT.
    let listener = nix_listener();
    let address = listener.local_addr().unwrap();
    let _queued: Vec<TcpStream> = (0..2)
        .map_while(|_| TcpStream::connect_timeout(&address, std::time::Duration::from_millis(200)).ok())
        .collect();
    ring.connect_ip(1, &fd, address);
    ring.submit_and_wait(Wait::NONE).unwrap();
    ring.abort(&fd);
    let completion = next(&mut ring);
    assert_eq!(completion.token, 1);
    assert!(matches!(
        completion.result,
        Err(Errno::ECANCELED | Errno::ECONNABORTED | Errno::ECONNRESET) | Ok(0)
    ));
}

/// A listener with the smallest backlog.
fn nix_listener() -> TcpListener {
    use nix::sys::socket as s;
    use std::os::fd::AsRawFd;
    let fd = s::socket(s::AddressFamily::Inet, s::SockType::Stream, s::SockFlag::SOCK_CLOEXEC, None).unwrap();
    let address: std::net::SocketAddr = "127.0.0.1:0".parse().unwrap();
    s::bind(fd.as_raw_fd(), &s::SockaddrStorage::from(address)).unwrap();
    s::listen(&fd, s::Backlog::new(0).unwrap()).unwrap();
    TcpListener::from(fd)
}
