// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a real storage server does to its files, and when.
//!
//! A library of our own (`trace.c`) is loaded into the server. It notes every change of a
//! file before and after it is made, and can keep a process between the two: its request is
//! then *in execution*. So a test knows that a late copy of a write was executed after all,
//! and not only that nothing bad came of it (rule T6).

use std::path::PathBuf;

use crate::{Command, TestDir, tools};

const SOURCE: &str = include_str!("trace.c");

/// A directory that a traced server writes to.
#[derive(Clone, Debug)]
pub struct Trace {
    library: PathBuf,
    directory: PathBuf,
}

/// One change of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// It was made; otherwise it was begun.
    pub done: bool,
    /// Process that makes it.
    pub pid: i32,
    /// It makes zeroes; otherwise it writes data.
    pub zero: bool,
    /// Byte offset.
    pub offset: u64,
    /// Length in bytes.
    pub len: u64,
    /// First eight bytes of the data.
    pub head: u64,
    /// Path of the file.
    pub file: String,
}

impl Trace {
    /// Builds the library with the machine's C compiler, which every machine that links
    /// Rust has.
    pub fn new(dir: &TestDir, name: &str) -> Self {
        let library = dir.join("trace.so");
        if !library.exists() {
            let source = dir.write("trace.c", SOURCE);
            let arguments = ["-O1", "-Wall", "-shared", "-fPIC", "-o"].map(str::to_owned);
            let files = [library.display().to_string(), source.display().to_string(), "-ldl".to_owned()];
            tools::run("cc", arguments.into_iter().chain(files));
        }
        let directory = dir.join(name);
        std::fs::create_dir(&directory).expect("the test's directory can be written");
        Self { library, directory }
    }

    /// The command with the library loaded into it.
    pub fn attach(&self, command: Command) -> Command {
        command
            .env("LD_PRELOAD", &self.library.display().to_string())
            .env("HOLDFAST_TRACE", &self.directory.display().to_string())
    }

    /// Everything noted so far.
    pub fn changes(&self) -> Vec<Change> {
        let text = std::fs::read_to_string(self.directory.join("ops")).unwrap_or_default();
        text.lines().map(|line| Change::parse(line).unwrap_or_else(|| panic!("trace: {line}"))).collect()
    }

    /// Keeps these processes from making changes.
    pub fn hold(&self, pids: &[i32]) {
        for pid in pids {
            std::fs::write(self.hold_file(*pid), "").expect("the test's directory can be written");
        }
    }

    /// Lets these processes make their changes.
    pub fn let_loose(&self, pids: &[i32]) {
        for pid in pids {
            std::fs::remove_file(self.hold_file(*pid)).expect("it was held");
        }
    }

    fn hold_file(&self, pid: i32) -> PathBuf {
        self.directory.join(format!("hold-{pid}"))
    }
}

impl Change {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.splitn(7, ' ');
        let done = words.next()? == "done";
        let pid = words.next()?.parse().ok()?;
        let zero = words.next()? == "zero";
        let offset = words.next()?.parse().ok()?;
        let len = words.next()?.parse().ok()?;
        let head = u64::from_str_radix(words.next()?, 16).ok()?;
        Some(Self { done, pid, zero, offset, len, head, file: words.next()?.to_owned() })
    }
}
