// SPDX-License-Identifier: MIT OR Apache-2.0
//! The server's handshake: fixed newstyle option haggling as a state machine.
//!
//! Model: the machine eats input one field at a time and stops eating as soon as it needs an answer, has too
//! much unsent output, or is finished; so bytes behind GO stay with the caller, for whom they are the first
//! requests. It holds at most one option payload ([`OPTION_MAX_BYTES`]), and only as much of it as has
//! arrived.
//!
//! Rules that matter more than they look: one answer per option and nothing after it (CVE-2022-26496: a
//! second reply after the error put the client out of step); every state the client asked for before STARTTLS
//! is forgotten, and bytes behind STARTTLS are fatal (CVE-2021-3716); nothing is looked up, opened or
//! allocated for a client before it names an export (CVE-2019-14850); no order of options is an assertion
//! (CVE-2019-14851).

mod options;

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use crate::limits::{LIST_MAX_BYTES, OPTION_MAX_BYTES, OPTIONS_MAX, OUTPUT_PAUSE_BYTES};
use crate::mode::ReplyMode;
use crate::option::{OptionCode, OptionError};
use crate::server::option_data::{ContextRequest, DescribeRequest};
use crate::server::option_reply::OptionReply;
use crate::server::{
    CloseReason, ExportInfo, HandshakeError, LookupError, Purpose, SelectedContexts, Session, Step,
};
use crate::tls::TlsMode;
use crate::wire::{FIXED_NEWSTYLE, NBD_MAGIC, NO_ZEROES, OPTION_MAGIC, Put, Reader};

const SHUTTING_DOWN: &str = "the server is shutting down";

/// What the server role offers. The default offers everything but TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerConfig {
    /// Answer STRUCTURED_REPLY with ACK. Default: true.
    pub structured: bool,
    /// Answer EXTENDED_HEADERS with ACK. Default: true.
    pub extended: bool,
    /// Whether TLS is refused or required. Default: [`TlsMode::Off`].
    pub tls: TlsMode,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self { structured: true, extended: true, tls: TlsMode::Off }
    }
}

/// The handshake of one connection, server role.
#[derive(Debug)]
pub struct Handshake {
    config: ServerConfig,
    phase: Phase,
    /// The field or payload that is being received.
    buffer: Vec<u8>,
    output: Vec<u8>,
    options_seen: u32,
    client_flags: u16,
    mode: ReplyMode,
    selection: Option<Selection>,
    tls_active: bool,
    shutting_down: bool,
}

/// Where the handshake stands. Exactly one of: waiting for bytes, waiting for the driver, over.
#[derive(Debug)]
enum Phase {
    /// Four bytes of client flags.
    ClientFlags,
    /// Sixteen bytes of option header.
    OptionHeader,
    /// The payload of an option; kept only where it means something.
    OptionData {
        option: OptionCode,
        len: u32,
        left: u32,
    },
    /// The driver is asked for an export.
    Lookup(Pending),
    /// The driver is asked for all exports.
    List,
    /// The driver runs a TLS handshake.
    StartTls,
    Finished(Box<Session>),
    Closed(CloseReason),
}

/// The option that waits for a lookup.
#[derive(Clone, Debug)]
enum Pending {
    Describe { option: OptionCode, request: DescribeRequest },
    ExportName { name: String },
    Contexts { option: OptionCode, request: ContextRequest },
}

/// The last successful SET_META_CONTEXT. Ids are positions, so the list they were given for is kept with
/// them.
#[derive(Debug)]
struct Selection {
    export: String,
    contexts: Vec<String>,
    selected: SelectedContexts,
}

impl Handshake {
    /// A new connection; its greeting is already in the output.
    pub fn new(config: ServerConfig) -> Self {
        let mut output = Vec::new();
        output.put_u64(NBD_MAGIC);
        output.put_u64(OPTION_MAGIC);
        output.put_u16(FIXED_NEWSTYLE | NO_ZEROES);
        Self {
            config,
            phase: Phase::ClientFlags,
            buffer: Vec::new(),
            output,
            options_seen: 0,
            client_flags: 0,
            mode: ReplyMode::Simple,
            selection: None,
            tls_active: false,
            shutting_down: false,
        }
    }

    /// Bytes to send, in order. The caller takes them from the front; the machine only appends.
    pub fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    /// From now on every option but ABORT is answered `ERR_SHUTDOWN`, and EXPORT_NAME closes.
    pub fn begin_shutdown(&mut self) {
        self.shutting_down = true;
    }

    /// Consumes bytes from the client and returns how many. What is left over is to be offered again after
    /// the next step was taken; once that is [`Step::Finished`] it belongs to the transmission phase.
    ///
    /// # Errors
    ///
    /// When the client broke the protocol in a way that has no error reply: send the output, then close. The
    /// error is kept, and every later call returns it again.
    pub fn receive(&mut self, input: &[u8]) -> Result<usize, HandshakeError> {
        let mut consumed = 0;
        while self.wants_input() {
            let before = consumed;
            match self.take(&input[consumed..]) {
                Ok(taken) => consumed += taken,
                Err(why) => self.phase = Phase::Closed(CloseReason::Violation(why)),
            }
            if consumed == before {
                break;
            }
        }
        if matches!(self.phase, Phase::StartTls) && consumed < input.len() {
            self.phase = Phase::Closed(CloseReason::Violation(HandshakeError::PlaintextBehindStartTls));
        }
        match self.phase {
            Phase::Closed(CloseReason::Violation(why)) => Err(why),
            _ => Ok(consumed),
        }
    }

    /// What must happen now.
    pub fn next_step(&self) -> Step {
        match &self.phase {
            Phase::OptionHeader if self.is_paused() => Step::SendOutput,
            Phase::ClientFlags | Phase::OptionHeader | Phase::OptionData { .. } => Step::NeedInput,
            Phase::Lookup(pending) => {
                let (name, purpose) = pending.question();
                Step::Lookup { name: name.into(), purpose }
            }
            Phase::List => Step::List,
            Phase::StartTls => Step::StartTls,
            Phase::Finished(session) => Step::Finished(session.clone()),
            Phase::Closed(reason) => Step::Close(reason.clone()),
        }
    }

    /// Answers [`Step::Lookup`].
    ///
    /// # Panics
    ///
    /// When nothing was looked up, or the export has a [`problem`](ExportInfo::problem): both are bugs of the
    /// caller.
    pub fn answer_lookup(&mut self, answer: Result<ExportInfo, LookupError>) {
        let Phase::Lookup(pending) = core::mem::replace(&mut self.phase, Phase::OptionHeader) else {
            panic!("answer_lookup without Step::Lookup");
        };
        if let Some(problem) = answer.as_ref().ok().and_then(ExportInfo::problem) {
            panic!("export cannot be offered: {problem}");
        }
        match (pending, answer) {
            (Pending::ExportName { name }, Ok(export)) => self.export_name_ok(name, export),
            (Pending::ExportName { .. }, Err(why)) => self.close(CloseReason::ExportNameRefused(why)),
            (Pending::Describe { option, request }, Ok(export)) => self.describe_ok(option, request, export),
            (Pending::Describe { option, request }, Err(why)) => {
                self.refuse_lookup(option, &request.name, &why);
            }
            (Pending::Contexts { option, request }, Ok(export)) => {
                self.contexts_ok(option, &request, &export);
            }
            (Pending::Contexts { option, request }, Err(why)) => {
                self.refuse_lookup(option, &request.name, &why);
            }
        }
    }

    /// Answers [`Step::List`] with canonical names; an iterator without items is a lawful answer.
    ///
    /// # Panics
    ///
    /// When no list was asked for.
    pub fn answer_list<'a>(&mut self, names: impl Iterator<Item = &'a str>) {
        assert!(matches!(self.phase, Phase::List), "answer_list without Step::List");
        self.phase = Phase::OptionHeader;
        let start = self.output.len();
        let mut reply = self.reply(OptionCode::LIST);
        for name in names {
            reply.server(name);
            if reply.out.len() - start > LIST_MAX_BYTES {
                // A list that silently ends early would be a lie.
                reply.out.truncate(start);
                return reply.error(OptionError::TooBig, "the list of exports is too long");
            }
        }
        reply.ack();
    }

    /// Answers [`Step::StartTls`] after the TLS handshake succeeded; input and output are plain bytes inside
    /// TLS from now on.
    ///
    /// # Panics
    ///
    /// When TLS was not asked for.
    pub fn tls_started(&mut self) {
        assert!(matches!(self.phase, Phase::StartTls), "tls_started without Step::StartTls");
        self.tls_active = true;
        self.phase = Phase::OptionHeader;
    }

    /// Too much waits to be sent for another option to be taken.
    fn is_paused(&self) -> bool {
        self.output.len() >= OUTPUT_PAUSE_BYTES
    }

    fn wants_input(&self) -> bool {
        match self.phase {
            Phase::OptionHeader => !self.is_paused(),
            Phase::ClientFlags | Phase::OptionData { .. } => true,
            _ => false,
        }
    }

    /// Consumes at most one field.
    fn take(&mut self, input: &[u8]) -> Result<usize, HandshakeError> {
        match self.phase {
            Phase::ClientFlags => {
                let taken = self.gather(input, 4);
                if let Some(flags) = Reader(&self.buffer).u32() {
                    self.buffer.clear();
                    self.client_flags_received(flags)?;
                }
                Ok(taken)
            }
            Phase::OptionHeader => {
                let taken = self.gather(input, 16);
                if self.buffer.len() == 16 {
                    self.option_header_received()?;
                }
                Ok(taken)
            }
            Phase::OptionData { option, len, left } => {
                let taken = input.len().min(left as usize);
                if keeps_data(option) {
                    self.buffer.extend_from_slice(&input[..taken]);
                }
                let left = left - taken as u32;
                self.phase = Phase::OptionData { option, len, left };
                if left == 0 {
                    self.option_received(option, len)?;
                }
                Ok(taken)
            }
            _ => Ok(0),
        }
    }

    /// Moves bytes into the buffer until it has `need` of them.
    fn gather(&mut self, input: &[u8], need: usize) -> usize {
        let taken = input.len().min(need - self.buffer.len());
        self.buffer.extend_from_slice(&input[..taken]);
        taken
    }

    fn client_flags_received(&mut self, flags: u32) -> Result<(), HandshakeError> {
        if flags & !u32::from(FIXED_NEWSTYLE | NO_ZEROES) != 0 {
            return Err(HandshakeError::ClientFlags(flags));
        }
        self.client_flags = flags as u16;
        self.phase = Phase::OptionHeader;
        Ok(())
    }

    fn option_header_received(&mut self) -> Result<(), HandshakeError> {
        let mut header = Reader(&self.buffer);
        // Sixteen bytes are there, so the fields cannot be missing.
        let magic = header.u64().unwrap_or_default();
        let option = OptionCode(header.u32().unwrap_or_default());
        let len = header.u32().unwrap_or_default();
        self.buffer.clear();
        if magic != OPTION_MAGIC {
            return Err(HandshakeError::OptionMagic(magic));
        }
        if len > OPTION_MAX_BYTES {
            return Err(HandshakeError::OptionTooLong { option, len_bytes: len });
        }
        if self.options_seen == OPTIONS_MAX {
            return Err(HandshakeError::TooManyOptions);
        }
        self.options_seen += 1;
        self.phase = Phase::OptionData { option, len, left: len };
        if len == 0 { self.option_received(option, 0) } else { Ok(()) }
    }

    fn reply(&mut self, option: OptionCode) -> OptionReply<'_> {
        OptionReply { option, out: &mut self.output }
    }

    fn close(&mut self, reason: CloseReason) {
        self.phase = Phase::Closed(reason);
    }
}

impl Pending {
    fn question(&self) -> (&str, Purpose) {
        match self {
            Self::ExportName { name } => (name, Purpose::ExportName),
            Self::Describe { option: OptionCode::GO, request } => (&request.name, Purpose::Go),
            Self::Describe { request, .. } => (&request.name, Purpose::Info),
            Self::Contexts { option: OptionCode::SET_META_CONTEXT, request } => {
                (&request.name, Purpose::SetContexts)
            }
            Self::Contexts { request, .. } => (&request.name, Purpose::ListContexts),
        }
    }
}

/// Payloads worth keeping; any other is skipped as it comes.
fn keeps_data(option: OptionCode) -> bool {
    matches!(
        option,
        OptionCode::EXPORT_NAME
            | OptionCode::INFO
            | OptionCode::GO
            | OptionCode::LIST_META_CONTEXT
            | OptionCode::SET_META_CONTEXT
    )
}
