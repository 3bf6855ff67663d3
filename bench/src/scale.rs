// SPDX-License-Identifier: MIT OR Apache-2.0
//! What Holdfast costs when nothing happens: idle host connections, and many devices with many paths.
//!
//! Memory is resident memory of the process; every idle connection has finished its handshake and holds nothing in
//! flight. Devices share one storage server, which has one connection per path, each with a thread of its own: what the
//! machine is short of then is not counted against Holdfast, whose processor time is its own.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use crate::compare::rig::fill;
use crate::load::{Replies, Socket, Target};
use crate::machine::Machine;
use crate::peers::{self, Device, Holdfast, Listener, PeerError};
use crate::units::parse_seconds;

const STORAGE_BYTES: u64 = 16 << 20;
/// Bounds the project promises.
const IDLE_CONNECTIONS_MAX_MIB: f64 = 64.0;
const START_MAX_S: f64 = 5.0;
const IDLE_CPU_MAX_PERCENT: f64 = 2.0;

/// What is measured.
#[derive(Args, Clone, Debug)]
pub struct ScaleOptions {
    /// Idle host connections
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub connections: u32,
    /// Devices
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub devices: u32,
    /// Paths of each device
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=16))]
    pub paths: u32,
    /// For how long it idles
    #[arg(long, value_parser = parse_seconds, default_value = "10", value_name = "SECONDS")]
    pub seconds: Duration,
    /// For how long what was started settles before idling is measured; longer than the idle canary interval
    #[arg(long, value_parser = parse_seconds, default_value = "12", value_name = "SECONDS")]
    pub settle: Duration,
    /// The holdfast binary [default: HOLDFAST_BIN, or beside this program]
    #[arg(long, value_name = "FILE")]
    pub holdfast: Option<PathBuf>,
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// Where it was measured.
    pub machine: Machine,
    /// Idle host connections.
    pub connections: u32,
    /// Resident memory with one device of two paths and no host.
    pub rss_before_mib: f64,
    /// Resident memory with all connections.
    pub rss_with_connections_mib: f64,
    /// Devices.
    pub devices: u32,
    /// Paths of each.
    pub paths: u32,
    /// From the start of the program until every path was up.
    pub start_s: f64,
    /// Processor time while idle, in percent of one processor.
    pub idle_cpu_percent: f64,
    /// Resident memory with all devices.
    pub rss_with_devices_mib: f64,
}

/// Measures.
///
/// # Errors
///
/// Something did not start, or a connection was refused.
pub fn run(options: &ScaleOptions) -> Result<Outcome, PeerError> {
    let dir = tempfile::tempdir().map_err(|e| PeerError::new(format!("no temporary directory: {e}")))?;
    let binary = peers::binary(options.holdfast.as_deref())?;
    let machine = Machine::here(Some(&binary));
    let words = ["--threads=1".to_owned(), "memory".to_owned(), STORAGE_BYTES.to_string()];
    let storage = peers::nbdkit("storage", dir.path(), &words)?;
    fill(&storage.uri(), STORAGE_BYTES)?;
    let (rss_before_mib, rss_with_connections_mib) =
        idle_connections(options, dir.path(), &binary, &storage)?;
    let (start_s, idle_cpu_percent, rss_with_devices_mib) =
        many_devices(options, dir.path(), &binary, &storage)?;
    Ok(Outcome {
        machine,
        connections: options.connections,
        rss_before_mib,
        rss_with_connections_mib,
        devices: options.devices,
        paths: options.paths,
        start_s,
        idle_cpu_percent,
        rss_with_devices_mib,
    })
}

fn device(name: String, storage: &Listener, paths: usize) -> Device {
    Device { name, keys: Vec::new(), paths: vec![storage.uri(); paths] }
}

/// Resident memory without and with idle host connections, in MiB.
fn idle_connections(
    options: &ScaleOptions,
    dir: &Path,
    binary: &Path,
    storage: &Listener,
) -> Result<(f64, f64), PeerError> {
    let devices = [device("vol0".to_owned(), storage, 2)];
    let mut node = Holdfast::start("idle-connections", dir, binary, &devices)?;
    node.await_all_up()?;
    let before = node.process.resident_kib()?;
    let target = Target::parse(&node.uri("vol0"), Replies::Structured)?;
    let mut sockets: Vec<Socket> = Vec::new();
    for _ in 0..options.connections {
        sockets.push(target.open()?.0);
    }
    let after = node.process.resident_kib()?;
    drop(sockets);
    node.process.end();
    Ok((mib(before), mib(after)))
}

/// Seconds to the start, percent of a processor while idle, resident memory in MiB.
fn many_devices(
    options: &ScaleOptions,
    dir: &Path,
    binary: &Path,
    storage: &Listener,
) -> Result<(f64, f64, f64), PeerError> {
    let one = |number| device(format!("vol{number}"), storage, options.paths as usize);
    let devices: Vec<Device> = (0..options.devices).map(one).collect();
    let mut node = Holdfast::start("many-devices", dir, binary, &devices)?;
    let start = node.await_all_up()?;
    std::thread::sleep(options.settle);
    let before = node.process.cpu()?;
    std::thread::sleep(options.seconds);
    let idle_s = (node.process.cpu()? - before).total_s();
    let percent = idle_s * 100.0 / options.seconds.as_secs_f64();
    let resident = node.process.resident_kib()?;
    node.process.end();
    Ok((start.as_secs_f64(), percent, mib(resident)))
}

fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

impl Outcome {
    /// All promised bounds hold. They are promised for 1,000 connections and 256 devices with 4 paths.
    pub fn is_within_bounds(&self) -> bool {
        self.lines().iter().all(|(_, _, met)| *met)
    }

    /// As Markdown.
    pub fn markdown(&self) -> String {
        let mut lines = vec!["| what | measured | bound met |".to_owned(), "|---|---:|---|".to_owned()];
        let row = |(what, measured, met): (String, String, bool)| {
            format!("| {what} | {measured} | {} |", if met { "yes" } else { "**no**" })
        };
        lines.extend(self.lines().into_iter().map(row));
        format!("{}\n{}\n", self.machine.markdown(), lines.join("\n"))
    }

    /// What, measured, met.
    fn lines(&self) -> Vec<(String, String, bool)> {
        let (connections, devices, paths) = (self.connections, self.devices, self.paths);
        let grown = self.rss_with_connections_mib - self.rss_before_mib;
        vec![
            (
                format!("{connections} idle host connections: memory <= {IDLE_CONNECTIONS_MAX_MIB} MiB"),
                format!(
                    "{grown:.1} MiB ({:.1} to {:.1})",
                    self.rss_before_mib, self.rss_with_connections_mib
                ),
                grown <= IDLE_CONNECTIONS_MAX_MIB,
            ),
            (
                format!("{devices} devices with {paths} paths each: all paths up in <= {START_MAX_S} s"),
                format!("{:.2} s ({:.1} MiB)", self.start_s, self.rss_with_devices_mib),
                self.start_s <= START_MAX_S,
            ),
            (
                format!("the same, idle: <= {IDLE_CPU_MAX_PERCENT} % of a processor"),
                format!("{:.2} %", self.idle_cpu_percent),
                self.idle_cpu_percent <= IDLE_CPU_MAX_PERCENT,
            ),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::Outcome;
    use crate::machine::Machine;

    #[test]
    fn every_bound_can_be_missed() {
        let good = Outcome {
            machine: Machine::here(None),
            connections: 1000,
            rss_before_mib: 20.0,
            rss_with_connections_mib: 84.0,
            devices: 256,
            paths: 4,
            start_s: 4.9,
            idle_cpu_percent: 1.9,
            rss_with_devices_mib: 90.0,
        };
        assert!(good.is_within_bounds());
        assert!(good.markdown().contains("| 64.0 MiB (20.0 to 84.0) | yes |"), "{}", good.markdown());
        let heavy = Outcome { rss_with_connections_mib: 84.1, ..good.clone() };
        let slow = Outcome { start_s: 5.1, ..good.clone() };
        let restless = Outcome { idle_cpu_percent: 2.1, ..good };
        for bad in [heavy, slow, restless] {
            assert!(!bad.is_within_bounds(), "{}", bad.markdown());
        }
    }
}
