// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every policy is one file, one page and one set of tests of the same name.

use crate::assert_none;
use crate::tree::{files, files_ending};

/// Files of the crate that hold no policy: its face, folders of policies, its bounds.
const NO_POLICY: [&str; 3] = ["lib", "mod", "limits"];

#[test]
fn every_policy_has_its_page_and_its_tests() {
    let all: Vec<String> = files().into_iter().map(|file| file.path).collect();
    let mut offenders = Vec::new();
    let mut policies = 0;
    for file in files_ending(&[".rs"]) {
        let Some(inner) = file.path.strip_prefix("policies/src/") else { continue };
        let name = inner.trim_end_matches(".rs").rsplit('/').next().unwrap_or_default();
        if NO_POLICY.contains(&name) || inner.contains("tests") {
            continue;
        }
        policies += 1;
        let page = format!("docs/policies/{name}.md");
        if !all.contains(&page) {
            offenders.push(format!("{}: no page {page}", file.path));
        }
        let tests = format!("policies/tests/{name}.rs");
        let beside = format!("{}/tests.rs", file.path.trim_end_matches(".rs"));
        let inside = file.text.contains("#[cfg(test)]\nmod tests {");
        if !inside && !all.contains(&tests) && !all.contains(&beside) {
            offenders.push(format!("{}: no tests, neither in the file nor in {tests}", file.path));
        }
    }
    assert!(policies > 0, "there is no policy in policies/src");
    assert_none("policies without page or tests:", &offenders);
}
