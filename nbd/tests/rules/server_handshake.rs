// SPDX-License-Identifier: MIT OR Apache-2.0
//! Greeting, client flags, framing of options, EXPORT_NAME, ABORT, LIST, shutdown.

use nbd::server::{CloseReason, HandshakeError, LookupError, Purpose, ServerConfig, Step};
use nbd::{EnteredBy, OptionCode, ReplyMode};

use crate::driver::ServerEnd;
use crate::support::*;

#[test]
fn greeting_is_two_magics_and_both_handshake_flags() {
    assert_eq!(fresh_server().sent, greeting());
}

#[test]
fn unknown_client_flag_drops_the_connection() {
    for bit in 2..32 {
        let mut server = fresh_server();
        server.feed(&client_flags(3 | 1 << bit));
        let why = HandshakeError::ClientFlags(3 | 1 << bit);
        assert_eq!(server.end, Some(Err(CloseReason::Violation(why))), "bit {bit}");
    }
}

#[test]
fn every_lawful_set_of_client_flags_is_accepted() {
    for flags in 0..4 {
        let mut server = fresh_server();
        server.feed(&client_flags(flags));
        assert_eq!(server.handshake.next_step(), Step::NeedInput);
    }
}

#[test]
fn options_other_than_export_name_without_fixed_newstyle_are_invalid() {
    let mut server = fresh_server();
    server.feed(&client_flags(2));
    for code in [LIST, STARTTLS, INFO, GO, STRUCTURED_REPLY, LIST_META, SET_META, EXTENDED_HEADERS, 77] {
        assert_eq!(error_of(&ask(&mut server, code, "")), ERR_INVALID, "option {code}");
    }
    server.feed(&option(EXPORT_NAME, "vol1"));
    assert!(matches!(server.end, Some(Ok(_))));
}

#[test]
fn bad_option_magic_drops_the_connection() {
    let mut server = server();
    server.feed(&Wire::new().raw(b"IHAVEOPX").u32(LIST).u32(0).0);
    let magic = u64::from_be_bytes(*b"IHAVEOPX");
    let why = HandshakeError::OptionMagic(magic);
    assert_eq!(server.end, Some(Err(CloseReason::Violation(why))));
    assert!(server.sent.is_empty(), "no reply to what is no option");
}

#[test]
fn unknown_option_is_unsup_after_skipping_its_data() {
    let mut server = server();
    for (code, len) in [(0, 0), (4, 0), (12, 1), (0xffff_ffff, 4096), (99, 64 * 1024)] {
        let reply = ask(&mut server, code, vec![b'x'; len]);
        assert_eq!(error_of(&reply), ERR_UNSUP);
        assert_eq!(replies(&reply)[0].0, code, "the reply names the option");
    }
    assert_eq!(kinds(&ask(&mut server, LIST, "")), [SERVER, SERVER, ACK], "still in step");
}

#[test]
fn option_above_64_kib_drops_before_its_data_comes() {
    for (code, len) in [(GO, 65537), (99, 65537), (EXPORT_NAME, u32::MAX), (ABORT, u32::MAX)] {
        let mut server = server();
        server.feed(&Wire::new().raw(b"IHAVEOPT").u32(code).u32(len).0);
        let why = HandshakeError::OptionTooLong { option: OptionCode(code), len_bytes: len };
        assert_eq!(server.end, Some(Err(CloseReason::Violation(why))));
    }
}

#[test]
fn the_65th_option_drops_the_connection() {
    let mut server = server();
    for _ in 0..64 {
        assert_eq!(error_of(&ask(&mut server, 99, "")), ERR_UNSUP);
    }
    server.feed(&option(ABORT, ""));
    assert_eq!(server.end, Some(Err(CloseReason::Violation(HandshakeError::TooManyOptions))));
}

#[test]
fn a_violation_is_latched() {
    let mut server = server();
    server.feed(&[0; 16]);
    let why = HandshakeError::OptionMagic(0);
    assert_eq!(server.handshake.receive(&option(LIST, "")), Err(why));
    assert_eq!(server.handshake.next_step(), Step::Close(CloseReason::Violation(why)));
    assert!(server.handshake.output().is_empty());
}

#[test]
fn export_name_answers_size_flags_and_124_zeroes() {
    let mut server = fresh_server();
    server.feed(&client_flags(1));
    server.sent.clear();
    server.feed(&option(EXPORT_NAME, "vol0"));
    // No chunks were agreed, so SEND_DF (bit 7) is missing.
    let expected = Wire::new().u64(1 << 30).u16(0b1101_0111_1101).raw([0; 124]).0;
    assert_eq!(server.sent, expected);
    let session = server.end.unwrap().unwrap();
    assert_eq!(session.entered_by, EnteredBy::ExportName);
    assert_eq!(session.mode, ReplyMode::Simple);
    assert!(!session.no_zeroes && !session.asked_block_sizes && session.contexts.is_empty());
}

#[test]
fn no_zeroes_leaves_out_the_zeroes_after_export_name() {
    let mut server = server();
    assert_eq!(ask(&mut server, EXPORT_NAME, "vol1"), Wire::new().u64(4096).u16(1).0);
    assert!(server.end.unwrap().unwrap().no_zeroes);
}

#[test]
fn export_name_keeps_structured_replies() {
    let mut server = server();
    ask(&mut server, STRUCTURED_REPLY, "");
    assert_eq!(ask(&mut server, EXPORT_NAME, "vol0"), Wire::new().u64(1 << 30).u16(0b1101_1111_1101).0);
    assert_eq!(server.end.unwrap().unwrap().mode, ReplyMode::Structured);
}

#[test]
fn export_name_of_an_export_that_cannot_be_had_closes_without_a_word() {
    for (name, why) in [
        ("nowhere", LookupError::Unknown),
        ("down", LookupError::Shutdown("the device is not there yet".into())),
        ("secret", LookupError::Policy("not for you".into())),
    ] {
        let mut server = server();
        assert_eq!(ask(&mut server, EXPORT_NAME, name), []);
        assert_eq!(server.end, Some(Err(CloseReason::ExportNameRefused(why))));
    }
}

#[test]
fn malformed_export_name_closes() {
    for name in [vec![b'x'; 4097], b"a\0b".to_vec(), vec![0xff, 0xfe]] {
        let mut server = server();
        assert_eq!(ask(&mut server, EXPORT_NAME, name), []);
        let why = HandshakeError::ExportNameMalformed;
        assert_eq!(server.end, Some(Err(CloseReason::Violation(why))));
    }
}

#[test]
fn a_name_of_4096_bytes_is_a_name() {
    let mut server = server();
    server.hold_lookups = true;
    server.feed(&option(EXPORT_NAME, "x".repeat(4096)));
    assert!(matches!(server.handshake.next_step(), Step::Lookup { name, .. } if name.len() == 4096));
}

#[test]
fn export_name_after_extended_headers_closes() {
    let mut server = server();
    ask(&mut server, EXTENDED_HEADERS, "");
    assert_eq!(ask(&mut server, EXPORT_NAME, "vol0"), []);
    let why = HandshakeError::ExportNameAfterExtendedHeaders;
    assert_eq!(server.end, Some(Err(CloseReason::Violation(why))));
}

#[test]
fn the_empty_name_is_the_drivers_to_resolve() {
    let mut server = server();
    server.hold_lookups = true;
    server.feed(&option(EXPORT_NAME, ""));
    let expected = Step::Lookup { name: String::new(), purpose: Purpose::ExportName };
    assert_eq!(server.handshake.next_step(), expected);
    server.hold_lookups = false;
    server.run();
    let session = server.end.unwrap().unwrap();
    assert_eq!((session.requested_name.as_str(), session.export.name.as_str()), ("", "vol0"));
}

#[test]
fn abort_is_acked_and_its_data_ignored() {
    for data in ["", "farewell"] {
        let mut server = server();
        assert_eq!(ask(&mut server, ABORT, data), option_reply(ABORT, ACK, ""));
        assert_eq!(server.end, Some(Err(CloseReason::Aborted)));
    }
}

#[test]
fn list_names_every_export_then_acks() {
    let reply = ask(&mut server(), LIST, "");
    let mut expected = option_reply(LIST, SERVER, Wire::new().text("vol0").0);
    expected.extend(option_reply(LIST, SERVER, Wire::new().text("vol1").0));
    expected.extend(option_reply(LIST, ACK, ""));
    assert_eq!(reply, expected);
}

#[test]
fn list_of_nothing_is_an_ack() {
    let mut server = server();
    server.exports.clear();
    assert_eq!(ask(&mut server, LIST, ""), option_reply(LIST, ACK, ""));
}

#[test]
fn list_with_data_is_invalid() {
    let mut server = server();
    assert_eq!(error_of(&ask(&mut server, LIST, "vol0")), ERR_INVALID);
    assert_eq!(kinds(&ask(&mut server, LIST, "")), [SERVER, SERVER, ACK], "still in step");
}

#[test]
fn list_that_is_too_long_says_so_instead_of_ending_early() {
    let mut server = server();
    let export = export();
    server.exports =
        (0..80).map(|_| nbd::server::ExportInfo { name: "n".repeat(4000), ..export.clone() }).collect();
    assert_eq!(error_of(&ask(&mut server, LIST, "")), ERR_TOO_BIG);
}

#[test]
fn nothing_is_consumed_while_an_answer_is_due() {
    let mut server = server();
    server.hold_lookups = true;
    let mut bytes = option(INFO, describe("vol0", &[]));
    bytes.extend(option(LIST, ""));
    server.feed(&bytes);
    assert_eq!(server.unread, option(LIST, ""));
    assert!(matches!(server.handshake.next_step(), Step::Lookup { purpose: Purpose::Info, .. }));
    assert_eq!(server.handshake.receive(&server.unread), Ok(0));
    assert!(server.sent.is_empty());
    server.hold_lookups = false;
    server.run();
    assert_eq!(kinds(&server.sent), [REP_INFO, ACK, SERVER, SERVER, ACK]);
}

#[test]
fn unsent_output_stops_consumption() {
    let mut server = server();
    let export = export();
    server.exports =
        (0..20).map(|_| nbd::server::ExportInfo { name: "n".repeat(4000), ..export.clone() }).collect();
    let lists: Vec<u8> = (0..60).flat_map(|_| option(LIST, "")).collect();
    server.feed(&lists);
    assert_eq!(kinds(&server.sent).iter().filter(|kind| **kind == ACK).count(), 60);
    // One pause threshold and one answer, not sixty answers.
    assert!(server.output_high_bytes < 64 * 1024 + 20 * 4100, "{} bytes waited", server.output_high_bytes);
}

#[test]
fn during_shutdown_every_option_but_abort_is_err_shutdown() {
    let mut server = server();
    server.handshake.begin_shutdown();
    for (code, data) in [
        (LIST, vec![]),
        (STRUCTURED_REPLY, vec![]),
        (EXTENDED_HEADERS, vec![]),
        (INFO, describe("vol0", &[])),
        (GO, describe("vol0", &[])),
        (SET_META, contexts("vol0", &[])),
        (77, vec![1]),
    ] {
        assert_eq!(error_of(&ask(&mut server, code, data)), ERR_SHUTDOWN, "option {code}");
    }
    assert_eq!(ask(&mut server, ABORT, ""), option_reply(ABORT, ACK, ""));

    let mut server = crate::support::server();
    server.handshake.begin_shutdown();
    assert_eq!(ask(&mut server, EXPORT_NAME, "vol0"), []);
    let refused = Some(Err(CloseReason::ExportNameRefused(LookupError::Shutdown(
        "the server is shutting down".into(),
    ))));
    assert_eq!(server.end, refused);
}

#[test]
fn reasons_have_words() {
    let reason =
        CloseReason::Violation(HandshakeError::OptionTooLong { option: OptionCode::GO, len_bytes: 70000 });
    assert_eq!(reason.to_string(), "GO with 70000 bytes of data, at most 65536 are allowed");
    let refused = CloseReason::ExportNameRefused(LookupError::Unknown);
    assert_eq!(refused.to_string(), "EXPORT_NAME refused: unknown export");
}

#[test]
#[should_panic(expected = "answer_lookup without Step::Lookup")]
fn an_answer_nobody_asked_for_is_a_bug() {
    server().handshake.answer_lookup(Err(LookupError::Unknown));
}

#[test]
#[should_panic(expected = "the size must be at most 2^63 - 1 bytes")]
fn an_export_that_cannot_be_offered_is_a_bug() {
    let mut server =
        ServerEnd::new(ServerConfig::default(), vec![nbd::server::ExportInfo::new("huge", u64::MAX)]);
    server.feed(&client_flags(3));
    server.feed(&option(EXPORT_NAME, "huge"));
}
