// SPDX-License-Identifier: MIT OR Apache-2.0
//! One thread of a load: some connections, one region that belongs to them alone.
//!
//! The connections share the region on purpose: what one wrote, another reads, which is what a device with several
//! connections must get right. A connection that breaks is counted and not replaced: the host of a failover proxy must
//! never lose its connection, so there is nothing to carry on with.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use nbd::Command;
use nix::errno::Errno as SystemErrno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::connection::{Answer, Connection, Request};
use super::control::Control;
use super::error::{ConnectionError, errno_name};
use super::ledger::Ledger;
use super::plan::Plan;
use super::tally::Tally;

/// When to stop sending.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) duration: Duration,
    /// Requests of this worker.
    pub(super) requests: Option<u64>,
    /// WRITEs of a connection between two FLUSHes.
    pub(super) flush_every: Option<u64>,
}

/// One thread's work.
pub(super) struct Worker {
    links: Vec<Link>,
    plan: Plan,
    ledger: Option<Ledger>,
    limits: Limits,
    control: Arc<Control>,
    tally: Tally,
    sent: u64,
    started: Instant,
    phase: Phase,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Main,
    /// Reading everything back, this block next.
    ReadBack(u64),
}

/// A connection and what it still has to do.
struct Link {
    connection: Connection,
    is_broken: bool,
    writes_since_flush: u64,
}

impl Worker {
    pub(super) fn new(
        connections: Vec<Connection>,
        plan: Plan,
        ledger: Option<Ledger>,
        limits: Limits,
        control: Arc<Control>,
    ) -> Self {
        assert!(!connections.is_empty(), "a worker has a connection");
        let link = |connection| Link { connection, is_broken: false, writes_since_flush: 0 };
        Self {
            links: connections.into_iter().map(link).collect(),
            plan,
            ledger,
            limits,
            control,
            tally: Tally::default(),
            sent: 0,
            started: Instant::now(),
            phase: Phase::Main,
        }
    }

    /// Runs to the end: requests until told to stop, their answers, and with a ledger a READ of everything written.
    pub(super) fn run(mut self) -> Tally {
        self.started = Instant::now();
        self.run_phase();
        self.tally.elapsed = self.started.elapsed();
        for link in &mut self.links {
            let (longest, began) = link.connection.gap().longest();
            self.tally.note_gap(longest, began.map(|at| at.duration_since(self.started)));
        }
        if self.ledger.is_some() {
            self.phase = Phase::ReadBack(0);
            self.run_phase();
        }
        for link in self.links.iter_mut().filter(|link| !link.is_broken) {
            link.connection.disconnect();
        }
        if let Some(ledger) = &self.ledger {
            self.tally.findings.merge(ledger.findings());
        }
        self.tally
    }

    /// One turn: take what has come, fill up, send all of it at once, wait.
    fn run_phase(&mut self) {
        loop {
            self.fill();
            let is_idle = self.links.iter().all(|link| link.is_broken || link.connection.in_flight() == 0);
            if is_idle {
                return;
            }
            self.wait_and_receive();
        }
    }

    /// Every connection gets as many requests as it may have in flight.
    fn fill(&mut self) {
        let now = Instant::now();
        for index in 0..self.links.len() {
            while !self.links[index].is_broken && self.links[index].connection.has_room() {
                let Some(request) = self.next_request(index, now) else {
                    // There is room and nothing to ask: the rest is waiting for what is in flight.
                    self.links[index].connection.gap().close(now);
                    break;
                };
                self.submit(index, now, request);
            }
            let link = &mut self.links[index];
            if !link.is_broken
                && let Err(error) = link.connection.send()
            {
                self.connection_broke(index, &error);
            }
        }
    }

    fn next_request(&mut self, index: usize, now: Instant) -> Option<Request> {
        if let Phase::ReadBack(next) = self.phase {
            return self.next_to_read_back(next);
        }
        let is_over = self.limits.requests.is_some_and(|requests| self.sent >= requests)
            || now.duration_since(self.started) >= self.limits.duration
            || self.control.is_stopped();
        if is_over {
            return None;
        }
        self.sent += 1;
        let link = &mut self.links[index];
        if self.limits.flush_every.is_some_and(|every| link.writes_since_flush >= every) {
            link.writes_since_flush = 0;
            return Some(Request { command: Command::Flush, offset: 0, len: 0, block: 0, mark: 0 });
        }
        let request = self.plan.next(self.ledger.as_ref());
        link.writes_since_flush += u64::from(request.command == Command::Write);
        Some(request)
    }

    fn next_to_read_back(&mut self, from: u64) -> Option<Request> {
        let ledger = self.ledger.as_ref()?;
        let block = (from..ledger.blocks()).find(|block| ledger.is_known(*block));
        self.phase = Phase::ReadBack(block.map_or(ledger.blocks(), |block| block + 1));
        block.map(|block| self.plan.read(block, Some(ledger)))
    }

    fn submit(&mut self, index: usize, now: Instant, request: Request) {
        let connection = &mut self.links[index].connection;
        let ledger = self.ledger.as_mut().filter(|_| request.command == Command::Write);
        let stamp = ledger.map(|ledger| |payload: &mut [u8]| ledger.begin_write(request.block, payload));
        connection.submit(now, request, stamp);
    }

    fn wait_and_receive(&mut self) {
        // One connection with nothing left to send waits inside recv: no poll in the measured path.
        let mut live = self.links.iter().filter(|link| !link.is_broken);
        let alone =
            matches!((live.next(), live.next()), (Some(link), None) if !link.connection.wants_to_send());
        if !alone {
            self.wait();
        }
        for index in 0..self.links.len() {
            if self.links[index].is_broken || self.links[index].connection.in_flight() == 0 {
                continue;
            }
            if let Err(error) = self.receive(index, alone) {
                self.connection_broke(index, &error);
            }
        }
    }

    fn wait(&self) {
        let live = self.links.iter().filter(|link| !link.is_broken && link.connection.in_flight() > 0);
        let mut waits: Vec<PollFd<'_>> = live
            .map(|link| {
                let mut flags = PollFlags::POLLIN;
                flags.set(PollFlags::POLLOUT, link.connection.wants_to_send());
                PollFd::new(link.connection.as_fd(), flags)
            })
            .collect();
        match poll(&mut waits, PollTimeout::NONE) {
            Ok(_) | Err(SystemErrno::EINTR) => {}
            Err(error) => panic!("poll of our own sockets: {error}"),
        }
    }

    fn receive(&mut self, index: usize, wait: bool) -> Result<bool, ConnectionError> {
        let (ledger, tally, phase) = (&mut self.ledger, &mut self.tally, self.phase);
        let before = tally.answered();
        let came = self.links[index].connection.receive(wait, |answer| {
            settle(ledger.as_mut(), &answer);
            tally.count(&answer, phase == Phase::Main);
        });
        let answers = tally.answered() - before;
        self.control.note_answers(answers);
        if phase == Phase::Main && answers > 0 {
            tally.note_window(self.started.elapsed(), answers);
        }
        came
    }

    fn connection_broke(&mut self, index: usize, error: &ConnectionError) {
        let link = &mut self.links[index];
        link.is_broken = true;
        let lost = link.connection.abandon(Instant::now());
        self.tally.connection_lost(error, lost.len() as u64);
        for request in lost.iter().filter(|request| request.command == Command::Write) {
            if let Some(ledger) = &mut self.ledger {
                ledger.end_write(request.block, request.mark, false);
            }
        }
    }
}

fn settle(ledger: Option<&mut Ledger>, answer: &Answer<'_>) {
    let Some(ledger) = ledger else { return };
    let Request { command, block, mark, .. } = answer.request;
    match command {
        Command::Write => ledger.end_write(block, mark, answer.result.is_ok()),
        Command::Read if answer.result.is_ok() => ledger.check(block, mark, answer.data),
        _ => {}
    }
}

impl Tally {
    fn count(&mut self, answer: &Answer<'_>, measured: bool) {
        if let Err(errno) = answer.result {
            *self.errors.entry(errno_name(errno).to_owned()).or_default() += 1;
        }
        if !measured {
            self.read_back += 1;
            return;
        }
        match answer.request.command {
            Command::Read => self.reads += 1,
            Command::Write => self.writes += 1,
            _ => self.flushes += 1,
        }
        let latency: &mut Histogram<u64> = &mut self.latency;
        latency.saturating_record(answer.latency.as_nanos() as u64);
    }
}
