// SPDX-License-Identifier: MIT OR Apache-2.0
//! A hand-driven engine: the test plays the driver, the servers and the clock.
#![allow(unreachable_pub)]

use std::collections::VecDeque;

use engine::{
    Action, BufferId, Close, Digest, Engine, Event, HostRequest, LaneFault, LaneId, Offer, RequestTag, Rules,
    SendData, SessionId,
};
use nbd::{Command, CommandFlags, Errno, TransmissionFlags as Flags};
use program::{
    AccessPolicy, AccessState, CanaryTimes, Coherence, Deadlines, DeviceProgram, Exclusive, Failback, Groups,
    MILLISECOND, Nanos, NoPath, PathProgram, Portal, ReportKind, SECOND, SelectorKind, Target, Unproven,
    Writers,
};

pub const MIB: u64 = 1 << 20;
pub const SIZE: u64 = 1 << 30;

/// A `Send` as the test sees it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sent {
    pub lane: LaneId,
    pub path: usize,
    pub cookie: u64,
    pub command: Command,
    pub flags: CommandFlags,
    pub offset: u64,
    pub len: u64,
    pub data: SendData,
}

pub struct Script {
    pub engine: Engine,
    pub now: Nanos,
    pub sent: VecDeque<Sent>,
    pub replies: Vec<(u64, Result<(), Errno>)>,
    pub opening: Vec<(LaneId, usize)>,
    /// Portal of every lane that was opened.
    pub portals: Vec<(LaneId, usize)>,
    pub closing: Vec<(LaneId, Close)>,
    /// Lanes that were opened with a kill, and of what.
    pub kills: Vec<(LaneId, LaneId)>,
    /// Lanes whose connection the engine wants to know about.
    pub sampled: Vec<LaneId>,
    /// TCP_USER_TIMEOUT as it was set.
    pub timed: Vec<(LaneId, bool)>,
    pub lanes: Vec<(LaneId, usize, u64)>,
    pub events: Vec<&'static str>,
    /// Losses that were to be recorded, and that they were cleared.
    pub losses: Vec<Option<String>>,
    /// Changes of a path's state: new state and rule.
    pub changes: Vec<(&'static str, &'static str)>,
    /// Buffers that the engine gave up, and those of them that went to a host.
    pub released: Vec<BufferId>,
    pub given: Vec<BufferId>,
    next_tag: u64,
    next_buffer: u32,
}

pub fn device(paths: usize) -> DeviceProgram {
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
        in_flight: 8,
        drains: false,
        same_cache: None,
        read_only: false,
    };
    DeviceProgram {
        name: "vol".into(),
        access: AccessPolicy::ActiveActive,
        groups: Groups::Priority,
        selector: SelectorKind::RoundRobin,
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
        hedge_budget_ppm: 0,
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

pub fn offer() -> Offer {
    Offer {
        size_bytes: SIZE,
        flags: Flags::HAS_FLAGS
            .with(Flags::SEND_FLUSH)
            .with(Flags::SEND_FUA)
            .with(Flags::SEND_TRIM)
            .with(Flags::SEND_WRITE_ZEROES)
            .with(Flags::CAN_MULTI_CONN),
        min_block_bytes: 1,
        preferred_block_bytes: 4096,
        max_payload_bytes: 32 << 20,
        structured: true,
        extended: false,
        block_status: true,
        local: false,
        node: false,
        access: AccessState::Optimized,
        gate: None,
    }
}

pub fn without(flag: Flags) -> Offer {
    Offer { flags: offer().flags.without(flag), ..offer() }
}

impl Script {
    /// A device with every lane up.
    pub fn up(program: &DeviceProgram) -> Self {
        let mut script = Self::new(program);
        script.open_all(&offer());
        script
    }

    pub fn new(program: &DeviceProgram) -> Self {
        Self::without("", program)
    }

    /// With one rule turned off (T5); the empty name turns none off.
    pub fn without(rule: &str, program: &DeviceProgram) -> Self {
        let rules = if rule.is_empty() { Rules::ALL } else { Rules::without(rule).expect("a switch") };
        let mut script = Self {
            engine: Engine::with_rules(program, 7, SECOND, rules),
            now: SECOND,
            sent: VecDeque::new(),
            replies: Vec::new(),
            opening: Vec::new(),
            portals: Vec::new(),
            closing: Vec::new(),
            kills: Vec::new(),
            sampled: Vec::new(),
            timed: Vec::new(),
            lanes: Vec::new(),
            events: Vec::new(),
            losses: Vec::new(),
            changes: Vec::new(),
            released: Vec::new(),
            given: Vec::new(),
            next_tag: 0,
            next_buffer: 0,
        };
        script.event(Event::SessionOpened(SessionId(1)));
        script
    }

    pub fn event(&mut self, event: Event) {
        self.engine.handle(self.now, event);
        self.drain();
        self.engine.check_invariants();
    }

    fn drain(&mut self) {
        while let Some(action) = self.engine.next_action() {
            match action {
                Action::OpenLane { lane, path, portal, kill } => {
                    self.opening.push((lane, path));
                    self.portals.push((lane, portal));
                    self.kills.extend(kill.map(|target| (lane, target)));
                }
                Action::UserTimeout { lane, enable } => self.timed.push((lane, enable)),
                Action::SampleTcp(lane) => self.sampled.push(lane),
                Action::CloseLane { lane, how } => self.closing.push((lane, how)),
                Action::Send { lane, cookie, command, flags, offset, len, data } => {
                    self.on_send(Sent { lane, path: 0, cookie, command, flags, offset, len, data });
                }
                Action::Reply { tag, result } => self.replies.push((tag.0, result)),
                Action::Release(buffer) => self.released.push(buffer),
                Action::ReplyData { buffer, .. } => {
                    self.released.push(buffer);
                    self.given.push(buffer);
                }
                Action::Report(ReportKind::Event { name, .. }) => self.events.push(name),
                Action::Report(ReportKind::Loss(loss)) => self.losses.push(loss),
                Action::Report(ReportKind::Decision(told)) => {
                    assert!(!told.rule.is_empty() && !told.until.is_empty(), "says too little: {told:#?}");
                }
                Action::Report(ReportKind::PathState { to, rule, .. }) => {
                    self.changes.push((to.as_str(), rule));
                }
                _ => {}
            }
        }
    }

    fn on_send(&mut self, sent: Sent) {
        let lane = self.lanes.iter_mut().find(|(lane, ..)| *lane == sent.lane).expect("sent on an open lane");
        lane.2 += 28 + if sent.command == Command::Write { sent.len } else { 0 };
        self.sent.push_back(Sent { path: lane.1, ..sent });
    }

    pub fn open_all(&mut self, offer: &Offer) {
        while let Some((lane, _)) = self.opening.first().copied() {
            self.open(lane, *offer);
        }
    }

    pub fn open(&mut self, lane: LaneId, offer: Offer) {
        let at = self.opening.iter().position(|(opening, _)| *opening == lane).expect("it is opening");
        let (lane, path) = self.opening.remove(at);
        self.lanes.push((lane, path, 0));
        self.event(Event::LaneOpened { lane, offer });
    }

    /// Opens the lane of a path that is connecting.
    pub fn open_path(&mut self, path: usize, offer: Offer) {
        let lane = self.opening.iter().find(|(_, of)| *of == path).expect("the path is connecting").0;
        self.open(lane, offer);
    }

    /// Nothing listens at the address of a path that is connecting.
    pub fn refuse_connect(&mut self, path: usize) {
        let at = self.opening.iter().position(|(_, of)| *of == path).expect("the path is connecting");
        let (lane, _) = self.opening.remove(at);
        self.event(Event::LaneDown { lane, fault: LaneFault::Refused("test".into()), sent_bytes: 0 });
    }

    /// The lane of a path breaks; everything queued on it had left.
    pub fn reset(&mut self, path: usize) {
        let sent_bytes = self.lanes.iter().find(|(_, of, _)| *of == path).expect("the path is up").2;
        self.reset_after(path, sent_bytes);
    }

    pub fn reset_after(&mut self, path: usize, sent_bytes: u64) {
        let at = self.lanes.iter().position(|(_, of, _)| *of == path).expect("the path is up");
        let (lane, ..) = self.lanes.remove(at);
        self.sent.retain(|sent| sent.lane != lane);
        self.event(Event::LaneDown { lane, fault: LaneFault::Reset("test".into()), sent_bytes });
    }

    /// This lane is down; everything queued on it had left.
    pub fn down(&mut self, lane: LaneId, fault: LaneFault) {
        let at = self.lanes.iter().position(|(of, ..)| *of == lane).expect("the lane was open");
        let (_, _, sent_bytes) = self.lanes.remove(at);
        self.sent.retain(|sent| sent.lane != lane);
        self.event(Event::LaneDown { lane, fault, sent_bytes });
    }

    pub fn request(&mut self, command: Command, offset: u64, len: u64) -> u64 {
        self.request_with(command, CommandFlags::empty(), offset, len)
    }

    pub fn request_with(&mut self, command: Command, flags: CommandFlags, offset: u64, len: u64) -> u64 {
        self.submit(SessionId(1), command, flags, offset, len)
    }

    pub fn request_of(&mut self, session: SessionId, command: Command, offset: u64, len: u64) -> u64 {
        self.submit(session, command, CommandFlags::empty(), offset, len)
    }

    fn submit(
        &mut self,
        session: SessionId,
        command: Command,
        flags: CommandFlags,
        offset: u64,
        len: u64,
    ) -> u64 {
        self.next_tag += 1;
        let payload = (command == Command::Write).then(|| self.buffer());
        let tag = RequestTag(self.next_tag);
        self.event(Event::Request(HostRequest { tag, session, command, flags, offset, len, payload }));
        self.next_tag
    }

    /// Requests so far.
    pub fn requested(&self) -> usize {
        self.next_tag as usize
    }

    pub fn buffer(&mut self) -> BufferId {
        self.next_buffer += 1;
        BufferId(self.next_buffer)
    }

    /// The oldest request sent that no test has taken; its lane answers nothing yet.
    pub fn take(&mut self) -> Sent {
        self.sent.pop_front().expect("something was sent")
    }

    pub fn nothing_sent(&self) -> bool {
        self.sent.is_empty()
    }

    pub fn answer(&mut self, sent: Sent, result: Result<(), Errno>) {
        let lands = sent.data == SendData::Land && result.is_ok();
        let data = lands.then(|| self.buffer());
        let digest = Some(Digest { value: 0, uniform: true });
        self.event(Event::Reply { lane: sent.lane, cookie: sent.cookie, result, data, digest });
    }

    pub fn answer_digest(&mut self, sent: Sent, value: u128, uniform: bool) {
        let digest = Some(Digest { value, uniform });
        self.event(Event::Reply { lane: sent.lane, cookie: sent.cookie, result: Ok(()), data: None, digest });
    }

    /// Answers well what was sent and fits, and what that leads to.
    pub fn serve(&mut self, fits: impl Fn(&Sent) -> bool) {
        while let Some(at) = self.sent.iter().position(&fits) {
            let sent = self.sent.remove(at).expect("just found");
            self.answer(sent, Ok(()));
        }
    }

    /// Lets time pass; the timer runs whenever it is due.
    pub fn wait(&mut self, time: Nanos) {
        let end = self.now + time;
        self.leave();
        let mut spins = 0;
        while let Some(due) = self.engine.next_deadline().filter(|&due| due <= end) {
            spins = if due > self.now { 0 } else { spins + 1 };
            assert!(spins < 10, "the timer does not move on: it would spin a core");
            self.now = self.now.max(due);
            self.event(Event::Timer);
        }
        self.now = end;
    }

    /// Whatever is queued on a lane leaves.
    fn leave(&mut self) {
        for (lane, _, sent_bytes) in self.lanes.clone() {
            self.event(Event::LaneSent { lane, sent_bytes });
        }
    }

    /// The same, while every canary is answered.
    pub fn wait_alive(&mut self, time: Nanos, alive: impl Fn(&Sent) -> bool) {
        let end = self.now + time;
        while self.now < end {
            self.wait((10 * MILLISECOND).min(end - self.now));
            let (canaries, rest): (Vec<Sent>, Vec<Sent>) =
                self.sent.iter().copied().partition(|sent| sent.data == SendData::Digest && alive(sent));
            self.sent = rest.into();
            for canary in canaries {
                self.answer(canary, Ok(()));
            }
        }
    }

    pub fn state(&self, path: usize) -> &'static str {
        self.engine.status(self.now).paths[path].state.as_str()
    }

    pub fn reason(&self, path: usize) -> String {
        self.engine.status(self.now).paths[path].reason.clone()
    }

    pub fn result(&self, tag: u64) -> Option<Result<(), Errno>> {
        self.replies.iter().find(|(of, _)| *of == tag).map(|(_, result)| *result)
    }
}
