// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a client can do in the handshake that leaves no way but to close.
//!
//! The list is short on purpose: everything that can be answered with an error reply is, and the handshake
//! goes on.

use core::fmt;

use crate::limits::{OPTION_MAX_BYTES, OPTIONS_MAX};
use crate::option::OptionCode;

/// The client broke the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HandshakeError {
    /// Client flags other than the two we offered ("the server MUST close the connection").
    ClientFlags(u32),
    /// An option did not begin with its magic number.
    OptionMagic(u64),
    /// An option longer than [`OPTION_MAX_BYTES`].
    OptionTooLong {
        /// The option.
        option: OptionCode,
        /// Its length on the wire, in bytes.
        len_bytes: u32,
    },
    /// More than [`OPTIONS_MAX`] options.
    TooManyOptions,
    /// EXPORT_NAME with a name that is no name (length, NUL, not UTF-8); it knows no error reply.
    ExportNameMalformed,
    /// EXPORT_NAME after extended headers were agreed.
    ExportNameAfterExtendedHeaders,
    /// EXPORT_NAME before TLS where TLS is required.
    ExportNameWithoutTls,
    /// Bytes behind STARTTLS that were sent before TLS began: an injection (CVE-2021-3716).
    PlaintextBehindStartTls,
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClientFlags(got) => write!(f, "unknown client flags {got:#010x}"),
            Self::OptionMagic(got) => write!(f, "bad option magic {got:#018x}"),
            Self::OptionTooLong { option, len_bytes } => {
                write!(f, "{option} with {len_bytes} bytes of data, at most {OPTION_MAX_BYTES} are allowed")
            }
            Self::TooManyOptions => write!(f, "more than {OPTIONS_MAX} options"),
            Self::ExportNameMalformed => f.write_str("EXPORT_NAME with a malformed name"),
            Self::ExportNameAfterExtendedHeaders => f.write_str("EXPORT_NAME after EXTENDED_HEADERS"),
            Self::ExportNameWithoutTls => f.write_str("EXPORT_NAME without TLS, which is required"),
            Self::PlaintextBehindStartTls => f.write_str("unencrypted bytes behind STARTTLS"),
        }
    }
}

impl core::error::Error for HandshakeError {}
