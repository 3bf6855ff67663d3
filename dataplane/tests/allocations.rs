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
use common::{MIB, Running, device, memory, nbd, path, program, public};
use nbd::{Command, CommandFlags};
use program::{Exports, Listener, PathState, SocketAddress};

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

/// Sends rounds of `DEPTH` equal requests and reads their replies; allocates nothing.
fn rounds(host: &mut Host, requests: &[u8], reply_bytes: usize, replies: &mut [u8]) {
    for _ in 0..ROUNDS {
        host.stream.write_all(requests).unwrap();
        host.stream.read_exact(&mut replies[..DEPTH * reply_bytes]).unwrap();
    }
}

fn count(host: &mut Host, command: Command, len: u64) -> u64 {
    let mut requests = Vec::new();
    for index in 0..DEPTH as u64 {
        requests.extend(host.frame(command, CommandFlags::empty(), index, index * 131_072, len));
        if command == Command::Write {
            requests.resize(requests.len() + len as usize, index as u8);
        }
    }
    let reply_bytes = 16 + if command == Command::Read { len as usize } else { 0 };
    let mut replies = vec![0; DEPTH * reply_bytes];
    // Until every list has the size it needs.
    rounds(host, &requests, reply_bytes, &mut replies);
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    rounds(host, &requests, reply_bytes, &mut replies);
    ALLOCATIONS.load(Ordering::Relaxed) - before
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
