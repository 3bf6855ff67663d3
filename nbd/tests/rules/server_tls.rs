// SPDX-License-Identifier: MIT OR Apache-2.0
//! STARTTLS: the NOTLS and FORCEDTLS modes of a server.

use nbd::server::{CloseReason, HandshakeError, ServerConfig, Step};
use nbd::{ReplyMode, TlsMode};

use crate::support::*;

const REQUIRED: ServerConfig = ServerConfig { structured: true, extended: true, tls: TlsMode::Required };

#[test]
fn starttls_where_tls_is_off_is_err_policy_and_changes_nothing() {
    let mut server = server();
    ask(&mut server, STRUCTURED_REPLY, "");
    assert_eq!(error_of(&ask(&mut server, STARTTLS, "")), ERR_POLICY);
    ask(&mut server, GO, describe("vol0", &[]));
    assert_eq!(server.end.unwrap().unwrap().mode, ReplyMode::Structured);
}

#[test]
fn starttls_with_data_is_invalid() {
    for config in [ServerConfig::default(), REQUIRED] {
        assert_eq!(error_of(&ask(&mut server_with(config), STARTTLS, "x")), ERR_INVALID);
    }
}

#[test]
fn forced_tls_answers_every_other_option_tls_reqd() {
    let mut server = server_with(REQUIRED);
    for (code, data) in [
        (LIST, vec![]),
        (STRUCTURED_REPLY, vec![]),
        (EXTENDED_HEADERS, vec![]),
        (INFO, describe("vol0", &[])),
        (GO, describe("nowhere", &[])),
        (LIST_META, contexts("vol0", &[])),
        (77, vec![]),
    ] {
        assert_eq!(error_of(&ask(&mut server, code, data)), ERR_TLS_REQD, "option {code}");
    }
    assert_eq!(ask(&mut server, ABORT, ""), option_reply(ABORT, ACK, ""));
}

#[test]
fn forced_tls_closes_on_export_name() {
    let mut server = server_with(REQUIRED);
    assert_eq!(ask(&mut server, EXPORT_NAME, "vol0"), []);
    let why = HandshakeError::ExportNameWithoutTls;
    assert_eq!(server.end, Some(Err(CloseReason::Violation(why))));
}

#[test]
fn starttls_is_acked_and_the_rest_is_inside_tls() {
    let mut server = server_with(REQUIRED);
    assert_eq!(ask(&mut server, STARTTLS, ""), option_reply(STARTTLS, ACK, ""));
    assert_eq!(kinds(&ask(&mut server, GO, describe("vol0", &[]))), [REP_INFO, ACK]);
    assert!(server.end.unwrap().unwrap().tls);
}

/// CVE-2021-3716: an option sent in plaintext behind STARTTLS was obeyed inside TLS.
#[test]
fn plaintext_behind_starttls_is_fatal() {
    let why = HandshakeError::PlaintextBehindStartTls;
    let mut bytes = option(STARTTLS, "");
    bytes.extend(option(STRUCTURED_REPLY, ""));
    let mut server = server_with(REQUIRED);
    server.feed(&bytes);
    assert_eq!(server.end, Some(Err(CloseReason::Violation(why))), "in one packet");

    let mut handshake = server_with(REQUIRED).handshake;
    let starttls = option(STARTTLS, "");
    assert_eq!(handshake.receive(&starttls), Ok(16));
    assert_eq!(handshake.next_step(), Step::StartTls);
    assert_eq!(handshake.receive(&[0]), Err(why), "in the next packet");
}

#[test]
fn starttls_inside_tls_is_invalid() {
    let mut server = server_with(REQUIRED);
    ask(&mut server, STARTTLS, "");
    assert_eq!(error_of(&ask(&mut server, STARTTLS, "")), ERR_INVALID);
}

/// Nothing can be negotiated before TLS here (FORCEDTLS), so what must be forgotten is proved by the default
/// session.
#[test]
fn nothing_from_before_tls_survives_it() {
    let mut server = server_with(REQUIRED);
    error_of(&ask(&mut server, STRUCTURED_REPLY, ""));
    error_of(&ask(&mut server, EXTENDED_HEADERS, ""));
    ask(&mut server, STARTTLS, "");
    ask(&mut server, GO, describe("vol0", &[]));
    let session = server.end.unwrap().unwrap();
    assert_eq!(session.mode, ReplyMode::Simple);
    assert!(session.contexts.is_empty());
}
