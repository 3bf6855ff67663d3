// SPDX-License-Identifier: MIT OR Apache-2.0
//! The one table of configuration keys: type, default, range, meaning.
//!
//! The parser, `config show`, the start-up warnings and the reference page
//! `docs/configuration.md` are all made from it (a test compares the page), so
//! a key cannot be documented one way and read another. Defaults stand here as
//! the text a user would write and go through the same parser as a user's text.

mod device;
mod node;
mod path;

use crate::config::units::{format_duration, format_size};
use program::Nanos;

pub(crate) use device::DEVICE;
pub(crate) use node::{LISTEN, NODE};
pub(crate) use path::PATH;

/// A table of the configuration file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Section {
    /// `[node]`
    Node,
    /// `[listen]`
    Listen,
    /// `[[device]]`, and `[defaults]` for the keys that may stand there.
    Device,
    /// `[[device.path]]`
    Path,
}

impl Section {
    /// All of them, in the order of the reference page.
    pub const ALL: [Self; 4] = [Self::Node, Self::Listen, Self::Device, Self::Path];

    /// The header as written in the file.
    pub const fn header(self) -> &'static str {
        match self {
            Self::Node => "[node]",
            Self::Listen => "[listen]",
            Self::Device => "[[device]]",
            Self::Path => "[[device.path]]",
        }
    }

    /// The keys of this table, in the order of the reference page.
    pub const fn keys(self) -> &'static [Key] {
        match self {
            Self::Node => NODE,
            Self::Listen => LISTEN,
            Self::Device => DEVICE,
            Self::Path => PATH,
        }
    }

    /// Looks a key up by its dotted name.
    pub fn find(self, name: &str) -> Option<&'static Key> {
        self.keys().iter().find(|key| key.name == name)
    }
}

/// One key.
#[derive(Debug)]
pub struct Key {
    /// Dotted name within its table, e.g. `no_path.hold`.
    pub name: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// What holds where it is not written.
    pub fallback: Fallback,
    /// Whether a reload changes it, or only a restart.
    pub reload: bool,
    /// Set where a key is read and checked but does not act yet.
    pub later: Option<Later>,
    /// What it means, one or two sentences.
    pub about: &'static str,
}

/// A key whose feature is not there yet.
#[derive(Clone, Copy, Debug)]
pub struct Later {
    /// What is missing.
    pub text: &'static str,
}

/// What a key holds where it is not written.
#[derive(Clone, Copy, Debug)]
pub enum Fallback {
    /// This TOML text.
    Text(&'static str),
    /// Found out at start; the text says how.
    Computed(&'static str),
    /// Nothing; the text says what that means.
    Unset(&'static str),
    /// It must be written.
    Required,
}

/// What a key takes, with its range.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// A short printable text.
    Label,
    /// An NBD export name.
    ExportName,
    /// An absolute directory path.
    Directory,
    /// An absolute path of a file.
    File,
    /// `true` or `false`.
    Bool,
    /// A whole number.
    Integer {
        /// Smallest.
        min: u64,
        /// Largest.
        max: u64,
    },
    /// A whole number or a word.
    IntegerOr {
        /// Smallest.
        min: u64,
        /// Largest.
        max: u64,
        /// The words.
        words: &'static [&'static str],
    },
    /// A number from 0 to `max`.
    Fraction {
        /// Largest.
        max: f64,
    },
    /// A duration.
    Duration {
        /// Shortest.
        min: Nanos,
        /// Longest.
        max: Nanos,
    },
    /// A duration or a word.
    DurationOr {
        /// Shortest.
        min: Nanos,
        /// Longest.
        max: Nanos,
        /// The words.
        words: &'static [&'static str],
    },
    /// A size in bytes.
    Size {
        /// Smallest.
        min: u64,
        /// Largest.
        max: u64,
    },
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A list of listening addresses, TCP and Unix.
    Listeners,
    /// One TCP listening address, or `off`.
    ApiAddress,
    /// An IP address.
    IpAddress,
    /// Where a path leads.
    Uri,
    /// A list of TCP addresses to connect to.
    Portals,
}

impl Kind {
    /// The word for the type, for the reference page and error texts.
    pub const fn type_name(self) -> &'static str {
        match self {
            Self::Label | Self::ExportName => "text",
            Self::Directory | Self::File => "absolute path",
            Self::Bool => "true or false",
            Self::Integer { .. } => "whole number",
            Self::IntegerOr { .. } => "whole number or word",
            Self::Fraction { .. } => "number",
            Self::Duration { .. } => "duration",
            Self::DurationOr { .. } => "duration or word",
            Self::Size { .. } => "size",
            Self::Choice(_) => "word",
            Self::ApiAddress => "address or word",
            Self::IpAddress => "IP address",
            Self::Uri => "URI",
            Self::Listeners | Self::Portals => "list of addresses",
        }
    }

    /// What is allowed, for the reference page and error texts.
    pub fn range(self) -> String {
        match self {
            Self::Label => "1 to 255 bytes, no control characters".to_owned(),
            Self::ExportName => "1 to 4096 bytes, no control characters".to_owned(),
            Self::Directory | Self::File => "begins with `/`".to_owned(),
            Self::Bool => "`true`, `false`".to_owned(),
            Self::Integer { min, max } => format!("{min} to {max}"),
            Self::IntegerOr { min, max, words } => format!("{min} to {max}, or {}", quoted(words)),
            Self::Fraction { max } => format!("0 to {max}"),
            Self::Duration { min, max } => format!("{} to {}", format_duration(min), format_duration(max)),
            Self::DurationOr { min, max, words } => {
                format!("{} to {}, or {}", format_duration(min), format_duration(max), quoted(words))
            }
            Self::Size { min, max } => format!("{} to {}", format_size(min), format_size(max)),
            Self::Choice(words) => quoted(words),
            Self::Listeners => "`\"IP:PORT\"`, `\"unix:/PATH\"`; at least one".to_owned(),
            Self::ApiAddress => "`\"IP:PORT\"`, or `\"off\"`".to_owned(),
            Self::IpAddress => "IPv4 or IPv6".to_owned(),
            Self::Uri => {
                "`nbd://HOST[:PORT]/EXPORT`, `nbd+unix:///EXPORT?socket=PATH`, `file:///PATH`".to_owned()
            }
            Self::Portals => "`\"HOST:PORT\"`; 1 to 16".to_owned(),
        }
    }
}

/// `"a"`, `"b"`, as they are written in a file.
pub(crate) fn quoted(words: &[&str]) -> String {
    words.iter().map(|word| format!("`\"{word}\"`")).collect::<Vec<_>>().join(", ")
}

impl Key {
    const fn new(name: &'static str, kind: Kind, fallback: Fallback, about: &'static str) -> Self {
        Self { name, kind, fallback, reload: true, later: None, about }
    }

    const fn restart(mut self) -> Self {
        self.reload = false;
        self
    }

    const fn later(mut self, text: &'static str) -> Self {
        self.later = Some(Later { text });
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_texts_are_there() {
        for section in Section::ALL {
            let names: BTreeSet<_> = section.keys().iter().map(|key| key.name).collect();
            assert_eq!(names.len(), section.keys().len(), "{}", section.header());
            for key in section.keys() {
                assert!(key.about.ends_with('.'), "{}: the text is no sentence", key.name);
                // The reference page puts it in a table.
                assert!(!key.about.contains('|') && !key.kind.range().contains('|'), "{}", key.name);
            }
        }
    }
}
