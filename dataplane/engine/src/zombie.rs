// SPDX-License-Identifier: MIT OR Apache-2.0
//! Lanes that were given up and are kept for their late replies (rules W1, W5, W13, W20).
//!
//! Giving a lane up and closing it are two things. A lane whose server only stopped answering is kept: nothing is
//! issued on it, and its late replies are the only proof that its writes are over.
//!
//! ```text
//! Up ------- suspect for too long ---------> Zombie
//! Draining - its requests are over their age -> Zombie
//! Zombie --- nothing owes proof any more --------> closed
//!        --- its peer answers no probe ----------> closed (`lanes`)
//!        --- many newer ones on the path --------> closed; its writes are in doubt
//!        --- the hold is over, several writers --> closed
//!        --- the hold is over, one writer -------> stays; its writes are let go without proof (W13)
//! ```

use alloc::vec::Vec;

use policies::faults::FaultClass;
use policies::limits::ZOMBIE_SAMPLE_INTERVAL;
use program::{Exclusive, Nanos, SECOND, Unproven, Writers};

use crate::engine::Engine;
use crate::lane::{Lane, LaneState, Slot, Use};
use crate::slab::Key;
use crate::{Action, Close};

/// A lane that was given up has stopped sending by then.
const QUIETED: Nanos = SECOND;
/// Old connections kept for each connection that a path is to have. All of a path's are given up together when its
/// server stops, and each is the only proof for its writes (W13).
const ZOMBIES_PER_LANE: usize = 4;

impl Engine {
    /// Whether something on a lane that was given up must be proven finished: writes, which may
    /// land late (W1), and with `exclusive = "proven"` every request of a host, since the server
    /// may still work on it while another one is used (W20).
    pub(crate) fn owes_proof(&self, lane: &Lane) -> bool {
        let strict = self.program.exclusive == Exclusive::Proven && self.rules.w20_exclusive;
        // Nothing leaves any more some time after it was given up: a frame that was cut, or
        // never began to leave, is never carried out, and nobody answers it.
        let quiet = lane.state == LaneState::Zombie && self.now - lane.given_up_at >= QUIETED;
        lane.in_order()
            .filter(|(_, slot)| !quiet || slot.frame_end <= lane.sent_bytes)
            .any(|(_, slot)| self.may_land(slot) || (strict && matches!(slot.used, Use::Piece { .. })))
    }

    /// What may change the storage late: a write, and on paths that do not share a cache one that is answered and whose
    /// FLUSH is not (W18).
    pub(crate) fn may_land(&self, slot: &Slot) -> bool {
        slot.write || (self.active.write_through && matches!(slot.used, Use::Piece { flushing: true, .. }))
    }

    /// Stops issuing on a lane but keeps it for late replies (W1).
    pub(crate) fn give_up(&mut self, slot: u16) {
        let now = self.now;
        self.decide_give_up(slot);
        self.blame(self.lane_at(slot).path);
        let lane = self.lane_at_mut(slot);
        lane.state = LaneState::Zombie;
        lane.given_up_at = now;
        let (id, index, queue_empty) = (lane.id, lane.path, lane.outq_bytes == Some(0));
        self.act(Action::QuietLane(id));
        if queue_empty {
            // The timer would kill the only proof; with bytes still queued it must stay.
            self.time_lane(slot, false);
        }
        self.move_pieces(slot, |_| true);
        let gate = self.lane_at(slot).offer().gate;
        if self.owes_proof(self.lane_at(slot)) {
            if self.paths[index].program.drains {
                self.act(Action::CloseLane { lane: id, how: Close::Drain });
            }
            self.fence(id, index, gate);
        }
        let now = self.now;
        let draw = self.draw();
        let path = &mut self.paths[index];
        path.failed_before = true;
        path.errors += 1;
        path.reconnect_at = now + path.backoff.next_delay(draw);
        self.connection_lost(index, slot, FaultClass::TransportReset);
        self.limit_zombies(index);
        self.domain_lost_lane(index);
        if !self.owes_proof(self.lane_at(slot)) {
            self.close(slot, Close::Abort);
        }
        self.regroup();
        self.open_lanes();
    }

    fn limit_zombies(&mut self, index: usize) {
        let zombies: Vec<u16> = self.paths[index]
            .lanes
            .iter()
            .copied()
            .filter(|&slot| self.lane_at(slot).state == LaneState::Zombie)
            .collect();
        if zombies.len() > ZOMBIES_PER_LANE * usize::from(self.paths[index].program.lanes.max(1))
            && let Some(&oldest) = zombies.iter().min_by_key(|&&slot| self.lane_at(slot).opened_at)
        {
            self.decide_zombie_over(oldest, "close the old connection: many newer ones are kept");
            self.close(oldest, Close::Abort);
        }
    }

    /// TCP_USER_TIMEOUT on or off.
    pub(crate) fn time_lane(&mut self, slot: u16, enable: bool) {
        let lane = self.lane_at_mut(slot);
        if core::mem::replace(&mut lane.timed, enable) != enable {
            let lane = lane.id;
            self.act(Action::UserTimeout { lane, enable });
        }
    }

    /// W13: as long as its connection stands a zombie's writes are known alive. At the
    /// hold they are let go without proof, and the zombie is kept for what its late replies
    /// tell; with several writers nothing could be mended then, so it is closed instead.
    pub(crate) fn check_zombie(&mut self, slot: u16) {
        self.sample_zombie(slot);
        let lane = self.lane_at(slot);
        let hold = match self.program.unproven {
            Unproven::Hold if self.rules.w13_hold => Nanos::MAX,
            Unproven::Hold | Unproven::Assume => self.proof_time(),
        };
        if !self.owes_proof(lane) {
            self.decide_zombie_over(slot, "close the old connection: nothing on it can land any more");
            self.close(slot, Close::Abort);
            return;
        }
        let oldest = lane.oldest().map_or(0, |index| lane.slot(index).sent_at);
        if self.now - oldest < hold {
            return;
        }
        if self.program.writers == Writers::Many {
            self.decide_zombie_over(slot, "close the old connection: the hold is over");
            self.close(slot, Close::Abort);
            return;
        }
        let path = lane.path;
        let due =
            lane.in_order().filter(|(_, entry)| self.may_land(entry) && self.now - entry.sent_at >= hold);
        let pieces: Vec<Key> = due
            .filter_map(|(_, entry)| match entry.used {
                Use::Piece { piece, .. } => Some(piece),
                _ => None,
            })
            .filter(|&piece| self.pieces.get(piece).quarantine.is_some())
            .collect();
        for piece in pieces {
            self.report_let_go(piece, path);
            self.decide_let_go(piece, path);
            self.let_go(piece, path);
        }
    }

    /// W13: what says that a zombie's writes are alive is that its peer's kernel acknowledges.
    fn sample_zombie(&mut self, slot: u16) {
        let now = self.now;
        let lane = self.lane_at_mut(slot);
        if now >= lane.next_sample && !lane.offer().local {
            lane.next_sample = now + ZOMBIE_SAMPLE_INTERVAL;
            let id = lane.id;
            self.act(Action::SampleTcp(id));
        }
    }
}
