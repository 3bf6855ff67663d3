// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is wrong with a URI, where, and what would be right.

use core::fmt;

/// A URI that is not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UriError {
    /// Byte of the URI at which it goes wrong, from 0; its length where something is missing at the end.
    pub position: usize,
    /// What is wrong.
    pub problem: UriProblem,
}

/// What is wrong with a URI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UriProblem {
    /// No scheme and `://`.
    NoScheme,
    /// A scheme we do not know.
    Scheme,
    /// A character that URIs cannot have.
    Character,
    /// `%` without two hexadecimal digits.
    Percent,
    /// A NUL.
    Nul,
    /// An export name that is not UTF-8.
    NotUtf8,
    /// An export name above 4096 bytes.
    ExportTooLong,
    /// A user name.
    UserInfo,
    /// No host.
    NoHost,
    /// Neither a name nor an address.
    Host,
    /// Not a port.
    Port,
    /// A host where there can be none.
    Authority,
    /// A fragment.
    Fragment,
    /// No `socket` parameter.
    NoSocket,
    /// A `socket` parameter over TCP.
    SocketOverTcp,
    /// A socket path that is empty or too long.
    SocketPath,
    /// A parameter we do not know.
    Parameter,
    /// A parameter without a value.
    NoValue,
    /// A parameter that is given twice.
    Repeated,
    /// A TLS parameter without TLS.
    TlsParameter,
    /// A kind of TLS that is not supported.
    TlsType,
    /// `tls-verify-peer` that is neither 0 nor 1.
    TlsVerifyPeer,
    /// An empty or malformed `tls-hostname`.
    TlsHostname,
    /// A file path that is not absolute, or names nothing, or is too long.
    FilePath,
    /// A query behind a file path.
    FileQuery,
}

impl UriProblem {
    /// What is wrong, in words.
    pub const fn text(self) -> &'static str {
        match self {
            Self::NoScheme => "the scheme is missing",
            Self::Scheme => "unknown scheme",
            Self::Character => "a character that must be percent-encoded",
            Self::Percent => "% without two hexadecimal digits",
            Self::Nul => "a NUL character",
            Self::NotUtf8 => "the export name is not UTF-8",
            Self::ExportTooLong => "the export name is longer than 4096 bytes",
            Self::UserInfo => "a user name, which only TLS with shared keys would use",
            Self::NoHost => "the host is missing",
            Self::Host => "not a host name or address",
            Self::Port => "not a port",
            Self::Authority => "a host, which a local path does not have",
            Self::Fragment => "a fragment, which NBD does not have",
            Self::NoSocket => "the socket is missing",
            Self::SocketOverTcp => "a socket parameter for TCP",
            Self::SocketPath => "a socket path that is empty or longer than 107 bytes",
            Self::Parameter => "unknown parameter",
            Self::NoValue => "a parameter without a value",
            Self::Repeated => "a parameter that is given twice",
            Self::TlsParameter => "a TLS parameter without TLS",
            Self::TlsType => "a kind of TLS that is not supported",
            Self::TlsVerifyPeer => "not a switch",
            Self::TlsHostname => "not a host name",
            Self::FilePath => "not an absolute path of a file or block device",
            Self::FileQuery => "a parameter, which a file does not have",
        }
    }

    /// What is allowed at the place.
    pub const fn allowed(self) -> &'static str {
        match self {
            Self::NoScheme | Self::Scheme => "nbd, nbds, nbd+unix, nbds+unix, file, then ://",
            Self::Character => "letters, digits, -._~!$&'()*+,;=:@/ and %XX",
            Self::Percent => "%00 to %FF, and %25 for % itself",
            Self::Nul => "any other character, and NUL only as the first of an abstract socket",
            Self::NotUtf8 => "UTF-8, percent-encoded",
            Self::ExportTooLong => "at most 4096 bytes after decoding",
            Self::UserInfo | Self::NoHost => "nbd://HOST[:PORT]/EXPORT",
            Self::Host => "a name of letters, digits, '-', '_' and '.', an IPv4 address, an [IPv6 address]",
            Self::Port => "1 to 65535",
            Self::Authority => "three slashes: nbd+unix:///EXPORT?socket=PATH, file:///PATH",
            Self::Fragment => "%23 for # itself",
            Self::NoSocket | Self::SocketPath => "nbd+unix:///EXPORT?socket=PATH",
            Self::SocketOverTcp => "nbd+unix or nbds+unix for a socket",
            Self::Parameter | Self::NoValue => {
                "socket=PATH, tls-type=x509, tls-hostname=NAME, tls-verify-peer=0|1, joined by &"
            }
            Self::Repeated => "each parameter once",
            Self::TlsParameter => "nbds or nbds+unix for TLS",
            Self::TlsType => "x509",
            Self::TlsVerifyPeer => "0 or 1",
            Self::TlsHostname => "a name of letters, digits, '-', '_' and '.'",
            Self::FilePath | Self::FileQuery => "file:///ABSOLUTE/PATH of at most 4095 bytes",
        }
    }
}

impl fmt::Display for UriError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { position, problem } = self;
        write!(f, "at byte {position}: {}; allowed: {}", problem.text(), problem.allowed())
    }
}

impl core::error::Error for UriError {}
