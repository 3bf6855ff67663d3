// SPDX-License-Identifier: MIT OR Apache-2.0
//! Replies to options.

use alloc::vec::Vec;

use crate::export::BlockSizes;
use crate::flags::TransmissionFlags;
use crate::limits::STRING_MAX_BYTES;
use crate::option::{
    INFO_BLOCK_SIZE, INFO_EXPORT, OptionCode, OptionError, REP_ACK, REP_INFO, REP_META_CONTEXT, REP_SERVER,
};
use crate::text::cut;
use crate::wire::{OPTION_REPLY_MAGIC, Put};

/// Appends replies to one option.
pub(super) struct OptionReply<'a> {
    pub(super) option: OptionCode,
    pub(super) out: &'a mut Vec<u8>,
}

impl OptionReply<'_> {
    /// `len` is of a payload made of a few fixed fields and strings of at most 4096 bytes.
    fn header(&mut self, kind: u32, len: usize) {
        self.out.put_u64(OPTION_REPLY_MAGIC);
        self.out.put_u32(self.option.0);
        self.out.put_u32(kind);
        self.out.put_u32(len as u32);
    }

    pub(super) fn ack(&mut self) {
        self.header(REP_ACK, 0);
    }

    pub(super) fn error(&mut self, error: OptionError, text: &str) {
        let text = cut(text, STRING_MAX_BYTES);
        self.header(error.to_wire(), text.len());
        self.out.extend_from_slice(text.as_bytes());
    }

    pub(super) fn server(&mut self, name: &str) {
        self.header(REP_SERVER, 4 + name.len());
        self.out.put_u32(name.len() as u32);
        self.out.extend_from_slice(name.as_bytes());
    }

    pub(super) fn info_export(&mut self, size_bytes: u64, flags: TransmissionFlags) {
        self.header(REP_INFO, 12);
        self.out.put_u16(INFO_EXPORT);
        self.out.put_u64(size_bytes);
        self.out.put_u16(flags.0);
    }

    pub(super) fn info_text(&mut self, kind: u16, text: &str) {
        let text = cut(text, STRING_MAX_BYTES);
        self.header(REP_INFO, 2 + text.len());
        self.out.put_u16(kind);
        self.out.extend_from_slice(text.as_bytes());
    }

    pub(super) fn info_block_size(&mut self, block: BlockSizes) {
        self.header(REP_INFO, 14);
        self.out.put_u16(INFO_BLOCK_SIZE);
        self.out.put_u32(block.min_bytes);
        self.out.put_u32(block.preferred_bytes);
        self.out.put_u32(block.max_bytes);
    }

    pub(super) fn meta_context(&mut self, id: u32, name: &str) {
        self.header(REP_META_CONTEXT, 4 + name.len());
        self.out.put_u32(id);
        self.out.extend_from_slice(name.as_bytes());
    }
}
