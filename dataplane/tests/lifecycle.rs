// SPDX-License-Identifier: MIT OR Apache-2.0
//! Start, reload and shutdown.

mod common;

use std::net::TcpListener;
use std::sync::Arc;

use common::host::{Host, pattern};
use common::{MIB, Running, device, memory, nbd, path, program, public};
use dataplane::{CommandError, DataPlane, StartError};
use nbd::{Command, CommandFlags};
use program::{ControlCommand, Exports, Listener, PathState, Program, SECOND, SocketAddress};

const NONE: CommandFlags = CommandFlags::empty();

fn listener(address: &str, exports: Exports) -> Listener {
    Listener { address: SocketAddress::Tcp(address.parse().unwrap()), exports }
}

/// The demo: a public device over two NBD paths to storage in this very process.
fn demo() -> Program {
    // Taken and given back, because the program must name the port before it is bound.
    let probe = TcpListener::bind("127.0.0.1:0").unwrap();
    let hidden = probe.local_addr().unwrap();
    drop(probe);
    let target = || nbd(hidden, "storage");
    let devices = vec![
        device("vol0", vec![path("a", target()), path("b", target())]),
        device("storage", vec![path("m", memory(64 * MIB))]),
    ];
    let listeners = vec![public(), listener(&hidden.to_string(), Exports::Only(vec!["storage".into()]))];
    program(listeners, devices)
}

#[test]
fn the_demo_serves_itself() {
    for reactors in [1, 2] {
        let mut program = demo();
        program.node.reactors = reactors;
        let running = Running::start(program);
        running.await_paths("vol0", &[PathState::Up, PathState::Up]);
        let mut host = Host::connect(running.address(0), "vol0");
        for index in 0..50 {
            let data = pattern(index, 1 + (index as usize * 7919) % 300_000);
            host.write(index * 1000, &data).unwrap();
            assert!(host.read(index * 1000, data.len() as u64).unwrap() == data);
        }
        host.flush().unwrap();
    }
}

#[test]
fn a_shutdown_answers_what_was_asked_also_of_storage_in_this_process() {
    let program = demo();
    let running = Running::start(program);
    running.await_paths("vol0", &[PathState::Up, PathState::Up]);
    let mut host = Host::connect(running.address(0), "vol0");
    for index in 0..200 {
        host.send(Command::Write, NONE, index * 65_536, 65_536, &vec![index as u8; 65_536]);
    }
    running.await_status("vol0", |status| status.writes > 0);
    let stopper = std::thread::spawn(move || running.stop(20 * SECOND));
    // Accepted ones are answered well; those that were not read get no reply at all.
    let mut answered = 0;
    while let Ok(answer) = host.answer(0) {
        answer.result.unwrap();
        answered += 1;
    }
    assert!(answered > 0);
    stopper.join().unwrap();
}

#[test]
fn a_shutdown_does_not_wait_longer_than_its_bound() {
    // A path that never answers holds its requests for ever.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut device = device("vol0", vec![path("a", nbd(silent.local_addr().unwrap(), ""))]);
    device.size_bytes = Some(MIB);
    let running = Running::start(program(vec![public()], vec![device]));
    let before = std::time::Instant::now();
    running.stop(SECOND / 2);
    assert!(before.elapsed().as_secs() < 20);
}

#[test]
fn every_port_that_is_taken_is_named_at_once() {
    let taken = [TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap()];
    let mut listeners: Vec<_> =
        taken.iter().map(|t| listener(&t.local_addr().unwrap().to_string(), Exports::Public)).collect();
    listeners
        .push(Listener { address: SocketAddress::Unix("/no/such/dir/s".into()), exports: Exports::Public });
    let program = program(listeners, Vec::new());
    let error = DataPlane::start(Arc::new(program), Box::new(|_| {})).err().unwrap();
    assert!(matches!(&error, StartError::Listen(errors) if errors.len() == 3));
    let text = error.to_string();
    for part in [&taken[0].local_addr().unwrap().to_string(), "another process", "directory of the socket"] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn too_little_memory_is_said_with_what_is_needed() {
    let mut program = program(vec![public()], Vec::new());
    program.node.memory_bytes = 10 * MIB;
    let error = DataPlane::start(Arc::new(program), Box::new(|_| {})).err().unwrap();
    assert_eq!(
        error.to_string(),
        "memory is 10 MiB, but 16 MiB are needed for this number of reactors; raise `memory` or lower `reactors`"
    );
}

#[test]
fn a_reload_leaves_unchanged_devices_alone() {
    let devices = ["keep", "drop"].map(|name| device(name, vec![path("m", memory(MIB))]));
    let program = program(vec![public()], devices.to_vec());
    let running = Running::start(program.clone());
    let mut keep = Host::connect(running.address(0), "keep");
    let mut dropped = Host::connect(running.address(0), "drop");
    keep.write(0, b"kept").unwrap();
    let dangling = dropped.send(Command::Write, NONE, 0, 4, b"done");
    assert_eq!(dropped.answer(0).unwrap().cookie, dangling);

    let mut next = program.clone();
    next.generation = 2;
    next.devices.retain(|device| device.name == "keep");
    next.devices.push(device("new", vec![path("m", memory(2 * MIB))]));
    running.plane().send(ControlCommand::Apply(Arc::new(next.clone()))).unwrap();
    running.await_status("new", |status| status.size_bytes == 2 * MIB);
    assert!(dropped.is_closed(), "sessions of a removed device close at a frame boundary");
    assert_eq!(keep.read(0, 4).unwrap(), b"kept", "the same session, the same data");
    Host::connect(running.address(0), "new").write(0, &[1]).unwrap();

    // The same name again is another device.
    next.devices.push(device("drop", vec![path("m", memory(MIB))]));
    running.plane().send(ControlCommand::Apply(Arc::new(next))).unwrap();
    running.await_status("drop", |status| status.size_bytes == MIB);
    assert_eq!(Host::connect(running.address(0), "drop").read(0, 4).unwrap(), [0; 4]);
}

#[test]
fn a_reload_changes_paths_under_a_session() {
    let mut program = program(vec![public()], vec![device("vol0", vec![path("a", memory(MIB))])]);
    let running = Running::start(program.clone());
    let mut host = Host::connect(running.address(0), "vol0");
    host.write(0, &[5; 4096]).unwrap();
    program.devices[0].paths[0].priority = 60;
    program.devices[0].paths.push(path("late", nbd("127.0.0.1:1".parse().unwrap(), "")));
    running.plane().send(ControlCommand::Apply(Arc::new(program))).unwrap();
    running.await_status("vol0", |status| status.paths.len() == 2 && status.paths[0].priority == 60);
    assert_eq!(host.read(0, 4096).unwrap(), [5; 4096], "memory stays with its path");
}

#[test]
fn listeners_come_and_go() {
    let mut program = program(vec![public()], vec![device("vol0", vec![path("a", memory(MIB))])]);
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("s");
    let running = Running::start(program.clone());
    let old = running.address(0);
    let mut host = Host::connect(old, "vol0");
    program.listeners = vec![Listener {
        address: SocketAddress::Unix(socket.to_str().unwrap().into()),
        exports: Exports::Public,
    }];
    running.plane().send(ControlCommand::Apply(Arc::new(program))).unwrap();
    running.await_status("vol0", |_| socket.exists() && std::net::TcpStream::connect(old).is_err());
    host.write(0, b"still served").unwrap();
    let _unix = std::os::unix::net::UnixStream::connect(&socket).unwrap();
    running.stop(5 * SECOND);
    assert!(!socket.exists(), "its name is taken down");
}

#[test]
fn what_cannot_be_applied_changes_nothing() {
    let program = program(vec![public()], vec![device("vol0", vec![path("a", memory(MIB))])]);
    let running = Running::start(program.clone());
    let mut more = program.clone();
    more.node.reactors = 2;
    let refused = running.plane().send(ControlCommand::Apply(Arc::new(more)));
    assert!(matches!(refused, Err(CommandError::ReactorsChanged)));
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut clash = program;
    clash.listeners.push(listener(&taken.local_addr().unwrap().to_string(), Exports::Public));
    assert!(matches!(
        running.plane().send(ControlCommand::Apply(Arc::new(clash))),
        Err(CommandError::Listen(_))
    ));
    Host::connect(running.address(0), "vol0").write(0, &[1]).unwrap();
}
