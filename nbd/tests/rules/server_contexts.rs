// SPDX-License-Identifier: MIT OR Apache-2.0
//! LIST_META_CONTEXT and SET_META_CONTEXT.

use nbd::server::SelectedContexts;

use crate::driver::ServerEnd;
use crate::support::*;

fn chunky() -> ServerEnd {
    let mut server = server();
    ask(&mut server, STRUCTURED_REPLY, "");
    server
}

fn context(code: u32, id: u32, name: &str) -> Vec<u8> {
    option_reply(code, META_CONTEXT, Wire::new().u32(id).raw(name).0)
}

fn listed(server: &mut ServerEnd, queries: &[&str]) -> Vec<u8> {
    ask(server, LIST_META, contexts("vol0", queries))
}

fn set(server: &mut ServerEnd, name: &str, queries: &[&str]) -> Vec<u8> {
    ask(server, SET_META, contexts(name, queries))
}

/// What is selected once GO has chosen `name`.
fn selected(mut server: ServerEnd, name: &str) -> SelectedContexts {
    ask(&mut server, GO, describe(name, &[]));
    server.end.expect("transmission").expect("transmission").contexts
}

const BASE: SelectedContexts = SelectedContexts { base_allocation: true, own: Vec::new() };

#[test]
fn contexts_need_structured_replies_or_extended_headers() {
    for code in [LIST_META, SET_META] {
        let mut server = server();
        let data = contexts("vol0", &["base:allocation"]);
        assert_eq!(error_of(&ask(&mut server, code, &data)), ERR_INVALID);
        ask(&mut server, EXTENDED_HEADERS, "");
        assert_eq!(kinds(&ask(&mut server, code, &data)), [META_CONTEXT, ACK]);
    }
}

#[test]
fn list_without_queries_names_every_context_with_id_0() {
    let expected = [
        context(LIST_META, 0, "base:allocation"),
        context(LIST_META, 0, "x-holdfast:id=7"),
        context(LIST_META, 0, "x-holdfast:epoch"),
        option_reply(LIST_META, ACK, ""),
    ];
    assert_eq!(listed(&mut chunky(), &[]), expected.concat());
}

#[test]
fn list_takes_a_namespace_as_wildcard() {
    let mut server = chunky();
    let base = [context(LIST_META, 0, "base:allocation"), option_reply(LIST_META, ACK, "")].concat();
    assert_eq!(listed(&mut server, &["base:"]), base);
    assert_eq!(kinds(&listed(&mut server, &["x-holdfast:"])), [META_CONTEXT, META_CONTEXT, ACK]);
    assert_eq!(kinds(&listed(&mut server, &["base:", "base:allocation"])), [META_CONTEXT, ACK], "once");
}

#[test]
fn unknown_namespaces_and_leaves_are_ignored() {
    let mut server = chunky();
    for code in [LIST_META, SET_META] {
        let data = contexts("vol0", &["qemu:dirty-bitmap:x", "base:other", "x-other:", "base:allocations"]);
        assert_eq!(ask(&mut server, code, data), option_reply(code, ACK, ""));
    }
}

#[test]
fn set_selects_by_whole_name_with_unique_ids() {
    let mut server = chunky();
    let expected = [
        context(SET_META, 1, "base:allocation"),
        context(SET_META, 3, "x-holdfast:epoch"),
        option_reply(SET_META, ACK, ""),
    ];
    let queries = ["x-holdfast:epoch", "base:allocation", "base:allocation"];
    assert_eq!(set(&mut server, "vol0", &queries), expected.concat());
    let contexts = selected(server, "vol0");
    assert_eq!(contexts, SelectedContexts { base_allocation: true, own: vec![3] });
    assert_eq!(contexts.len(), 2);
}

#[test]
fn set_ignores_wildcards_and_selects_nothing_for_no_queries() {
    for queries in [&["base:"][..], &["x-holdfast:"], &[]] {
        let mut server = chunky();
        set(&mut server, "vol0", &["base:allocation"]);
        assert_eq!(set(&mut server, "vol0", queries), option_reply(SET_META, ACK, ""));
        assert!(selected(server, "vol0").is_empty(), "the second set replaces the first");
    }
}

#[test]
fn set_replaces_the_selection_even_when_it_fails() {
    for bad in [contexts("nowhere", &["base:allocation"]), contexts("vol0", &["no colon"]), vec![1, 2]] {
        let mut server = chunky();
        set(&mut server, "vol0", &["base:allocation"]);
        error_of(&ask(&mut server, SET_META, bad));
        assert!(selected(server, "vol0").is_empty());
    }
}

#[test]
fn a_selection_holds_only_for_the_export_it_names() {
    let mut server = chunky();
    server.exports[1].base_allocation = true;
    set(&mut server, "vol0", &["base:allocation"]);
    assert!(selected(server, "vol1").is_empty());

    let mut server = chunky();
    set(&mut server, "", &["base:allocation"]);
    assert_eq!(selected(server, "vol0"), BASE, "the empty name is a name of vol0");
}

#[test]
fn a_selection_survives_info_and_list() {
    let mut server = chunky();
    set(&mut server, "vol0", &["base:allocation"]);
    listed(&mut server, &[]);
    ask(&mut server, INFO, describe("vol1", &[]));
    let mode = {
        ask(&mut server, GO, describe("vol0", &[]));
        server.end.unwrap().unwrap()
    };
    assert_eq!(mode.contexts, BASE);
    assert!(mode.session_mode().block_status);
}

#[test]
fn a_selection_is_dropped_when_the_export_no_longer_has_it() {
    let mut server = chunky();
    set(&mut server, "vol0", &["base:allocation", "x-holdfast:epoch"]);
    server.exports[0].contexts.remove(0);
    assert!(selected(server, "vol0").is_empty(), "ids are positions, which have moved");

    let mut server = chunky();
    set(&mut server, "vol0", &["base:allocation", "x-holdfast:epoch"]);
    server.exports[0].base_allocation = false;
    assert_eq!(selected(server, "vol0"), SelectedContexts { base_allocation: false, own: vec![3] });
}

#[test]
fn extended_headers_keep_the_selection() {
    let mut server = chunky();
    set(&mut server, "vol0", &["base:allocation"]);
    ask(&mut server, EXTENDED_HEADERS, "");
    assert_eq!(selected(server, "vol0"), BASE);
}

#[test]
fn an_export_without_base_allocation_does_not_offer_it() {
    let mut server = chunky();
    assert_eq!(ask(&mut server, LIST_META, contexts("vol1", &[])), option_reply(LIST_META, ACK, ""));
    assert_eq!(set(&mut server, "vol1", &["base:allocation"]), option_reply(SET_META, ACK, ""));
    assert!(selected(server, "vol1").is_empty());
}

#[test]
fn unknown_export_is_err_unknown() {
    let mut server = chunky();
    for code in [LIST_META, SET_META] {
        assert_eq!(error_of(&ask(&mut server, code, contexts("nowhere", &[]))), ERR_UNKNOWN);
        assert_eq!(error_of(&ask(&mut server, code, contexts("down", &[]))), ERR_SHUTDOWN);
    }
}

#[test]
fn bad_framing_is_invalid_and_the_handshake_goes_on() {
    let cases: [(&str, Vec<u8>); 8] = [
        ("no data", vec![]),
        ("name beyond the data", Wire::new().u32(9).raw("vol0").u32(0).0),
        ("no count", Wire::new().text("vol0").0),
        ("fewer queries than counted", Wire::new().text("vol0").u32(2).text("base:").0),
        ("query beyond the data", Wire::new().text("vol0").u32(1).u32(u32::MAX).raw("base:").0),
        ("bytes behind the queries", Wire::new().text("vol0").u32(1).text("base:").raw([0]).0),
        ("query without colon", contexts("vol0", &["base"])),
        ("query without namespace", contexts("vol0", &[":allocation"])),
    ];
    let mut server = chunky();
    for code in [LIST_META, SET_META] {
        for (what, data) in &cases {
            assert_eq!(error_of(&ask(&mut server, code, data)), ERR_INVALID, "{what}");
        }
    }
    assert_eq!(kinds(&listed(&mut server, &["base:"])), [META_CONTEXT, ACK]);
}

#[test]
fn more_than_64_queries_are_err_too_big() {
    let mut server = chunky();
    assert_eq!(kinds(&listed(&mut server, &["base:"; 64])), [META_CONTEXT, ACK]);
    assert_eq!(error_of(&listed(&mut server, &["base:"; 65])), ERR_TOO_BIG);
    let claimed = Wire::new().text("vol0").u32(u32::MAX).0;
    assert_eq!(error_of(&ask(&mut server, SET_META, claimed)), ERR_TOO_BIG);
}
