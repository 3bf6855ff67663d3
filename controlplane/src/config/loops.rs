// SPDX-License-Identifier: MIT OR Apache-2.0
//! Paths that lead back to the device they belong to.
//!
//! A device may stand on another device of the same node (the demo does). If it stands on
//! itself, directly or through others, every request on such a path comes back as a request
//! of a host and none reaches storage, while the content check finds what it expects: the
//! path looks healthy and swallows I/O. So a circle is a mistake.
//!
//! Found is what the file alone tells: numeric addresses, `localhost`, sockets. A listener on
//! every address (`0.0.0.0`) is found behind loopback addresses only, since which other
//! addresses are this machine's is not known without asking it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;

use program::{Portal, SocketAddress};

use super::effective::Settings;
use super::mistake::Mistake;
use super::scalar::conflict;
use super::target::Endpoint;

/// One path that leads to a device of this node.
struct Edge {
    from: usize,
    to: usize,
    span: Range<usize>,
}

/// A mistake for every path in a circle.
pub(crate) fn loops(listen: &Settings, devices: &[(Settings, Vec<Settings>)]) -> Vec<Mistake> {
    let mut edges = edges(listen.listeners("nbd"), devices);
    trim(&mut edges);
    edges.iter().map(|edge| mistake(edge, devices)).collect()
}

fn mistake(edge: &Edge, devices: &[(Settings, Vec<Settings>)]) -> Mistake {
    let name = |index: usize| devices[index].0.text("name").unwrap_or_default().escape_debug().to_string();
    let (from, to) = (name(edge.from), name(edge.to));
    let message = if edge.from == edge.to {
        format!("this path of device \"{from}\" leads back to the device itself")
    } else {
        format!("this path of device \"{from}\" leads to device \"{to}\" of this node, which leads back")
    };
    Mistake::new(edge.span.clone(), message).help("a path must lead to storage: give it the server's address")
}

fn edges(listeners: &[SocketAddress], devices: &[(Settings, Vec<Settings>)]) -> Vec<Edge> {
    let mut edges = Vec::new();
    for (from, (_, paths)) in devices.iter().enumerate() {
        for path in paths {
            let Some((_, Endpoint::Nbd { portal, export })) = path.uri("uri") else { continue };
            let Some(to) = exported(export, devices) else { continue };
            let ours = |portal: &Portal| listeners.iter().any(|listener| reaches(portal, listener));
            if ours(portal) {
                edges.push(Edge { from, to, span: path.span_of("uri") });
            } else if path.portals("portals").iter().any(ours) {
                edges.push(Edge { from, to, span: path.span_of("portals") });
            }
        }
    }
    edges
}

/// The device that an export name means; the empty name is the only device.
fn exported(export: &str, devices: &[(Settings, Vec<Settings>)]) -> Option<usize> {
    if export.is_empty() {
        return (devices.len() == 1).then_some(0);
    }
    devices.iter().position(|(device, _)| device.text("name") == Some(export))
}

/// Whether a connection to `portal` surely ends at `listener`.
fn reaches(portal: &Portal, listener: &SocketAddress) -> bool {
    let (host, port) = match portal {
        Portal::Unix(path) => return *listener == SocketAddress::Unix(path.clone()),
        Portal::Tcp { host, port } => (host, *port),
    };
    let addresses = match host.parse() {
        Ok(ip) => vec![ip],
        Err(_) if host.eq_ignore_ascii_case("localhost") => {
            vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)]
        }
        Err(_) => Vec::new(),
    };
    addresses.into_iter().any(|ip: IpAddr| {
        let address = SocketAddress::Tcp(SocketAddr::new(ip, port));
        // The unspecified address, as a destination, is this machine.
        let here = ip.is_loopback() || ip.is_unspecified();
        *listener == address || (here && conflict(listener, &address))
    })
}

/// Leaves the edges of circles, and those between circles: an edge into a device that leads
/// to no other, or from one that no other leads to, is none, and so on until all stay.
fn trim(edges: &mut Vec<Edge>) {
    loop {
        let before = edges.len();
        let leads = |device: usize, edges: &[Edge]| edges.iter().any(|edge| edge.from == device);
        let is_led_to = |device: usize, edges: &[Edge]| edges.iter().any(|edge| edge.to == device);
        let keep: Vec<bool> =
            edges.iter().map(|edge| leads(edge.to, edges) && is_led_to(edge.from, edges)).collect();
        let mut keep = keep.into_iter();
        edges.retain(|_| keep.next().unwrap_or(true));
        if edges.len() == before {
            return;
        }
    }
}
