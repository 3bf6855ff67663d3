// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bytes of the wire, and machines at the point where a test begins.

use nbd::client::ClientConfig;
use nbd::server::{ExportInfo, ServerConfig};
use nbd::{BlockSizes, TransmissionFlags};

use crate::driver::{ClientEnd, ServerEnd};

pub(crate) const EXPORT_NAME: u32 = 1;
pub(crate) const ABORT: u32 = 2;
pub(crate) const LIST: u32 = 3;
pub(crate) const STARTTLS: u32 = 5;
pub(crate) const INFO: u32 = 6;
pub(crate) const GO: u32 = 7;
pub(crate) const STRUCTURED_REPLY: u32 = 8;
pub(crate) const LIST_META: u32 = 9;
pub(crate) const SET_META: u32 = 10;
pub(crate) const EXTENDED_HEADERS: u32 = 11;

pub(crate) const ACK: u32 = 1;
pub(crate) const SERVER: u32 = 2;
pub(crate) const REP_INFO: u32 = 3;
pub(crate) const META_CONTEXT: u32 = 4;
pub(crate) const ERR_UNSUP: u32 = 0x8000_0001;
pub(crate) const ERR_POLICY: u32 = 0x8000_0002;
pub(crate) const ERR_INVALID: u32 = 0x8000_0003;
pub(crate) const ERR_TLS_REQD: u32 = 0x8000_0005;
pub(crate) const ERR_UNKNOWN: u32 = 0x8000_0006;
pub(crate) const ERR_SHUTDOWN: u32 = 0x8000_0007;
pub(crate) const ERR_TOO_BIG: u32 = 0x8000_0009;
pub(crate) const ERR_EXT_HEADER_REQD: u32 = 0x8000_000a;

/// Bytes of the wire, written field by field.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wire(pub(crate) Vec<u8>);

impl Wire {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn u16(mut self, value: u16) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    pub(crate) fn u32(mut self, value: u32) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    pub(crate) fn u64(mut self, value: u64) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    pub(crate) fn raw(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.0.extend(bytes.as_ref());
        self
    }

    /// A 32-bit length and the text.
    pub(crate) fn text(self, text: &str) -> Self {
        self.u32(text.len() as u32).raw(text)
    }
}

pub(crate) fn greeting() -> Vec<u8> {
    Wire::new().raw(b"NBDMAGICIHAVEOPT").u16(3).0
}

pub(crate) fn client_flags(flags: u32) -> Vec<u8> {
    Wire::new().u32(flags).0
}

pub(crate) fn option(code: u32, data: impl AsRef<[u8]>) -> Vec<u8> {
    let data = data.as_ref();
    Wire::new().raw(b"IHAVEOPT").u32(code).u32(data.len() as u32).raw(data).0
}

pub(crate) fn option_reply(code: u32, kind: u32, data: impl AsRef<[u8]>) -> Vec<u8> {
    let data = data.as_ref();
    Wire::new().u64(0x0003_e889_0455_65a9).u32(code).u32(kind).u32(data.len() as u32).raw(data).0
}

/// Payload of INFO and GO.
pub(crate) fn describe(name: &str, infos: &[u16]) -> Vec<u8> {
    let start = Wire::new().text(name).u16(infos.len() as u16);
    infos.iter().fold(start, |data, info| data.u16(*info)).0
}

/// Payload of LIST_META_CONTEXT and SET_META_CONTEXT.
pub(crate) fn contexts(name: &str, queries: &[&str]) -> Vec<u8> {
    let start = Wire::new().text(name).u32(queries.len() as u32);
    queries.iter().fold(start, |data, query| data.text(query)).0
}

pub(crate) fn all_flags() -> TransmissionFlags {
    TransmissionFlags(0b1101_1111_1101)
}

/// Everything an export can have, named `vol0`.
pub(crate) fn export() -> ExportInfo {
    ExportInfo {
        description: "test volume".into(),
        flags: all_flags(),
        block: BlockSizes { min_bytes: 1, preferred_bytes: 4096, max_bytes: 32 << 20 },
        base_allocation: true,
        contexts: vec!["x-holdfast:id=7".into(), "x-holdfast:epoch".into()],
        ..ExportInfo::new("vol0", 1 << 30)
    }
}

/// A server that has sent its greeting and received nothing.
pub(crate) fn fresh_server() -> ServerEnd {
    ServerEnd::new(ServerConfig::default(), vec![export(), ExportInfo::new("vol1", 4096)])
}

/// A server behind the client flags, its output empty.
pub(crate) fn server_with(config: ServerConfig) -> ServerEnd {
    let mut server = ServerEnd::new(config, vec![export(), ExportInfo::new("vol1", 4096)]);
    server.feed(&client_flags(3));
    server.sent.clear();
    server
}

pub(crate) fn server() -> ServerEnd {
    server_with(ServerConfig::default())
}

/// What the server answers to one option.
pub(crate) fn ask(server: &mut ServerEnd, code: u32, data: impl AsRef<[u8]>) -> Vec<u8> {
    server.sent.clear();
    server.feed(&option(code, data));
    std::mem::take(&mut server.sent)
}

/// Option replies taken apart.
pub(crate) fn replies(mut bytes: &[u8]) -> Vec<(u32, u32, Vec<u8>)> {
    let mut replies = Vec::new();
    while !bytes.is_empty() {
        let word = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
        assert_eq!(&bytes[..8], 0x0003_e889_0455_65a9_u64.to_be_bytes(), "reply magic");
        let len = word(16) as usize;
        replies.push((word(8), word(12), bytes[20..20 + len].to_vec()));
        bytes = &bytes[20 + len..];
    }
    replies
}

/// The types of the replies to one option, in order.
pub(crate) fn kinds(bytes: &[u8]) -> Vec<u32> {
    replies(bytes).into_iter().map(|(_, kind, _)| kind).collect()
}

/// The one error reply, its text checked for the limits of the protocol.
pub(crate) fn error_of(bytes: &[u8]) -> u32 {
    let replies = replies(bytes);
    assert_eq!(replies.len(), 1, "an error is the only reply: {replies:?}");
    let (_, kind, text) = &replies[0];
    assert!(text.len() <= 4096 && !text.is_empty(), "error text of {} bytes", text.len());
    assert!(!text.contains(&0) && str::from_utf8(text).is_ok());
    *kind
}

/// A client that wants everything and has received nothing.
pub(crate) fn fresh_client() -> ClientEnd {
    ClientEnd::new(ClientConfig::new("vol0"))
}

/// A client that asks for nothing but the export, behind the greeting, its output empty.
pub(crate) fn plain_client() -> ClientEnd {
    let config = ClientConfig {
        structured: false,
        extended: false,
        base_allocation: false,
        ..ClientConfig::new("vol0")
    };
    let mut client = ClientEnd::new(config);
    client.feed(&greeting());
    client.sent.clear();
    client
}

/// INFO_EXPORT as a reply to GO.
pub(crate) fn info_export(size_bytes: u64, flags: u16) -> Vec<u8> {
    option_reply(GO, REP_INFO, Wire::new().u16(0).u64(size_bytes).u16(flags).0)
}
