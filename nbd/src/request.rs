// SPDX-License-Identifier: MIT OR Apache-2.0
//! Request headers, both roles: 28 bytes compact, 32 bytes extended.
//!
//! A header is decoded without judging it: whether the command exists, fits the export and may carry its
//! flags is [`crate::server::check_request`]'s question. Only the magic number is checked here, because
//! behind a wrong one nothing can be found again. Decoding is a fixed-size array read with no allocation; it
//! runs once per request of every host.

use crate::command::{Command, CommandFlags};
use crate::decoded::{Decoded, WireViolation};
use crate::mode::ReplyMode;
use crate::wire::{EXTENDED_REQUEST_MAGIC, REQUEST_MAGIC};

/// Longest request header, in bytes.
pub const REQUEST_HEADER_MAX: usize = 32;

const COMPACT_BYTES: usize = 28;
const EXTENDED_BYTES: usize = 32;

/// One request as it came from the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestHeader {
    /// All flag bits, known or not.
    pub flags: CommandFlags,
    /// Request type, known or not (see [`Command::from_wire`]).
    pub command: u16,
    /// The client's own mark, sent back unchanged and never used as a key: clients repeat cookies.
    pub cookie: u64,
    /// First byte of the range.
    pub offset: u64,
    /// Length of the range, or of the payload; 32 bits unless headers are extended.
    pub len: u64,
}

/// Big-endian word at a fixed place of a header. The range is inside the array for every call below, which
/// the compiler sees.
macro_rules! word {
    ($t:ty, $bytes:expr, $at:expr) => {{
        const N: usize = size_of::<$t>();
        let mut word = [0u8; N];
        word.copy_from_slice(&$bytes[$at..$at + N]);
        <$t>::from_be_bytes(word)
    }};
}
pub(crate) use word;

impl RequestHeader {
    /// Decodes a header from the front of `input`; `extended` when extended headers were agreed. A wrong
    /// magic number is reported as soon as its four bytes are there.
    #[inline]
    pub fn decode(input: &[u8], extended: bool) -> Decoded<Self> {
        if extended {
            let Some(bytes) = input.first_chunk::<EXTENDED_BYTES>() else {
                return Self::too_short(input, EXTENDED_REQUEST_MAGIC);
            };
            let len = word!(u64, bytes, 24);
            return Self::fixed(bytes, EXTENDED_REQUEST_MAGIC, len, EXTENDED_BYTES);
        }
        let Some(bytes) = input.first_chunk::<COMPACT_BYTES>() else {
            return Self::too_short(input, REQUEST_MAGIC);
        };
        let len = u64::from(word!(u32, bytes, 24));
        Self::fixed(bytes, REQUEST_MAGIC, len, COMPACT_BYTES)
    }

    #[inline]
    fn fixed<const N: usize>(bytes: &[u8; N], magic: u32, len: u64, consumed: usize) -> Decoded<Self> {
        let got = word!(u32, bytes, 0);
        if got != magic {
            return Decoded::Violation(WireViolation::RequestMagic(got));
        }
        let header = Self {
            flags: CommandFlags(word!(u16, bytes, 4)),
            command: word!(u16, bytes, 6),
            cookie: word!(u64, bytes, 8),
            offset: word!(u64, bytes, 16),
            len,
        };
        Decoded::Header { header, consumed }
    }

    #[cold]
    fn too_short(input: &[u8], magic: u32) -> Decoded<Self> {
        match input.first_chunk::<4>() {
            Some(bytes) if u32::from_be_bytes(*bytes) != magic => {
                Decoded::Violation(WireViolation::RequestMagic(u32::from_be_bytes(*bytes)))
            }
            _ => Decoded::NeedMore,
        }
    }
}

/// Writes a request header to the front of `out` and returns its length: 28, or 32 with extended headers,
/// where a WRITE gets its PAYLOAD_LEN flag here. The payload of a WRITE follows it on the wire.
///
/// # Panics
///
/// When `len` does not fit the 32 bits of a compact header: the caller splits requests to the peer's limits.
#[inline]
pub fn encode_request(
    mode: ReplyMode,
    command: Command,
    flags: CommandFlags,
    cookie: u64,
    offset: u64,
    len: u64,
    out: &mut [u8; REQUEST_HEADER_MAX],
) -> usize {
    let extended = mode.is_extended();
    let (magic, flags) = match (extended, command) {
        (true, Command::Write) => (EXTENDED_REQUEST_MAGIC, flags.with(CommandFlags::PAYLOAD_LEN)),
        (true, _) => (EXTENDED_REQUEST_MAGIC, flags),
        (false, _) => (REQUEST_MAGIC, flags),
    };
    out[0..4].copy_from_slice(&magic.to_be_bytes());
    out[4..6].copy_from_slice(&flags.0.to_be_bytes());
    out[6..8].copy_from_slice(&(command as u16).to_be_bytes());
    out[8..16].copy_from_slice(&cookie.to_be_bytes());
    out[16..24].copy_from_slice(&offset.to_be_bytes());
    if extended {
        out[24..32].copy_from_slice(&len.to_be_bytes());
        return EXTENDED_BYTES;
    }
    let Ok(compact_len) = u32::try_from(len) else {
        panic!("compact request of {len} bytes");
    };
    out[24..28].copy_from_slice(&compact_len.to_be_bytes());
    COMPACT_BYTES
}

/// Writes the request that ends a connection cleanly: every field but the magic and the command is zero, and
/// nothing may be sent after it.
pub fn encode_disconnect(mode: ReplyMode, out: &mut [u8; REQUEST_HEADER_MAX]) -> usize {
    encode_request(mode, Command::Disconnect, CommandFlags::empty(), 0, 0, 0, out)
}
