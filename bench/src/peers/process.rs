// SPDX-License-Identifier: MIT OR Apache-2.0
//! A child process that ends with us, by its own id.
//!
//! `setpriv --pdeathsig` covers what drop cannot, an interrupt of the measurement; it replaces itself by the program, so
//! the id stays the same. Output goes to a log in the measurement's directory, and what it says is part of any error.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::PeerError;
use crate::usage::{CpuTime, resident_kib};

/// Longest wait for a process to be ready.
const READY_TIMEOUT: Duration = Duration::from_secs(30);
/// How often it is looked at meanwhile.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);
/// Longest wait for an orderly end before it is killed.
const END_TIMEOUT: Duration = Duration::from_secs(10);
/// Ports given out last, which are not given out again.
const PORTS_REMEMBERED: usize = 64;
/// Lines of a log that an error repeats.
const LOG_LINES: usize = 12;

/// A running child.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log_path: PathBuf,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts `program` with `arguments`; its output goes to `NAME.log` in `dir`.
    ///
    /// # Errors
    ///
    /// It cannot be started.
    pub fn start(name: &str, dir: &Path, program: &str, arguments: &[String]) -> Result<Self, PeerError> {
        let cannot = |error: io::Error| PeerError::new(format!("cannot start {name} ({program}): {error}"));
        let log_path = dir.join(format!("{name}.log"));
        let log = File::options().create(true).append(true).open(&log_path).map_err(cannot)?;
        let errors = log.try_clone().map_err(cannot)?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", program]).args(arguments);
        // The peers live in sbin too, which an ordinary PATH leaves out.
        command.env("PATH", search_path());
        let child = command.stdin(Stdio::null()).stdout(log).stderr(errors).spawn().map_err(cannot)?;
        Ok(Self { name: name.to_owned(), child, log_path, ended: None })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Processor time of all its threads so far.
    ///
    /// # Errors
    ///
    /// It has ended.
    pub fn cpu(&mut self) -> Result<CpuTime, PeerError> {
        self.check_running()?;
        CpuTime::of_process(self.id()).ok_or_else(|| self.has_ended())
    }

    /// Resident memory in KiB.
    ///
    /// # Errors
    ///
    /// It has ended.
    pub fn resident_kib(&mut self) -> Result<u64, PeerError> {
        self.check_running()?;
        resident_kib(self.id()).ok_or_else(|| self.has_ended())
    }

    /// Fails with its last words when it has ended.
    ///
    /// # Errors
    ///
    /// It has ended.
    pub fn check_running(&mut self) -> Result<(), PeerError> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().map_err(|e| PeerError::new(format!("{}: {e}", self.name)))?;
        }
        if self.ended.is_some() { Err(self.has_ended()) } else { Ok(()) }
    }

    /// Waits until `ready` says so.
    ///
    /// # Errors
    ///
    /// It ended first, or took more than 30 s.
    pub fn await_ready<T>(
        &mut self,
        what: &str,
        mut ready: impl FnMut() -> Option<T>,
    ) -> Result<T, PeerError> {
        let start = Instant::now();
        loop {
            self.check_running()?;
            if let Some(value) = ready() {
                return Ok(value);
            }
            if start.elapsed() > READY_TIMEOUT {
                let words = self.last_words();
                return Err(PeerError::new(format!("{} did not {what} within 30 s{words}", self.name)));
            }
            std::thread::sleep(LOOK_INTERVAL);
        }
    }

    /// Waits until it listens at a port of 127.0.0.1.
    ///
    /// # Errors
    ///
    /// As [`await_ready`](Self::await_ready).
    pub fn await_listening(&mut self, port: u16) -> Result<(), PeerError> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        self.await_ready("listen", || TcpStream::connect(address).ok()).map(drop)
    }

    /// Sends it a signal.
    ///
    /// # Errors
    ///
    /// It has ended.
    pub fn signal(&mut self, signal: Signal) -> Result<(), PeerError> {
        self.check_running()?;
        let pid = Pid::from_raw(self.id() as i32);
        kill(pid, signal).map_err(|e| PeerError::new(format!("cannot signal {}: {e}", self.name)))
    }

    /// Kills it at once and waits for its end.
    pub fn kill(&mut self) {
        if self.check_running().is_ok() {
            // Both fail only for a process that is gone.
            let _ = self.child.kill();
            self.ended = self.child.wait().ok();
        }
    }

    /// Asks it to end, and kills it if it does not.
    pub fn end(&mut self) {
        if self.signal(Signal::SIGTERM).is_err() {
            return;
        }
        let start = Instant::now();
        while self.check_running().is_ok() && start.elapsed() < END_TIMEOUT {
            std::thread::sleep(LOOK_INTERVAL);
        }
        self.kill();
    }

    fn has_ended(&self) -> PeerError {
        let status = self.ended.map_or_else(|| "is gone".to_owned(), |status| format!("ended: {status}"));
        PeerError::new(format!("{} {status}{}", self.name, self.last_words()))
    }

    fn last_words(&self) -> String {
        let log = fs::read(&self.log_path).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        let last = &lines[lines.len().saturating_sub(LOG_LINES)..];
        last.iter().map(|line| format!("\n  {line}")).collect::<Vec<String>>().concat()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port of 127.0.0.1 that is free now. Somebody may take it before it is used; the program then says so.
///
/// # Errors
///
/// No port is free.
pub fn free_port() -> Result<u16, PeerError> {
    static GIVEN: Mutex<VecDeque<u16>> = Mutex::new(VecDeque::new());
    let bind = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr();
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let port = bind().map_err(|e| PeerError::new(format!("no free port: {e}")))?.port();
        // The system may name one twice before the first is used.
        if !given.contains(&port) {
            given.push_back(port);
            if given.len() > PORTS_REMEMBERED {
                given.pop_front();
            }
            return Ok(port);
        }
    }
}

/// First line that a program prints about its version; what went wrong otherwise.
pub fn version_of(program: &str, argument: &str) -> String {
    let output = Command::new(program).arg(argument).env("PATH", search_path()).stdin(Stdio::null()).output();
    match output {
        Ok(output) => {
            let text = if output.stdout.is_empty() { output.stderr } else { output.stdout };
            String::from_utf8_lossy(&text).lines().next().unwrap_or("says nothing").trim().to_owned()
        }
        Err(error) => format!("not found ({error})"),
    }
}

/// `PATH` with the directories of system programs.
pub fn search_path() -> String {
    format!("{}:/usr/local/sbin:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default())
}
