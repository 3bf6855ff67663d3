// SPDX-License-Identifier: MIT OR Apache-2.0
//! Requests as bytes, reply headers, and replies without data.

use nbd::client::{ChunkHeader, PlainReply, ReplyHeader, ReplyViolation};
use nbd::{
    ChunkType, Command, CommandFlags, Decoded, Errno, REQUEST_HEADER_MAX, ReplyMode, WireViolation,
    encode_disconnect, encode_request,
};

use crate::support::Wire;

const COOKIE: u64 = 0x0102_0304_0506_0708;

fn encoded(mode: ReplyMode, command: Command, flags: CommandFlags, offset: u64, len: u64) -> Vec<u8> {
    let mut out = [0xee; REQUEST_HEADER_MAX];
    let header_len = encode_request(mode, command, flags, COOKIE, offset, len, &mut out);
    assert!(out[header_len..].iter().all(|byte| *byte == 0xee));
    out[..header_len].to_vec()
}

#[test]
fn compact_requests_are_28_bytes() {
    for mode in [ReplyMode::Simple, ReplyMode::Structured] {
        let write = encoded(mode, Command::Write, CommandFlags::FUA, 512, 4096);
        assert_eq!(write, Wire::new().u32(0x2560_9513).u16(1).u16(1).u64(COOKIE).u64(512).u32(4096).0);
    }
    let limit = encoded(ReplyMode::Simple, Command::Trim, CommandFlags::empty(), 0, u64::from(u32::MAX));
    assert_eq!(limit[24..], [0xff; 4]);
}

#[test]
fn extended_requests_are_32_bytes_and_writes_say_that_they_have_a_payload() {
    let write = encoded(ReplyMode::Extended, Command::Write, CommandFlags::FUA, 512, 4096);
    assert_eq!(write, Wire::new().u32(0x21e4_1c71).u16(33).u16(1).u64(COOKIE).u64(512).u64(4096).0);
    let zero = encoded(ReplyMode::Extended, Command::WriteZeroes, CommandFlags::NO_HOLE, 0, 1 << 40);
    assert_eq!(zero, Wire::new().u32(0x21e4_1c71).u16(2).u16(6).u64(COOKIE).u64(0).u64(1 << 40).0);
}

#[test]
#[should_panic(expected = "compact request of 4294967296 bytes")]
fn a_length_above_32_bits_in_a_compact_request_is_a_bug() {
    encoded(ReplyMode::Simple, Command::Trim, CommandFlags::empty(), 0, 1 << 32);
}

#[test]
fn disc_has_no_offset_length_or_flags() {
    let mut out = [0; REQUEST_HEADER_MAX];
    let len = encode_disconnect(ReplyMode::Simple, &mut out);
    assert_eq!(out[..len], Wire::new().u32(0x2560_9513).u16(0).u16(2).u64(0).u64(0).u32(0).0);
    let len = encode_disconnect(ReplyMode::Extended, &mut out);
    assert_eq!(out[..len], Wire::new().u32(0x21e4_1c71).u16(0).u16(2).u64(0).u64(0).u64(0).0);
}

fn simple(error: u32) -> Vec<u8> {
    Wire::new().u32(0x6744_6698).u32(error).u64(COOKIE).0
}

fn structured(flags: u16, kind: u16, len: u32) -> Vec<u8> {
    Wire::new().u32(0x668e_33ef).u16(flags).u16(kind).u64(COOKIE).u32(len).0
}

fn extended(flags: u16, kind: u16, len: u64) -> Vec<u8> {
    Wire::new().u32(0x6e8a_278c).u16(flags).u16(kind).u64(COOKIE).u64(512).u64(len).0
}

fn decoded(bytes: &[u8], mode: ReplyMode) -> Decoded<ReplyHeader> {
    for short in 0..bytes.len() {
        assert_eq!(ReplyHeader::decode(&bytes[..short], mode), Decoded::NeedMore, "{short} bytes");
    }
    ReplyHeader::decode(bytes, mode)
}

#[test]
fn simple_replies_are_16_bytes() {
    for mode in [ReplyMode::Simple, ReplyMode::Structured] {
        let header = ReplyHeader::Simple { cookie: COOKIE, result: Ok(()) };
        assert_eq!(decoded(&simple(0), mode), Decoded::Header { header, consumed: 16 });
    }
}

/// The document says EINVAL; `Errno::from_wire` says why it is EIO here.
#[test]
fn error_numbers_outside_the_list_are_eio() {
    let expected = [
        (1, Errno::Perm),
        (5, Errno::Io),
        (12, Errno::NoMemory),
        (22, Errno::Invalid),
        (27, Errno::NoSpace),
        (28, Errno::NoSpace),
        (75, Errno::Overflow),
        (95, Errno::NotSupported),
        (108, Errno::Shutdown),
        (122, Errno::NoSpace),
        (2, Errno::Io),
        (u32::MAX, Errno::Io),
    ];
    for (number, errno) in expected {
        let header = ReplyHeader::Simple { cookie: COOKIE, result: Err(errno) };
        let decoded = ReplyHeader::decode(&simple(number), ReplyMode::Simple);
        assert_eq!(decoded, Decoded::Header { header, consumed: 16 }, "error {number}");
    }
}

#[test]
fn structured_chunks_have_20_bytes_and_extended_ones_32() {
    let chunk =
        |done, offset| ChunkHeader { kind: ChunkType::OffsetData, done, cookie: COOKIE, offset, len: 9 };
    let header = ReplyHeader::Chunk(chunk(true, None));
    let got = decoded(&structured(1, 1, 9), ReplyMode::Structured);
    assert_eq!(got, Decoded::Header { header, consumed: 20 });
    let header = ReplyHeader::Chunk(chunk(false, Some(512)));
    let got = decoded(&extended(0, 1, 9), ReplyMode::Extended);
    assert_eq!(got, Decoded::Header { header, consumed: 32 });
}

#[test]
fn unknown_chunk_flags_are_ignored() {
    for (flags, done) in [(0xfffe, false), (0xffff, true)] {
        let Decoded::Header { header: ReplyHeader::Chunk(chunk), .. } =
            ReplyHeader::decode(&structured(flags, 2, 12), ReplyMode::Structured)
        else {
            panic!()
        };
        assert_eq!(chunk.done, done);
    }
}

#[test]
fn headers_of_another_dialect_are_violations() {
    let cases = [
        (structured(1, 0, 0), ReplyMode::Simple, 0x668e_33ef),
        (extended(1, 0, 0), ReplyMode::Simple, 0x6e8a_278c),
        (extended(1, 0, 0), ReplyMode::Structured, 0x6e8a_278c),
        (simple(0), ReplyMode::Extended, 0x6744_6698),
        (structured(1, 0, 0), ReplyMode::Extended, 0x668e_33ef),
        (Wire::new().u32(0x9674_4668).0, ReplyMode::Simple, 0x9674_4668),
        (Wire::new().u32(0x2560_9513).0, ReplyMode::Structured, 0x2560_9513),
    ];
    for (bytes, mode, magic) in cases {
        let violation = Decoded::Violation(WireViolation::ReplyMagic(magic));
        assert_eq!(ReplyHeader::decode(&bytes[..4], mode), violation, "as soon as it is there");
        assert_eq!(ReplyHeader::decode(&bytes, mode), violation);
    }
}

#[test]
fn chunk_lengths_must_fit_their_type() {
    let max = 8 + (32 << 20);
    let cases: [(u16, &[u64], &[u64]); 7] = [
        (0, &[0], &[1, 8, 1 << 31]),
        (1, &[9, 4096 + 8, max], &[0, 7, 8, max + 1, u64::from(u32::MAX)]),
        (2, &[12], &[0, 11, 13]),
        (5, &[12, 20, 4 + (8 << 20)], &[0, 4, 8, 11, 13, 4 + (8 << 20) + 8]),
        (0x8001, &[6, 4102, 8192], &[0, 5, 8193, u64::from(u32::MAX)]),
        (0x8002, &[14, 4110, 8192], &[0, 6, 13, 8193]),
        (0x9abc, &[6, 8192], &[0, 5, 8193]),
    ];
    for (kind, possible, impossible) in cases {
        let kind_len =
            |len: u64| ReplyHeader::decode(&structured(1, kind, len as u32), ReplyMode::Structured);
        for len in possible {
            assert!(matches!(kind_len(*len), Decoded::Header { .. }), "type {kind:#x} length {len}");
        }
        for len in impossible {
            let violation = Decoded::Violation(WireViolation::ChunkLength { kind, len: *len });
            assert_eq!(kind_len(*len), violation);
        }
    }
}

#[test]
fn extended_lengths_are_checked_in_64_bits() {
    let huge = ReplyHeader::decode(&extended(1, 1, (1 << 32) + 9), ReplyMode::Extended);
    let violation = WireViolation::ChunkLength { kind: 1, len: (1 << 32) + 9 };
    assert_eq!(huge, Decoded::Violation(violation));
    for (len, ok) in
        [(24, true), (8 + (16 << 20), true), (8, false), (20, false), (8 + (16 << 20) + 16, false)]
    {
        let got = ReplyHeader::decode(&extended(1, 6, len), ReplyMode::Extended);
        assert_eq!(matches!(got, Decoded::Header { .. }), ok, "length {len}");
    }
}

#[test]
fn status_chunks_belong_to_their_dialect() {
    let violation = |kind| Decoded::Violation(WireViolation::ChunkType(kind));
    assert_eq!(ReplyHeader::decode(&extended(1, 5, 12), ReplyMode::Extended), violation(5));
    assert_eq!(ReplyHeader::decode(&structured(1, 6, 24), ReplyMode::Structured), violation(6));
}

#[test]
fn unknown_chunk_types_are_violations_unless_they_are_errors() {
    for kind in [3, 4, 7, 0x7fff] {
        let violation = Decoded::Violation(WireViolation::ChunkType(kind));
        assert_eq!(ReplyHeader::decode(&structured(1, kind, 8), ReplyMode::Structured), violation);
    }
    let Decoded::Header { header: ReplyHeader::Chunk(chunk), .. } =
        ReplyHeader::decode(&structured(1, 0xffff, 8), ReplyMode::Structured)
    else {
        panic!()
    };
    assert_eq!(chunk.kind, ChunkType::UnknownError(0xffff));
    assert_eq!(chunk.inline_bytes(), 8);
}

#[test]
fn none_without_done_is_a_violation() {
    let violation = Decoded::Violation(WireViolation::NoneNotDone);
    assert_eq!(ReplyHeader::decode(&structured(0, 0, 0), ReplyMode::Structured), violation);
}

// Replies without data.

fn chunk(kind: ChunkType, done: bool, len: usize) -> ChunkHeader {
    ChunkHeader { kind, done, cookie: COOKIE, offset: None, len: len as u32 }
}

fn error_payload(error: u32, text: &str) -> Vec<u8> {
    Wire::new().u32(error).u16(text.len() as u16).raw(text).0
}

#[test]
fn none_with_done_is_success() {
    let mut reply = PlainReply::new(512, 4096);
    assert_eq!(reply.outcome(), None);
    assert_eq!(reply.accept(&chunk(ChunkType::None, true, 0), &[]), Ok(None));
    assert_eq!(reply.outcome(), Some(Ok(())));
}

#[test]
fn a_simple_reply_is_a_whole_one() {
    for result in [Ok(()), Err(Errno::NoSpace)] {
        let mut reply = PlainReply::new(512, 4096);
        assert_eq!(reply.accept_simple(result), Ok(()));
        assert_eq!(reply.outcome(), Some(result));
        assert_eq!(reply.accept_simple(result), Err(ReplyViolation::AfterDone));
    }
}

#[test]
fn an_error_chunk_fails_the_request_even_if_none_follows() {
    let mut reply = PlainReply::new(512, 4096);
    let payload = error_payload(28, "disk \x07full");
    let error = reply.accept(&chunk(ChunkType::Error, false, payload.len()), &payload).unwrap().unwrap();
    assert_eq!((error.errno, error.offset), (Errno::NoSpace, None));
    assert_eq!(error.printable_text(), "disk ?full");
    assert_eq!(reply.outcome(), None);
    reply.accept(&chunk(ChunkType::None, true, 0), &[]).unwrap();
    assert_eq!(reply.outcome(), Some(Err(Errno::NoSpace)));
}

#[test]
fn the_first_error_counts() {
    let mut reply = PlainReply::new(0, 4096);
    for error in [5, 28] {
        let payload = error_payload(error, "");
        reply.accept(&chunk(ChunkType::Error, error == 28, 6), &payload).unwrap();
    }
    assert_eq!(reply.outcome(), Some(Err(Errno::Io)));
}

#[test]
fn an_unknown_error_chunk_fails_the_request_and_not_the_connection() {
    for (error, errno) in [(0, Errno::Io), (22, Errno::Invalid), (4711, Errno::Io)] {
        let mut reply = PlainReply::new(0, 4096);
        let payload = [error_payload(error, "hm"), vec![1, 2, 3]].concat();
        reply.accept(&chunk(ChunkType::UnknownError(0x8fff), true, payload.len()), &payload).unwrap();
        assert_eq!(reply.outcome(), Some(Err(errno)));
    }
}

#[test]
fn error_chunk_with_error_0_is_a_violation() {
    let mut reply = PlainReply::new(0, 4096);
    let payload = error_payload(0, "");
    let result = reply.accept(&chunk(ChunkType::Error, true, 6), &payload);
    assert_eq!(result, Err(ReplyViolation::ErrorIsZero));
    assert_eq!(reply.outcome(), Some(Err(Errno::Io)), "a violation is never a success");
}

#[test]
fn error_text_must_fit_its_chunk_and_4096_bytes() {
    let too_long = Wire::new().u32(5).u16(3).raw("ab").0;
    let text_and_offset = Wire::new().u32(5).u16(8).u64(0).0;
    let giant = Wire::new().u32(5).u16(4097).raw([b'x'; 4097]).0;
    for (kind, payload) in [
        (ChunkType::Error, too_long.clone()),
        (ChunkType::UnknownError(0x8100), too_long),
        (ChunkType::ErrorOffset, text_and_offset),
        (ChunkType::Error, giant),
    ] {
        let mut reply = PlainReply::new(0, 4096);
        let result = reply.accept(&chunk(kind, true, payload.len()), &payload);
        assert_eq!(result, Err(ReplyViolation::ErrorText), "{kind:?}");
    }
}

#[test]
fn error_offset_must_lie_in_the_request() {
    for (offset, ok) in [(511, false), (512, true), (4607, true), (4608, false), (u64::MAX, false)] {
        let mut reply = PlainReply::new(512, 4096);
        let payload = Wire::new().u32(5).u16(0).u64(offset).0;
        let result = reply.accept(&chunk(ChunkType::ErrorOffset, true, 14), &payload);
        assert_eq!(result.is_ok(), ok, "offset {offset}");
        if let Ok(Some(error)) = result {
            assert_eq!(error.offset, Some(offset));
        }
    }
}

#[test]
fn error_chunks_are_bounded() {
    let mut reply = PlainReply::new(0, 4096);
    let payload = error_payload(5, "");
    for _ in 0..64 {
        reply.accept(&chunk(ChunkType::Error, false, 6), &payload).unwrap();
    }
    let result = reply.accept(&chunk(ChunkType::Error, false, 6), &payload);
    assert_eq!(result, Err(ReplyViolation::TooManyErrors));
}

#[test]
fn content_and_status_chunks_do_not_answer_a_write() {
    for kind in
        [ChunkType::OffsetData, ChunkType::OffsetHole, ChunkType::BlockStatus, ChunkType::BlockStatusExt]
    {
        let mut reply = PlainReply::new(0, 4096);
        let result = reply.accept(&chunk(kind, true, 12), &[0; 12]);
        assert_eq!(result, Err(ReplyViolation::NotForCommand(kind)));
    }
}

#[test]
fn nothing_follows_done() {
    let mut reply = PlainReply::new(0, 4096);
    reply.accept(&chunk(ChunkType::None, true, 0), &[]).unwrap();
    let again = reply.accept(&chunk(ChunkType::None, true, 0), &[]);
    assert_eq!(again, Err(ReplyViolation::AfterDone));
}

#[test]
fn extended_chunks_repeat_the_offset_of_the_request() {
    let with_offset = |offset| ChunkHeader { offset: Some(offset), ..chunk(ChunkType::None, true, 0) };
    assert_eq!(PlainReply::new(512, 4096).accept(&with_offset(512), &[]), Ok(None));
    let result = PlainReply::new(512, 4096).accept(&with_offset(0), &[]);
    assert_eq!(result, Err(ReplyViolation::OffsetMismatch { asked: 512, got: 0 }));
}
