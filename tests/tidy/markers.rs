// SPDX-License-Identifier: MIT OR Apache-2.0
//! Nothing half done is left behind, and nothing sleeps.

use crate::assert_none;
use crate::code::{blank_literals, line_of, production, words};
use crate::tree::{files, files_ending};

/// Put together here so that this file does not contain them itself.
const MARKERS: [&str; 4] =
    [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X"), concat!("HA", "CK")];
const MACROS: [&str; 3] = [concat!("to", "do!"), concat!("unimpl", "emented!"), concat!("db", "g!")];

/// Crates whose code runs in production.
const PRODUCTION: [&str; 5] =
    ["nbd/src/", "policies/src/", "dataplane/", "controlplane/src/", "holdfast/src/"];

#[test]
fn no_marker_is_left_over() {
    let mut offenders = Vec::new();
    for file in files() {
        for marker in MARKERS {
            for at in words(&file.text, marker) {
                offenders.push(format!("{}:{}: {marker}", file.path, line_of(&file.text, at)));
            }
        }
    }
    assert_none("left-over markers (finish it, or open an issue):", &offenders);
}

#[test]
fn no_stub_and_no_switched_off_test() {
    let mut offenders = Vec::new();
    for file in files_ending(&[".rs"]) {
        let code = blank_literals(&file.text);
        let switched_off = concat!("#[ign", "ore");
        for word in MACROS.into_iter().chain([switched_off]) {
            for at in words(&code, word) {
                offenders.push(format!("{}:{}: {word}", file.path, line_of(&code, at)));
            }
        }
    }
    assert_none("stubs, debugging left-overs or tests that never run:", &offenders);
}

#[test]
fn production_code_never_sleeps() {
    let mut offenders = Vec::new();
    for file in files_ending(&[".rs"]) {
        if !PRODUCTION.iter().any(|folder| file.path.starts_with(folder)) {
            continue;
        }
        let code = production(&file.path, &file.text);
        for at in words(&code, "thread::sleep") {
            offenders.push(format!("{}:{}", file.path, line_of(&code, at)));
        }
    }
    assert_none("a reactor or service that sleeps serves nobody (wait for an event or a timer):", &offenders);
}
