// SPDX-License-Identifier: MIT OR Apache-2.0
//! Many devices: start and idle cost.
//!
//! Storage is in this process too, so both sides of every lane are paid for here.

mod common;

use std::time::{Duration, Instant};

use common::{MIB, Running, device, memory, nbd, path, program, public};
use program::{DeviceState, Exports, Listener, SocketAddress};

const DEVICES: usize = 256;
const PATHS: usize = 4;

/// CPU time of all threads of this process.
fn cpu() -> Duration {
    let mut total = 0;
    for task in std::fs::read_dir("/proc/self/task").unwrap() {
        let path = task.unwrap().path().join("schedstat");
        let text = std::fs::read_to_string(path).unwrap_or_default();
        total += text.split(' ').next().and_then(|ns| ns.parse::<u64>().ok()).unwrap_or(0);
    }
    Duration::from_nanos(total)
}

#[test]
fn many_devices_start_quickly_and_idle_cheaply() {
    let probe = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let hidden = probe.local_addr().unwrap();
    drop(probe);
    let paths = || ["a", "b", "c", "d"].map(|name| path(name, nbd(hidden, "storage"))).to_vec();
    let mut devices: Vec<_> = (0..DEVICES).map(|index| device(&format!("vol{index}"), paths())).collect();
    assert_eq!(devices[0].paths.len(), PATHS);
    devices.push(device("storage", vec![path("m", memory(64 * MIB))]));
    let only = Exports::Only(vec!["storage".into()]);
    let listeners = vec![public(), Listener { address: SocketAddress::Tcp(hidden), exports: only }];

    let started = Instant::now();
    let running = Running::start(program(listeners, devices));
    loop {
        let all = running.plane().snapshot(Duration::from_secs(10));
        if all.len() == DEVICES + 1 && all.iter().all(|device| device.state == DeviceState::Optimal) {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let start = started.elapsed();
    // A device counts as busy for ten seconds after its start.
    std::thread::sleep(Duration::from_secs(11));
    let cpu_before = cpu();
    let before = Instant::now();
    // Long enough for every canary to come once.
    std::thread::sleep(Duration::from_secs(11));
    let share = cpu().saturating_sub(cpu_before).as_secs_f64() / before.elapsed().as_secs_f64();
    println!(
        "{DEVICES} devices with {PATHS} paths: up in {start:?}, idle at {:.2} % of a core",
        share * 100.0
    );
    assert!(start < Duration::from_secs(5), "{start:?}");
    // Both sides are paid for here, and machines differ: what is promised is measured elsewhere (docs/benchmarks.md).
    assert!(share < 0.05, "{share}");
}
