// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which option the client role asks next, and what it says in it.

use alloc::vec::Vec;

use super::{Handshake, Phase};
use crate::option::{BASE_ALLOCATION, INFO_BLOCK_SIZE, INFO_DESCRIPTION, OptionCode};
use crate::tls::TlsMode;
use crate::wire::{OPTION_MAGIC, Put};

impl Handshake {
    pub(super) fn ask_first(&mut self) {
        match self.config.tls {
            TlsMode::Required => self.ask(OptionCode::STARTTLS),
            TlsMode::Off => self.ask_after(OptionCode::STARTTLS),
        }
    }

    /// Asks the next question that is wanted and makes sense.
    pub(super) fn ask_after(&mut self, answered: OptionCode) {
        let order = [
            (OptionCode::STARTTLS, false),
            (OptionCode::EXTENDED_HEADERS, self.config.extended),
            (OptionCode::STRUCTURED_REPLY, self.config.structured && !self.mode.has_chunks()),
            (OptionCode::LIST_META_CONTEXT, self.config.list_contexts.is_some() && self.mode.has_chunks()),
            (OptionCode::SET_META_CONTEXT, self.config.base_allocation && self.mode.has_chunks()),
        ];
        let wanted =
            order.iter().skip_while(|(option, _)| *option != answered).skip(1).find(|(_, wanted)| *wanted);
        self.ask(wanted.map_or(OptionCode::GO, |(option, _)| *option));
    }

    /// The listing was answered, or refused: what there is of it may decide what to open.
    pub(super) fn listed(&mut self) {
        if self.config.choose_export {
            self.phase = Phase::Choose;
        } else {
            self.ask_after(OptionCode::LIST_META_CONTEXT);
        }
    }

    pub(super) fn ask(&mut self, option: OptionCode) {
        let mut data = Vec::new();
        match option {
            OptionCode::EXPORT_NAME => data.extend_from_slice(self.config.export.as_bytes()),
            OptionCode::LIST_META_CONTEXT => {
                put_contexts(&mut data, &self.config.export, self.config.list_contexts.as_deref());
            }
            OptionCode::SET_META_CONTEXT => {
                put_contexts(&mut data, &self.config.export, Some(BASE_ALLOCATION));
            }
            OptionCode::GO => {
                put_string(&mut data, &self.config.export);
                data.put_u16(1 + u16::from(self.wants_description));
                data.put_u16(INFO_BLOCK_SIZE);
                if self.wants_description {
                    data.put_u16(INFO_DESCRIPTION);
                }
            }
            _ => {}
        }
        self.output.put_u64(OPTION_MAGIC);
        self.output.put_u32(option.0);
        self.output.put_u32(data.len() as u32);
        self.output.extend_from_slice(&data);
        self.asked = option;
        let by_name = option == OptionCode::EXPORT_NAME;
        self.phase = if by_name { Phase::ExportNameReply } else { Phase::ReplyHeader };
    }
}

fn put_string(data: &mut Vec<u8>, text: &str) {
    data.put_u32(text.len() as u32);
    data.extend_from_slice(text.as_bytes());
}

/// An export and at most one query.
fn put_contexts(data: &mut Vec<u8>, export: &str, query: Option<&str>) {
    put_string(data, export);
    data.put_u32(u32::from(query.is_some()));
    if let Some(query) = query {
        put_string(data, query);
    }
}
