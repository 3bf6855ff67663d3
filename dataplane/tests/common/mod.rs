// SPDX-License-Identifier: MIT OR Apache-2.0
//! Shared by the driver's tests: programs, a running data plane, a plain blocking host.
#![allow(dead_code, unreachable_pub, reason = "not every test binary uses everything")]

pub mod host;
pub mod server;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dataplane::DataPlane;
use program::{
    AccessPolicy, CanaryTimes, Coherence, Deadlines, DeviceProgram, DeviceStatus, Exclusive, Exports,
    Failback, Groups, Listener, NoPath, NodeProgram, PathProgram, PathState, Portal, Program, Report, SECOND,
    SelectorKind, SocketAddress, Target, Unproven, Writers,
};

pub const MIB: u64 = 1 << 20;

pub fn path(name: &str, target: Target) -> PathProgram {
    PathProgram {
        name: name.into(),
        uri: name.into(),
        target,
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

pub fn device(name: &str, paths: Vec<PathProgram>) -> DeviceProgram {
    DeviceProgram {
        name: name.into(),
        access: AccessPolicy::ActiveActive,
        groups: Groups::Priority,
        selector: SelectorKind::RoundRobin,
        writers: Writers::One,
        coherent: Coherence::Declared,
        exclusive: Exclusive::Issue,
        unproven: Unproven::Assume,
        quiesce: 5 * SECOND,
        no_path: NoPath::Hold(600 * SECOND),
        failback: Failback::Immediate,
        deadline: Deadlines { read: SECOND, write: 2 * SECOND },
        canary: CanaryTimes { interval: SECOND, idle: 10 * SECOND, deadline: SECOND },
        host_sessions: program::HostSessions::Shared,
        hedge_budget_ppm: 30_000,
        retention_bytes: 64 * MIB,
        size_bytes: None,
        // Declared: memory that starts blank proves nothing by its content.
        identity: Some("declared".into()),
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

pub fn memory(size_bytes: u64) -> Target {
    Target::Memory { size_bytes }
}

pub fn nbd(address: SocketAddr, export: &str) -> Target {
    let portal = Portal::Tcp { host: address.ip().to_string(), port: address.port() };
    Target::Nbd { portals: vec![portal], export: export.into(), bind: None }
}

pub fn public() -> Listener {
    Listener { address: SocketAddress::Tcp("127.0.0.1:0".parse().unwrap()), exports: Exports::Public }
}

pub fn program(listeners: Vec<Listener>, devices: Vec<DeviceProgram>) -> Program {
    Program {
        generation: 1,
        node: NodeProgram {
            reactors: 1,
            memory_bytes: 256 * MIB,
            max_sessions: 4096,
            handshake_timeout: 10 * SECOND,
            member: "m1".to_owned(),
            gate_key: None,
        },
        listeners,
        devices,
    }
}

/// A running data plane that is shut down in order at the end of its test.
pub struct Running {
    plane: Option<DataPlane>,
    pub reports: Arc<Mutex<Vec<Report>>>,
}

impl Running {
    pub fn start(program: Program) -> Self {
        let reports: Arc<Mutex<Vec<Report>>> = Arc::default();
        let sink = reports.clone();
        let plane =
            DataPlane::start(Arc::new(program), Box::new(move |report| sink.lock().unwrap().push(report)));
        Self { plane: Some(plane.unwrap()), reports }
    }

    pub fn plane(&self) -> &DataPlane {
        self.plane.as_ref().unwrap()
    }

    /// Address of the listener at this place of the first program.
    pub fn address(&self, index: usize) -> SocketAddr {
        match &self.plane().addresses()[index] {
            SocketAddress::Tcp(address) => *address,
            SocketAddress::Unix(_) => panic!("a Unix socket"),
        }
    }

    pub fn status(&self, device: &str) -> DeviceStatus {
        let all = self.plane().snapshot(Duration::from_secs(10));
        all.into_iter().find(|status| status.name == device).unwrap()
    }

    /// Polls the status until it satisfies `wanted`; only a missing event makes it fail.
    pub fn await_status(&self, device: &str, wanted: impl Fn(&DeviceStatus) -> bool) -> DeviceStatus {
        for _ in 0..600 {
            let status = self.status(device);
            if wanted(&status) {
                return status;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("the status never became as wanted: {:#?}", self.status(device));
    }

    pub fn await_paths(&self, device: &str, states: &[PathState]) {
        self.await_status(device, |status| {
            status.paths.iter().map(|path| path.state).eq(states.iter().copied())
        });
    }

    /// Stops within the bound and waits for the end.
    pub fn stop(mut self, bound: u64) {
        let plane = self.plane.take().unwrap();
        plane.shutdown(bound);
        plane.join();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(plane) = self.plane.take() {
            plane.shutdown(5 * SECOND);
            plane.join();
        }
    }
}
