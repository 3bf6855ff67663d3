// SPDX-License-Identifier: MIT OR Apache-2.0
//! NBD URIs: what is read, what is refused and where.

use std::net::{Ipv4Addr, Ipv6Addr};

use nbd::uri::{Host, NbdUri, TlsParameters, Transport, Uri, UriError, UriProblem};

fn tcp(host: Host, port: u16, export: &str) -> NbdUri {
    NbdUri { transport: Transport::Tcp { host, port }, export: export.into(), tls: None }
}

fn named(host: &str, port: u16, export: &str) -> NbdUri {
    tcp(Host::Name(host.into()), port, export)
}

fn unix(path: impl AsRef<[u8]>, export: &str) -> NbdUri {
    let transport = Transport::Unix { path: path.as_ref().to_vec() };
    NbdUri { transport, export: export.into(), tls: None }
}

/// Parses, and what is written back must mean the same.
#[track_caller]
fn parsed(text: &str) -> Uri {
    let uri = Uri::parse(text).unwrap_or_else(|why| panic!("{text}: {why}"));
    let written = uri.to_string();
    assert_eq!(Uri::parse(&written).as_ref(), Ok(&uri), "{text} was written as {written}");
    uri
}

#[track_caller]
fn nbd(text: &str) -> NbdUri {
    match parsed(text) {
        Uri::Nbd(uri) => uri,
        file @ Uri::File { .. } => panic!("{file:?}"),
    }
}

#[track_caller]
fn refused(text: &str, position: usize, problem: UriProblem) {
    assert_eq!(Uri::parse(text), Err(UriError { position, problem }), "{text}");
}

/// The table of the specification.
#[test]
fn export_name_is_the_path_without_its_first_slash() {
    assert_eq!(nbd("nbd://example.com/disk"), named("example.com", 10809, "disk"));
    assert_eq!(nbd("nbd+unix:///disk?socket=sock"), unix("sock", "disk"));
    assert_eq!(nbd("nbd://example.com/"), named("example.com", 10809, ""));
    assert_eq!(nbd("nbd://example.com"), named("example.com", 10809, ""));
    assert_eq!(nbd("nbd://example.com//disk"), named("example.com", 10809, "/disk"));
    assert_eq!(nbd("nbd://example.com/hello%20world"), named("example.com", 10809, "hello world"));
    assert_eq!(nbd("nbd://h/a/b/c"), named("h", 10809, "a/b/c"));
    assert_eq!(nbd("nbd+unix://?socket=/s"), unix("/s", ""));
}

#[test]
fn export_name_is_percent_encoded_utf8() {
    assert_eq!(nbd("nbd://h/%C3%A9%3f%23%25").export, "\u{e9}?#%");
    assert_eq!(nbd("nbd://h/a+b&c=d;e@f:g").export, "a+b&c=d;e@f:g", "plus is a plus");
    assert_eq!(parsed("nbd://h/%C3%A9%3f").to_string(), "nbd://h/%C3%A9%3F");
    refused("nbd://h/%C3%28", 8, UriProblem::NotUtf8);
    refused("nbd://h/a%00b", 8, UriProblem::Nul);
    refused(&format!("nbd://h/{}", "x".repeat(4097)), 8, UriProblem::ExportTooLong);
    assert_eq!(nbd(&format!("nbd://h/{}", "%C3%A9".repeat(2048))).export.len(), 4096);
}

#[test]
fn broken_percent_encoding_is_pointed_at() {
    refused("nbd://h/ab%", 10, UriProblem::Percent);
    refused("nbd://h/ab%4", 10, UriProblem::Percent);
    refused("nbd://h/ab%4g", 10, UriProblem::Percent);
    refused("nbd://h/%25%zz", 11, UriProblem::Percent);
    refused("nbd+unix:///?socket=/a%x", 22, UriProblem::Percent);
}

#[test]
fn characters_outside_rfc_3986_are_refused() {
    for c in ['\0', ' ', '"', '<', '>', '\\', '^', '`', '{', '|', '}', '[', ']', '\u{7f}', '\u{e9}'] {
        refused(&format!("nbd://h/a{c}"), 9, UriProblem::Character);
        refused(&format!("nbd+unix:///?socket=/a{c}"), 22, UriProblem::Character);
        refused(&format!("file:///a{c}"), 9, UriProblem::Character);
    }
}

#[test]
fn scheme_is_one_of_five_in_any_case() {
    assert_eq!(nbd("NBD://h/x"), named("h", 10809, "x"));
    for text in ["http://h/x", "nbd+vsock://2/x", "nbds+ssh://h/x", "://h/x", "nbd ://h/x"] {
        refused(text, 0, UriProblem::Scheme);
    }
    for text in ["", "vol0", "/dev/sdb", "nbd:/h/x", "nbd:h:10809:exportname=x", "10.0.0.1:10809"] {
        refused(text, 0, UriProblem::NoScheme);
    }
}

#[test]
fn hosts_are_names_or_addresses() {
    let v4 = Host::V4(Ipv4Addr::new(10, 0, 1, 5));
    assert_eq!(nbd("nbd://10.0.1.5/x"), tcp(v4, 10809, "x"));
    let v6 = |address, zone: Option<&str>| Host::V6 { address, zone: zone.map(Into::into) };
    let loopback = v6(Ipv6Addr::LOCALHOST, None);
    assert_eq!(nbd("nbd://[::1]/x"), tcp(loopback.clone(), 10809, "x"));
    assert_eq!(nbd("nbd://[::1]:1/x"), tcp(loopback, 1, "x"));
    let link_local = v6("fe80::1".parse().unwrap(), Some("eth0"));
    assert_eq!(nbd("nbd://[fe80::1%25eth0]:2/x"), tcp(link_local, 2, "x"));
    for host in ["a", "a-b.c_d.example.", "xn--caf-dma.example", "storage-1", "1a"] {
        assert_eq!(nbd(&format!("nbd://{host}/x")), named(host, 10809, "x"));
    }
    for host in [
        "a..b",
        ".",
        "a%20b",
        "10.1",
        "999.1.1.1",
        "1234",
        "[::1",
        "[::1]x",
        "[10.0.0.1]",
        "[fe80::1%25]",
        "[fe80::1%eth0]",
        "[]",
        "a b",
        "h\u{e9}",
        "fe80::1",
    ] {
        let result = Uri::parse(&format!("nbd://{host}/x")).unwrap_err();
        let expected = if host == "fe80::1" { UriProblem::Port } else { UriProblem::Host };
        assert_eq!(result.problem, expected, "{host}");
    }
    refused(&format!("nbd://{}/x", "a".repeat(64)), 6, UriProblem::Host);
    refused(&format!("nbd://{}a/x", "a.".repeat(127)), 6, UriProblem::Host);
}

#[test]
fn a_host_must_be_named() {
    refused("nbd:///x", 6, UriProblem::NoHost);
    refused("nbd://:10809/x", 6, UriProblem::NoHost);
    refused("nbds://", 7, UriProblem::NoHost);
}

#[test]
fn port_defaults_to_10809() {
    assert_eq!(nbd("nbd://h:/x"), named("h", 10809, "x"), "an empty port is lawful");
    assert_eq!(nbd("nbd://h:65535/x"), named("h", 65535, "x"));
    assert_eq!(parsed("nbd://h:10809/x").to_string(), "nbd://h/x");
    for port in ["0", "65536", "-1", "+1", "1x", "99999999999999999999", "1:2"] {
        refused(&format!("nbd://h:{port}/x"), 8, UriProblem::Port);
    }
}

#[test]
fn a_user_name_is_refused() {
    refused("nbd://admin@h/x", 6, UriProblem::UserInfo);
    refused("nbds://a:b@h/x", 7, UriProblem::UserInfo);
}

#[test]
fn socket_is_a_path_or_an_abstract_name() {
    assert_eq!(nbd("nbd+unix:///vol0?socket=/run/nbd.sock"), unix("/run/nbd.sock", "vol0"));
    assert_eq!(nbd("nbd+unix:///?socket=%00/abstract"), unix("\0/abstract", ""));
    assert_eq!(nbd("nbd+unix:///?socket=/a%26b%3Dc?d"), unix("/a&b=c?d", ""));
    assert_eq!(nbd("nbd+unix:///?socket=/a=b"), unix("/a=b", ""), "the first = separates");
    assert_eq!(nbd("nbd+unix:///?socket=/%FF"), unix([b'/', 0xff], ""), "paths are bytes");
    assert_eq!(nbd("nbd+unix:///?&socket=/s&"), unix("/s", ""));
    let longest = "x".repeat(107);
    assert_eq!(nbd(&format!("nbd+unix:///?socket={longest}")), unix(&longest, ""));
}

#[test]
fn socket_must_be_there_and_possible() {
    refused("nbd+unix:///vol0", 16, UriProblem::NoSocket);
    refused("nbd+unix:///vol0?", 17, UriProblem::NoSocket);
    refused("nbd+unix:///?socket=", 20, UriProblem::SocketPath);
    refused("nbd+unix:///?socket=%00", 20, UriProblem::SocketPath);
    refused("nbd+unix:///?socket=/a%00b", 20, UriProblem::Nul);
    refused("nbd+unix:///?socket=%00a%00", 20, UriProblem::Nul);
    refused(&format!("nbd+unix:///?socket={}", "x".repeat(108)), 20, UriProblem::SocketPath);
    refused("nbd+unix://h/x?socket=/s", 11, UriProblem::Authority);
    refused("nbd://h/x?socket=/s", 10, UriProblem::SocketOverTcp);
}

#[test]
fn parameters_must_be_known_and_given_once() {
    refused("nbd://h/x?timeout=3", 10, UriProblem::Parameter);
    refused("nbd://h/x?x-experiment=1", 10, UriProblem::Parameter);
    refused("nbd+unix:///?socket=/s&Socket=/t", 23, UriProblem::Parameter);
    refused("nbd+unix:///?socket=/s&socket=/s", 23, UriProblem::Repeated);
    refused("nbd+unix:///?socket", 13, UriProblem::NoValue);
    refused("nbd+unix:///?socket=/s&tls", 23, UriProblem::NoValue);
}

#[test]
fn a_fragment_is_refused() {
    refused("nbd://h/x#y", 9, UriProblem::Fragment);
    refused("nbd://h#", 7, UriProblem::Fragment);
    refused("nbd+unix:///?socket=/s#1", 22, UriProblem::Fragment);
    refused("file:///x#y", 9, UriProblem::Fragment);
}

#[test]
fn nbds_means_tls_and_nbd_means_none() {
    let tls = |text: &str| nbd(text).tls;
    assert_eq!(tls("nbds://h/x"), Some(TlsParameters { hostname: None, verify_peer: true }));
    assert_eq!(tls("nbds+unix:///x?socket=/s"), Some(TlsParameters::default()));
    let all = "nbds+unix:///x?tls-type=x509&socket=/s&tls-hostname=a.b&tls-verify-peer=0";
    assert_eq!(tls(all), Some(TlsParameters { hostname: Some("a.b".into()), verify_peer: false }));
    assert_eq!(tls("nbds://h/x?tls-verify-peer=1"), Some(TlsParameters::default()));
    assert_eq!(
        parsed("nbds://h/x?tls-verify-peer=0&tls-hostname=b").to_string(),
        "nbds://h/x?tls-hostname=b&tls-verify-peer=0"
    );
}

#[test]
fn tls_parameters_that_cannot_be_obeyed_are_refused() {
    refused("nbd://h/x?tls-verify-peer=0", 10, UriProblem::TlsParameter);
    refused("nbd+unix:///?socket=/s&tls-type=x509", 23, UriProblem::TlsParameter);
    refused("nbds://h/x?tls-type=psk", 20, UriProblem::TlsType);
    refused("nbds://h/x?tls-type=anon", 20, UriProblem::TlsType);
    refused("nbds://h/x?tls-verify-peer=yes", 27, UriProblem::TlsVerifyPeer);
    refused("nbds://h/x?tls-hostname=", 24, UriProblem::TlsHostname);
    refused("nbds://h/x?tls-hostname=a/b", 24, UriProblem::TlsHostname);
    refused("nbds://h/x?tls-certificates=/etc", 11, UriProblem::Parameter);
}

#[test]
fn file_uris_are_absolute_paths() {
    let file = |path: &[u8]| Uri::File { path: path.to_vec() };
    assert_eq!(parsed("file:///dev/sdb"), file(b"/dev/sdb"));
    assert_eq!(parsed("file://localhost/a"), file(b"/a"));
    assert_eq!(parsed("FILE:///a%20b/%FF%3F"), file(b"/a b/\xff?"));
    assert_eq!(parsed("file:///a%20b").to_string(), "file:///a%20b");
    refused("file://host/a", 7, UriProblem::Authority);
    refused("file:///", 7, UriProblem::FilePath);
    refused("file://", 7, UriProblem::FilePath);
    refused("file:///dir/", 7, UriProblem::FilePath);
    refused("file:///a%00b", 7, UriProblem::Nul);
    refused("file:///a?direct=1", 9, UriProblem::FileQuery);
    refused(&format!("file:///{}", "x".repeat(4095)), 7, UriProblem::FilePath);
}

#[test]
fn errors_say_where_what_and_what_is_allowed() {
    let why = Uri::parse("nbd://h:99999/x").unwrap_err();
    assert_eq!(why.to_string(), "at byte 8: not a port; allowed: 1 to 65535");
    let why = Uri::parse("vol0").unwrap_err();
    let words = "at byte 0: the scheme is missing; allowed: nbd, nbds, nbd+unix, nbds+unix, file, then ://";
    assert_eq!(why.to_string(), words);
}
