// SPDX-License-Identifier: MIT OR Apache-2.0
//! INFO and GO, STRUCTURED_REPLY and EXTENDED_HEADERS.

use nbd::server::{ExportInfo, ServerConfig};
use nbd::{BlockSizes, EnteredBy, ReplyMode, TransmissionFlags};

use crate::driver::ServerEnd;
use crate::support::*;

fn info(code: u32, data: Vec<u8>) -> Vec<u8> {
    option_reply(code, REP_INFO, data)
}

fn export_item(code: u32, size_bytes: u64, flags: u16) -> Vec<u8> {
    info(code, Wire::new().u16(0).u64(size_bytes).u16(flags).0)
}

const SIMPLE_FLAGS: u16 = 0b1101_0111_1101;

#[test]
fn info_export_comes_even_unrequested() {
    for code in [INFO, GO] {
        let reply = ask(&mut server(), code, describe("vol1", &[]));
        assert_eq!(reply, [export_item(code, 4096, 1), option_reply(code, ACK, "")].concat());
    }
}

#[test]
fn requested_name_description_and_block_size_are_given() {
    let reply = ask(&mut server(), GO, describe("vol0", &[3, 2, 1]));
    let expected = [
        export_item(GO, 1 << 30, SIMPLE_FLAGS),
        info(GO, Wire::new().u16(1).raw("vol0").0),
        info(GO, Wire::new().u16(2).raw("test volume").0),
        info(GO, Wire::new().u16(3).u32(1).u32(4096).u32(32 << 20).0),
        option_reply(GO, ACK, ""),
    ];
    assert_eq!(reply, expected.concat());
}

#[test]
fn an_empty_description_is_left_out() {
    let reply = ask(&mut server(), INFO, describe("vol1", &[2]));
    assert_eq!(kinds(&reply), [REP_INFO, ACK]);
}

#[test]
fn unknown_and_repeated_information_requests_are_ignored() {
    let reply = ask(&mut server(), INFO, describe("vol1", &[0, 0, 9, 0xffff, 9, 1, 1]));
    let name = info(INFO, Wire::new().u16(1).raw("vol1").0);
    assert_eq!(reply, [export_item(INFO, 4096, 1), name, option_reply(INFO, ACK, "")].concat());
}

#[test]
fn block_sizes_other_than_the_defaults_are_told_unasked() {
    for (min_bytes, max_bytes, is_told) in
        [(512, 1 << 20, true), (1, 1 << 20, true), (512, 32 << 20, true), (1, 32 << 20, false)]
    {
        let mut export = export();
        export.block = BlockSizes { min_bytes, preferred_bytes: 4096, max_bytes };
        let mut server = ServerEnd::new(ServerConfig::default(), vec![export]);
        server.feed(&client_flags(3));
        let reply = ask(&mut server, GO, describe("vol0", &[]));
        let told = info(GO, Wire::new().u16(3).u32(min_bytes).u32(4096).u32(max_bytes).0);
        let told = if is_told { told } else { vec![] };
        let size = export_item(GO, 1 << 30, SIMPLE_FLAGS);
        assert_eq!(reply, [size, told, option_reply(GO, ACK, "")].concat());
        assert!(!server.end.unwrap().unwrap().asked_block_sizes, "the client did not promise to obey");
    }
}

#[test]
fn the_canonical_name_answers_the_empty_name() {
    let mut server = server();
    let reply = ask(&mut server, GO, describe("", &[1]));
    assert!(replies(&reply).contains(&(GO, REP_INFO, Wire::new().u16(1).raw("vol0").0)));
    let session = server.end.unwrap().unwrap();
    assert_eq!((session.requested_name.as_str(), session.export.name.as_str()), ("", "vol0"));
}

#[test]
fn info_does_not_enter_transmission() {
    let mut server = server();
    let first = ask(&mut server, INFO, describe("vol0", &[3]));
    let second = ask(&mut server, INFO, describe("vol0", &[3]));
    assert_eq!(first, second, "the same question has the same answer");
    assert_eq!(server.end, None);
}

#[test]
fn go_enters_transmission_and_leaves_the_bytes_behind_it() {
    let mut server = server();
    let mut bytes = option(GO, describe("vol0", &[3]));
    bytes.extend([0x25, 0x60, 0x95, 0x13, 0, 0]);
    server.feed(&bytes);
    assert_eq!(server.unread, [0x25, 0x60, 0x95, 0x13, 0, 0]);
    let session = server.end.unwrap().unwrap();
    assert_eq!(session.entered_by, EnteredBy::Go);
    assert!(session.asked_block_sizes);
    assert_eq!(session.limits().size_bytes, 1 << 30);
    assert_eq!(session.limits().flags, TransmissionFlags(SIMPLE_FLAGS));
}

#[test]
fn go_is_never_followed_by_zeroes() {
    let mut server = fresh_server();
    server.feed(&client_flags(1));
    let reply = ask(&mut server, GO, describe("vol1", &[]));
    assert!(reply.ends_with(&option_reply(GO, ACK, "")));
}

#[test]
fn go_to_an_unknown_export_is_err_unknown_and_the_handshake_goes_on() {
    let mut server = server();
    for code in [INFO, GO] {
        assert_eq!(error_of(&ask(&mut server, code, describe("nowhere", &[3]))), ERR_UNKNOWN);
        assert_eq!(error_of(&ask(&mut server, code, describe("down", &[3]))), ERR_SHUTDOWN);
        assert_eq!(error_of(&ask(&mut server, code, describe("secret", &[3]))), ERR_POLICY);
    }
    assert_eq!(kinds(&ask(&mut server, GO, describe("vol0", &[]))), [REP_INFO, ACK]);
}

/// CVE-2020-10761: the error text about a name of 4096 bytes must stay below 4096 bytes itself.
#[test]
fn error_text_about_a_long_name_is_bounded() {
    let reply = ask(&mut server(), GO, describe(&"\u{e9}".repeat(2048), &[]));
    assert_eq!(error_of(&reply), ERR_UNKNOWN);
    assert!(reply.len() < 400, "{} bytes", reply.len());
}

#[test]
fn control_characters_of_a_name_are_not_echoed() {
    let reply = ask(&mut server(), GO, describe("\x1b[2Jx\r\n", &[]));
    assert_eq!(replies(&reply)[0].2, b"no export '?[2Jx??'");
}

#[test]
fn malformed_go_is_invalid_and_the_handshake_goes_on() {
    let name = |len: u32| Wire::new().u32(len).raw("vol0").u16(0).0;
    let cases: [(&str, Vec<u8>); 11] = [
        ("no data", vec![]),
        ("cut name length", vec![0, 0, 0]),
        ("name without count", Wire::new().text("vol0").0),
        ("name one byte into the count", name(5)),
        ("name beyond the data", name(7)),
        ("name length of 2^32 - 1", name(u32::MAX)),
        ("65535 requests, none there", Wire::new().text("vol0").u16(u16::MAX).0),
        ("bytes behind the requests", Wire::new().text("vol0").u16(0).u16(3).0),
        ("NUL in the name", describe("a\0b", &[])),
        ("name of 5000 bytes", describe(&"x".repeat(5000), &[])),
        ("name that is not UTF-8", Wire::new().u32(2).raw([0xc3, 0x28]).u16(0).0),
    ];
    for code in [INFO, GO] {
        let mut server = server();
        for (what, data) in &cases {
            assert_eq!(error_of(&ask(&mut server, code, data)), ERR_INVALID, "{what}");
        }
        assert_eq!(kinds(&ask(&mut server, GO, describe("vol0", &[]))), [REP_INFO, ACK]);
    }
}

fn flags_told(server: &mut ServerEnd) -> u16 {
    let reply = ask(server, INFO, describe("vol0", &[]));
    let data = &replies(&reply)[0].2;
    u16::from_be_bytes(data[10..12].try_into().unwrap())
}

#[test]
fn send_df_is_told_only_with_chunks() {
    let mut server = server();
    assert_eq!(flags_told(&mut server) & 1 << 7, 0);
    ask(&mut server, STRUCTURED_REPLY, "");
    assert_eq!(flags_told(&mut server) & 1 << 7, 1 << 7);
    let mut server = crate::support::server();
    ask(&mut server, EXTENDED_HEADERS, "");
    assert_eq!(flags_told(&mut server) & 1 << 7, 1 << 7);
}

#[test]
fn has_flags_is_always_told_and_undefined_flags_never() {
    let mut export = export();
    export.flags = TransmissionFlags(0xfffe);
    let mut server = ServerEnd::new(ServerConfig::default(), vec![export]);
    server.feed(&client_flags(3));
    ask(&mut server, STRUCTURED_REPLY, "");
    // Bits 9 (RESIZE), 12 (BLOCK_STATUS_PAYLOAD) and above are not ours.
    assert_eq!(flags_told(&mut server), 0b1101_1111_1111);
}

#[test]
fn fast_zero_is_told_only_with_write_zeroes() {
    let mut export = export();
    export.flags = TransmissionFlags::SEND_FAST_ZERO;
    let mut server = ServerEnd::new(ServerConfig::default(), vec![export]);
    server.feed(&client_flags(3));
    assert_eq!(flags_told(&mut server), 1);
}

#[test]
fn structured_reply_is_acked_again_and_again() {
    let mut server = server();
    for _ in 0..2 {
        assert_eq!(ask(&mut server, STRUCTURED_REPLY, ""), option_reply(STRUCTURED_REPLY, ACK, ""));
    }
    ask(&mut server, GO, describe("vol0", &[]));
    assert_eq!(server.end.unwrap().unwrap().mode, ReplyMode::Structured);
}

#[test]
fn extended_headers_supersede_structured_replies() {
    let mut server = server();
    ask(&mut server, STRUCTURED_REPLY, "");
    assert_eq!(ask(&mut server, EXTENDED_HEADERS, ""), option_reply(EXTENDED_HEADERS, ACK, ""));
    ask(&mut server, GO, describe("vol0", &[]));
    assert_eq!(server.end.unwrap().unwrap().mode, ReplyMode::Extended);
}

#[test]
fn structured_reply_after_extended_headers_is_err_ext_header_reqd() {
    let mut server = server();
    ask(&mut server, EXTENDED_HEADERS, "");
    assert_eq!(error_of(&ask(&mut server, STRUCTURED_REPLY, "")), ERR_EXT_HEADER_REQD);
    ask(&mut server, GO, describe("vol0", &[]));
    assert_eq!(server.end.unwrap().unwrap().mode, ReplyMode::Extended);
}

#[test]
fn structured_reply_and_extended_headers_with_data_are_invalid() {
    for code in [STRUCTURED_REPLY, EXTENDED_HEADERS] {
        let mut server = server();
        assert_eq!(error_of(&ask(&mut server, code, "x")), ERR_INVALID);
        ask(&mut server, GO, describe("vol0", &[]));
        assert_eq!(server.end.unwrap().unwrap().mode, ReplyMode::Simple);
    }
}

#[test]
fn what_is_off_is_unsup() {
    let config = ServerConfig { structured: false, extended: false, ..ServerConfig::default() };
    let mut server = server_with(config);
    assert_eq!(error_of(&ask(&mut server, EXTENDED_HEADERS, "")), ERR_UNSUP);
    assert_eq!(error_of(&ask(&mut server, STRUCTURED_REPLY, "")), ERR_UNSUP);
    ask(&mut server, GO, describe("vol0", &[]));
    assert_eq!(server.end.unwrap().unwrap().mode, ReplyMode::Simple);
}

#[test]
fn a_description_is_cut_at_4096_bytes() {
    let export = ExportInfo { description: "\u{e9}".repeat(3000), ..export() };
    let mut server = ServerEnd::new(ServerConfig::default(), vec![export]);
    server.feed(&client_flags(3));
    let reply = ask(&mut server, INFO, describe("vol0", &[2]));
    assert_eq!(replies(&reply)[1].2.len(), 2 + 4096);
}
