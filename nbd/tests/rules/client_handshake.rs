// SPDX-License-Identifier: MIT OR Apache-2.0
//! The client's handshake against scripted servers.

use nbd::client::{ClientConfig, HandshakeError, Negotiated, Step};
use nbd::{BlockSizes, EnteredBy, OptionCode, OptionError, ReplyMode, TlsMode, TransmissionFlags};

use crate::driver::ClientEnd;
use crate::support::*;

fn ack(code: u32) -> Vec<u8> {
    option_reply(code, ACK, "")
}

fn go_ok() -> Vec<u8> {
    [info_export(1 << 20, 0b1101_1111_1101), ack(GO)].concat()
}

fn go_request() -> Vec<u8> {
    option(GO, describe("vol0", &[3]))
}

/// Feeds a reply; what the client sends then.
fn answer(client: &mut ClientEnd, bytes: impl AsRef<[u8]>) -> Vec<u8> {
    client.sent.clear();
    client.feed(bytes.as_ref());
    std::mem::take(&mut client.sent)
}

#[track_caller]
fn negotiated(client: &ClientEnd) -> &Negotiated {
    client.end.as_ref().expect("an end").as_ref().expect("transmission")
}

#[track_caller]
fn failed(client: &ClientEnd) -> &HandshakeError {
    client.end.as_ref().expect("an end").as_ref().expect_err("a failure")
}

/// A client that has asked GO and nothing before it.
fn asked_go() -> ClientEnd {
    let mut client = plain_client();
    client.sent.clear();
    client
}

// Greeting.

#[test]
fn client_flags_echo_what_the_server_offers_and_no_more() {
    for (offered, sent) in [(3, 3), (1, 1), (2, 2), (0, 0), (0xffff, 3), (0x8001, 1)] {
        let mut client = fresh_client();
        let sent_bytes = answer(&mut client, Wire::new().raw(b"NBDMAGICIHAVEOPT").u16(offered).0);
        assert_eq!(sent_bytes[..4], client_flags(sent), "flags {offered:#x}");
    }
}

#[test]
fn nothing_is_sent_before_the_greeting() {
    let mut client = fresh_client();
    assert_eq!(answer(&mut client, &greeting()[..17]), []);
    assert_eq!(client.handshake.waiting_for(), "the greeting");
}

#[test]
fn oldstyle_is_refused_at_once() {
    let mut client = fresh_client();
    client.feed(&Wire::new().raw(b"NBDMAGIC").u64(0x0000_4202_8186_1253).0);
    assert_eq!(failed(&client), &HandshakeError::Oldstyle);
    assert!(client.sent.is_empty());
}

#[test]
fn other_protocols_are_named_after_eight_bytes() {
    let mut client = fresh_client();
    client.feed(b"SSH-2.0-");
    assert_eq!(failed(&client), &HandshakeError::NotNbd(u64::from_be_bytes(*b"SSH-2.0-")));

    let mut client = fresh_client();
    client.feed(b"NBDMAGICsomething");
    assert_eq!(failed(&client), &HandshakeError::UnknownStyle(u64::from_be_bytes(*b"somethin")));
}

#[test]
fn newstyle_that_is_not_fixed_leaves_only_export_name() {
    let mut client = fresh_client();
    let sent = answer(&mut client, Wire::new().raw(b"NBDMAGICIHAVEOPT").u16(0).0);
    assert_eq!(sent, [client_flags(0), option(EXPORT_NAME, "vol0")].concat());
    client.feed(&Wire::new().u64(4096).u16(1).raw([0; 123]).0);
    assert_eq!(client.end, None, "one of the 124 zeroes is missing");
    client.feed(&[0]);
    assert_eq!(negotiated(&client).size_bytes, 4096);
}

// The order of questions.

#[test]
fn the_best_is_asked_for_first() {
    let mut client = fresh_client();
    let sent = answer(&mut client, greeting());
    assert_eq!(sent, [client_flags(3), option(EXTENDED_HEADERS, "")].concat());
    let set_meta = option(SET_META, contexts("vol0", &["base:allocation"]));
    assert_eq!(answer(&mut client, ack(EXTENDED_HEADERS)), set_meta);
    let id = option_reply(SET_META, META_CONTEXT, Wire::new().u32(77).raw("base:allocation").0);
    assert_eq!(answer(&mut client, [id, ack(SET_META)].concat()), go_request());
    let sizes = option_reply(GO, REP_INFO, Wire::new().u16(3).u32(512).u32(4096).u32(1 << 20).0);
    assert_eq!(answer(&mut client, [sizes, go_ok()].concat()), []);
    let expected = Negotiated {
        size_bytes: 1 << 20,
        flags: TransmissionFlags(0b1101_1111_1101),
        block: BlockSizes { min_bytes: 512, preferred_bytes: 4096, max_bytes: 1 << 20 },
        told_block_sizes: true,
        mode: ReplyMode::Extended,
        base_allocation_id: Some(77),
        listed_contexts: vec![],
        description: String::new(),
        entered_by: EnteredBy::Go,
        tls: false,
    };
    assert_eq!(negotiated(&client), &expected);
}

#[test]
fn what_a_server_lacks_is_given_up_one_by_one() {
    let mut client = fresh_client();
    answer(&mut client, greeting());
    assert_eq!(
        answer(&mut client, option_reply(EXTENDED_HEADERS, ERR_UNSUP, "unknown option")),
        option(STRUCTURED_REPLY, "")
    );
    // Without chunks there is no point in contexts.
    assert_eq!(answer(&mut client, option_reply(STRUCTURED_REPLY, ERR_UNSUP, "")), go_request());
    assert_eq!(answer(&mut client, option_reply(GO, ERR_UNSUP, "")), option(EXPORT_NAME, "vol0"));
    assert!(client.handshake.waiting_for().contains("EXPORT_NAME"));
    answer(&mut client, Wire::new().u64(1 << 20).u16(0x85).0);
    let negotiated = negotiated(&client);
    assert_eq!(negotiated.mode, ReplyMode::Simple);
    assert_eq!(negotiated.entered_by, EnteredBy::ExportName);
    assert_eq!(negotiated.block, BlockSizes::DEFAULT);
    assert!(!negotiated.told_block_sizes);
    assert_eq!(negotiated.flags, TransmissionFlags(5), "SEND_DF means nothing without chunks");
}

#[test]
fn structured_replies_are_the_second_choice() {
    let mut client = fresh_client();
    answer(&mut client, greeting());
    answer(&mut client, option_reply(EXTENDED_HEADERS, ERR_POLICY, ""));
    assert_eq!(answer(&mut client, ack(STRUCTURED_REPLY))[8..12], SET_META.to_be_bytes());
    assert_eq!(answer(&mut client, option_reply(SET_META, ERR_UNSUP, "")), go_request());
    answer(&mut client, go_ok());
    assert_eq!(negotiated(&client).mode, ReplyMode::Structured);
    assert_eq!(negotiated(&client).base_allocation_id, None);
}

#[test]
fn contexts_before_an_error_do_not_count() {
    let mut client = fresh_client();
    answer(&mut client, greeting());
    answer(&mut client, ack(EXTENDED_HEADERS));
    let id = option_reply(SET_META, META_CONTEXT, Wire::new().u32(77).raw("base:allocation").0);
    answer(&mut client, [id, option_reply(SET_META, ERR_TOO_BIG, ""), go_ok()].concat());
    assert_eq!(negotiated(&client).base_allocation_id, None);
}

#[test]
fn only_what_is_wanted_is_asked_for() {
    assert_eq!(plain_client().handshake.waiting_for(), "the answer to GO");
    let config = ClientConfig { extended: false, base_allocation: false, ..ClientConfig::new("") };
    let mut client = ClientEnd::new(config);
    assert_eq!(answer(&mut client, greeting())[4..], option(STRUCTURED_REPLY, ""));
    assert_eq!(answer(&mut client, ack(STRUCTURED_REPLY)), option(GO, describe("", &[3])));
}

#[test]
fn contexts_of_a_namespace_can_be_listed() {
    let config = ClientConfig { list_contexts: Some("x-holdfast:".into()), ..ClientConfig::new("vol0") };
    let mut client = ClientEnd::new(config);
    answer(&mut client, greeting());
    let list = option(LIST_META, contexts("vol0", &["x-holdfast:"]));
    assert_eq!(answer(&mut client, ack(EXTENDED_HEADERS)), list);
    let name = |name: &str| option_reply(LIST_META, META_CONTEXT, Wire::new().u32(0).raw(name).0);
    let reply = [name("x-holdfast:id=7"), name("x-holdfast:epoch"), ack(LIST_META)].concat();
    assert_eq!(answer(&mut client, reply)[8..12], SET_META.to_be_bytes());
    answer(&mut client, [ack(SET_META), go_ok()].concat());
    assert_eq!(negotiated(&client).listed_contexts, ["x-holdfast:id=7", "x-holdfast:epoch"]);
    assert_eq!(negotiated(&client).base_allocation_id, None, "it selected none");
}

#[test]
fn the_name_to_open_may_depend_on_what_was_listed() {
    let config = ClientConfig {
        list_contexts: Some("x-holdfast:".into()),
        choose_export: true,
        ..ClientConfig::new("vol0")
    };
    let mut client = ClientEnd::new(config);
    answer(&mut client, greeting());
    answer(&mut client, ack(EXTENDED_HEADERS));
    let name = option_reply(LIST_META, META_CONTEXT, Wire::new().u32(0).raw("x-holdfast:a").0);
    let sent = answer(&mut client, [name, ack(LIST_META)].concat());
    assert_eq!(sent, option(SET_META, contexts("vol1", &["base:allocation"])));
    assert_eq!(answer(&mut client, ack(SET_META)), option(GO, describe("vol1", &[3, 2])));
    let description = option_reply(GO, REP_INFO, Wire::new().u16(2).raw("a volume").0);
    answer(&mut client, [description, go_ok()].concat());
    assert_eq!(negotiated(&client).description, "a volume");
}

#[test]
fn a_server_that_cannot_list_is_opened_by_its_plain_name() {
    let config = ClientConfig {
        list_contexts: Some("x-holdfast:".into()),
        choose_export: true,
        ..ClientConfig::new("vol0")
    };
    let mut refuses = ClientEnd::new(config.clone());
    answer(&mut refuses, greeting());
    answer(&mut refuses, ack(EXTENDED_HEADERS));
    let sent = answer(&mut refuses, option_reply(LIST_META, ERR_UNSUP, ""));
    assert_eq!(sent, option(SET_META, contexts("vol0", &["base:allocation"])));
    assert_eq!(answer(&mut refuses, ack(SET_META)), option(GO, describe("vol0", &[3])));

    let mut plain = ClientEnd::new(config);
    answer(&mut plain, greeting());
    answer(&mut plain, option_reply(EXTENDED_HEADERS, ERR_UNSUP, ""));
    let sent = answer(&mut plain, option_reply(STRUCTURED_REPLY, ERR_UNSUP, ""));
    assert_eq!(sent, option(GO, describe("vol0", &[3])), "without chunks nothing can be listed");
}

#[test]
fn listed_contexts_are_bounded() {
    let config = ClientConfig { list_contexts: Some("x-holdfast:".into()), ..ClientConfig::new("vol0") };
    let mut client = ClientEnd::new(config);
    answer(&mut client, greeting());
    answer(&mut client, ack(EXTENDED_HEADERS));
    let name = option_reply(LIST_META, META_CONTEXT, Wire::new().u32(0).raw("x-holdfast:a").0);
    answer(&mut client, [name.repeat(100), ack(LIST_META), ack(SET_META), go_ok()].concat());
    assert_eq!(negotiated(&client).listed_contexts.len(), 64);
}

// Refusals.

#[test]
fn a_refused_go_ends_with_abort_and_the_servers_words() {
    let mut client = asked_go();
    let sent = answer(&mut client, option_reply(GO, ERR_UNKNOWN, "no such\x1b[2J volume"));
    assert_eq!(sent, option(ABORT, ""));
    let why = HandshakeError::Refused {
        option: OptionCode::GO,
        error: OptionError::Unknown,
        text: "no such?[2J volume".into(),
    };
    assert_eq!(failed(&client), &why);
    assert!(!why.is_violation());
    assert_eq!(why.to_string(), "GO refused: unknown export: no such?[2J volume");
}

#[test]
fn every_error_to_go_but_unsup_is_final() {
    for kind in
        [ERR_POLICY, ERR_INVALID, ERR_TLS_REQD, ERR_SHUTDOWN, 0x8000_0008, ERR_EXT_HEADER_REQD, u32::MAX]
    {
        let mut client = asked_go();
        assert_eq!(answer(&mut client, option_reply(GO, kind, "")), option(ABORT, ""), "{kind:#x}");
        assert!(matches!(failed(&client), HandshakeError::Refused { .. }));
    }
}

#[test]
fn err_shutdown_to_anything_is_followed_by_abort() {
    let mut client = fresh_client();
    answer(&mut client, greeting());
    let sent = answer(&mut client, option_reply(EXTENDED_HEADERS, ERR_SHUTDOWN, "going down"));
    assert_eq!(sent, option(ABORT, ""));
    let why = failed(&client);
    assert_eq!(why.to_string(), "EXTENDED_HEADERS refused: server is shutting down: going down");
}

#[test]
fn unsup_to_go_after_extended_headers_is_no_way_to_export_name() {
    let mut client = fresh_client();
    answer(&mut client, greeting());
    answer(&mut client, [ack(EXTENDED_HEADERS), ack(SET_META)].concat());
    assert_eq!(answer(&mut client, option_reply(GO, ERR_UNSUP, "")), option(ABORT, ""));
}

#[test]
fn a_long_text_of_the_server_is_cut() {
    let mut client = asked_go();
    answer(&mut client, option_reply(GO, ERR_POLICY, "no ".repeat(20000)));
    let HandshakeError::Refused { text, .. } = failed(&client) else { panic!() };
    assert!(text.len() <= 259 && text.ends_with("..."), "{} bytes", text.len());
}

// Transmission flags, size, block sizes.

#[test]
fn go_without_info_export_is_refused() {
    let mut client = asked_go();
    answer(&mut client, ack(GO));
    assert_eq!(failed(&client), &HandshakeError::NoExportInfo);
}

#[test]
fn size_above_2_pow_63_is_refused() {
    for (size, ok) in [(i64::MAX as u64, true), (1 << 63, false), (u64::MAX, false)] {
        let mut client = asked_go();
        answer(&mut client, [info_export(size, 1), ack(GO)].concat());
        assert_eq!(client.end.as_ref().unwrap().is_ok(), ok, "{size:#x}");
        if !ok {
            assert_eq!(failed(&client), &HandshakeError::SizeTooLarge(size));
        }
    }
}

#[test]
fn flags_without_has_flags_are_refused() {
    let mut client = asked_go();
    answer(&mut client, [info_export(4096, 4), ack(GO)].concat());
    assert_eq!(failed(&client), &HandshakeError::NoFlags(4));
}

#[test]
fn unknown_transmission_flags_are_ignored() {
    let mut client = asked_go();
    answer(&mut client, [info_export(4096, 0xffff), ack(GO)].concat());
    assert_eq!(negotiated(&client).flags, TransmissionFlags(0b1101_0111_1111));
}

#[test]
fn unknown_information_is_ignored() {
    let mut client = asked_go();
    let unknown = option_reply(GO, REP_INFO, Wire::new().u16(99).raw("whatever").0);
    let name = option_reply(GO, REP_INFO, Wire::new().u16(1).raw("vol0").0);
    answer(&mut client, [unknown, name, go_ok()].concat());
    assert_eq!(negotiated(&client).size_bytes, 1 << 20);
}

fn told(min: u32, preferred: u32, max: u32) -> Result<BlockSizes, HandshakeError> {
    let mut client = asked_go();
    let sizes = option_reply(GO, REP_INFO, Wire::new().u16(3).u32(min).u32(preferred).u32(max).0);
    answer(&mut client, [sizes, go_ok()].concat());
    client.end.unwrap().map(|negotiated| negotiated.block)
}

#[test]
fn block_sizes_are_obeyed_and_put_right_where_that_is_harmless() {
    let block =
        |min_bytes, preferred_bytes, max_bytes| Ok(BlockSizes { min_bytes, preferred_bytes, max_bytes });
    assert_eq!(told(1, 4096, 32 << 20), block(1, 4096, 32 << 20));
    assert_eq!(told(512, 512, 65536), block(512, 512, 65536));
    assert_eq!(told(65536, 65536, 65536), block(65536, 65536, 65536));
    assert_eq!(told(1, 4096, u32::MAX), block(1, 4096, 32 << 20), "no limit means our limit");
    assert_eq!(told(1, 256, 1 << 20), block(1, 512, 1 << 20), "preferred is at least 512");
    assert_eq!(told(4096, 1, 1 << 20), block(4096, 4096, 1 << 20), "and at least the minimum");
    assert_eq!(told(1, 5000, 1 << 20), block(1, 4096, 1 << 20), "and a power of two");
    assert_eq!(told(1, 1 << 30, 1 << 20), block(1, 1 << 20, 1 << 20), "and at most the payload");
    assert_eq!(told(4096, 4096, 10000), block(4096, 4096, 8192), "whole blocks");
}

#[test]
fn senseless_block_sizes_are_refused() {
    let sizes =
        [(0, 4096, 1 << 20), (3, 4096, 1 << 20), (131_072, 131_072, 1 << 20), (1, 512, 0), (4096, 4096, 512)];
    for (min_bytes, preferred_bytes, max_bytes) in sizes {
        let why = HandshakeError::BlockSizes { min_bytes, preferred_bytes, max_bytes };
        assert_eq!(told(min_bytes, preferred_bytes, max_bytes), Err(why));
    }
}

#[test]
fn block_sizes_told_unasked_with_export_name_cannot_come() {
    let mut client = asked_go();
    answer(&mut client, option_reply(GO, ERR_UNSUP, ""));
    answer(&mut client, Wire::new().u64(4096).u16(1).raw("behind").0);
    assert_eq!(client.unread, b"behind", "with NO_ZEROES ten bytes are all");
}

// Violations: the server is left without a word.

#[track_caller]
fn violates(bytes: Vec<u8>) -> HandshakeError {
    let mut client = asked_go();
    assert_eq!(answer(&mut client, bytes), [], "no ABORT to a server out of step");
    let why = failed(&client).clone();
    assert!(why.is_violation(), "{why}");
    assert_eq!(client.handshake.receive(&go_ok()), Err(why.clone()), "latched");
    assert_eq!(client.handshake.next_step(), Step::Failed(why.clone()));
    why
}

#[test]
fn bad_reply_magic() {
    assert_eq!(violates(vec![0; 20]), HandshakeError::ReplyMagic(0));
}

#[test]
fn reply_to_another_option() {
    let why = HandshakeError::ReplyToOther { asked: OptionCode::GO, got: OptionCode::INFO };
    assert_eq!(violates(option_reply(INFO, ACK, "")), why);
}

#[test]
fn reply_of_a_type_the_option_does_not_have() {
    for kind in [0, SERVER, META_CONTEXT, 5, 0x7fff_ffff] {
        let why = HandshakeError::UnexpectedReply { option: OptionCode::GO, kind };
        assert_eq!(violates(option_reply(GO, kind, "")), why);
    }
}

#[test]
fn ack_with_data() {
    assert!(matches!(violates(option_reply(GO, ACK, "x")), HandshakeError::MalformedReply { .. }));
}

#[test]
fn information_of_the_wrong_length() {
    let export = Wire::new().u16(0).u64(4096).u16(1);
    let sizes = Wire::new().u16(3).u32(1).u32(4096).u32(65536);
    for data in [
        vec![],
        vec![0],
        export.0[..11].to_vec(),
        export.raw([0]).0,
        sizes.0[..13].to_vec(),
        sizes.raw([0]).0,
    ] {
        let why = violates(option_reply(GO, REP_INFO, data));
        assert!(matches!(why, HandshakeError::MalformedReply { .. }));
    }
}

#[test]
fn two_sizes_that_contradict_each_other() {
    assert!(matches!(
        violates([info_export(4096, 1), info_export(8192, 1)].concat()),
        HandshakeError::MalformedReply { .. }
    ));
    let mut client = asked_go();
    answer(&mut client, [info_export(4096, 1), info_export(4096, 1), ack(GO)].concat());
    assert_eq!(negotiated(&client).size_bytes, 4096, "repeating oneself is only odd");
}

#[test]
fn reply_above_64_kib_is_refused_before_its_data_comes() {
    let header = Wire::new().u64(0x0003_e889_0455_65a9).u32(GO).u32(ERR_POLICY).u32(65537).0;
    let why = HandshakeError::ReplyTooLong { option: OptionCode::GO, len_bytes: 65537 };
    assert_eq!(violates(header), why);
}

#[test]
fn endless_information_is_a_flood() {
    let item = option_reply(GO, REP_INFO, Wire::new().u16(99).0);
    assert_eq!(violates(item.repeat(257)), HandshakeError::Flood);
    let long = option_reply(GO, REP_INFO, Wire::new().u16(99).raw(vec![0; 65534]).0);
    assert_eq!(violates(long.repeat(16)), HandshakeError::Flood);
}

#[test]
fn what_is_below_the_flood_limits_is_read() {
    let item = option_reply(GO, REP_INFO, Wire::new().u16(99).0);
    let mut client = asked_go();
    // With the size and the ACK these are 256 replies.
    answer(&mut client, [item.repeat(254), go_ok()].concat());
    assert_eq!(negotiated(&client).size_bytes, 1 << 20);

    let header = 20;
    let long = option_reply(GO, REP_INFO, Wire::new().u16(99).raw(vec![0; 65534]).0);
    let left = (1 << 20) - 15 * long.len() - go_ok().len();
    let last = option_reply(GO, REP_INFO, Wire::new().u16(99).raw(vec![0; left - header - 2]).0);
    let mut client = asked_go();
    answer(&mut client, [long.repeat(15), last, go_ok()].concat());
    assert_eq!(negotiated(&client).size_bytes, 1 << 20, "exactly 1 MiB");
}

#[test]
fn a_context_that_was_not_asked_for() {
    for name in ["base:other", "qemu:dirty-bitmap:x", "a\0b", "base:allocation\0"] {
        let mut client = fresh_client();
        answer(&mut client, greeting());
        answer(&mut client, ack(EXTENDED_HEADERS));
        answer(&mut client, option_reply(SET_META, META_CONTEXT, Wire::new().u32(1).raw(name).0));
        assert!(matches!(failed(&client), HandshakeError::MalformedReply { .. }), "{name:?}");
    }
}

#[test]
fn one_context_with_two_ids() {
    let mut client = fresh_client();
    answer(&mut client, greeting());
    answer(&mut client, ack(EXTENDED_HEADERS));
    let id = |id| option_reply(SET_META, META_CONTEXT, Wire::new().u32(id).raw("base:allocation").0);
    answer(&mut client, [id(1), id(2)].concat());
    assert!(matches!(failed(&client), HandshakeError::MalformedReply { .. }));
}

// TLS.

fn tls_client() -> ClientEnd {
    ClientEnd::new(ClientConfig { tls: TlsMode::Required, ..ClientConfig::new("vol0") })
}

#[test]
fn required_tls_is_the_first_question() {
    let mut client = tls_client();
    assert_eq!(answer(&mut client, greeting())[4..], option(STARTTLS, ""));
    assert_eq!(answer(&mut client, ack(STARTTLS)), option(EXTENDED_HEADERS, ""), "inside TLS");
    answer(&mut client, [ack(EXTENDED_HEADERS), ack(SET_META), go_ok()].concat());
    assert!(negotiated(&client).tls);
}

#[test]
fn required_tls_that_is_refused_is_the_end() {
    for kind in [ERR_UNSUP, ERR_POLICY, ERR_INVALID] {
        let mut client = tls_client();
        answer(&mut client, greeting());
        assert_eq!(answer(&mut client, option_reply(STARTTLS, kind, "no TLS")), option(ABORT, ""));
        assert_eq!(failed(&client), &HandshakeError::TlsRefused { text: "no TLS".into() });
    }
}

/// The downgrade attack that strips FIXED_NEWSTYLE from the greeting.
#[test]
fn required_tls_without_fixed_newstyle_is_the_end() {
    let mut client = tls_client();
    client.feed(&Wire::new().raw(b"NBDMAGICIHAVEOPT").u16(2).0);
    assert_eq!(failed(&client), &HandshakeError::TlsRefused { text: String::new() });
}

#[test]
fn plaintext_behind_the_answer_to_starttls_is_fatal() {
    let mut client = tls_client();
    answer(&mut client, greeting());
    answer(&mut client, [ack(STARTTLS), ack(EXTENDED_HEADERS)].concat());
    assert_eq!(failed(&client), &HandshakeError::PlaintextBehindStartTls);
}

#[test]
fn tls_reqd_where_tls_is_off_is_the_end() {
    let mut client = fresh_client();
    answer(&mut client, greeting());
    assert_eq!(answer(&mut client, option_reply(EXTENDED_HEADERS, ERR_TLS_REQD, "")), option(ABORT, ""));
    assert_eq!(failed(&client).to_string(), "EXTENDED_HEADERS refused: TLS required");
}
