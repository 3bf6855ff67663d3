// SPDX-License-Identifier: MIT OR Apache-2.0
//! A configuration value after its text was checked against its key.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use program::{Nanos, Portal, SocketAddress};

use super::target::Endpoint;
use super::units::{format_duration, format_size};

/// One checked value; which variant a key yields follows from its kind.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Label, export name or directory.
    Text(String),
    /// One of the key's words.
    Word(&'static str),
    /// Truth value.
    Bool(bool),
    /// Whole number.
    Integer(u64),
    /// Number between 0 and 1.
    Fraction(f64),
    /// Duration.
    Duration(Nanos),
    /// Size in bytes.
    Size(u64),
    /// Listening addresses.
    Listeners(Vec<SocketAddress>),
    /// One TCP address.
    Socket(SocketAddr),
    /// An IP address.
    Ip(IpAddr),
    /// Where a path leads: as written, and taken apart.
    Uri(String, Endpoint),
    /// Addresses to connect to.
    Portals(Vec<Portal>),
}

impl Value {
    /// The value as it would be written in a configuration file.
    pub fn to_toml(&self) -> String {
        match self {
            Self::Text(text) | Self::Uri(text, _) => quote(text),
            Self::Word(word) => quote(word),
            Self::Bool(value) => value.to_string(),
            Self::Integer(value) => value.to_string(),
            Self::Fraction(value) => format!("{value:?}"),
            Self::Duration(value) => quote(&format_duration(*value)),
            Self::Size(value) => quote(&format_size(*value)),
            Self::Listeners(list) => quote_list(list.iter().map(socket_text)),
            Self::Socket(address) => quote(&address.to_string()),
            Self::Ip(address) => quote(&address.to_string()),
            Self::Portals(list) => quote_list(list.iter().map(portal_text)),
        }
    }
}

/// A listening address as it is written in a configuration.
pub(crate) fn socket_text(address: &SocketAddress) -> String {
    match address {
        SocketAddress::Tcp(address) => address.to_string(),
        SocketAddress::Unix(path) => format!("unix:{path}"),
    }
}

/// A portal as it is written in a configuration.
pub(crate) fn portal_text(portal: &Portal) -> String {
    match portal {
        Portal::Tcp { host, port } if host.contains(':') => format!("[{host}]:{port}"),
        Portal::Tcp { host, port } => format!("{host}:{port}"),
        Portal::Unix(path) => format!("unix:{path}"),
    }
}

fn quote_list(items: impl Iterator<Item = String>) -> String {
    let items: Vec<String> = items.map(|item| quote(&item)).collect();
    format!("[{}]", items.join(", "))
}

/// A TOML basic string.
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c.is_control() => {
                // Writing to a String cannot fail.
                let _ = write!(out, "\\U{:08X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
