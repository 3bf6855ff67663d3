// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is allowed but deserves a look at start: keys that do not act yet,
//! listeners open to the network, two names for one thing.

use std::collections::HashMap;
use std::net::SocketAddr;

use program::SocketAddress;

use super::effective::{Effective, Settings};
use super::keys::Later;
use super::mistake::Mistake;

/// All warnings of a configuration without mistakes.
pub(crate) fn all(node: &Settings, listen: &Settings, devices: &[(Settings, Vec<Settings>)]) -> Vec<Mistake> {
    let mut warnings = exposed(listen);
    let tables = devices.iter().flat_map(|(device, paths)| std::iter::once(device).chain(paths));
    for table in [node, listen].into_iter().chain(tables) {
        warnings.extend(table.iter().filter_map(without_effect));
    }
    if devices.is_empty() {
        warnings.push(Mistake::new(0..0, "there is no [[device]]: nothing is exported"));
    }
    for (device, paths) in devices {
        warnings.extend(hold_unused(device));
        warnings.extend(all_read_only(device, paths));
    }
    warnings.extend(shared(devices, "id", "declare the same `id`"));
    warnings.extend(same_target(devices));
    warnings
}

/// A key that was written and has no effect in this version.
fn without_effect(entry: &Effective) -> Option<Mistake> {
    let span = entry.span.clone()?;
    let Later { text } = entry.key.later?;
    let name = entry.key.name;
    Some(Mistake::new(span, format!("`{name}` has no effect in this version")).label(text))
}

/// Listeners that are reachable from other machines.
fn exposed(listen: &Settings) -> Vec<Mistake> {
    let open = listen.listeners("nbd").iter().filter_map(|address| match address {
        SocketAddress::Tcp(address) if !address.ip().is_loopback() => Some(address),
        _ => None,
    });
    let warn = |address: &SocketAddr| {
        let message = format!("{address} is open to the network, and NBD without TLS knows no users");
        Mistake::new(listen.span_of("nbd"), message)
            .help("whoever reaches it can read and write every device; keep it on a storage network")
    };
    let mut warnings: Vec<Mistake> = open.map(warn).collect();
    if let Some(api) = listen.socket("api").filter(|api| !api.ip().is_loopback()) {
        let message = format!("the API on {api} is open to the network, read-only");
        warnings.push(Mistake::new(listen.span_of("api"), message));
    }
    warnings
}

fn hold_unused(device: &Settings) -> Option<Mistake> {
    let mode = device.word("no_path.mode");
    let span = device.entry("no_path.hold").span.clone()?;
    let message = format!("`no_path.hold` has no effect with `no_path.mode = \"{mode}\"`");
    (mode != "hold").then(|| Mistake::new(span, message))
}

fn all_read_only(device: &Settings, paths: &[Settings]) -> Option<Mistake> {
    let read_only = !paths.is_empty() && paths.iter().all(|path| path.bool("read_only") == Some(true));
    let name = device.text("name").unwrap_or_default().escape_debug();
    let message = format!("every path of \"{name}\" is read_only: hosts can only read the device");
    read_only.then(|| Mistake::new(device.span_of("name"), message))
}

/// Devices that have the same text under `key`.
fn shared(devices: &[(Settings, Vec<Settings>)], key: &str, what: &str) -> Vec<Mistake> {
    let mut first: HashMap<&str, &str> = HashMap::new();
    let mut warnings = Vec::new();
    for (device, _) in devices {
        let (Some(value), Some(name)) = (device.text(key), device.text("name")) else { continue };
        if let Some(other) = first.insert(value, name) {
            let (a, b) = (other.escape_debug(), name.escape_debug());
            warnings.push(
                Mistake::new(device.span_of(key), format!("devices \"{a}\" and \"{b}\" {what}"))
                    .help("writes are ordered within a device only: export one volume as one device"),
            );
        }
    }
    warnings
}

/// Paths with the same URI.
fn same_target(devices: &[(Settings, Vec<Settings>)]) -> Vec<Mistake> {
    let mut first: HashMap<&str, usize> = HashMap::new();
    let mut warnings = Vec::new();
    for (index, (_, paths)) in devices.iter().enumerate() {
        for path in paths {
            let Some((uri, _)) = path.uri("uri") else { continue };
            let Some(earlier) = first.insert(uri, index) else { continue };
            let help = if earlier == index {
                "they fail together; for more connections to one server use `lanes`"
            } else {
                "writes are ordered within a device only: export one volume as one device"
            };
            let message = format!("two paths lead to `{}`", uri.escape_debug());
            warnings.push(Mistake::new(path.span_of("uri"), message).help(help));
        }
    }
    warnings
}
