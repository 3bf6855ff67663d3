// SPDX-License-Identifier: MIT OR Apache-2.0
//! Holdfast as a user runs it: a configuration file, `holdfast serve`, the HTTP API.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::{PeerError, Process, free_port, uri_of};

/// Longest wait for an answer of the API.
const API_TIMEOUT: Duration = Duration::from_secs(5);

/// One device of a configuration: its name and the URIs of its paths.
#[derive(Clone, Debug)]
pub struct Device {
    /// Export name.
    pub name: String,
    /// Lines of its configuration beside the defaults.
    pub keys: Vec<String>,
    /// URIs; the paths are named `p0`, `p1` and so on.
    pub paths: Vec<String>,
}

/// A running node; ends on drop.
#[derive(Debug)]
pub struct Holdfast {
    /// The process.
    pub process: Process,
    nbd_port: u16,
    api_port: u16,
    started: Instant,
}

/// The part of `/v1/status` that is used here.
#[derive(Debug, Deserialize)]
struct Status {
    devices: Vec<DeviceStatus>,
}

#[derive(Debug, Deserialize)]
struct DeviceStatus {
    paths: Vec<PathStatus>,
}

/// One path.
#[derive(Clone, Debug, Deserialize)]
pub struct PathStatus {
    /// As configured.
    pub name: String,
    /// `up`, `down` and so on.
    pub state: String,
    /// Reads completed.
    pub reads: u64,
    /// Writes completed.
    pub writes: u64,
    /// Why it is in this state.
    #[serde(default)]
    pub reason: String,
}

/// Where the binary is: as told, `HOLDFAST_BIN`, or beside this program.
///
/// # Errors
///
/// There is none.
pub fn binary(told: Option<&Path>) -> Result<PathBuf, PeerError> {
    let from_environment = || std::env::var_os("HOLDFAST_BIN").map(PathBuf::from);
    let beside = || Some(std::env::current_exe().ok()?.with_file_name("holdfast"));
    let path = told.map(Path::to_owned).or_else(from_environment).or_else(beside).unwrap_or_default();
    if path.is_file() {
        return Ok(path);
    }
    let hint = "build it (cargo build --release -p holdfast), or give --holdfast or HOLDFAST_BIN";
    Err(PeerError::new(format!("no holdfast at {}: {hint}", path.display())))
}

impl Holdfast {
    /// Starts `holdfast serve` with these devices; everything else is the default. Its files are in `dir/NAME`. Returns once
    /// the API answers.
    ///
    /// # Errors
    ///
    /// It does not start.
    pub fn start(name: &str, dir: &Path, binary: &Path, devices: &[Device]) -> Result<Self, PeerError> {
        let (nbd_port, api_port) = (free_port()?, free_port()?);
        let home = dir.join(name);
        let file = home.join("holdfast.toml");
        let text = configuration(&home.join("state"), nbd_port, api_port, devices);
        let written = fs::create_dir_all(home.join("state")).and_then(|()| fs::write(&file, text));
        written.map_err(|e| PeerError::new(format!("{}: {e}", file.display())))?;
        let arguments = ["serve", "--config"].map(str::to_owned).into_iter();
        let arguments: Vec<String> = arguments.chain([file.display().to_string()]).collect();
        let started = Instant::now();
        let process = Process::start(name, dir, &binary.display().to_string(), &arguments)?;
        let mut node = Self { process, nbd_port, api_port, started };
        node.process.await_ready("answer its API", || node_status(api_port))?;
        Ok(node)
    }

    /// URI of a device.
    pub fn uri(&self, device: &str) -> String {
        uri_of(self.nbd_port, device)
    }

    /// Paths of all devices, as the API tells.
    ///
    /// # Errors
    ///
    /// It does not answer.
    pub fn paths(&self) -> Result<Vec<PathStatus>, PeerError> {
        let status = node_status(self.api_port);
        let status = status.ok_or_else(|| PeerError::new("holdfast's API does not answer".to_owned()))?;
        Ok(status.devices.into_iter().flat_map(|device| device.paths).collect())
    }

    /// Whether every path has carried requests: what befalls an unused path would prove nothing.
    ///
    /// # Errors
    ///
    /// One has not; says which.
    pub fn check_all_used(&self) -> Result<(), PeerError> {
        match self.paths()?.iter().find(|path| path.reads + path.writes == 0) {
            None => Ok(()),
            Some(unused) => {
                Err(PeerError::new(format!("path {} carried nothing before the fault", unused.name)))
            }
        }
    }

    /// Waits until every path is `up`; returns the time since the program was started.
    ///
    /// # Errors
    ///
    /// They are not within 30 s; says which and why.
    pub fn await_all_up(&mut self) -> Result<Duration, PeerError> {
        let api_port = self.api_port;
        let mut last = Vec::new();
        let waited = self.process.await_ready("bring all paths up", || {
            let status = node_status(api_port)?;
            last = status.devices.into_iter().flat_map(|device| device.paths).collect::<Vec<PathStatus>>();
            last.iter().all(|path| path.state == "up").then_some(())
        });
        waited.map(|()| self.started.elapsed()).map_err(|error| {
            let waiting = last.iter().filter(|path| path.state != "up").take(8);
            let words = waiting.map(|path| format!("\n  {}: {} {}", path.name, path.state, path.reason));
            PeerError::new(format!("{error}{}", words.collect::<Vec<String>>().concat()))
        })
    }
}

fn configuration(state_dir: &Path, nbd_port: u16, api_port: u16, devices: &[Device]) -> String {
    let mut text = format!(
        "[node]\nname = \"bench\"\nstate_dir = \"{}\"\n\n[listen]\nnbd = [\"127.0.0.1:{nbd_port}\"]\n\
         api = \"127.0.0.1:{api_port}\"\n",
        state_dir.display()
    );
    for device in devices {
        // Writing to a String cannot fail.
        let _ = write!(text, "\n[[device]]\nname = \"{}\"\n", device.name);
        for key in &device.keys {
            let _ = writeln!(text, "{key}");
        }
        for (index, uri) in device.paths.iter().enumerate() {
            let _ = write!(text, "\n[[device.path]]\nname = \"p{index}\"\nuri = \"{uri}\"\n");
        }
    }
    text
}

fn node_status(api_port: u16) -> Option<Status> {
    let body = http_get(api_port, "/v1/status").ok()?;
    serde_json::from_str(&body).ok()
}

/// One request on one connection: HTTP/1.0, so the end of the stream is the end of the answer.
fn http_get(port: u16, path: &str) -> std::io::Result<String> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, API_TIMEOUT)?;
    stream.set_read_timeout(Some(API_TIMEOUT))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (_, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    Ok(body.to_owned())
}
