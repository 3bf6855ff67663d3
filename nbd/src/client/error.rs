// SPDX-License-Identifier: MIT OR Apache-2.0
//! Why a handshake with a storage server failed.

use alloc::string::String;
use core::fmt;

use crate::limits::{HANDSHAKE_MAX_BYTES, OPTION_REPLIES_MAX, OPTION_REPLY_MAX_BYTES};
use crate::option::{OptionCode, OptionError};

/// The handshake failed. Texts of the server are printable and cut to
/// [`PEER_TEXT_MAX_BYTES`](crate::limits::PEER_TEXT_MAX_BYTES).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HandshakeError {
    /// The first word is not that of an NBD server.
    NotNbd(u64),
    /// An NBD server of the oldstyle kind, which has no names and no errors.
    Oldstyle,
    /// An NBD server of a kind we do not know.
    UnknownStyle(u64),
    /// The server refused.
    Refused {
        /// The option it refused.
        option: OptionCode,
        /// Its reason.
        error: OptionError,
        /// Its words, perhaps none.
        text: String,
    },
    /// TLS is required by us, and the server cannot do it.
    TlsRefused {
        /// Its words, perhaps none.
        text: String,
    },
    /// Bytes behind the answer to STARTTLS that were sent before TLS began.
    PlaintextBehindStartTls,
    /// An option reply did not begin with its magic number.
    ReplyMagic(u64),
    /// A reply to another option than the one asked.
    ReplyToOther {
        /// The option asked.
        asked: OptionCode,
        /// The option of the reply.
        got: OptionCode,
    },
    /// A reply that the option does not have.
    UnexpectedReply {
        /// The option asked.
        option: OptionCode,
        /// Type on the wire.
        kind: u32,
    },
    /// A reply whose payload does not fit its type.
    MalformedReply {
        /// The option asked.
        option: OptionCode,
        /// What is wrong.
        what: &'static str,
    },
    /// A reply longer than [`OPTION_REPLY_MAX_BYTES`].
    ReplyTooLong {
        /// The option asked.
        option: OptionCode,
        /// Length on the wire, in bytes.
        len_bytes: u32,
    },
    /// More than [`OPTION_REPLIES_MAX`] replies or [`HANDSHAKE_MAX_BYTES`] of them.
    Flood,
    /// GO succeeded without telling size and flags.
    NoExportInfo,
    /// A size above 2^63 - 1.
    SizeTooLarge(u64),
    /// Transmission flags without HAS_FLAGS.
    NoFlags(u16),
    /// Block sizes that cannot be obeyed.
    BlockSizes {
        /// Minimum, in bytes.
        min_bytes: u32,
        /// Preferred, in bytes.
        preferred_bytes: u32,
        /// Maximum payload, in bytes.
        max_bytes: u32,
    },
}

impl HandshakeError {
    /// The server broke the protocol; else it merely said no.
    pub fn is_violation(&self) -> bool {
        !matches!(self, Self::Refused { .. } | Self::TlsRefused { .. } | Self::Oldstyle)
    }
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotNbd(got) => write!(f, "not an NBD server (first word {got:#018x})"),
            Self::Oldstyle => f.write_str("an oldstyle NBD server, which is not supported"),
            Self::UnknownStyle(got) => write!(f, "an NBD server of an unknown style {got:#018x}"),
            Self::Refused { option, error, text } if text.is_empty() => {
                write!(f, "{option} refused: {error}")
            }
            Self::Refused { option, error, text } => write!(f, "{option} refused: {error}: {text}"),
            Self::TlsRefused { text } if text.is_empty() => f.write_str("the server has no TLS"),
            Self::TlsRefused { text } => write!(f, "the server has no TLS: {text}"),
            Self::PlaintextBehindStartTls => f.write_str("unencrypted bytes behind the answer to STARTTLS"),
            Self::ReplyMagic(got) => write!(f, "bad option reply magic {got:#018x}"),
            Self::ReplyToOther { asked, got } => write!(f, "reply to {got}, but {asked} was asked"),
            Self::UnexpectedReply { option, kind } => write!(f, "reply of type {kind:#x} to {option}"),
            Self::MalformedReply { option, what } => write!(f, "malformed reply to {option}: {what}"),
            Self::ReplyTooLong { option, len_bytes } => {
                write!(f, "reply of {len_bytes} bytes to {option}, at most {OPTION_REPLY_MAX_BYTES} are read")
            }
            Self::Flood => write!(
                f,
                "more than {OPTION_REPLIES_MAX} option replies or {HANDSHAKE_MAX_BYTES} bytes of them"
            ),
            Self::NoExportInfo => f.write_str("GO succeeded without size and flags"),
            Self::SizeTooLarge(size_bytes) => write!(f, "export of {size_bytes} bytes, above 2^63 - 1"),
            Self::NoFlags(flags) => write!(f, "transmission flags {flags:#06x} without HAS_FLAGS"),
            Self::BlockSizes { min_bytes, preferred_bytes, max_bytes } => write!(
                f,
                "senseless block sizes: minimum {min_bytes}, preferred {preferred_bytes}, maximum {max_bytes}"
            ),
        }
    }
}

impl core::error::Error for HandshakeError {}
