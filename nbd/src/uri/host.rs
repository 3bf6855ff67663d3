// SPDX-License-Identifier: MIT OR Apache-2.0
//! Hosts of TCP URIs.

use alloc::string::String;
use core::fmt;
use core::net::{Ipv4Addr, Ipv6Addr};

/// A host name or address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// A name to resolve.
    Name(String),
    /// An IPv4 address.
    V4(Ipv4Addr),
    /// An IPv6 address.
    V6 {
        /// The address.
        address: Ipv6Addr,
        /// Interface of a link-local address: `[fe80::1%25eth0]` (RFC 6874).
        zone: Option<String>,
    },
}

impl Host {
    /// From a host without brackets. A name of digits and dots that is no IPv4 address is refused: it would
    /// be resolved to something unexpected ("10.1" is 10.0.0.1 to the C library).
    pub(super) fn parse_plain(text: &str) -> Option<Self> {
        if let Ok(address) = text.parse() {
            return Some(Self::V4(address));
        }
        let all_digits = text.bytes().all(|c| c.is_ascii_digit() || c == b'.');
        (is_host_name(text) && !all_digits).then(|| Self::Name(text.into()))
    }

    /// From the inside of brackets.
    pub(super) fn parse_bracketed(text: &str) -> Option<Self> {
        let (address, zone) = match text.split_once("%25") {
            Some((address, zone)) => (address, Some(zone)),
            None => (text, None),
        };
        let address = address.parse().ok()?;
        let zone_ok = zone.is_none_or(|zone| zone.len() <= 15 && is_host_name(zone));
        zone_ok.then(|| Self::V6 { address, zone: zone.map(Into::into) })
    }
}

/// Letters, digits, `-`, `_` and `.`, no empty label, at most 253 bytes.
pub(super) fn is_host_name(text: &str) -> bool {
    let name = text.strip_suffix('.').unwrap_or(text);
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_')
    };
    name.len() <= 253 && name.split('.').all(is_label)
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::V4(address) => write!(f, "{address}"),
            Self::V6 { address, zone: None } => write!(f, "[{address}]"),
            Self::V6 { address, zone: Some(zone) } => write!(f, "[{address}%25{zone}]"),
        }
    }
}
