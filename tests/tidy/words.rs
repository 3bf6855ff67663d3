// SPDX-License-Identifier: MIT OR Apache-2.0
//! The project's text speaks of the project alone.

use crate::assert_none;
use crate::code::line_of;
use crate::tree::files;

/// Paths of a developer's machine, hosts of a private registry, and how the work is
/// organised. Put together here so that this file does not contain them itself.
const FOREIGN: [&str; 17] = [
    concat!("/wo", "rk/"),
    concat!("/ro", "ot/"),
    concat!("/ho", "me/"),
    concat!("/tmp", "/hf"),
    concat!("shared/", "design"),
    concat!("shared/", "semantics"),
    concat!("shared/", "nbd.md"),
    concat!("shared/", "style"),
    concat!("shared/", "peers"),
    concat!("shared/", "crates"),
    concat!("arti", "factory"),
    concat!("[sou", "rce."),
    concat!("index", "-url"),
    concat!("cla", "ude"),
    concat!("anth", "ropic"),
    concat!("language ", "model"),
    concat!("ai ", "assistant"),
];

#[test]
fn no_text_speaks_of_machines_or_workplaces() {
    let mut offenders = Vec::new();
    for file in files() {
        let text = file.text.to_ascii_lowercase();
        for word in FOREIGN {
            for (at, _) in text.match_indices(word) {
                offenders.push(format!("{}:{}: {word}", file.path, line_of(&text, at)));
            }
        }
    }
    assert_none("text that means nothing outside the place it was written:", &offenders);
}
