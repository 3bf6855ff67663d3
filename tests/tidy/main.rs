// SPDX-License-Identifier: MIT OR Apache-2.0
//! House rules that a machine can judge.
//!
//! Each test names every offender with file and line and says what to do instead. Lengths
//! are shown and not judged: a long function is a place to look, a limit is a number to
//! play against.

mod code;
mod docs;
mod headers;
mod imports;
mod lengths;
mod manifests;
mod markers;
mod policies;
mod purity;
mod tree;
mod words;

/// Fails with one line per offender.
fn assert_none(rule: &str, offenders: &[String]) {
    assert!(offenders.is_empty(), "{rule}\n  {}", offenders.join("\n  "));
}
