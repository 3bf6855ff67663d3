// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the client role makes of each option reply.

use alloc::string::String;

use super::{Handshake, Phase};
use crate::client::HandshakeError;
use crate::export::{BlockSizes, is_valid_name};
use crate::limits::LISTED_CONTEXTS_MAX;
use crate::mode::{EnteredBy, ReplyMode};
use crate::option::{
    BASE_ALLOCATION, INFO_BLOCK_SIZE, INFO_DESCRIPTION, INFO_EXPORT, OptionCode, OptionError, REP_ACK,
    REP_INFO, REP_META_CONTEXT,
};
use crate::text::printable;
use crate::wire::Reader;

impl Handshake {
    pub(super) fn reply_received(&mut self, kind: u32, data: &[u8]) -> Result<(), HandshakeError> {
        let option = self.asked;
        if let Some(error) = OptionError::from_wire(kind) {
            self.refused(error, printable(data));
            return Ok(());
        }
        match (kind, option) {
            (REP_ACK, _) if !data.is_empty() => Err(self.malformed("an ACK with data")),
            (REP_ACK, _) => self.acknowledged(),
            (REP_INFO, OptionCode::GO) => self.info_received(data),
            (REP_META_CONTEXT, OptionCode::SET_META_CONTEXT | OptionCode::LIST_META_CONTEXT) => {
                self.context_received(data)
            }
            _ => Err(HandshakeError::UnexpectedReply { option, kind }),
        }
    }

    fn acknowledged(&mut self) -> Result<(), HandshakeError> {
        match self.asked {
            OptionCode::STARTTLS => {
                self.phase = Phase::StartTls;
                return Ok(());
            }
            OptionCode::EXTENDED_HEADERS => self.mode = ReplyMode::Extended,
            OptionCode::STRUCTURED_REPLY => self.mode = ReplyMode::Structured,
            OptionCode::GO => {
                let (size_bytes, flags) = self.export.ok_or(HandshakeError::NoExportInfo)?;
                return self.finish(EnteredBy::Go, size_bytes, flags);
            }
            OptionCode::LIST_META_CONTEXT => {
                self.listed();
                return Ok(());
            }
            _ => {}
        }
        self.ask_after(self.asked);
        Ok(())
    }

    /// An error reply: of a wish it is an answer, of GO or TLS it is the end.
    fn refused(&mut self, error: OptionError, text: String) {
        let option = self.asked;
        match (option, error) {
            (OptionCode::STARTTLS, _) => self.abort(HandshakeError::TlsRefused { text }),
            (OptionCode::GO, OptionError::Unsupported) if !self.mode.is_extended() => {
                self.ask(OptionCode::EXPORT_NAME);
            }
            (OptionCode::GO, _) | (_, OptionError::Shutdown | OptionError::TlsRequired) => {
                self.abort(HandshakeError::Refused { option, error, text });
            }
            _ => {
                // Contexts that came before the error do not count.
                if option == OptionCode::LIST_META_CONTEXT {
                    self.listed_contexts.clear();
                    self.listed();
                    return;
                }
                if option == OptionCode::SET_META_CONTEXT {
                    self.base_allocation_id = None;
                }
                self.ask_after(option);
            }
        }
    }

    fn info_received(&mut self, data: &[u8]) -> Result<(), HandshakeError> {
        let mut info = Reader(data);
        match info.u16() {
            Some(INFO_EXPORT) => {
                let (Some(size_bytes), Some(flags), true) = (info.u64(), info.u16(), data.len() == 12) else {
                    return Err(self.malformed("INFO_EXPORT must have 12 bytes"));
                };
                if self.export.is_some_and(|before| before != (size_bytes, flags)) {
                    return Err(self.malformed("two INFO_EXPORT that contradict each other"));
                }
                self.export = Some((size_bytes, flags));
            }
            Some(INFO_BLOCK_SIZE) => {
                let (Some(min_bytes), Some(preferred_bytes), Some(max_bytes), true) =
                    (info.u32(), info.u32(), info.u32(), data.len() == 14)
                else {
                    return Err(self.malformed("INFO_BLOCK_SIZE must have 14 bytes"));
                };
                let block = BlockSizes::sanitised(min_bytes, preferred_bytes, max_bytes);
                self.block = Some(block.ok_or(HandshakeError::BlockSizes {
                    min_bytes,
                    preferred_bytes,
                    max_bytes,
                })?);
            }
            Some(INFO_DESCRIPTION) if self.wants_description => {
                let text = str::from_utf8(info.0).ok().filter(|text| is_valid_name(text));
                self.description =
                    text.ok_or_else(|| self.malformed("a description that is no text"))?.into();
            }
            // Not asked for: to be ignored.
            Some(_) => {}
            None => return Err(self.malformed("an INFO without a type")),
        }
        Ok(())
    }

    fn context_received(&mut self, data: &[u8]) -> Result<(), HandshakeError> {
        let Some((id, name)) = data.split_first_chunk::<4>() else {
            return Err(self.malformed("a metadata context without an id"));
        };
        let name = str::from_utf8(name).ok().filter(|name| is_valid_name(name));
        let Some(name) = name else {
            return Err(self.malformed("a metadata context without a lawful name"));
        };
        if self.asked == OptionCode::LIST_META_CONTEXT {
            if self.listed_contexts.len() < LISTED_CONTEXTS_MAX {
                self.listed_contexts.push(name.into());
            }
            return Ok(());
        }
        if name != BASE_ALLOCATION || self.base_allocation_id.is_some() {
            return Err(self.malformed("a metadata context that was not asked for"));
        }
        self.base_allocation_id = Some(u32::from_be_bytes(*id));
        Ok(())
    }
}
