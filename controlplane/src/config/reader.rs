// SPDX-License-Identifier: MIT OR Apache-2.0
//! From TOML text to tables of checked settings; collects mistakes, stops at none.
//!
//! The tree is walked by hand along the key table. Deriving `Deserialize` would
//! be shorter and would stop at the first mistake, and whoever repairs a file
//! one message at a time repairs it five times.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::{Key, Section};
use super::mistake::Mistake;
use super::scalar;
use super::source::Source;
use super::suggest::nearest;
use super::value::Value;
use crate::limits::{DEVICES_MAX, PATHS_PER_DEVICE_MAX};

/// A value that was written in the file.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    pub(crate) value: Value,
    pub(crate) span: Range<usize>,
}

/// What one table of the file sets.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    /// Where the table is: its header.
    pub(crate) span: Range<usize>,
    /// Good settings by dotted name.
    pub(crate) settings: BTreeMap<&'static str, Setting>,
    /// Keys that are written and wrong: later checks leave them alone.
    pub(crate) broken: BTreeSet<&'static str>,
}

/// A device's table with the tables of its paths.
#[derive(Clone, Debug, Default)]
pub(crate) struct DeviceTable {
    pub(crate) table: Table,
    pub(crate) paths: Vec<Table>,
    /// `path` is there but unreadable: "has no path" would mislead.
    pub(crate) paths_broken: bool,
}

/// The whole file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Document {
    pub(crate) node: Table,
    pub(crate) listen: Table,
    pub(crate) defaults: Table,
    pub(crate) devices: Vec<DeviceTable>,
    /// `device` is there but unreadable.
    pub(crate) devices_broken: bool,
}

/// Reads a document.
///
/// The flag says whether the text was TOML at all: if not, parts may be missing
/// from the document, and only mistakes that stand for themselves are listed.
pub(crate) fn read(source: &Source) -> (Document, Vec<Mistake>, bool) {
    let (tree, errors) = DeTable::parse_recoverable(source.text());
    let mut reader = Reader { mistakes: Vec::new() };
    let document = reader.document(tree.get_ref());
    if errors.is_empty() {
        return (document, reader.mistakes, true);
    }
    let mut mistakes: Vec<Mistake> = errors.iter().map(|error| syntax_mistake(error, source)).collect();
    // What a broken line seems to say is not worth a second message.
    let broken: BTreeSet<usize> = mistakes.iter().map(|m| source.position(m.span.start).line).collect();
    let standing = |m: &Mistake| !broken.contains(&source.position(m.span.start).line);
    mistakes.extend(reader.mistakes.into_iter().filter(standing));
    (document, mistakes, false)
}

fn syntax_mistake(error: &toml::de::Error, source: &Source) -> Mistake {
    let span = error.span().unwrap_or(0..0);
    let mistake = Mistake::new(span.clone(), format!("this is not TOML: {}", error.message()));
    // A value that was left out is reported at the line's end.
    if source.text().get(span).is_some_and(|text| text.trim().is_empty()) {
        mistake.label("something is missing here")
    } else {
        mistake
    }
}

struct Reader {
    mistakes: Vec<Mistake>,
}

impl Reader {
    fn document(&mut self, tree: &DeTable<'_>) -> Document {
        let mut document = Document::default();
        for (key, value) in tree {
            match key.get_ref().as_ref() {
                "node" => document.node = self.single(Section::Node, "[node]", key.span(), value),
                "listen" => document.listen = self.single(Section::Listen, "[listen]", key.span(), value),
                "defaults" => {
                    document.defaults = self.single(Section::Device, "[defaults]", key.span(), value);
                }
                "device" => match self.tables(value, "[[device]]", DEVICES_MAX) {
                    Some(devices) => {
                        document.devices =
                            devices.iter().map(|(span, table)| self.device(span, table)).collect();
                    }
                    None => document.devices_broken = true,
                },
                other => self.unknown_table(other, key.span()),
            }
        }
        document
    }

    fn single(
        &mut self,
        section: Section,
        header: &str,
        span: Range<usize>,
        value: &Spanned<DeValue<'_>>,
    ) -> Table {
        if let Some(table) = value.get_ref().as_table() {
            return self.table(section, header, span, table, &[]);
        }
        let name = header.trim_matches(['[', ']']);
        let help = format!("write {header} on a line of its own and its keys below it");
        self.mistakes.push(Mistake::new(value.span(), format!("`{name}` is a table")).help(help));
        Table::default()
    }

    fn device(&mut self, span: &Range<usize>, tree: &DeTable<'_>) -> DeviceTable {
        let table = self.table(Section::Device, "[[device]]", span.clone(), tree, &["path"]);
        let (mut paths, mut paths_broken) = (Vec::new(), false);
        if let Some((_, value)) = tree.iter().find(|(key, _)| key.get_ref() == "path") {
            match self.tables(value, "[[device.path]]", PATHS_PER_DEVICE_MAX) {
                Some(list) => {
                    let path = |(span, tree): &(Range<usize>, &DeTable<'_>)| {
                        self.table(Section::Path, "[[device.path]]", span.clone(), tree, &[])
                    };
                    paths = list.iter().map(path).collect();
                }
                None => paths_broken = true,
            }
        }
        DeviceTable { table, paths, paths_broken }
    }

    /// The elements of an array of tables, `None` if it is none.
    fn tables<'t, 'i>(
        &mut self,
        value: &'t Spanned<DeValue<'i>>,
        header: &str,
        len_max: usize,
    ) -> Option<Vec<(Range<usize>, &'t DeTable<'i>)>> {
        let items = value.get_ref().as_array().map(|array| {
            array
                .iter()
                .map(|item| Some((item.span(), item.get_ref().as_table()?)))
                .collect::<Option<Vec<_>>>()
        });
        let Some(Some(items)) = items else {
            let name = header.trim_matches(['[', ']']);
            let message = format!("`{name}` is a list of tables, one for each");
            self.mistakes
                .push(Mistake::new(value.span(), message).help(format!("write {header} with two brackets")));
            return None;
        };
        if let Some((span, _)) = items.get(len_max) {
            let message = format!("there are {} {header} tables, {len_max} are allowed", items.len());
            self.mistakes.push(Mistake::new(span.clone(), message));
            return None;
        }
        Some(items)
    }

    fn table(
        &mut self,
        section: Section,
        header: &str,
        span: Range<usize>,
        tree: &DeTable<'_>,
        skip: &[&str],
    ) -> Table {
        let mut out = Table { span, ..Table::default() };
        for (key, value) in tree {
            if !skip.contains(&key.get_ref().as_ref()) {
                self.entry(section, header, &mut out, "", key, value);
            }
        }
        out
    }

    fn entry(
        &mut self,
        section: Section,
        header: &str,
        out: &mut Table,
        prefix: &str,
        key: &Spanned<std::borrow::Cow<'_, str>>,
        value: &Spanned<DeValue<'_>>,
    ) {
        let name = format!("{prefix}{}", key.get_ref());
        if let Some(known) = section.find(&name) {
            if header == "[defaults]" && known.name == "name" {
                let message = "`name` cannot stand in [defaults]".to_owned();
                self.mistakes
                    .push(Mistake::new(key.span(), message).help("every [[device]] has a name of its own"));
                return;
            }
            return self.setting(out, known, value);
        }
        let group = format!("{name}.");
        if !section.keys().iter().any(|known| known.name.starts_with(&group)) {
            return self.unknown_key(section, header, &name, prefix, key.span());
        }
        let Some(tree) = value.get_ref().as_table() else {
            let inner: Vec<_> = section.keys().iter().filter_map(|k| k.name.strip_prefix(&group)).collect();
            out.broken.extend(section.keys().iter().map(|k| k.name).filter(|n| n.starts_with(&group)));
            let message = format!("`{name}` takes a table, with {}", list(&inner));
            let form = format!("write `{name} = {{ {} = ... }}`", inner.first().unwrap_or(&""));
            self.mistakes.push(Mistake::new(value.span(), message).label("wrong type").help(form));
            return;
        };
        for (key, value) in tree {
            self.entry(section, header, out, &group, key, value);
        }
    }

    fn setting(&mut self, out: &mut Table, key: &'static Key, value: &Spanned<DeValue<'_>>) {
        match scalar::check(key, value) {
            Ok(checked) => {
                out.settings.insert(key.name, Setting { value: checked, span: value.span() });
            }
            Err(mistakes) => {
                out.broken.insert(key.name);
                self.mistakes.extend(mistakes);
            }
        }
    }

    fn unknown_key(&mut self, section: Section, header: &str, name: &str, prefix: &str, span: Range<usize>) {
        let mistake = Mistake::new(span, format!("unknown key `{}`", name.escape_debug()));
        let known = || section.keys().iter().map(|key| key.name);
        let near = nearest(name, known());
        let label = match (near, elsewhere(section, name)) {
            (Some(near), _) => format!("did you mean `{near}`?"),
            (None, Some(place)) => format!("this key belongs in {place}"),
            (None, None) => format!("not a key of {header}"),
        };
        let here = |name: &&str| name.starts_with(prefix) && !(header == "[defaults]" && *name == "name");
        let allowed: Vec<_> = known().filter(here).collect();
        self.mistakes.push(mistake.label(label).help(format!("keys of {header}: {}", list(&allowed))));
    }

    fn unknown_table(&mut self, name: &str, span: Range<usize>) {
        let mistake = Mistake::new(span, format!("unknown key `{}`", name.escape_debug()));
        let place = Section::ALL.into_iter().find(|section| section.find(name).is_some());
        let label = match (name, nearest(name, ["node", "listen", "defaults", "device"]), place) {
            ("set" | "member" | "tls", ..) => "this version has no failover sets, members or TLS".to_owned(),
            (_, Some(near), _) => format!("did you mean `{near}`?"),
            (_, None, Some(section)) => format!("this key belongs in {}", section.header()),
            _ => "not a table of this file".to_owned(),
        };
        self.mistakes.push(
            mistake.label(label).help("tables: [node], [listen], [defaults], [[device]], [[device.path]]"),
        );
    }
}

/// Another table that has this key.
fn elsewhere(section: Section, name: &str) -> Option<&'static str> {
    Section::ALL
        .into_iter()
        .find(|other| *other != section && other.find(name).is_some())
        .map(Section::header)
}

fn list(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
