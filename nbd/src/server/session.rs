// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the server handshake agreed on.

use alloc::string::String;
use alloc::vec::Vec;

use crate::mode::{EnteredBy, ReplyMode};
use crate::server::{ExportInfo, ExportLimits, SessionMode};

/// Id of `base:allocation` in every session.
pub const BASE_ALLOCATION_ID: u32 = 1;

/// A finished handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Name as the client wrote it; `export.name` is the canonical one.
    pub requested_name: String,
    /// The export, its flags as they were sent to this client.
    pub export: ExportInfo,
    /// Dialect of the transmission phase.
    pub mode: ReplyMode,
    /// Metadata contexts the client selected for this export.
    pub contexts: SelectedContexts,
    /// How the client came here.
    pub entered_by: EnteredBy,
    /// The client asked for the block sizes, so it must obey them; others may still send unaligned requests.
    pub asked_block_sizes: bool,
    /// The client agreed to leave out the zeroes after EXPORT_NAME.
    pub no_zeroes: bool,
    /// The connection is encrypted.
    pub tls: bool,
}

impl Session {
    /// What requests are checked against.
    pub fn limits(&self) -> ExportLimits {
        ExportLimits {
            size_bytes: self.export.size_bytes,
            flags: self.export.flags,
            block: self.export.block,
        }
    }

    /// What requests of this session may use.
    pub fn session_mode(&self) -> SessionMode {
        SessionMode { reply: self.mode, block_status: !self.contexts.is_empty() }
    }
}

/// Metadata contexts of a session. A BLOCK_STATUS is answered with one chunk for each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SelectedContexts {
    /// `base:allocation`, with id [`BASE_ALLOCATION_ID`].
    pub base_allocation: bool,
    /// Ids of contexts from [`ExportInfo::contexts`]: position in that list + 2.
    pub own: Vec<u32>,
}

impl SelectedContexts {
    /// Nothing selected: BLOCK_STATUS is refused.
    pub fn is_empty(&self) -> bool {
        !self.base_allocation && self.own.is_empty()
    }

    /// Chunks in the answer to a BLOCK_STATUS.
    pub fn len(&self) -> usize {
        usize::from(self.base_allocation) + self.own.len()
    }
}
