// SPDX-License-Identifier: MIT OR Apache-2.0
//! `docs/nbd-support.md` names a test for every item; a name that no longer exists is a claim without proof.

use std::collections::BTreeMap;
use std::path::Path;

/// Code spans of the form `file::test` or `suite::file::test`, as suite (may be empty), file, test.
fn named_tests(page: &str) -> Vec<(&str, &str, &str)> {
    let spans = page.split('`').skip(1).step_by(2);
    let is_name =
        |name: &&str| name.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_');
    let mut found = Vec::new();
    for span in spans {
        let words: Vec<&str> = span.split("::").collect();
        match words[..] {
            // The form itself, where the page explains it.
            [.., "test"] => {}
            [file, test] if words.iter().all(is_name) => found.push(("", file, test)),
            [suite, file, test] if words.iter().all(is_name) => {
                found.push((suite, file, test));
            }
            _ => {}
        }
    }
    found
}

/// Where the tests of a suite are.
fn source_of(suite: &str, file: &str) -> String {
    match suite {
        "" => format!("tests/rules/{file}.rs"),
        "engine" => format!("../dataplane/engine/tests/rules/{file}.rs"),
        suite => format!("../tests/{suite}/{file}.rs"),
    }
}

#[test]
fn every_test_named_in_the_ledger_exists() {
    let nbd = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(nbd.join("../docs/nbd-support.md")).expect("the ledger");
    let tests = named_tests(&page);
    assert!(tests.len() > 100, "the page names {} tests", tests.len());
    for suite in ["interop", "e2e", "engine"] {
        assert!(tests.iter().any(|(of, ..)| *of == suite), "the page names no test of {suite}");
    }
    let mut sources = BTreeMap::new();
    for (suite, file, test) in tests {
        let path = source_of(suite, file);
        let source = sources
            .entry(path.clone())
            .or_insert_with(|| std::fs::read_to_string(nbd.join(&path)).unwrap_or_default());
        assert!(source.contains(&format!("#[test]\nfn {test}()")), "{path} has no test {test}");
    }
}
