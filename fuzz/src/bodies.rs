// SPDX-License-Identifier: MIT OR Apache-2.0
//! What each fuzz target does with its input, and what must then hold.
//!
//! Besides "no panic" every body checks a property that a wrong parser would break: the same bytes cut
//! differently give the same result; an accepted request lies inside the export; our own replies satisfy our
//! own client; the READ assembly agrees with a naive model that marks every byte. A body returns whether the
//! input reached the depth it is about, so that a test can tell when the corpora have gone stale.
#![allow(
    unreachable_pub,
    dead_code,
    reason = "public in the fuzz crate, private in the tests that include this file"
)]

use nbd::client::{
    ChunkHeader, ClientConfig, PlainReply, ReadAssembly, ReadPiece, ReplyHeader, ReplyViolation,
    StatusAssembly,
};
use nbd::gate::{Admission, Identity, SignedClaim, is_valid_member};
use nbd::server::{
    AcceptedRequest, ExportInfo, ExportLimits, REPLY_HEADER_MAX, ReplyEncoder, ServerConfig, SessionMode,
    StatusReply, Verdict, check_request, encode_status,
};
use nbd::uri::Uri;
use nbd::{
    BlockSizes, ChunkType, Command, CommandFlags, Decoded, Errno, Extent, ReplyMode, RequestHeader, TlsMode,
    TransmissionFlags,
};

use crate::driver::{ClientEnd, ServerEnd};

const MODES: [ReplyMode; 3] = [ReplyMode::Simple, ReplyMode::Structured, ReplyMode::Extended];

/// A client stream against the server role. Byte 0: what the server offers; byte 1: length of the pieces in
/// the second run; then the stream, beginning with the client flags. True when transmission was reached.
pub fn server(data: &[u8]) -> bool {
    let [offer, stride, stream @ ..] = data else { return false };
    let tls = if offer & 4 != 0 { TlsMode::Required } else { TlsMode::Off };
    let config = ServerConfig { structured: offer & 1 != 0, extended: offer & 2 != 0, tls };
    let mut whole = ServerEnd::new(config, exports());
    whole.feed(stream);
    // One answer and the pause threshold, whatever was asked.
    assert!(whole.output_high_bytes < 256 * 1024, "{} bytes wait to be sent", whole.output_high_bytes);
    if tls == TlsMode::Off {
        // With TLS the place of a cut matters: bytes behind STARTTLS are fatal only if they come before TLS.
        let mut pieces = ServerEnd::new(config, exports());
        stream.chunks(usize::from(*stride).max(1)).for_each(|piece| pieces.feed(piece));
        assert_eq!((&pieces.end, &pieces.sent), (&whole.end, &whole.sent), "cut into {stride}");
        assert!(!matches!(whole.end, Some(Ok(_))) || pieces.unread == whole.unread, "bytes of transmission");
    }
    let Some(Ok(session)) = whole.end else { return false };
    assert!(!session.export.flags.contains(TransmissionFlags::SEND_DF) || session.mode.has_chunks());
    assert!(session.contexts.is_empty() || session.mode.has_chunks());
    serve(&session.limits(), session.session_mode(), &whole.unread);
    true
}

/// Requests against an export. Byte 0: dialect; byte 1: exponent of the minimum block; byte 2: read-only,
/// small, or both; then the stream. True when a request was accepted.
pub fn requests(data: &[u8]) -> bool {
    let [dialect, block, kind, stream @ ..] = data else { return false };
    let mode = MODES[usize::from(*dialect) % 3];
    let read_only = if kind & 1 != 0 { TransmissionFlags::READ_ONLY.0 } else { 0 };
    let limits = ExportLimits {
        size_bytes: if kind & 2 != 0 { 1 << 16 } else { i64::MAX as u64 },
        flags: TransmissionFlags(0b1101_1111_1101 | read_only),
        block: BlockSizes { min_bytes: 1 << (block % 13), ..BlockSizes::DEFAULT },
    };
    serve(&limits, SessionMode { reply: mode, block_status: mode.has_chunks() }, stream)
}

/// Reads requests as a server does until the stream ends, answering each; true when one was accepted.
fn serve(limits: &ExportLimits, session: SessionMode, mut stream: &[u8]) -> bool {
    let mut accepted = false;
    loop {
        let decoded = RequestHeader::decode(stream, session.reply.is_extended());
        let Decoded::Header { header, consumed } = decoded else { return accepted };
        stream = &stream[consumed..];
        let payload_bytes = match check_request(&header, limits, session) {
            Verdict::Accept(request) => {
                accepted = true;
                assert_lawful(&request, limits);
                assert_our_client_takes(&request, session.reply);
                u64::from(request.payload_bytes)
            }
            Verdict::Reject { refusal, discard_bytes } => {
                assert!(discard_bytes <= nbd::limits::DISCARD_MAX_BYTES);
                assert_error_arrives(&header, refusal.errno, session.reply);
                discard_bytes
            }
            Verdict::RejectAndClose(refusal) => {
                assert_error_arrives(&header, refusal.errno, session.reply);
                return accepted;
            }
            Verdict::Disconnect => return accepted,
        };
        let Some(rest) = usize::try_from(payload_bytes).ok().and_then(|bytes| stream.get(bytes..)) else {
            return accepted;
        };
        stream = rest;
    }
}

fn assert_lawful(request: &AcceptedRequest, limits: &ExportLimits) {
    let writes = request.command.is_write_like();
    assert!(!writes || !limits.flags.contains(TransmissionFlags::READ_ONLY));
    assert!(!request.flags.contains(CommandFlags::PAYLOAD_LEN));
    assert!(writes || !request.flags.contains(CommandFlags::FUA));
    if request.command == Command::Flush {
        assert_eq!((request.offset, request.len, request.payload_bytes), (0, 0, 0));
        return;
    }
    assert!(request.len > 0);
    assert!(request.offset.checked_add(request.len).is_some_and(|end| end <= limits.size_bytes));
    assert_eq!((request.offset | request.len) % u64::from(limits.block.min_bytes), 0);
    let is_write = request.command == Command::Write;
    assert_eq!(u64::from(request.payload_bytes), if is_write { request.len } else { 0 });
    if is_write || request.command == Command::Read {
        assert!(request.len <= u64::from(limits.block.max_bytes));
    }
}

/// The reply our server would send is one that our client takes for success.
fn assert_our_client_takes(request: &AcceptedRequest, mode: ReplyMode) {
    let encoder = ReplyEncoder::new(mode, request.cookie, request.offset);
    let mut front = [0; REPLY_HEADER_MAX];
    match request.command {
        Command::Read => {
            let len = encoder.read_ok(request.len as u32, &mut front);
            let mut read = ReadAssembly::new(request.offset, request.len as u32, true);
            let (header, inline) = split_reply(&front[..len], mode);
            let piece = match header {
                ReplyHeader::Simple { result, .. } => read.accept_simple(mode, result),
                ReplyHeader::Chunk(chunk) => read.accept(&chunk, inline),
            };
            assert_eq!(piece, Ok(ReadPiece::Data { at: 0, len: request.len as u32 }));
            assert_eq!(read.outcome(), Some(Ok(())));
        }
        Command::BlockStatus => assert_status_arrives(request, encoder),
        _ => {
            let len = encoder.done(&mut front);
            assert_eq!(plain_outcome(&front[..len], mode, request.offset, request.len), Ok(()));
        }
    }
}

/// Extents made up from the cookie, which the fuzzer chooses.
fn assert_status_arrives(request: &AcceptedRequest, encoder: ReplyEncoder) {
    let one_extent = request.flags.contains(CommandFlags::REQ_ONE);
    let reply = StatusReply { encoder, len: request.len, one_extent, context_id: 1, last: true };
    let found = request
        .cookie
        .to_be_bytes()
        .map(|byte| Extent { len: u64::from(byte & 31) << (byte >> 2), flags: u64::from(byte & 3) });
    let mut bytes = Vec::new();
    encode_status(&reply, found, &mut bytes);
    let (header, rest) = split_reply(&bytes, encoder.mode);
    let ReplyHeader::Chunk(chunk) = header else { panic!("a status is a chunk") };
    let (inline, list) = rest.split_at(chunk.inline_bytes() as usize);
    let mut status = StatusAssembly::new(request.offset, request.len, one_extent, 1);
    assert_eq!(status.accept(&chunk, inline), Ok(None));
    assert_eq!(status.feed(list), Ok(()));
    let extents = status.outcome().expect("done").expect("success");
    let described: u64 = extents.iter().map(|extent| extent.len).sum();
    assert!((1..=request.len).contains(&described));
}

fn assert_error_arrives(header: &RequestHeader, errno: Errno, mode: ReplyMode) {
    let encoder = ReplyEncoder::new(mode, header.cookie, header.offset);
    let mut front = [0; REPLY_HEADER_MAX];
    let len = encoder.error(errno, &mut front);
    assert_eq!(plain_outcome(&front[..len], mode, header.offset, header.len), Err(errno));
}

fn split_reply(bytes: &[u8], mode: ReplyMode) -> (ReplyHeader, &[u8]) {
    match ReplyHeader::decode(bytes, mode) {
        Decoded::Header { header, consumed } => (header, &bytes[consumed..]),
        other => panic!("our own reply is {other:?}"),
    }
}

fn plain_outcome(bytes: &[u8], mode: ReplyMode, offset: u64, len: u64) -> Result<(), Errno> {
    let mut reply = PlainReply::new(offset, len);
    match split_reply(bytes, mode) {
        (ReplyHeader::Simple { result, .. }, _) => reply.accept_simple(result).expect("lawful"),
        (ReplyHeader::Chunk(chunk), inline) => drop(reply.accept(&chunk, inline).expect("lawful")),
    }
    reply.outcome().expect("a whole reply")
}

/// A server stream against the client role. Byte 0: what the client wants; byte 1: length of the pieces in
/// the second run; then the stream, beginning with the greeting. True when transmission was reached.
pub fn client(data: &[u8]) -> bool {
    let [wish, stride, stream @ ..] = data else { return false };
    let config = ClientConfig {
        structured: wish & 1 != 0,
        extended: wish & 2 != 0,
        base_allocation: wish & 4 != 0,
        list_contexts: (wish & 8 != 0).then(|| "x-holdfast:".into()),
        choose_export: wish & 16 != 0,
        ..ClientConfig::new("vol0")
    };
    let mut whole = ClientEnd::new(config.clone());
    whole.feed(stream);
    let mut pieces = ClientEnd::new(config);
    stream.chunks(usize::from(*stride).max(1)).for_each(|piece| pieces.feed(piece));
    assert_eq!((&pieces.end, &pieces.sent), (&whole.end, &whole.sent), "cut into {stride}");
    assert!(whole.sent.len() < 1024, "a client says little");
    let Some(Ok(negotiated)) = whole.end else { return false };
    assert!(i64::try_from(negotiated.size_bytes).is_ok());
    assert!(negotiated.block.is_valid() && negotiated.block.max_bytes <= nbd::limits::PAYLOAD_MAX_BYTES);
    assert_eq!(negotiated.block.max_bytes % negotiated.block.min_bytes, 0);
    assert!(negotiated.flags.contains(TransmissionFlags::HAS_FLAGS));
    assert!(negotiated.base_allocation_id.is_none() || negotiated.mode.has_chunks());
    Receiver::new(negotiated.mode, false).receive(&whole.unread);
    true
}

/// Replies to four requests, told apart by the two low bits of the cookie. Byte 0: dialect; byte 1: whether
/// DF and REQ_ONE were sent; then the stream. True when a request ended well.
pub fn replies(data: &[u8]) -> bool {
    let [dialect, flags, stream @ ..] = data else { return false };
    Receiver::new(MODES[usize::from(*dialect) % 3], flags & 1 != 0).receive(stream)
}

const READ_OFFSET: u64 = 1 << 20;
const READ_LEN: u32 = 4096;
const STATUS_LEN: u64 = 65536;
const CONTEXT_ID: u32 = 9;

/// The client role in transmission: four requests in flight, each asked again when it has ended.
struct Receiver {
    mode: ReplyMode,
    narrow: bool,
    read: ReadAssembly,
    model: ReadModel,
    status: StatusAssembly,
    plain: PlainReply,
    ended_well: bool,
}

impl Receiver {
    fn new(mode: ReplyMode, narrow: bool) -> Self {
        Self {
            mode,
            narrow,
            read: ReadAssembly::new(READ_OFFSET, READ_LEN, narrow),
            model: ReadModel::new(),
            status: StatusAssembly::new(READ_OFFSET, STATUS_LEN, narrow, CONTEXT_ID),
            plain: PlainReply::new(READ_OFFSET, 4096),
            ended_well: false,
        }
    }

    /// True when a request ended well before the stream ended or broke the protocol.
    fn receive(mut self, mut stream: &[u8]) -> bool {
        while let Decoded::Header { header, consumed } = ReplyHeader::decode(stream, self.mode) {
            match self.reply(header, &stream[consumed..]) {
                Some(rest) => stream = rest,
                None => break,
            }
        }
        self.ended_well
    }

    /// What is left of the stream; `None` when it ends or the connection must be closed.
    fn reply<'a>(&mut self, header: ReplyHeader, stream: &'a [u8]) -> Option<&'a [u8]> {
        match header {
            ReplyHeader::Simple { cookie, result } => self.simple(cookie, result, stream),
            ReplyHeader::Chunk(chunk) => {
                assert!(u64::from(chunk.len) <= 8 + u64::from(nbd::limits::PAYLOAD_MAX_BYTES));
                let (inline, rest) = stream.split_at_checked(chunk.inline_bytes() as usize)?;
                assert!(inline.len() as u64 <= nbd::limits::ERROR_CHUNK_MAX_BYTES);
                let (data, rest) = rest.split_at_checked(chunk.len as usize - inline.len())?;
                match chunk.cookie & 3 {
                    0 => self.read_chunk(&chunk, inline, data)?,
                    1 => self.status_chunk(&chunk, inline, data)?,
                    _ => {
                        self.plain.accept(&chunk, inline).ok()?;
                        self.plain_ended();
                    }
                }
                Some(rest)
            }
        }
    }

    fn simple<'a>(&mut self, cookie: u64, result: Result<(), Errno>, stream: &'a [u8]) -> Option<&'a [u8]> {
        let mut rest = stream;
        match cookie & 3 {
            0 => {
                if let ReadPiece::Data { len, .. } = self.read.accept_simple(self.mode, result).ok()? {
                    rest = stream.get(len as usize..)?;
                }
                self.read_ended();
            }
            1 => {
                self.status.accept_simple(result).ok()?;
                self.status_ended();
            }
            _ => {
                self.plain.accept_simple(result).ok()?;
                self.plain_ended();
            }
        }
        Some(rest)
    }

    fn read_chunk(&mut self, chunk: &ChunkHeader, inline: &[u8], data: &[u8]) -> Option<()> {
        let expected = self.model.expects(chunk, inline, self.narrow);
        match self.read.accept(chunk, inline) {
            Ok(piece) => {
                assert!(expected, "the model refuses {chunk:?} {inline:?}");
                if let ReadPiece::Data { at, len } = piece {
                    assert_eq!(data.len(), len as usize);
                    assert!(at.checked_add(len).is_some_and(|end| end <= READ_LEN));
                }
            }
            Err(ReplyViolation::TooManyPieces | ReplyViolation::TooManyErrors) => return None,
            Err(why) => {
                assert!(!expected, "the model takes {chunk:?} {inline:?}: {why}");
                assert!(matches!(self.read.outcome(), Some(Err(_))), "a violation is never a success");
                return None;
            }
        }
        self.read_ended();
        Some(())
    }

    fn read_ended(&mut self) {
        if let Some(outcome) = self.read.outcome() {
            self.ended_well |= outcome.is_ok();
            self.read = ReadAssembly::new(READ_OFFSET, READ_LEN, self.narrow);
            self.model = ReadModel::new();
        }
    }

    fn status_chunk(&mut self, chunk: &ChunkHeader, inline: &[u8], data: &[u8]) -> Option<()> {
        self.status.accept(chunk, inline).ok()?;
        assert_eq!(self.status.left_bytes() as usize, data.len());
        for piece in data.chunks(7) {
            if self.status.feed(piece).is_err() {
                assert!(matches!(self.status.outcome(), None | Some(Err(_))));
                return None;
            }
        }
        self.status_ended();
        Some(())
    }

    fn status_ended(&mut self) {
        let Some(outcome) = self.status.outcome() else { return };
        if let Ok(extents) = outcome {
            let described: u64 = extents.iter().map(|extent| extent.len).sum();
            assert!((1..=STATUS_LEN).contains(&described));
            assert!(!self.narrow || extents.len() == 1);
            self.ended_well = true;
        }
        self.status = StatusAssembly::new(READ_OFFSET, STATUS_LEN, self.narrow, CONTEXT_ID);
    }

    fn plain_ended(&mut self) {
        if let Some(outcome) = self.plain.outcome() {
            self.ended_well |= outcome.is_ok();
            self.plain = PlainReply::new(READ_OFFSET, 4096);
        }
    }
}

/// The rules of a READ in chunks, spelled out byte by byte.
struct ReadModel {
    covered: Vec<bool>,
    failed_at: Vec<bool>,
    failed: bool,
    contents: u32,
}

impl ReadModel {
    fn new() -> Self {
        let nothing = vec![false; READ_LEN as usize];
        Self { covered: nothing.clone(), failed_at: nothing, failed: false, contents: 0 }
    }

    /// Whether a client must take this chunk; remembers it if so.
    fn expects(&mut self, chunk: &ChunkHeader, inline: &[u8], dont_fragment: bool) -> bool {
        let word =
            |at: usize| inline.get(at..at + 8).map(|bytes| u64::from_be_bytes(bytes.try_into().unwrap()));
        let lawful = chunk.offset.is_none_or(|offset| offset == READ_OFFSET)
            && match chunk.kind {
                ChunkType::None => true,
                ChunkType::OffsetData => self.content(word(0), u64::from(chunk.len) - 8, dont_fragment),
                ChunkType::OffsetHole => {
                    let len = u32::from_be_bytes(inline[8..12].try_into().unwrap());
                    len > 0 && self.content(word(0), u64::from(len), dont_fragment)
                }
                ChunkType::BlockStatus | ChunkType::BlockStatusExt => false,
                kind => self.error(kind, inline),
            };
        lawful && (!chunk.done || self.failed || self.covered.iter().all(|covered| *covered))
    }

    fn content(&mut self, offset: Option<u64>, len: u64, dont_fragment: bool) -> bool {
        let Some(at) = offset.and_then(|offset| offset.checked_sub(READ_OFFSET)) else { return false };
        let Some(end) = at.checked_add(len).filter(|end| *end <= u64::from(READ_LEN)) else { return false };
        let range = at as usize..end as usize;
        let touched =
            self.covered[range.clone()].iter().chain(&self.failed_at[range.clone()]).any(|byte| *byte);
        self.contents += 1;
        self.covered[range].fill(true);
        !touched && (!dont_fragment || self.contents == 1)
    }

    fn error(&mut self, kind: ChunkType, inline: &[u8]) -> bool {
        let error = u32::from_be_bytes(inline[..4].try_into().unwrap());
        let text_bytes = usize::from(u16::from_be_bytes(inline[4..6].try_into().unwrap()));
        let known = !matches!(kind, ChunkType::UnknownError(_));
        self.failed = true;
        if text_bytes > 4096 || 6 + text_bytes > inline.len() || (known && error == 0) {
            return false;
        }
        if kind != ChunkType::ErrorOffset {
            return true;
        }
        let offset = inline.get(6 + text_bytes..6 + text_bytes + 8);
        let offset = offset.map(|bytes| u64::from_be_bytes(bytes.try_into().unwrap()));
        match offset.and_then(|offset| offset.checked_sub(READ_OFFSET)) {
            Some(at) if at < u64::from(READ_LEN) => {
                self.failed_at[at as usize] = true;
                true
            }
            _ => false,
        }
    }
}

/// Both roles against one another. Byte 0: what the client wants; byte 1: what the server offers; then the
/// lengths of the pieces, over and over. True when both reached transmission.
pub fn pair(data: &[u8]) -> bool {
    let [wish, offer, lengths @ ..] = data else { return false };
    let config = ClientConfig {
        structured: wish & 1 != 0,
        extended: wish & 2 != 0,
        base_allocation: wish & 4 != 0,
        list_contexts: (wish & 8 != 0).then(|| "x-holdfast:".into()),
        choose_export: wish & 16 != 0,
        ..ClientConfig::new(if wish & 16 != 0 { "nowhere" } else { "vol0" })
    };
    let server_config =
        ServerConfig { structured: offer & 1 != 0, extended: offer & 2 != 0, tls: TlsMode::Off };
    let mut client = ClientEnd::new(config);
    let mut server = ServerEnd::new(server_config, exports());
    let mut lengths =
        lengths.iter().map(|byte| usize::from(*byte).max(1)).collect::<Vec<_>>().into_iter().cycle();
    let (mut to_client, mut to_server) = (0, 0);
    while to_client < server.sent.len() || to_server < client.sent.len() {
        let piece = lengths.next().unwrap_or(usize::MAX).min(server.sent.len() - to_client);
        client.feed(&server.sent[to_client..to_client + piece]);
        to_client += piece;
        let piece = lengths.next().unwrap_or(usize::MAX).min(client.sent.len() - to_server);
        server.feed(&client.sent[to_server..to_server + piece]);
        to_server += piece;
    }
    let client_end = client.end.expect("nothing is left to say");
    let server_end = server.end.expect("nothing is left to say");
    assert_eq!(client_end.is_ok(), server_end.is_ok());
    let (Ok(negotiated), Ok(session)) = (client_end, server_end) else { return false };
    assert_eq!((negotiated.mode, negotiated.flags), (session.mode, session.export.flags));
    assert_eq!(negotiated.base_allocation_id.is_some(), session.contexts.base_allocation);
    true
}

/// A URI. True when it is lawful.
pub fn uri(data: &[u8]) -> bool {
    let Ok(text) = str::from_utf8(data) else { return false };
    match Uri::parse(text) {
        Ok(uri) => {
            let written = uri.to_string();
            assert_eq!(Uri::parse(&written).as_ref(), Ok(&uri), "{text} was written as {written}");
            true
        }
        Err(why) => {
            assert!(why.position <= text.len(), "{text}: {why}");
            false
        }
    }
}

/// An export name, a context name or a description, as a peer may send them around a gate. True when it is a
/// lawful claim, identity or admission; each has one text only.
pub fn gate(data: &[u8]) -> bool {
    let Ok(text) = str::from_utf8(data) else { return false };
    let mut lawful = false;
    if let Ok(SignedClaim { claim, mac }) = SignedClaim::parse(text) {
        assert_eq!(claim.to_name(mac.as_ref()), text);
        assert!(claim.epoch > 0 && claim.session != 0 && claim.kill != Some(claim.session));
        assert!(is_valid_member(&claim.member) && !claim.volume.is_empty());
        lawful = true;
    }
    if let Ok(identity) = Identity::parse(text) {
        let written = identity.to_string();
        assert!(text.starts_with(&written), "{text} was written as {written}");
        assert_eq!(Identity::parse(&written), Ok(identity));
        lawful = true;
    }
    if let Some((admission, mac)) = Admission::parse(text) {
        assert_eq!(admission.to_text(mac.as_ref()), text);
        lawful = true;
    }
    lawful
}

fn exports() -> Vec<ExportInfo> {
    let everything = ExportInfo {
        description: "a volume".into(),
        flags: TransmissionFlags(0b1101_1111_1101),
        base_allocation: true,
        contexts: vec!["x-holdfast:id=7".into()],
        ..ExportInfo::new("vol0", 1 << 30)
    };
    vec![everything, ExportInfo::new("vol1", 4096)]
}
