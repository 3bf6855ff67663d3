// SPDX-License-Identifier: MIT OR Apache-2.0
//! Connections open, carry, break; and where every byte is when they do.
//!
//! When a connection goes, each of its requests is at one place:
//!
//! | place | then |
//! |---|---|
//! | our process | gone; a frame that was cut is never carried out |
//! | our kernel | gone with a reset |
//! | the network | may arrive or not |
//! | the server's kernel | read on or dropped, by the server's kind |
//! | in service | done at once, late, or never |
//!
//! In the bounded modes all of it ends `quiesce` after; else nothing ends it.

use engine::{Event, LaneFault, LaneId, Offer};
use nbd::{Command, TransmissionFlags as Flags};
use program::{Nanos, SECOND};

use super::Device;
use crate::conn::Stage;
use crate::coverage::Mark;
use crate::env::Env;
use crate::op::{Answered, Buffer, Op};
use crate::plan::Topology;
use crate::queue::{ConnIndex, Happening};
use crate::sabotage::Sabotage;

/// The driver's limit for a handshake.
pub(super) const HANDSHAKE: Nanos = 10 * SECOND;
/// The driver waits this long for EOF after DISC.
const DISCONNECT: Nanos = 5 * SECOND;
/// TCP_USER_TIMEOUT of lanes in use.
const USER_TIMEOUT: Nanos = 2 * SECOND;
/// Late ghosts of the unbounded modes come within this.
const UNBOUNDED: Nanos = 40 * SECOND;

impl Device {
    pub(super) fn connected(&mut self, env: &mut Env, index: ConnIndex) {
        let conn = &self.conns[index as usize];
        if conn.stage != Stage::Opening {
            return;
        }
        let link = &env.links[conn.path];
        let server = env.server_of(conn.path);
        if !link.works() || (server.alive && server.stopped) {
            // Looked at again when that has passed.
            return;
        }
        if !server.alive {
            self.end_opening(env, index, LaneFault::Refused("nothing listens".into()));
            return;
        }
        if !self.claim(env, index) {
            return;
        }
        let gate = self.gate_offer(env, index);
        let path = self.conns[index as usize].path;
        let offer = Offer { gate, ..self.offer(env, path) };
        let conn = &mut self.conns[index as usize];
        conn.server_process = env.server_of(path).process;
        conn.stage = Stage::Open;
        // Whoever died while it was on its way, this process takes it.
        conn.deaf = false;
        conn.orphaned = false;
        conn.offer = Some(offer);
        conn.last_ack = env.now;
        let lane = conn.lane;
        self.feed(env, Event::LaneOpened { lane, offer });
    }

    fn offer(&self, env: &Env, path: usize) -> Offer {
        let server = env.server_of(path);
        let plan = &server.plan;
        let mut flags = Flags::HAS_FLAGS.with(Flags::SEND_FLUSH);
        for (offered, flag) in [
            (plan.fua, Flags::SEND_FUA),
            (plan.zeroes, Flags::SEND_WRITE_ZEROES),
            (plan.trim, Flags::SEND_TRIM),
            (plan.multi_conn, Flags::CAN_MULTI_CONN),
        ] {
            if offered {
                flags = flags.with(flag);
            }
        }
        let unit = self.plan.sector_bytes;
        let sectors = self.plan.sectors as u64 / if server.smaller { 2 } else { 1 };
        Offer {
            size_bytes: sectors * unit,
            flags,
            min_block_bytes: if unit > 4096 { 512 } else { unit as u32 },
            preferred_block_bytes: 4096,
            max_payload_bytes: (plan.payload_sectors * unit).min(32 << 20) as u32,
            structured: true,
            extended: plan.extended,
            block_status: plan.block_status,
            local: false,
            node: false,
            access: plan.access[server.process as usize % 2],
            gate: None,
        }
    }

    pub(super) fn handshake_timeout(&mut self, env: &mut Env, index: ConnIndex) {
        if self.conns[index as usize].stage == Stage::Opening {
            self.end_opening(env, index, LaneFault::HandshakeTimeout);
        }
    }

    fn end_opening(&mut self, env: &mut Env, index: ConnIndex, fault: LaneFault) {
        let conn = &mut self.conns[index as usize];
        conn.stage = Stage::Ending;
        conn.fault = fault;
        self.down(env, index);
    }

    /// Bytes move as far as they can; replies and DISC follow from it.
    pub(super) fn flow(&mut self, env: &mut Env, index: ConnIndex) {
        let conn = &mut self.conns[index as usize];
        if conn.is_ours() && conn.accept(env.plan.send_buffer_bytes) {
            let (lane, sent_bytes, open) = (conn.lane, conn.accepted, conn.is_open());
            if open {
                self.feed(env, Event::LaneSent { lane, sent_bytes });
            }
        }
        let conn = &mut self.conns[index as usize];
        if conn.accepted > conn.received && !conn.arriving && conn.is_ours() {
            conn.arriving = true;
            env.after(env.plan.latency, Happening::Arrive(self.index, index));
        }
        if conn.accepted > conn.acked && conn.is_ours() {
            conn.waiting_since.get_or_insert(env.now);
            if !conn.watched {
                conn.watched = true;
                env.after(USER_TIMEOUT, Happening::UserTimeout(self.index, index));
            }
        }
        self.check_disconnect(env, index);
    }

    pub(super) fn arrive(&mut self, env: &mut Env, index: ConnIndex) {
        let conn = &mut self.conns[index as usize];
        conn.arriving = false;
        let link = &env.links[conn.path];
        if conn.deaf || link.silent_to {
            return;
        }
        let server = &env.servers[link.server];
        let reads = server.runs() && conn.serving.len() < server.plan.depth;
        conn.receive(if reads { u64::MAX } else { server.plan.receive_bytes });
        self.acknowledge(env, index);
        self.serve(env, index);
        if self.conns[index as usize].is_ours() {
            self.touched.push(index);
        }
    }

    fn acknowledge(&mut self, env: &Env, index: ConnIndex) {
        let conn = &mut self.conns[index as usize];
        if !env.links[conn.path].works() {
            return;
        }
        conn.last_ack = env.now;
        if conn.acked < conn.received {
            conn.acked = conn.received;
            conn.waiting_since = (conn.accepted > conn.acked).then_some(env.now);
        }
    }

    /// The server takes whole frames while it may.
    pub(super) fn serve(&mut self, env: &mut Env, index: ConnIndex) {
        let link = self.conns[index as usize].path;
        let server = env.links[link].server;
        let depth = env.servers[server].plan.depth;
        if !env.servers[server].runs() {
            return;
        }
        loop {
            let conn = &mut self.conns[index as usize];
            if conn.deaf || conn.serving.len() >= depth {
                return;
            }
            let Some(frame) = conn.frames.front().copied().filter(|frame| frame.end <= conn.received) else {
                conn.read = conn.received;
                return;
            };
            conn.frames.pop_front();
            conn.read = frame.end;
            conn.serving.push(frame.op);
            let plan = &env.servers[server].plan;
            let usual = plan.service / 2 + env.rng.below(plan.service);
            let queued = env.servers[server].queue_up(env.now);
            let delay = usual + env.servers[server].slow + queued;
            let op = self.ops.name(frame.op);
            env.schedule(server, self.index, op, delay, false);
        }
    }

    /// A fault of this link or its server has passed: everything moves again.
    pub fn wake(&mut self, env: &mut Env, link: usize) {
        for at in 0..self.live.len() {
            let index = self.live[at];
            let conn = &mut self.conns[index as usize];
            if conn.path != link {
                continue;
            }
            if conn.orphaned && conn.is_ours() && env.links[link].works() {
                self.sever(env, index, LaneFault::Reset("the server process is gone".into()));
                continue;
            }
            let conn = &mut self.conns[index as usize];
            if conn.stage == Stage::Opening {
                env.after(3 * env.plan.latency, Happening::Connected(self.index, index));
            }
            if !conn.arriving {
                conn.arriving = true;
                env.after(env.plan.latency, Happening::Arrive(self.index, index));
            }
            if !env.links[link].silent_from {
                for op in std::mem::take(&mut conn.answers) {
                    env.after(env.plan.latency, Happening::Answer(self.index, op));
                }
            }
        }
    }

    pub(super) fn user_timeout(&mut self, env: &mut Env, index: ConnIndex) {
        let conn = &mut self.conns[index as usize];
        conn.watched = false;
        let Some(since) = conn.waiting_since.filter(|_| conn.is_ours()) else { return };
        if since + USER_TIMEOUT > env.now || !conn.user_timeout {
            conn.watched = true;
            let again = (since + USER_TIMEOUT).max(env.now + SECOND / 10);
            env.queue.push(again, Happening::UserTimeout(self.index, index));
            return;
        }
        env.mark(Mark::UserTimeout);
        self.sever(env, index, LaneFault::Reset("timed out".into()));
    }

    /// Nothing that has not begun to leave will.
    pub(super) fn quiet(&mut self, env: &mut Env, index: ConnIndex) {
        self.conns[index as usize].quiet = true;
        self.drop_unsent(env, index);
    }

    fn drop_unsent(&mut self, env: &mut Env, index: ConnIndex) {
        loop {
            let conn = &mut self.conns[index as usize];
            let Some(frame) = conn.frames.back().copied().filter(|frame| frame.end > conn.accepted) else {
                return;
            };
            let cut = frame.start < conn.accepted;
            conn.frames.pop_back();
            env.mark(if cut { Mark::CutFrame } else { Mark::UnsentFrame });
            self.end_op(frame.op);
        }
    }

    pub(super) fn abort(&mut self, env: &mut Env, index: ConnIndex) {
        if env.sabotage == Sabotage::PlainClose && self.conns[index as usize].is_ours() {
            self.plain_close(env, index);
            return;
        }
        self.sever(env, index, LaneFault::ByUs);
    }

    /// What `abort` must not be: the kernel keeps its queue and sends it when it can.
    fn plain_close(&mut self, env: &mut Env, index: ConnIndex) {
        self.drop_unsent(env, index);
        let conn = &mut self.conns[index as usize];
        conn.stage = Stage::Ending;
        conn.fault = LaneFault::ByUs;
        env.after(1000, Happening::Down(self.index, index));
    }

    pub(super) fn disconnect(&mut self, env: &mut Env, index: ConnIndex) {
        self.conns[index as usize].stage = Stage::Disconnecting;
        env.after(DISCONNECT, Happening::DisconnectTimeout(self.index, index));
        self.touched.push(index);
    }

    /// The same on a lane that was given up, for as long as it takes.
    pub(super) fn drain(&mut self, index: ConnIndex) {
        let conn = &mut self.conns[index as usize];
        conn.stage = Stage::Disconnecting;
        conn.proof = true;
        self.touched.push(index);
    }

    pub(super) fn disconnect_timeout(&mut self, env: &mut Env, index: ConnIndex) {
        let conn = &self.conns[index as usize];
        if conn.stage == Stage::Disconnecting && !conn.proof {
            self.abort(env, index);
        }
    }

    /// The server reads DISC behind everything else, finishes if it is of that kind, closes.
    pub(super) fn check_disconnect(&mut self, env: &mut Env, index: ConnIndex) {
        let conn = &self.conns[index as usize];
        if conn.stage != Stage::Disconnecting || !conn.frames.is_empty() {
            return;
        }
        let (link, server) = (&env.links[conn.path], env.server_of(conn.path));
        let idle = conn.serving.is_empty();
        if !link.works() || !server.runs() || (server.plan.drains && !idle) {
            return;
        }
        if server.plan.drains {
            env.mark(Mark::Drained);
        }
        let fault = if conn.proof { LaneFault::Drained } else { LaneFault::ByUs };
        self.sever(env, index, fault);
    }

    /// The connection is gone; the engine hears of it in a moment.
    pub fn sever(&mut self, env: &mut Env, index: ConnIndex, fault: LaneFault) {
        let conn = &mut self.conns[index as usize];
        if matches!(conn.stage, Stage::Ending | Stage::Gone) {
            return;
        }
        let opening = conn.stage == Stage::Opening;
        conn.stage = Stage::Ending;
        conn.fault = fault;
        env.after(1000, Happening::Down(self.index, index));
        if opening {
            return;
        }
        self.drop_unsent(env, index);
        let link = self.conns[index as usize].path;
        let stopped = env.server_of(link).stopped;
        let conn = &self.conns[index as usize];
        let mut ops = conn.serving.iter().copied().chain(conn.frames.iter().map(|frame| frame.op));
        if ops.any(|op| self.ops.get(op).command == Command::Flush) {
            env.mark(Mark::FlushLost);
        }
        let ghosts = !conn.frames.is_empty() || !conn.serving.is_empty();
        if ghosts || env.plan.topology == Topology::Incoherent {
            self.bound_ghosts(env, index);
        }
        self.lose_kernel_queue(env, index);
        if self.conns[index as usize].deaf || !env.server_of(link).plan.reads_after_reset {
            self.go_deaf(index);
        } else if stopped && !self.conns[index as usize].frames.is_empty() {
            env.mark(Mark::StalledReceive);
        }
        self.delay_ghosts(env, index);
    }

    /// What had not reached the server: lost, or in the network and late.
    fn lose_kernel_queue(&mut self, env: &mut Env, index: ConnIndex) {
        let link = self.conns[index as usize].path;
        let conn = &self.conns[index as usize];
        let on_the_way = conn.frames.back().is_some_and(|frame| frame.end > conn.received);
        if !on_the_way {
            return;
        }
        if !env.links[link].silent_to && env.rng.chance(env.plan.faults.network_ppm) {
            env.mark(Mark::StalledNetwork);
            let delay = self.lateness(env);
            let conn = &mut self.conns[index as usize];
            conn.arriving = true;
            env.after(delay, Happening::Arrive(self.index, index));
            return;
        }
        env.mark(Mark::StalledSend);
        loop {
            let conn = &mut self.conns[index as usize];
            let Some(frame) = conn.frames.back().copied().filter(|frame| frame.end > conn.received) else {
                return;
            };
            conn.frames.pop_back();
            self.end_op(frame.op);
        }
    }

    /// Nothing more of it is read.
    pub(super) fn go_deaf(&mut self, index: ConnIndex) {
        self.conns[index as usize].deaf = true;
        while let Some(frame) = self.conns[index as usize].frames.pop_front() {
            self.end_op(frame.op);
        }
    }

    /// Of what is in service some is done late.
    fn delay_ghosts(&mut self, env: &mut Env, index: ConnIndex) {
        let link = self.conns[index as usize].path;
        let server = env.links[link].server;
        for at in 0..self.conns[index as usize].serving.len() {
            let op = self.conns[index as usize].serving[at];
            if !self.ops.get(op).executed {
                env.mark(Mark::StalledExecution);
            }
            let frozen = env.servers[server].stopped || env.servers[server].hang;
            if frozen || self.ops.get(op).executed || !env.rng.chance(env.plan.faults.late_ppm) {
                continue;
            }
            let name = self.ops.renew(op);
            let delay = self.lateness(env);
            env.schedule(server, self.index, name, delay, false);
        }
    }

    /// How late something may still happen.
    fn lateness(&self, env: &mut Env) -> Nanos {
        let bound = if self.is_bounded() { self.program.quiesce } else { UNBOUNDED };
        if env.sabotage == Sabotage::LateGhost { bound + env.rng.below(bound) } else { env.rng.below(bound) }
    }

    fn bound_ghosts(&self, env: &mut Env, index: ConnIndex) {
        if self.is_bounded() && env.sabotage != Sabotage::LateGhost {
            env.after(self.program.quiesce - 1, Happening::EndGhosts(self.index, index));
        }
    }

    pub(super) fn end_ghosts(&mut self, env: &mut Env, index: ConnIndex) {
        let path = self.conns[index as usize].path;
        if let (Topology::Incoherent, Some(cache)) = (env.plan.topology, env.server_of(path).plan.cache) {
            // A cut-off server's write-back is a ghost too, and ends with the others.
            self.write_back(env, cache);
        }
        self.conns[index as usize].deaf = true;
        while let Some(frame) = self.conns[index as usize].frames.pop_front() {
            self.end_op(frame.op);
        }
        while let Some(op) = self.conns[index as usize].serving.pop() {
            self.end_op(op);
        }
    }

    /// An operation will not be carried out any more.
    pub(super) fn end_op(&mut self, op: u32) {
        let entry = self.ops.get(op);
        if entry.writes() {
            let path = self.conns[entry.conn as usize].path;
            self.paths[path].open_writes -= 1;
        }
        self.ops.remove(op);
    }

    pub(super) fn down(&mut self, env: &mut Env, index: ConnIndex) {
        let conn = &mut self.conns[index as usize];
        if conn.stage != Stage::Ending {
            return;
        }
        conn.stage = Stage::Gone;
        let (lane, fault, sent_bytes): (LaneId, _, _) = (conn.lane, conn.fault.clone(), conn.sent());
        self.break_off(env, index, lane);
        let conn = &mut self.conns[index as usize];
        for op in std::mem::take(&mut conn.answers) {
            // Carried out; only the answer is lost.
            self.ops.remove(op.index);
        }
        self.lanes[lane.slot as usize] = None;
        self.feed(env, Event::LaneDown { lane, fault, sent_bytes });
        self.look_at_losses();
        self.forget_gone();
    }

    /// Connections that are gone and have left nothing.
    pub(super) fn forget_gone(&mut self) {
        self.live.retain(|&live| {
            let conn = &self.conns[live as usize];
            conn.stage != Stage::Gone || !conn.frames.is_empty() || !conn.serving.is_empty()
        });
    }

    /// Of an answer on its way a part has come.
    fn break_off(&mut self, env: &mut Env, index: ConnIndex, lane: LaneId) {
        let underway = |op: &&Op| {
            let read = op.command == Command::Read && op.answered == Answered::Lands;
            op.conn == index && op.executed && read && op.result.is_ok() && op.data.len() > 1
        };
        let Some(op) = self.ops.live().find(underway) else { return };
        // By the cookie, so that no draw of the run hangs on it.
        let sectors = 1 + (op.cookie.wrapping_mul(0x9e37_79b9) >> 16) as usize % (op.data.len() - 1);
        let (cookie, values) = (op.cookie, op.data[..sectors].to_vec());
        let data = self.buffers.insert(Buffer::Data(values));
        let len = sectors as u64 * self.plan.sector_bytes;
        let before = self.engine.status(env.now).resent;
        self.feed(env, Event::ReadPart { lane, cookie, data, len });
        if self.engine.status(env.now).resent > before {
            env.mark(Mark::Continued);
        }
    }

    /// The server process behind a link dies: what it had is done now or never.
    pub fn process_dies(&mut self, env: &mut Env, server: usize) -> bool {
        let mut met = false;
        for at in 0..self.live.len() {
            let index = self.live[at];
            let conn = &self.conns[index as usize];
            if env.links[conn.path].server != server {
                continue;
            }
            if conn.stage == Stage::Opening {
                // It has reached nobody yet: it is refused, or the next process takes it.
                continue;
            }
            met |= !self.conns[index as usize].serving.is_empty();
            self.go_deaf(index);
            for op in std::mem::take(&mut self.conns[index as usize].serving) {
                if !self.ops.get(op).executed && env.rng.chance(500_000) {
                    self.apply(env, op);
                }
                self.end_op(op);
            }
            let conn = &mut self.conns[index as usize];
            conn.orphaned = true;
            if conn.is_ours() && env.links[conn.path].works() {
                let fault = if env.rng.chance(500_000) {
                    LaneFault::Reset("the server died".into())
                } else {
                    LaneFault::Closed
                };
                self.sever(env, index, fault);
            }
        }
        met
    }

    /// Ends every connection of a link that the engine has; whether any carried something.
    pub fn break_link(&mut self, env: &mut Env, link: usize, fault: &LaneFault) -> bool {
        let mut met = false;
        for at in 0..self.live.len() {
            let index = self.live[at];
            let conn = &self.conns[index as usize];
            if conn.path == link && conn.is_ours() {
                met |= !conn.serving.is_empty() || !conn.frames.is_empty();
                self.sever(env, index, fault.clone());
            }
        }
        met
    }

    /// Requests on their way over a link.
    pub fn busy_on(&self, link: usize) -> bool {
        self.live
            .iter()
            .map(|&index| &self.conns[index as usize])
            .any(|conn| conn.path == link && (!conn.serving.is_empty() || !conn.frames.is_empty()))
    }

    /// Whether this device uses one path at a time by its program or its storage (W18).
    pub(super) fn one_path(&self, env: &Env) -> bool {
        self.program.access == program::AccessPolicy::ActivePassive
            || env.plan.topology == Topology::Incoherent
    }
}
