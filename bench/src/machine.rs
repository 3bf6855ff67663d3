// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where a measurement was made: a number without its machine means nothing.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::peers::version_of;

/// Machine and versions of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Machine {
    /// Kernel release.
    pub kernel: String,
    /// Processor model.
    pub cpu_model: String,
    /// Processors that this program may use.
    pub cpus: usize,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Load average over a minute when the run began.
    pub load_at_start: String,
    /// Program and version.
    pub versions: Vec<(String, String)>,
    /// How this run was started.
    pub command: String,
}

impl Machine {
    /// This machine; `holdfast` is left out of the versions when it is not measured.
    pub fn here(holdfast: Option<&Path>) -> Self {
        let mut versions: Vec<(String, String)> = Vec::new();
        if let Some(path) = holdfast {
            versions.push(("holdfast".to_owned(), version_of(&path.display().to_string(), "--version")));
        }
        for (program, argument) in
            [("nbdkit", "--version"), ("haproxy", "-v"), ("fio", "--version"), ("qemu-nbd", "--version")]
        {
            versions.push((program.to_owned(), version_of(program, argument)));
        }
        Self {
            kernel: first_line("/proc/sys/kernel/osrelease"),
            cpu_model: field("/proc/cpuinfo", "model name"),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            memory_mib: field("/proc/meminfo", "MemTotal")
                .split_whitespace()
                .next()
                .and_then(|kib| kib.parse::<u64>().ok())
                .map_or(0, |kib| kib / 1024),
            load_at_start: first_line("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned(),
            versions,
            command: command_line(),
        }
    }

    /// As lines of a Markdown list.
    pub fn markdown(&self) -> String {
        let versions: Vec<&str> = self.versions.iter().map(|(_, version)| version.as_str()).collect();
        format!(
            "- machine: {} x {}, {} MiB, kernel {}, load average at start {}\n- versions: {}\n- command: `{}`\n",
            self.cpus,
            self.cpu_model,
            self.memory_mib,
            self.kernel,
            self.load_at_start,
            versions.join("; "),
            self.command
        )
    }
}

/// The program by its name alone, and its arguments; directories say nothing about the measurement.
fn command_line() -> String {
    let short = |word: String| match word.rsplit_once('/') {
        Some((_, name)) if word.starts_with('/') => name.to_owned(),
        _ => word,
    };
    std::env::args().map(short).collect::<Vec<String>>().join(" ")
}

fn first_line(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().lines().next().unwrap_or("unknown").to_owned()
}

fn field(path: &str, name: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.split_once(':').map(|(_, v)| v.trim()));
    value.unwrap_or("unknown").to_owned()
}
