// SPDX-License-Identifier: MIT OR Apache-2.0
//! Servers at work, and the checks that are made where the storage is.
//!
//! An operation is carried out at one instant, or in two parts, or twice, before it
//! is answered. Checks here see what no host sees:
//!
//! * W6: no discard larger than 32 MiB. W7: nothing is sent again that was refused for good.
//! * W15: no second copy to the last path. W18, W20: no two paths at once.
//! * 3.8: nothing of a host reaches another volume. F11: nothing beyond the end of a smaller one.

use engine::{Digest, Event};
use nbd::{Command, CommandFlags, Errno};
use program::{Exclusive, MILLISECOND, Nanos, SECOND};

use super::Device;
use crate::conn::Stage;
use crate::coverage::Mark;
use crate::env::Env;
use crate::medium::{INITIAL, Value, ZERO};
use crate::op::{Answered, Buffer, Op};
use crate::oracle::WriteKind;
use crate::plan::Topology;
use crate::queue::{ConnIndex, Happening, OpRef};
use crate::sabotage::Sabotage;

/// Largest discard (W6).
const DISCARD_BYTES_MAX: u64 = 32 << 20;
/// Definite errors remembered of requests that are over.
const DEFINITE_MAX: usize = 64;
/// A request younger than this gives no reason to leave a path that is well.
const YOUNG: Nanos = 800 * MILLISECOND;
/// A path that was well for this long gives none either.
const WELL: Nanos = 20 * SECOND;
/// A gate that was well for this long can be asked over this path.
const ASKABLE: Nanos = 2 * SECOND;
/// So long after a request the next path waits for a gate's word on it at least.
const WORD: Nanos = 490 * MILLISECOND;

impl Device {
    /// Rules that are visible in what is sent.
    pub(super) fn check_send(&mut self, env: &mut Env, op: &Op, len: u64) {
        if !op.for_host {
            return;
        }
        let path = self.conns[op.conn as usize].path;
        if matches!(op.command, Command::Trim | Command::WriteZeroes) && len > DISCARD_BYTES_MAX {
            env.fail("W6", || format!("one {:?} of {len} bytes was sent", op.command));
        }
        let refused = |&(write, start, end): &(Value, usize, usize)| {
            write == op.value && op.value > INITIAL && op.start < end && start < op.end
        };
        if op.command == Command::Write && self.definite.iter().any(refused) && self.is_open(op.value) {
            env.fail("W7", || format!("write {} was sent again after ENOSPC", op.value));
        }
        if op.value > INITIAL {
            self.check_copies(env, op, path);
        }
        if self.one_path(env) && op.command != Command::Flush {
            self.check_exclusive(env, op, path);
        }
    }

    /// Marks what is sent again; the last path gets no second copy (W15).
    fn check_copies(&mut self, env: &mut Env, op: &Op, path: usize) {
        let last = self.paths.iter().all(|view| !view.usable());
        for &index in &self.live {
            let conn = &self.conns[index as usize];
            let ops = conn.serving.iter().copied().chain(conn.frames.iter().map(|frame| frame.op));
            for other in ops {
                let other = self.ops.get(other);
                if other.value != op.value || other.start != op.start || other.command != op.command {
                    continue;
                }
                env.mark(Mark::Resent);
                if op.flags.contains(CommandFlags::FUA) {
                    env.mark(Mark::ResentFua);
                }
                let second = conn.path == path && conn.stage == Stage::Open && !conn.quiet;
                if last && second && self.is_open(op.value) {
                    env.fail("W15", || {
                        format!("write {} was sent a second time to the last path, p{path}", op.value)
                    });
                }
                return;
            }
        }
    }

    /// W20 and W18: one path at a time.
    fn check_exclusive(&mut self, env: &mut Env, op: &Op, path: usize) {
        if self.program.exclusive == Exclusive::Proven && op.writes() {
            let other = (0..self.paths.len()).find(|&p| p != path && self.paths[p].open_writes > 0);
            if let Some(other) = other {
                env.fail("W20", || {
                    format!("{:?} was sent over p{path} while p{other} may still write", op.command)
                });
            }
        }
        self.check_gated(env, op, path);
        for &index in &self.live {
            let conn = &self.conns[index as usize];
            let well = env.well_since(conn.path).is_some_and(|since| since + WELL <= env.now);
            if conn.path == path || !conn.is_open() || conn.quiet || !well {
                continue;
            }
            let ops = conn.serving.iter().copied().chain(conn.frames.iter().map(|frame| frame.op));
            let mut ops = ops.map(|op| self.ops.get(op)).filter(|op| op.command != Command::Flush);
            let young = ops.any(|op| op.for_host && op.sent_at + YOUNG > env.now);
            let old = conn.serving.iter().any(|&op| self.ops.get(op).sent_at + YOUNG <= env.now);
            if young && !old {
                let from = conn.path;
                let rule =
                    if self.program.access == program::AccessPolicy::ActivePassive { "W20" } else { "W18" };
                env.fail(rule, || {
                    format!("{:?} was sent over p{path} while p{from}, which is well, is at work", op.command)
                });
                return;
            }
        }
    }

    /// W20 behind a gate: whatever befell the link, what the gate may still carry out is finished first. It is asked over
    /// this path, which is well.
    fn check_gated(&mut self, env: &mut Env, op: &Op, path: usize) {
        let (server, here) = (env.links[path].server, env.server_of(path));
        let well = env.well_since(path).is_some_and(|since| since + ASKABLE <= env.now);
        if !here.plan.gate || !well || self.program.exclusive == Exclusive::Proven {
            return;
        }
        let process = here.process;
        for &index in &self.live {
            let conn = &self.conns[index as usize];
            let same = env.links[conn.path].server == server && conn.server_process == process;
            if conn.path == path || conn.process != self.process || !same {
                continue;
            }
            let arriving = conn.frames.iter().map(|frame| frame.op).filter(|_| !conn.deaf);
            let ops = conn.serving.iter().copied().chain(arriving).map(|op| self.ops.get(op));
            let mut ops = ops.filter(|op| op.command != Command::Flush);
            if let Some(old) = ops.find(|op| op.for_host && op.sent_at + WORD > env.now) {
                let (from, what) = (conn.path, old.command);
                env.fail("W20", || {
                    format!("{:?} was sent over p{path} while the gate has a {what:?} of p{from}", op.command)
                });
                return;
            }
        }
    }

    pub(super) fn execute(&mut self, env: &mut Env, op: OpRef, again: bool) {
        if !self.ops.is(op) {
            return;
        }
        let conn = self.ops.get(op.index).conn;
        let server = env.links[self.conns[conn as usize].path].server;
        if !env.servers[server].alive {
            return;
        }
        if env.servers[server].stopped {
            env.servers[server].frozen.push((self.index, op, again));
            return;
        }
        self.apply(env, op.index);
        if !again && self.ops.get(op.index).writes() && env.rng.chance(env.plan.faults.twice_ppm) {
            env.mark(Mark::Twice);
            let delay = env.rng.below(env.servers[server].plan.service);
            env.schedule(server, self.index, op, delay, true);
            return;
        }
        self.finish_op(env, conn, op);
    }

    /// In service no more: its answer goes back, the next one is taken.
    fn finish_op(&mut self, env: &mut Env, conn: ConnIndex, op: OpRef) {
        let entry = &mut self.conns[conn as usize];
        entry.serving.retain(|&serving| serving != op.index);
        let ours = entry.is_ours();
        if ours {
            if self.ops.get(op.index).writes() {
                // Only the answer is missing: it can write no more.
                let path = self.conns[conn as usize].path;
                self.paths[path].open_writes -= 1;
            }
            env.after(env.plan.latency, Happening::Answer(self.index, op));
        } else {
            let discard = matches!(self.ops.get(op.index).command, Command::Trim | Command::WriteZeroes);
            if self.ops.get(op.index).writes() {
                env.mark(Mark::Ghost);
                if discard {
                    env.mark(Mark::GhostDiscard);
                }
            }
            self.end_op(op.index);
        }
        self.serve(env, conn);
        if ours {
            if !self.conns[conn as usize].arriving {
                self.conns[conn as usize].arriving = true;
                env.after(env.plan.latency, Happening::Arrive(self.index, conn));
            }
            self.touched.push(conn);
        }
    }

    /// Carries an operation out at this instant.
    pub(super) fn apply(&mut self, env: &mut Env, index: u32) {
        let path = self.conns[self.ops.get(index).conn as usize].path;
        let server = env.links[path].server;
        let verdict = self.verdict(env, server, index);
        env.tell(self.index, || {
            let op = self.ops.get(index);
            format!(
                "p{path} carries out {:?} {}..{} value {} cookie {:x}: {verdict:?}",
                op.command, op.start, op.end, op.value, op.cookie
            )
        });
        let op = self.ops.get_mut(index);
        op.executed = true;
        op.result = verdict;
        if verdict.is_err() {
            if op.command == Command::Flush && env.plan.topology == Topology::Incoherent && self.is_bounded()
            {
                // What it was for stays in there, and comes out within the same time as that of a cut-off server.
                if let Some(cache) = env.servers[server].plan.cache {
                    env.after(self.program.quiesce - 1, Happening::EndDirty(self.index, cache));
                }
            }
            return;
        }
        let (command, start, end) = (op.command, op.start, op.end);
        match command {
            Command::Write | Command::WriteZeroes | Command::Trim => self.write(env, server, index),
            Command::Read => self.read(env, server, index, start, end),
            Command::Flush => self.flush(env, server),
            Command::Cache | Command::BlockStatus | Command::Disconnect => {}
        }
    }

    fn verdict(&mut self, env: &mut Env, server: usize, index: u32) -> Result<(), Errno> {
        let op = self.ops.get(index);
        let state = &env.servers[server];
        if op.for_host && state.other_data {
            env.fail("3.8", || format!("a host's {:?} reached another volume", op.command));
            return Err(Errno::Io);
        }
        let sectors = self.plan.sectors / if state.smaller { 2 } else { 1 };
        if op.end > sectors {
            env.fail("F11", || format!("{:?} beyond the end of a smaller export", op.command));
            return Err(Errno::Invalid);
        }
        // What it has begun it finishes.
        if state.leaving && !op.executed {
            return Err(Errno::Shutdown);
        }
        if op.command == Command::Flush && (std::mem::take(&mut self.flush_owed[server]) || state.flush_eio) {
            return Err(Errno::Io);
        }
        if state.eio && op.command != Command::Flush && env.rng.chance(900_000) {
            return Err(Errno::Io);
        }
        if state.no_space && op.command == Command::Write && op.value > INITIAL && env.rng.chance(300_000) {
            return Err(Errno::NoSpace);
        }
        Ok(())
    }

    fn write(&mut self, env: &mut Env, server: usize, index: u32) {
        let op = self.ops.get(index);
        let plan = &env.servers[server].plan;
        if op.command == Command::Trim && !plan.trim_zeroes {
            return;
        }
        let durable = op.flags.contains(CommandFlags::FUA);
        let cache = plan.cache;
        let (start, end, value) = (op.start, op.end, op.value);
        let ghosts = self.program.unproven == program::Unproven::Assume && self.engine.has_ghosts();
        let by_ghost = ghosts && self.conns[op.conn as usize].is_given_up();
        for sector in start..end {
            self.medium.write(cache, sector, value, durable);
            if let Some(cache) = cache.filter(|_| by_ghost && !durable) {
                self.medium.haunt(cache, sector);
            }
            if self.oracle.landed(sector, value, by_ghost, env.now) {
                env.mark(Mark::Haunted);
            }
        }
    }

    /// A cache writes back everything that is dirty in it.
    pub(super) fn write_back(&mut self, env: &mut Env, cache: usize) {
        let came_out = self.medium.flush(cache);
        self.came_out(env, came_out);
    }

    /// What a ghost left in a cache came out over something newer.
    pub fn came_out(&mut self, env: &mut Env, sectors: impl IntoIterator<Item = (usize, Value)>) {
        for (sector, value) in sectors {
            if self.oracle.landed(sector, value, true, env.now) {
                env.mark(Mark::Haunted);
            }
        }
    }

    fn read(&mut self, env: &Env, server: usize, index: u32, start: usize, end: usize) {
        let state = &env.servers[server];
        let cache = state.plan.cache;
        let shift = usize::from(env.sabotage == Sabotage::WrongSector);
        let op = self.ops.get_mut(index);
        op.data.clear();
        for sector in start..end {
            let value = if state.other_data {
                // Numbers no write of this volume has.
                Value::MAX - sector as Value
            } else if op.for_host && shift == 1 {
                self.medium.read(cache, (sector + 1) % self.plan.sectors)
            } else {
                self.medium.read(cache, sector)
            };
            op.data.push(value);
        }
    }

    fn flush(&mut self, env: &mut Env, server: usize) {
        self.flushes += 1;
        let Some(cache) = env.servers[server].plan.cache else { return };
        match env.sabotage {
            Sabotage::LazyFlush => {}
            Sabotage::LostWrite if env.rng.chance(200_000) && !self.medium.dirty(cache).is_empty() => {
                let sector = self.medium.dirty(cache)[0] as usize;
                self.write_back(env, cache);
                self.medium.write(None, sector, INITIAL, true);
            }
            _ => self.write_back(env, cache),
        }
    }

    pub(super) fn answer(&mut self, env: &mut Env, op: OpRef) {
        if !self.ops.is(op) {
            return;
        }
        let conn = self.ops.get(op.index).conn;
        let entry = &mut self.conns[conn as usize];
        if !entry.is_ours() {
            self.ops.remove(op.index);
            return;
        }
        if env.links[entry.path].silent_from {
            entry.answers.push(op);
            return;
        }
        if entry.quiet {
            env.mark(Mark::LateReply);
        }
        entry.last_ack = env.now;
        self.deliver(env, conn, op.index);
    }

    fn deliver(&mut self, env: &mut Env, conn: ConnIndex, index: u32) {
        let op = self.ops.get_mut(index);
        let (cookie, result, command) = (op.cookie, op.result, op.command);
        let values = std::mem::take(&mut op.data);
        let (answered, value, start, end) = (op.answered, op.value, op.start, op.end);
        let good = result.is_ok();
        let (lane, path) = (self.conns[conn as usize].lane, self.conns[conn as usize].path);
        if good && self.ops.get(index).for_host && env.issuing {
            self.seen.carried(env.now, path);
        }
        self.ops.remove(index);
        let digest = (good && answered == Answered::Digest).then(|| digest_of(&values));
        let data = match (good && answered == Answered::Lands, command) {
            (true, Command::Read) => Some(self.buffers.insert(Buffer::Data(values))),
            (true, _) => Some(self.buffers.insert(Buffer::Extents)),
            _ => None,
        };
        match result {
            Err(Errno::Io) if command == Command::Flush => self.flush_lost(env, path),
            Err(Errno::Io) => self.paths[path].eio_at = Some(env.now),
            Err(Errno::NoSpace) => {
                // One whose request is still open must be known when that is answered.
                let over = self.definite.iter().position(|&(write, ..)| !self.is_open(write));
                if let Some(at) = over.filter(|_| self.definite.len() >= DEFINITE_MAX) {
                    self.definite.remove(at);
                }
                self.definite.push((value, start, end));
            }
            _ => {}
        }
        self.feed(env, Event::LaneActive(lane));
        let late = self.engine.session_of(lane, cookie).is_none();
        let before = self.engine.hedged_bytes();
        self.feed(env, Event::Reply { lane, cookie, result, data, digest });
        if late && data.is_some() && self.engine.hedged_bytes() < before {
            env.mark(Mark::HedgeDrained);
        }
    }

    /// Another member writes the shared storage. Members agree on who writes what (a
    /// cluster file system's locks): it takes a range nobody writes now.
    pub(super) fn other_writer(&mut self, env: &mut Env) {
        if !env.faulting {
            return;
        }
        env.after(env.rng.clone().between(1, 40) * MILLISECOND, Happening::OtherWriter(self.index));
        let sector = env.rng.below(self.plan.hot as u64) as usize;
        let busy = |request: &super::Request| {
            request.command.is_write_like() && (request.start..request.end).contains(&sector)
        };
        let doubtful = self.doubtful.iter().any(|&(start, end)| (start..end).contains(&sector));
        if doubtful || self.requests.iter().flatten().any(busy) {
            return;
        }
        env.mark(Mark::OtherWriter);
        let number = self.oracle.issue(WriteKind::Data, sector, sector + 1);
        let cache = env.servers[0].plan.cache;
        self.medium.write(cache, sector, number, true);
        self.oracle.ack(number);
    }
}

fn digest_of(values: &[Value]) -> Digest {
    let mut hash = 0u128;
    for &value in values {
        hash = (hash ^ u128::from(value)).wrapping_mul(0x0000_0100_0000_01b3_0000_0000_0000_013b);
    }
    Digest { value: hash, uniform: values.iter().all(|&value| value == ZERO) }
}
