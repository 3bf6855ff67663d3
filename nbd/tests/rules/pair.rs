// SPDX-License-Identifier: MIT OR Apache-2.0
//! Our client against our server over bytes in memory: every combination of what the two can do, and every
//! way the bytes can be cut. What one end agreed on, the other must have agreed on too.

use nbd::client::{
    ClientConfig, Negotiated, PlainReply, ReadAssembly, ReadPiece, ReplyHeader, StatusAssembly,
};
use nbd::server::{
    BASE_ALLOCATION_ID, ReplyEncoder, ServerConfig, Session, StatusReply, Verdict, check_request,
    encode_status,
};
use nbd::{
    Command, CommandFlags, Decoded, Errno, Extent, REQUEST_HEADER_MAX, ReplyMode, RequestHeader, TlsMode,
    encode_request,
};

use crate::driver::{ClientEnd, ServerEnd};
use crate::support::export;

/// Both ends and how much of what each sent has been delivered.
struct Pair {
    client: ClientEnd,
    server: ServerEnd,
    to_client: usize,
    to_server: usize,
}

impl Pair {
    fn new(client: ClientConfig, server: ServerConfig) -> Self {
        let server = ServerEnd::new(server, vec![export()]);
        Self { client: ClientEnd::new(client), server, to_client: 0, to_server: 0 }
    }

    /// Delivers what was sent, in pieces that end where `cut` says so, until both are silent.
    fn run(&mut self, cut: impl Fn(usize) -> bool) {
        loop {
            let piece = next_piece(&self.server.sent, self.to_client, &cut);
            self.to_client += piece.len();
            self.client.feed(&piece);
            let reply = next_piece(&self.client.sent, self.to_server, &cut);
            self.to_server += reply.len();
            self.server.feed(&reply);
            if piece.is_empty() && reply.is_empty() {
                return;
            }
        }
    }

    fn finish(self) -> (Negotiated, Session) {
        assert!(self.client.unread.is_empty() && self.server.unread.is_empty());
        let negotiated = *self.client.end.expect("the client ended").expect("in transmission");
        (negotiated, *self.server.end.expect("the server ended").expect("in transmission"))
    }
}

/// From `from` to the next cut.
fn next_piece(sent: &[u8], from: usize, cut: impl Fn(usize) -> bool) -> Vec<u8> {
    let to = (from + 1..sent.len()).find(|at| cut(*at)).unwrap_or(sent.len());
    sent[from..to].to_vec()
}

fn configs() -> Vec<(ClientConfig, ServerConfig)> {
    let mut configs = Vec::new();
    for bits in 0..128 {
        let bit = |at: u32| bits >> at & 1 == 1;
        let tls = if bit(5) { TlsMode::Required } else { TlsMode::Off };
        let client = ClientConfig {
            structured: bit(0),
            extended: bit(1),
            base_allocation: bit(2),
            list_contexts: bit(6).then(|| "x-holdfast:".into()),
            tls,
            ..ClientConfig::new("vol0")
        };
        configs.push((client, ServerConfig { structured: bit(3), extended: bit(4), tls }));
    }
    configs
}

fn agree(negotiated: &Negotiated, session: &Session) {
    assert_eq!(negotiated.mode, session.mode);
    assert_eq!(negotiated.size_bytes, session.export.size_bytes);
    assert_eq!(negotiated.flags, session.export.flags);
    assert_eq!(negotiated.block, session.export.block);
    assert_eq!(negotiated.entered_by, session.entered_by);
    assert_eq!(negotiated.tls, session.tls);
    let base = session.contexts.base_allocation.then_some(BASE_ALLOCATION_ID);
    assert_eq!(negotiated.base_allocation_id, base);
    assert!(negotiated.told_block_sizes && session.asked_block_sizes);
}

#[test]
fn both_ends_agree_whatever_they_can_do() {
    for (client, server) in configs() {
        let mut pair = Pair::new(client.clone(), server);
        pair.run(|_| false);
        let (negotiated, session) = pair.finish();
        agree(&negotiated, &session);
        let expected = match (client.extended && server.extended, client.structured && server.structured) {
            (true, _) => ReplyMode::Extended,
            (false, true) => ReplyMode::Structured,
            (false, false) => ReplyMode::Simple,
        };
        assert_eq!(session.mode, expected);
        assert_eq!(session.contexts.base_allocation, client.base_allocation && expected.has_chunks());
        let listed = client.list_contexts.is_some() && expected.has_chunks();
        assert_eq!(negotiated.listed_contexts.len(), if listed { 2 } else { 0 });
    }
}

#[test]
fn bytes_one_at_a_time_agree_on_the_same() {
    for (client, server) in configs() {
        let mut whole = Pair::new(client.clone(), server);
        whole.run(|_| false);
        let mut bytes = Pair::new(client, server);
        bytes.run(|_| true);
        assert_eq!(bytes.finish(), whole.finish());
    }
}

#[test]
fn every_split_point_agrees_on_the_same() {
    for (client, server) in configs() {
        let mut whole = Pair::new(client.clone(), server);
        whole.run(|_| false);
        let longest = whole.client.sent.len().max(whole.server.sent.len());
        let expected = whole.finish();
        for split in 1..longest {
            let mut pair = Pair::new(client.clone(), server);
            pair.run(|at| at == split);
            assert_eq!(pair.finish(), expected, "split at {split}");
        }
    }
}

#[test]
fn a_refusal_ends_both_ends() {
    for name in ["nowhere", "down", "secret"] {
        let mut pair = Pair::new(ClientConfig::new(name), ServerConfig::default());
        pair.run(|_| true);
        assert!(pair.client.end.unwrap().is_err(), "{name}");
        assert_eq!(pair.server.end, Some(Err(nbd::server::CloseReason::Aborted)), "the client said goodbye");
    }
}

#[test]
fn tls_on_one_side_only_ends_both_ends() {
    for (client_tls, server_tls) in [(TlsMode::Required, TlsMode::Off), (TlsMode::Off, TlsMode::Required)] {
        let client = ClientConfig { tls: client_tls, ..ClientConfig::new("vol0") };
        let mut pair = Pair::new(client, ServerConfig { tls: server_tls, ..ServerConfig::default() });
        pair.run(|_| true);
        assert!(pair.client.end.unwrap().is_err());
        assert_eq!(pair.server.end, Some(Err(nbd::server::CloseReason::Aborted)));
    }
}

// Transmission.

const SIZE: u64 = 1 << 30;

/// A session with everything, in one dialect.
fn session(mode: ReplyMode) -> Session {
    let client = ClientConfig {
        structured: mode == ReplyMode::Structured,
        extended: mode == ReplyMode::Extended,
        ..ClientConfig::new("vol0")
    };
    let mut pair = Pair::new(client, ServerConfig::default());
    pair.run(|_| false);
    let (_, session) = pair.finish();
    assert_eq!(session.mode, mode);
    session
}

/// Writes a request, and what the server makes of it.
fn sent(session: &Session, command: Command, flags: CommandFlags, offset: u64, len: u64) -> Verdict {
    let mut bytes = [0; REQUEST_HEADER_MAX];
    let header_len = encode_request(session.mode, command, flags, 7, offset, len, &mut bytes);
    let decoded = RequestHeader::decode(&bytes[..header_len], session.mode.is_extended());
    let Decoded::Header { header, consumed } = decoded else { panic!("{decoded:?}") };
    assert_eq!(consumed, header_len);
    check_request(&header, &session.limits(), session.session_mode())
}

fn reply_header(bytes: &[u8], mode: ReplyMode) -> (ReplyHeader, &[u8]) {
    let Decoded::Header { header, consumed } = ReplyHeader::decode(bytes, mode) else { panic!() };
    (header, &bytes[consumed..])
}

const MODES: [ReplyMode; 3] = [ReplyMode::Simple, ReplyMode::Structured, ReplyMode::Extended];

#[test]
fn reads_arrive_in_one_piece() {
    for mode in MODES {
        let session = session(mode);
        let verdict = sent(&session, Command::Read, CommandFlags::empty(), 4096, 512);
        let Verdict::Accept(request) = verdict else { panic!("{verdict:?}") };
        let mut bytes = [0; nbd::server::REPLY_HEADER_MAX];
        let len =
            ReplyEncoder::new(mode, request.cookie, request.offset).read_ok(request.len as u32, &mut bytes);
        let mut read = ReadAssembly::new(4096, 512, false);
        let (header, rest) = reply_header(&bytes[..len], mode);
        let piece = match header {
            ReplyHeader::Simple { cookie: 7, result } => read.accept_simple(mode, result),
            ReplyHeader::Chunk(chunk) => {
                assert_eq!((chunk.cookie, chunk.inline_bytes() as usize), (7, rest.len()));
                read.accept(&chunk, rest)
            }
            other @ ReplyHeader::Simple { .. } => panic!("{other:?}"),
        };
        assert_eq!(piece, Ok(ReadPiece::Data { at: 0, len: 512 }));
        assert_eq!(read.outcome(), Some(Ok(())));
    }
}

fn plain_outcome(bytes: &[u8], mode: ReplyMode, offset: u64, len: u64) -> (Result<(), Errno>, String) {
    let mut reply = PlainReply::new(offset, len);
    let (header, rest) = reply_header(bytes, mode);
    let mut text = String::new();
    match header {
        ReplyHeader::Simple { result, .. } => reply.accept_simple(result).unwrap(),
        ReplyHeader::Chunk(chunk) => {
            assert_eq!(chunk.inline_bytes() as usize, rest.len());
            text = reply.accept(&chunk, rest).unwrap().map_or(text, |error| error.printable_text());
        }
    }
    (reply.outcome().expect("one reply is all"), text)
}

#[test]
fn answers_without_data_arrive() {
    for mode in MODES {
        let session = session(mode);
        for (command, offset, len) in [
            (Command::Write, 4096, 512),
            (Command::Flush, 0, 0),
            (Command::Trim, 4096, 512),
            (Command::Cache, 4096, 512),
            (Command::WriteZeroes, 4096, 512),
        ] {
            let verdict = sent(&session, command, CommandFlags::FUA, offset, len);
            let Verdict::Accept(request) = verdict else { panic!("{verdict:?}") };
            assert_eq!(request.command, command);
            let encoder = ReplyEncoder::new(mode, request.cookie, request.offset);
            let mut bytes = [0; nbd::server::REPLY_HEADER_MAX];
            let done = encoder.done(&mut bytes);
            assert_eq!(plain_outcome(&bytes[..done], mode, offset, len), (Ok(()), String::new()));
            let error = encoder.error(Errno::NoSpace, &mut bytes);
            assert_eq!(plain_outcome(&bytes[..error], mode, offset, len).0, Err(Errno::NoSpace));
        }
    }
}

#[test]
fn refusals_arrive_with_their_reason() {
    for mode in MODES {
        let session = session(mode);
        let verdict = sent(&session, Command::Write, CommandFlags::empty(), SIZE, 512);
        let Verdict::Reject { refusal, discard_bytes: 512 } = verdict else { panic!("{verdict:?}") };
        let mut bytes = Vec::new();
        ReplyEncoder::new(mode, 7, SIZE).error_with_text(refusal.errno, refusal.reason, &mut bytes);
        let text = if mode.has_chunks() { "the range ends past the export" } else { "" };
        assert_eq!(plain_outcome(&bytes, mode, SIZE, 512), (Err(Errno::NoSpace), text.into()));
    }
}

#[test]
fn block_status_arrives() {
    for mode in [ReplyMode::Structured, ReplyMode::Extended] {
        let session = session(mode);
        let one = CommandFlags::REQ_ONE;
        for (flags, extents) in [(CommandFlags::empty(), 2), (one, 1)] {
            let verdict = sent(&session, Command::BlockStatus, flags, 4096, 8192);
            let Verdict::Accept(request) = verdict else { panic!("{verdict:?}") };
            let reply = StatusReply {
                encoder: ReplyEncoder::new(mode, request.cookie, request.offset),
                len: request.len,
                one_extent: request.flags.contains(one),
                context_id: BASE_ALLOCATION_ID,
                last: true,
            };
            let found = [Extent { len: 4096, flags: 3 }, Extent { len: 1 << 20, flags: 0 }];
            let mut bytes = Vec::new();
            encode_status(&reply, found, &mut bytes);
            let mut status = StatusAssembly::new(4096, 8192, reply.one_extent, BASE_ALLOCATION_ID);
            let (header, rest) = reply_header(&bytes, mode);
            let ReplyHeader::Chunk(chunk) = header else { panic!("{header:?}") };
            let (inline, list) = rest.split_at(chunk.inline_bytes() as usize);
            assert_eq!(status.accept(&chunk, inline), Ok(None));
            status.feed(list).unwrap();
            let expected = [Extent { len: 4096, flags: 3 }, Extent { len: 4096, flags: 0 }];
            assert_eq!(status.outcome(), Some(Ok(&expected[..extents])));
        }
    }
    let simple = session(ReplyMode::Simple);
    let verdict = sent(&simple, Command::BlockStatus, CommandFlags::empty(), 0, 512);
    assert!(matches!(verdict, Verdict::Reject { .. }));
}
