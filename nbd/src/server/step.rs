// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the server handshake asks of its driver.

use alloc::boxed::Box;
use alloc::string::String;
use core::fmt;

use crate::server::{HandshakeError, Session};

/// What must happen next. Asking again gives the same answer until something was done about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Send what [`output`](crate::server::Handshake::output) holds, then `receive` more.
    NeedInput,
    /// The peer asks faster than it reads: send all of `output` before more input is consumed.
    SendOutput,
    /// Say what this export is, with `answer_lookup`, now or later (a device that is still being opened may
    /// take its time; the handshake deadline is the driver's).
    Lookup {
        /// Name as the client wrote it. The empty name means the default export: what that is, the driver
        /// decides.
        name: String,
        /// Which option asks.
        purpose: Purpose,
    },
    /// Name the exports, with `answer_list`.
    List,
    /// Send all of `output`, run a TLS handshake as its server, then call `tls_started`.
    StartTls,
    /// Send all of `output`; the next byte of the peer belongs to the transmission phase.
    Finished(Box<Session>),
    /// Send all of `output`, then close.
    Close(CloseReason),
}

/// Which option asks for an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// The client is curious (INFO).
    Info,
    /// The client wants to use it (GO).
    Go,
    /// The client wants to use it and can be told no error (EXPORT_NAME): a refusal closes the connection.
    ExportName,
    /// Which metadata contexts it has (LIST_META_CONTEXT).
    ListContexts,
    /// Metadata contexts are being selected (SET_META_CONTEXT).
    SetContexts,
}

/// Why an export cannot be had. Texts go to the client, cut to the protocol's 4096 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LookupError {
    /// No such export (`ERR_UNKNOWN`).
    Unknown,
    /// It exists but cannot be served now, or the server is going away (`ERR_SHUTDOWN`).
    Shutdown(String),
    /// This client may not have it (`ERR_POLICY`).
    Policy(String),
}

/// Why the connection ends in the handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The client sent ABORT; the ACK is in `output`, and the client may be gone already.
    Aborted,
    /// EXPORT_NAME for an export that cannot be had; the protocol knows no error reply to it.
    ExportNameRefused(LookupError),
    /// The client broke the protocol.
    Violation(HandshakeError),
}

impl fmt::Display for LookupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("unknown export"),
            Self::Shutdown(text) => write!(f, "not available: {text}"),
            Self::Policy(text) => write!(f, "not allowed: {text}"),
        }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Aborted => f.write_str("the client ended the handshake"),
            Self::ExportNameRefused(why) => write!(f, "EXPORT_NAME refused: {why}"),
            Self::Violation(why) => write!(f, "{why}"),
        }
    }
}
