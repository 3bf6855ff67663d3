// SPDX-License-Identifier: MIT OR Apache-2.0
//! Host sessions over local storage: every command, every dialect, every way to end.

mod common;

use std::io::Write;
use std::net::TcpStream;

use common::host::{Host, pattern};
use common::{MIB, Running, device, memory, path, program, public};
use nbd::client::{ClientConfig, HandshakeError};
use nbd::{Command, CommandFlags, Errno, OptionError};
use program::{Exports, HostSessions, Listener, SECOND, SocketAddress};

const NONE: CommandFlags = CommandFlags::empty();

fn one_device() -> Running {
    Running::start(program(vec![public()], vec![device("vol0", vec![path("a", memory(64 * MIB))])]))
}

fn in_every_dialect(test: impl Fn(&mut Host)) {
    let running = one_device();
    test(&mut Host::simple(running.address(0), "vol0"));
    test(&mut Host::structured(running.address(0), "vol0"));
    test(&mut Host::connect(running.address(0), "vol0"));
}

#[test]
fn what_is_written_is_read() {
    in_every_dialect(|host| {
        // Around every boundary of the receive path: copied, cut, direct, several chunks.
        for len in [1, 512, 4095, 4096, 8191, 8192, 8193, 12_289, 65_536, 70_000, 131_073, 3 * MIB as usize] {
            let data = pattern(len as u64, len);
            host.write(777, &data).unwrap();
            assert!(host.read(777, len as u64).unwrap() == data, "{len} bytes");
        }
    });
}

#[test]
fn pipelined_requests_are_all_answered() {
    in_every_dialect(|host| {
        let mut bytes = Vec::new();
        for index in 0..2000_u64 {
            let data = pattern(index, 100 + (index as usize * 37) % 9000);
            bytes.extend(host.frame(Command::Write, NONE, index, index * 16_384, data.len() as u64));
            bytes.extend(data);
        }
        let mut sender = host.stream.try_clone().unwrap();
        let writer = std::thread::spawn(move || sender.write_all(&bytes).unwrap());
        let mut cookies: Vec<u64> = (0..2000)
            .map(|_| {
                let answer = host.answer(0).unwrap();
                answer.result.unwrap();
                answer.cookie
            })
            .collect();
        writer.join().unwrap();
        cookies.sort_unstable();
        assert!(cookies.into_iter().eq(0..2000));
        for index in (0..2000_u64).step_by(111) {
            let data = pattern(index, 100 + (index as usize * 37) % 9000);
            assert!(host.read(index * 16_384, data.len() as u64).unwrap() == data);
        }
    });
}

#[test]
fn one_byte_at_a_time_is_enough() {
    let running = one_device();
    let mut host = Host::connect(running.address(0), "vol0");
    let data = pattern(5, 600);
    let mut bytes = host.frame(Command::Write, NONE.with(CommandFlags::PAYLOAD_LEN), 9, 4096, 600);
    bytes.extend(&data);
    for byte in bytes {
        host.stream.write_all(&[byte]).unwrap();
    }
    assert_eq!(host.answer(0).unwrap().cookie, 9);
    assert!(host.read(4096, 600).unwrap() == data);
}

#[test]
fn zeroes_trim_flush_fua_and_cache() {
    in_every_dialect(|host| {
        host.write(0, &vec![7; 65_536]).unwrap();
        host.call(Command::WriteZeroes, NONE, 4096, 4096, &[]).unwrap();
        host.call(Command::WriteZeroes, CommandFlags::NO_HOLE, 8192, 4096, &[]).unwrap();
        host.call(Command::Trim, NONE, 16_384, 4096, &[]).unwrap();
        host.call(Command::Cache, NONE, 0, 65_536, &[]).unwrap();
        host.call(Command::Write, CommandFlags::FUA, 20_480, 3, &[1, 2, 3]).unwrap();
        host.flush().unwrap();
        let data = host.read(0, 65_536).unwrap();
        assert!(data[..4096].iter().all(|byte| *byte == 7));
        assert!(data[4096..12_288].iter().all(|byte| *byte == 0));
        assert_eq!(data[20_480..20_484], [1, 2, 3, 7]);
    });
}

#[test]
fn block_status_tells_holes() {
    let running = one_device();
    let mut host = Host::structured(running.address(0), "vol0");
    host.write(MIB, &[1; 4096]).unwrap();
    let status = host.call(Command::BlockStatus, NONE, 0, 2 * MIB, &[]).unwrap();
    let words: Vec<u32> =
        status.chunks_exact(4).map(|word| u32::from_be_bytes(word.try_into().unwrap())).collect();
    assert_eq!(words[1..5], [MIB as u32, 3, 4096, 0]);
    let one = host.call(Command::BlockStatus, CommandFlags::REQ_ONE, 0, 2 * MIB, &[]).unwrap();
    assert_eq!(one.len(), 4 + 8);
}

#[test]
fn what_does_not_fit_the_export_is_refused_and_the_session_goes_on() {
    in_every_dialect(|host| {
        let end = 64 * MIB;
        assert_eq!(host.write(end - 1, &[0; 2]), Err(Errno::NoSpace));
        assert_eq!(host.read(end, 1), Err(Errno::Invalid));
        assert_eq!(host.read(u64::MAX - 10, 100), Err(Errno::Invalid));
        assert_eq!(host.call(Command::Flush, NONE, 1, 0, &[]), Err(Errno::Invalid));
        assert_eq!(host.call(Command::Trim, CommandFlags::DF, 0, 512, &[]), Err(Errno::Invalid));
        // A payload above the limit is skipped, not stored.
        let long = vec![1; 33 << 20];
        assert!(host.write(0, &long).is_err());
        assert_eq!(host.read(0, 1).unwrap(), [0]);
    });
}

#[test]
fn disc_finishes_what_was_asked_then_closes() {
    let running = one_device();
    let mut host = Host::connect(running.address(0), "vol0");
    for index in 0..100 {
        host.send(Command::Write, NONE, index * 4096, 4096, &[index as u8; 4096]);
    }
    host.send_disconnect();
    for _ in 0..100 {
        host.answer(0).unwrap().result.unwrap();
    }
    assert!(host.is_closed());
    let mut next = Host::connect(running.address(0), "vol0");
    assert_eq!(next.read(99 * 4096, 1).unwrap(), [99]);
}

#[test]
fn nothing_behind_disc_is_executed() {
    let running = one_device();
    let mut host = Host::simple(running.address(0), "vol0");
    host.send_disconnect();
    let mut bytes = host.frame(Command::Write, NONE, 1, 0, 4);
    bytes.extend([9; 4]);
    // The other side may have closed already.
    let _ = host.stream.write_all(&bytes);
    assert!(host.is_closed());
    assert_eq!(Host::connect(running.address(0), "vol0").read(0, 4).unwrap(), [0; 4]);
}

#[test]
fn garbage_ends_its_session_and_no_other() {
    let running = one_device();
    let mut good = Host::connect(running.address(0), "vol0");
    for _ in 0..50 {
        let mut bad = Host::connect(running.address(0), "vol0");
        bad.stream.write_all(&[0xee; 64]).unwrap();
        assert!(bad.is_closed());
    }
    good.write(0, b"still here").unwrap();
    running.await_status("vol0", |status| status.sessions.len() == 1);
}

#[test]
fn a_host_that_vanishes_mid_payload_leaves_nothing() {
    let running = one_device();
    for cut in [1, 27, 28, 29, 4000, 100_000] {
        let mut host = Host::simple(running.address(0), "vol0");
        let mut bytes = host.frame(Command::Write, NONE, 1, 0, 200_000);
        bytes.resize(28 + 200_000, 5);
        host.stream.write_all(&bytes[..cut]).unwrap();
    }
    running.await_status("vol0", |status| status.sessions.is_empty() && status.in_flight == 0);
    let mut host = Host::connect(running.address(0), "vol0");
    assert!(host.read(0, 200_000).unwrap().iter().all(|byte| *byte == 0));
}

#[test]
fn exports_are_found_listed_and_hidden() {
    let hidden = Listener {
        address: SocketAddress::Tcp("127.0.0.1:0".parse().unwrap()),
        exports: Exports::Only(vec!["secret".into()]),
    };
    let devices = ["vol0", "secret"].map(|name| device(name, vec![path("a", memory(MIB))]));
    let running = Running::start(program(vec![public(), hidden], devices.to_vec()));
    let go = |listener: usize, export: &str| {
        Host::connect_as(running.address(listener), ClientConfig::new(export))
    };
    assert!(go(0, "vol0").is_ok());
    assert!(go(0, "").is_ok(), "the empty name is the only visible device");
    assert!(go(1, "secret").is_ok());
    for (listener, export) in [(0, "secret"), (1, "vol0"), (0, "nothing")] {
        let refused = go(listener, export).err().unwrap();
        assert!(matches!(refused, HandshakeError::Refused { error: OptionError::Unknown, .. }), "{refused}");
    }
}

#[test]
fn an_unknown_geometry_holds_the_handshake_then_says_why() {
    let mut program = program(
        vec![public()],
        vec![device("vol0", vec![path("a", common::nbd("127.0.0.1:1".parse().unwrap(), ""))])],
    );
    program.node.handshake_timeout = SECOND / 2;
    let running = Running::start(program);
    let refused = Host::connect_as(running.address(0), ClientConfig::new("vol0")).err().unwrap();
    let HandshakeError::Refused { error: OptionError::Shutdown, text, .. } = refused else {
        panic!("{refused}")
    };
    assert!(text.contains("not known"), "{text}");
}

#[test]
fn a_handshake_that_does_not_end_is_closed() {
    let mut program = program(vec![public()], vec![device("vol0", vec![path("a", memory(MIB))])]);
    program.node.handshake_timeout = SECOND / 2;
    let running = Running::start(program);
    let mut silent = TcpStream::connect(running.address(0)).unwrap();
    let mut all = Vec::new();
    std::io::Read::read_to_end(&mut silent, &mut all).unwrap();
    assert_eq!(all.len(), 18, "the greeting, then EOF");
}

#[test]
fn the_connection_cap_turns_the_next_one_away() {
    let mut program = program(vec![public()], vec![device("vol0", vec![path("a", memory(MIB))])]);
    program.node.max_sessions = 2;
    let running = Running::start(program);
    let mut first = Host::connect(running.address(0), "vol0");
    let _second = Host::connect(running.address(0), "vol0");
    let Err(told) = Host::connect_as(running.address(0), ClientConfig::new("vol0")) else {
        panic!("a third session")
    };
    assert!(told.to_string().contains("max_sessions = 2"), "{told}");
    first.send_disconnect();
    assert!(first.is_closed());
    drop(first);
    running.await_status("vol0", |status| status.sessions.len() == 1);
    Host::connect(running.address(0), "vol0").write(0, &[1]).unwrap();
}

#[test]
fn devices_are_spread_over_reactors() {
    let names = ["a", "b", "c", "d"];
    let devices = names.map(|name| device(name, vec![path("p", memory(MIB))]));
    let mut program = program(vec![public()], devices.to_vec());
    program.node.reactors = 2;
    let running = Running::start(program);
    for (index, name) in names.into_iter().enumerate() {
        let mut host = Host::connect(running.address(0), name);
        host.write(0, &[index as u8; 10_000]).unwrap();
        assert!(host.read(0, 10_000).unwrap().iter().all(|byte| *byte == index as u8));
    }
}

/// W21: one session of a host at a time, if the device is to have it so.
#[test]
fn a_new_session_ends_the_older_ones_of_its_host() {
    let mut exclusive = device("vol0", vec![path("a", memory(64 * MIB))]);
    exclusive.host_sessions = HostSessions::Exclusive;
    let shared = device("vol1", vec![path("a", memory(64 * MIB))]);
    let running = Running::start(program(vec![public()], vec![exclusive, shared]));
    let mut old = Host::connect(running.address(0), "vol0");
    let mut elsewhere = Host::connect(running.address(0), "vol1");
    old.write(0, &pattern(1, 4096)).unwrap();
    let mut new = Host::connect(running.address(0), "vol0");
    assert!(old.is_closed(), "its host has a new session");
    assert!(new.read(0, 4096).unwrap() == pattern(1, 4096));
    elsewhere.write(0, &pattern(2, 512)).unwrap();
    let multi_conn = nbd::TransmissionFlags::CAN_MULTI_CONN;
    assert!(!new.negotiated.flags.contains(multi_conn) && elsewhere.negotiated.flags.contains(multi_conn));
    running.await_status("vol0", |status| status.sessions.len() == 1);
}

/// W19: a Holdfast says that it is one to whoever asks, so that another one in front of it can be patient.
#[test]
fn an_export_says_that_it_is_a_holdfasts() {
    let running = Running::start(program(vec![public()], vec![device("vol0", vec![path("m", memory(MIB))])]));
    let config =
        ClientConfig { list_contexts: Some(nbd::gate::IDENTITY_QUERY.into()), ..ClientConfig::new("vol0") };
    let host = Host::connect_as(running.address(0), config).unwrap();
    assert_eq!(host.negotiated.listed_contexts, [nbd::gate::NODE_CONTEXT]);
}
