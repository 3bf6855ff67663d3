// SPDX-License-Identifier: MIT OR Apache-2.0
//! One device of the world: the production engine and everything around it.
//!
//! | file | plays |
//! |---|---|
//! | `mod` | the driver: events in, actions out, the timer |
//! | `hosts` | sessions and their requests |
//! | `hosts/judge` | whether an answer may be |
//! | `losses` | what storage loses, and who can know of it |
//! | `wire` | connections: where bytes are when something breaks |
//! | `work` | servers at work: what is carried out when, and what of it is believed |
//! | `gate` | the handshake of servers that are gates |
//! | `restart` | our own process dies and is started again |
//! | `stop` | it is told to stop, and the next one is started |
//! | `finish` | what must be true once everything is healed |

mod finish;
mod gate;
mod hosts;
mod losses;
mod restart;
mod stop;
mod wire;
mod work;

use engine::{Action, Close, Engine, Event, LaneId, Rules, SendData, TcpSample};
use nbd::Command;
use program::{DeviceProgram, MILLISECOND, Nanos, PathState, ReportKind, Unproven};

use crate::conn::{Conn, Stage};
use crate::coverage::Mark;
use crate::env::Env;
use crate::medium::{INITIAL, Medium, Value, ZERO};
use crate::op::{Answered, Buffer, Buffers, Op, Ops};
use crate::oracle::Oracle;
use crate::plan::DevicePlan;
use crate::queue::{ConnIndex, DeviceIndex, Happening};
use crate::record::Points;
use crate::seen::Seen;

pub use hosts::{Request, Session};

/// The engine's books are checked after every so many turns.
const CHECK_EVERY: u64 = 64;

/// What is known of one path from the outside.
#[derive(Clone, Copy, Debug)]
pub struct PathView {
    /// As last reported.
    pub state: PathState,
    /// Since when it has been usable.
    pub usable_since: Nanos,
    /// When its server last answered EIO.
    pub eio_at: Option<Nanos>,
    /// Host writes sent over it that may still be carried out.
    pub open_writes: u32,
}

/// The longest time between two answers while something was open.
#[derive(Clone, Copy, Debug, Default)]
pub struct Gap {
    /// Nothing before this counts: paths connect for the first time.
    pub from: Nanos,
    since: Option<Nanos>,
    /// The longest so far.
    pub longest: Nanos,
}

impl Gap {
    fn asked(&mut self, now: Nanos) {
        self.since.get_or_insert(now);
    }

    /// `open`: something is still unanswered.
    fn answered(&mut self, now: Nanos, open: bool) {
        let since = self.since.replace(now).filter(|&since| since >= self.from);
        self.longest = self.longest.max(since.map_or(0, |since| now - since));
        if !open {
            self.since = None;
        }
    }
}

impl PathView {
    fn usable(&self) -> bool {
        matches!(
            self.state,
            PathState::Up | PathState::Standby | PathState::Probation | PathState::Slow | PathState::Held
        )
    }
}

/// See the module header.
#[derive(Debug)]
pub struct Device {
    /// Its place in the world.
    pub index: DeviceIndex,
    /// What was drawn.
    pub plan: DevicePlan,
    /// The program that runs now.
    pub program: DeviceProgram,
    /// Link of each path of that program.
    pub links: Vec<usize>,
    /// Under test.
    pub engine: Engine,
    /// What the storage holds.
    pub medium: Medium,
    /// What it may hold.
    pub oracle: Oracle,
    /// All connections of the run.
    pub conns: Vec<Conn>,
    /// Those that are not finished.
    pub live: Vec<ConnIndex>,
    /// By link.
    pub paths: Vec<PathView>,
    lanes: Vec<Option<ConnIndex>>,
    touched: Vec<ConnIndex>,
    ops: Ops,
    buffers: Buffers,
    requests: Vec<Option<Request>>,
    free_requests: Vec<u32>,
    /// Host sessions.
    pub sessions: Vec<Session>,
    next_session: u32,
    timer: Option<Nanos>,
    /// By server: something of the cache it shares was lost, and its FLUSH has not said so
    /// yet (a kernel tells every open file once).
    flush_owed: Vec<bool>,
    /// FLUSHes carried out by servers.
    flushes: u64,
    /// Definite errors that were handed to the engine: write, first and last sector.
    definite: Vec<(Value, usize, usize)>,
    /// Ranges of writes answered with an error: the other writer keeps away from them.
    doubtful: Vec<(usize, usize)>,
    /// Last moment at which a path was reported usable whose server serves.
    last_usable: Nanos,
    /// The same of a path that may be written.
    last_writable: Nanos,
    /// Writes that nothing retains may be acknowledged and not stable: no cache is lost meanwhile.
    unkept: bool,
    /// Since when everything is retained.
    kept_since: Nanos,
    /// Requests open.
    pub open: usize,
    /// How long hosts waited for any answer (issue of the first or the last answer to the next).
    pub gap: Gap,
    /// For scenarios.
    pub seen: Seen,
    /// Hosts are told of a loss by every FLUSH from now on (F9).
    loss_told: bool,
    /// A FLUSH failed and lost something, and none has succeeded since.
    loss_open: bool,
    /// Counts our own processes from 0.
    process: u32,
    /// It is stopping.
    stopping: Option<stop::Stopping>,
    /// A loss for good, as it is recorded (F9).
    recorded_loss: Option<String>,
    rules: Rules,
    /// What the engine last reported for the identity record.
    samples: Vec<(u64, u128)>,
    /// Decision points of processes that are gone.
    record: Points,
}

impl Device {
    /// A device whose engine has just started.
    pub fn new(index: DeviceIndex, plan: &DevicePlan, env: &mut Env, rules: Rules) -> Self {
        let initial = if plan.blank { ZERO } else { INITIAL };
        let coherent = env.plan.topology != crate::plan::Topology::Incoherent;
        let seed = env.rng.draw();
        let mut device = Self {
            index,
            program: plan.program.clone(),
            links: (0..plan.program.paths.len()).collect(),
            engine: Engine::with_rules(&plan.program, seed, env.now, rules),
            medium: Medium::new(plan.sectors, initial, env.plan.caches(), coherent),
            oracle: Oracle::new(plan.sectors, initial),
            conns: Vec::new(),
            live: Vec::new(),
            paths: vec![
                PathView { state: PathState::Down, usable_since: 0, eio_at: None, open_writes: 0 };
                plan.program.paths.len()
            ],
            lanes: Vec::new(),
            touched: Vec::new(),
            ops: Ops::default(),
            buffers: Buffers::default(),
            requests: Vec::new(),
            free_requests: Vec::new(),
            sessions: Vec::new(),
            next_session: 0,
            timer: None,
            flush_owed: vec![false; env.servers.len()],
            flushes: 0,
            definite: Vec::new(),
            doubtful: Vec::new(),
            last_usable: env.now,
            last_writable: env.now,
            unkept: false,
            kept_since: env.now,
            open: 0,
            gap: Gap::default(),
            seen: Seen::new(plan.program.paths.len(), plan.sessions),
            loss_told: false,
            loss_open: false,
            process: 0,
            stopping: None,
            recorded_loss: None,
            rules,
            samples: Vec::new(),
            record: Points::new(),
            plan: plan.clone(),
        };
        device.settle(env);
        for _ in 0..plan.sessions {
            device.open_session(env);
        }
        if plan.other_writer {
            env.after(MILLISECOND, Happening::OtherWriter(index));
        }
        device.settle(env);
        device
    }

    /// Ghosts end with `quiesce`: that is what `unproven = "assume"` assumes.
    pub fn is_bounded(&self) -> bool {
        self.plan.program.unproven == Unproven::Assume
    }

    /// What its engines have recorded since this was last asked.
    pub fn take_record(&mut self) -> Points {
        let mut record = std::mem::take(&mut self.record);
        record.extend(std::iter::from_fn(|| self.engine.next_recorded()));
        record
    }

    /// One happening of this device.
    pub fn happen(&mut self, env: &mut Env, what: Happening) {
        match what {
            Happening::Issue(_, session, incarnation) => self.issue(env, session, incarnation),
            Happening::SessionBack(_, session) => self.session_back(env, session),
            Happening::Connected(_, conn) => self.connected(env, conn),
            Happening::HandshakeTimeout(_, conn) => self.handshake_timeout(env, conn),
            Happening::Arrive(_, conn) => self.arrive(env, conn),
            Happening::Execute(_, op, again) => self.execute(env, op, again),
            Happening::Answer(_, op) => self.answer(env, op),
            Happening::Down(_, conn) => self.down(env, conn),
            Happening::DisconnectTimeout(_, conn) => self.disconnect_timeout(env, conn),
            Happening::UserTimeout(_, conn) => self.user_timeout(env, conn),
            Happening::EndGhosts(_, conn) => self.end_ghosts(env, conn),
            Happening::EndDirty(_, cache) => self.write_back(env, cache),
            Happening::OtherWriter(_) => self.other_writer(env),
            Happening::StopLook(_, number) => self.stop_look(env, number),
            Happening::Timer(_) => {
                if self.timer.is_some_and(|due| due <= env.now) {
                    self.timer = None;
                    self.feed(env, Event::Timer);
                }
            }
            Happening::Fault | Happening::Planned(_) | Happening::Heal(_) | Happening::WriteBack => {
                unreachable!("the world's, not a device's")
            }
        }
    }

    /// Hands an event to the engine.
    pub fn feed(&mut self, env: &mut Env, event: Event) {
        env.trace.add(env.now ^ (u64::from(self.index) << 56));
        env.tell(self.index, || format!("> {event:?}"));
        self.engine.handle(env.now, event);
    }

    /// Carries out what the engine decided, until there is nothing left to do.
    pub fn settle(&mut self, env: &mut Env) {
        loop {
            while let Some(action) = self.engine.next_action() {
                self.act(env, action);
            }
            let Some(conn) = self.touched.pop() else {
                if self.end_if_over(env) {
                    continue;
                }
                break;
            };
            self.flow(env, conn);
        }
        if env.happenings.is_multiple_of(CHECK_EVERY) {
            self.engine.check_invariants();
        }
        if let Some(due) = self.engine.next_deadline() {
            let due = due.max(env.now);
            if self.timer.is_none_or(|timer| due < timer) {
                self.timer = Some(due);
                env.queue.push(due, Happening::Timer(self.index));
            }
        }
        // A server that answers ESHUTDOWN to everything serves nobody, whatever the engine hopes of it.
        let serves = |link: usize| !env.server_of(link).leaving;
        let usable = |link: &usize| self.paths[*link].usable() && serves(*link);
        if (0..self.paths.len()).any(|link| usable(&link)) {
            self.last_usable = env.now;
        }
        if (0..self.paths.len()).filter(usable).any(|link| self.is_written_through(link)) {
            self.last_writable = env.now;
        }
    }

    /// Whether the running program lets this link's path be written through.
    fn is_written_through(&self, link: usize) -> bool {
        let mut paths = self.links.iter().zip(&self.program.paths);
        paths.any(|(&of, path)| of == link && !path.read_only)
    }

    fn act(&mut self, env: &mut Env, action: Action) {
        env.tell(self.index, || format!("< {action:?}"));
        match action {
            Action::OpenLane { lane, path, kill, .. } => self.open_lane(env, lane, path, kill),
            Action::CloseLane { lane, how } => self.close_lane(env, lane, how),
            Action::QuietLane(lane) => {
                if let Some(conn) = self.conn_of(lane) {
                    self.quiet(env, conn);
                }
            }
            Action::Send { .. } => self.send(env, &action),
            Action::ReplyData { tag, buffer } => self.reply_data(env, tag, buffer),
            Action::Reply { tag, result } => self.replied(env, tag, result),
            Action::Release(buffer) => {
                if matches!(self.buffers.remove(buffer), Buffer::Free) {
                    env.fail("buffers", || format!("buffer {} was released twice", buffer.0));
                }
            }
            Action::SampleTcp(lane) => {
                if let Some(conn) = self.conn_of(lane)
                    && self.conns[conn as usize].is_ours()
                {
                    let sample = self.sample(env, conn);
                    self.feed(env, Event::Tcp { lane, sample });
                }
            }
            Action::UserTimeout { lane, enable } => {
                if let Some(conn) = self.conn_of(lane) {
                    self.conns[conn as usize].user_timeout = enable;
                }
            }
            Action::Report(kind) => self.reported(env, &kind),
            Action::Offer(_) | Action::CloseSession(_) => {}
        }
    }

    fn reported(&mut self, env: &mut Env, kind: &ReportKind) {
        if let ReportKind::Event { name, .. } = kind {
            self.seen.events.push((env.now, name));
        }
        match kind {
            ReportKind::Decision(told) => {
                assert!(!told.rule.is_empty() && !told.until.is_empty(), "says too little: {told:?}");
            }
            ReportKind::PathState { path, to, .. } => {
                let link: usize = path[1..].parse().unwrap_or_else(|_| unreachable!("paths are named pN"));
                let was = self.paths[link].usable();
                let from = std::mem::replace(&mut self.paths[link].state, *to);
                self.seen.states.push((env.now, link, *to));
                if !was {
                    self.paths[link].usable_since = env.now;
                }
                match to {
                    PathState::Refused => env.mark(Mark::Refused),
                    PathState::Unproven => env.mark(Mark::UnprovenLane),
                    PathState::Up if from == PathState::Standby => env.mark(Mark::Switched),
                    _ => {}
                }
            }
            ReportKind::Event { name: "quarantine_unproven", .. } => env.mark(Mark::Unproven),
            ReportKind::Event { name: "path_distance", .. } => env.mark(Mark::Moved),
            ReportKind::Event { name: "hold_over", .. } => env.mark(Mark::HoldOver),
            ReportKind::Event { name: "cache_replayed", .. } => env.mark(Mark::Replayed),
            ReportKind::Event { name: "ghost_repaired", .. } => env.mark(Mark::Repaired),
            ReportKind::Event { name: "writes_lost", text, .. } => {
                env.mark(Mark::WritesLost);
                self.writes_lost(text);
            }
            ReportKind::Event { name: "cache_unproven", rule: "F2", .. } => self.given_up(),
            ReportKind::Event { name: "cache_unproven", rule: "W10", .. } => {
                env.mark(Mark::InheritedUnproven);
                self.oracle.give_up_forgotten();
                self.lower_flush_floors();
            }
            ReportKind::Event { name: "session_fenced", .. } => env.mark(Mark::Fenced),
            ReportKind::Event { name: "recovered", .. } => env.mark(Mark::Recovered),
            ReportKind::Event { name: "recovered_unproven", .. } => env.mark(Mark::RecoveredUnproven),
            ReportKind::Samples(samples) => self.samples.clone_from(samples),
            ReportKind::Loss(loss) => self.recorded_loss.clone_from(loss),
            ReportKind::Event { .. } | ReportKind::Geometry(_) | ReportKind::Clean => {}
        }
    }

    /// A path was removed with something unflushed: that was the operator's doing (F2).
    fn given_up(&mut self) {
        for sector in 0..self.plan.sectors {
            self.oracle.give_up(sector);
        }
        self.lower_flush_floors();
    }

    fn conn_of(&self, lane: LaneId) -> Option<ConnIndex> {
        let conn = (*self.lanes.get(lane.slot as usize)?)?;
        (self.conns[conn as usize].lane == lane).then_some(conn)
    }

    fn open_lane(&mut self, env: &mut Env, lane: LaneId, path: usize, kill: Option<LaneId>) {
        let conn = self.conns.len() as ConnIndex;
        let link = self.links[path];
        self.conns.push(Conn::new(lane, link, self.process, kill, env.now));
        self.live.push(conn);
        if self.lanes.len() <= lane.slot as usize {
            self.lanes.resize(lane.slot as usize + 1, None);
        }
        self.lanes[lane.slot as usize] = Some(conn);
        env.after(3 * env.plan.latency, Happening::Connected(self.index, conn));
        env.after(wire::HANDSHAKE, Happening::HandshakeTimeout(self.index, conn));
    }

    fn close_lane(&mut self, env: &mut Env, lane: LaneId, how: Close) {
        let Some(conn) = self.conn_of(lane) else { return };
        match (how, self.conns[conn as usize].stage) {
            (_, Stage::Ending | Stage::Gone) => {}
            (Close::Disconnect, Stage::Open) => self.disconnect(env, conn),
            (Close::Drain, Stage::Open) => self.drain(conn),
            _ => self.abort(env, conn),
        }
    }

    fn send(&mut self, env: &mut Env, action: &Action) {
        let Action::Send { lane, cookie, command, flags, offset, len, data } = *action else {
            unreachable!("only called for Send")
        };
        env.trace.add(cookie ^ (offset << 20) ^ len);
        let Some(conn) = self.conn_of(lane) else {
            env.fail("contract", || format!("sent on lane {lane:?}, which is down"));
            return;
        };
        match self.conns[conn as usize].stage {
            Stage::Open => {}
            // Broken, and the engine has not heard of it: nothing leaves any more.
            Stage::Ending | Stage::Disconnecting => return,
            stage => {
                env.fail("contract", || format!("sent on a lane that is {stage:?}"));
                return;
            }
        }
        let unit = self.plan.sector_bytes;
        let start = (offset / unit) as usize;
        let end = if len == 0 { start } else { ((offset + len - 1) / unit + 1) as usize };
        let value = match data {
            SendData::Buffer { buffer, at } => self.payload(env, buffer, at, start),
            _ => ZERO,
        };
        let op = Op {
            generation: 0,
            live: true,
            conn,
            cookie,
            command,
            flags,
            start,
            end,
            value,
            answered: match data {
                SendData::Land => Answered::Lands,
                SendData::Digest => Answered::Digest,
                _ => Answered::Nothing,
            },
            sent_at: env.now,
            for_host: data != SendData::Digest,
            data: Vec::new(),
            result: Ok(()),
            executed: false,
        };
        self.check_send(env, &op, len);
        let header =
            if self.conns[conn as usize].offer.is_some_and(|offer| offer.extended) { 32 } else { 28 };
        let bytes = header + if command == Command::Write { len } else { 0 };
        if op.writes() {
            self.paths[self.conns[conn as usize].path].open_writes += 1;
        }
        let index = self.ops.insert(op);
        self.conns[conn as usize].push(index, bytes);
        self.touched.push(conn);
    }

    /// The number a WRITE carries; its bytes must be those of its place in the payload.
    fn payload(&mut self, env: &mut Env, buffer: engine::BufferId, at: u64, start: usize) -> Value {
        let Buffer::Payload(number, first) = *self.buffers.get(buffer) else {
            env.fail("W3", || format!("a WRITE was sent from buffer {}, which holds no payload", buffer.0));
            return ZERO;
        };
        if first + (at / self.plan.sector_bytes) as usize != start {
            env.fail("W3", || format!("write {number} was sent with bytes of another place"));
        }
        number
    }

    /// What the kernel says of a connection (W16).
    fn sample(&self, env: &Env, conn: ConnIndex) -> TcpSample {
        let conn = &self.conns[conn as usize];
        let link = &env.links[conn.path];
        let since = if link.works() { 0 } else { (env.now - conn.last_ack) / MILLISECOND };
        let waiting = conn.accepted - conn.acked;
        // A closed window: the peer's kernel answers, its process does not read.
        let closed = link.works() && conn.received < conn.accepted;
        TcpSample {
            unacked: u32::from(waiting > 0 && !closed),
            notsent_bytes: if closed { (conn.accepted - conn.received) as u32 } else { 0 },
            outq_bytes: waiting as u32,
            last_ack_ms: since as u32,
            // An idle connection is probed about once a second.
            probes: if waiting == 0 { (since / 1000) as u32 } else { 0 },
            // As the round trips of a machine room measure it, without the kernel's floor.
            rto_us: 1_000,
        }
    }
}
