// SPDX-License-Identifier: MIT OR Apache-2.0
//! A seeded world around the production engine: one disk, several paths to it,
//! servers that stop, die, answer EIO, links that reset and go silent, a host that
//! never times out, and an oracle that knows what every block may hold.
//!
//! Virtual time; everything comes from one seed; a run prints how to repeat it.
//! The model stays inside what the default mode promises: what a server has not
//! executed `quiesce` after our abort it never will (that is the assumption of
//! `unproven = "assume"`); as long as a connection stands, a stopped server may
//! execute what it received however late.
#![allow(missing_docs, dead_code, unreachable_pub)]

use std::collections::{BTreeMap, BinaryHeap, HashMap};

use engine::{
    Action, BufferId, Close, Digest, Engine, Event, HostRequest, LaneFault, LaneId, Offer, RequestTag,
    SendData, SessionId, TcpSample,
};
use nbd::{Command, CommandFlags, Errno, TransmissionFlags};
use program::{
    AccessPolicy, AccessState, CanaryTimes, Coherence, Deadlines, DeviceProgram, Exclusive, Failback, Groups,
    MILLISECOND, Nanos, NoPath, PathProgram, PathState, Portal, ReportKind, SECOND, SelectorKind, Target,
    Unproven, Writers,
};

pub const BLOCK: u64 = 4096;
pub const BLOCKS: u64 = 64;

pub struct Rng(pub u64);

impl Rng {
    pub fn draw(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

pub fn device(paths: usize, access: AccessPolicy) -> DeviceProgram {
    let path = |n: usize| PathProgram {
        name: format!("p{n}"),
        uri: format!("nbd://s{n}/vol"),
        target: Target::Nbd {
            portals: vec![Portal::Tcp { host: format!("s{n}"), port: 10809 }],
            export: "vol".into(),
            bind: None,
        },
        priority: 50,
        access_state: None,
        weight: 1,
        lanes: 1,
        in_flight: 16,
        drains: false,
        same_cache: None,
        read_only: false,
    };
    DeviceProgram {
        name: "vol".into(),
        access,
        groups: Groups::Priority,
        selector: SelectorKind::Latency,
        writers: Writers::One,
        coherent: Coherence::Assumed,
        exclusive: Exclusive::Issue,
        unproven: Unproven::Assume,
        quiesce: 5 * SECOND,
        no_path: NoPath::Hold(600 * SECOND),
        failback: Failback::After(60 * SECOND),
        deadline: Deadlines { read: SECOND, write: 2 * SECOND },
        canary: CanaryTimes { interval: SECOND, idle: 10 * SECOND, deadline: SECOND },
        host_sessions: program::HostSessions::Shared,
        hedge_budget_ppm: 30_000,
        retention_bytes: 64 << 20,
        size_bytes: None,
        identity: Some("declared".into()),
        recorded: None,
        unclean: false,
        left_elsewhere: false,
        lost_writes: None,
        epoch: 0,
        told_access: None,
        fence: None,
        paths: (0..paths).map(path).collect(),
    }
}

/// What happens in the world.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Happening {
    Issue,
    Connected(LaneId),
    Arrives(u64, u64),
    Executes(u64, u64),
    Answer(LaneId, u64, bool, bool, u64),
    Down(LaneId, u64),
    Fault,
    Heal(usize),
    Drop(u64),
    Timer,
}

#[derive(Debug, Clone)]
struct Op {
    cookie: u64,
    command: Command,
    offset: u64,
    len: u64,
    /// Value per block for writes.
    values: Vec<u64>,
    land: bool,
    frame_end: u64,
}

#[derive(Debug)]
struct Conn {
    lane: LaneId,
    path: usize,
    open: bool,
    /// Our side aborted it.
    aborted: bool,
    ops: BTreeMap<u64, Op>,
    received: Vec<u64>,
    queued_bytes: u64,
    sent_bytes: u64,
    quiet: bool,
}

#[derive(Debug, Default, Clone)]
struct Server {
    stopped: bool,
    dead: bool,
    silent: bool,
    eio: bool,
    faulted: bool,
}

pub struct World {
    pub rng: Rng,
    pub now: Nanos,
    pub engine: Engine,
    heap: BinaryHeap<std::cmp::Reverse<(Nanos, u64, Happening)>>,
    sequence: u64,
    disk: Vec<u64>,
    servers: Vec<Server>,
    conns: BTreeMap<u64, Conn>,
    by_lane: HashMap<LaneId, u64>,
    next_id: u64,
    buffers: HashMap<BufferId, Vec<u64>>,
    next_buffer: u32,
    requests: BTreeMap<RequestTag, (HostRequest, Vec<u64>, Vec<BufferId>, Nanos)>,
    next_tag: u64,
    write_number: u64,
    /// Per block: highest acknowledged, and every number issued.
    acked: Vec<u64>,
    issued: Vec<u64>,
    floor_at_issue: HashMap<RequestTag, Vec<u64>>,
    timer: Option<Nanos>,
    pub depth: usize,
    pub answered: u64,
    pub faults: BTreeMap<&'static str, u64>,
    pub events: BTreeMap<&'static str, u64>,
    pub states: HashMap<String, PathState>,
    eio_until: Option<Nanos>,
    issuing: bool,
    faulting: bool,
    pub longest: Nanos,
    pub identity: bool,
}

impl World {
    pub fn new(seed: u64, program: &DeviceProgram) -> Self {
        let engine = Engine::new(program, seed, SECOND);
        let mut world = Self {
            rng: Rng(seed),
            now: SECOND,
            engine,
            heap: BinaryHeap::new(),
            sequence: 0,
            disk: vec![1; BLOCKS as usize],
            servers: vec![Server::default(); program.paths.len()],
            conns: BTreeMap::new(),
            by_lane: HashMap::new(),
            next_id: 0,
            buffers: HashMap::new(),
            next_buffer: 0,
            requests: BTreeMap::new(),
            next_tag: 0,
            write_number: 1,
            acked: vec![1; BLOCKS as usize],
            issued: vec![1; BLOCKS as usize],
            floor_at_issue: HashMap::new(),
            timer: None,
            depth: 8,
            answered: 0,
            faults: BTreeMap::new(),
            events: BTreeMap::new(),
            states: HashMap::new(),
            eio_until: None,
            issuing: true,
            faulting: true,
            longest: 0,
            identity: false,
        };
        world.engine.handle(world.now, Event::SessionOpened(SessionId(1)));
        world.drain();
        world.at(10 * MILLISECOND, Happening::Issue);
        world.at(100 * MILLISECOND, Happening::Fault);
        world
    }

    fn at(&mut self, delay: Nanos, what: Happening) {
        self.sequence += 1;
        self.heap.push(std::cmp::Reverse((self.now + delay, self.sequence, what)));
    }

    /// Runs for a while with faults, then heals everything and waits for the end.
    pub fn run(&mut self, time: Nanos) {
        let end = self.now + time;
        while self.now < end {
            self.step();
        }
        self.issuing = false;
        self.faulting = false;
        for path in 0..self.servers.len() {
            self.heal(path);
        }
        let end = self.now + 60 * SECOND;
        while self.now < end && (!self.engine.is_idle() || self.now + 40 * SECOND < end) {
            self.step();
        }
        assert!(self.engine.is_idle(), "requests are left after all was healed (T7): {:?}", self.requests);
        let end = self.now + 60 * SECOND;
        while self.now < end {
            self.step();
        }
        for (block, &value) in self.disk.iter().enumerate() {
            assert!(
                value >= self.acked[block],
                "block {block} holds write {value}, {} was acknowledged (T1)",
                self.acked[block]
            );
        }
        self.flush();
        assert!(self.buffers.is_empty(), "{} buffers leaked", self.buffers.len());
        let status = self.engine.status(self.now);
        assert_eq!(status.state, program::DeviceState::Optimal, "not optimal after healing: {status:#?}");
        assert_eq!(status.quarantined, 0);
    }

    pub fn step(&mut self) {
        let Some(std::cmp::Reverse((time, _, what))) = self.heap.pop() else {
            panic!("the world stands still")
        };
        assert!(time >= self.now);
        self.now = time;
        self.happen(&what);
        self.drain();
        self.engine.check_invariants();
        if let Some(due) = self.engine.next_deadline() {
            let due = due.max(self.now);
            if self.timer.is_none_or(|timer| due < timer) {
                self.timer = Some(due);
                self.at(due - self.now, Happening::Timer);
            }
        }
    }

    fn happen(&mut self, what: &Happening) {
        match *what {
            Happening::Issue => self.issue(),
            Happening::Connected(lane) => self.connected(lane),
            Happening::Arrives(conn, cookie) => self.arrives(conn, cookie),
            Happening::Executes(conn, cookie) => self.executes(conn, cookie),
            Happening::Answer(lane, cookie, good, land, read) => self.answer(lane, cookie, good, land, read),
            Happening::Down(lane, conn) => self.down(lane, conn),
            Happening::Fault => self.fault(),
            Happening::Heal(path) => self.heal(path),
            Happening::Drop(conn) => {
                // The assumption: what is not executed by now never will be.
                if let Some(conn) = self.conns.get_mut(&conn) {
                    conn.ops.clear();
                    conn.received.clear();
                }
            }
            Happening::Timer => {
                if self.timer.is_some_and(|timer| timer <= self.now) {
                    self.timer = None;
                    self.engine.handle(self.now, Event::Timer);
                }
            }
        }
    }

    fn issue(&mut self) {
        if !self.issuing {
            return;
        }
        let pause = self.rng.draw(2) * MILLISECOND + 1000;
        self.at(pause, Happening::Issue);
        if self.requests.len() >= self.depth {
            return;
        }
        let block = self.rng.draw(BLOCKS - 4);
        let count = 1 + self.rng.draw(4);
        let command = match self.rng.draw(20) {
            0..9 => Command::Read,
            9..17 => Command::Write,
            17 => Command::WriteZeroes,
            18 => Command::Flush,
            _ => Command::Cache,
        };
        self.next_tag += 1;
        let tag = RequestTag(self.next_tag);
        let mut values = Vec::new();
        let mut payload = None;
        if command.is_write_like() {
            self.write_number += 1;
            values = vec![self.write_number; count as usize];
            for at in block..block + count {
                self.issued[at as usize] = self.write_number;
            }
        }
        if command == Command::Write {
            payload = Some(self.buffer(values.clone()));
        }
        let range = command != Command::Flush;
        let host = HostRequest {
            tag,
            session: SessionId(1),
            command,
            flags: if self.rng.draw(8) == 0 && command.is_write_like() {
                CommandFlags::FUA
            } else {
                CommandFlags::empty()
            },
            offset: if range { block * BLOCK } else { 0 },
            len: if range { count * BLOCK } else { 0 },
            payload,
        };
        self.requests.insert(tag, (host, values, Vec::new(), self.now));
        self.floor_at_issue.insert(tag, self.acked[block as usize..(block + count) as usize].to_vec());
        self.engine.handle(self.now, Event::Request(host));
    }

    /// Lets go of what is retained.
    fn flush(&mut self) {
        self.next_tag += 1;
        let tag = RequestTag(self.next_tag);
        let host = HostRequest {
            tag,
            session: SessionId(1),
            command: Command::Flush,
            flags: CommandFlags::empty(),
            offset: 0,
            len: 0,
            payload: None,
        };
        self.requests.insert(tag, (host, Vec::new(), Vec::new(), self.now));
        self.floor_at_issue.insert(tag, Vec::new());
        self.engine.handle(self.now, Event::Request(host));
        self.drain();
        let end = self.now + 10 * SECOND;
        while self.now < end {
            self.step();
        }
        assert_eq!(self.engine.retained_bytes(), 0, "everything is flushed");
    }

    fn buffer(&mut self, values: Vec<u64>) -> BufferId {
        self.next_buffer += 1;
        let id = BufferId(self.next_buffer);
        self.buffers.insert(id, values);
        id
    }

    fn connected(&mut self, lane: LaneId) {
        let Some(&conn) = self.by_lane.get(&lane) else { return };
        let path = self.conns[&conn].path;
        let server = &self.servers[path];
        if server.dead {
            self.lane_down(lane, LaneFault::Refused("nothing listens".into()));
            return;
        }
        if server.silent || server.stopped {
            self.at(9 * SECOND, Happening::Connected(lane));
            return;
        }
        let flags = TransmissionFlags::HAS_FLAGS
            .with(TransmissionFlags::SEND_FLUSH)
            .with(TransmissionFlags::CAN_MULTI_CONN)
            .with(if path.is_multiple_of(2) {
                TransmissionFlags::SEND_FUA
            } else {
                TransmissionFlags::default()
            })
            .with(if path.is_multiple_of(2) {
                TransmissionFlags::SEND_WRITE_ZEROES
            } else {
                TransmissionFlags::default()
            });
        self.conns.get_mut(&conn).expect("it is in by_lane").open = true;
        let offer = Offer {
            size_bytes: BLOCKS * BLOCK,
            flags,
            min_block_bytes: 1,
            preferred_block_bytes: 4096,
            max_payload_bytes: if path == 1 { 2 * BLOCK as u32 } else { 32 << 20 },
            structured: true,
            extended: false,
            block_status: true,
            local: false,
            node: false,
            access: AccessState::Optimized,
            gate: None,
        };
        self.engine.handle(self.now, Event::LaneOpened { lane, offer });
    }

    fn send(&mut self, lane: LaneId, op: Op, payload: u64) {
        let id = self.by_lane[&lane];
        let conn = self.conns.get_mut(&id).expect("it is in by_lane");
        assert!(conn.open && !conn.quiet, "sent on a lane that is not up");
        conn.queued_bytes += 28 + payload;
        let op = Op { frame_end: conn.queued_bytes, ..op };
        let cookie = op.cookie;
        let path = conn.path;
        assert!(conn.ops.insert(cookie, op).is_none(), "a cookie came twice");
        if self.servers[path].silent {
            // Bytes stay in our kernel: accepted, never arriving unless it heals.
            conn.sent_bytes = conn.queued_bytes;
            let sent_bytes = conn.sent_bytes;
            self.engine.handle(self.now, Event::LaneSent { lane, sent_bytes });
            let delay = 20 * MILLISECOND + self.rng.draw(40 * MILLISECOND);
            self.at(delay, Happening::Arrives(id, cookie));
            return;
        }
        conn.sent_bytes = conn.queued_bytes;
        let sent_bytes = conn.sent_bytes;
        self.engine.handle(self.now, Event::LaneSent { lane, sent_bytes });
        let delay = 20_000 + self.rng.draw(100_000);
        self.at(delay, Happening::Arrives(id, cookie));
    }

    fn arrives(&mut self, id: u64, cookie: u64) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        if !conn.ops.contains_key(&cookie) {
            return;
        }
        let server = &self.servers[conn.path];
        if server.silent {
            if conn.aborted {
                conn.ops.remove(&cookie);
            } else {
                self.at(20 * MILLISECOND, Happening::Arrives(id, cookie));
            }
            return;
        }
        if server.stopped {
            conn.received.push(cookie);
            return;
        }
        let delay = 50_000 + self.rng.draw(2_000_000);
        self.at(delay, Happening::Executes(id, cookie));
    }

    fn executes(&mut self, id: u64, cookie: u64) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let Some(op) = conn.ops.get(&cookie).cloned() else { return };
        if self.servers[conn.path].stopped {
            conn.received.push(cookie);
            return;
        }
        conn.ops.remove(&cookie);
        let (lane, open, path) = (conn.lane, conn.open && !conn.aborted, conn.path);
        let eio = self.servers[path].eio && op.command != Command::Flush && self.rng.draw(10) < 9;
        let first = (op.offset / BLOCK) as usize;
        // What is read: a key for data that lands, the value itself for a digest.
        let mut read = 0;
        if !eio {
            match op.command {
                Command::Write | Command::WriteZeroes | Command::Trim => {
                    for (n, &value) in op.values.iter().enumerate() {
                        self.disk[first + n] = value;
                    }
                }
                Command::Read if op.land && open => {
                    let values = self.disk[first..first + (op.len / BLOCK) as usize].to_vec();
                    self.next_id += 1;
                    read = self.next_id;
                    self.reads_insert(read, values);
                }
                Command::Read => read = self.disk[first],
                _ => {}
            }
        }
        if open {
            let delay = 20_000 + self.rng.draw(50_000);
            self.at(delay, Happening::Answer(lane, cookie, !eio, op.land, read));
        }
    }

    fn reads_insert(&mut self, id: u64, values: Vec<u64>) {
        self.buffers.insert(BufferId(u32::MAX - id as u32), values);
    }

    fn answer(&mut self, lane: LaneId, cookie: u64, good: bool, land: bool, read: u64) {
        let key = BufferId(u32::MAX - read as u32);
        let values = if land { self.buffers.remove(&key) } else { None };
        let Some(&conn) = self.by_lane.get(&lane) else { return };
        let entry = &self.conns[&conn];
        if !entry.open {
            return;
        }
        if self.servers[entry.path].silent {
            if let Some(values) = values {
                self.buffers.insert(key, values);
            }
            self.at(30 * MILLISECOND, Happening::Answer(lane, cookie, good, land, read));
            return;
        }
        let data = values.map(|values| self.buffer(values));
        let result = if good { Ok(()) } else { Err(Errno::Io) };
        let digest = Some(Digest { value: u128::from(read), uniform: read == 1 });
        self.engine.handle(self.now, Event::LaneActive(lane));
        self.engine.handle(self.now, Event::Reply { lane, cookie, result, data, digest });
    }

    fn lane_down(&mut self, lane: LaneId, fault: LaneFault) {
        let Some(conn) = self.by_lane.remove(&lane) else { return };
        let entry = self.conns.get_mut(&conn).expect("it was in by_lane");
        entry.open = false;
        let sent_bytes = entry.sent_bytes;
        self.engine.handle(self.now, Event::LaneDown { lane, fault, sent_bytes });
    }

    fn down(&mut self, lane: LaneId, _conn: u64) {
        self.lane_down(lane, LaneFault::ByUs);
    }

    fn fault(&mut self) {
        if !self.faulting {
            return;
        }
        let next = 500 * MILLISECOND + self.rng.draw(5 * SECOND);
        self.at(next, Happening::Fault);
        let path = self.rng.draw(self.servers.len() as u64) as usize;
        if self.servers[path].faulted {
            return;
        }
        self.servers[path].faulted = true;
        let kind = self.rng.draw(5);
        let name = ["kill", "stop", "reset", "silent", "eio"][kind as usize];
        *self.faults.entry(name).or_default() += 1;
        match kind {
            0 => {
                self.servers[path].dead = true;
                self.kill(path);
            }
            1 => self.servers[path].stopped = true,
            2 => self.reset(path),
            3 => self.servers[path].silent = true,
            _ => {
                let others = self.servers.iter().enumerate().any(|(n, s)| n != path && !s.faulted);
                // Two paths that say EIO, at once or one after the other, are believed
                // (W7), and rightly.
                let recent = self.eio_until.is_some_and(|until| self.now < until + 2 * SECOND)
                    || self.servers.iter().any(|server| server.eio);
                self.servers[path].eio = others && !recent;
            }
        }
        let lasts = 100 * MILLISECOND + self.rng.draw(12 * SECOND);
        self.at(lasts, Happening::Heal(path));
    }

    fn conns_of(&self, path: usize) -> Vec<(u64, LaneId)> {
        let mut list: Vec<_> = self
            .conns
            .iter()
            .filter(|(_, conn)| conn.path == path && conn.open)
            .map(|(&id, conn)| (id, conn.lane))
            .collect();
        list.sort_unstable();
        list
    }

    /// The process dies: what it had is executed now or never.
    fn kill(&mut self, path: usize) {
        for (id, lane) in self.conns_of(path) {
            let cookies: Vec<u64> = self.conns[&id].ops.keys().copied().collect();
            for cookie in cookies {
                if self.rng.draw(2) == 0 {
                    self.executes(id, cookie);
                }
            }
            self.conns.get_mut(&id).expect("open").ops.clear();
            self.lane_down(lane, LaneFault::Reset("killed".into()));
        }
    }

    /// Only the connection dies: what the server has it may still execute (2.1).
    fn reset(&mut self, path: usize) {
        for (id, lane) in self.conns_of(path) {
            self.lane_down(lane, LaneFault::Reset("reset".into()));
            self.delay_ghosts(id);
        }
    }

    fn delay_ghosts(&mut self, id: u64) {
        let cookies: Vec<u64> = self.conns[&id].ops.keys().copied().collect();
        for cookie in cookies {
            if self.rng.draw(3) == 0 {
                let delay = self.rng.draw(4 * SECOND);
                self.at(delay, Happening::Executes(id, cookie));
            }
        }
        self.at(4_900 * MILLISECOND, Happening::Drop(id));
    }

    fn heal(&mut self, path: usize) {
        if self.servers[path].eio {
            self.eio_until = Some(self.now);
        }
        self.servers[path] = Server::default();
        let waiting: Vec<u64> =
            self.conns.iter().filter(|(_, c)| c.path == path).map(|(&id, _)| id).collect();
        for id in waiting {
            let received = std::mem::take(&mut self.conns.get_mut(&id).expect("listed").received);
            for cookie in received {
                let delay = self.rng.draw(3 * MILLISECOND);
                self.at(delay, Happening::Executes(id, cookie));
            }
        }
    }

    fn drain(&mut self) {
        while let Some(action) = self.engine.next_action() {
            self.act(action);
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::OpenLane { lane, path, .. } => {
                self.next_id += 1;
                let conn = Conn {
                    lane,
                    path,
                    open: false,
                    aborted: false,
                    ops: BTreeMap::new(),
                    received: Vec::new(),
                    queued_bytes: 0,
                    sent_bytes: 0,
                    quiet: false,
                };
                self.conns.insert(self.next_id, conn);
                self.by_lane.insert(lane, self.next_id);
                self.at(200_000, Happening::Connected(lane));
            }
            Action::CloseLane { lane, how } => {
                let Some(&id) = self.by_lane.get(&lane) else { return };
                let conn = self.conns.get_mut(&id).expect("it is in by_lane");
                conn.aborted = true;
                if how == Close::Abort {
                    self.delay_ghosts(id);
                }
                self.at(1000, Happening::Down(lane, id));
            }
            Action::QuietLane(lane) => {
                let id = self.by_lane[&lane];
                self.conns.get_mut(&id).expect("it is in by_lane").quiet = true;
            }
            Action::Send { lane, cookie, command, offset, len, data, .. } => {
                if !self.by_lane.contains_key(&lane) {
                    return;
                }
                let count = (len / BLOCK) as usize;
                let values = match data {
                    SendData::Buffer { buffer, at } => {
                        let first = (at / BLOCK) as usize;
                        self.buffers[&buffer][first..first + count].to_vec()
                    }
                    _ if command.is_write_like() => self.zero_values(offset, count),
                    _ => Vec::new(),
                };
                let payload = if command == Command::Write { len } else { 0 };
                let op =
                    Op { cookie, command, offset, len, values, land: data == SendData::Land, frame_end: 0 };
                self.send(lane, op, payload);
            }
            Action::ReplyData { tag, buffer } => {
                self.requests.get_mut(&tag).expect("data for an open request").2.push(buffer);
            }
            Action::Reply { tag, result } => self.replied(tag, result),
            Action::Release(buffer) => {
                assert!(self.buffers.remove(&buffer).is_some(), "a buffer was released twice");
            }
            Action::SampleTcp(lane) => {
                let Some(&id) = self.by_lane.get(&lane) else { return };
                let path = self.conns[&id].path;
                let silent = self.servers[path].silent;
                let sample = TcpSample {
                    unacked: u32::from(silent),
                    notsent_bytes: 0,
                    outq_bytes: u32::from(silent) * 100,
                    last_ack_ms: if silent { 1000 } else { 0 },
                    rto_us: 200_000,
                    ..TcpSample::default()
                };
                self.engine.handle(self.now, Event::Tcp { lane, sample });
            }
            Action::Report(ReportKind::PathState { path, to, .. }) => {
                self.states.insert(path, to);
            }
            Action::Report(ReportKind::Event { name, .. }) => *self.events.entry(name).or_default() += 1,
            Action::Report(_) | Action::UserTimeout { .. } | Action::Offer(_) | Action::CloseSession(_) => {}
        }
    }

    /// A zeroes request writes its own number here, so that the oracle can tell it
    /// apart. It is the newest issued write whose request covers the range.
    fn zero_values(&self, offset: u64, count: usize) -> Vec<u64> {
        let covers = |host: &HostRequest| {
            host.command == Command::WriteZeroes
                && host.offset <= offset
                && offset + count as u64 * BLOCK <= host.offset + host.len
        };
        // Only one zeroes request over a range is granted at a time (W8): the oldest.
        let oldest =
            self.requests.values().filter(|(host, ..)| covers(host)).min_by_key(|(host, ..)| host.tag);
        match oldest {
            Some(oldest) => vec![oldest.1[0]; count],
            // Written again after a cache was lost: the newest that was acknowledged.
            None => self.acked[(offset / BLOCK) as usize..][..count].to_vec(),
        }
    }

    fn replied(&mut self, tag: RequestTag, result: Result<(), Errno>) {
        let (host, values, data, since) = self.requests.remove(&tag).expect("answered once");
        assert_eq!(result, Ok(()), "a host error while a path lived: {host:?} at {}", self.now);
        self.answered += 1;
        self.longest = self.longest.max(self.now - since);
        let first = (host.offset / BLOCK) as usize;
        let floor = self.floor_at_issue.remove(&tag).expect("noted at issue");
        if host.command.is_write_like() {
            for (n, &value) in values.iter().enumerate() {
                self.acked[first + n] = self.acked[first + n].max(value);
            }
        }
        if host.command == Command::Read {
            let read: Vec<u64> = data
                .into_iter()
                .flat_map(|buffer| self.buffers.remove(&buffer).expect("data of a reply"))
                .collect();
            assert_eq!(read.len(), floor.len(), "a read came back short");
            for (n, value) in read.into_iter().enumerate() {
                assert!(
                    value >= floor[n],
                    "block {} went back to {value}, {} was acknowledged (T1)",
                    first + n,
                    floor[n]
                );
                assert!(value <= self.issued[first + n], "block {} holds what nobody wrote", first + n);
            }
        }
    }
}
