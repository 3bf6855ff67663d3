// SPDX-License-Identifier: MIT OR Apache-2.0
//! How a lane ends.
//!
//! Cut off (a fault, or `Close::Abort`): the socket is reset at once, so that nothing of
//! its queue can reach the storage later (rule W1); when its operations have ended the
//! engine hears how many bytes the kernel had taken. In order (`Close::Disconnect`):
//! DISC, half-close, and whatever the server still answers until its EOF.

use std::sync::atomic::Ordering;

use engine::{Close, Event, LaneFault, LaneId};
use nbd::{REQUEST_HEADER_MAX, encode_disconnect};
use program::Nanos;

use crate::lane::Stage;
use crate::limits::DISCONNECT;
use crate::reactor::{Conn, Reactor};
use crate::slab::Key;
use crate::timers::Due;

impl Reactor {
    /// [`engine::Action::CloseLane`].
    pub(crate) fn lane_close(&mut self, device: Key, id: LaneId, how: Close) {
        let Some(key) = self.lane_key(device, id) else { return };
        let Some(lane) = self.lanes.get_mut(key) else { return };
        let ready = matches!(lane.stage, Stage::Ready) && lane.local.is_none();
        // After half a frame a DISC would be taken for its rest.
        let cut = lane.pending.has_cut(lane.sent_bytes()) || (lane.quiet && lane.outbox.is_sending());
        match how {
            Close::Disconnect if ready && !cut => self.lane_disconnect(key, !cut, Some(DISCONNECT)),
            Close::Drain if ready => self.lane_disconnect(key, !cut, None),
            Close::Disconnect | Close::Drain | Close::Abort => self.lane_fail(key, LaneFault::ByUs),
        }
    }

    /// DISC, unless a frame was cut, and half-close. Without `limit` the EOF is awaited as long as it takes: it is
    /// then the proof that everything sent is finished (semantics 2.3).
    fn lane_disconnect(&mut self, key: Key, with_disc: bool, limit: Option<Nanos>) {
        let now = self.clock.now();
        let Some(lane) = self.lanes.get_mut(key) else { return };
        if with_disc {
            let mut header = [0; REQUEST_HEADER_MAX];
            let len = encode_disconnect(lane.mode, &mut header);
            let (message, _) = lane.outbox.room(0, &mut self.messages);
            message.push_header(&header[..len]);
        }
        lane.stage = Stage::Disconnecting { proof: limit.is_none() && with_disc, orderly: limit.is_some() };
        lane.deadline = limit.map(|limit| now + limit);
        if let Some(deadline) = lane.deadline {
            self.timers.set(deadline, Due::Lane(key));
        }
        if !lane.dirty {
            lane.dirty = true;
            self.dirty.push(Conn::Lane(key));
        }
    }

    /// The server closed its end.
    pub(crate) fn lane_eof(&mut self, key: Key) {
        let Some(lane) = self.lanes.get(key) else { return };
        let fault = match lane.stage {
            // An end of the server's own that came before it could see ours proves nothing.
            Stage::Disconnecting { proof: true, .. } if lane.half_closed => LaneFault::Drained,
            Stage::Disconnecting { .. } => LaneFault::ByUs,
            _ => LaneFault::Closed,
        };
        self.lane_fail(key, fault);
    }

    /// The present stage has had its time.
    pub(crate) fn lane_due(&mut self, key: Key) {
        let now = self.clock.now();
        let Some(lane) = self.lanes.get(key) else { return };
        if lane.deadline.is_none_or(|deadline| now < deadline) {
            return;
        }
        let fault = match lane.stage {
            Stage::Preparing => LaneFault::Unreachable("no answer to the look-up in time".into()),
            Stage::Connecting => LaneFault::Unreachable("no answer to the connect in time".into()),
            Stage::Handshake(_) => LaneFault::HandshakeTimeout,
            Stage::Disconnecting { .. } => LaneFault::ByUs,
            Stage::Ready | Stage::Ending(_) => return,
        };
        self.lane_fail(key, fault);
    }

    /// The lane is down; nothing of it is delivered any more.
    pub(crate) fn lane_fail(&mut self, key: Key, fault: LaneFault) {
        let Some(lane) = self.lanes.get_mut(key) else { return };
        if lane.is_ending() {
            return;
        }
        lane.stage = Stage::Ending(fault);
        lane.outbox.drop_waiting(&mut self.messages);
        if lane.local.is_none() {
            // Buffers of direct receives are with the ring, the others go back now; the longest part of a
            // read that broke off is told first.
            let part = lane.pending.take_part();
            lane.pending.clear();
            let (device, lane) = (lane.device, lane.id);
            if let Some((cookie, buffer)) = part {
                let len = buffer.len() as u64;
                let data = self.held.lend(buffer.freeze());
                self.events.push_back((device, Event::ReadPart { lane, cookie, data, len }));
            }
        }
        let Some(lane) = self.lanes.get_mut(key) else { return };
        if let Some(fd) = lane.fd.take() {
            self.ring.abort(&fd);
        }
        self.lane_settle(key);
    }

    /// Reports an ending lane down once nothing of it is under way.
    pub(crate) fn lane_settle(&mut self, key: Key) {
        let Some(lane) = self.lanes.get(key) else { return };
        if !lane.is_ending() || lane.is_busy() {
            return;
        }
        let Some(lane) = self.lanes.remove(key) else { return };
        lane.wanted.store(false, Ordering::Relaxed);
        let sent_bytes = lane.sent_bytes();
        let Stage::Ending(fault) = lane.stage else { return };
        if let Some(device) = self.devices.get_mut(lane.device) {
            device.unbind_lane(lane.id);
        }
        self.events.push_back((lane.device, Event::LaneDown { lane: lane.id, fault, sent_bytes }));
    }
}
