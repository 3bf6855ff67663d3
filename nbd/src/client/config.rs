// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the client handshake is asked for, what it asks of its driver, and what it agreed on.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use crate::client::HandshakeError;
use crate::export::BlockSizes;
use crate::flags::TransmissionFlags;
use crate::mode::{EnteredBy, ReplyMode};
use crate::tls::TlsMode;

/// What the client role wants. Wishes are asked for in the best order and given up one by one where a server
/// has less.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientConfig {
    /// Name of the export; empty for the server's default export.
    pub export: String,
    /// Ask for structured replies. Default: true.
    pub structured: bool,
    /// Ask for extended headers, before structured replies. Default: true.
    pub extended: bool,
    /// Select `base:allocation`, for BLOCK_STATUS. Needs chunks. Default: true.
    pub base_allocation: bool,
    /// List the metadata contexts that match this query (`x-holdfast:`), which is how a server can say who it
    /// is. Needs chunks. Default: none.
    pub list_contexts: Option<String>,
    /// Wait with [`Step::ChooseExport`] after that listing, so that the name to open may depend on it. Default:
    /// false.
    pub choose_export: bool,
    /// Whether TLS is required. Default: [`TlsMode::Off`].
    pub tls: TlsMode,
}

impl ClientConfig {
    /// Everything the server has of `export`.
    pub fn new(export: &str) -> Self {
        Self {
            export: export.into(),
            structured: true,
            extended: true,
            base_allocation: true,
            list_contexts: None,
            choose_export: false,
            tls: TlsMode::Off,
        }
    }
}

/// What must happen next. Asking again gives the same answer until something was done about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Send what [`output`](crate::client::Handshake::output) holds, then `receive` more.
    NeedInput,
    /// Send all of `output`, run a TLS handshake as its client, then call `tls_started`.
    StartTls,
    /// The server has said which contexts of [`ClientConfig::list_contexts`] the export has (perhaps none): call
    /// `choose_export` with the name to open. Not taken where a server has no chunks and so cannot list.
    ChooseExport(Vec<String>),
    /// The next byte in either direction belongs to the transmission phase.
    Finished(Box<Negotiated>),
    /// Send all of `output` (it may hold an ABORT), then close.
    Failed(HandshakeError),
}

/// A finished handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Negotiated {
    /// Size of the export in bytes, at most 2^63 - 1.
    pub size_bytes: u64,
    /// Known transmission flags; SEND_DF only where there are chunks, SEND_FAST_ZERO only with
    /// SEND_WRITE_ZEROES.
    pub flags: TransmissionFlags,
    /// What requests must obey; [`BlockSizes::DEFAULT`] where the server said nothing. `max_bytes` is never
    /// more than [`PAYLOAD_MAX_BYTES`](crate::limits::PAYLOAD_MAX_BYTES).
    pub block: BlockSizes,
    /// The server told its block sizes.
    pub told_block_sizes: bool,
    /// Dialect of the transmission phase.
    pub mode: ReplyMode,
    /// Id of `base:allocation` in status chunks; BLOCK_STATUS may be sent only with it.
    pub base_allocation_id: Option<u32>,
    /// Answer to [`ClientConfig::list_contexts`], at most
    /// [`LISTED_CONTEXTS_MAX`](crate::limits::LISTED_CONTEXTS_MAX) names.
    pub listed_contexts: Vec<String>,
    /// The export's description, where [`choose_export`](crate::client::Handshake::choose_export) asked for it
    /// and the server told one, at most [`STRING_MAX_BYTES`](crate::limits::STRING_MAX_BYTES).
    pub description: String,
    /// Which option the server understood.
    pub entered_by: EnteredBy,
    /// The connection is encrypted.
    pub tls: bool,
}
