// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sessions that a gate is to finish (semantics 2.4, `kill=`).
//!
//! ```text
//!  writes in doubt on a lane to a gate            lane to a gate of the same life opened with `kill`
//! -----------------------------------> wanted ------------------------------------------> asked
//!                                        ^  | the lane went down, or it is no gate any more  |
//!                                        |  +<-----------------------------------------------+
//!  its path is back with another nonce   |                                                   | acknowledged
//!  (all its processes were restarted) ----+------------------------> proven <-----------------+
//! ```
//!
//! Proven means: nothing of that session will be executed any more; what it had not
//! answered may have been executed or not. So its copies are settled, its quarantines end
//! and the connection, if it still stands, is of no use any more.
//!
//! Only the process that held the session can say so, or one that shares its register: gate
//! processes of a volume that run at once on one host tell the same nonce, each bars what any
//! of them ended, and answers only when none of them has anything of it in execution. So a
//! process that was stopped is spoken for by its neighbour. A lane for this purpose alone is
//! opened through a path that works; where there is none the path's own next connection
//! carries the kill.

use alloc::format;
use alloc::vec::Vec;

use program::{MILLISECOND, Nanos};

use crate::engine::Engine;
use crate::lane::LaneState;
use crate::path::Admin;
use crate::{Close, GateOffer, LaneId};

/// Between two attempts.
const RETRY: Nanos = 100 * MILLISECOND;

/// One session that is to be finished.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kill {
    /// The lane it belonged to.
    target: LaneId,
    /// That lane's path.
    path: usize,
    gate: GateOffer,
    /// Lane that asks for it.
    asked: Option<LaneId>,
    retry_at: Nanos,
    since: Nanos,
}

impl Engine {
    /// Has the session of a lane finished, if a gate can do that.
    pub(crate) fn fence(&mut self, target: LaneId, path: usize, gate: Option<GateOffer>) {
        let Some(gate) = gate.filter(|_| self.rules.gate_kill) else { return };
        if self.kills.iter().any(|kill| kill.target == target) {
            return;
        }
        let (retry_at, since) = (self.now, self.now);
        self.kills.push(Kill { target, path, gate, asked: None, retry_at, since });
        self.decide_fence(path);
        self.ask_gates();
    }

    /// Opens lanes for kills that nobody asks for yet.
    pub(crate) fn ask_gates(&mut self) {
        for at in 0..self.kills.len() {
            let kill = self.kills[at];
            if kill.asked.is_some() || kill.retry_at > self.now || self.is_draining() {
                continue;
            }
            let through = self.lanes.iter().flatten().find(|lane| {
                lane.is_trusted()
                    && lane.id != kill.target
                    && self.paths[lane.path].admin != Admin::Removed
                    && lane.offer().gate.is_some_and(|gate| same_life(&gate, &kill.gate))
            });
            let Some(path) = through.map(|lane| lane.path) else { continue };
            let lane = self.open_lane(path, Some(kill.target));
            self.lane_at_mut(lane.slot).fencing = true;
            self.kills[at].asked = Some(lane);
        }
    }

    /// A kill for the next connection of this path to carry.
    pub(crate) fn kill_for(&self, path: usize) -> Option<LaneId> {
        let kill =
            self.kills.iter().find(|kill| kill.asked.is_none() && self.same_target(kill.path, path))?;
        Some(kill.target)
    }

    /// A path that a changed program has taken away and another brought back is another one to us, not to its gate.
    fn same_target(&self, one: usize, other: usize) -> bool {
        one == other || self.paths[one].program.target == self.paths[other].program.target
    }

    /// A lane that was opened with a kill of `target`, on its path's own account.
    pub(crate) fn kill_asked(&mut self, target: LaneId, by: LaneId) {
        for kill in self.kills.iter_mut().filter(|kill| kill.target == target) {
            kill.asked = Some(by);
        }
    }

    /// What a fresh lane tells of sessions that are to be finished.
    pub(crate) fn gate_answered(&mut self, id: LaneId, path: usize, gate: Option<&GateOffer>) {
        let mut proven = Vec::new();
        let same: Vec<bool> = self.kills.iter().map(|kill| self.same_target(kill.path, path)).collect();
        for (kill, same) in self.kills.iter_mut().zip(same) {
            let acknowledged =
                kill.asked == Some(id) && gate.is_some_and(|gate| same_life(gate, &kill.gate) && gate.killed);
            let restarted = same
                && gate.is_some_and(|gate| gate.volume == kill.gate.volume && gate.nonce != kill.gate.nonce);
            if acknowledged || restarted {
                proven.push((kill.target, kill.path, kill.since));
            } else if kill.asked == Some(id) {
                kill.asked = None;
                kill.retry_at = self.now + RETRY;
            }
        }
        for (target, path, since) in proven {
            self.session_finished(target, path, since);
        }
    }

    /// The lane that asked is gone.
    pub(crate) fn gate_lost(&mut self, id: LaneId) {
        let now = self.now;
        for kill in self.kills.iter_mut().filter(|kill| kill.asked == Some(id)) {
            kill.asked = None;
            kill.retry_at = now + RETRY;
        }
    }

    fn session_finished(&mut self, target: LaneId, path: usize, since: Nanos) {
        self.kills.retain(|kill| kill.target != target);
        let took = self.now - since;
        let settled = self.end_doubts_of(target);
        self.decide_fenced(path, took, settled as u64);
        let stands = self.lane_if(target).is_some();
        if stands {
            self.lane_at_mut(target.slot).finished = true;
            self.close(target.slot, Close::Abort);
        }
        let text = format!(
            "the gate finished the lost session {} us after it was asked; {settled} writes are not in doubt any more{}",
            took / 1000,
            if stands { ", nor is what is left on the connection" } else { "" }
        );
        self.event("session_fenced", Some(path), "2.4", text);
    }

    /// Kills that nothing depends on any more.
    pub(crate) fn forget_kills(&mut self) {
        let needed = |kill: &Kill| {
            let stands = self.lane_if(kill.target).is_some_and(|lane| lane.state != LaneState::Closing);
            stands
                || self.doubts.iter().any(|doubt| doubt.lane == kill.target)
                || self.open_reads.iter().any(|reads| reads.lane == kill.target)
        };
        let keep: Vec<bool> = self.kills.iter().map(needed).collect();
        let mut keep = keep.into_iter();
        self.kills.retain(|_| keep.next().unwrap_or(true));
    }

    pub(crate) fn next_kill(&self) -> Option<Nanos> {
        let waits = |kill: &&Kill| kill.asked.is_none() && kill.retry_at > self.now;
        self.kills.iter().filter(waits).map(|kill| kill.retry_at).min()
    }
}

fn same_life(one: &GateOffer, other: &GateOffer) -> bool {
    one.volume == other.volume && one.nonce == other.nonce
}
