// SPDX-License-Identifier: MIT OR Apache-2.0
//! The effective configuration as text, as data, and the rows of the reference page.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::effective::{Effective, Settings};
use super::keys::{Fallback, Section};
use super::{Config, Origin};

/// One effective value in `GET /v1/config`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShownValue {
    /// Table, e.g. `[[device]]`.
    pub table: String,
    /// Device, for keys of devices and paths.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub device: Option<String>,
    /// Path, for keys of paths.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub path: Option<String>,
    /// Dotted key.
    pub key: String,
    /// The value as TOML, absent where unset has a meaning of its own.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub value: Option<String>,
    /// `default`, `computed`, `command line`, `[defaults]` or `file`.
    pub origin: String,
    /// Line of the file, for the last two.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub line: Option<usize>,
}

impl Config {
    /// Every effective value with its origin.
    pub fn shown(&self) -> Vec<ShownValue> {
        let mut out = Vec::new();
        let mut add = |section: Section, settings: &Settings, device: Option<&str>, path: Option<&str>| {
            out.extend(settings.iter().map(|entry| ShownValue {
                table: section.header().to_owned(),
                device: device.map(str::to_owned),
                path: path.map(str::to_owned),
                key: entry.key.name.to_owned(),
                value: entry.value.as_ref().map(super::Value::to_toml),
                origin: entry.origin.as_str().to_owned(),
                line: entry.origin.line(),
            }));
        };
        add(Section::Node, &self.node, None, None);
        add(Section::Listen, &self.listen, None, None);
        for (device, paths) in &self.devices {
            add(Section::Device, device, device.text("name"), None);
            for path in paths {
                add(Section::Path, path, device.text("name"), path.text("name"));
            }
        }
        out
    }
}

/// The effective configuration as a file that means the same, each line with its origin.
pub fn to_toml(values: &[ShownValue]) -> String {
    let mut out = String::new();
    let mut table = None;
    for value in values {
        let here = Some((&value.table, &value.device, &value.path));
        if table != here {
            let gap = if table.is_some() { "\n" } else { "" };
            // Writing to a String cannot fail.
            let _ = writeln!(out, "{gap}{}", value.table);
            table = here;
        }
        let line = value.line.map(|line| format!(", line {line}")).unwrap_or_default();
        let _ = match &value.value {
            Some(text) => {
                let setting = format!("{} = {text}", value.key);
                writeln!(out, "{setting:<44} # {}{line}", value.origin)
            }
            None => writeln!(out, "# {} is not set", value.key),
        };
    }
    out
}

/// The rows of a table of the reference page, as `docs/configuration.md` must have them.
pub fn reference_rows(section: Section) -> Vec<String> {
    section
        .keys()
        .iter()
        .map(|key| {
            let default = match key.fallback {
                Fallback::Text(text) => format!("`{text}`"),
                Fallback::Computed(how) => how.to_owned(),
                Fallback::Unset(meaning) => format!("not set: {meaning}"),
                Fallback::Required => "must be written".to_owned(),
            };
            let reload = if key.reload { "yes" } else { "restart" };
            let later = match key.later {
                None => String::new(),
                Some(later) => format!(" **No effect in this version**: {}.", later.text),
            };
            let (name, kind, range) = (key.name, key.kind.type_name(), key.kind.range());
            format!("| `{name}` | {kind} | {default} | {range} | {reload} | {}{later} |", key.about)
        })
        .collect()
}

impl Effective {
    /// Whether the value was written in the file.
    pub fn is_written(&self) -> bool {
        matches!(self.origin, Origin::File { .. } | Origin::Defaults { .. })
    }
}
