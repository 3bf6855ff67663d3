// SPDX-License-Identifier: MIT OR Apache-2.0
//! One version table, one set of lints.

use toml::{Table, Value};

use crate::assert_none;
use crate::tree::top;

/// A member of the workspace.
pub(crate) struct Member {
    /// Folder from the top.
    pub(crate) folder: String,
    /// Its manifest.
    pub(crate) manifest: Table,
}

/// All members.
pub(crate) fn members() -> Vec<Member> {
    let workspace = workspace();
    let listed = workspace["workspace"]["members"].as_array().expect("members are a list").clone();
    let folders = listed.iter().map(|folder| folder.as_str().expect("members are text").to_owned());
    folders.map(|folder| Member { manifest: read(&format!("{folder}/Cargo.toml")), folder }).collect()
}

/// The top manifest.
pub(crate) fn workspace() -> Table {
    read("Cargo.toml")
}

/// Names in `[dependencies]` and the like of a manifest, as they are used in code.
pub(crate) fn dependencies(manifest: &Table, section: &str) -> Vec<String> {
    let table = manifest.get(section).and_then(Value::as_table);
    table.map(|table| table.keys().cloned().collect()).unwrap_or_default()
}

fn read(path: &str) -> Table {
    let text = std::fs::read_to_string(top().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
    text.parse().unwrap_or_else(|e| panic!("{path}: {e}"))
}

#[test]
fn versions_stand_in_the_workspace_table_alone() {
    let mut offenders = Vec::new();
    for member in members() {
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let Some(table) = member.manifest.get(section).and_then(Value::as_table) else { continue };
            for (name, value) in table {
                let inherited = value.get("workspace").and_then(Value::as_bool) == Some(true);
                if !inherited {
                    offenders.push(format!("{}/Cargo.toml: {section}.{name}", member.folder));
                }
            }
        }
    }
    assert_none("write `workspace = true` and the version in the top Cargo.toml:", &offenders);
}

#[test]
fn every_member_has_the_shared_lints_and_facts() {
    let mut offenders = Vec::new();
    for member in members() {
        let inherits = |keys: &[&str]| {
            let mut value = &Value::Table(member.manifest.clone());
            for key in keys {
                let Some(next) = value.get(key) else { return false };
                value = next;
            }
            value.as_bool() == Some(true)
        };
        if !inherits(&["lints", "workspace"]) {
            offenders.push(format!("{}/Cargo.toml: [lints] workspace = true", member.folder));
        }
        for key in ["version", "edition", "rust-version", "license", "publish"] {
            if !inherits(&["package", key, "workspace"]) {
                offenders.push(format!("{}/Cargo.toml: {key}.workspace = true", member.folder));
            }
        }
    }
    assert_none("members that go their own way:", &offenders);
}

#[test]
fn no_dependency_is_unused_in_the_table() {
    let workspace = workspace();
    let table = workspace["workspace"]["dependencies"].as_table().expect("a table").clone();
    let mut used: Vec<String> = Vec::new();
    for member in members() {
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            used.extend(dependencies(&member.manifest, section));
        }
    }
    let unused: Vec<String> = table.keys().filter(|name| !used.contains(name)).cloned().collect();
    assert_none("nobody uses these lines of [workspace.dependencies]:", &unused);
}
