// SPDX-License-Identifier: MIT OR Apache-2.0
//! The two ends of a connection in memory: handshake machines with a driver that answers at once.
//!
//! The fuzz bodies and the tests of the `nbd` crate share this file, so that both exercise the machines
//! exactly as a driver must: bytes are offered again until they are consumed, output is drained when asked,
//! and what is left behind the end is kept.
#![allow(dead_code, reason = "each user needs a part of it")]

use nbd::client::{self, ClientConfig, Negotiated};
use nbd::server::{self, CloseReason, ExportInfo, LookupError, ServerConfig, Session};

/// Server end.
#[derive(Debug)]
pub(crate) struct ServerEnd {
    pub(crate) handshake: server::Handshake,
    /// The empty name means the first of these.
    pub(crate) exports: Vec<ExportInfo>,
    /// Everything sent so far.
    pub(crate) sent: Vec<u8>,
    /// Received but not consumed; behind the end it belongs to the transmission phase.
    pub(crate) unread: Vec<u8>,
    /// `None` while the handshake goes on.
    pub(crate) end: Option<Result<Box<Session>, CloseReason>>,
    /// Stop at a lookup instead of answering.
    pub(crate) hold_lookups: bool,
    /// Most bytes that ever waited to be sent.
    pub(crate) output_high_bytes: usize,
}

impl ServerEnd {
    pub(crate) fn new(config: ServerConfig, exports: Vec<ExportInfo>) -> Self {
        let handshake = server::Handshake::new(config);
        let mut end = Self {
            handshake,
            exports,
            sent: Vec::new(),
            unread: Vec::new(),
            end: None,
            hold_lookups: false,
            output_high_bytes: 0,
        };
        end.drain();
        end
    }

    /// Receives bytes and goes as far as they reach.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        self.unread.extend_from_slice(bytes);
        self.run();
    }

    /// Goes as far as the unread bytes reach.
    pub(crate) fn run(&mut self) {
        while self.end.is_none() {
            let consumed = self.handshake.receive(&self.unread).unwrap_or(0);
            self.unread.drain(..consumed);
            match self.handshake.next_step() {
                server::Step::NeedInput if consumed == 0 => break,
                server::Step::NeedInput => {}
                server::Step::SendOutput => self.drain(),
                server::Step::Lookup { .. } if self.hold_lookups => break,
                server::Step::Lookup { name, .. } => {
                    let answer = self.lookup(&name);
                    self.handshake.answer_lookup(answer);
                }
                server::Step::List => {
                    let names: Vec<String> = self.exports.iter().map(|export| export.name.clone()).collect();
                    self.handshake.answer_list(names.iter().map(String::as_str));
                }
                server::Step::StartTls => {
                    assert!(self.unread.is_empty(), "plaintext behind STARTTLS was let through");
                    self.handshake.tls_started();
                    break;
                }
                server::Step::Finished(session) => self.end = Some(Ok(session)),
                server::Step::Close(reason) => self.end = Some(Err(reason)),
            }
        }
        self.drain();
    }

    pub(crate) fn lookup(&self, name: &str) -> Result<ExportInfo, LookupError> {
        match name {
            "down" => return Err(LookupError::Shutdown("the device is not there yet".into())),
            "secret" => return Err(LookupError::Policy("not for you".into())),
            _ => {}
        }
        let known = self.exports.iter().find(|export| export.name == name);
        let default = self.exports.first().filter(|_| name.is_empty());
        known.or(default).cloned().ok_or(LookupError::Unknown)
    }

    pub(crate) fn drain(&mut self) {
        let output = self.handshake.output();
        self.output_high_bytes = self.output_high_bytes.max(output.len());
        self.sent.append(output);
    }
}

/// Client end.
#[derive(Debug)]
pub(crate) struct ClientEnd {
    pub(crate) handshake: client::Handshake,
    /// Everything sent so far.
    pub(crate) sent: Vec<u8>,
    /// Received but not consumed.
    pub(crate) unread: Vec<u8>,
    /// `None` while the handshake goes on.
    pub(crate) end: Option<Result<Box<Negotiated>, client::HandshakeError>>,
}

impl ClientEnd {
    pub(crate) fn new(config: ClientConfig) -> Self {
        let handshake = client::Handshake::new(config);
        Self { handshake, sent: Vec::new(), unread: Vec::new(), end: None }
    }

    /// Receives bytes and goes as far as they reach.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        self.unread.extend_from_slice(bytes);
        while self.end.is_none() {
            let consumed = self.handshake.receive(&self.unread).unwrap_or(0);
            self.unread.drain(..consumed);
            match self.handshake.next_step() {
                client::Step::NeedInput if consumed == 0 => break,
                client::Step::NeedInput => {}
                client::Step::StartTls => {
                    assert!(self.unread.is_empty(), "plaintext behind STARTTLS was let through");
                    self.handshake.tls_started();
                    break;
                }
                client::Step::ChooseExport(listed) => {
                    let name = if listed.is_empty() { "vol0" } else { "vol1" };
                    self.handshake.choose_export(name, !listed.is_empty());
                }
                client::Step::Finished(negotiated) => self.end = Some(Ok(negotiated)),
                client::Step::Failed(why) => self.end = Some(Err(why)),
            }
        }
        self.sent.append(self.handshake.output());
    }
}
