// SPDX-License-Identifier: MIT OR Apache-2.0
//! The client handshake of a lane.

use engine::{LaneFault, Offer};
use nbd::client::{ClientConfig, Handshake, HandshakeError, Negotiated, Step};
use program::Target;

use crate::lane::inbox::Inbox;
use crate::lane::{Lane, Stage};
use crate::reactor::Reactor;
use crate::slab::Key;

/// Largest piece of output that goes to a message at once.
const PIECE_BYTES: usize = 64;

impl Reactor {
    /// Connected: the server speaks first.
    pub(crate) fn lane_shake(&mut self, key: Key) {
        let lane = self.lanes.get_mut(key).expect("only called for lanes in the table");
        let device = self.devices.get(lane.device).expect("a lane's device outlives it");
        let export = match device.path_of(lane.id).map(|path| &path.target) {
            Some(Target::Nbd { export, .. }) => export.clone(),
            // The path was changed by a new program; the engine closes this lane.
            _ => String::new(),
        };
        lane.stage = Stage::Handshake(Box::new(Handshake::new(ClientConfig::new(&export))));
        self.lane_receive(key);
    }

    /// Handshake bytes from the server.
    pub(crate) fn lane_shake_input(&mut self, key: Key, input: &[u8]) {
        let lane = self.lanes.get_mut(key).expect("only called for lanes in the table");
        let Stage::Handshake(machine) = &mut lane.stage else { panic!("no handshake") };
        // The reason of an error comes again as the next step.
        let consumed = machine.receive(input).unwrap_or(input.len());
        let step = machine.next_step();
        let output = std::mem::take(machine.output());
        for piece in output.chunks(PIECE_BYTES) {
            let (message, _) = lane.outbox.room(0, &mut self.messages);
            message.push_header(piece);
        }
        lane.handshake_bytes += output.len() as u64;
        self.lane_send_now(key);
        match step {
            Step::NeedInput => {}
            Step::StartTls => panic!("TLS was not asked for"),
            Step::Finished(negotiated) => {
                self.lane_negotiated(key, &negotiated);
                if consumed < input.len() {
                    self.lane_fail(key, LaneFault::Protocol("bytes before the first request".into()));
                }
            }
            Step::Failed(why) => self.lane_fail(key, handshake_fault(&why)),
        }
    }

    fn lane_negotiated(&mut self, key: Key, negotiated: &Negotiated) {
        let lane = self.lanes.get_mut(key).expect("only called for lanes in the table");
        take_over(lane, negotiated);
        let offer = Offer {
            size_bytes: negotiated.size_bytes,
            flags: negotiated.flags,
            min_block_bytes: negotiated.block.min_bytes,
            preferred_block_bytes: negotiated.block.preferred_bytes,
            max_payload_bytes: negotiated.block.max_bytes,
            structured: negotiated.mode.has_chunks(),
            extended: negotiated.mode.is_extended(),
            block_status: negotiated.base_allocation_id.is_some(),
            local: false,
            gate: None,
        };
        self.lane_opened(key, offer);
    }
}

fn take_over(lane: &mut Lane, negotiated: &Negotiated) {
    lane.mode = negotiated.mode;
    lane.context_id = negotiated.base_allocation_id;
    lane.inbox = Inbox::new(negotiated.mode);
}

fn handshake_fault(why: &HandshakeError) -> LaneFault {
    if why.is_violation() {
        LaneFault::Protocol(why.to_string())
    } else {
        LaneFault::Rejected(why.to_string())
    }
}
