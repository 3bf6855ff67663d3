// SPDX-License-Identifier: MIT OR Apache-2.0
//! Storage and all targets, running side by side for the whole comparison.
//!
//! One storage process serves them all, so that a change of its speed hits all alike. Idle targets cost nothing worth
//! counting; starting them anew for each sample would.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;

use crate::load::{self, Control, LoadOptions, Pattern};
use crate::peers::{self, Device, Holdfast, Listener, PeerError, Process};

/// Way from the client to the storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
pub enum Target {
    /// No proxy.
    Direct,
    /// HAProxy in TCP mode: copies bytes and knows nothing of NBD.
    Haproxy,
    /// nbdkit's nbd plugin: an NBD proxy as it exists today.
    NbdkitNbd,
    /// Holdfast with two paths to the storage, which is how it is used.
    Holdfast,
    /// Holdfast with one path.
    #[value(name = "holdfast-1path")]
    HoldfastOnePath,
    /// Another build of Holdfast with two paths (`--other`): what a change costs.
    HoldfastOther,
    /// Holdfast with two paths that retains no acknowledged writes.
    HoldfastBare,
    /// qemu-nbd as a relay.
    QemuNbd,
}

/// What stands behind all targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
pub enum Storage {
    /// nbdkit's memory plugin.
    Memory,
    /// nbdkit's file plugin on a file in the temporary directory.
    File,
}

impl Target {
    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Haproxy => "haproxy",
            Self::NbdkitNbd => "nbdkit-nbd",
            Self::Holdfast => "holdfast",
            Self::HoldfastOnePath => "holdfast-1path",
            Self::HoldfastOther => "holdfast-other",
            Self::HoldfastBare => "holdfast-bare",
            Self::QemuNbd => "qemu-nbd",
        }
    }

    /// Whether the product's binary is needed.
    pub fn is_holdfast(self) -> bool {
        matches!(self, Self::Holdfast | Self::HoldfastOnePath | Self::HoldfastBare)
    }
}

/// A target that runs.
pub(super) struct Running {
    pub(super) target: Target,
    pub(super) uri: String,
    pub(super) proxy: Option<Proxy>,
}

/// The process of a proxy.
pub(super) enum Proxy {
    Relay(Box<Listener>),
    Holdfast(Box<Holdfast>),
}

/// Everything that runs.
pub(super) struct Rig {
    pub(super) targets: Vec<Running>,
    /// Behind the targets, so that they end first.
    pub(super) storage: Listener,
    /// What the storage keeps its content in, if that is a file.
    file: Option<File>,
}

impl Proxy {
    pub(super) fn process(&mut self) -> &mut Process {
        match self {
            Self::Relay(listener) => &mut listener.process,
            Self::Holdfast(node) => &mut node.process,
        }
    }
}

impl Rig {
    /// Starts storage with `size_bytes` of random content, then the targets.
    pub(super) fn start(
        dir: &Path,
        storage: Storage,
        size_bytes: u64,
        targets: &[Target],
        binaries: &Binaries,
    ) -> Result<Self, PeerError> {
        let (storage, file) = match storage {
            Storage::Memory => (peers::memory(dir, size_bytes)?, None),
            Storage::File => {
                let (listener, image) = peers::file(dir, size_bytes)?;
                (listener, Some(image))
            }
        };
        fill(&storage.uri(), size_bytes)?;
        let start = |target: &Target| start_target(*target, dir, &storage, binaries);
        let targets = targets.iter().map(start).collect::<Result<Vec<Running>, PeerError>>()?;
        Ok(Self { targets, storage, file })
    }

    /// Writes out what the target before has left in the page cache: the next one's FLUSH would pay for it.
    pub(super) fn settle(&self) -> Result<(), PeerError> {
        let synced = self.file.as_ref().map_or(Ok(()), File::sync_all);
        synced.map_err(|e| PeerError::new(format!("the storage's file: {e}")))
    }
}

/// Builds of the product.
#[derive(Clone, Debug, Default)]
pub(super) struct Binaries {
    pub(super) own: Option<PathBuf>,
    pub(super) other: Option<PathBuf>,
}

fn start_target(
    target: Target,
    dir: &Path,
    storage: &Listener,
    binaries: &Binaries,
) -> Result<Running, PeerError> {
    let paths = if target == Target::HoldfastOnePath { 1 } else { 2 };
    let relay = match target {
        Target::Direct => return Ok(Running { target, uri: storage.uri(), proxy: None }),
        Target::Haproxy => peers::haproxy(dir, storage.port)?,
        Target::NbdkitNbd => peers::nbdkit_relay(dir, storage.port)?,
        Target::QemuNbd => peers::qemu_relay(dir, storage.port)?,
        Target::Holdfast | Target::HoldfastOnePath | Target::HoldfastBare | Target::HoldfastOther => {
            let binary = match (target, &binaries.other) {
                (Target::HoldfastOther, Some(other)) => peers::binary(Some(other))?,
                (Target::HoldfastOther, None) => {
                    return Err(PeerError::new("holdfast-other needs --other FILE".to_owned()));
                }
                _ => peers::binary(binaries.own.as_deref())?,
            };
            let retention = (target == Target::HoldfastBare).then(|| "retention = \"0B\"".to_owned());
            let keys = retention.into_iter().collect();
            let device = Device { name: "vol0".to_owned(), keys, paths: vec![storage.uri(); paths] };
            let mut node = Holdfast::start(target.name(), dir, &binary, &[device])?;
            node.await_all_up()?;
            let uri = node.uri("vol0");
            return Ok(Running { target, uri, proxy: Some(Proxy::Holdfast(Box::new(node))) });
        }
    };
    Ok(Running { target, uri: relay.uri(), proxy: Some(Proxy::Relay(Box::new(relay))) })
}

/// Fills an export with stamped sectors: reads then come from real memory, no two blocks are alike, and Holdfast can tell
/// that two paths lead to the same data. Everything is read back, so the storage is known to work.
pub(crate) fn fill(uri: &str, size_bytes: u64) -> Result<(), PeerError> {
    let block_bytes = 64 * 1024;
    let options = LoadOptions {
        pattern: Pattern::Write,
        block_bytes,
        depth: 8,
        duration: Duration::from_mins(10),
        requests: Some(size_bytes / u64::from(block_bytes)),
        verify: true,
        ..LoadOptions::new(uri)
    };
    let report = load::run(&options, &Arc::new(Control::default()))?;
    if report.is_clean() { Ok(()) } else { Err(PeerError::new(format!("the storage is unfit: {report}"))) }
}
