// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where a path leads: its URI as the data plane needs it.
//!
//! The URI itself is taken apart by `nbd`; here it is narrowed to what this
//! version can reach.

use nbd::uri::{Host, NbdUri, Transport, Uri};
use program::Portal;

/// Where the URI of a path leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// An export of an NBD server.
    Nbd {
        /// Address of the server.
        portal: Portal,
        /// Export name; empty is the server's default.
        export: String,
    },
    /// A local file or block device.
    File {
        /// Absolute path.
        path: String,
    },
}

/// What is wrong with a URI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UriMistake {
    /// Byte of the URI at which it goes wrong.
    pub(crate) position: usize,
    /// What is wrong.
    pub(crate) what: String,
    /// What is allowed.
    pub(crate) help: String,
}

/// Takes the URI of a path apart.
///
/// # Errors
///
/// A URI that is malformed, or that this version cannot reach.
pub(crate) fn parse_uri(text: &str) -> Result<Endpoint, UriMistake> {
    let uri = Uri::parse(text).map_err(|error| UriMistake {
        position: error.position,
        what: error.problem.text().to_owned(),
        help: format!("allowed: {}", error.problem.allowed()),
    })?;
    match uri {
        Uri::File { path } => utf8_path(path).map(|path| Endpoint::File { path }),
        Uri::Nbd(NbdUri { tls: Some(_), .. }) => Err(mistake(
            "this version has no TLS",
            "use nbd:// or nbd+unix:// on a network that is yours alone, or a TLS tunnel in front of it",
        )),
        Uri::Nbd(NbdUri { transport, export, tls: None }) => {
            Ok(Endpoint::Nbd { portal: portal(transport)?, export })
        }
    }
}

fn portal(transport: Transport) -> Result<Portal, UriMistake> {
    match transport {
        Transport::Tcp { host, port } => {
            let host = match host {
                Host::Name(name) => name,
                Host::V4(address) => address.to_string(),
                Host::V6 { address, zone: None } => address.to_string(),
                Host::V6 { address, zone: Some(zone) } => format!("{address}%{zone}"),
            };
            Ok(Portal::Tcp { host, port })
        }
        Transport::Unix { path } if path.first() == Some(&b'/') => utf8_path(path).map(Portal::Unix),
        Transport::Unix { path } if path.first() == Some(&0) => {
            Err(mistake("an abstract socket", "sockets are reached by their path: ?socket=/ABSOLUTE/PATH"))
        }
        Transport::Unix { .. } => Err(mistake(
            "a relative socket path",
            "a node has no directory it starts from: ?socket=/ABSOLUTE/PATH",
        )),
    }
}

fn utf8_path(path: Vec<u8>) -> Result<String, UriMistake> {
    String::from_utf8(path).map_err(|_| mistake("the path is not UTF-8", "only UTF-8 paths are reached"))
}

fn mistake(what: &str, help: &str) -> UriMistake {
    UriMistake { position: 0, what: what.to_owned(), help: help.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_become_endpoints() {
        let tcp = |host: &str, port, export: &str| {
            Ok(Endpoint::Nbd {
                portal: Portal::Tcp { host: host.to_owned(), port },
                export: export.to_owned(),
            })
        };
        assert_eq!(parse_uri("nbd://10.0.1.5/vol0"), tcp("10.0.1.5", 10809, "vol0"));
        assert_eq!(parse_uri("nbd://store:4000"), tcp("store", 4000, ""));
        assert_eq!(parse_uri("nbd://[fd00::1]/a%20b"), tcp("fd00::1", 10809, "a b"));
        assert_eq!(parse_uri("nbd://[fe80::1%25eth0]/v"), tcp("fe80::1%eth0", 10809, "v"));
        assert_eq!(
            parse_uri("nbd+unix:///vol0?socket=/run/s"),
            Ok(Endpoint::Nbd { portal: Portal::Unix("/run/s".to_owned()), export: "vol0".to_owned() })
        );
        assert_eq!(parse_uri("file:///dev/sdb"), Ok(Endpoint::File { path: "/dev/sdb".to_owned() }));
    }

    #[test]
    fn what_cannot_be_reached_is_refused() {
        for (wrong, told) in [
            ("nbds://h/v", "no TLS"),
            ("nbds+unix:///v?socket=/s", "no TLS"),
            ("nbd+unix:///v?socket=s", "relative"),
            ("nbd+unix:///v?socket=%00s", "abstract"),
            ("file:///a%FF", "not UTF-8"),
            ("/dev/sdb", "scheme"),
            ("http://h/v", "scheme"),
        ] {
            let error = parse_uri(wrong).expect_err(wrong);
            assert!(error.what.contains(told), "{wrong}: {error:?}");
        }
    }
}
