// SPDX-License-Identifier: MIT OR Apache-2.0
//! Replies as bytes, in the three dialects.

use nbd::server::{REPLY_HEADER_MAX, ReplyEncoder, StatusReply, encode_status};
use nbd::{Errno, Extent, ReplyMode};

use crate::support::Wire;

const COOKIE: u64 = 0x0102_0304_0506_0708;
const OFFSET: u64 = 0x1000;

fn encoder(mode: ReplyMode) -> ReplyEncoder {
    ReplyEncoder::new(mode, COOKIE, OFFSET)
}

fn header(encode: impl FnOnce(&mut [u8; REPLY_HEADER_MAX]) -> usize) -> Vec<u8> {
    let mut out = [0xee; REPLY_HEADER_MAX];
    let len = encode(&mut out);
    assert!(out[len..].iter().all(|byte| *byte == 0xee), "nothing behind the header is touched");
    out[..len].to_vec()
}

fn simple(error: u32) -> Vec<u8> {
    Wire::new().u32(0x6744_6698).u32(error).u64(COOKIE).0
}

fn structured(flags: u16, kind: u16, len: u32) -> Wire {
    Wire::new().u32(0x668e_33ef).u16(flags).u16(kind).u64(COOKIE).u32(len)
}

fn extended(flags: u16, kind: u16, len: u64) -> Wire {
    Wire::new().u32(0x6e8a_278c).u16(flags).u16(kind).u64(COOKIE).u64(OFFSET).u64(len)
}

#[test]
fn read_is_a_simple_reply_without_chunks() {
    let reply = header(|out| encoder(ReplyMode::Simple).read_ok(512, out));
    assert_eq!(reply, simple(0));
}

#[test]
fn read_is_one_offset_data_chunk_with_done() {
    let reply = header(|out| encoder(ReplyMode::Structured).read_ok(512, out));
    assert_eq!(reply, structured(1, 1, 520).u64(OFFSET).0);
    let reply = header(|out| encoder(ReplyMode::Extended).read_ok(512, out));
    assert_eq!(reply, extended(1, 1, 520).u64(OFFSET).0);
}

#[test]
fn success_without_data_is_a_simple_reply_or_an_extended_none() {
    assert_eq!(header(|out| encoder(ReplyMode::Simple).done(out)), simple(0));
    assert_eq!(header(|out| encoder(ReplyMode::Structured).done(out)), simple(0));
    assert_eq!(header(|out| encoder(ReplyMode::Extended).done(out)), extended(1, 0, 0).0);
}

#[test]
fn errors_are_chunks_where_there_are_chunks() {
    let error = |mode| header(|out| encoder(mode).error(Errno::NoSpace, out));
    assert_eq!(error(ReplyMode::Simple), simple(28));
    assert_eq!(error(ReplyMode::Structured), structured(1, 0x8001, 6).u32(28).u16(0).0);
    assert_eq!(error(ReplyMode::Extended), extended(1, 0x8001, 6).u32(28).u16(0).0);
}

#[test]
fn every_error_has_its_number() {
    for (errno, number) in [
        (Errno::Perm, 1),
        (Errno::Io, 5),
        (Errno::NoMemory, 12),
        (Errno::Invalid, 22),
        (Errno::NoSpace, 28),
        (Errno::Overflow, 75),
        (Errno::NotSupported, 95),
        (Errno::Shutdown, 108),
    ] {
        assert_eq!(header(|out| encoder(ReplyMode::Simple).error(errno, out)), simple(number));
    }
}

fn error_with_text(mode: ReplyMode, text: &str) -> Vec<u8> {
    let mut out = vec![0xaa];
    encoder(mode).error_with_text(Errno::Io, text, &mut out);
    assert_eq!(out.remove(0), 0xaa, "appended");
    out
}

#[test]
fn error_text_goes_into_the_chunk() {
    assert_eq!(error_with_text(ReplyMode::Simple, "why"), simple(5));
    let expected = structured(1, 0x8001, 9).u32(5).u16(3).raw("why").0;
    assert_eq!(error_with_text(ReplyMode::Structured, "why"), expected);
    let expected = extended(1, 0x8001, 9).u32(5).u16(3).raw("why").0;
    assert_eq!(error_with_text(ReplyMode::Extended, "why"), expected);
}

#[test]
fn error_text_is_cut_at_4096_bytes() {
    let reply = error_with_text(ReplyMode::Structured, &"\u{e9}".repeat(3000));
    assert_eq!(reply.len(), 20 + 6 + 4096);
    assert_eq!(&reply[..26], structured(1, 0x8001, 6 + 4096).u32(5).u16(4096).0);
    let odd = format!("x{}", "\u{e9}".repeat(3000));
    assert_eq!(error_with_text(ReplyMode::Structured, &odd).len(), 20 + 6 + 4095, "at a character");
}

fn status(mode: ReplyMode, len: u64, one_extent: bool, extents: &[(u64, u64)]) -> Vec<u8> {
    let reply = StatusReply { encoder: encoder(mode), len, one_extent, context_id: 1, last: true };
    let mut out = Vec::new();
    encode_status(&reply, extents.iter().map(|(len, flags)| Extent { len: *len, flags: *flags }), &mut out);
    out
}

#[test]
fn block_status_is_an_id_and_32_bit_extents() {
    let reply = status(ReplyMode::Structured, 8192, false, &[(4096, 0), (4096, 3)]);
    let expected = structured(1, 5, 20).u32(1).u32(4096).u32(0).u32(4096).u32(3).0;
    assert_eq!(reply, expected);
}

#[test]
fn block_status_ext_has_a_count_and_64_bit_extents() {
    let reply = status(ReplyMode::Extended, 1 << 41, false, &[(1 << 40, 0), (1 << 40, 3)]);
    let expected = extended(1, 6, 40).u32(1).u32(2).u64(1 << 40).u64(0).u64(1 << 40).u64(3).0;
    assert_eq!(reply, expected);
}

#[test]
fn done_is_only_on_the_last_context() {
    let encoder = encoder(ReplyMode::Structured);
    let first = StatusReply { encoder, len: 512, one_extent: false, context_id: 1, last: false };
    let second = StatusReply { context_id: 2, last: true, ..first };
    let mut out = Vec::new();
    encode_status(&first, [Extent { len: 512, flags: 0 }], &mut out);
    encode_status(&second, [Extent { len: 512, flags: 9 }], &mut out);
    let expected = structured(0, 5, 12).u32(1).u32(512).u32(0).raw(structured(1, 5, 12).0);
    assert_eq!(out, expected.u32(2).u32(512).u32(9).0);
}

/// The lengths and flags of a 32-bit status reply.
fn descriptors(reply: &[u8]) -> Vec<(u32, u32)> {
    let word = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().unwrap());
    assert_eq!(word(&reply[16..20]) as usize, reply.len() - 20, "the header tells the length");
    reply[24..].chunks(8).map(|pair| (word(&pair[..4]), word(&pair[4..]))).collect()
}

fn compact(len: u64, one_extent: bool, extents: &[(u64, u64)]) -> Vec<(u32, u32)> {
    descriptors(&status(ReplyMode::Structured, len, one_extent, extents))
}

#[test]
fn neighbours_of_one_status_are_joined_and_empty_extents_dropped() {
    let extents = [(0, 3), (512, 0), (512, 0), (0, 3), (512, 0), (512, 3)];
    assert_eq!(compact(2048, false, &extents), [(1536, 0), (512, 3)]);
}

#[test]
fn extents_end_with_the_request() {
    assert_eq!(compact(1000, false, &[(512, 0), (4096, 3), (512, 0)]), [(512, 0), (488, 3)]);
    assert_eq!(compact(512, false, &[(512, 0), (512, 3)]), [(512, 0)], "none begins behind the end");
}

#[test]
fn extents_may_end_before_the_request() {
    assert_eq!(compact(1 << 20, false, &[(512, 3)]), [(512, 3)]);
}

#[test]
fn req_one_leaves_one_extent_inside_the_request() {
    assert_eq!(compact(2048, true, &[(512, 0), (512, 3)]), [(512, 0)]);
    assert_eq!(compact(512, true, &[(1 << 40, 3)]), [(512, 3)]);
    assert_eq!(compact(u64::from(u32::MAX), true, &[(1 << 40, 3)]), [(0xffff_0000, 3)]);
}

#[test]
fn at_least_one_extent_is_sent() {
    assert_eq!(compact(2048, false, &[]), [(2048, 0)]);
    assert_eq!(compact(2048, true, &[(0, 3)]), [(2048, 0)]);
}

#[test]
fn extents_above_32_bits_are_cut_into_several() {
    let extents = compact(u64::from(u32::MAX), false, &[(1 << 40, 3)]);
    assert_eq!(extents, [(0xffff_0000, 3), (0xffff, 3)]);
}

#[test]
fn the_number_of_extents_is_bounded() {
    let extents: Vec<(u64, u64)> = (0..100_000).map(|at| (1, at % 2)).collect();
    assert_eq!(compact(100_000, false, &extents).len(), 65536);
    let reply = status(ReplyMode::Extended, 100_000, false, &extents);
    assert_eq!(reply.len(), 32 + 8 + 16 * 65536);
    assert_eq!(&reply[..40], extended(1, 6, 8 + 16 * 65536).u32(1).u32(65536).0);
}

#[test]
fn an_endless_source_of_extents_ends() {
    let reply = StatusReply {
        encoder: encoder(ReplyMode::Structured),
        len: 1 << 26,
        one_extent: false,
        context_id: 1,
        last: true,
    };
    let mut out = Vec::new();
    encode_status(&reply, std::iter::repeat(Extent { len: 512, flags: 3 }), &mut out);
    assert_eq!(descriptors(&out), [(1 << 26, 3)]);
    let mut out = Vec::new();
    encode_status(&reply, (0..).map(|at| Extent { len: 512, flags: at % 2 }), &mut out);
    assert_eq!(descriptors(&out).len(), 65536);
}
