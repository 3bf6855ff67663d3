// SPDX-License-Identifier: MIT OR Apache-2.0
//! What storage loses, who can know of it, and what was promised all the same (rules F5-F9).

use nbd::Command;

use super::Device;
use crate::conn::Stage;
use crate::coverage::Mark;
use crate::env::Env;
use crate::medium::{Value, ZERO};
use crate::op::Op;

impl Device {
    /// A server told that FLUSH failed: it may have dropped what was dirty, and every
    /// session must hear of it (F9).
    pub(super) fn flush_lost(&mut self, env: &mut Env, path: usize) {
        self.owe_flush_error();
        let cache = env.server_of(path).plan.cache;
        for (link, view) in self.paths.iter_mut().enumerate() {
            // A FLUSH that was on its way there when this one failed is not believed.
            if env.server_of(link).plan.cache == cache {
                view.eio_at = Some(env.now);
            }
        }
        let Some(cache) = cache else { return };
        if env.rng.chance(500_000) || self.oracle.is_uncertain() || self.unkept {
            return;
        }
        let answered = |&sector: &u32| {
            let value = self.medium.read(Some(cache), sector as usize);
            // What is carried out and not answered yet is not told by this error.
            let pending = |op: &Op| op.writes() && (op.start..op.end).contains(&(sector as usize));
            value != ZERO
                && value == self.oracle.acked(sector as usize)
                && !self.ops.live().any(|op| op.executed && pending(op))
        };
        let lost: Vec<u32> = self.medium.dirty(cache).iter().copied().filter(answered).collect();
        let told = env.links[path].server;
        for (server, owed) in self.flush_owed.iter_mut().enumerate().filter(|_| !lost.is_empty()) {
            *owed |= server != told && env.servers[server].plan.cache == Some(cache);
        }
        self.loss_open |= !lost.is_empty();
        for sector in lost {
            self.medium.drop_one(cache, sector as usize);
            self.oracle.drop_unflushed(sector as usize);
            let now = self.medium.read(Some(cache), sector as usize);
            self.lose(sector as usize, now);
            if !self.retains() {
                self.oracle.release(sector as usize);
            }
        }
    }

    /// A cache is gone with what was in it, unknown to us until the connections are.
    pub fn cache_dies(&mut self, env: &mut Env, cache: usize) {
        let lost: Vec<u32> = self.medium.dirty(cache).to_vec();
        if lost.is_empty() {
            return;
        }
        env.tell(self.index, || format!("cache {cache} is lost with sectors {lost:?}"));
        env.mark(Mark::CacheLost);
        self.medium.lose(cache);
        for sector in lost {
            let now = self.medium.read(Some(cache), sector as usize);
            let forgotten = self.oracle.is_forgotten(sector as usize);
            self.lose(sector as usize, now);
            if forgotten {
                // Nobody has it any more: our process died, and now the cache.
                self.oracle.release(sector as usize);
            }
        }
        self.oracle.doubt();
        self.look_at_losses();
    }

    /// Once the engine knows that the connections are gone, it knows what may be lost.
    pub(super) fn look_at_losses(&mut self) {
        let conns = self.live.iter().map(|&index| &self.conns[index as usize]);
        let unknown = conns.into_iter().any(|conn| conn.orphaned && conn.stage != Stage::Gone);
        if self.oracle.is_uncertain() && !unknown {
            self.oracle.trust();
        }
    }

    /// Acknowledged writes are kept until they are stable (F5); with several writers all
    /// are durable when they are acknowledged (F7).
    pub fn retains(&self) -> bool {
        self.program.writers == program::Writers::One && self.program.retention_bytes > 0
    }

    /// The program has changed, and with it perhaps what is kept.
    pub fn note_retention(&mut self, env: &Env, before: bool) {
        let now = self.retains();
        if now == before {
            return;
        }
        self.unkept = true;
        self.kept_since = env.now;
        // What a FLUSH has dropped was to be written again, and is; whoever was to be told of it is not.
        self.forgive_flush_errors();
    }

    /// Something is acknowledged, not stable, and kept by nobody.
    pub fn is_unkept(&self) -> bool {
        self.unkept
    }

    /// A FLUSH failed: every session's next one must (F9); those on their way may.
    pub(super) fn owe_flush_error(&mut self) {
        for session in &mut self.sessions {
            session.owed = true;
            session.forgiven = false;
        }
        for request in self.requests.iter_mut().flatten() {
            request.may_fail = true;
        }
    }

    pub(super) fn forgive_flush_errors(&mut self) {
        for session in &mut self.sessions {
            session.forgiven = true;
        }
    }

    /// A loss that hosts are told of: what is on its way may see it already.
    pub(super) fn lose(&mut self, sector: usize, stable: Value) {
        self.oracle.lose(sector, stable);
        let floor = self.oracle.acked(sector);
        for request in self.requests.iter_mut().flatten() {
            let at = sector.checked_sub(request.start).and_then(|at| request.floors.get_mut(at));
            if let Some(at) = at {
                *at = (*at).min(floor);
                // What it saw may have been before the loss: no later read is bound by it.
                request.may_fail |= request.command == Command::Read;
            }
        }
    }

    /// What was given up is not asked of a FLUSH that is on its way either.
    pub(super) fn lower_flush_floors(&mut self) {
        let mut floors = Vec::new();
        self.oracle.flush_floors(&mut floors);
        for request in self.requests.iter_mut().flatten().filter(|request| request.command == Command::Flush)
        {
            for (floor, &now) in request.floors.iter_mut().zip(&floors) {
                *floor = (*floor).min(now);
            }
        }
    }

    /// The engine says that something is lost for good: what is not there is not expected.
    pub(super) fn writes_lost(&mut self, text: &str) {
        self.loss_told = true;
        // What a process before left, and nothing that this one retains.
        let inherited = text.starts_with("the process before this one");
        for sector in self.named_sectors(text) {
            if inherited && !self.oracle.is_forgotten(sector) {
                continue;
            }
            // What still shows may be gone with the next cache: the history has nothing of it any more.
            let stable = self.medium.stable(sector);
            let shows: Vec<Value> = self.medium.views(sector).chain([stable]).collect();
            let below =
                |floor| shows.iter().copied().find(|&value| !self.oracle.allows(sector, value, floor));
            if let Some(value) = below(self.oracle.acked(sector)) {
                self.lose(sector, value);
                self.oracle.open(sector);
            } else if below(self.oracle.promised(sector)).is_some() {
                // Lost before, and it was still to be written again.
                self.oracle.open(sector);
            }
        }
    }

    /// The sectors that a told loss is about: all, if it leaves any unnamed.
    fn named_sectors(&self, text: &str) -> Vec<usize> {
        let ranges = text.split("; ").map(|loss| named_range(loss, self.plan.sector_bytes as usize));
        match ranges.collect::<Option<Vec<_>>>() {
            Some(ranges) => ranges.into_iter().flatten().collect(),
            None => (0..self.plan.sectors).collect(),
        }
    }
}

/// The sectors that a text names as `<n> bytes at <offset>`.
fn named_range(text: &str, sector_bytes: usize) -> Option<std::ops::Range<usize>> {
    let (before, after) = text.split_once(" bytes at ")?;
    let len: usize = before.rsplit(' ').next()?.parse().ok()?;
    let start: usize = after.split([' ', ',']).next()?.parse().ok()?;
    Some(start / sector_bytes..(start + len) / sector_bytes)
}
