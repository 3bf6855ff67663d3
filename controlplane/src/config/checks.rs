// SPDX-License-Identifier: MIT OR Apache-2.0
//! Checks over several keys: names, listeners, paths, times that must nest.
//!
//! A key whose own value is wrong is left out of every comparison: its default
//! stands in for it, and a message about a default that the user did not write
//! would lead astray.

use std::collections::HashMap;

use policies::timing::{Times, Violation, violations};
use program::{NoPath, Portal, REACTOR_MEMORY_BYTES_MIN, SocketAddress};

use super::address::check_unix_path;
use super::build;
use super::effective::Settings;
use super::mistake::Mistake;
use super::reader::DeviceTable;
use super::scalar::conflict;
use super::source::Source;
use super::target::Endpoint;
use super::units::{format_duration, format_size};

/// Mistakes in `[node]` and `[listen]` as a whole.
pub(crate) fn node(node: &Settings, listen: &Settings) -> Vec<Mistake> {
    let mut mistakes = Vec::new();
    let socket = node.text("state_dir").map(|dir| format!("{}/api.sock", dir.trim_end_matches('/')));
    if let Some(Err(why)) = socket.as_deref().map(check_unix_path) {
        let message = "`state_dir` is too long for its control socket `api.sock`";
        mistakes.push(Mistake::new(node.span_of("state_dir"), message).label(why));
    }
    mistakes.extend(memory(node));
    let addresses = listen.listeners("nbd");
    let api = listen.socket("api").map(SocketAddress::Tcp);
    for (index, address) in addresses.iter().enumerate() {
        let shown = super::value::socket_text(address);
        if let Some(other) = addresses[..index].iter().find(|other| conflict(other, address)) {
            let other = super::value::socket_text(other);
            let message = format!("`nbd` lists `{shown}`, which conflicts with `{other}`");
            mistakes
                .push(Mistake::new(listen.span_of("nbd"), message).help("each address can be bound once"));
        }
        if api.as_ref().is_some_and(|api| conflict(api, address)) {
            let message = format!("`api` and `nbd` are both to listen on `{shown}`");
            let at = if listen.entry("api").span.is_some() { "api" } else { "nbd" };
            mistakes.push(Mistake::new(listen.span_of(at), message).help("give one of them another port"));
        }
    }
    mistakes
}

/// Every reactor needs its share of the memory.
fn memory(node: &Settings) -> Option<Mistake> {
    let (reactors, memory) = (node.integer("reactors")?, node.size("memory")?);
    let needed = reactors.saturating_mul(REACTOR_MEMORY_BYTES_MIN);
    if memory >= needed || node.any_broken(&["reactors", "memory"]) {
        return None;
    }
    let message = format!("`memory` ({}) is not enough for {reactors} reactors", format_size(memory));
    let help =
        format!("each needs {}: {} in all", format_size(REACTOR_MEMORY_BYTES_MIN), format_size(needed));
    let at = if node.entry("memory").span.is_some() { "memory" } else { "reactors" };
    Some(Mistake::new(node.span_of(at), message).help(help))
}

/// Mistakes in the set of devices: names used twice.
pub(crate) fn names(devices: &[(Settings, Vec<Settings>)], source: &Source) -> Vec<Mistake> {
    let mut mistakes = duplicates(devices.iter().map(|(device, _)| device), "device", source);
    for (_, paths) in devices {
        mistakes.extend(duplicates(paths.iter(), "path", source));
    }
    mistakes
}

fn duplicates<'s>(tables: impl Iterator<Item = &'s Settings>, what: &str, source: &Source) -> Vec<Mistake> {
    let mut first: HashMap<&str, usize> = HashMap::new();
    let mut mistakes = Vec::new();
    for table in tables {
        let Some(name) = table.text("name") else { continue };
        let span = table.span_of("name");
        let line = source.position(span.start).line;
        if let Some(earlier) = first.get(name) {
            let message = format!("there are two {what}s named \"{}\"", name.escape_debug());
            mistakes.push(Mistake::new(span, message).label(format!("first used in line {earlier}")));
        } else {
            first.insert(name, line);
        }
    }
    mistakes
}

/// What is missing from a device or its paths.
pub(crate) fn missing(table: &DeviceTable, device: &Settings, paths: &[Settings]) -> Vec<Mistake> {
    let mut mistakes = missing_keys("[[device]]", device, &["name"]);
    if paths.is_empty() && !table.paths_broken {
        let name =
            device.text("name").map(|name| format!(" \"{}\"", name.escape_debug())).unwrap_or_default();
        mistakes.push(
            Mistake::new(device.span.clone(), format!("device{name} has no path"))
                .help("add a [[device.path]] with `name` and `uri` below it"),
        );
    }
    for path in paths {
        mistakes.extend(missing_keys("[[device.path]]", path, &["name", "uri"]));
    }
    mistakes
}

fn missing_keys(header: &str, table: &Settings, names: &[&'static str]) -> Vec<Mistake> {
    let absent = |name: &&&str| table.entry(name).value.is_none() && !table.any_broken(&[*name]);
    let mistake = |name: &&str| {
        let help = match *name {
            "uri" => "write where it leads: uri = \"nbd://HOST[:PORT]/EXPORT\"",
            _ => "every one has a name of its own: name = \"...\"",
        };
        Mistake::new(table.span.clone(), format!("this {header} has no `{name}`")).help(help)
    };
    names.iter().filter(absent).map(mistake).collect()
}

/// Mistakes within one device: paths that contradict themselves, times that do not nest.
pub(crate) fn device(device: &Settings, paths: &[Settings]) -> Vec<Mistake> {
    let mut mistakes: Vec<Mistake> = paths.iter().flat_map(path).collect();
    mistakes.extend(times(device));
    mistakes
}

fn path(path: &Settings) -> Vec<Mistake> {
    let Some((_, endpoint)) = path.uri("uri") else { return Vec::new() };
    let tcp = matches!(endpoint, Endpoint::Nbd { portal: Portal::Tcp { .. }, .. });
    let set = |name: &&&str| path.entry(name).value.is_some();
    let mut mistakes: Vec<Mistake> = ["portals", "bind"]
        .iter()
        .filter(set)
        .filter(|_| !tcp)
        .map(|name| {
            Mistake::new(path.span_of(name), format!("`{name}` goes with an nbd:// URI only"))
                .help("remove it, or give `uri` a host")
        })
        .collect();
    if let (Endpoint::File { .. }, Some(2..)) = (endpoint, path.integer("lanes")) {
        let message = "a local file has one lane";
        mistakes.push(Mistake::new(path.span_of("lanes"), message).help("remove `lanes`"));
    }
    mistakes
}

/// The times of a device that do not nest (`policies::timing`).
fn times(device: &Settings) -> Vec<Mistake> {
    let hold = match build::no_path(device) {
        NoPath::Hold(hold) => Some(hold),
        NoPath::Fail | NoPath::Forever => None,
    };
    let times = Times {
        canary_deadline: device.duration("canary.deadline").unwrap_or_default(),
        read_deadline: device.duration("deadline.read").unwrap_or_default(),
        write_deadline: device.duration("deadline.write").unwrap_or_default(),
        quiesce: device.duration("quiesce").unwrap_or_default(),
        hold,
        ..Times::default()
    };
    violations(&times).iter().filter_map(|violation| time_mistake(device, violation)).collect()
}

fn time_mistake(device: &Settings, violation: &Violation) -> Option<Mistake> {
    let (smaller, larger) = (key_of(violation.smaller)?, key_of(violation.larger)?);
    if device.any_broken(&[smaller, larger]) {
        return None;
    }
    // Point at the key that was written, at the table if the clash comes from [defaults] values alone.
    let at = if device.entry(smaller).span.is_some() { smaller } else { larger };
    let text = |ns| format_duration(ns);
    let message = format!(
        "`{smaller}` ({}) and `{larger}` ({}) do not nest",
        text(violation.smaller_ns),
        text(violation.larger_ns)
    );
    Some(Mistake::new(device.span_of(at), message).help(format!("the rule is: {}", violation.rule)))
}

/// The configuration key behind a time of `policies::timing`.
fn key_of(time: &str) -> Option<&'static str> {
    match time {
        "canary deadline" => Some("canary.deadline"),
        "read deadline" => Some("deadline.read"),
        "write deadline" => Some("deadline.write"),
        "quiesce" => Some("quiesce"),
        "hold" => Some("no_path.hold"),
        _ => None,
    }
}
