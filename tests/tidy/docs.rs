// SPDX-License-Identifier: MIT OR Apache-2.0
//! Links in the documents lead somewhere.

use std::path::{Component, Path, PathBuf};

use crate::assert_none;
use crate::code::line_of;
use crate::tree::{files_ending, top};

#[test]
fn links_of_documents_resolve() {
    let mut offenders = Vec::new();
    for file in files_ending(&[".md"]) {
        for (at, target) in links(&file.text) {
            if let Err(problem) = resolve(&file.path, &file.text, &target) {
                offenders.push(format!("{}:{}: {target}: {problem}", file.path, line_of(&file.text, at)));
            }
        }
    }
    assert_none("dead links:", &offenders);
}

/// Offsets and targets of `[text](target)`, outside of code.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let prose = without_code(text);
    for (at, _) in prose.match_indices("](") {
        let rest = &prose[at + 2..];
        if let Some(end) = rest.find(')') {
            let target = rest[..end].split_whitespace().next().unwrap_or_default();
            found.push((at, target.to_owned()));
        }
    }
    found
}

/// Code blocks and code spans blanked, so that offsets keep their meaning.
fn without_code(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut fenced = false;
    for line in text.split_inclusive('\n') {
        let fence = line.trim_start().starts_with("```");
        if fenced || fence {
            out.extend(line.chars().map(|c| if c == '\n' { '\n' } else { ' ' }).take(line.len()));
            fenced ^= fence;
            continue;
        }
        for (index, part) in line.split('`').enumerate() {
            let blanked = " ".repeat(part.len());
            out.push_str(if index % 2 == 0 { part } else { &blanked });
            out.push(' ');
        }
        out.pop();
    }
    out
}

fn resolve(from: &str, text: &str, target: &str) -> Result<(), String> {
    if target.contains("://") || target.starts_with("mailto:") {
        return Ok(());
    }
    let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
    if path.is_empty() {
        return has_anchor(text, anchor);
    }
    let folder = Path::new(from).parent().unwrap_or(Path::new(""));
    let wanted = normalise(&folder.join(path)).ok_or("leads out of the project")?;
    let full = top().join(&wanted);
    if !full.exists() {
        return Err("no such file".to_owned());
    }
    if anchor.is_empty() {
        return Ok(());
    }
    has_anchor(&std::fs::read_to_string(full).unwrap_or_default(), anchor)
}

fn normalise(path: &Path) -> Option<PathBuf> {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                if !out.pop() {
                    return None;
                }
            }
            Component::CurDir => {}
            other => out.push(other),
        }
    }
    Some(out)
}

fn has_anchor(text: &str, anchor: &str) -> Result<(), String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let found = headings.map(|line| slug(line.trim_start_matches('#').trim())).any(|slug| slug == anchor);
    if found { Ok(()) } else { Err(format!("no heading makes the anchor #{anchor}")) }
}

/// How a heading becomes an anchor: lower case, punctuation dropped, blanks to hyphens.
fn slug(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

#[test]
fn links_are_found_and_judged() {
    let text = "# A heading, here\n[a](x.md) `[b](y.md)` [c](#a-heading-here)\n```\n[d](z.md)\n```\n";
    let targets: Vec<String> = links(text).into_iter().map(|(_, target)| target).collect();
    assert_eq!(targets, ["x.md", "#a-heading-here"]);
    assert!(resolve("README.md", text, "#a-heading-here").is_ok());
    assert!(resolve("README.md", text, "#another").is_err());
    assert!(resolve("tests/README.md", text, "../Cargo.toml").is_ok());
    assert!(resolve("README.md", text, "../outside").is_err());
    assert!(resolve("README.md", text, "no-such-file").is_err());
}
