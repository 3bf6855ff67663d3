// SPDX-License-Identifier: MIT OR Apache-2.0
//! `docs/nbd-support.md` names a test for every item; a name that no longer exists is a claim without proof.

use std::collections::BTreeMap;
use std::path::Path;

/// Code spans of the form `file::test`.
fn named_tests(page: &str) -> Vec<(&str, &str)> {
    let spans = page.split('`').skip(1).step_by(2);
    let is_name =
        |name: &str| name.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_');
    spans
        .filter_map(|span| span.split_once("::"))
        .filter(|(file, test)| *file != "file" && is_name(file) && is_name(test))
        .collect()
}

#[test]
fn every_test_named_in_the_ledger_exists() {
    let nbd = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(nbd.join("../docs/nbd-support.md")).expect("the ledger");
    let tests = named_tests(&page);
    assert!(tests.len() > 100, "the page names {} tests", tests.len());
    let mut sources = BTreeMap::new();
    for (file, test) in tests {
        let source = sources.entry(file).or_insert_with(|| {
            std::fs::read_to_string(nbd.join(format!("tests/rules/{file}.rs"))).unwrap_or_default()
        });
        assert!(source.contains(&format!("#[test]\nfn {test}()")), "{file}::{test} does not exist");
    }
}
