// SPDX-License-Identifier: MIT OR Apache-2.0
//! JSON documents with a path in the failure text.

use std::fmt;

/// A value and where it came from, so that a missing field says which.
#[derive(Clone, Debug)]
#[must_use]
pub struct Json {
    place: String,
    value: serde_json::Value,
}

impl Json {
    /// Parses text; `place` names the document in failures.
    pub fn parse(place: &str, text: &str) -> Self {
        let value =
            serde_json::from_str(text).unwrap_or_else(|e| panic!("{place} is not JSON ({e}): {text}"));
        Self { place: place.to_owned(), value }
    }

    /// Parses text that may be cut off.
    pub fn try_parse(place: &str, text: &str) -> Option<Self> {
        let value = serde_json::from_str(text).ok()?;
        Some(Self { place: place.to_owned(), value })
    }

    /// A field that must be there.
    pub fn get(&self, key: &str) -> Self {
        self.find(key).unwrap_or_else(|| panic!("{} has no field {key}: {}", self.place, self.value))
    }

    /// A field that may be there.
    pub fn find(&self, key: &str) -> Option<Self> {
        let value = self.value.get(key)?.clone();
        Some(Self { place: format!("{}.{key}", self.place), value })
    }

    /// Elements of an array.
    pub fn items(&self) -> Vec<Self> {
        let items = self.value.as_array().unwrap_or_else(|| self.wrong("an array"));
        let named = |(i, value): (usize, &serde_json::Value)| Self {
            place: format!("{}[{i}]", self.place),
            value: value.clone(),
        };
        items.iter().enumerate().map(named).collect()
    }

    /// Its text.
    pub fn text(&self) -> &str {
        self.value.as_str().unwrap_or_else(|| self.wrong("text"))
    }

    /// Its number.
    pub fn number(&self) -> u64 {
        self.value.as_u64().unwrap_or_else(|| self.wrong("a whole number"))
    }

    /// Its truth value.
    pub fn truth(&self) -> bool {
        self.value.as_bool().unwrap_or_else(|| self.wrong("true or false"))
    }

    fn wrong(&self, expected: &str) -> ! {
        panic!("{} is not {expected}: {}", self.place, self.value)
    }
}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.value)
    }
}
