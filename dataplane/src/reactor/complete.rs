// SPDX-License-Identifier: MIT OR Apache-2.0
//! Completions to whom they belong.

use ring::{Completion, Expect};

use crate::reactor::Reactor;
use crate::tokens::{Asked, parse};

impl Reactor {
    pub(crate) fn complete(&mut self, completion: Completion) {
        let Completion { token, result, left_bytes, more, resource } = completion;
        let (asked, key) = parse(token);
        match asked {
            Asked::Mail => self.mail(),
            Asked::Alarm => self.alarm_rang(key),
            Asked::Accept => self.accepted(key, result, more, resource),
            Asked::HandshakeReceive => self.handshake_received(key, result, resource),
            Asked::HandshakeSend => self.handshake_sent(key, result, resource),
            Asked::SessionReceive => {
                self.session_mut(key).expect = expect(left_bytes);
                self.session_received(key, result, resource);
            }
            Asked::SessionSend => self.session_sent(key, result, resource),
            Asked::LaneConnect => self.lane_connected(key, result),
            Asked::LaneReceive => {
                if let Some(lane) = self.lanes.get_mut(key) {
                    lane.expect = expect(left_bytes);
                }
                self.lane_received(key, result, resource);
            }
            Asked::LaneSend => self.lane_sent(key, result, resource),
            Asked::File => self.file_done(key, result, resource),
        }
    }
}

fn expect(left_bytes: bool) -> Expect {
    if left_bytes { Expect::Now } else { Expect::Later }
}
