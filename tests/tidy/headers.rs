// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every Rust file begins with its licence and its mental model.

use crate::assert_none;
use crate::tree::files_ending;

const LICENCE: &str = "// SPDX-License-Identifier: MIT OR Apache-2.0";

#[test]
fn every_file_begins_with_licence_and_module_header() {
    let mut offenders = Vec::new();
    for file in files_ending(&[".rs"]) {
        let mut lines = file.text.lines();
        if lines.next() != Some(LICENCE) {
            offenders.push(format!("{}:1: begin with `{LICENCE}`", file.path));
        }
        let header = lines.next().unwrap_or_default();
        if !header.starts_with("//! ") || header.len() < 12 {
            offenders.push(format!("{}:2: say in a `//!` header what this file is about", file.path));
        }
    }
    assert_none("files without licence or header:", &offenders);
}
