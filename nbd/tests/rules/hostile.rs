// SPDX-License-Identifier: MIT OR Apache-2.0
//! Clients and servers that mean harm: what is not already a rule of its own.
//!
//! Most hostile cases are one test per rule beside the rule (bad magic, lengths, floods, wraps). Here are
//! those about sequences and about random bytes: nothing may panic, the state must stay bounded, and what is
//! refused must stay refused.

use nbd::server::{CloseReason, HandshakeError, SessionMode, Verdict, check_request};
use nbd::{Decoded, ReplyMode, RequestHeader};

use crate::support::*;

/// xorshift64: the same bytes on every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}

#[test]
fn random_bytes_end_the_handshake_of_a_server() {
    let mut random = Random(1);
    for _ in 0..2000 {
        let mut server = fresh_server();
        server.feed(&random.bytes(64));
        assert!(matches!(server.end, Some(Err(CloseReason::Violation(_)))));
    }
}

#[test]
fn random_bytes_end_the_handshake_of_a_client() {
    let mut random = Random(2);
    for _ in 0..2000 {
        let mut client = fresh_client();
        client.feed(&random.bytes(64));
        assert!(client.end.as_ref().is_some_and(Result::is_err));
        let mut client = fresh_client();
        client.feed(&greeting());
        client.feed(&random.bytes(64));
        assert!(client.end.as_ref().is_some_and(Result::is_err));
    }
}

/// Every single-bit error in a whole handshake ends somewhere: in transmission, in a refusal, or waiting for
/// more bytes; and whatever the server says is well-framed option replies.
#[test]
fn a_handshake_with_one_bit_flipped_is_survived() {
    let mut stream = client_flags(3);
    stream.extend(option(STRUCTURED_REPLY, ""));
    stream.extend(option(LIST, ""));
    stream.extend(option(SET_META, contexts("vol0", &["base:allocation", "x-holdfast:"])));
    stream.extend(option(INFO, describe("vol0", &[0, 1, 2, 3])));
    stream.extend(option(GO, describe("vol0", &[3])));
    let mut finished = 0;
    for bit in 0..stream.len() * 8 {
        let mut flipped = stream.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let mut server = fresh_server();
        server.feed(&flipped);
        let said = server.sent.split_off(18);
        if !matches!(&server.end, Some(Ok(session)) if session.entered_by == nbd::EnteredBy::ExportName) {
            replies(&said);
        }
        finished += usize::from(matches!(server.end, Some(Ok(_))));
    }
    assert!(finished > stream.len(), "most flips leave a lawful handshake: {finished}");
}

#[test]
fn equal_cookies_are_served_twice() {
    let limits =
        nbd::server::ExportLimits { size_bytes: 4096, flags: all_flags(), block: nbd::BlockSizes::DEFAULT };
    let mode = SessionMode { reply: ReplyMode::Simple, block_status: false };
    let read = Wire::new().u32(0x2560_9513).u16(0).u16(0).u64(1).u64(0).u32(512).0;
    for _ in 0..2 {
        let Decoded::Header { header, .. } = RequestHeader::decode(&read, false) else { panic!() };
        assert!(
            matches!(check_request(&header, &limits, mode), Verdict::Accept(request) if request.cookie == 1)
        );
    }
}

/// Random headers, each in every dialect: an accepted request is inside the export, aligned and not empty,
/// whatever was asked.
#[test]
fn no_header_is_accepted_outside_the_export() {
    let mut random = Random(3);
    let sizes = [0, 1, 511, 4096, 1 << 32, i64::MAX as u64];
    let mut accepted = 0;
    for round in 0..100_000 {
        let size_bytes = sizes[round % sizes.len()];
        let edge = |random: &mut Random| match random.next() % 8 {
            0..5 => random.next() % 10_000,
            5 => size_bytes.wrapping_sub(random.next() % 5000),
            6 => u64::MAX - random.next() % 5000,
            _ => random.next(),
        };
        let header = RequestHeader {
            flags: nbd::CommandFlags(if random.next().is_multiple_of(2) {
                0
            } else {
                random.next() as u16 & 63
            }),
            command: (random.next() % 10) as u16,
            cookie: random.next(),
            offset: edge(&mut random),
            len: edge(&mut random),
        };
        let block = nbd::BlockSizes { min_bytes: 1 << (random.next() % 4), ..nbd::BlockSizes::DEFAULT };
        let limits = nbd::server::ExportLimits { size_bytes, flags: all_flags(), block };
        let reply = [ReplyMode::Simple, ReplyMode::Structured, ReplyMode::Extended][round % 3];
        let verdict =
            check_request(&header, &limits, SessionMode { reply, block_status: reply.has_chunks() });
        match verdict {
            Verdict::Accept(request) if request.command == nbd::Command::Flush => {
                assert_eq!((request.offset, request.len, request.payload_bytes), (0, 0, 0));
            }
            Verdict::Accept(request) => {
                accepted += 1;
                assert!(request.len > 0 && request.offset.checked_add(request.len).unwrap() <= size_bytes);
                assert_eq!((request.offset | request.len) % u64::from(block.min_bytes), 0);
                let is_write = request.command == nbd::Command::Write;
                assert_eq!(u64::from(request.payload_bytes), if is_write { request.len } else { 0 });
            }
            Verdict::Reject { discard_bytes, .. } => assert!(discard_bytes <= 64 << 20),
            Verdict::RejectAndClose(_) | Verdict::Disconnect => {}
        }
    }
    assert!(accepted > 1000, "the test reaches what it is about: {accepted}");
}

#[test]
fn a_client_that_sends_options_without_reading_is_bounded() {
    let mut server = server();
    let options: Vec<u8> = (0..70).flat_map(|_| option(INFO, describe("vol0", &[1, 2, 3]))).collect();
    server.feed(&options);
    let why = CloseReason::Violation(HandshakeError::TooManyOptions);
    assert_eq!(server.end, Some(Err(why)));
    assert!(server.output_high_bytes <= 64 * 1024 + 8300, "{}", server.output_high_bytes);
}
