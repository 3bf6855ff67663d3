// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the server role answers to each option.
//!
//! Every option ends in exactly one of three ways: it is answered at once, it is refused (an `Err` here is
//! that answer), or the driver is asked and the answer comes later. There is no fourth, so a second reply
//! cannot happen.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;

use super::{Handshake, Pending, Phase, SHUTTING_DOWN, Selection};
use crate::flags::TransmissionFlags;
use crate::mode::{EnteredBy, ReplyMode};
use crate::option::{BASE_ALLOCATION, INFO_DESCRIPTION, INFO_NAME, OptionCode, OptionError};
use crate::server::option_data::{
    ContextRequest, DescribeRequest, Malformed, parse_contexts, parse_describe, parse_name,
};
use crate::server::{
    BASE_ALLOCATION_ID, CloseReason, ExportInfo, HandshakeError, LookupError, SelectedContexts, Session,
};
use crate::text::printable;
use crate::tls::TlsMode;
use crate::wire::{EXPORT_NAME_ZEROES, FIXED_NEWSTYLE, NO_ZEROES, Put};

impl Handshake {
    /// A whole option is there: answers it, or asks the driver.
    pub(super) fn option_received(&mut self, option: OptionCode, len: u32) -> Result<(), HandshakeError> {
        self.phase = Phase::OptionHeader;
        let data = core::mem::take(&mut self.buffer);
        if option == OptionCode::ABORT {
            self.reply(option).ack();
            self.close(CloseReason::Aborted);
            return Ok(());
        }
        if option == OptionCode::EXPORT_NAME {
            return self.export_name_received(&data);
        }
        if option == OptionCode::SET_META_CONTEXT {
            // Whatever comes of it, what was selected before is replaced.
            self.selection = None;
        }
        if let Err((error, text)) = self.begin_option(option, len, &data) {
            self.reply(option).error(error, text);
        }
        Ok(())
    }

    /// An option that has error replies. It is answered here or will be by the driver's answer; an error is
    /// the answer.
    fn begin_option(&mut self, option: OptionCode, len: u32, data: &[u8]) -> Result<(), Malformed> {
        self.check_gates(option)?;
        let takes_no_data = matches!(
            option,
            OptionCode::LIST
                | OptionCode::STARTTLS
                | OptionCode::STRUCTURED_REPLY
                | OptionCode::EXTENDED_HEADERS
        );
        if takes_no_data && len != 0 {
            return Err((OptionError::Invalid, "the option takes no data"));
        }
        match option {
            OptionCode::LIST => self.phase = Phase::List,
            OptionCode::STARTTLS => self.start_tls()?,
            OptionCode::STRUCTURED_REPLY => self.structured_reply()?,
            OptionCode::EXTENDED_HEADERS => self.extended_headers()?,
            OptionCode::INFO | OptionCode::GO => {
                let request = parse_describe(data)?;
                self.phase = Phase::Lookup(Pending::Describe { option, request });
            }
            OptionCode::LIST_META_CONTEXT | OptionCode::SET_META_CONTEXT => {
                if !self.mode.has_chunks() {
                    return Err((OptionError::Invalid, "structured replies must be negotiated first"));
                }
                let request = parse_contexts(data)?;
                self.phase = Phase::Lookup(Pending::Contexts { option, request });
            }
            _ => return Err((OptionError::Unsupported, "the option is not supported")),
        }
        Ok(())
    }

    /// What holds for every option but ABORT and EXPORT_NAME.
    fn check_gates(&self, option: OptionCode) -> Result<(), Malformed> {
        if self.client_flags & FIXED_NEWSTYLE == 0 {
            return Err((OptionError::Invalid, "the client did not set FIXED_NEWSTYLE"));
        }
        if self.needs_tls() && option != OptionCode::STARTTLS {
            return Err((OptionError::TlsRequired, "TLS is required"));
        }
        if self.shutting_down {
            return Err((OptionError::Shutdown, SHUTTING_DOWN));
        }
        Ok(())
    }

    fn needs_tls(&self) -> bool {
        self.config.tls == TlsMode::Required && !self.tls_active
    }

    fn start_tls(&mut self) -> Result<(), Malformed> {
        if self.config.tls == TlsMode::Off {
            return Err((OptionError::Policy, "TLS is off"));
        }
        if self.tls_active {
            return Err((OptionError::Invalid, "TLS is already active"));
        }
        self.reply(OptionCode::STARTTLS).ack();
        self.mode = ReplyMode::Simple;
        self.selection = None;
        self.phase = Phase::StartTls;
        Ok(())
    }

    fn structured_reply(&mut self) -> Result<(), Malformed> {
        if self.mode.is_extended() {
            return Err((OptionError::ExtendedHeadersRequired, "extended headers are already negotiated"));
        }
        if !self.config.structured {
            return Err((OptionError::Unsupported, "structured replies are off"));
        }
        self.mode = ReplyMode::Structured;
        self.reply(OptionCode::STRUCTURED_REPLY).ack();
        Ok(())
    }

    fn extended_headers(&mut self) -> Result<(), Malformed> {
        if !self.config.extended {
            return Err((OptionError::Unsupported, "extended headers are off"));
        }
        self.mode = ReplyMode::Extended;
        self.reply(OptionCode::EXTENDED_HEADERS).ack();
        Ok(())
    }

    fn export_name_received(&mut self, data: &[u8]) -> Result<(), HandshakeError> {
        if self.needs_tls() {
            return Err(HandshakeError::ExportNameWithoutTls);
        }
        if self.mode.is_extended() {
            return Err(HandshakeError::ExportNameAfterExtendedHeaders);
        }
        let name = parse_name(data).ok_or(HandshakeError::ExportNameMalformed)?;
        if self.shutting_down {
            self.close(CloseReason::ExportNameRefused(LookupError::Shutdown(SHUTTING_DOWN.into())));
        } else {
            self.phase = Phase::Lookup(Pending::ExportName { name });
        }
        Ok(())
    }

    pub(super) fn export_name_ok(&mut self, name: String, export: ExportInfo) {
        let session = self.session(name, export, EnteredBy::ExportName, false);
        self.output.put_u64(session.export.size_bytes);
        self.output.put_u16(session.export.flags.0);
        if !session.no_zeroes {
            self.output.resize(self.output.len() + EXPORT_NAME_ZEROES, 0);
        }
        self.phase = Phase::Finished(Box::new(session));
    }

    pub(super) fn describe_ok(&mut self, option: OptionCode, request: DescribeRequest, export: ExportInfo) {
        let DescribeRequest { name, wants_name, wants_description, wants_block_size } = request;
        let session = self.session(name, export, EnteredBy::Go, wants_block_size);
        let export = &session.export;
        let mut reply = self.reply(option);
        reply.info_export(export.size_bytes, export.flags);
        if wants_name {
            reply.info_text(INFO_NAME, &export.name);
        }
        if wants_description && !export.description.is_empty() {
            reply.info_text(INFO_DESCRIPTION, &export.description);
        }
        if wants_block_size || !export.block.is_within_defaults() {
            reply.info_block_size(export.block);
        }
        reply.ack();
        if option == OptionCode::GO {
            self.phase = Phase::Finished(Box::new(session));
        }
    }

    /// The session that this export would give now. Contexts hold only for the export they were selected for,
    /// and only while that export still has them.
    fn session(
        &self,
        requested_name: String,
        mut export: ExportInfo,
        entered_by: EnteredBy,
        asked: bool,
    ) -> Session {
        export.flags = export.flags.lawful(self.mode).with(TransmissionFlags::HAS_FLAGS);
        let mut contexts = SelectedContexts::default();
        if let Some(selection) = &self.selection
            && selection.export == export.name
            && selection.contexts == export.contexts
        {
            contexts = selection.selected.clone();
            contexts.base_allocation &= export.base_allocation;
        }
        Session {
            requested_name,
            export,
            mode: self.mode,
            contexts,
            entered_by,
            asked_block_sizes: asked,
            no_zeroes: self.client_flags & NO_ZEROES != 0,
            tls: self.tls_active,
        }
    }

    pub(super) fn contexts_ok(&mut self, option: OptionCode, request: &ContextRequest, export: &ExportInfo) {
        let setting = option == OptionCode::SET_META_CONTEXT;
        let base = export.base_allocation.then_some((BASE_ALLOCATION_ID, BASE_ALLOCATION));
        let own = (BASE_ALLOCATION_ID + 1..).zip(export.contexts.iter().map(String::as_str));
        let mut selected = SelectedContexts::default();
        let mut reply = self.reply(option);
        for (id, context) in base.into_iter().chain(own).filter(|(_, name)| request.matches(name, setting)) {
            reply.meta_context(if setting { id } else { 0 }, context);
            match id {
                BASE_ALLOCATION_ID => selected.base_allocation = true,
                id => selected.own.push(id),
            }
        }
        reply.ack();
        if setting {
            let (export, contexts) = (export.name.clone(), export.contexts.clone());
            self.selection = Some(Selection { export, contexts, selected });
        }
    }

    pub(super) fn refuse_lookup(&mut self, option: OptionCode, name: &str, why: &LookupError) {
        let mut reply = self.reply(option);
        match why {
            LookupError::Unknown => {
                reply.error(OptionError::Unknown, &format!("no export '{}'", printable(name.as_bytes())));
            }
            LookupError::Shutdown(text) => reply.error(OptionError::Shutdown, text),
            LookupError::Policy(text) => reply.error(OptionError::Policy, text),
        }
    }
}
