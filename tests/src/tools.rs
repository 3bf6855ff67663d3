// SPDX-License-Identifier: MIT OR Apache-2.0
//! Client programs that run to their end: nbdinfo, nbdcopy, qemu-img, qemu-io, nbdsh.
//!
//! Each runs under `timeout`, because a client that waits for a reply that never comes
//! waits for ever, and the failure should name it and not the runner's limit.

use crate::Command;

/// Seconds a client may take; none takes more than two where things work.
const LIMIT_SECONDS: &str = "60";

/// What a finished program said.
#[derive(Clone, Debug)]
pub struct Output {
    /// Exit status; 124 if it ran out of time, 128 + N after signal N.
    pub status: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// Runs a program and returns whatever came of it.
pub fn run_status<I: IntoIterator<Item = S>, S: Into<String>>(program: &str, arguments: I) -> Output {
    let command = Command::new("timeout").args(["-k", "2", LIMIT_SECONDS, program]).args(arguments);
    let output = command.output();
    Output {
        status: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Runs a program that must succeed and returns its standard output.
pub fn run<I: IntoIterator<Item = S>, S: Into<String>>(program: &str, arguments: I) -> String {
    let arguments: Vec<String> = arguments.into_iter().map(Into::into).collect();
    let output = run_status(program, arguments.clone());
    assert!(
        output.status == 0,
        "{program} {} ended with {}:\n{}{}",
        arguments.join(" "),
        output.status,
        output.stdout,
        output.stderr
    );
    output.stdout
}
