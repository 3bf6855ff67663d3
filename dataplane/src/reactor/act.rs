// SPDX-License-Identifier: MIT OR Apache-2.0
//! Carries out what an engine asks.

use engine::{Action, SessionId};
use program::{Report, ReportKind};

use crate::lane::Frame;
use crate::reactor::Reactor;
use crate::requests::key_of;
use crate::slab::Key;

impl Reactor {
    pub(crate) fn act(&mut self, device: Key, action: Action) {
        match action {
            Action::OpenLane { lane, path, portal, kill } => {
                self.lane_open(device, lane, path, portal, kill);
            }
            Action::CloseLane { lane, how } => self.lane_close(device, lane, how),
            Action::QuietLane(lane) => self.lane_quiet(device, lane),
            Action::Send { lane, cookie, command, flags, offset, len, data } => {
                let frame = Frame { cookie, command, flags, offset, len, data };
                self.lane_request(device, lane, &frame);
            }
            Action::ReplyData { tag, buffer } => {
                let buffer = self.held.take(buffer);
                let request =
                    self.requests.get_mut(key_of(tag)).expect("data for a request that was answered");
                match request.data {
                    None => request.data = Some(buffer),
                    Some(_) => request.more.push(buffer),
                }
            }
            Action::Reply { tag, result } => self.reply_to_host(tag, result),
            Action::Release(buffer) => drop(self.held.take(buffer)),
            Action::SampleTcp(lane) => self.lane_sample(device, lane),
            Action::UserTimeout { lane, enable } => self.lane_user_timeout(device, lane, enable),
            Action::Offer(geometry) => {
                if let Some(device) = self.devices.get(device).filter(|device| !device.removed) {
                    self.node.directory.offer(&device.program.name, geometry);
                    self.node.directory_changed();
                }
            }
            Action::CloseSession(session) => self.close_session(device, session),
            Action::Report(kind) => self.report(device, kind),
        }
    }

    fn close_session(&mut self, device: Key, session: SessionId) {
        let sessions = self.devices.get(device).map_or(&[][..], |device| &device.sessions);
        if let Some(&key) = sessions.iter().find(|key| key.index == session.0) {
            self.session_finish(key);
        }
    }

    pub(crate) fn report(&self, device: Key, kind: ReportKind) {
        if let Some(device) = self.devices.get(device) {
            let report = Report { at: self.clock.now(), device: device.program.name.clone(), kind };
            self.node.reports.send(report);
        }
    }
}
