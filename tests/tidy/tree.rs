// SPDX-License-Identifier: MIT OR Apache-2.0
//! The files of the project: what git tracks or would track.

use std::path::{Path, PathBuf};
use std::process::Command;

/// One text file.
pub(crate) struct SourceFile {
    /// Path from the top of the repository.
    pub(crate) path: String,
    /// Content.
    pub(crate) text: String,
}

/// Top of the repository.
pub(crate) fn top() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("this package is one level below the top").to_owned()
}

/// All text files that are tracked, or new and not ignored.
pub(crate) fn files() -> Vec<SourceFile> {
    let output = Command::new("git")
        .args(["-c", "safe.directory=*", "ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(top())
        .output()
        .expect("git is installed");
    assert!(output.status.success(), "git: {}", String::from_utf8_lossy(&output.stderr));
    let listed = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut paths: Vec<&str> = listed.lines().collect();
    paths.sort_unstable();
    paths.dedup();
    let files: Vec<SourceFile> = paths.into_iter().filter_map(read).collect();
    assert!(files.len() > 20, "git listed only {} files", files.len());
    files
}

/// Files whose name ends in one of these.
pub(crate) fn files_ending(endings: &[&str]) -> Vec<SourceFile> {
    let wanted = |file: &SourceFile| endings.iter().any(|ending| file.path.ends_with(ending));
    files().into_iter().filter(wanted).collect()
}

/// Deleted files and those that are not text (corpora) give nothing.
fn read(path: &str) -> Option<SourceFile> {
    let text = std::fs::read_to_string(top().join(path)).ok()?;
    Some(SourceFile { path: path.to_owned(), text })
}
