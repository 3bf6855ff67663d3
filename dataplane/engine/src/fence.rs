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
//!
//! With one path at a time the next one waits for that word before it is given anything (W20), be it only reads that
//! the old session has: for half a second at most with `exclusive = "issue"`, as a gate waits for what its storage has
//! begun, and storage that hangs must not stop a host that another path can serve.

use alloc::format;
use alloc::vec::Vec;

use program::{AccessPolicy, Exclusive, MILLISECOND, Nanos};

use crate::engine::Engine;
use crate::lane::{Lane, LaneState};
use crate::path::Admin;
use crate::{Close, GateOffer, LaneId};

/// Between two attempts.
const RETRY: Nanos = 100 * MILLISECOND;
/// So long the next path waits for the word of a gate that is asked (W20, `exclusive = "issue"`).
const WORD_AWAITED: Nanos = 500 * MILLISECOND;

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
    /// Until when the path that took over waits for it, if one did.
    awaited_until: Option<Nanos>,
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
        self.kills.push(Kill { target, path, gate, asked: None, awaited_until: None, retry_at, since });
        self.decide_fence(path);
        self.ask_gates();
        // A path that is only suspected has been left already, and nothing was sent on the next one yet.
        if let Some(&next) = self.active.members.first()
            && self.one_path_at_a_time()
            && next != path
        {
            self.await_words(next);
            self.active.waiting_for = self.active.waiting_for.or_else(|| self.word_awaited_beside(next));
        }
    }

    fn one_path_at_a_time(&self) -> bool {
        self.active.policy == AccessPolicy::ActivePassive && self.rules.w20_exclusive
    }

    /// Whether what was asked on a session must be known to be over, reads too, before another path is used (W20): always
    /// with `exclusive = "proven"`, and wherever a gate can tell.
    pub(crate) fn must_be_over(&self, gate: Option<GateOffer>) -> bool {
        self.one_path_at_a_time() && (gate.is_some() || self.program.exclusive == Exclusive::Proven)
    }

    /// `next` takes over: what is suspected on another path is left, and what can be asked of gates is awaited.
    pub(crate) fn take_over(&mut self, next: usize) {
        let left =
            |lane: &&Lane| lane.path != next && lane.is_up() && lane.suspicion.is_some() && lane.has_io();
        let left = self.lanes.iter().flatten().filter(left);
        let sessions: Vec<_> = left.map(|lane| (lane.id, lane.path, lane.offer().gate)).collect();
        for (id, path, gate) in sessions {
            if self.must_be_over(gate) {
                self.fence(id, path, gate);
            }
        }
        self.await_words(next);
    }

    fn await_words(&mut self, next: usize) {
        if !self.rules.w20_gate_word {
            return;
        }
        self.ask_gates();
        let until = self.now + WORD_AWAITED;
        for kill in self.kills.iter_mut().filter(|kill| kill.path != next) {
            kill.awaited_until.get_or_insert(until);
        }
    }

    /// A path other than this one, of whose sessions a gate's word is awaited.
    pub(crate) fn word_awaited_beside(&self, path: usize) -> Option<usize> {
        self.kills.iter().find(|kill| kill.path != path && kill.is_awaited(self.now)).map(|kill| kill.path)
    }

    /// Whether the word of a gate on a session of this path is awaited.
    pub(crate) fn awaits_word(&self, path: usize) -> bool {
        self.kills.iter().any(|kill| kill.path == path && kill.is_awaited(self.now))
    }

    /// Opens lanes for kills that nobody asks for yet.
    pub(crate) fn ask_gates(&mut self) {
        for at in 0..self.kills.len() {
            let kill = self.kills[at];
            // The path's own next connection may never come about.
            let own = kill.asked.and_then(|asked| self.lane_if(asked)).is_some_and(|lane| {
                lane.state == LaneState::Opening && self.same_target(lane.path, kill.path)
            });
            let waits = if own { false } else { kill.asked.is_some() || kill.retry_at > self.now };
            if waits || self.is_draining() {
                continue;
            }
            let fits = |lane: &&Lane| {
                lane.is_trusted()
                    && lane.id != kill.target
                    && !(own && self.same_target(lane.path, kill.path))
                    && self.paths[lane.path].admin != Admin::Removed
                    && lane.offer().gate.is_some_and(|gate| same_life(&gate, &kill.gate))
            };
            // What ails that session may ail its neighbours, too.
            let through = self
                .lanes
                .iter()
                .flatten()
                .filter(fits)
                .min_by_key(|lane| self.same_target(lane.path, kill.path));
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
        // Another may have been asked since: the first word will do.
        let carried = self.lane_if(id).and_then(|lane| lane.kill);
        let same: Vec<bool> = self.kills.iter().map(|kill| self.same_target(kill.path, path)).collect();
        for (kill, same) in self.kills.iter_mut().zip(same) {
            let acknowledged = carried == Some(kill.target)
                && gate.is_some_and(|gate| same_life(gate, &kill.gate) && gate.killed);
            let restarted = same
                && gate.is_some_and(|gate| gate.volume == kill.gate.volume && gate.nonce != kill.gate.nonce);
            if acknowledged || restarted {
                proven.push((kill.target, kill.path, kill.since));
            } else if kill.asked == Some(id) {
                kill.asked = None;
                kill.retry_at = self.now + RETRY;
            }
        }
        self.after_proof();
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
        self.after_proof();
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
            // What is being closed with something on it is in doubt as soon as it is gone.
            let stands = self
                .lane_if(kill.target)
                .is_some_and(|lane| lane.state != LaneState::Closing || (!lane.finished && lane.has_io()));
            stands
                || self.doubts.iter().any(|doubt| doubt.lane == kill.target && doubt.in_flight)
                || self.open_reads.iter().any(|reads| reads.lane == kill.target)
        };
        let keep: Vec<bool> = self.kills.iter().map(needed).collect();
        let mut keep = keep.into_iter();
        self.kills.retain(|_| keep.next().unwrap_or(true));
    }

    pub(crate) fn next_kill(&self) -> Option<Nanos> {
        let waits = |kill: &&Kill| kill.asked.is_none() && kill.retry_at > self.now;
        let retries = self.kills.iter().filter(waits).map(|kill| kill.retry_at);
        let awaited = self.kills.iter().filter(|kill| kill.is_awaited(self.now));
        retries.chain(awaited.filter_map(|kill| kill.awaited_until)).min()
    }
}

impl Kill {
    pub(crate) fn is_asked_of(&self, lane: LaneId) -> bool {
        self.target == lane && self.asked.is_some()
    }

    /// Nobody waits for a gate that cannot be asked.
    fn is_awaited(&self, now: Nanos) -> bool {
        self.asked.is_some() && self.awaited_until.is_some_and(|until| until > now)
    }
}

fn same_life(one: &GateOffer, other: &GateOffer) -> bool {
    one.volume == other.volume && one.nonce == other.nonce
}
