// SPDX-License-Identifier: MIT OR Apache-2.0
//! What waits too long, and what ends it.
//!
//! | a request waits for | ends with |
//! |---|---|
//! | a path (the device is held) | `no_path`: EIO after the hold, at once, or never; `device fail-now` |
//! | a path that may be written, while others serve reads | the same for what writes |
//! | a range or a proof (W5, W13), a cache domain (F2), a switch that hangs (W20) | EIO after the hold |
//! | a write that moves (W18) | its end; where it hangs and nothing else may be written EIO, too |
//! | a second opinion on an EIO | the EIO, once `believe_at` is reached (`opinion`) |

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use nbd::{Command, Errno};
use program::{DeviceCommand, Nanos, NoPath, ReportKind, Unproven};

use crate::Action;
use crate::active::Unwritable;
use crate::engine::Engine;
use crate::request::{Origin, Request, RequestState};
use crate::slab::Key;

impl Engine {
    /// How long a proof, or another path's part in an answer, is waited for while there are paths (W13, W5, W20, F2).
    /// `no_path = "fail"` is about having none.
    pub(crate) fn proof_time(&self) -> Nanos {
        match self.program.no_path {
            NoPath::Hold(hold) => hold,
            NoPath::Fail => self.program.quiesce,
            NoPath::Forever => Nanos::MAX,
        }
    }

    /// How long a request may wait for want of a path.
    pub(crate) fn hold_time(&self) -> Nanos {
        match self.program.no_path {
            NoPath::Hold(hold) => hold,
            NoPath::Fail => 0,
            NoPath::Forever => Nanos::MAX,
        }
    }

    pub(crate) fn hold_end(&self) -> Option<Nanos> {
        match (self.held_since, self.program.no_path) {
            (Some(since), NoPath::Hold(hold)) if !self.failed => Some(since + hold),
            _ => None,
        }
    }

    pub(crate) fn check_hold(&mut self) {
        let over = self.hold_end().is_some_and(|end| end <= self.now);
        let at_once = self.held_since.is_some() && self.program.no_path == NoPath::Fail;
        if !over && !at_once {
            return;
        }
        if over {
            let hold = self.hold_end().zip(self.held_since).map(|(end, since)| end - since);
            self.decide_hold_over("3.7", hold);
            self.event(
                "hold_over",
                None,
                "3.7",
                String::from("no path came back within the hold: requests fail with EIO until one does"),
            );
            self.end_hold();
            return;
        }
        self.fail_unstarted();
    }

    /// An operator's command.
    pub(crate) fn device_command(&mut self, command: DeviceCommand) {
        match command {
            DeviceCommand::FailNow if self.held_since.is_some() => {
                self.event("hold_ended", None, "operator", String::from("ended by `device fail-now`"));
                self.decide_hold_over("operator", None);
                if let Some(unwritable) = self.active.unwritable.as_mut() {
                    unwritable.over = true;
                }
                self.end_hold();
            }
            DeviceCommand::FailNow => {
                self.give_up_writing("hold_ended", "operator", "ended by `device fail-now`");
            }
            DeviceCommand::ClearLoss => {
                if self.lost_writes.take().is_some() {
                    let text = "an operator has taken note of the loss: FLUSH and FUA work again";
                    self.event("loss_cleared", None, "F9", text.into());
                    self.act(Action::Report(ReportKind::Loss(None)));
                }
            }
        }
    }

    /// Requests fail until a path is back.
    fn end_hold(&mut self) {
        self.failed = true;
        // Also what is on lanes that do not answer: there are no others.
        let all: Vec<Key> = self.requests.iter().map(|(key, _)| key).collect();
        self.fail_all(&all, Errno::Io);
    }

    /// Fails every request that waits: for a path, for a range, for a domain.
    pub(crate) fn fail_unstarted(&mut self) {
        let waiting: Vec<Key> = self
            .requests
            .iter()
            .filter(|(key, request)| (self.is_draining() || !is_replay(request)) && self.waits(*key))
            .map(|(key, _)| key)
            .collect();
        let errno = self.held_errno();
        self.fail_all(&waiting, errno);
    }

    /// Fails every write that waits for the proof that its other copies are over (W5); they stay in doubt (W14).
    pub(crate) fn fail_unproven(&mut self) {
        let waiting: Vec<Key> = self
            .requests
            .iter()
            .filter(|(_, request)| request.state == RequestState::AwaitingProof)
            .map(|(key, _)| key)
            .collect();
        let errno = self.held_errno();
        self.fail_all(&waiting, errno);
    }

    /// One that fails may end another (a grant): only those that are still there.
    fn fail_all(&mut self, keys: &[Key], errno: Errno) {
        for &key in keys {
            if self.requests.contains(key) {
                self.fail_request(key, errno);
            }
        }
    }

    /// Nothing of it is on a live lane.
    fn waits(&self, key: Key) -> bool {
        let request = self.requests.get(key);
        if matches!(request.state, RequestState::Blocked | RequestState::AwaitingReplay) {
            return true;
        }
        let mut next = request.first_piece;
        let mut queued = false;
        while let Some(piece) = next {
            let piece = self.pieces.get(piece);
            queued |= piece.queued && piece.state != crate::request::PieceState::Done;
            next = piece.next;
        }
        queued
    }

    /// Requests that waited too long for something other than a path: a
    /// quarantine or proof (W13, W20), a cache domain (F2), a second opinion on an EIO.
    pub(crate) fn check_waiting(&mut self) {
        let (now, hold) = (self.now, self.proof_time());
        let switch_hangs = self.switch_hangs(hold);
        let unwritable = self.is_unwritable_for_good();
        let for_good = self.program.no_path != NoPath::Fail;
        let due: Vec<Key> = self
            .requests
            .iter()
            .filter(|(key, request)| {
                let writes = request.host.command.is_write_like() && !is_replay(request);
                // Also what is on connections that do not answer: there are no others.
                if unwritable && writes && (for_good || self.waits(*key)) {
                    return true;
                }
                if now - request.accepted < hold {
                    return false;
                }
                let flush = request.host.command == Command::Flush;
                let blocked = request.state == RequestState::Blocked && self.is_behind_quarantine(request);
                // W5 with `unproven = "hold"`: proof may never come.
                let unproven =
                    request.state == RequestState::AwaitingProof && self.program.unproven == Unproven::Hold;
                // Behind a write that hangs where nothing else may be written.
                let read = request.host.command == Command::Read;
                let reader = read && unwritable && self.waits_for_moving(*key);
                let stuck = reader || ((flush || switch_hangs) && self.waits(*key));
                blocked || unproven || stuck
            })
            .map(|(key, _)| key)
            .collect();
        self.fail_all(&due, Errno::Io);
        self.believe_parked();
    }

    /// Whether the hold is over, and still no path that may be written answers.
    fn is_unwritable_for_good(&mut self) -> bool {
        let hold = self.hold_time();
        // Where none serves reads either it is the hold of the device that counts, unless this one is older.
        let older = |unwritable: &Unwritable| self.held_since.is_none_or(|held| held > unwritable.since);
        let Some(unwritable) = self.active.unwritable.filter(older) else { return false };
        if !unwritable.over && self.now - unwritable.since >= hold {
            self.give_up_writing("hold_over", "3.7", "no such path came back within the hold");
        }
        self.must_fail_writes()
    }

    /// Whether what writes fails at once: the hold of writes is over.
    pub(crate) fn must_fail_writes(&self) -> bool {
        self.active.unwritable.is_some_and(|unwritable| unwritable.over)
    }

    fn give_up_writing(&mut self, event: &'static str, rule: &'static str, why: &str) {
        if let Some(unwritable) = self.active.unwritable.as_mut() {
            unwritable.over = true;
            self.event(
                event,
                None,
                rule,
                format!("{why}: writes fail with EIO until a path that may be written is back, reads go on"),
            );
        }
    }

    /// W8 alone bounds nothing: what is before it is answered, or is behind a quarantine itself.
    fn is_behind_quarantine(&self, request: &Request) -> bool {
        request.range.is_some_and(|range| self.ranges.waits_for_quarantine(range))
    }
}

/// What a lost cache held waits for a path however long that takes; what is not written at the end is told then (`ending`).
fn is_replay(request: &Request) -> bool {
    matches!(request.origin, Origin::Replay(_))
}
