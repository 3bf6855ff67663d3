// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a server sends becomes replies for the engine.
//!
//! Everything is checked: an unknown cookie, a wrong magic number, a chunk that does not
//! fit its request mean that the stream is out of step, and the lane is latched down.

use engine::{Event, LaneFault};
use nbd::client::{
    ChunkHeader, PlainReply, ReadAssembly, ReadPiece, ReplyHeader, ReplyViolation, StatusAssembly,
};
use nbd::{Command, CommandFlags, Errno};
use ring::{BufferMut, Resource};

use crate::lane::inbox::Found;
use crate::lane::pending::{Assembly, Pending};
use crate::lane::{Lane, Stage};
use crate::limits::RECV_WHOLE_BYTES_MAX;
use crate::reactor::{Conn, Reactor};
use crate::slab::Key;
use crate::tokens::{Asked, token};

/// Why a lane's stream cannot be trusted any more.
type Broken = String;

impl Reactor {
    /// Arms the next receive of a lane.
    pub(crate) fn lane_receive(&mut self, key: Key) {
        let Some(lane) = self.lanes.get_mut(key) else { return };
        let Some(fd) = lane.fd.as_ref() else { return };
        if lane.receiving || lane.is_ending() {
            return;
        }
        lane.receiving = true;
        let token = token(Asked::LaneReceive, key);
        let Some((cookie, at, left)) = lane.inbox.direct() else {
            self.ring.recv_chunk(token, fd, lane.inbox.recv_bytes(), lane.expect);
            return;
        };
        let pending = lane.pending.get_mut(cookie).expect("data is only expected for a request in flight");
        let buffer = pending.buffer.take().expect("data is only expected with a buffer");
        self.ring.recv_into(token, fd, buffer, at, left, left <= RECV_WHOLE_BYTES_MAX);
    }

    /// A receive of a lane has ended.
    pub(crate) fn lane_received(&mut self, key: Key, result: Result<u32, ring::Errno>, resource: Resource) {
        let lane = self.lanes.get_mut(key).expect("a lane outlives its operations");
        lane.receiving = false;
        if lane.is_ending() {
            drop(resource);
            self.lane_settle(key);
            return;
        }
        match (resource, result) {
            (Resource::Chunk(chunk), Ok(len)) => {
                lane.inbox.note_chunk(len as usize);
                match lane.stage {
                    Stage::Handshake(_) => self.lane_shake_input(key, &chunk),
                    _ => self.lane_input(key, &chunk),
                }
            }
            (Resource::Buffer(buffer), Ok(len @ 1..)) => self.lane_direct(key, buffer, len as usize),
            (_, Err(ring::Errno::ENOBUFS)) => {
                self.starved.push(Conn::Lane(key));
                return;
            }
            (resource, Err(ring::Errno::ECANCELED)) if lane.quiet => lane_restore(lane, resource),
            (resource, Ok(_)) => {
                lane_restore(lane, resource);
                self.lane_eof(key);
            }
            (resource, Err(error)) => {
                lane_restore(lane, resource);
                self.lane_fail(key, LaneFault::Reset(error.desc().into()));
            }
        }
        self.lane_receive(key);
    }

    /// A direct receive brought bytes.
    fn lane_direct(&mut self, key: Key, buffer: BufferMut, len: usize) {
        let lane = self.lanes.get_mut(key).expect("only called for lanes in the table");
        let (cookie, at, _) = lane.inbox.direct().expect("a direct receive has its request");
        let pending = lane.pending.get_mut(cookie).expect("a direct receive has its request");
        pending.buffer = Some(buffer);
        pending.note_arrived(at, len);
        let (device, id) = (lane.device, lane.id);
        if lane.inbox.took(len) {
            self.lane_data_complete(key, cookie);
        } else {
            self.feed(device, Event::LaneActive(id));
        }
    }

    /// Takes bytes of a server.
    fn lane_input(&mut self, key: Key, input: &[u8]) {
        let mut left = input;
        let mut answered = false;
        while let Some(lane) = self.lanes.get_mut(key) {
            if lane.is_ending() {
                return;
            }
            let step = match lane.inbox.find(&mut left, lane.mode) {
                Found::Nothing => break,
                Found::Violation(violation) => Err(violation.to_string()),
                Found::Header(header) => self.lane_header(key, &header),
                Found::Chunk(chunk) => self.lane_chunk(key, &chunk),
                Found::Data { cookie, at, len } => Ok(self.lane_data(key, cookie, at, take(&mut left, len))),
                Found::Status { cookie, len } => self.lane_status(key, cookie, take(&mut left, len)),
            };
            match step {
                Ok(complete) => answered |= complete,
                Err(broken) => return self.lane_fail(key, LaneFault::Protocol(broken)),
            }
        }
        if !answered && let Some(lane) = self.lanes.get(key) {
            let (device, id) = (lane.device, lane.id);
            self.feed(device, Event::LaneActive(id));
        }
    }

    /// A header. `Ok(true)`: a request was answered.
    fn lane_header(&mut self, key: Key, header: &ReplyHeader) -> Result<bool, Broken> {
        let lane = self.lanes.get_mut(key).expect("only called for lanes in the table");
        match *header {
            ReplyHeader::Chunk(chunk) => {
                find(lane, chunk.cookie)?;
                lane.inbox.begin_inline(chunk);
                Ok(false)
            }
            ReplyHeader::Simple { cookie, result } => {
                let has_chunks = lane.mode.has_chunks();
                let pending = find(lane, cookie)?;
                match (pending.command, result) {
                    (Command::Read, _) if has_chunks => Err(ReplyViolation::SimpleReply.to_string()),
                    (Command::BlockStatus, Ok(())) => Err(ReplyViolation::SimpleReply.to_string()),
                    _ if !matches!(pending.assembly, Assembly::Fresh) => {
                        Err("simple reply in the middle of a reply in chunks".into())
                    }
                    (Command::Read, Ok(())) => {
                        let len = pending.len as usize;
                        pending.buffer = Some(self.pool.take(len));
                        lane.inbox.begin_data(cookie, 0, len);
                        Ok(false)
                    }
                    _ => {
                        self.lane_complete(key, cookie, result);
                        Ok(true)
                    }
                }
            }
        }
    }

    /// A chunk with its fixed part.
    fn lane_chunk(&mut self, key: Key, chunk: &ChunkHeader) -> Result<bool, Broken> {
        let lane = self.lanes.get_mut(key).expect("only called for lanes in the table");
        let context_id = lane.context_id;
        let cookie = chunk.cookie;
        let Some(pending) = lane.pending.get_mut(cookie) else { return Err(unknown(cookie)) };
        begin_assembly(pending, context_id);
        let inline = &lane.inbox.inline;
        let outcome = match &mut pending.assembly {
            Assembly::Fresh => panic!("an assembly was just begun"),
            Assembly::Plain(plain) => {
                plain.accept(chunk, inline).map_err(broken)?;
                plain.outcome()
            }
            Assembly::Status(status) => {
                status.accept(chunk, inline).map_err(broken)?;
                let left = status.left_bytes() as usize;
                if left > 0 {
                    lane.inbox.begin_status(cookie, left);
                    return Ok(false);
                }
                return Ok(self.lane_status_end(key, cookie));
            }
            Assembly::Read(read) => {
                let piece = read.accept(chunk, inline).map_err(broken)?;
                let outcome = read.outcome();
                match piece {
                    ReadPiece::Data { at, len } => {
                        let buffer = pending.buffer.take();
                        let buffer = buffer.unwrap_or_else(|| self.pool.take(pending.len as usize));
                        pending.buffer = Some(buffer);
                        lane.inbox.begin_data(cookie, at as usize, len as usize);
                        return Ok(false);
                    }
                    ReadPiece::Zeroes { at, len } => {
                        let buffer = pending.buffer.take();
                        let mut buffer = buffer.unwrap_or_else(|| self.pool.take(pending.len as usize));
                        buffer[at as usize..(at + len) as usize].fill(0);
                        pending.buffer = Some(buffer);
                        pending.note_arrived(at as usize, len as usize);
                        outcome
                    }
                    ReadPiece::Error(_) | ReadPiece::End => outcome,
                }
            }
        };
        let Some(result) = outcome else { return Ok(false) };
        self.lane_complete(key, cookie, result);
        Ok(true)
    }

    /// Data out of a chunk. `true`: its request is answered.
    fn lane_data(&mut self, key: Key, cookie: u64, at: usize, bytes: &[u8]) -> bool {
        let lane = self.lanes.get_mut(key).expect("only called for lanes in the table");
        let pending = lane.pending.get_mut(cookie).expect("data is only expected for a request in flight");
        let buffer = pending.buffer.as_mut().expect("data is only expected with a buffer");
        buffer[at..at + bytes.len()].copy_from_slice(bytes);
        pending.note_arrived(at, bytes.len());
        lane.inbox.took(bytes.len()) && self.lane_data_complete(key, cookie)
    }

    /// The data of a header or chunk has arrived. `true`: its request is answered.
    fn lane_data_complete(&mut self, key: Key, cookie: u64) -> bool {
        let lane = self.lanes.get_mut(key).expect("only called for lanes in the table");
        let pending = lane.pending.get_mut(cookie).expect("data is only expected for a request in flight");
        let result = match &pending.assembly {
            Assembly::Read(read) => read.outcome(),
            _ => Some(Ok(())),
        };
        let Some(result) = result else { return false };
        self.lane_complete(key, cookie, result);
        true
    }

    /// Descriptors out of a chunk.
    fn lane_status(&mut self, key: Key, cookie: u64, bytes: &[u8]) -> Result<bool, Broken> {
        let lane = self.lanes.get_mut(key).expect("only called for lanes in the table");
        let Some(Pending { assembly: Assembly::Status(status), .. }) = lane.pending.get_mut(cookie) else {
            panic!("descriptors are only expected for a status in flight");
        };
        status.feed(bytes).map_err(broken)?;
        Ok(lane.inbox.took(bytes.len()) && self.lane_status_end(key, cookie))
    }

    /// Ends a status whose last chunk is complete.
    fn lane_status_end(&mut self, key: Key, cookie: u64) -> bool {
        let lane = self.lanes.get_mut(key).expect("only called for lanes in the table");
        let Some(pending) = lane.pending.get_mut(cookie) else { return false };
        let Assembly::Status(status) = &pending.assembly else { return false };
        let result = match status.outcome() {
            None => return false,
            Some(Err(errno)) => Err(errno),
            Some(Ok(extents)) => {
                let extents = extents.to_vec();
                let buffer = self.land_extents(extents.into_iter());
                let lane = self.lanes.get_mut(key).expect("only called for lanes in the table");
                let pending = lane.pending.get_mut(cookie).expect("found above");
                pending.buffer = Some(buffer);
                Ok(())
            }
        };
        self.lane_complete(key, cookie, result);
        true
    }

    fn lane_complete(&mut self, key: Key, cookie: u64, result: Result<(), Errno>) {
        let lane = self.lanes.get_mut(key).expect("only called for lanes in the table");
        let pending = lane.pending.remove(cookie).expect("a request is answered once");
        let (device, id) = (lane.device, lane.id);
        self.lane_answered(device, id, pending, result);
    }
}

fn take<'a>(input: &mut &'a [u8], len: usize) -> &'a [u8] {
    let (front, rest) = input.split_at(len);
    *input = rest;
    front
}

fn find(lane: &mut Lane, cookie: u64) -> Result<&mut Pending, Broken> {
    lane.pending.get_mut(cookie).ok_or_else(|| unknown(cookie))
}

fn unknown(cookie: u64) -> Broken {
    format!("reply with the unknown cookie {cookie:#x}")
}

fn broken(violation: ReplyViolation) -> Broken {
    violation.to_string()
}

/// The receive brought nothing (it was cancelled along with a send, or the stream ended): a lent buffer goes back to its
/// request.
fn lane_restore(lane: &mut Lane, resource: Resource) {
    if let (Resource::Buffer(buffer), Some((cookie, _, _))) = (resource, lane.inbox.direct()) {
        let pending = lane.pending.get_mut(cookie).expect("a direct receive has its request");
        pending.buffer = Some(buffer);
    }
}

fn begin_assembly(pending: &mut Pending, context_id: Option<u32>) {
    if !matches!(pending.assembly, Assembly::Fresh) {
        return;
    }
    let (offset, len) = (pending.offset, pending.len);
    pending.assembly = match pending.command {
        Command::Read => {
            Assembly::Read(ReadAssembly::new(offset, len as u32, pending.flags.contains(CommandFlags::DF)))
        }
        Command::BlockStatus => {
            let one = pending.flags.contains(CommandFlags::REQ_ONE);
            // A BLOCK_STATUS is only sent where the context was selected.
            let context_id = context_id.expect("BLOCK_STATUS without a context");
            Assembly::Status(Box::new(StatusAssembly::new(offset, len, one, context_id)))
        }
        _ => Assembly::Plain(PlainReply::new(offset, len)),
    };
}
