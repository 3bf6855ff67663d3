// SPDX-License-Identifier: MIT OR Apache-2.0
//! Answers on their way to hosts.
//!
//! A reply is a header in the message's arena and references to the buffers the data
//! landed in; nothing is copied. Its request counts for the session until the kernel has
//! taken the reply, so a host that never reads is bounded by its own share.

use engine::RequestTag;
use nbd::server::{BASE_ALLOCATION_ID, REPLY_HEADER_MAX, ReplyEncoder, StatusReply, encode_status};
use nbd::{Command, CommandFlags, Errno, Extent};
use ring::{Message, Resource};

use crate::host::session::{Phase, Refused};
use crate::reactor::{Conn, Reactor};
use crate::requests::{Request, key_of};
use crate::slab::Key;
use crate::tokens::{Asked, token};

/// Headers up to this go to the arena; longer ones take a buffer.
const INLINE_BYTES_MAX: usize = 64;

impl Reactor {
    /// The engine's answer to a request.
    pub(crate) fn reply_to_host(&mut self, tag: RequestTag, result: Result<(), Errno>) {
        let request = self.requests.remove(key_of(tag)).expect("the engine answered a request twice");
        self.budget.release(request.reserved);
        let key = request.session;
        let session = self.session_mut(key);
        session.unanswered -= 1;
        if session.phase == Phase::Gone {
            self.session_forget(key);
            return;
        }
        if session.is_ended() {
            // Cut off right after this. What it had in execution stays unanswered: its sender knows
            // nothing of it, which is the truth.
            return;
        }
        match (result, request.command) {
            (Err(Errno::Shutdown), _) => self.leave_unanswered(key, request.charge),
            (Ok(()), Command::Read) => self.reply_data(&request),
            (Ok(()), Command::BlockStatus) => self.reply_status(&request),
            (result, _) => self.reply_plain(key, request.cookie, request.offset, result, request.charge),
        }
    }

    /// A request that the engine never saw.
    pub(crate) fn session_refuse(&mut self, key: Key, refused: Refused) {
        self.reply_plain(key, refused.cookie, refused.offset, Err(refused.refusal.errno), 0);
    }

    fn reply_plain(&mut self, key: Key, cookie: u64, offset: u64, result: Result<(), Errno>, charge: usize) {
        let session = self.sessions.get_mut(key).expect("a session outlives its requests");
        let encoder = ReplyEncoder::new(session.mode.reply, cookie, offset);
        let mut header = [0; REPLY_HEADER_MAX];
        let len = match result {
            Ok(()) => encoder.done(&mut header),
            Err(errno) => encoder.error(errno, &mut header),
        };
        let (message, load) = session.outbox.room(0, &mut self.messages);
        message.push_header(&header[..len]);
        load.frames += 1;
        load.charge += charge;
        self.session_dirty(key);
    }

    /// We stop, and this request was not carried out: without an answer its host
    /// re-sends it to whoever serves next; an error it would believe (design 3.3).
    fn leave_unanswered(&mut self, key: Key, charge: usize) {
        let session = self.session_mut(key);
        session.in_flight -= 1;
        session.held_bytes -= charge;
        self.session_finish(key);
        self.session_wind_up(key);
    }

    fn reply_data(&mut self, request: &Request) {
        let session = self.sessions.get_mut(request.session).expect("a session outlives its requests");
        let encoder = ReplyEncoder::new(session.mode.reply, request.cookie, request.offset);
        let mut header = [0; REPLY_HEADER_MAX];
        // Accepted READs are at most the payload limit, far below 2^32.
        let len = encoder.read_ok(request.len as u32, &mut header);
        let (message, _) = session.outbox.room(1, &mut self.messages);
        message.push_header(&header[..len]);
        let mut data_bytes = 0;
        for buffer in request.data.iter().chain(&request.more) {
            let (message, _) = session.outbox.room(1, &mut self.messages);
            message.push_buffer(buffer, 0, buffer.len());
            data_bytes += buffer.len() as u64;
        }
        assert_eq!(data_bytes, request.len, "the data of a READ is not as long as the READ");
        let (_, load) = session.outbox.room(0, &mut self.messages);
        load.frames += 1;
        load.charge += request.charge;
        self.session_dirty(request.session);
    }

    /// Extents come as landed by a lane (see `lane::landing`); without any the status is
    /// unknown, which is lawful.
    fn reply_status(&mut self, request: &Request) {
        let session = self.sessions.get_mut(request.session).expect("a session outlives its requests");
        let status = StatusReply {
            encoder: ReplyEncoder::new(session.mode.reply, request.cookie, request.offset),
            len: request.len,
            one_extent: request.flags.contains(CommandFlags::REQ_ONE),
            context_id: BASE_ALLOCATION_ID,
            last: true,
        };
        let extents = request.data.iter().flat_map(|buffer| decode_extents(buffer));
        self.scratch.clear();
        encode_status(&status, extents, &mut self.scratch);
        let parts = usize::from(self.scratch.len() > INLINE_BYTES_MAX);
        let (message, load) = session.outbox.room(parts, &mut self.messages);
        if parts == 0 {
            message.push_header(&self.scratch);
        } else {
            let mut buffer = self.pool.take(self.scratch.len());
            buffer.copy_from_slice(&self.scratch);
            message.push_buffer(&buffer.freeze(), 0, self.scratch.len());
        }
        load.frames += 1;
        load.charge += request.charge;
        self.session_dirty(request.session);
    }

    fn session_dirty(&mut self, key: Key) {
        let session = self.session_mut(key);
        if !session.dirty {
            session.dirty = true;
            self.dirty.push(Conn::Session(key));
        }
    }

    /// Sends what waits, unless a send is on its way.
    pub(crate) fn session_send(&mut self, key: Key) {
        let now = self.clock.now();
        let Some(session) = self.sessions.get_mut(key) else { return };
        session.dirty = false;
        while let Some(session) = self.sessions.get_mut(key) {
            let Some(fd) = session.fd.as_ref() else { return };
            let Some(mut message) = session.outbox.next() else { return };
            session.progress_at = now;
            match message.send_now(fd) {
                Ok(_) if message.remaining() == 0 => self.session_was_sent(key, message, 0),
                Ok(_) => return self.ring.send(token(Asked::SessionSend, key), fd, message),
                Err(error) => {
                    session.outbox.failed(message, &mut self.messages);
                    self.session_lost(key, &error.desc());
                }
            }
        }
    }

    /// A send of a session has ended.
    pub(crate) fn session_sent(&mut self, key: Key, result: Result<u32, ring::Errno>, resource: Resource) {
        let Resource::Message(message) = resource else { panic!("a send without its message") };
        let session = self.sessions.get_mut(key).expect("a session outlives its operations");
        match result {
            Ok(sent) if session.phase != Phase::Gone => {
                self.session_was_sent(key, message, sent as usize);
                self.session_send(key);
            }
            result => {
                session.outbox.failed(message, &mut self.messages);
                if let Err(error) = result {
                    self.session_lost(key, &error.desc());
                }
                self.session_forget(key);
            }
        }
    }

    /// The kernel took `sent` more bytes of a message.
    fn session_was_sent(&mut self, key: Key, message: Box<Message>, sent: usize) {
        let now = self.clock.now();
        let session = self.sessions.get_mut(key).expect("a session outlives its sends");
        session.progress_at = now;
        if let Some(load) = session.outbox.sent(message, sent, &mut self.messages) {
            session.in_flight -= load.frames;
            session.held_bytes -= load.charge;
            self.session_relieved(key);
        }
    }

    /// Replies have left: go on reading, or end.
    fn session_relieved(&mut self, key: Key) {
        let session = self.session_mut(key);
        if session.phase == Phase::Finishing {
            self.session_wind_up(key);
        } else if session.paused.as_ref().is_some_and(|paused| paused.why == crate::budget::Wait::Own) {
            self.session_resume(key, false);
        }
    }
}

/// Bytes of one extent as lanes land it: length and status, big-endian.
pub(crate) const EXTENT_BYTES: usize = 16;

/// Writes extents as [`decode_extents`] reads them.
pub(crate) fn encode_extents(extents: impl Iterator<Item = Extent>, out: &mut Vec<u8>) {
    for extent in extents {
        out.extend_from_slice(&extent.len.to_be_bytes());
        out.extend_from_slice(&extent.flags.to_be_bytes());
    }
}

fn decode_extents(bytes: &[u8]) -> impl Iterator<Item = Extent> {
    let word = |bytes: &[u8]| u64::from_be_bytes(bytes.try_into().expect("eight bytes"));
    bytes
        .chunks_exact(EXTENT_BYTES)
        .map(move |pair| Extent { len: word(&pair[..8]), flags: word(&pair[8..]) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn landed_extents_come_back() {
        let extents = [Extent { len: 4096, flags: 3 }, Extent { len: u64::MAX, flags: 0 }];
        let mut bytes = Vec::new();
        encode_extents(extents.into_iter(), &mut bytes);
        assert!(decode_extents(&bytes).eq(extents));
    }
}
