// SPDX-License-Identifier: MIT OR Apache-2.0
//! The driver's answer to a lookup: what an export is, before the session has a say.

use alloc::string::String;
use alloc::vec::Vec;

use crate::export::{BlockSizes, is_valid_name};
use crate::flags::TransmissionFlags;
use crate::limits::EXPORT_MAX_BYTES;
use crate::option::BASE_ALLOCATION;

/// An export as the server role offers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportInfo {
    /// Canonical name, the one LIST shows (a client may have asked by the empty name).
    pub name: String,
    /// Text for people; empty for none.
    pub description: String,
    /// Size in bytes, at most [`EXPORT_MAX_BYTES`].
    pub size_bytes: u64,
    /// What it can do. The handshake adds HAS_FLAGS and takes away what this session cannot use: SEND_DF
    /// without chunks, FAST_ZERO without WRITE_ZEROES, and bits it does not know.
    pub flags: TransmissionFlags,
    /// Size constraints, which must be [valid](BlockSizes::is_valid).
    pub block: BlockSizes,
    /// Whether `base:allocation` may be selected; its id is always
    /// [`BASE_ALLOCATION_ID`](crate::server::BASE_ALLOCATION_ID).
    pub base_allocation: bool,
    /// Metadata contexts of our own namespace, whole names with their colon (`x-holdfast:...`). The first has
    /// id 2, the next 3, and so on. A client that lists `x-holdfast:` gets them all.
    pub contexts: Vec<String>,
}

impl ExportInfo {
    /// An export with default size constraints, no flag beyond HAS_FLAGS and no metadata contexts.
    pub fn new(name: &str, size_bytes: u64) -> Self {
        Self {
            name: name.into(),
            description: String::new(),
            size_bytes,
            flags: TransmissionFlags::HAS_FLAGS,
            block: BlockSizes::DEFAULT,
            base_allocation: false,
            contexts: Vec::new(),
        }
    }

    /// What is wrong with it, if anything. The handshake asserts that nothing is.
    pub fn problem(&self) -> Option<&'static str> {
        let context_ok = |name: &String| {
            is_valid_name(name) && name.find(':').is_some_and(|colon| colon > 0) && name != BASE_ALLOCATION
        };
        if !is_valid_name(&self.name) {
            return Some("the name must be at most 4096 bytes without NUL");
        }
        if self.description.as_bytes().contains(&0) {
            return Some("the description must not contain NUL");
        }
        if self.size_bytes > EXPORT_MAX_BYTES {
            return Some("the size must be at most 2^63 - 1 bytes");
        }
        if !self.block.is_valid() {
            return Some("the block sizes must be powers of two in order");
        }
        if !self.contexts.iter().all(context_ok) {
            return Some("a metadata context must be a namespace, a colon and a name");
        }
        None
    }
}
