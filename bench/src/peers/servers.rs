// SPDX-License-Identifier: MIT OR Apache-2.0
//! Storage and the relays that Holdfast is compared with, each as its makers ship it.
//!
//! Nothing is tuned: an administrator who puts HAProxy in front of storage writes the file below, and nbdkit and qemu-nbd
//! are started as their manuals say. What could be tuned is named in `docs/benchmarks.md`.

use std::fs;
use std::path::Path;

use super::{PeerError, Process, free_port};

/// A process that listens at a port of 127.0.0.1.
#[derive(Debug)]
pub struct Listener {
    /// The process.
    pub process: Process,
    /// Its port.
    pub port: u16,
}

impl Listener {
    fn start(
        name: &str,
        dir: &Path,
        program: &str,
        arguments: impl FnOnce(u16) -> Vec<String>,
    ) -> Result<Self, PeerError> {
        let port = free_port()?;
        let mut process = Process::start(name, dir, program, &arguments(port))?;
        process.await_listening(port)?;
        Ok(Self { process, port })
    }

    /// URI of the default export.
    pub fn uri(&self) -> String {
        uri_of(self.port, "")
    }
}

/// URI of an export at a port of 127.0.0.1.
pub fn uri_of(port: u16, export: &str) -> String {
    format!("nbd://127.0.0.1:{port}/{export}")
}

/// nbdkit with `words` (plugin, filters, parameters) on a port of its own.
///
/// # Errors
///
/// It does not start.
pub fn nbdkit(name: &str, dir: &Path, words: &[String]) -> Result<Listener, PeerError> {
    Listener::start(name, dir, "nbdkit", |port| nbdkit_arguments(port, words))
}

/// As [`nbdkit`], on a given port.
///
/// # Errors
///
/// It does not start.
pub fn nbdkit_at(port: u16, name: &str, dir: &Path, words: &[String]) -> Result<Listener, PeerError> {
    let mut process = Process::start(name, dir, "nbdkit", &nbdkit_arguments(port, words))?;
    process.await_listening(port)?;
    Ok(Listener { process, port })
}

fn nbdkit_arguments(port: u16, words: &[String]) -> Vec<String> {
    let fixed = ["-f", "-i", "127.0.0.1", "-p"].map(str::to_owned);
    fixed.into_iter().chain([port.to_string()]).chain(words.iter().cloned()).collect()
}

/// nbdkit's memory plugin.
///
/// # Errors
///
/// It does not start.
pub fn memory(dir: &Path, size_bytes: u64) -> Result<Listener, PeerError> {
    nbdkit("storage", dir, &["memory".to_owned(), size_bytes.to_string()])
}

/// nbdkit's file plugin on a new file in `dir`.
///
/// # Errors
///
/// The file cannot be made, or it does not start.
pub fn file(dir: &Path, size_bytes: u64) -> Result<(Listener, fs::File), PeerError> {
    let image = dir.join("image");
    let made = fs::File::create(&image).and_then(|file| file.set_len(size_bytes).map(|()| file));
    let file = made.map_err(|e| PeerError::new(format!("{}: {e}", image.display())))?;
    Ok((nbdkit("storage", dir, &["file".to_owned(), image.display().to_string()])?, file))
}

/// nbdkit's file plugin on an image that is there, as one of several servers of it.
///
/// One thread per connection: nbdkit 1.32 aborts when a connection with several replies pending goes away. Without
/// extents: at each connect it looks for a hole in the file, and where that is memory it occupies a processor for
/// 16 ms for each GiB.
///
/// # Errors
///
/// It does not start.
pub fn of_image(name: &str, dir: &Path, image: &Path) -> Result<Listener, PeerError> {
    let words = ["--threads=1", "--filter=noextents", "file"].map(str::to_owned);
    let words: Vec<String> = words.into_iter().chain([image.display().to_string()]).collect();
    nbdkit(name, dir, &words)
}

/// nbdkit's nbd plugin in front of a port.
///
/// # Errors
///
/// It does not start.
pub fn nbdkit_relay(dir: &Path, storage_port: u16) -> Result<Listener, PeerError> {
    let target = format!("port={storage_port}");
    nbdkit("nbdkit-nbd", dir, &["nbd".to_owned(), "hostname=127.0.0.1".to_owned(), target])
}

/// HAProxy in TCP mode in front of a port.
///
/// # Errors
///
/// It does not start.
pub fn haproxy(dir: &Path, storage_port: u16) -> Result<Listener, PeerError> {
    let file = dir.join("haproxy.cfg");
    let start = |port: u16| {
        let text = format!(
            "defaults\n    mode tcp\n    timeout connect 5s\n    timeout client 1h\n    timeout server 1h\n\n\
             listen nbd\n    bind 127.0.0.1:{port}\n    server storage 127.0.0.1:{storage_port}\n"
        );
        fs::write(&file, text).map(|()| vec!["-db".to_owned(), "-f".to_owned(), file.display().to_string()])
    };
    let port = free_port()?;
    let arguments = start(port).map_err(|e| PeerError::new(format!("{}: {e}", file.display())))?;
    let mut process = Process::start("haproxy", dir, "haproxy", &arguments)?;
    process.await_listening(port)?;
    Ok(Listener { process, port })
}

/// qemu-nbd as a relay in front of a port.
///
/// # Errors
///
/// It does not start.
pub fn qemu_relay(dir: &Path, storage_port: u16) -> Result<Listener, PeerError> {
    Listener::start("qemu-nbd", dir, "qemu-nbd", |port| {
        let fixed = ["-f", "raw", "-t", "-e", "8", "-b", "127.0.0.1", "-p"].map(str::to_owned);
        let last = [port.to_string(), uri_of(storage_port, "")];
        fixed.into_iter().chain(last).collect()
    })
}
