// SPDX-License-Identifier: MIT OR Apache-2.0
//! Codes of option haggling: options, replies, error replies, information items.

use core::fmt;

/// An option of the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OptionCode(pub u32);

impl OptionCode {
    /// Choose an export, no error possible.
    pub const EXPORT_NAME: Self = Self(1);
    /// End the session.
    pub const ABORT: Self = Self(2);
    /// Name the exports.
    pub const LIST: Self = Self(3);
    /// Begin TLS.
    pub const STARTTLS: Self = Self(5);
    /// Describe an export.
    pub const INFO: Self = Self(6);
    /// Choose an export.
    pub const GO: Self = Self(7);
    /// Use structured replies.
    pub const STRUCTURED_REPLY: Self = Self(8);
    /// Name metadata contexts.
    pub const LIST_META_CONTEXT: Self = Self(9);
    /// Select metadata contexts.
    pub const SET_META_CONTEXT: Self = Self(10);
    /// Use extended headers.
    pub const EXTENDED_HEADERS: Self = Self(11);

    /// Name in the protocol document; `None` for options we do not know.
    pub const fn name(self) -> Option<&'static str> {
        Some(match self.0 {
            1 => "EXPORT_NAME",
            2 => "ABORT",
            3 => "LIST",
            5 => "STARTTLS",
            6 => "INFO",
            7 => "GO",
            8 => "STRUCTURED_REPLY",
            9 => "LIST_META_CONTEXT",
            10 => "SET_META_CONTEXT",
            11 => "EXTENDED_HEADERS",
            _ => return None,
        })
    }
}

impl fmt::Display for OptionCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "option {}", self.0),
        }
    }
}

/// Final reply of success.
pub(crate) const REP_ACK: u32 = 1;
/// One export of a LIST.
pub(crate) const REP_SERVER: u32 = 2;
/// One information item of INFO or GO.
pub(crate) const REP_INFO: u32 = 3;
/// One metadata context.
pub(crate) const REP_META_CONTEXT: u32 = 4;
/// Set in every error reply.
pub(crate) const REP_ERROR_BIT: u32 = 1 << 31;

/// Size and transmission flags; mandatory before ACK.
pub(crate) const INFO_EXPORT: u16 = 0;
/// Canonical name.
pub(crate) const INFO_NAME: u16 = 1;
/// Text for people.
pub(crate) const INFO_DESCRIPTION: u16 = 2;
/// Size constraints.
pub(crate) const INFO_BLOCK_SIZE: u16 = 3;

/// The one context of the `base:` namespace.
pub(crate) const BASE_ALLOCATION: &str = "base:allocation";

/// An error reply to an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OptionError {
    /// The option is unknown.
    Unsupported,
    /// Known and well formed, but forbidden.
    Policy,
    /// Malformed.
    Invalid,
    /// Not on this platform.
    Platform,
    /// TLS first.
    TlsRequired,
    /// No such export.
    Unknown,
    /// The server is going away.
    Shutdown,
    /// The client must ask for size constraints.
    BlockSizeRequired,
    /// Request or answer too large.
    TooBig,
    /// Extended headers first.
    ExtendedHeadersRequired,
    /// A code we do not know; bit 31 is left out.
    Other(u32),
}

impl OptionError {
    /// Reply type on the wire, with bit 31 set.
    pub const fn to_wire(self) -> u32 {
        let code = match self {
            Self::Unsupported => 1,
            Self::Policy => 2,
            Self::Invalid => 3,
            Self::Platform => 4,
            Self::TlsRequired => 5,
            Self::Unknown => 6,
            Self::Shutdown => 7,
            Self::BlockSizeRequired => 8,
            Self::TooBig => 9,
            Self::ExtendedHeadersRequired => 10,
            Self::Other(code) => code,
        };
        REP_ERROR_BIT | code
    }

    /// From a reply type; `None` when bit 31 is clear, which is no error.
    pub const fn from_wire(reply: u32) -> Option<Self> {
        if reply & REP_ERROR_BIT == 0 {
            return None;
        }
        Some(match reply & !REP_ERROR_BIT {
            1 => Self::Unsupported,
            2 => Self::Policy,
            3 => Self::Invalid,
            4 => Self::Platform,
            5 => Self::TlsRequired,
            6 => Self::Unknown,
            7 => Self::Shutdown,
            8 => Self::BlockSizeRequired,
            9 => Self::TooBig,
            10 => Self::ExtendedHeadersRequired,
            code => Self::Other(code),
        })
    }
}

impl fmt::Display for OptionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unsupported => "option not supported",
            Self::Policy => "forbidden by the server's policy",
            Self::Invalid => "option invalid",
            Self::Platform => "not supported on the server's platform",
            Self::TlsRequired => "TLS required",
            Self::Unknown => "unknown export",
            Self::Shutdown => "server is shutting down",
            Self::BlockSizeRequired => "size constraints must be requested",
            Self::TooBig => "request or answer too big",
            Self::ExtendedHeadersRequired => "extended headers required",
            Self::Other(code) => return write!(f, "error reply {code}"),
        })
    }
}
