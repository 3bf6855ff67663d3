// SPDX-License-Identifier: MIT OR Apache-2.0
//! A gate's side of the handshake (semantics 2.4).
//!
//! A claim ends sessions before it is answered: every one of an earlier process of ours (a lower epoch), and
//! the one it names (`kill=`). Ending means: nothing more of it is read, what is in execution is waited for. Only
//! then the claim is answered, with the gate's nonce, which is its process, and its cache's generation.

use engine::{GateOffer, LaneFault};
use program::{MILLISECOND, Nanos};

use super::Device;
use crate::conn::Stage;
use crate::env::Env;
use crate::queue::{ConnIndex, Happening};
use crate::sabotage::Sabotage;

/// How often a gate that waits for what is in execution looks.
const LOOK: Nanos = 10 * MILLISECOND;
/// The one volume of a device.
const VOLUME: u128 = 7;

impl Device {
    /// Ends what the claim of this connection ends; `false` while something of it is in execution.
    pub(super) fn claim(&mut self, env: &mut Env, index: ConnIndex) -> bool {
        let conn = &self.conns[index as usize];
        let (path, kill, process) = (conn.path, conn.kill, conn.process);
        if !env.server_of(path).plan.gate || env.sabotage == Sabotage::FalseKill {
            return true;
        }
        let server = env.links[path].server;
        let mut ended = true;
        for at in 0..self.live.len() {
            let other = self.live[at];
            let conn = &self.conns[other as usize];
            let named = conn.process < process || kill == Some(conn.lane);
            if other == index
                || !named
                || env.links[conn.path].server != server
                || conn.stage == Stage::Opening
            {
                continue;
            }
            self.go_deaf(other);
            if self.conns[other as usize].serving.is_empty() {
                self.end_session(env, other);
            } else {
                ended = false;
            }
        }
        if !ended {
            env.after(LOOK, Happening::Connected(self.index, index));
        }
        ended
    }

    /// The gate closes its connection, which reaches us unless the link is silent.
    fn end_session(&mut self, env: &mut Env, index: ConnIndex) {
        let conn = &mut self.conns[index as usize];
        if !conn.is_ours() {
            return;
        }
        if env.links[conn.path].works() {
            self.sever(env, index, LaneFault::Closed);
        } else {
            conn.orphaned = true;
        }
    }

    /// What a gate tells of itself; `None` of a plain server.
    pub(super) fn gate_offer(&self, env: &Env, index: ConnIndex) -> Option<GateOffer> {
        let conn = &self.conns[index as usize];
        let server = env.server_of(conn.path);
        if !server.plan.gate {
            return None;
        }
        let of_this_process = |target| {
            let conn =
                self.conns.iter().rev().find(|conn| conn.process == self.process && conn.lane == target);
            conn.is_some_and(|conn| {
                env.links[conn.path].server == env.links[self.conns[index as usize].path].server
                    && conn.server_process == server.process
            })
        };
        let generation =
            server.plan.cache.map_or(0, |cache| (cache as u64 + 1) << 32 | env.cache_losses[cache]);
        Some(GateOffer {
            volume: VOLUME,
            nonce: (env.links[conn.path].server as u128) << 64 | u128::from(server.process),
            cache_generation: generation,
            epoch: u64::from(self.process) + 1,
            killed: conn.kill.is_some_and(of_this_process),
        })
    }
}
