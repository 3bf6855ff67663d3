// SPDX-License-Identifier: MIT OR Apache-2.0
//! Decisions are pure: no system, no clock, no unsafe code outside the system layer.

use crate::assert_none;
use crate::code::{blank_literals, line_of, production, words};
use crate::manifests::{dependencies, members};
use crate::tree::{SourceFile, files_ending};

/// Folders of the pure crates' sources.
const PURE: [&str; 4] = ["nbd/src/", "policies/src/", "dataplane/program/src/", "dataplane/engine/src/"];

/// The only sources with unsafe code.
const UNSAFE: &str = "dataplane/ring/";

/// A test that counts allocations has to be an allocator, which is an unsafe trait.
fn counts_allocations(file: &SourceFile) -> bool {
    file.path.contains("/tests/")
        && file.path.contains("allocation")
        && file.text.contains("impl GlobalAlloc for")
}

fn pure_files() -> Vec<SourceFile> {
    let is_pure = |file: &SourceFile| PURE.iter().any(|folder| file.path.starts_with(folder));
    let files: Vec<SourceFile> = files_ending(&[".rs"]).into_iter().filter(is_pure).collect();
    assert!(files.len() > PURE.len(), "the pure crates are gone");
    files
}

#[test]
fn pure_crates_say_so() {
    let mut offenders = Vec::new();
    for folder in PURE {
        let path = format!("{folder}lib.rs");
        let file = files_ending(&[&path]).into_iter().find(|file| file.path == path);
        let file = file.unwrap_or_else(|| panic!("{path} is missing"));
        for attribute in ["#![no_std]", "#![forbid(unsafe_code)]"] {
            if !file.text.lines().any(|line| line.trim() == attribute) {
                offenders.push(format!("{path}: {attribute}"));
            }
        }
    }
    assert_none("pure crates without:", &offenders);
}

/// With manifests that name pure crates alone, the tree below them holds nothing else.
#[test]
fn pure_crates_depend_on_nothing_outside() {
    let pure = ["nbd", "policies", "program", "engine"];
    let mut offenders = Vec::new();
    for member in members() {
        if !PURE.contains(&format!("{}/src/", member.folder).as_str()) {
            continue;
        }
        for section in ["dependencies", "build-dependencies"] {
            for name in dependencies(&member.manifest, section) {
                if !pure.contains(&name.as_str()) {
                    offenders.push(format!("{}: {section}.{name}", member.folder));
                }
            }
        }
    }
    assert_none("pure crates use each other and nothing else:", &offenders);
}

#[test]
fn pure_code_has_no_system_and_no_clock() {
    let mut offenders = Vec::new();
    for file in pure_files() {
        let code = production(&file.path, &file.text);
        for word in ["std::", "extern crate std", "Instant", "SystemTime", "thread_rng"] {
            for at in words(&code, word) {
                let line = code[..at].lines().count();
                // `#[cfg(test)] extern crate std;` is for test modules.
                let guarded =
                    line >= 2 && code.lines().nth(line - 2).unwrap_or_default().trim() == "#[cfg(test)]";
                if !guarded {
                    offenders.push(format!("{}:{}: {word}", file.path, line_of(&code, at)));
                }
            }
        }
    }
    assert_none("pass time, randomness and I/O in as values:", &offenders);
}

#[test]
fn unsafe_code_lives_in_the_ring_alone() {
    let mut offenders = Vec::new();
    for file in files_ending(&[".rs"]) {
        if file.path.starts_with(UNSAFE) || counts_allocations(&file) {
            continue;
        }
        let code = blank_literals(&file.text);
        for at in words(&code, "unsafe") {
            offenders.push(format!("{}:{}", file.path, line_of(&code, at)));
        }
    }
    assert_none("unsafe code outside dataplane/ring:", &offenders);
}
