// SPDX-License-Identifier: MIT OR Apache-2.0
//! Addresses to listen on and to connect to.
//!
//! Listening addresses are numeric: a name would have to be resolved before the
//! node can start, and may mean several addresses or, after a change of the
//! name service, another one. Portals may be names; they are resolved by the
//! data plane whenever it connects.

use std::net::{IpAddr, SocketAddr};

use program::{Portal, SocketAddress};

use crate::limits::UNIX_PATH_BYTES_MAX;

/// Parses `"127.0.0.1:10809"`, `"[::1]:10809"` or `"unix:/run/x.sock"`.
///
/// # Errors
///
/// What is wrong with it, in one clause.
pub fn parse_listen(text: &str) -> Result<SocketAddress, String> {
    match text.strip_prefix("unix:") {
        Some(path) => check_unix_path(path).map(|()| SocketAddress::Unix(path.to_owned())),
        None if text.starts_with('/') => Err(format!("a Unix socket is written \"unix:{text}\"")),
        None => parse_tcp(text).map(SocketAddress::Tcp),
    }
}

/// Parses a numeric TCP address to listen on.
///
/// # Errors
///
/// As [`parse_listen`].
pub fn parse_tcp(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return if address.port() == 0 {
            Err("port 0 would be a different port at every start".to_owned())
        } else {
            Ok(address)
        };
    }
    if text.parse::<IpAddr>().is_ok() {
        return Err("the port is missing".to_owned());
    }
    match text.rsplit_once(':') {
        Some(("" | "*", port)) => {
            Err(format!("write \"0.0.0.0:{port}\" or \"[::]:{port}\" for every address"))
        }
        Some((host, port)) if port.parse::<u16>().is_ok() => {
            Err(format!("`{}` is not a numeric address", host.escape_debug()))
        }
        _ => Err("it is not IP:PORT".to_owned()),
    }
}

/// Parses `"host:port"` or `"[v6]:port"` of a server to connect to.
///
/// # Errors
///
/// As [`parse_listen`].
pub(crate) fn parse_portal(text: &str) -> Result<Portal, String> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return portal(&address.ip().to_string(), address.port());
    }
    let (host, port) = text.rsplit_once(':').ok_or("the port is missing")?;
    let port: u16 = port.parse().map_err(|_| format!("`{}` is not a port", port.escape_debug()))?;
    if !is_host_name(host) {
        return Err(format!("`{}` is neither a host name nor an address", host.escape_debug()));
    }
    portal(host, port)
}

fn portal(host: &str, port: u16) -> Result<Portal, String> {
    if port == 0 {
        return Err("port 0 cannot be connected to".to_owned());
    }
    Ok(Portal::Tcp { host: host.to_owned(), port })
}

/// Host names as resolvers take them: labels of letters, digits, `-` and `_`.
pub(crate) fn is_host_name(host: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    host.len() <= 253 && host.strip_suffix('.').unwrap_or(host).split('.').all(label)
}

/// Whether the kernel takes this path for a Unix socket.
pub(crate) fn check_unix_path(path: &str) -> Result<(), String> {
    if !path.starts_with('/') {
        return Err("the path of a Unix socket must begin with `/`".to_owned());
    }
    if path.contains('\0') {
        return Err("the path contains a NUL byte".to_owned());
    }
    if path.len() > UNIX_PATH_BYTES_MAX {
        return Err(format!(
            "the path has {} bytes and the kernel takes {UNIX_PATH_BYTES_MAX} for a Unix socket",
            path.len()
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listening_addresses_are_numeric() {
        assert_eq!(parse_listen("unix:/run/a.sock"), Ok(SocketAddress::Unix("/run/a.sock".to_owned())));
        assert!(matches!(parse_listen("127.0.0.1:10809"), Ok(SocketAddress::Tcp(a)) if a.port() == 10809));
        assert!(matches!(parse_listen("[::]:1"), Ok(SocketAddress::Tcp(a)) if a.is_ipv6()));
        for (wrong, told) in [
            ("localhost:10809", "not a numeric address"),
            ("127.0.0.1", "port is missing"),
            ("::1", "port is missing"),
            (":10809", "write \"0.0.0.0:10809\""),
            ("*:10809", "write \"0.0.0.0:10809\""),
            ("127.0.0.1:0", "port 0"),
            ("127.0.0.1:65536", "not IP:PORT"),
            ("/run/a.sock", "written \"unix:/run/a.sock\""),
            ("unix:run/a.sock", "must begin with"),
            ("", "not IP:PORT"),
        ] {
            let error = parse_listen(wrong).expect_err(wrong);
            assert!(error.contains(told), "{wrong}: {error}");
        }
        assert!(parse_listen(&format!("unix:/{}", "x".repeat(200))).is_err());
    }

    #[test]
    fn portals_may_be_names() {
        let tcp = |host: &str, port| Ok(Portal::Tcp { host: host.to_owned(), port });
        assert_eq!(parse_portal("10.0.1.5:10809"), tcp("10.0.1.5", 10809));
        assert_eq!(parse_portal("[fd00::1]:10809"), tcp("fd00::1", 10809));
        assert_eq!(parse_portal("store-1.example.org:10809"), tcp("store-1.example.org", 10809));
        for wrong in ["10.0.1.5", "store", "a b:1", ":1", "x:0", "x:99999", "x:-1", "..:1"] {
            assert!(parse_portal(wrong).is_err(), "{wrong:?} was taken");
        }
    }
}
