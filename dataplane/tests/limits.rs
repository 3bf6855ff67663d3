// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a hostile, careless or numerous crowd of hosts may cost.
//!
//! One test, because it looks at the memory of the whole process.

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;

use common::host::Host;
use common::{MIB, Running, device, memory, path, program, public};
use nbd::{Command, CommandFlags};

const NONE: CommandFlags = CommandFlags::empty();

fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

#[test]
fn hosts_are_bounded() {
    let mut program = program(vec![public()], vec![device("vol0", vec![path("a", memory(64 * MIB))])]);
    program.node.memory_bytes = 128 * MIB;
    let running = Running::start(program);
    let mut good = Host::connect(running.address(0), "vol0");
    good.write(0, &vec![1; 4 << 20]).unwrap();

    idle_hosts_cost_little(&running);
    hosts_that_never_read_are_bounded(&running, &mut good);
    bad_connections_leave_nothing(&running);
    large_writes_share(&running);
    good.write(0, b"alive").unwrap();
    assert_eq!(good.read(0, 5).unwrap(), b"alive");
}

/// 1,000 idle host connections cost at most 64 MiB in all, both ends in this process.
fn idle_hosts_cost_little(running: &Running) {
    let before = resident_bytes();
    let mut hosts: Vec<Host> = (0..1000).map(|_| Host::connect(running.address(0), "vol0")).collect();
    for host in &mut hosts {
        host.write(0, &[1; 100]).unwrap();
    }
    running.await_status("vol0", |status| status.sessions.len() == 1001);
    let cost = resident_bytes().saturating_sub(before);
    assert!(cost <= 64 * MIB, "{} KiB", cost / 1024);
}

/// Requests whose replies nobody takes: the reactor stops reading them, other hosts are
/// served all the same.
fn hosts_that_never_read_are_bounded(running: &Running, good: &mut Host) {
    running.await_status("vol0", |status| status.sessions.len() == 1);
    let before = resident_bytes();
    let mut silent: Vec<Host> = (0..20).map(|_| Host::simple(running.address(0), "vol0")).collect();
    for host in &mut silent {
        let mut bytes = Vec::new();
        for index in 0..256 {
            bytes.extend(host.frame(Command::Read, NONE, index, 0, MIB));
        }
        host.stream.write_all(&bytes).unwrap();
    }
    for index in 0..50_u8 {
        good.write(u64::from(index) * 65_536, &vec![index; 65_536]).unwrap();
        assert!(good.read(u64::from(index) * 65_536, 65_536).unwrap() == vec![index; 65_536]);
    }
    // What the kernel's socket buffers hold is not ours and not counted here.
    let cost = resident_bytes().saturating_sub(before);
    assert!(cost <= 160 * MIB, "{} MiB", cost / MIB);
    // A patient one gets everything it asked for.
    let patient = &mut silent[0];
    for _ in 0..256 {
        assert_eq!(patient.answer(MIB as usize).unwrap().result.unwrap().len() as u64, MIB);
    }
}

/// Ten thousand connections that send garbage, half frames or nothing leave memory where
/// it was.
fn bad_connections_leave_nothing(running: &Running) {
    running.await_status("vol0", |status| status.sessions.len() == 1);
    let bad = |index: u32| match index % 4 {
        0 => drop(TcpStream::connect(running.address(0)).unwrap()),
        1 => {
            let mut stream = TcpStream::connect(running.address(0)).unwrap();
            // The other side may close before all is written.
            let _ = stream.write_all(&[0xff; 300]);
            let _ = stream.read_to_end(&mut Vec::new());
        }
        2 => {
            let mut host = Host::simple(running.address(0), "vol0");
            let _ = host.stream.write_all(&[0xff; 300]);
            assert!(host.is_closed());
        }
        _ => {
            let mut host = Host::simple(running.address(0), "vol0");
            let bytes = host.frame(Command::Write, NONE, 1, 0, MIB);
            host.stream.write_all(&bytes).unwrap();
        }
    };
    (0..2000).for_each(bad);
    running.await_status("vol0", |status| status.sessions.len() == 1);
    let before = resident_bytes();
    (0..10_000).for_each(bad);
    running.await_status("vol0", |status| status.sessions.len() == 1);
    let cost = resident_bytes().saturating_sub(before);
    assert!(cost <= 8 * MIB, "{} KiB", cost / 1024);
}

/// Many hosts with the largest requests get through one after the other: each first
/// request waits for memory and none is passed over for ever.
fn large_writes_share(running: &Running) {
    let hosts: Vec<_> = (0..12)
        .map(|index| {
            let address = running.address(0);
            std::thread::spawn(move || {
                let mut host = Host::connect(address, "vol0");
                let data = vec![index; 32 << 20];
                for _ in 0..3 {
                    host.write(0, &data).unwrap();
                    host.read(0, 1).unwrap();
                }
            })
        })
        .collect();
    for host in hosts {
        host.join().unwrap();
    }
}
