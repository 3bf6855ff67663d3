// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every operation of the ring against real sockets and files.

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use common::{lane, next, ring};
use ring::{Errno, Expect, Fd, Message, Pool, Resource, Ring, Wait, file, listen, socket, wake};

#[test]
fn accepts_until_cancelled() {
    let mut ring = ring();
    let listener = listen::tcp("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listen::tcp_address(&listener).unwrap();
    let listener = Fd::new(listener);
    ring.accept(7, &listener);
    for _ in 0..3 {
        let _client = TcpStream::connect(address).unwrap();
        let completion = next(&mut ring);
        assert_eq!(completion.token, 7);
        assert!(completion.more);
        assert!(matches!(completion.resource, Resource::Accepted(_)));
    }
    ring.cancel(&listener);
    let last = next(&mut ring);
    assert_eq!((last.token, last.result, last.more), (7, Err(Errno::ECANCELED), false));
}

#[test]
fn connects_to_unix_sockets_and_reports_refusal() {
    let mut ring = ring();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let fd = socket::stream(socket::Family::Unix).unwrap();
    ring.connect_unix(1, &fd, &path).unwrap();
    assert_eq!(next(&mut ring).result, Err(Errno::ENOENT));
    let _listener = listen::unix(&path).unwrap();
    let fd = socket::stream(socket::Family::Unix).unwrap();
    ring.connect_unix(2, &fd, &path).unwrap();
    assert_eq!(next(&mut ring).result, Ok(0));
}

#[test]
fn receives_into_chunks_and_reports_eof() {
    let mut ring = ring();
    let (fd, mut peer) = lane(&mut ring);
    ring.recv_chunk(5, &fd, 1 << 20, Expect::Now);
    peer.write_all(b"hello").unwrap();
    let completion = next(&mut ring);
    let Resource::Chunk(chunk) = completion.resource else { panic!("no chunk") };
    assert_eq!(&chunk[..], b"hello");
    assert_eq!(ring.chunks_available(), 3);
    drop(chunk);
    assert_eq!(ring.chunks_available(), 4);
    ring.recv_chunk(6, &fd, 1 << 20, Expect::Now);
    drop(peer);
    let completion = next(&mut ring);
    assert_eq!(completion.result, Ok(0));
    assert!(matches!(completion.resource, Resource::None));
    assert_eq!(ring.chunks_available(), 4);
}

#[test]
fn a_receive_takes_no_more_than_asked() {
    let mut ring = ring();
    let (fd, mut peer) = lane(&mut ring);
    peer.write_all(b"headerpayload").unwrap();
    ring.recv_chunk(1, &fd, 6, Expect::Now);
    let Resource::Chunk(chunk) = next(&mut ring).resource else { panic!("no chunk") };
    assert_eq!(&chunk[..], b"header");
    let pool = Pool::new(1 << 20);
    ring.recv_into(2, &fd, pool.take(7), 0, 7, true);
    let completion = next(&mut ring);
    assert_eq!(completion.result, Ok(7));
    let Resource::Buffer(buffer) = completion.resource else { panic!("no buffer") };
    assert_eq!(&buffer[..], b"payload");
}

#[test]
fn without_a_free_chunk_a_receive_ends_with_enobufs() {
    let mut ring = ring();
    let (fd, mut peer) = lane(&mut ring);
    let mut held = Vec::new();
    for _ in 0..4 {
        peer.write_all(b"x").unwrap();
        ring.recv_chunk(1, &fd, 1, Expect::Now);
        let Resource::Chunk(chunk) = next(&mut ring).resource else { panic!("no chunk") };
        held.push(chunk);
    }
    peer.write_all(b"y").unwrap();
    ring.recv_chunk(2, &fd, 1, Expect::Now);
    assert_eq!(next(&mut ring).result, Err(Errno::ENOBUFS));
    held.pop();
    ring.recv_chunk(3, &fd, 1, Expect::Now);
    let Resource::Chunk(chunk) = next(&mut ring).resource else { panic!("no chunk") };
    assert_eq!(&chunk[..], b"y");
}

#[test]
fn a_message_of_many_parts_arrives_in_order() {
    let mut ring = ring();
    let (fd, mut peer) = lane(&mut ring);
    let pool = Pool::new(1 << 20);
    let mut expected = Vec::new();
    let mut message = Message::new();
    for index in 0..100_u8 {
        let mut data = pool.take(700);
        data.fill(index);
        expected.extend([index; 16]);
        expected.extend(&data[10..600]);
        message.push_header(&[index; 16]);
        message.push_buffer(&data.freeze(), 10, 590);
    }
    let reader = std::thread::spawn(move || {
        let mut bytes = vec![0; expected.len()];
        peer.read_exact(&mut bytes).unwrap();
        assert!(bytes == expected);
    });
    let message = send_all(&mut ring, &fd, message);
    assert!(pool.live_bytes() > 0, "the message still holds its buffers");
    drop(message);
    assert_eq!(pool.live_bytes(), 0);
    reader.join().unwrap();
}

fn send_all(ring: &mut Ring, fd: &Fd, mut message: Box<Message>) -> Box<Message> {
    while message.remaining() > 0 {
        ring.send(1, fd, message);
        let completion = next(ring);
        let Resource::Message(back) = completion.resource else { panic!("no message") };
        message = back;
        message.advance(completion.result.unwrap() as usize);
    }
    message
}

#[test]
fn a_large_send_continues_where_it_stopped() {
    let mut ring = ring();
    let (fd, mut peer) = lane(&mut ring);
    let pool = Pool::new(64 << 20);
    let mut data = pool.take(32 << 20);
    for (index, word) in data.chunks_exact_mut(8).enumerate() {
        word.copy_from_slice(&(index as u64).to_be_bytes());
    }
    let data = data.freeze();
    let mut message = Message::new();
    message.push_buffer(&data, 0, data.len());
    let reader = std::thread::spawn(move || {
        let mut bytes = vec![0; 32 << 20];
        peer.read_exact(&mut bytes).unwrap();
        bytes
    });
    send_all(&mut ring, &fd, message);
    assert!(reader.join().unwrap() == data[..]);
}

#[test]
fn reads_writes_and_syncs_a_file() {
    let mut ring = ring();
    let directory = tempfile::tempdir().unwrap();
    let storage = file::open(&directory.path().join("disk"), Some(1 << 20)).unwrap();
    let fd = Fd::new(storage.fd);
    let pool = Pool::new(1 << 20);
    let mut data = pool.take(4096);
    data.fill(0xa5);
    let mut message = Message::new();
    message.push_buffer(&data.freeze(), 0, 4096);
    message.push_zeroes(4096);
    ring.write_at(1, &fd, message, 1000, true);
    assert_eq!(next(&mut ring).result, Ok(8192));
    ring.sync_data(2, &fd);
    assert_eq!(next(&mut ring).result, Ok(0));
    assert_eq!(read(&mut ring, &fd, &pool, 1000, 4097), [vec![0xa5; 4096], vec![0]].concat());
    ring.fallocate(3, &fd, file::PUNCH_HOLE, 1000, 4096);
    assert_eq!(next(&mut ring).result, Ok(0));
    assert_eq!(read(&mut ring, &fd, &pool, 1000, 4096), vec![0; 4096]);
}

fn read(ring: &mut Ring, fd: &Fd, pool: &Pool, offset: u64, len: usize) -> Vec<u8> {
    ring.read_at(9, fd, pool.take(len), 0, len, offset);
    let completion = next(ring);
    assert_eq!(completion.result, Ok(len as u32));
    let Resource::Buffer(buffer) = completion.resource else { panic!("no buffer") };
    buffer.to_vec()
}

#[test]
fn another_thread_wakes_the_ring() {
    let mut ring = ring();
    let waker = wake::Waker::new().unwrap();
    let source = waker.source().unwrap();
    for _ in 0..3 {
        ring.read_event(4, &source);
        let waker = waker.clone();
        let thread = std::thread::spawn(move || {
            waker.wake();
            waker.wake();
        });
        assert_eq!(next(&mut ring).token, 4);
        source.acknowledge();
        thread.join().unwrap();
        if !ring_is_quiet(&mut ring, &source) {
            source.acknowledge();
        }
    }
}

/// The second `wake` may come after the acknowledgement and signal again.
fn ring_is_quiet(ring: &mut Ring, source: &wake::WakeSource) -> bool {
    ring.read_event(5, source);
    ring.submit_and_wait(Wait::NONE).unwrap();
    ring.cancel(source.fd());
    next(ring).result.is_err()
}

#[test]
fn a_wait_ends_at_its_time_limit() {
    let mut ring = ring();
    let (fd, _peer) = lane(&mut ring);
    ring.recv_chunk(1, &fd, 1, Expect::Now);
    let before = ring::clock::boottime_ns();
    ring.submit_and_wait(Wait { want: 1, timeout_ns: Some(20_000_000) }).unwrap();
    assert!(ring::clock::boottime_ns() - before >= 20_000_000);
    assert!(ring.next_completion().is_none());
}

#[test]
fn an_alarm_rings_after_its_time() {
    let mut ring = ring();
    let before = ring::clock::boottime_ns();
    ring.alarm(8, 20_000_000);
    ring.alarm(9, 10_000_000);
    assert_eq!((next(&mut ring).token, next(&mut ring).token), (9, 8));
    assert!(ring::clock::boottime_ns() - before >= 20_000_000);
}

#[test]
fn a_plain_send_takes_what_fits() {
    let mut ring = ring();
    let (fd, mut peer) = lane(&mut ring);
    let pool = Pool::new(64 << 20);
    let data = pool.take(32 << 20).freeze();
    let mut message = Message::new();
    message.push_header(b"header");
    message.push_buffer(&data, 0, data.len());
    let sent = message.send_now(&fd).unwrap();
    assert!(sent > 6 && message.remaining() == data.len() + 6 - sent);
    while message.send_now(&fd).unwrap() > 0 {}
    let mut start = [0; 6];
    peer.read_exact(&mut start).unwrap();
    assert_eq!(&start, b"header");
    drop(peer);
    ring.abort(&fd);
    assert!(message.send_now(&fd).is_err());
}

#[test]
fn more_operations_than_the_queue_holds() {
    let mut ring = ring();
    let directory = tempfile::tempdir().unwrap();
    let storage = file::open(&directory.path().join("disk"), Some(1 << 20)).unwrap();
    let fd = Fd::new(storage.fd);
    let pool = Pool::new(16 << 20);
    for token in 0..1000 {
        ring.read_at(token, &fd, pool.take(512), 0, 512, 0);
    }
    let mut tokens: Vec<_> = (0..1000).map(|_| next(&mut ring).token).collect();
    tokens.sort_unstable();
    assert!(tokens.into_iter().eq(0..1000));
    assert_eq!(ring.in_flight(), 0);
    assert_eq!(pool.live_bytes(), 0);
}

#[test]
fn dropping_the_ring_waits_for_what_it_lent_to_the_kernel() {
    let pool = Pool::new(1 << 20);
    let (a, _b) = UnixStream::pair().unwrap();
    let fd = Fd::new(a.into());
    let mut ring = ring();
    ring.recv_into(1, &fd, pool.take(4096), 0, 4096, true);
    ring.submit_and_wait(Wait::NONE).unwrap();
    assert_eq!(pool.live_bytes(), 4096);
    drop(ring);
    assert_eq!(pool.live_bytes(), 0);
    assert!(fd.into_owned().is_some(), "no operation holds the descriptor any more");
}

#[test]
fn a_descriptor_is_given_away_only_when_idle() {
    let mut ring = ring();
    let (a, _b) = UnixStream::pair().unwrap();
    let fd = Fd::new(a.into());
    ring.recv_chunk(1, &fd, 1, Expect::Now);
    assert!(fd.clone().into_owned().is_none());
    ring.cancel(&fd);
    assert_eq!(next(&mut ring).result, Err(Errno::ECANCELED));
    while ring.in_flight() > 0 {
        ring.submit_and_wait(Wait { want: 1, timeout_ns: None }).unwrap();
        assert!(ring.next_completion().is_none());
    }
    assert!(fd.into_owned().is_some());
}

#[test]
fn a_closed_window_is_seen_as_bytes_not_sent() {
    let mut ring = ring();
    let (fd, _peer) = lane(&mut ring);
    let pool = Pool::new(64 << 20);
    let data = pool.take(32 << 20).freeze();
    let mut message = Message::new();
    message.push_buffer(&data, 0, data.len());
    ring.send(1, &fd, message);
    next(&mut ring);
    let info = socket::tcp_info(&fd).unwrap();
    assert!(info.outq_bytes > 0 && info.notsent_bytes > 0, "{info:?}");
    assert!(info.rto_us > 0);
    let host = Fd::new(TcpStream::connect(listening()).unwrap().into());
    socket::prepare_host(&host).unwrap();
    assert_eq!(socket::tcp_info(&host).unwrap().outq_bytes, 0);
}

fn listening() -> std::net::SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || listener.accept());
    address
}
