// SPDX-License-Identifier: MIT OR Apache-2.0
//! Log lines on stderr: time, level, message, fields, one line each.
//!
//! ```text
//! 2026-01-31T08:15:30.250Z warning path down device=vol0 path=a rule=W16 reason="no ACK for 412 ms"
//! ```
//!
//! The control plane writes a few lines when something changes and none for a
//! request, so there is no logging framework: one function, one `write` call
//! for each line. Values are quoted where they would be ambiguous and control
//! characters escaped, so a hostile name cannot forge a line.

use std::fmt::Write as _;
use std::io::Write as _;

use crate::clock;

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Something failed that an operator must repair.
    Error,
    /// Something works with less than it should.
    Warning,
    /// What happens.
    Info,
}

impl Level {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Info => "info",
        }
    }
}

/// A named value of a line.
pub type Field<'f> = (&'static str, &'f str);

/// Writes one line.
pub fn log(level: Level, message: &str, fields: &[Field<'_>]) {
    let mut line = format(&clock::now_text(), level, message, fields);
    line.push('\n');
    // Nobody could be told that stderr is closed.
    let _ = std::io::stderr().lock().write_all(line.as_bytes());
}

/// [`log`] at [`Level::Error`].
pub fn error(message: &str, fields: &[Field<'_>]) {
    log(Level::Error, message, fields);
}

/// [`log`] at [`Level::Warning`].
pub fn warning(message: &str, fields: &[Field<'_>]) {
    log(Level::Warning, message, fields);
}

/// [`log`] at [`Level::Info`].
pub fn info(message: &str, fields: &[Field<'_>]) {
    log(Level::Info, message, fields);
}

fn format(time: &str, level: Level, message: &str, fields: &[Field<'_>]) -> String {
    let mut line = format!("{time} {:<7} {}", level.as_str(), one_line(message));
    for (name, value) in fields {
        // Writing to a String cannot fail.
        let _ = write!(line, " {name}={}", quoted(value));
    }
    line
}

/// The text with everything escaped that would end the line or drive a terminal.
pub(crate) fn one_line(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { out.extend(c.escape_debug()) } else { out.push(c) }
    }
    out
}

fn quoted(value: &str) -> String {
    let plain = |c: char| !c.is_whitespace() && !c.is_control() && c != '"' && c != '=';
    if !value.is_empty() && value.chars().all(plain) { value.to_owned() } else { format!("{value:?}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_time_level_message_and_fields() {
        let line =
            format("T", Level::Warning, "path down", &[("device", "vol0"), ("reason", "no ACK for 412 ms")]);
        assert_eq!(line, "T warning path down device=vol0 reason=\"no ACK for 412 ms\"");
        assert_eq!(format("T", Level::Info, "m", &[("k", "")]), "T info    m k=\"\"");
    }

    #[test]
    fn a_hostile_value_cannot_forge_a_line() {
        let line = format("T", Level::Error, "a\nb", &[("name", "x\n2026 info all well\x1b[2J=\"")]);
        assert_eq!(line, "T error   a\\nb name=\"x\\n2026 info all well\\u{1b}[2J=\\\"\"");
    }
}
