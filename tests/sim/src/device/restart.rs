// SPDX-License-Identifier: MIT OR Apache-2.0
//! Our own process dies with everything in flight and is started again (rule W10).
//!
//! | what | then |
//! |---|---|
//! | our sockets | reset (SO_LINGER 0): our kernel sends nothing more; what is in the network may arrive |
//! | what servers have | carried out within `quiesce` of the death, in every mode: W10 assumes it |
//! | host sessions | break; hosts come back and issue again what was not answered |
//! | the history of acknowledged writes | gone: what was not stable then is lost if its cache is lost too (F8) |
//! | identity and size | recorded |
//!
//! Not injected while something is being mended that only the dying process knows of: a lost cache that is
//! not written again yet, a ghost that was let go. That would be two failures at once, which no one survives.

use engine::{Engine, LaneFault};
use nbd::Command;
use program::{DeviceProgram, Recorded, SECOND};

use super::{Buffers, Device};
use crate::conn::Stage;
use crate::env::Env;
use crate::plan::Topology;
use crate::queue::Happening;

impl Device {
    /// `None` if it cannot be now; else whether anything was in flight.
    pub fn restart(&mut self, env: &mut Env) -> Option<bool> {
        let status = self.engine.status(env.now);
        let mending =
            status.replaying || self.engine.has_ghosts() || self.oracle.is_haunted_anywhere(env.now);
        let blind = env.servers.iter().any(|server| server.other_data || server.smaller);
        if mending || self.oracle.is_uncertain() || self.loss_open || blind {
            return None;
        }
        self.engine.geometry()?;
        if self.is_stopping() {
            return None;
        }
        let met = self.open > 0;
        env.tell(self.index, || "our process dies".into());
        self.begin_anew(env, false);
        Some(met)
    }

    /// The next process. `clean`: the one before has said that it left nothing behind.
    pub(super) fn begin_anew(&mut self, env: &mut Env, clean: bool) {
        let Some(geometry) = self.engine.geometry() else { unreachable!("only where it is known") };
        self.lose_connections(env);
        self.lose_hosts(env);
        self.buffers = Buffers::default();
        self.oracle.forget();
        self.loss_told = self.recorded_loss.is_some();
        self.process += 1;
        let program = DeviceProgram {
            unclean: !clean,
            // Every process before had all of them at some time.
            left_elsewhere: !clean && self.program.paths.len() < self.plan.program.paths.len(),
            lost_writes: self.recorded_loss.clone(),
            epoch: u64::from(self.process),
            recorded: Some(Recorded { geometry, samples: self.samples.clone() }),
            ..self.program.clone()
        };
        let seed = env.rng.draw();
        self.record = self.take_record();
        self.engine = Engine::with_rules(&program, seed, env.now, self.rules);
        self.engine.record_decisions(env.record_at_most);
        self.program = program;
        self.timer = None;
        for path in &mut self.paths {
            path.state = program::PathState::Down;
        }
        self.last_usable = env.now;
        self.last_writable = env.now;
    }

    fn lose_connections(&mut self, env: &mut Env) {
        for at in 0..self.live.len() {
            let index = self.live[at];
            self.sever(env, index, LaneFault::ByUs);
            let conn = &mut self.conns[index as usize];
            conn.stage = Stage::Gone;
            for op in std::mem::take(&mut conn.answers) {
                self.ops.remove(op.index);
            }
            env.after(self.program.quiesce - 1, Happening::EndGhosts(self.index, index));
        }
        if env.plan.topology == Topology::Incoherent {
            // What connections that were gone before have left in caches comes out within the same time.
            for cache in 0..env.plan.caches() {
                env.after(self.program.quiesce - 1, Happening::EndDirty(self.index, cache));
            }
        }
        self.lanes.clear();
        self.touched.clear();
        self.forget_gone();
    }

    fn lose_hosts(&mut self, env: &mut Env) {
        for slot in 0..self.requests.len() {
            let Some(request) = self.requests[slot].take() else { continue };
            self.free_requests.push(slot as u32);
            self.open -= 1;
            self.left_unanswered(&request);
        }
        for session in 0..self.sessions.len() {
            let entry = &mut self.sessions[session];
            if std::mem::replace(&mut entry.open, false) {
                entry.owed = false;
                let delay = env.rng.below(SECOND);
                env.after(delay, Happening::SessionBack(self.index, session as u16));
            }
        }
    }

    /// A FLUSH lost what only a FLUSH of every session can tell of.
    pub(super) fn loss_is_open(&mut self, command: Command, good: bool) {
        if command == Command::Flush && good {
            self.loss_open = false;
        }
    }
}
