// SPDX-License-Identifier: MIT OR Apache-2.0
//! Lanes against scripted servers: whatever a server does to a lane, a host with another
//! path sees neither an error nor wrong data.

mod common;

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use common::host::{Host, pattern};
use common::server::{Connection, SIZE_BYTES, Server};
use common::{MIB, Running, device, nbd, path, program, public};
use nbd::{Command, CommandFlags};
use program::{PathState, Portal, SECOND, Target};

type Disk = Arc<Mutex<Vec<u8>>>;

fn disk() -> Disk {
    Arc::new(Mutex::new(vec![0; SIZE_BYTES as usize]))
}

/// A server that serves `disk` for ever.
fn good(disk: &Disk) -> std::net::SocketAddr {
    let server = Server::bind();
    let address = server.address();
    let disk = disk.clone();
    server.run(move |_, mut connection| {
        connection.serve(&disk);
        true
    });
    address
}

/// A server whose first connection serves `after` READs of the host and then does
/// `fault`; later connections are good.
fn faulty(
    disk: &Disk,
    after: usize,
    fault: impl Fn(&mut Connection, u64, &[u8]) + Send + 'static,
) -> (std::net::SocketAddr, Arc<AtomicUsize>) {
    let server = Server::bind();
    let address = server.address();
    let faults = Arc::new(AtomicUsize::new(0));
    let (disk, count) = (disk.clone(), faults.clone());
    server.run(move |_, mut connection| {
        let mut served = 0;
        while let Some((header, payload)) = connection.request() {
            // Of a READ: a false answer to a WRITE would be a lie no client can see through, and so would false data.
            let io = header.len >= 8192 && header.command == Command::Read as u16;
            if io && count.load(Ordering::SeqCst) == 0 && served == after {
                count.store(1, Ordering::SeqCst);
                let start = header.offset as usize;
                let content = disk.lock().unwrap()[start..start + header.len as usize].to_vec();
                fault(&mut connection, header.cookie, &content);
                return true;
            }
            served += usize::from(io);
            if !connection.serve_one(&disk, &header, &payload) {
                return true;
            }
        }
        true
    });
    (address, faults)
}

/// The first attempt to connect has ended.
fn has_reason(status: &program::DeviceStatus, path: usize) -> bool {
    !status.paths[path].reason.is_empty() && status.paths[path].errors > 0
}

fn two_paths(first: std::net::SocketAddr, second: std::net::SocketAddr) -> Running {
    let paths = vec![path("a", nbd(first, "disk")), path("b", nbd(second, "disk"))];
    let running = Running::start(program(vec![public()], vec![device("vol0", paths)]));
    running.await_paths("vol0", &[PathState::Up, PathState::Up]);
    running
}

/// Writes and reads through a device one of whose paths breaks like this.
fn survives(fault: impl Fn(&mut Connection, u64) + Send + 'static) {
    survives_with(move |connection, cookie, _| fault(connection, cookie));
}

/// The same; the fault is told what the storage holds there.
fn survives_with(fault: impl Fn(&mut Connection, u64, &[u8]) + Send + 'static) {
    let disk = disk();
    let (bad, faults) = faulty(&disk, 3, fault);
    let running = two_paths(bad, good(&disk));
    let mut host = Host::connect(running.address(0), "vol0");
    for index in 0..20_u64 {
        let data = pattern(index, 8192 + index as usize * 3000);
        host.write(index * 131_072, &data).unwrap();
        // Twice: the paths take turns, and every one of them is to be read.
        for _ in 0..2 {
            assert!(host.read(index * 131_072, data.len() as u64).unwrap() == data, "{index}");
        }
    }
    assert_eq!(faults.load(Ordering::SeqCst), 1, "the fault was met");
}

#[test]
fn a_server_that_closes() {
    survives(|_, _| {});
}

#[test]
fn a_server_that_sends_garbage() {
    survives(|connection, _| drop(connection.stream.write_all(&[0x55; 64])));
}

#[test]
fn a_server_that_answers_nobody() {
    survives(|connection, cookie| drop(connection.reply(cookie ^ 0xffff_0000_0000, 0, &[])));
}

/// A connection that broke framing is latched failed: a reply behind the garbage, right in form and wrong in content, is
/// nobody's.
#[test]
fn what_follows_a_broken_frame_is_ignored() {
    survives_with(|connection, cookie, content| {
        let mut bytes = vec![0x55; 64];
        bytes.extend(0x6744_6698_u32.to_be_bytes());
        bytes.extend(0_u32.to_be_bytes());
        bytes.extend(cookie.to_be_bytes());
        bytes.extend(content.iter().map(|byte| !byte));
        drop(connection.stream.write_all(&bytes));
        // It is the other side that closes.
        while connection.request().is_some() {}
    });
}

#[test]
fn a_server_that_closes_within_a_header() {
    survives(|connection, _| drop(connection.stream.write_all(&0x6744_6698_u32.to_be_bytes())));
}

#[test]
fn a_server_that_closes_within_the_payload() {
    survives_with(|connection, cookie, content| drop(connection.reply(cookie, 0, &content[..5000])));
}

#[test]
fn a_server_that_resets() {
    survives(|connection, _| {
        // Unread bytes turn the close into a reset.
        let other = connection.stream.try_clone().unwrap();
        drop(std::mem::replace(&mut connection.stream, other));
    });
}

#[test]
fn a_server_that_stops_reading() {
    // Writes pile up in our socket: the send is cut off half way and its rest dropped,
    // the bytes go over the other path, and the lane stays for replies that never come.
    let disk = disk();
    let server = Server::bind();
    let address = server.address();
    let backing = disk.clone();
    let (stopped, stop) = std::sync::mpsc::channel();
    server.run(move |index, mut connection| {
        if index > 0 {
            connection.serve(&backing);
            return true;
        }
        loop {
            let mut first = [0; 28];
            let (header, payload) = match std::io::Read::read_exact(&mut connection.stream, &mut first) {
                Ok(()) => match nbd::RequestHeader::decode(&first, false) {
                    nbd::Decoded::Header { header, .. } => (header, vec![0; 0]),
                    other => panic!("{other:?}"),
                },
                Err(_) => return true,
            };
            if header.command == Command::Write as u16 {
                // Its payload is never read; the connection stays open to the end.
                stopped.send(connection).unwrap();
                return true;
            }
            if !connection.serve_one(&backing, &header, &payload) {
                return true;
            }
        }
    });
    let running = two_paths(address, good(&disk));
    let mut host = Host::connect(running.address(0), "vol0");
    for index in 0..6_u64 {
        let data = pattern(index, 2 << 20);
        host.write(index * (2 << 20), &data).unwrap();
        assert!(host.read(index * (2 << 20), 2 << 20).unwrap() == data);
    }
    drop(stop.try_recv().expect("the server stopped reading"));
}

#[test]
fn an_io_error_of_one_path_is_asked_of_the_other() {
    let disk = disk();
    let server = Server::bind();
    let address = server.address();
    let backing = disk.clone();
    server.run(move |_, mut connection| {
        while let Some((header, payload)) = connection.request() {
            let alive = if header.len >= 8192 {
                connection.reply(header.cookie, 5, &[]).is_ok()
            } else {
                connection.serve_one(&backing, &header, &payload)
            };
            if !alive {
                break;
            }
        }
        true
    });
    let running = two_paths(address, good(&disk));
    let mut host = Host::connect(running.address(0), "vol0");
    for index in 0..6 {
        host.write(index * 8192, &[index as u8; 8192]).unwrap();
        assert!(host.read(index * 8192, 8192).unwrap() == [index as u8; 8192]);
    }
}

#[test]
fn with_no_path_requests_wait_and_are_answered_later() {
    let disk = disk();
    let gate = Server::bind();
    let address = gate.address();
    let paths = vec![path("a", nbd(address, "disk"))];
    let mut device = device("vol0", paths);
    device.recorded = Some(program::Recorded {
        geometry: program::Geometry {
            size_bytes: SIZE_BYTES,
            transmission_flags: 0b1_0110_1101,
            min_block_bytes: 1,
            preferred_block_bytes: 4096,
            max_payload_bytes: 32 << 20,
        },
        samples: Vec::new(),
    });
    // Bound but not serving yet: the handshake of the lane hangs.
    let running = Running::start(program(vec![public()], vec![device]));
    let mut host = Host::connect(running.address(0), "vol0");
    let cookie = host.send(Command::Write, CommandFlags::empty(), 4096, 8192, &[3; 8192]);
    running.await_status("vol0", |status| status.in_flight == 1);
    let backing = disk.clone();
    gate.run(move |_, mut connection| {
        connection.serve(&backing);
        true
    });
    let answer = host.answer(0).unwrap();
    assert_eq!((answer.cookie, answer.result), (cookie, Ok(Vec::new())));
    assert!(disk.lock().unwrap()[4096..12_288].iter().all(|byte| *byte == 3));
}

#[test]
fn a_failed_path_is_aborted_and_reinstated() {
    let disk = disk();
    let running = two_paths(good(&disk), good(&disk));
    let send = |command| {
        let (device, path) = ("vol0".into(), "a".into());
        running.plane().send(program::ControlCommand::Path { device, path, command })
    };
    send(program::PathCommand::Fail).unwrap();
    running.await_status("vol0", |status| {
        status.paths[0].state != PathState::Up && status.paths[0].lanes_up == 0
    });
    Host::connect(running.address(0), "vol0").write(0, &[1; 10_000]).unwrap();
    send(program::PathCommand::Reinstate).unwrap();
    running.await_status("vol0", |status| status.paths[0].lanes_up == 1);
}

#[test]
fn unknown_devices_and_paths_are_named() {
    let disk = disk();
    let running = two_paths(good(&disk), good(&disk));
    let send = |device: &str, path: &str| {
        let command = program::PathCommand::Drain;
        running
            .plane()
            .send(program::ControlCommand::Path { device: device.into(), path: path.into(), command })
            .unwrap_err()
            .to_string()
    };
    assert_eq!(send("volX", "a"), "there is no device volX");
    assert_eq!(send("vol0", "zz"), "device vol0 has no path zz");
}

#[test]
fn names_are_resolved_and_bad_ones_explained() {
    let disk = disk();
    let address = good(&disk);
    let portal = |host: &str| Portal::Tcp { host: host.into(), port: address.port() };
    let target = |host: &str| Target::Nbd { portals: vec![portal(host)], export: "disk".into(), bind: None };
    let paths = vec![path("a", target("localhost")), path("b", target("no-such-host.invalid"))];
    let running = Running::start(program(vec![public()], vec![device("vol0", paths)]));
    let status = running
        .await_status("vol0", |status| status.paths[0].state == PathState::Up && has_reason(status, 1));
    assert!(status.paths[1].reason.contains("resolved"), "{}", status.paths[1].reason);
}

#[test]
fn a_connection_refused_is_reported_as_such() {
    let free = Server::bind().address();
    let running =
        Running::start(program(vec![public()], vec![device("vol0", vec![path("a", nbd(free, "disk"))])]));
    let status = running.await_status("vol0", |status| has_reason(status, 0));
    assert!(status.paths[0].reason.contains("refused"), "{}", status.paths[0].reason);
}

#[test]
fn a_server_that_never_speaks_is_given_up() {
    let silent = Server::bind();
    let address = silent.address();
    let mut program = program(vec![public()], vec![device("vol0", vec![path("a", nbd(address, "disk"))])]);
    program.node.handshake_timeout = SECOND / 2;
    let running = Running::start(program);
    let status = running.await_status("vol0", |status| has_reason(status, 0));
    assert!(status.paths[0].reason.contains("handshake"), "{}", status.paths[0].reason);
    drop(silent);
}

#[test]
fn a_file_is_a_path_and_keeps_its_data() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("disk");
    let target = || Target::File { path: file.to_str().unwrap().into(), create_bytes: Some(8 * MIB) };
    let data = pattern(3, 100_000);
    {
        let running =
            Running::start(program(vec![public()], vec![device("vol0", vec![path("a", target())])]));
        let mut host = Host::connect(running.address(0), "vol0");
        host.write(12_345, &data).unwrap();
        host.call(Command::WriteZeroes, CommandFlags::FUA, 12_345, 10, &[]).unwrap();
        host.flush().unwrap();
    }
    let content = std::fs::read(&file).unwrap();
    assert_eq!(content.len() as u64, 8 * MIB);
    assert!(content[12_355..112_345] == data[10..] && content[12_345..12_355] == [0; 10]);
    let running = Running::start(program(vec![public()], vec![device("vol0", vec![path("a", target())])]));
    let mut host = Host::connect(running.address(0), "vol0");
    assert!(host.read(12_355, 99_990).unwrap() == data[10..]);
}

#[test]
fn a_missing_file_is_said_to_be_missing() {
    let target = Target::File { path: "/no/such/file".into(), create_bytes: None };
    let running = Running::start(program(vec![public()], vec![device("vol0", vec![path("a", target)])]));
    let status = running.await_status("vol0", |status| has_reason(status, 0));
    assert!(status.paths[0].reason.contains("No such file"), "{}", status.paths[0].reason);
}
