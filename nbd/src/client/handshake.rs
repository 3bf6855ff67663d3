// SPDX-License-Identifier: MIT OR Apache-2.0
//! The client's handshake: asks for the best a server has, one option at a time.
//!
//! Order: STARTTLS where TLS is required, EXTENDED_HEADERS, STRUCTURED_REPLY where there are none of the
//! former, metadata contexts, GO with a request for block sizes, and EXPORT_NAME where GO is unknown. A
//! refused wish is given up and the next question asked; a refused GO, TLS or "shutting down" ends the
//! attempt with an ABORT, as the protocol document demands. Only UNSUP to GO leads to EXPORT_NAME: any other
//! refusal would be worse there, because EXPORT_NAME cannot say why.
//!
//! A server that breaks the protocol is left without a word. Replies are bounded in length, count and sum, so
//! that no server can keep us reading (libnbd and qemu follow an endless flood of INFO); the deadline is the
//! driver's.

mod questions;
mod replies;

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use crate::client::{ClientConfig, HandshakeError, Negotiated, Step};
use crate::export::{BlockSizes, is_valid_name};
use crate::flags::TransmissionFlags;
use crate::limits::{EXPORT_MAX_BYTES, HANDSHAKE_MAX_BYTES, OPTION_REPLIES_MAX, OPTION_REPLY_MAX_BYTES};
use crate::mode::{EnteredBy, ReplyMode};
use crate::option::OptionCode;
use crate::tls::TlsMode;
use crate::wire::{
    EXPORT_NAME_ZEROES, FIXED_NEWSTYLE, NBD_MAGIC, NO_ZEROES, OLDSTYLE_MAGIC, OPTION_MAGIC,
    OPTION_REPLY_MAGIC, Put, Reader,
};

const GREETING_BYTES: usize = 18;
const REPLY_HEADER_BYTES: usize = 20;
const EXPORT_NAME_REPLY_BYTES: usize = 10;

/// The handshake of one connection, client role.
#[derive(Debug)]
pub struct Handshake {
    config: ClientConfig,
    phase: Phase,
    buffer: Vec<u8>,
    output: Vec<u8>,
    /// The option that waits for its final reply.
    asked: OptionCode,
    replies: u32,
    reply_bytes: u64,
    server_flags: u16,
    mode: ReplyMode,
    base_allocation_id: Option<u32>,
    listed_contexts: Vec<String>,
    wants_description: bool,
    description: String,
    /// Size and flags, from INFO_EXPORT.
    export: Option<(u64, u16)>,
    block: Option<BlockSizes>,
    tls_active: bool,
}

#[derive(Debug)]
enum Phase {
    /// Magic numbers and handshake flags.
    Greeting,
    /// Header of a reply to `asked`.
    ReplyHeader,
    /// Its payload.
    ReplyData {
        kind: u32,
        len: u32,
    },
    /// Size, flags and perhaps zeroes; the server closes instead if it refuses.
    ExportNameReply,
    /// The caller chooses the name to open.
    Choose,
    StartTls,
    Finished(Box<Negotiated>),
    Failed(HandshakeError),
}

impl Handshake {
    /// A new connection. The server speaks first.
    ///
    /// # Panics
    ///
    /// When the export name or the context query is not [valid](is_valid_name).
    pub fn new(config: ClientConfig) -> Self {
        assert!(is_valid_name(&config.export), "export name");
        assert!(config.list_contexts.as_deref().is_none_or(is_valid_name), "metadata query");
        Self {
            config,
            phase: Phase::Greeting,
            buffer: Vec::new(),
            output: Vec::new(),
            asked: OptionCode::ABORT,
            replies: 0,
            reply_bytes: 0,
            server_flags: 0,
            mode: ReplyMode::Simple,
            base_allocation_id: None,
            listed_contexts: Vec::new(),
            wants_description: false,
            description: String::new(),
            export: None,
            block: None,
            tls_active: false,
        }
    }

    /// Bytes to send, in order. The caller takes them from the front; the machine only appends.
    pub fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    /// Consumes bytes from the server and returns how many. What is left over once the next step is
    /// [`Step::Finished`] belongs to the transmission phase (a lawful server sends nothing before the first
    /// request).
    ///
    /// # Errors
    ///
    /// The handshake failed: send the output, then close. The error is kept, and every later call returns it
    /// again.
    pub fn receive(&mut self, input: &[u8]) -> Result<usize, HandshakeError> {
        let mut consumed = 0;
        while self.wants_input() {
            let before = consumed;
            match self.take(&input[consumed..]) {
                Ok(taken) => consumed += taken,
                Err(why) => self.fail(why),
            }
            if consumed == before {
                break;
            }
        }
        if matches!(self.phase, Phase::StartTls) && consumed < input.len() {
            self.fail(HandshakeError::PlaintextBehindStartTls);
        }
        match &self.phase {
            Phase::Failed(why) => Err(why.clone()),
            _ => Ok(consumed),
        }
    }

    /// What must happen now.
    pub fn next_step(&self) -> Step {
        match &self.phase {
            Phase::Greeting | Phase::ReplyHeader | Phase::ReplyData { .. } | Phase::ExportNameReply => {
                Step::NeedInput
            }
            Phase::Choose => Step::ChooseExport(self.listed_contexts.clone()),
            Phase::StartTls => Step::StartTls,
            Phase::Finished(negotiated) => Step::Finished(negotiated.clone()),
            Phase::Failed(why) => Step::Failed(why.clone()),
        }
    }

    /// What the handshake waits for, to be named when the server closes or keeps silent.
    pub fn waiting_for(&self) -> &'static str {
        match self.phase {
            Phase::Greeting => "the greeting",
            Phase::ExportNameReply => "the answer to EXPORT_NAME, which a server refuses by closing",
            Phase::ReplyHeader | Phase::ReplyData { .. } => match self.asked {
                OptionCode::STARTTLS => "the answer to STARTTLS",
                OptionCode::EXTENDED_HEADERS => "the answer to EXTENDED_HEADERS",
                OptionCode::STRUCTURED_REPLY => "the answer to STRUCTURED_REPLY",
                OptionCode::LIST_META_CONTEXT => "the answer to LIST_META_CONTEXT",
                OptionCode::SET_META_CONTEXT => "the answer to SET_META_CONTEXT",
                _ => "the answer to GO",
            },
            Phase::Choose => "the choice of an export",
            Phase::StartTls => "TLS",
            Phase::Finished(_) | Phase::Failed(_) => "nothing",
        }
    }

    /// Answers [`Step::StartTls`] after the TLS handshake succeeded.
    ///
    /// # Panics
    ///
    /// When TLS was not asked for.
    pub fn tls_started(&mut self) {
        assert!(matches!(self.phase, Phase::StartTls), "tls_started without Step::StartTls");
        self.tls_active = true;
        self.ask_after(OptionCode::STARTTLS);
    }

    /// Answers [`Step::ChooseExport`]; every later option names this export. `description`: ask GO for the
    /// export's description.
    ///
    /// # Panics
    ///
    /// When no choice was asked for, or the name is not [valid](is_valid_name).
    pub fn choose_export(&mut self, name: &str, description: bool) {
        assert!(matches!(self.phase, Phase::Choose), "choose_export without Step::ChooseExport");
        assert!(is_valid_name(name), "export name");
        self.config.export = name.into();
        self.wants_description = description;
        self.ask_after(OptionCode::LIST_META_CONTEXT);
    }

    fn wants_input(&self) -> bool {
        !matches!(self.phase, Phase::Choose | Phase::StartTls | Phase::Finished(_) | Phase::Failed(_))
    }

    /// Consumes at most one field.
    fn take(&mut self, input: &[u8]) -> Result<usize, HandshakeError> {
        let need = match self.phase {
            Phase::Greeting => GREETING_BYTES,
            Phase::ReplyHeader => REPLY_HEADER_BYTES,
            Phase::ReplyData { len, .. } => len as usize,
            Phase::ExportNameReply => self.export_name_reply_bytes(),
            _ => return Ok(0),
        };
        let taken = input.len().min(need - self.buffer.len());
        self.buffer.extend_from_slice(&input[..taken]);
        if matches!(self.phase, Phase::Greeting) {
            check_greeting(&self.buffer)?;
        }
        if self.buffer.len() == need {
            let data = core::mem::take(&mut self.buffer);
            self.field_received(&data)?;
        }
        Ok(taken)
    }

    fn field_received(&mut self, data: &[u8]) -> Result<(), HandshakeError> {
        match self.phase {
            Phase::Greeting => self.greeting_received(data),
            Phase::ReplyHeader => self.reply_header_received(data),
            Phase::ReplyData { kind, .. } => {
                self.phase = Phase::ReplyHeader;
                self.reply_received(kind, data)
            }
            Phase::ExportNameReply => self.export_name_received(data),
            _ => Ok(()),
        }
    }

    fn greeting_received(&mut self, data: &[u8]) -> Result<(), HandshakeError> {
        // Unknown handshake flags are ignored, as the document demands.
        let flags = Reader(&data[16..]).u16().unwrap_or_default() & (FIXED_NEWSTYLE | NO_ZEROES);
        self.server_flags = flags;
        self.output.put_u32(u32::from(flags));
        if self.is_fixed_newstyle() {
            self.ask_first();
            return Ok(());
        }
        if self.config.tls == TlsMode::Required {
            return Err(HandshakeError::TlsRefused { text: String::new() });
        }
        self.ask(OptionCode::EXPORT_NAME);
        Ok(())
    }

    fn is_fixed_newstyle(&self) -> bool {
        self.server_flags & FIXED_NEWSTYLE != 0
    }

    fn reply_header_received(&mut self, data: &[u8]) -> Result<(), HandshakeError> {
        let mut header = Reader(data);
        // Twenty bytes are there, so the fields cannot be missing.
        let magic = header.u64().unwrap_or_default();
        let got = OptionCode(header.u32().unwrap_or_default());
        let kind = header.u32().unwrap_or_default();
        let len = header.u32().unwrap_or_default();
        let option = self.asked;
        if magic != OPTION_REPLY_MAGIC {
            return Err(HandshakeError::ReplyMagic(magic));
        }
        if got != option {
            return Err(HandshakeError::ReplyToOther { asked: option, got });
        }
        if len > OPTION_REPLY_MAX_BYTES {
            return Err(HandshakeError::ReplyTooLong { option, len_bytes: len });
        }
        self.replies += 1;
        self.reply_bytes += REPLY_HEADER_BYTES as u64 + u64::from(len);
        if self.replies > OPTION_REPLIES_MAX || self.reply_bytes > HANDSHAKE_MAX_BYTES {
            return Err(HandshakeError::Flood);
        }
        if len == 0 {
            return self.reply_received(kind, &[]);
        }
        self.phase = Phase::ReplyData { kind, len };
        Ok(())
    }

    fn export_name_reply_bytes(&self) -> usize {
        let zeroes = if self.server_flags & NO_ZEROES == 0 { EXPORT_NAME_ZEROES } else { 0 };
        EXPORT_NAME_REPLY_BYTES + zeroes
    }

    fn export_name_received(&mut self, data: &[u8]) -> Result<(), HandshakeError> {
        let mut fields = Reader(data);
        // Ten bytes are there, so the fields cannot be missing.
        let size_bytes = fields.u64().unwrap_or_default();
        let flags = fields.u16().unwrap_or_default();
        self.finish(EnteredBy::ExportName, size_bytes, flags)
    }

    /// The one gate before transmission.
    fn finish(&mut self, entered_by: EnteredBy, size_bytes: u64, flags: u16) -> Result<(), HandshakeError> {
        let tls_required = self.config.tls == TlsMode::Required;
        assert!(self.tls_active || !tls_required, "transmission without the TLS that is required");
        if size_bytes > EXPORT_MAX_BYTES {
            return Err(HandshakeError::SizeTooLarge(size_bytes));
        }
        let told = TransmissionFlags(flags);
        if !told.contains(TransmissionFlags::HAS_FLAGS) {
            return Err(HandshakeError::NoFlags(flags));
        }
        self.phase = Phase::Finished(Box::new(Negotiated {
            size_bytes,
            flags: told.lawful(self.mode),
            block: self.block.unwrap_or_default(),
            told_block_sizes: self.block.is_some(),
            mode: self.mode,
            base_allocation_id: self.base_allocation_id,
            listed_contexts: core::mem::take(&mut self.listed_contexts),
            description: core::mem::take(&mut self.description),
            entered_by,
            tls: self.tls_active,
        }));
        Ok(())
    }

    fn malformed(&self, what: &'static str) -> HandshakeError {
        HandshakeError::MalformedReply { option: self.asked, what }
    }

    /// The end that a client owes a server which did nothing wrong.
    fn abort(&mut self, why: HandshakeError) {
        self.output.put_u64(OPTION_MAGIC);
        self.output.put_u32(OptionCode::ABORT.0);
        self.output.put_u32(0);
        self.fail(why);
    }

    fn fail(&mut self, why: HandshakeError) {
        self.phase = Phase::Failed(why);
    }
}

/// Judges as much of the greeting as there is, so that another kind of server is named at once and not after
/// a timeout.
fn check_greeting(data: &[u8]) -> Result<(), HandshakeError> {
    let mut fields = Reader(data);
    match fields.u64() {
        None | Some(NBD_MAGIC) => {}
        Some(other) => return Err(HandshakeError::NotNbd(other)),
    }
    match fields.u64() {
        None | Some(OPTION_MAGIC) => Ok(()),
        Some(OLDSTYLE_MAGIC) => Err(HandshakeError::Oldstyle),
        Some(other) => Err(HandshakeError::UnknownStyle(other)),
    }
}
