// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a host sends becomes requests of the engine.
//!
//! A request is accepted when its header is read: its memory is taken or reserved then,
//! or the host's socket is not read until there is some (see `budget`). Nothing here
//! waits, and nothing a host sends is answered with more than an error or a close.

use engine::{Event, HostRequest, SessionId};
use nbd::server::{AcceptedRequest, Verdict, check_request};
use nbd::{Command, CommandFlags, ReplyMode, RequestHeader};
use ring::{Buffer, Errno, Resource};

use crate::budget::{Budget, Wait};
use crate::host::inbox::{Found, Receive};
use crate::host::session::{Paused, Phase, Refused};
use crate::limits::{RECV_BYTES_MIN, REQUEST_OVERHEAD_BYTES, SESSION_REQUESTS_MAX};
use crate::log;
use crate::reactor::{Conn, Reactor};
use crate::requests::{Request, tag_of};
use crate::slab::Key;
use crate::tokens::{Asked, token};

impl Reactor {
    /// A receive of a session has ended.
    pub(crate) fn session_received(&mut self, key: Key, result: Result<u32, Errno>, resource: Resource) {
        let now = self.clock.now();
        let session = self.session_mut(key);
        session.receiving = false;
        session.heard_at = now;
        if session.phase != Phase::Serving {
            drop(resource);
            self.session_heard(key, result);
            return;
        }
        match (resource, result) {
            (Resource::Chunk(chunk), Ok(len)) => {
                session.inbox.note_chunk(len as usize);
                let used = self.session_input(key, &chunk);
                self.session_keep(key, &chunk[used..]);
            }
            (Resource::Buffer(buffer), Ok(len @ 1..)) => {
                let found = session.inbox.direct_done(buffer, len as usize);
                self.session_found(key, found);
            }
            (_, Err(Errno::ENOBUFS)) => {
                self.starved.push(Conn::Session(key));
                return;
            }
            (_, Ok(_)) => self.session_lost(key, &"closed its connection without DISC"),
            (_, Err(error)) => self.session_lost(key, &error.desc()),
        }
        self.session_receive(key);
    }

    /// Bytes that came behind the handshake; then the first receive.
    pub(crate) fn session_unread(&mut self, key: Key, rest: &[u8]) {
        let used = self.session_input(key, rest);
        self.session_keep(key, &rest[used..]);
        self.session_receive(key);
    }

    /// Arms the next receive, unless the session must wait.
    pub(crate) fn session_receive(&mut self, key: Key) {
        let short = self.budget.is_short(self.pool.live_bytes());
        let Some(session) = self.sessions.get_mut(key) else { return };
        let Some(fd) = session.fd.as_ref() else { return };
        if session.phase != Phase::Serving || session.receiving || session.paused.is_some() {
            return;
        }
        session.receiving = true;
        let token = token(Asked::SessionReceive, key);
        match session.inbox.receive() {
            // What must wait is kept: little of it, when memory is short.
            Receive::Chunk(len) => {
                let len = if short { len.min(RECV_BYTES_MIN) } else { len };
                self.ring.recv_chunk(token, fd, len, session.expect);
            }
            Receive::Direct { buffer, at, len, whole } => {
                self.ring.recv_into(token, fd, buffer, at, len, whole);
            }
        }
    }

    /// Takes bytes of a host; how many were used. Fewer than all only when the session
    /// pauses or ends.
    fn session_input(&mut self, key: Key, input: &[u8]) -> usize {
        let mut left = input;
        while let Some(session) = self.sessions.get_mut(key) {
            if session.phase != Phase::Serving || session.paused.is_some() {
                break;
            }
            let found = session.inbox.find(&mut left);
            if matches!(found, Found::Nothing) {
                break;
            }
            self.session_found(key, found);
        }
        input.len() - left.len()
    }

    fn session_found(&mut self, key: Key, found: Found) {
        match found {
            Found::Nothing => {}
            Found::Header(header) => self.session_header(key, &header, false),
            Found::Payload(request, payload) => self.session_request(key, &request, Some(payload)),
            Found::Skipped => {
                let refused = self.session_mut(key).refused.take();
                self.session_refuse(key, refused.expect("only refused payloads are skipped"));
            }
            Found::Violation(violation) => self.session_violated(key, &violation),
        }
    }

    /// Bytes that were not used belong to a request that waits, or to nobody.
    fn session_keep(&mut self, key: Key, rest: &[u8]) {
        if let Some(session) = self.sessions.get_mut(key)
            && session.phase == Phase::Serving
        {
            session.inbox.keep(rest, &self.pool);
        }
    }

    /// Judges a header. `head`: the session is at the head of the queue for memory.
    fn session_header(&mut self, key: Key, header: &RequestHeader, head: bool) {
        let session = self.session_mut(key);
        if session.in_flight >= SESSION_REQUESTS_MAX {
            session.paused = Some(Paused { header: *header, why: Wait::Own });
            return;
        }
        let header = &tolerant(*header, session.mode.reply);
        match check_request(header, &session.limits, session.mode) {
            Verdict::Accept(request) => self.session_accept(key, header, &request, head),
            Verdict::Reject { refusal, discard_bytes } => {
                session.in_flight += 1;
                let refused = Refused { cookie: header.cookie, offset: header.offset, refusal };
                if discard_bytes > 0 {
                    session.inbox.begin_skip(discard_bytes);
                    session.refused = Some(refused);
                } else {
                    self.session_refuse(key, refused);
                }
            }
            Verdict::RejectAndClose(refusal) => {
                session.in_flight += 1;
                log::warning!("host", "{} sent an oversized request: {}", session.peer, refusal.reason);
                self.session_refuse(key, Refused { cookie: header.cookie, offset: header.offset, refusal });
                self.session_finish(key);
            }
            Verdict::Disconnect => self.session_finish(key),
        }
    }

    /// Takes memory for a request, or makes it wait.
    fn session_accept(&mut self, key: Key, header: &RequestHeader, request: &AcceptedRequest, head: bool) {
        let has_data = matches!(request.command, Command::Read | Command::Write);
        let cost = Budget::cost(if has_data { request.len as usize } else { 0 });
        let queue = !head && !self.memory_queue.is_empty();
        let held = self.session_mut(key).held_bytes;
        if let Err(why) = self.budget.judge(cost, self.pool.live_bytes(), held, queue) {
            if why == Wait::Memory && !head {
                self.memory_queue.push_back(key);
            }
            self.session_mut(key).paused = Some(Paused { header: *header, why });
            return;
        }
        let session = self.session_mut(key);
        session.in_flight += 1;
        session.held_bytes += cost;
        if request.command == Command::Write {
            let buffer = self.pool.take(request.payload_bytes as usize);
            let now = self.clock.now();
            let session = self.session_mut(key);
            session.payload_since = now;
            session.inbox.begin_payload(*request, buffer);
        } else {
            self.session_request(key, request, None);
        }
    }

    /// Hands a complete request to the engine.
    fn session_request(&mut self, key: Key, request: &AcceptedRequest, payload: Option<Buffer>) {
        let has_data = matches!(request.command, Command::Read | Command::Write);
        let charge = Budget::cost(if has_data { request.len as usize } else { 0 });
        let reserved = if request.command == Command::Read { charge } else { REQUEST_OVERHEAD_BYTES };
        self.budget.reserve(reserved);
        let session = self.session_mut(key);
        session.unanswered += 1;
        let device = session.device;
        let tag = tag_of(self.requests.insert(Request {
            session: key,
            cookie: request.cookie,
            command: request.command,
            flags: request.flags,
            offset: request.offset,
            len: request.len,
            charge,
            reserved,
            data: None,
            more: Vec::new(),
        }));
        let payload = payload.map(|buffer| self.held.lend(buffer));
        let host = HostRequest {
            tag,
            session: SessionId(key.index),
            command: request.command,
            flags: request.flags,
            offset: request.offset,
            len: request.len,
            payload,
        };
        self.feed(device, Event::Request(host));
    }

    /// One of the session's own requests is done: what waited for that may go on.
    pub(crate) fn session_resume(&mut self, key: Key, head: bool) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let Some(Paused { header, .. }) = session.paused.take() else { return };
        if session.phase != Phase::Serving {
            return;
        }
        self.session_header(key, &header, head);
        while let Some(session) = self.sessions.get_mut(key) {
            if session.paused.is_some() || session.phase != Phase::Serving {
                return;
            }
            let Some((rest, at)) = session.inbox.take_rest() else { break };
            let used = self.session_input(key, &rest[at..]);
            if let Some(session) = self.sessions.get_mut(key)
                && session.phase == Phase::Serving
            {
                session.inbox.put_rest(rest, at + used);
            }
        }
        self.session_receive(key);
    }

    /// Memory has come back: sessions that waited for it go on, in order.
    pub(crate) fn serve_memory_queue(&mut self) {
        while let Some(&key) = self.memory_queue.front() {
            let waits = self
                .sessions
                .get(key)
                .is_some_and(|session| matches!(session.paused, Some(Paused { why: Wait::Memory, .. })));
            if waits {
                self.session_resume(key, true);
            }
            let still = self
                .sessions
                .get(key)
                .is_some_and(|session| matches!(session.paused, Some(Paused { why: Wait::Memory, .. })));
            if still {
                return;
            }
            self.memory_queue.pop_front();
        }
    }
}

/// QEMU's client (seen in 10.0.2) forgets PAYLOAD_LEN on extended WRITEs, and its server
/// takes them all the same; a refusal would lose the place in the stream.
fn tolerant(mut header: RequestHeader, mode: ReplyMode) -> RequestHeader {
    if mode.is_extended() && header.command == Command::Write as u16 {
        header.flags = header.flags.with(CommandFlags::PAYLOAD_LEN);
    }
    header
}
