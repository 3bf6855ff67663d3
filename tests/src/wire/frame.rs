// SPDX-License-Identifier: MIT OR Apache-2.0
//! Frames as bytes, in both directions; any field may hold nonsense.

use super::{OPTION_MAGIC, OPTION_REPLY_MAGIC, REQUEST_MAGIC};

/// A 28-byte request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Command flags.
    pub flags: u16,
    /// Command.
    pub command: u16,
    /// Comes back in the reply.
    pub cookie: u64,
    /// Byte offset.
    pub offset: u64,
    /// Length in bytes.
    pub len: u32,
}

impl Request {
    /// Bytes on the wire.
    pub const SIZE: usize = 28;

    /// A request without flags.
    pub fn new(command: u16, cookie: u64, offset: u64, len: u32) -> Self {
        Self { flags: 0, command, cookie, offset, len }
    }

    /// As bytes.
    pub fn encode(&self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        bytes[0..4].copy_from_slice(&REQUEST_MAGIC.to_be_bytes());
        bytes[4..6].copy_from_slice(&self.flags.to_be_bytes());
        bytes[6..8].copy_from_slice(&self.command.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.cookie.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.offset.to_be_bytes());
        bytes[24..28].copy_from_slice(&self.len.to_be_bytes());
        bytes
    }

    /// From bytes; `None` if the magic is wrong.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        (u32_at(bytes, 0) == REQUEST_MAGIC).then(|| Self {
            flags: u16_at(bytes, 4),
            command: u16_at(bytes, 6),
            cookie: u64_at(bytes, 8),
            offset: u64_at(bytes, 16),
            len: u32_at(bytes, 24),
        })
    }
}

/// One option as bytes.
pub fn option_frame(option: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = OPTION_MAGIC.to_be_bytes().to_vec();
    bytes.extend_from_slice(&option.to_be_bytes());
    bytes.extend_from_slice(&u32::try_from(payload.len()).expect("test options are small").to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// Payload of GO and INFO that asks for no particular information.
pub fn go_payload(export: &str) -> Vec<u8> {
    let mut bytes = u32::try_from(export.len()).expect("test names are short").to_be_bytes().to_vec();
    bytes.extend_from_slice(export.as_bytes());
    bytes.extend_from_slice(&[0, 0]);
    bytes
}

/// One option reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OptionReply {
    /// Option it answers.
    pub option: u32,
    /// Kind of reply.
    pub kind: u32,
    /// Its data; text where `kind` is an error.
    pub data: Vec<u8>,
}

impl OptionReply {
    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = OPTION_REPLY_MAGIC.to_be_bytes().to_vec();
        bytes.extend_from_slice(&self.option.to_be_bytes());
        bytes.extend_from_slice(&self.kind.to_be_bytes());
        let len = u32::try_from(self.data.len()).expect("test replies are small");
        bytes.extend_from_slice(&len.to_be_bytes());
        bytes.extend_from_slice(&self.data);
        bytes
    }

    /// Its data as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.data).into_owned()
    }
}

/// Big-endian 16 bits.
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes(bytes[at..at + 2].try_into().expect("two bytes"))
}

/// Big-endian 32 bits.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

/// Big-endian 64 bits.
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
