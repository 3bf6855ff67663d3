// SPDX-License-Identifier: MIT OR Apache-2.0
//! How long a host waits when one of two paths fails, in virtual time: the limits that
//! `holdfast-bench stall` reports on a machine hold exactly here.
//!
//! A host keeps a fixed number of requests in flight and sends the next when one is answered.
//! Servers answer after 500 us. What is judged is the longest time between two answers from the
//! fault on.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use engine::{Close, Event, GateOffer, LaneFault, LaneId, Offer, SendData, TcpSample};
use nbd::Command::{self, Read, Write};
use policies::limits::{SILENCE_FLOOR, SILENCE_PROBE_MIN};
use program::{DeviceProgram, MILLISECOND, Nanos, SECOND, SelectorKind, Writers};

use crate::script::{Script, Sent, device, offer};

/// What a server takes for a request.
const SERVICE: Nanos = MILLISECOND / 2;
/// What a handshake takes, with the kill of a session.
const HANDSHAKE: Nanos = 2 * MILLISECOND;
/// The path that fails.
const BAD: usize = 0;

/// What happens to it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    /// Its connection is reset; it cannot be opened again.
    Reset,
    /// Its server is killed: the connection ends, nothing listens.
    Kill,
    /// Nothing gets through in either direction, and nobody says so.
    Silence,
    /// Its server is stopped: the kernel acknowledges, nobody answers.
    Stop,
}

/// A host and its servers.
struct Load {
    s: Script,
    command: Command,
    gate: bool,
    fault: Option<Fault>,
    fault_at: Nanos,
    due: BinaryHeap<Reverse<(Nanos, LaneId, u64)>>,
    answers: Vec<(LaneId, Sent)>,
    opened: Vec<LaneId>,
    /// Bytes that had left on the bad path when it failed.
    acked_bytes: u64,
    seen: usize,
    next: u64,
    last_answer: Nanos,
    longest: Nanos,
}

impl Load {
    fn new(program: &DeviceProgram, command: Command, depth: usize, gate: bool) -> Self {
        let mut s = Script::new(program);
        s.open_all(&server(gate, false));
        let now = s.now;
        let mut load = Self {
            s,
            command,
            gate,
            fault: None,
            fault_at: 0,
            due: BinaryHeap::new(),
            answers: Vec::new(),
            opened: Vec::new(),
            acked_bytes: 0,
            seen: 0,
            next: 0,
            last_answer: now,
            longest: 0,
        };
        for _ in 0..depth {
            load.issue();
        }
        load
    }

    /// Never the same place twice: what is in doubt may keep a range for long.
    fn issue(&mut self) {
        self.next += 1;
        self.s.request(self.command, self.next * 4096, 4096);
    }

    fn answers_on(&self, path: usize) -> bool {
        self.fault.is_none() || path != BAD
    }

    /// Takes in what the engine has decided.
    fn settle(&mut self) {
        loop {
            while let Some(sent) = self.s.sent.pop_front() {
                self.due.push(Reverse((self.s.now + SERVICE, sent.lane, sent.cookie)));
                self.answers.push((sent.lane, sent));
            }
            while let Some((_, result)) = self.s.replies.get(self.seen).copied() {
                self.seen += 1;
                assert_eq!(result, Ok(()), "no fault gives a host error");
                if self.fault.is_some() {
                    let waited = self.s.now - self.last_answer.max(self.fault_at);
                    self.longest = self.longest.max(waited);
                }
                self.last_answer = self.s.now;
                self.issue();
            }
            for lane in std::mem::take(&mut self.s.sampled) {
                self.sample(lane);
            }
            for (lane, how) in std::mem::take(&mut self.s.closing) {
                if how == Close::Abort && self.s.lanes.iter().any(|(of, ..)| *of == lane) {
                    self.s.down(lane, LaneFault::ByUs);
                }
            }
            for at in 0..self.s.opening.len() {
                let (lane, path) = self.s.opening[at];
                if !self.opened.contains(&lane) && self.answers_on(path) {
                    self.opened.push(lane);
                    self.due.push(Reverse((self.s.now + HANDSHAKE, lane, u64::MAX)));
                }
            }
            if self.s.sent.is_empty() && self.seen == self.s.replies.len() && self.s.sampled.is_empty() {
                return;
            }
        }
    }

    /// What our kernel knows of a connection: a silent one has had no ACK since the fault.
    fn sample(&mut self, lane: LaneId) {
        let Some(&(_, path, sent_bytes)) = self.s.lanes.iter().find(|(of, ..)| *of == lane) else { return };
        self.s.event(Event::LaneSent { lane, sent_bytes });
        let silent = path == BAD && self.fault == Some(Fault::Silence);
        let since_ms = ((self.s.now - self.fault_at) / MILLISECOND) as u32;
        let sample = TcpSample {
            unacked: u32::from(silent && sent_bytes > self.acked_bytes),
            outq_bytes: if silent { (sent_bytes - self.acked_bytes) as u32 } else { 0 },
            last_ack_ms: if silent { since_ms } else { 0 },
            rto_us: 500,
            ..TcpSample::default()
        };
        self.s.event(Event::Tcp { lane, sample });
    }

    fn run(&mut self, time: Nanos) {
        let end = self.s.now + time;
        loop {
            self.settle();
            let timer = self.s.engine.next_deadline().unwrap_or(Nanos::MAX);
            let answer = self.due.peek().map_or(Nanos::MAX, |Reverse((at, ..))| *at);
            let next = timer.min(answer);
            if next > end {
                self.s.now = end;
                return;
            }
            self.s.now = self.s.now.max(next);
            if answer <= timer {
                let Some(Reverse((_, lane, cookie))) = self.due.pop() else { continue };
                self.answer(lane, cookie);
            } else {
                self.s.event(Event::Timer);
            }
        }
    }

    fn answer(&mut self, lane: LaneId, cookie: u64) {
        if cookie == u64::MAX {
            if self.s.opening.iter().any(|(of, _)| *of == lane) {
                let killed = self.s.kills.iter().any(|(of, _)| *of == lane);
                self.s.open(lane, server(self.gate, killed));
            }
            return;
        }
        let at = self.answers.iter().position(|(of, sent)| *of == lane && sent.cookie == cookie);
        let (_, sent) = self.answers.swap_remove(at.expect("it was sent"));
        let stands = self.s.lanes.iter().any(|(of, ..)| *of == lane);
        if stands && self.answers_on(sent.path) {
            self.s.answer(sent, Ok(()));
        }
    }

    fn fail(&mut self, fault: Fault) {
        self.fault = Some(fault);
        self.fault_at = self.s.now;
        self.acked_bytes = self.s.lanes.iter().find(|(_, path, _)| *path == BAD).expect("it is up").2;
        match fault {
            Fault::Reset => self.s.reset(BAD),
            Fault::Kill => {
                let lane = self.s.lanes.iter().find(|(_, path, _)| *path == BAD).expect("it is up").0;
                self.s.down(lane, LaneFault::Closed);
            }
            Fault::Silence | Fault::Stop => {}
        }
    }
}

/// A server, or a gate of one process behind both paths.
fn server(gate: bool, killed: bool) -> Offer {
    let gate = gate.then_some(GateOffer { volume: 7, nonce: 1, cache_generation: 5, epoch: 1, killed });
    Offer { gate, ..offer() }
}

/// As a user has it: the defaults.
fn defaults(selector: SelectorKind, hedge_budget_ppm: u32) -> DeviceProgram {
    // Nothing is retained, which has its own tests and would only make these slow.
    let mut program = DeviceProgram { selector, hedge_budget_ppm, retention_bytes: 0, ..device(2) };
    for path in &mut program.paths {
        path.in_flight = 128;
    }
    program
}

const DEFAULT_BUDGET: u32 = 30_000;

/// W16: 10 ms without a byte, many times what a request takes, until a canary is owed an ACK, where
/// nothing else was sent since the fault; and 200 ms without one. Not the next tick after it.
const KNOWN_SILENT: Nanos = SILENCE_PROBE_MIN + SILENCE_FLOOR;

/// The longest stalls of `program` for both depths and the selectors at both ends.
fn longest(program: &DeviceProgram, command: Command, fault: Fault, gate: bool) -> Nanos {
    let mut longest = 0;
    let lasts = match (fault, command) {
        (Fault::Reset | Fault::Kill, _) => 100 * MILLISECOND,
        (Fault::Silence, _) => 550 * MILLISECOND,
        (Fault::Stop, Read) => 1_200 * MILLISECOND,
        (Fault::Stop, _) => 2_200 * MILLISECOND,
    };
    for selector in [SelectorKind::Latency, SelectorKind::RoundRobin] {
        for depth in [1, 32] {
            // At several places of the engine's own ticks.
            for phase in [3, 17] {
                let program = DeviceProgram { selector, ..program.clone() };
                let mut load = Load::new(&program, command, depth, gate);
                load.run(100 * MILLISECOND + phase * MILLISECOND + 30_000);
                load.fail(fault);
                load.run(lasts);
                assert!(load.s.replies.len() > 300, "{fault:?} {depth}: the host was served");
                longest = longest.max(load.longest);
            }
        }
    }
    println!("{command:?}, {fault:?}: at most {} us", longest / 1000);
    longest
}

fn reads(fault: Fault, hedge_budget_ppm: u32) -> Nanos {
    longest(&defaults(SelectorKind::Latency, hedge_budget_ppm), Read, fault, false)
}

fn writes(fault: Fault, gate: bool, writers: Writers) -> Nanos {
    let program = DeviceProgram { writers, ..defaults(SelectorKind::Latency, DEFAULT_BUDGET) };
    longest(&program, Write, fault, gate)
}

#[test]
fn a_reset_or_a_kill_costs_less_than_five_milliseconds() {
    for fault in [Fault::Reset, Fault::Kill] {
        for budget in [0, DEFAULT_BUDGET] {
            assert!(reads(fault, budget) < 5 * MILLISECOND);
        }
        for gate in [true, false] {
            assert!(writes(fault, gate, Writers::One) < 5 * MILLISECOND);
        }
        assert!(writes(fault, true, Writers::Many) < 5 * MILLISECOND, "W5: the gate's word is awaited");
    }
}

#[test]
fn a_silent_path_costs_reads_less_than_twenty_milliseconds() {
    assert!(reads(Fault::Silence, DEFAULT_BUDGET) < 20 * MILLISECOND);
}

#[test]
fn without_hedging_a_silent_path_costs_reads_less_than_300_milliseconds() {
    let stall = reads(Fault::Silence, 0);
    assert!((200 * MILLISECOND..300 * MILLISECOND).contains(&stall), "W16: not suspected before 200 ms");
    assert!(stall < KNOWN_SILENT + 5 * MILLISECOND, "nor later than that and the time to ask");
}

#[test]
fn a_silent_path_costs_writes_less_than_half_a_second_with_a_gate() {
    for writers in [Writers::One, Writers::Many] {
        let stall = writes(Fault::Silence, true, writers);
        assert!(stall < 500 * MILLISECOND);
        assert!(stall < KNOWN_SILENT + 5 * MILLISECOND, "{stall}");
    }
}

#[test]
fn a_stopped_server_costs_reads_less_than_twenty_milliseconds() {
    assert!(reads(Fault::Stop, DEFAULT_BUDGET) < 20 * MILLISECOND);
}

/// W15: a write moves at its age, which is 2 s and what the bytes ahead of it take.
#[test]
fn a_stopped_server_costs_writes_no_more_than_their_age() {
    let ahead = 32 * 4096;
    let age = policies::request_deadline(2 * SECOND, ahead, false);
    assert!(writes(Fault::Stop, false, Writers::One) <= age);
}

/// The harness would show a stall: with nothing to move a read, it waits for its age.
#[test]
fn without_hedging_a_stopped_server_costs_reads_their_age() {
    assert!(reads(Fault::Stop, 0) >= SECOND);
}

/// What is sent twice stays within the budget and what was saved up.
#[test]
fn hedging_a_dead_path_stays_within_the_budget() {
    let mut load = Load::new(&defaults(SelectorKind::RoundRobin, DEFAULT_BUDGET), Read, 32, false);
    load.run(200 * MILLISECOND);
    load.fail(Fault::Stop);
    load.run(300 * MILLISECOND);
    let status = load.s.engine.status(load.s.now);
    let earned = 128 + (status.reads + 32) * 3 / 100;
    assert!(status.hedges.sent > 2 && status.hedges.sent <= earned, "{:?}", status.hedges);
    assert!(load.answers.iter().all(|(_, sent)| sent.data != SendData::Zeroes));
}
