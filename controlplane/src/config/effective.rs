// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a table means after defaults: each key with its value and its origin.
//!
//! Precedence, first that speaks wins: the table itself, `[defaults]` (devices
//! only), the built-in default.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::Range;

use program::{Nanos, Portal, SocketAddress};
use toml::de::DeValue;

use super::keys::{Fallback, Key, Section};
use super::reader::Table;
use super::scalar;
use super::source::Source;
use super::target::Endpoint;
use super::value::Value;

/// Where an effective value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Built in.
    Default,
    /// Found out at start.
    Computed,
    /// The command line.
    CommandLine,
    /// `[defaults]`, at this line of the file.
    Defaults {
        /// From 1.
        line: usize,
    },
    /// The table itself, at this line of the file.
    File {
        /// From 1.
        line: usize,
    },
}

impl Origin {
    /// The word in `GET /v1/config`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Computed => "computed",
            Self::CommandLine => "command line",
            Self::Defaults { .. } => "[defaults]",
            Self::File { .. } => "file",
        }
    }

    /// The line, where it comes from the file.
    pub const fn line(self) -> Option<usize> {
        match self {
            Self::Defaults { line } | Self::File { line } => Some(line),
            Self::Default | Self::Computed | Self::CommandLine => None,
        }
    }
}

/// The effective value of one key.
#[derive(Clone, Debug)]
pub struct Effective {
    /// The key.
    pub key: &'static Key,
    /// Its value, `None` where unset has a meaning of its own.
    pub value: Option<Value>,
    /// Where it comes from.
    pub origin: Origin,
    /// Where it is written, to point at it.
    pub(crate) span: Option<Range<usize>>,
}

/// The effective values of one table.
#[derive(Clone, Debug)]
pub struct Settings {
    section: Section,
    values: BTreeMap<&'static str, Effective>,
    /// Keys with a wrong value in the file; their default stands in.
    broken: BTreeSet<&'static str>,
    /// The table's header, to point at it as a whole.
    pub(crate) span: Range<usize>,
}

impl Settings {
    /// Fills up `table` from `defaults` and the built-in values.
    pub(crate) fn resolve(
        section: Section,
        table: &Table,
        defaults: Option<&Table>,
        source: &Source,
    ) -> Self {
        let line = |span: &Range<usize>| source.position(span.start).line;
        let mut values = BTreeMap::new();
        let mut broken = table.broken.clone();
        for key in section.keys() {
            let inherited = defaults.and_then(|table| table.settings.get(key.name));
            let (value, origin, span) = match (table.settings.get(key.name), inherited) {
                (Some(own), _) => {
                    (Some(own.value.clone()), Origin::File { line: line(&own.span) }, Some(own.span.clone()))
                }
                (None, Some(set)) if !broken.contains(key.name) => (
                    Some(set.value.clone()),
                    Origin::Defaults { line: line(&set.span) },
                    Some(set.span.clone()),
                ),
                _ => {
                    if defaults.is_some_and(|table| table.broken.contains(key.name)) {
                        broken.insert(key.name);
                    }
                    (default_value(key), Origin::Default, None)
                }
            };
            values.insert(key.name, Effective { key, value, origin, span });
        }
        Self { section, values, broken, span: table.span.clone() }
    }

    /// Puts a value found out at start, or given on the command line, in place.
    pub(crate) fn set(&mut self, name: &'static str, value: Value, origin: Origin) {
        let key = self.entry(name).key;
        self.values.insert(name, Effective { key, value: Some(value), origin, span: None });
    }

    /// Takes over the values that a reload cannot change.
    pub(crate) fn keep_fixed(&mut self, running: &Self) {
        for entry in running.iter().filter(|entry| !entry.key.reload) {
            self.values.insert(entry.key.name, entry.clone());
        }
    }

    /// Effective values in the order of the key table.
    pub fn iter(&self) -> impl Iterator<Item = &Effective> {
        self.section.keys().iter().map(|key| self.entry(key.name))
    }

    /// Whether the file has a wrong value for one of `names`.
    pub(crate) fn any_broken(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.broken.contains(name))
    }

    /// The effective value of a key.
    pub(crate) fn entry(&self, name: &str) -> &Effective {
        // Invariant: `resolve` fills in every key of the section, and callers name keys of the section.
        self.values.get(name).unwrap_or_else(|| panic!("{} has no key `{name}`", self.section.header()))
    }

    /// Where a key is written or, if it is not, the table.
    pub(crate) fn span_of(&self, name: &str) -> Range<usize> {
        self.entry(name).span.clone().unwrap_or_else(|| self.span.clone())
    }

    fn value(&self, name: &str) -> Option<&Value> {
        self.entry(name).value.as_ref()
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        match self.value(name)? {
            Value::Text(text) => Some(text),
            other => kind_mismatch(name, other),
        }
    }

    /// The word chosen, empty where a number or nothing was given.
    pub(crate) fn word(&self, name: &str) -> &'static str {
        match self.value(name) {
            Some(Value::Word(word)) => word,
            _ => "",
        }
    }

    pub(crate) fn bool(&self, name: &str) -> Option<bool> {
        match self.value(name)? {
            Value::Bool(value) => Some(*value),
            other => kind_mismatch(name, other),
        }
    }

    /// The number, `None` where a word was given instead.
    pub(crate) fn integer(&self, name: &str) -> Option<u64> {
        match self.value(name)? {
            Value::Integer(value) => Some(*value),
            Value::Word(_) => None,
            other => kind_mismatch(name, other),
        }
    }

    /// The duration, `None` where a word was given instead.
    pub(crate) fn duration(&self, name: &str) -> Option<Nanos> {
        match self.value(name)? {
            Value::Duration(value) => Some(*value),
            Value::Word(_) => None,
            other => kind_mismatch(name, other),
        }
    }

    pub(crate) fn fraction(&self, name: &str) -> Option<f64> {
        match self.value(name)? {
            Value::Fraction(value) => Some(*value),
            other => kind_mismatch(name, other),
        }
    }

    pub(crate) fn size(&self, name: &str) -> Option<u64> {
        match self.value(name)? {
            Value::Size(value) => Some(*value),
            other => kind_mismatch(name, other),
        }
    }

    pub(crate) fn listeners(&self, name: &str) -> &[SocketAddress] {
        match self.value(name) {
            Some(Value::Listeners(list)) => list,
            _ => &[],
        }
    }

    pub(crate) fn portals(&self, name: &str) -> &[Portal] {
        match self.value(name) {
            Some(Value::Portals(list)) => list,
            _ => &[],
        }
    }

    pub(crate) fn socket(&self, name: &str) -> Option<std::net::SocketAddr> {
        match self.value(name)? {
            Value::Socket(address) => Some(*address),
            _ => None,
        }
    }

    pub(crate) fn ip(&self, name: &str) -> Option<IpAddr> {
        match self.value(name)? {
            Value::Ip(address) => Some(*address),
            other => kind_mismatch(name, other),
        }
    }

    pub(crate) fn uri(&self, name: &str) -> Option<(&str, &Endpoint)> {
        match self.value(name)? {
            Value::Uri(text, endpoint) => Some((text, endpoint)),
            other => kind_mismatch(name, other),
        }
    }
}

/// The built-in value of a key, `None` if it has none.
fn default_value(key: &Key) -> Option<Value> {
    let Fallback::Text(text) = key.fallback else { return None };
    // Invariant: the table's own texts parse; the test below goes through all of them.
    let parsed = DeValue::parse(text).ok().and_then(|value| scalar::check(key, &value).ok());
    Some(parsed.unwrap_or_else(|| panic!("the default of `{}` does not parse", key.name)))
}

fn kind_mismatch(name: &str, value: &Value) -> ! {
    // Invariant: `scalar::check` yields the variant that belongs to the key's kind.
    panic!("`{name}` holds {value:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_parses_and_lies_in_its_range() {
        for section in Section::ALL {
            for key in section.keys() {
                let expected = matches!(key.fallback, Fallback::Text(_));
                assert_eq!(default_value(key).is_some(), expected, "{}", key.name);
            }
        }
    }

    #[test]
    fn the_nearest_word_wins() {
        let source = Source::new("f", "\n\n\n");
        let table = |line: usize, name: &'static str, value: Value| {
            let mut table = Table::default();
            table.settings.insert(name, super::super::reader::Setting { value, span: line..line });
            table
        };
        let own = table(1, "quiesce", Value::Duration(7));
        let defaults = table(2, "quiesce", Value::Duration(8));
        let both = Settings::resolve(Section::Device, &own, Some(&defaults), &source);
        assert_eq!(
            (both.duration("quiesce"), both.entry("quiesce").origin),
            (Some(7), Origin::File { line: 2 })
        );
        let inherited = Settings::resolve(Section::Device, &Table::default(), Some(&defaults), &source);
        assert_eq!(
            (inherited.duration("quiesce"), inherited.entry("quiesce").origin),
            (Some(8), Origin::Defaults { line: 3 })
        );
        let neither = Settings::resolve(Section::Device, &Table::default(), None, &source);
        assert_eq!(neither.entry("quiesce").origin, Origin::Default);
        assert_eq!(neither.entry("quiesce").value, Some(Value::Duration(5_000_000_000)));
    }
}
