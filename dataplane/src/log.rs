// SPDX-License-Identifier: MIT OR Apache-2.0
//! One line per event on stderr, for operators.
//!
//! `level what: text key=value ...` without a time stamp: the journal adds one. Equal
//! kinds of lines are limited to a few per second and the number left out is told with
//! the next one, so that a hostile peer cannot fill a disk. Nothing on the path of a
//! request logs.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::Write;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Lines of one kind per period.
const LINES_MAX: u32 = 10;
const PERIOD: Duration = Duration::from_secs(10);

/// How much it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    /// Normal life: started, stopped.
    Info,
    /// Somebody else's mistake, or trouble we ride out.
    Warning,
    /// We cannot do what we were told.
    Error,
}

impl Level {
    fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

struct Kind {
    since: Instant,
    lines: u32,
    left_out: u64,
}

static KINDS: Mutex<BTreeMap<&'static str, Kind>> = Mutex::new(BTreeMap::new());

/// Writes one line. `what` names the kind, which is what the limit counts.
pub(crate) fn line(level: Level, what: &'static str, text: &dyn Display) {
    let Some(left_out) = admit(what, Instant::now()) else { return };
    let suffix = if left_out > 0 { format!(" (and {left_out} more like it)") } else { String::new() };
    // A closed stderr is no reason to stop serving.
    let _ = writeln!(std::io::stderr().lock(), "{} {what}: {}{suffix}", level.as_str(), one_line(text));
}

/// Text of a peer may hold line breaks and control characters.
fn one_line(text: &dyn Display) -> String {
    text.to_string().chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Whether a line of this kind may be written now, and how many were left out before it.
fn admit(what: &'static str, now: Instant) -> Option<u64> {
    // A poisoned lock means a panic elsewhere, which ends the process anyway.
    let mut kinds = KINDS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let kind = kinds.entry(what).or_insert(Kind { since: now, lines: 0, left_out: 0 });
    if now.duration_since(kind.since) >= PERIOD {
        kind.since = now;
        kind.lines = 0;
    }
    if kind.lines >= LINES_MAX {
        kind.left_out += 1;
        return None;
    }
    kind.lines += 1;
    Some(std::mem::take(&mut kind.left_out))
}

/// `log::info!("kind", "format {}", ...)` and likewise.
macro_rules! info {
    ($what:literal, $($arg:tt)*) => {
        $crate::log::line($crate::log::Level::Info, $what, &format_args!($($arg)*))
    };
}
macro_rules! warning {
    ($what:literal, $($arg:tt)*) => {
        $crate::log::line($crate::log::Level::Warning, $what, &format_args!($($arg)*))
    };
}
macro_rules! error {
    ($what:literal, $($arg:tt)*) => {
        $crate::log::line($crate::log::Level::Error, $what, &format_args!($($arg)*))
    };
}
pub(crate) use {error, info, warning};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_and_counted() {
        let start = Instant::now();
        for _ in 0..LINES_MAX {
            assert_eq!(admit("flood", start), Some(0));
        }
        assert_eq!(admit("flood", start), None);
        assert_eq!(admit("flood", start), None);
        assert_eq!(admit("other", start), Some(0), "other kinds are not concerned");
        assert_eq!(admit("flood", start + PERIOD), Some(2));
    }

    #[test]
    fn control_characters_do_not_reach_the_log() {
        assert_eq!(one_line(&"a\nb\u{1b}[31m"), "a b [31m");
    }
}
