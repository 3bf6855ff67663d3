// SPDX-License-Identifier: MIT OR Apache-2.0
//! The client handshake of a lane.

use engine::{LaneFault, Offer};
use nbd::client::{ClientConfig, Handshake, HandshakeError, Negotiated, Step};
use nbd::gate::{IDENTITY_QUERY, NODE_CONTEXT, access_word};
use program::{AccessState, Target};

use crate::lane::inbox::Inbox;
use crate::lane::{Lane, Stage};
use crate::reactor::Reactor;
use crate::slab::Key;

/// Largest piece of output that goes to a message at once.
const PIECE_BYTES: usize = 64;

impl Reactor {
    /// Connected: the server speaks first.
    pub(crate) fn lane_shake(&mut self, key: Key) {
        let export = self.lane_export(key);
        let mut config = ClientConfig::new(&export);
        if self.lane_asks_for_gate(key) {
            config.list_contexts = Some(IDENTITY_QUERY.to_owned());
            config.choose_export = true;
        }
        let lane = self.lanes.get_mut(key).expect("only called for lanes in the table");
        lane.stage = Stage::Handshake(Box::new(Handshake::new(config)));
        self.lane_receive(key);
    }

    /// The export a lane's path names.
    fn lane_export(&self, key: Key) -> String {
        let lane = self.lanes.get(key).expect("only called for lanes in the table");
        let device = self.devices.get(lane.device).expect("a lane's device outlives it");
        match device.path_of(lane.id).map(|path| &path.target) {
            Some(Target::Nbd { export, .. }) => export.clone(),
            // The path was changed by a new program; the engine closes this lane.
            _ => String::new(),
        }
    }

    /// Handshake bytes from the server.
    pub(crate) fn lane_shake_input(&mut self, key: Key, input: &[u8]) {
        let lane = self.lanes.get_mut(key).expect("only called for lanes in the table");
        let Stage::Handshake(machine) = &mut lane.stage else { panic!("no handshake") };
        // The reason of an error comes again as the next step.
        let consumed = machine.receive(input).unwrap_or(input.len());
        let step = machine.next_step();
        self.lane_shake_output(key);
        // The send may have found the connection broken.
        if !self.lanes.get(key).is_some_and(|lane| matches!(lane.stage, Stage::Handshake(_))) {
            return;
        }
        match step {
            Step::NeedInput => {}
            Step::StartTls => panic!("TLS was not asked for"),
            Step::ChooseExport(listed) => self.lane_shake_choose(key, &listed, &input[consumed..]),
            Step::Finished(negotiated) => {
                self.lane_negotiated(key, &negotiated);
                if consumed < input.len() {
                    self.lane_fail(key, LaneFault::Protocol("bytes before the first request".into()));
                }
            }
            Step::Failed(why) => self.lane_fail(key, handshake_fault(&why)),
        }
    }

    /// Queues what the handshake has to say.
    fn lane_shake_output(&mut self, key: Key) {
        let lane = self.lanes.get_mut(key).expect("only called for lanes in the table");
        let Stage::Handshake(machine) = &mut lane.stage else { panic!("no handshake") };
        let output = std::mem::take(machine.output());
        for piece in output.chunks(PIECE_BYTES) {
            let (message, _) = lane.outbox.room(0, &mut self.messages);
            message.push_header(piece);
        }
        lane.handshake_bytes += output.len() as u64;
        self.lane_send_now(key);
    }

    /// The server has told who it is. A lawful one says nothing more before it is asked.
    fn lane_shake_choose(&mut self, key: Key, listed: &[String], rest: &[u8]) {
        if !rest.is_empty() {
            return self.lane_fail(key, LaneFault::Protocol("an answer before its question".into()));
        }
        let plain = self.lane_export(key);
        if let Some(lane) = self.lanes.get_mut(key) {
            lane.node = listed.iter().any(|context| context == NODE_CONTEXT);
            lane.access = access_among(listed);
        }
        match self.lane_choose(key, listed, &plain) {
            Ok(name) => {
                let lane = self.lanes.get_mut(key).expect("only called for lanes in the table");
                let claims = lane.claim.is_some();
                let Stage::Handshake(machine) = &mut lane.stage else { panic!("no handshake") };
                machine.choose_export(&name, claims);
                self.lane_shake_output(key);
            }
            Err(why) => self.lane_fail(key, LaneFault::Rejected(why)),
        }
    }

    fn lane_negotiated(&mut self, key: Key, negotiated: &Negotiated) {
        let gate = match self.lane_admitted(key, &negotiated.description) {
            Ok(gate) => gate,
            Err(why) => return self.lane_fail(key, LaneFault::Rejected(why)),
        };
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
            node: lane.node,
            access: lane.access,
            gate,
        };
        self.lane_opened(key, offer);
    }
}

/// What the server says of the way to it; one that says nothing is as good as any.
fn access_among(listed: &[String]) -> AccessState {
    let said = listed.iter().find_map(|context| AccessState::from_word(access_word(context)?));
    said.unwrap_or_default()
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
