// SPDX-License-Identifier: MIT OR Apache-2.0
//! Printing to standard output.

use std::io::{self, IsTerminal, Write};

/// Prints `text`; a reader that went away (`holdfast status | head -1`) ends the program quietly.
pub(crate) fn print(text: &str) {
    let mut out = io::stdout().lock();
    if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

/// Whether texts on standard error may be coloured.
pub(crate) fn colour_on_stderr() -> bool {
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}
