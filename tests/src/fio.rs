// SPDX-License-Identifier: MIT OR Apache-2.0
//! fio as a host that verifies: random writes, each read back and its checksum compared
//! a few dozen writes later, until told to end.

use nix::sys::signal::Signal;

use crate::{Command, Exit, Json, Process, TestDir, wait};

/// fio's status after the interrupt that ends a run on purpose.
const INTERRUPTED: i32 = 128;

/// How each of fio's documents begins.
const DOCUMENT: &str = "\n{\n";

/// What fio does.
#[derive(Clone, Debug)]
pub struct FioOptions {
    arguments: Vec<String>,
}

/// A running fio.
#[derive(Debug)]
pub struct Fio {
    process: Process,
    output: std::path::PathBuf,
}

/// fio's figures over all its jobs.
#[derive(Clone, Debug)]
pub struct FioReport {
    /// Exit status; 128 is the interrupt that ended it.
    pub exit: Exit,
    /// First error number of any job.
    pub error: u64,
    /// Reads, nearly all of them verification.
    pub reads: u64,
    /// Writes.
    pub writes: u64,
    /// Flushes.
    pub flushes: u64,
    /// Everything it printed besides the figures.
    pub messages: String,
}

impl FioReport {
    /// Fails unless there was neither an I/O error nor a verify error, and real work.
    pub fn assert_clean(&self) {
        assert!(
            self.error == 0 && matches!(self.exit, Exit::Code(0 | INTERRUPTED)),
            "fio met an error: {self:#?}"
        );
        assert!(!self.messages.contains("verify"), "fio complains: {}", self.messages);
        assert!(self.writes > 0 && self.reads > 0, "fio verified nothing: {self:?}");
    }
}

impl Fio {
    /// Random 4 KiB writes with crc32c over the first 32 MiB of the device, 16 in flight.
    pub fn options(uri: &str) -> FioOptions {
        let fixed = [
            "--name=verify",
            "--ioengine=nbd",
            "--rw=randwrite",
            "--bs=4k",
            "--iodepth=16",
            "--size=32m",
            "--verify=crc32c",
            "--verify_fatal=1",
            "--verify_backlog=64",
            "--verify_state_save=0",
            "--time_based",
            "--runtime=3600",
            "--output-format=json",
            "--status-interval=250ms",
        ];
        let mut arguments: Vec<String> = fixed.iter().map(|&a| a.to_owned()).collect();
        arguments.push(format!("--uri={uri}"));
        FioOptions { arguments }
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Ends the run once something was verified: no new requests, those in flight are
    /// waited for.
    pub fn finish(mut self) -> FioReport {
        wait::until("fio to verify something", || {
            let verified = self.figures().is_some_and(|figures| total(&figures, "read") > 0);
            (verified || self.process.try_wait().is_some()).then_some(())
        });
        if self.process.try_wait().is_none() {
            self.process.signal(Signal::SIGINT);
        }
        let exit = self.process.wait_within(wait::BOUND);
        let figures =
            self.figures().unwrap_or_else(|| panic!("fio wrote no figures: {}", self.process.log()));
        let errors = figures.get("jobs").items().into_iter().map(|job| job.get("error").number());
        FioReport {
            exit,
            error: errors.filter(|error| *error != 0).max().unwrap_or(0),
            reads: total(&figures, "read"),
            writes: total(&figures, "write"),
            flushes: total(&figures, "sync"),
            messages: format!("{}{}", self.messages(), self.process.log()),
        }
    }

    /// The latest of the documents that fio writes one after the other; the very last may
    /// be half written.
    fn figures(&self) -> Option<Json> {
        let text = std::fs::read_to_string(&self.output).ok()?;
        let mut end = text.len();
        loop {
            let start = if text[..end].starts_with("{\n") && !text[..end].contains(DOCUMENT) {
                0
            } else {
                text[..end].rfind(DOCUMENT)? + 1
            };
            match Json::try_parse("fio's figures", text[start..end].trim_end()) {
                Some(figures) => return Some(figures),
                None if start == 0 => return None,
                None => end = start - 1,
            }
        }
    }

    /// What fio wrote between its documents.
    fn messages(&self) -> String {
        let text = std::fs::read_to_string(&self.output).unwrap_or_default();
        let outside = |line: &&str| !line.starts_with([' ', '{', '}']) && !line.is_empty();
        text.lines().filter(outside).collect::<Vec<_>>().join("\n")
    }
}

/// Requests of one kind over all jobs.
fn total(figures: &Json, kind: &str) -> u64 {
    figures.get("jobs").items().iter().map(|job| job.get(kind).get("total_ios").number()).sum()
}

impl FioOptions {
    /// Adds or replaces one argument: fio takes the last.
    #[must_use]
    pub fn arg(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// Starts it; several in one directory need names of their own.
    pub fn start(&self, dir: &TestDir, name: &str) -> Fio {
        let output = dir.join(&format!("{name}.json"));
        let command = Command::new("fio")
            .args(self.arguments.iter().cloned())
            .arg(format!("--output={}", output.display()))
            .in_dir(dir.path());
        // Before it runs, an interrupt would end it without figures.
        let started = dir.join(&format!("{name}.started"));
        let command = command.arg(format!("--exec_prerun=touch {}", started.display()));
        let mut process = command.spawn(dir, name);
        wait::until("fio to start", || {
            let ended = process.try_wait().is_some();
            (started.exists() || ended).then_some(())
        });
        Fio { process, output }
    }

    /// Runs it to its own end.
    pub fn run(&self, dir: &TestDir, name: &str) -> FioReport {
        let mut fio = self.start(dir, name);
        fio.process.wait_within(wait::BOUND);
        fio.finish()
    }
}
