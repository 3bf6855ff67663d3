// SPDX-License-Identifier: MIT OR Apache-2.0
//! How the program fails: one text and one exit status.
//!
//! Statuses follow `sysexits.h` where it has one, so that a service manager can
//! tell what a restart may cure (69, 71) from what it cannot (78).

use std::fmt;
use std::process::ExitCode;

/// Why the program ends without success.
#[derive(Debug)]
pub(crate) struct Failure {
    status: Status,
    text: String,
}

/// Exit statuses; `docs/cli.md` lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// The node answered, and the answer was no.
    Refused = 1,
    /// The command line was not understood.
    Usage = 2,
    /// Something needed is not there: a node to talk to, a free port, a file.
    Unavailable = 69,
    /// A bug.
    Internal = 70,
    /// The operating system does not let us: `io_uring`, the state directory.
    System = 71,
    /// The configuration has mistakes.
    Configuration = 78,
}

impl Failure {
    pub(crate) fn new(status: Status, text: impl Into<String>) -> Self {
        Self { status, text: text.into() }
    }

    /// Prints the text and gives the exit status.
    pub(crate) fn report(&self) -> ExitCode {
        let text = self.text.trim_end();
        if !text.is_empty() {
            eprintln!("holdfast: {text}");
        }
        ExitCode::from(self.status as u8)
    }

    /// What it will end the program with.
    pub(crate) fn status(&self) -> Status {
        self.status
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
