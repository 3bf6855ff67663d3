// SPDX-License-Identifier: MIT OR Apache-2.0
//! Requests on their way to a server.
//!
//! Frames are laid out in the order of the engine's `Send` actions, and the kernel's
//! count of accepted bytes is reported after every send: by it the engine knows, when the
//! lane breaks, which requests never left (contract, item 4).

use engine::{Event, LaneFault, LaneId, SendData, TcpSample};
use nbd::{Command, CommandFlags, REQUEST_HEADER_MAX, encode_request};
use ring::{Errno, Message, Resource, socket};

use crate::lane::pending::{Assembly, Landing, Pending};
use crate::lane::{Lane, Stage};
use crate::limits::LANE_USER_TIMEOUT_MS;
use crate::outbox::Messages;
use crate::reactor::{Conn, Reactor};
use crate::requests::Held;
use crate::slab::Key;
use crate::tokens::{Asked, token};

/// [`engine::Action::Send`] without its lane.
#[derive(Clone, Copy)]
pub(crate) struct Frame {
    pub(crate) cookie: u64,
    pub(crate) command: Command,
    pub(crate) flags: CommandFlags,
    pub(crate) offset: u64,
    pub(crate) len: u64,
    pub(crate) data: SendData,
}

impl Reactor {
    /// [`engine::Action::Send`].
    pub(crate) fn lane_request(&mut self, device: Key, id: LaneId, frame: &Frame) {
        // Down already, and the engine hears of it after this: the frame has not left.
        let Some(key) = self.lane_key(device, id) else { return };
        let lane = self.lanes.get_mut(key).expect("a bound lane is in the table");
        if lane.is_ending() {
            return;
        }
        assert!(matches!(lane.stage, Stage::Ready) && !lane.quiet, "a request on a lane that takes none");
        if lane.local.is_some() {
            self.local_request(key, frame);
            return;
        }
        lay_out(lane, frame, &self.held, &mut self.messages);
        if !lane.dirty {
            lane.dirty = true;
            self.dirty.push(Conn::Lane(key));
        }
    }

    /// Sends what waits, unless a send is on its way.
    pub(crate) fn lane_send_now(&mut self, key: Key) {
        let Some(lane) = self.lanes.get_mut(key) else { return };
        lane.dirty = false;
        while let Some(lane) = self.lanes.get_mut(key) {
            let Some(fd) = lane.fd.as_ref() else { return };
            let Some(mut message) = lane.outbox.next() else { break };
            match message.send_now(fd) {
                Ok(sent) => {
                    lane.taken_bytes += sent as u64;
                    if message.remaining() > 0 {
                        self.ring.send(token(Asked::LaneSend, key), fd, message);
                        self.lane_tell_sent(key, sent);
                        return;
                    }
                    lane.outbox.sent(message, 0, &mut self.messages);
                    self.lane_tell_sent(key, sent);
                }
                Err(error) => {
                    lane.outbox.failed(message, &mut self.messages);
                    self.lane_fail(key, LaneFault::Reset(error.desc().into()));
                }
            }
        }
        if let Some(lane) = self.lanes.get_mut(key)
            && let (Some(fd), Stage::Disconnecting { .. }, false) =
                (lane.fd.as_ref(), &lane.stage, lane.half_closed)
            && lane.outbox.is_empty()
        {
            lane.half_closed = true;
            socket::shutdown_write(fd);
        }
    }

    /// A send of a lane has ended.
    pub(crate) fn lane_sent(&mut self, key: Key, result: Result<u32, Errno>, resource: Resource) {
        let Resource::Message(message) = resource else { panic!("a send without its message") };
        let lane = self.lanes.get_mut(key).expect("a lane outlives its operations");
        let sent = result.unwrap_or(0) as usize;
        lane.taken_bytes += sent as u64;
        if lane.is_ending()
            || (lane.quiet && !matches!(lane.stage, Stage::Disconnecting { orderly: true, .. }))
        {
            // The rest of a frame that was cut is never sent; nor is that of a DISC, which proves nothing then.
            if let Stage::Disconnecting { proof, .. } = &mut lane.stage {
                *proof &= message.remaining() == sent;
            }
            lane.outbox.failed(message, &mut self.messages);
        } else if let Err(error) = result {
            lane.outbox.failed(message, &mut self.messages);
            self.lane_fail(key, LaneFault::Reset(error.desc().into()));
            return;
        } else {
            lane.outbox.sent(message, sent, &mut self.messages);
        }
        if lane.is_ending() {
            self.lane_settle(key);
            return;
        }
        self.lane_tell_sent(key, sent);
        self.lane_send_now(key);
    }

    /// Tells the engine how far the bytes of requests have left.
    fn lane_tell_sent(&mut self, key: Key, sent: usize) {
        let Some(lane) = self.lanes.get(key) else { return };
        if sent > 0 && matches!(lane.stage, Stage::Ready | Stage::Disconnecting { .. }) {
            let event = Event::LaneSent { lane: lane.id, sent_bytes: lane.sent_bytes() };
            let device = lane.device;
            self.feed(device, event);
        }
    }

    /// [`engine::Action::SampleTcp`].
    pub(crate) fn lane_sample(&mut self, device: Key, id: LaneId) {
        let Some(lane) = self.lane_key(device, id).and_then(|key| self.lanes.get(key)) else { return };
        let Some(fd) = lane.fd.as_ref().filter(|_| !lane.is_ending()) else { return };
        let info = socket::tcp_info(fd).unwrap_or_default();
        let sample = TcpSample {
            unacked: info.unacked,
            notsent_bytes: info.notsent_bytes,
            outq_bytes: info.outq_bytes,
            last_ack_ms: info.last_ack_ms,
            probes: info.probes,
            rto_us: info.rto_us,
        };
        self.events.push_back((device, Event::Tcp { lane: id, sample }));
    }

    /// [`engine::Action::UserTimeout`].
    pub(crate) fn lane_user_timeout(&mut self, device: Key, id: LaneId, enable: bool) {
        let Some(lane) = self.lane_key(device, id).and_then(|key| self.lanes.get(key)) else { return };
        if let (Some(fd), true) = (lane.fd.as_ref(), lane.tcp) {
            // A socket that was reset meanwhile refuses; its lane is about to go down.
            let _ = socket::set_user_timeout(fd, if enable { LANE_USER_TIMEOUT_MS } else { 0 });
        }
    }

    /// [`engine::Action::QuietLane`]: nothing more leaves, replies are still read.
    pub(crate) fn lane_quiet(&mut self, device: Key, id: LaneId) {
        let Some(key) = self.lane_key(device, id) else { return };
        let Some(lane) = self.lanes.get_mut(key) else { return };
        lane.quiet = true;
        lane.outbox.drop_waiting(&mut self.messages);
        if let (Some(fd), true) = (lane.fd.as_ref(), lane.tcp) {
            // A socket that was reset meanwhile refuses; its lane is about to go down.
            let _ = socket::probe_quiet_lane(fd);
        }
        if let Some(fd) = lane.fd.as_ref().filter(|_| lane.outbox.is_sending()) {
            // Takes the receive along; it is armed again.
            self.ring.cancel(fd);
        }
    }
}

/// Length of a frame on the wire.
pub(crate) fn frame_bytes(lane: &Lane, frame: &Frame) -> u64 {
    let payload = if frame.command == Command::Write { frame.len } else { 0 };
    lane.mode.request_header_bytes() as u64 + payload
}

/// Puts a frame at the end of the queue and its request into the table.
fn lay_out(lane: &mut Lane, frame: &Frame, held: &Held, messages: &mut Messages) {
    let mut header = [0; REQUEST_HEADER_MAX];
    let header_len = encode_request(
        lane.mode,
        frame.command,
        frame.flags,
        frame.cookie,
        frame.offset,
        frame.len,
        &mut header,
    );
    let (message, _) = lane.outbox.room(1, messages);
    message.push_header(&header[..header_len]);
    let len = frame.len as usize;
    match frame.data {
        SendData::Buffer { buffer, at } => message.push_buffer(held.get(buffer), at as usize, len),
        SendData::Zeroes => {
            let parts = Message::zero_parts(len);
            let (message, _) = lane.outbox.room(parts, messages);
            message.push_zeroes(len);
        }
        SendData::None | SendData::Land | SendData::Digest => {}
    }
    let start = lane.queued_bytes;
    lane.queued_bytes += frame_bytes(lane, frame);
    lane.pending.insert(Pending {
        cookie: frame.cookie,
        command: frame.command,
        flags: frame.flags,
        offset: frame.offset,
        len: frame.len,
        landing: landing_of(frame.data),
        buffer: None,
        arrived: 0,
        assembly: Assembly::Fresh,
        dispatched: None,
        frame: start..lane.queued_bytes,
    });
}

pub(crate) fn landing_of(data: SendData) -> Landing {
    match data {
        SendData::Land => Landing::Land,
        SendData::Digest => Landing::Digest,
        SendData::None | SendData::Buffer { .. } | SendData::Zeroes => Landing::None,
    }
}
