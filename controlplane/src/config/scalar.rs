// SPDX-License-Identifier: MIT OR Apache-2.0
//! One TOML value checked against the kind of its key.
//!
//! Every error says what was found, and its help what is allowed, from the same
//! table that makes the reference page.

use std::ops::Range;

use program::{Nanos, SocketAddress};
use toml::Spanned;
use toml::de::DeValue;

use super::address::{parse_listen, parse_portal, parse_tcp};
use super::keys::{Key, Kind};
use super::mistake::Mistake;
use super::suggest::nearest;
use super::target::parse_uri;
use super::units::{DURATION_FORM, SIZE_FORM, format_duration, format_size, parse_duration, parse_size};
use super::value::Value;
use crate::limits::{EXPORT_NAME_BYTES_MAX, LABEL_BYTES_MAX, LISTENERS_MAX, PORTALS_PER_PATH_MAX};

/// Checks `value` against `key`.
///
/// # Errors
///
/// Every mistake in it; a list may have several.
pub(crate) fn check(key: &Key, value: &Spanned<DeValue<'_>>) -> Result<Value, Vec<Mistake>> {
    let checker = Checker { key, span: value.span() };
    match key.kind {
        Kind::Listeners => checker.list(value, LISTENERS_MAX, parse_listen).map(Value::Listeners),
        Kind::Portals => checker.list(value, PORTALS_PER_PATH_MAX, parse_portal).map(Value::Portals),
        _ => checker.scalar(value.get_ref()).map_err(|mistake| vec![mistake]),
    }
}

struct Checker<'k> {
    key: &'k Key,
    span: Range<usize>,
}

impl Checker<'_> {
    fn scalar(&self, value: &DeValue<'_>) -> Result<Value, Mistake> {
        match self.key.kind {
            Kind::Bool => value.as_bool().map(Value::Bool).ok_or_else(|| self.wrong_type(value)),
            Kind::Integer { min, max } => self.integer(value, min, max),
            Kind::IntegerOr { min, max, words } => match value.as_str() {
                Some(word) => self.word(word, words),
                None => self.integer(value, min, max),
            },
            Kind::Fraction { max } => self.fraction(value, max),
            Kind::Duration { min, max } => self.duration(self.text(value)?, min, max),
            Kind::DurationOr { min, max, words } => self.duration_or(self.text(value)?, min, max, words),
            Kind::Size { min, max } => self.size(value, min, max),
            Kind::Choice(words) => self.word(self.text(value)?, words),
            _ => self.textual(self.text(value)?),
        }
    }

    fn textual(&self, text: &str) -> Result<Value, Mistake> {
        match self.key.kind {
            Kind::ExportName => self.label(text, EXPORT_NAME_BYTES_MAX),
            Kind::Directory | Kind::File if !text.starts_with('/') => {
                Err(self.wrong(text, "it is not an absolute path"))
            }
            Kind::Directory | Kind::File => self.label(text, LABEL_BYTES_MAX * 4),
            Kind::ApiAddress if text == "off" => Ok(Value::Word("off")),
            Kind::ApiAddress => parse_tcp(text).map(Value::Socket).map_err(|why| self.wrong(text, &why)),
            Kind::IpAddress => {
                text.parse().map(Value::Ip).map_err(|_| self.wrong(text, "it is not a numeric address"))
            }
            Kind::Uri => {
                parse_uri(text).map(|endpoint| Value::Uri(text.to_owned(), endpoint)).map_err(|mistake| {
                    let mut shown = self.wrong(text, &mistake.what).help(mistake.help);
                    shown.span = self.within(text, mistake.position);
                    shown
                })
            }
            _ => self.label(text, LABEL_BYTES_MAX),
        }
    }

    fn label(&self, text: &str, bytes_max: usize) -> Result<Value, Mistake> {
        let why = if text.is_empty() {
            "it is empty".to_owned()
        } else if text.len() > bytes_max {
            format!("it has {} bytes, at most {bytes_max} are allowed", text.len())
        } else if text.chars().any(char::is_control) {
            "it contains a control character".to_owned()
        } else {
            return Ok(Value::Text(text.to_owned()));
        };
        Err(self.wrong(text, &why))
    }

    fn integer(&self, value: &DeValue<'_>, min: u64, max: u64) -> Result<Value, Mistake> {
        let Some(number) = value.as_integer() else { return Err(self.wrong_type(value)) };
        let parsed = u64::from_str_radix(number.as_str(), number.radix()).ok();
        match parsed.filter(|number| (min..=max).contains(number)) {
            Some(number) => Ok(Value::Integer(number)),
            None => Err(self.out_of_range(&number.to_string(), &min.to_string(), &max.to_string())),
        }
    }

    fn fraction(&self, value: &DeValue<'_>, max: f64) -> Result<Value, Mistake> {
        let text = match (value.as_float(), value.as_integer()) {
            (Some(number), _) => number.to_string(),
            (None, Some(number)) => number.to_string(),
            (None, None) => return Err(self.wrong_type(value)),
        };
        match text.parse::<f64>().ok().filter(|number| (0.0..=max).contains(number)) {
            Some(number) => Ok(Value::Fraction(number)),
            None => Err(self.out_of_range(&text, "0", &max.to_string())),
        }
    }

    fn duration(&self, text: &str, min: Nanos, max: Nanos) -> Result<Value, Mistake> {
        let value = parse_duration(text).map_err(|why| self.wrong(text, &why).help(DURATION_FORM))?;
        if (min..=max).contains(&value) {
            return Ok(Value::Duration(value));
        }
        Err(self.out_of_range(text, &format_duration(min), &format_duration(max)))
    }

    fn duration_or(
        &self,
        text: &str,
        min: Nanos,
        max: Nanos,
        words: &'static [&'static str],
    ) -> Result<Value, Mistake> {
        if text.starts_with(|c: char| c.is_ascii_digit()) {
            self.duration(text, min, max)
        } else {
            self.word(text, words)
        }
    }

    fn size(&self, value: &DeValue<'_>, min: u64, max: u64) -> Result<Value, Mistake> {
        let (text, parsed) = match (value.as_str(), value.as_integer()) {
            (Some(text), _) => {
                (text.to_owned(), parse_size(text).map_err(|why| self.wrong(text, &why).help(SIZE_FORM))?)
            }
            (None, Some(number)) => {
                let text = number.to_string();
                let parsed = u64::from_str_radix(number.as_str(), number.radix());
                let parsed =
                    parsed.map_err(|_| self.out_of_range(&text, &format_size(min), &format_size(max)))?;
                (text, parsed)
            }
            (None, None) => return Err(self.wrong_type(value)),
        };
        if (min..=max).contains(&parsed) {
            return Ok(Value::Size(parsed));
        }
        Err(self.out_of_range(&text, &format_size(min), &format_size(max)))
    }

    fn word(&self, text: &str, words: &'static [&'static str]) -> Result<Value, Mistake> {
        if let Some(word) = words.iter().find(|word| **word == text) {
            return Ok(Value::Word(word));
        }
        let mistake = self.wrong(text, "");
        Err(match nearest(text, words.iter().copied()) {
            Some(near) => mistake.label(format!("did you mean \"{near}\"?")),
            None => mistake.label("not one of its words"),
        })
    }

    fn text<'v>(&self, value: &'v DeValue<'_>) -> Result<&'v str, Mistake> {
        value.as_str().ok_or_else(|| self.wrong_type(value))
    }

    fn list<T>(
        &self,
        value: &Spanned<DeValue<'_>>,
        len_max: usize,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Vec<T>, Vec<Mistake>> {
        let Some(array) = value.get_ref().as_array() else {
            return Err(vec![self.wrong_type(value.get_ref())]);
        };
        if array.is_empty() || array.len() > len_max {
            let why = format!("`{}` has {} entries, 1 to {len_max} are allowed", self.key.name, array.len());
            return Err(vec![Mistake::new(self.span.clone(), why).help(self.allowed())]);
        }
        let (mut good, mut bad) = (Vec::new(), Vec::new());
        for item in array {
            let at = Checker { key: self.key, span: item.span() };
            match item.get_ref().as_str() {
                Some(text) => match parse(text) {
                    Ok(value) => good.push(value),
                    Err(why) => bad.push(at.wrong(text, &why)),
                },
                None => bad.push(at.wrong_type(item.get_ref())),
            }
        }
        if bad.is_empty() { Ok(good) } else { Err(bad) }
    }

    /// The part of a quoted text from byte `position` on, where the source has it as it is.
    fn within(&self, text: &str, position: usize) -> Range<usize> {
        let quotes = 2;
        if position == 0 || self.span.len() != text.len() + quotes {
            return self.span.clone();
        }
        let start = self.span.start + 1 + position.min(text.len());
        start..(self.span.end - 1).max(start)
    }

    fn wrong(&self, text: &str, why: &str) -> Mistake {
        let shown: String = text.chars().take(60).flat_map(char::escape_debug).collect();
        let dots = if text.chars().nth(60).is_some() { "..." } else { "" };
        let message = format!("`{}` cannot be \"{shown}{dots}\"", self.key.name);
        Mistake::new(self.span.clone(), message).label(why).help(self.allowed())
    }

    fn wrong_type(&self, value: &DeValue<'_>) -> Mistake {
        let found = match value {
            DeValue::String(_) => "a text",
            DeValue::Integer(_) => "a number",
            DeValue::Float(_) => "a number with a fraction",
            DeValue::Boolean(_) => "a boolean",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        let message =
            format!("`{}` takes {}, not {found}", self.key.name, article(self.key.kind.type_name()));
        let form = match self.key.kind {
            Kind::Duration { .. } | Kind::DurationOr { .. } => DURATION_FORM.to_owned(),
            Kind::Size { .. } => SIZE_FORM.to_owned(),
            _ => self.allowed(),
        };
        Mistake::new(self.span.clone(), message).label("wrong type").help(form)
    }

    fn out_of_range(&self, text: &str, min: &str, max: &str) -> Mistake {
        let message = format!("`{}` cannot be {text}", self.key.name);
        Mistake::new(self.span.clone(), message)
            .label("out of range")
            .help(format!("{min} to {max} is allowed"))
    }

    fn allowed(&self) -> String {
        format!("allowed: {}", self.key.kind.range())
    }
}

/// The type name with its article where it needs one.
fn article(type_name: &str) -> String {
    match type_name.chars().next() {
        _ if type_name == "true or false" || type_name == "text" => type_name.to_owned(),
        Some('a' | 'A' | 'e' | 'I' | 'i' | 'o') => format!("an {type_name}"),
        _ => format!("a {type_name}"),
    }
}

/// Whether two listening addresses cannot be bound at once: equal, or equal
/// ports where one is every address of a family the other is in. `[::]` takes
/// IPv4 too, as Linux has it by default.
pub(crate) fn conflict(a: &SocketAddress, b: &SocketAddress) -> bool {
    match (a, b) {
        (SocketAddress::Unix(a), SocketAddress::Unix(b)) => a == b,
        (SocketAddress::Tcp(a), SocketAddress::Tcp(b)) if a.port() == b.port() => {
            let covers = |wide: std::net::IpAddr, narrow: std::net::IpAddr| {
                wide.is_unspecified() && (wide.is_ipv6() || narrow.is_ipv4())
            };
            a.ip() == b.ip() || covers(a.ip(), b.ip()) || covers(b.ip(), a.ip())
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_conflict_with_what_they_cover() {
        let at = |text: &str| parse_listen(text).expect(text);
        for (a, b) in [
            ("127.0.0.1:1", "127.0.0.1:1"),
            ("0.0.0.0:1", "127.0.0.1:1"),
            ("[::]:1", "127.0.0.1:1"),
            ("[::]:1", "[::1]:1"),
            ("unix:/a", "unix:/a"),
        ] {
            assert!(conflict(&at(a), &at(b)) && conflict(&at(b), &at(a)), "{a} {b}");
        }
        for (a, b) in [
            ("127.0.0.1:1", "127.0.0.1:2"),
            ("127.0.0.1:1", "127.0.0.2:1"),
            ("0.0.0.0:1", "[::1]:1"),
            ("unix:/a", "unix:/b"),
            ("unix:/a", "127.0.0.1:1"),
        ] {
            assert!(!conflict(&at(a), &at(b)) && !conflict(&at(b), &at(a)), "{a} {b}");
        }
    }
}
