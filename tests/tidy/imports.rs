// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who may import whom: the table of ARCHITECTURE.md.
//!
//! Manifests are judged and not `use` lines: what is not a dependency cannot be used.

use crate::assert_none;
use crate::code::{blank_literals, line_of, words};
use crate::manifests::{dependencies, members};
use crate::tree::files_ending;

/// Folder of a crate, crates of ours that it may use.
const MAY_IMPORT: [(&str, &[&str]); 11] = [
    ("nbd", &[]),
    ("policies", &[]),
    ("dataplane/program", &[]),
    ("dataplane/engine", &["nbd", "policies", "program"]),
    ("dataplane/ring", &[]),
    ("dataplane", &["nbd", "policies", "program", "engine", "ring"]),
    ("controlplane", &["nbd", "policies", "program"]),
    ("holdfast", &["nbd", "policies", "program", "engine", "ring", "dataplane", "controlplane"]),
    ("bench", &["nbd"]),
    ("tests", &[]),
    ("tests/sim", &["nbd", "policies", "program", "engine"]),
];

/// Crates of ours by the name they have in code.
const OURS: [&str; 8] =
    ["nbd", "policies", "program", "engine", "ring", "dataplane", "controlplane", "bench"];

/// The ring is the system layer: what it may use from outside.
const RING_OUTSIDE: [&str; 3] = ["io-uring", "libc", "nix"];

#[test]
fn imports_go_one_way() {
    let mut offenders = Vec::new();
    for member in members() {
        let allowed = MAY_IMPORT.iter().find(|(folder, _)| *folder == member.folder);
        let Some((_, allowed)) = allowed else {
            offenders.push(format!("{}: not in the table of ARCHITECTURE.md", member.folder));
            continue;
        };
        for name in dependencies(&member.manifest, "dependencies") {
            if OURS.contains(&name.as_str()) && !allowed.contains(&name.as_str()) {
                offenders.push(format!("{} may not import {name}", member.folder));
            }
        }
        for name in dependencies(&member.manifest, "dev-dependencies") {
            // Only the suites that are in-process by design may link what they test.
            let free = member.folder == "tests" || allowed.contains(&name.as_str());
            if OURS.contains(&name.as_str()) && !free {
                offenders.push(format!("{} may not import {name}, not even in tests", member.folder));
            }
        }
    }
    assert_none("imports against the direction of ARCHITECTURE.md:", &offenders);
}

#[test]
fn the_ring_stays_small() {
    let ring =
        members().into_iter().find(|member| member.folder == "dataplane/ring").expect("it is a member");
    let strange: Vec<String> = dependencies(&ring.manifest, "dependencies")
        .into_iter()
        .filter(|name| !RING_OUTSIDE.contains(&name.as_str()))
        .collect();
    assert_none("dataplane/ring may use io-uring, libc and nix alone:", &strange);
}

/// The suites that drive the built binary hold no product code, though the package
/// links product crates for the scripted ones.
#[test]
fn suites_of_the_binary_use_no_product_code() {
    let mut offenders = Vec::new();
    for file in files_ending(&[".rs"]) {
        let outside = ["tests/src/", "tests/e2e/", "tests/interop/", "tests/tidy/"];
        if !outside.iter().any(|folder| file.path.starts_with(folder)) {
            continue;
        }
        let code = blank_literals(&file.text);
        for name in OURS {
            let path = format!("{name}::");
            // `crate::program::` is a module of the suite's own.
            for at in words(&code, &path).into_iter().filter(|at| !code[..*at].ends_with("::")) {
                offenders.push(format!("{}:{}: {path}", file.path, line_of(&code, at)));
            }
        }
    }
    assert_none("product code in a suite that must see only the binary:", &offenders);
}
