// SPDX-License-Identifier: MIT OR Apache-2.0
//! No allocation per request in the steady state: counted, over the whole process.
//!
//! The host side of this test allocates nothing while it counts, so what is counted is
//! the reactor's. A few allocations that do not depend on the number of requests are
//! allowed: canaries and timers go on meanwhile.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::{Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};

use common::host::Host;
use common::server::{Connection, SIZE_BYTES, Server};
use common::{MIB, Running, device, memory, nbd, path, program, public};
use nbd::{Command, CommandFlags};
use program::{DeviceProgram, Exports, Listener, PathState, SocketAddress};

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

struct Counting;

// SAFETY: passes everything on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promises are those of `System::alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are those of `System::dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const DEPTH: usize = 32;
const ROUNDS: usize = 200;
/// Independent of the number of requests, which is 6,400 for every row.
const ALLOWED: u64 = 64;
/// Measurements, until one is steady. What each request allocates shows in all of them.
const ATTEMPTS: usize = 5;

/// Sends rounds of equal requests and reads their replies; allocates nothing.
fn rounds(host: &mut Host, rounds: usize, requests: &[u8], replies: &mut [u8]) {
    for _ in 0..rounds {
        host.stream.write_all(requests).unwrap();
        host.stream.read_exact(replies).unwrap();
    }
}

fn count(host: &mut Host, command: Command, len: u64) -> u64 {
    count_by(host, command, len, DEPTH, ROUNDS)
}

fn count_by(host: &mut Host, command: Command, len: u64, depth: usize, times: usize) -> u64 {
    let mut requests = Vec::new();
    for index in 0..depth as u64 {
        requests.extend(host.frame(command, CommandFlags::empty(), index, index * 131_072, len));
        if command == Command::Write {
            requests.resize(requests.len() + len as usize, index as u8);
        }
    }
    let reply_bytes = 16 + if command == Command::Read { len as usize } else { 0 };
    let mut replies = vec![0; depth * reply_bytes];
    // Until every list has the size it needs.
    rounds(host, times, &requests, &mut replies);
    let mut measured = || {
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        rounds(host, times, &requests, &mut replies);
        ALLOCATIONS.load(Ordering::Relaxed) - before
    };
    // On a machine that holds us up a peak is higher than ever before (writes kept until a FLUSH, alarms that are set, lists that
    // grow with them), and the pool gives back what lay idle: hundreds of allocations by time, none by request.
    let mut least = measured();
    for _ in 1..ATTEMPTS {
        if least > ALLOWED {
            least = least.min(measured());
        }
    }
    least
}

#[test]
fn the_steady_state_allocates_nothing() {
    let probe = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let hidden = probe.local_addr().unwrap();
    drop(probe);
    let target = || nbd(hidden, "storage");
    let devices = vec![
        device("vol0", vec![path("a", target()), path("b", target())]),
        device("storage", vec![path("m", memory(64 * MIB))]),
    ];
    let only = Exports::Only(vec!["storage".into()]);
    let listeners = vec![public(), Listener { address: SocketAddress::Tcp(hidden), exports: only }];
    let running = Running::start(program(listeners, devices));
    running.await_paths("vol0", &[PathState::Up, PathState::Up]);
    let mut host = Host::simple(running.address(0), "vol0");
    for (command, len) in
        [(Command::Write, 4096), (Command::Read, 4096), (Command::Write, 100_000), (Command::Read, 100_000)]
    {
        let allocations = count(&mut host, command, len);
        println!("{allocations} allocations for {} times {command:?} of {len} bytes", DEPTH * ROUNDS);
        assert!(
            allocations <= ALLOWED,
            "{allocations} for {} times {command:?} of {len} bytes",
            DEPTH * ROUNDS
        );
    }
}

/// Reads answered by the slow path between two late ones.
const PROMPT: u32 = 40;
/// How late: past the age that hedges a read, not so late that the path is given up.
const LATE: std::time::Duration = std::time::Duration::from_millis(2);

/// Answers reads with zeroes, now and then late; allocates nothing.
fn serve_with_hiccups(mut connection: Connection) {
    let (mut header, mut reply) = ([0; 28], vec![0; 16 + 65_536]);
    reply[..4].copy_from_slice(&0x6744_6698_u32.to_be_bytes());
    let mut reads = 0;
    while connection.stream.read_exact(&mut header).is_ok() && header[6..8] != [0, 2] {
        reply[8..16].copy_from_slice(&header[8..16]);
        let len = u32::from_be_bytes(header[24..28].try_into().unwrap()) as usize;
        reads += 1;
        if reads % PROMPT == 0 {
            std::thread::sleep(LATE);
        }
        if connection.stream.write_all(&reply[..16 + len]).is_err() {
            return;
        }
    }
}

/// Second copies of late reads take nothing either.
#[test]
fn hedged_reads_allocate_nothing() {
    let server = Server::bind();
    let slow = nbd(server.address(), "disk");
    let serving = server.run(|_, connection| {
        serve_with_hiccups(connection);
        false
    });
    let paths = vec![path("fast", memory(SIZE_BYTES)), path("slow", slow)];
    let vol0 = DeviceProgram { hedge_budget_ppm: 500_000, ..device("vol0", paths) };
    let running = Running::start(program(vec![public()], vec![vol0]));
    running.await_paths("vol0", &[PathState::Up, PathState::Up]);
    let mut host = Host::simple(running.address(0), "vol0");
    // On a busy machine both paths may stall at once; what is then found out of a path is written down.
    let fewest = (0..3).map(|_| count_hedged(&running, &mut host)).min().unwrap();
    assert!(fewest <= ALLOWED, "{fewest}");
    drop(host);
    running.stop(5 * program::SECOND);
    serving.join().unwrap();
}

fn count_hedged(running: &Running, host: &mut Host) -> u64 {
    let before = running.status("vol0").hedges;
    let allocations = count_by(host, Command::Read, 4096, 2, 1600);
    let after = running.status("vol0").hedges;
    println!("{allocations} allocations for 3200 reads, {} hedged", after.sent - before.sent);
    assert!(after.sent - before.sent >= 10, "hardly any read was hedged: {after:?}");
    allocations
}
