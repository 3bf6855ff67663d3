// SPDX-License-Identifier: MIT OR Apache-2.0
//! A data plane without a control plane, for trying real clients and for profiling:
//!
//! ```text
//! serve LISTEN[,LISTEN] TARGET...
//!   LISTEN  127.0.0.1:10809 or a Unix socket path
//!   TARGET  a file path, mem:BYTES, or nbd:HOST:PORT/EXPORT
//! ```
//!
//! All targets are paths of one device, `vol0`. Set HOLDFAST_REACTORS for more threads.

use std::sync::Arc;
use std::sync::mpsc;

use dataplane::DataPlane;
use program::{
    AccessPolicy, CanaryTimes, Coherence, Deadlines, DeviceProgram, Exclusive, Exports, Failback, Groups,
    Listener, MILLISECOND, NoPath, NodeProgram, PathProgram, Portal, Program, SECOND, SelectorKind,
    SocketAddress, Target, Unproven, Writers,
};

fn target(text: &str) -> Target {
    if let Some(size) = text.strip_prefix("mem:") {
        return Target::Memory { size_bytes: size.parse().expect("mem:BYTES") };
    }
    if let Some(rest) = text.strip_prefix("nbd:") {
        let (address, export) = rest.split_once('/').unwrap_or((rest, ""));
        let (host, port) = address.rsplit_once(':').expect("nbd:HOST:PORT/EXPORT");
        let portal = Portal::Tcp { host: host.into(), port: port.parse().expect("a port") };
        return Target::Nbd { portals: vec![portal], export: export.into(), bind: None };
    }
    if let Some(path) = text.strip_prefix("unix:") {
        return Target::Nbd { portals: vec![Portal::Unix(path.into())], export: String::new(), bind: None };
    }
    Target::File { path: text.into(), create_bytes: None }
}

fn path(index: usize, text: &str) -> PathProgram {
    PathProgram {
        name: format!("p{index}"),
        uri: text.into(),
        target: target(text),
        priority: 50,
        access_state: None,
        weight: 1,
        lanes: 1,
        in_flight: 128,
        drains: false,
        same_cache: Some("one".into()),
        read_only: false,
    }
}

fn device(paths: Vec<PathProgram>) -> DeviceProgram {
    DeviceProgram {
        name: "vol0".into(),
        access: AccessPolicy::ActiveActive,
        groups: Groups::Priority,
        selector: SelectorKind::Latency,
        writers: Writers::One,
        coherent: Coherence::Declared,
        exclusive: Exclusive::Issue,
        unproven: Unproven::Assume,
        quiesce: 5 * SECOND,
        no_path: NoPath::Hold(600 * SECOND),
        failback: Failback::After(60 * SECOND),
        deadline: Deadlines { read: SECOND, write: 2 * SECOND },
        canary: CanaryTimes { interval: SECOND, idle: 10 * SECOND, deadline: SECOND },
        host_sessions: program::HostSessions::Shared,
        hedge_budget_ppm: 30_000,
        retention_bytes: 64 << 20,
        size_bytes: None,
        identity: None,
        recorded: None,
        unclean: false,
        left_elsewhere: false,
        lost_writes: None,
        epoch: 0,
        told_access: None,
        fence: None,
        paths,
    }
}

fn listener(text: &str) -> Listener {
    let address = match text.parse() {
        Ok(address) => SocketAddress::Tcp(address),
        Err(_) => SocketAddress::Unix(text.into()),
    };
    Listener { address, exports: Exports::Public }
}

fn main() {
    let mut args = std::env::args().skip(1);
    let listen = args.next().expect("usage: serve LISTEN[,LISTEN] TARGET...");
    let paths = args.enumerate().map(|(index, text)| path(index, &text)).collect();
    let reactors = std::env::var("HOLDFAST_REACTORS").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let program = Program {
        generation: 1,
        node: NodeProgram {
            reactors,
            memory_bytes: 512 << 20,
            max_sessions: 4096,
            handshake_timeout: 10 * SECOND,
            member: "m1".to_owned(),
            gate_key: None,
        },
        listeners: listen.split(',').map(listener).collect(),
        devices: vec![device(paths)],
    };
    let plane = match DataPlane::start(Arc::new(program), Box::new(|report| eprintln!("{report:?}"))) {
        Ok(plane) => plane,
        Err(error) => {
            eprintln!("{error}");
            std::process::exit(1);
        }
    };
    println!("listening on {:?}", plane.addresses());
    // Until standard input ends.
    let (sender, receiver) = mpsc::channel::<()>();
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        drop(sender);
    });
    let _ = receiver.recv();
    plane.shutdown(5_000 * MILLISECOND);
    plane.join();
}
