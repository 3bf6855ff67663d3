// SPDX-License-Identifier: MIT OR Apache-2.0
//! A host under load that checks everything it reads (rules T1, T2, T8).
//!
//! One connection keeps several requests in flight over a region of its own. A block has
//! at most one request in flight, so there is exactly one right answer to every READ: the
//! last acknowledged write. Anything else is reported, also an error reply, a lost
//! connection and a reply to a request that was never sent. It never times out: a
//! request that never ends shows as a load that makes no progress.
//!
//! fio verifies too, but cannot say how long the longest silence was, nor that a block
//! went back to an *older* content.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::wire::{Client, ClientError, Reply, command};
use crate::{Endpoint, Stamp, wait};

/// Bytes of a block.
const BLOCK: u32 = 4096;
/// A load that has no answer for this long stands still.
const STANDSTILL: Duration = Duration::from_millis(300);
/// Problems that a report lists in full.
const LISTED: usize = 10;

/// What a load does; each method changes one thing.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    offset: u64,
    blocks: u64,
    depth: usize,
    writer: u16,
    flush_every: Option<u64>,
}

/// A running load.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    thread: Option<JoinHandle<LoadReport>>,
}

/// What came of a load.
#[derive(Clone, Debug, Default)]
pub struct LoadReport {
    /// READs answered, those of the final check included.
    pub reads: u64,
    /// WRITEs answered.
    pub writes: u64,
    /// FLUSHes answered.
    pub flushes: u64,
    /// Error replies, wrong data and lost connections.
    pub problems: Vec<String>,
    /// Longest time between two answers while requests were in flight.
    pub longest_gap: Duration,
}

impl LoadReport {
    /// Fails unless the host saw neither an error nor wrong data, and did real work.
    pub fn assert_clean(&self) {
        let shown: Vec<&String> = self.problems.iter().take(LISTED).collect();
        assert!(self.problems.is_empty(), "the host saw {} problems: {shown:#?}", self.problems.len());
        assert!(self.reads > 0 && self.writes > 0, "the load did nothing: {self:?}");
    }
}

impl Load {
    /// A load of 256 blocks from the start of the device, 16 in flight.
    pub fn options() -> LoadOptions {
        LoadOptions { offset: 0, blocks: 256, depth: 16, writer: 1, flush_every: None }
    }

    /// Requests answered so far.
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Waits until this many more requests were answered.
    pub fn await_progress(&self, requests: u64) {
        let goal = self.answered() + requests;
        wait::until("the load to make progress", || {
            let ended = self.thread.as_ref().is_none_or(JoinHandle::is_finished);
            (self.answered() >= goal || ended).then_some(())
        });
    }

    /// Waits until nothing more is answered, and returns how many requests were.
    pub fn await_standstill(&self) -> u64 {
        wait::until("the load to stand still", || {
            let before = self.answered();
            wait::pass(STANDSTILL);
            (self.answered() == before).then_some(before)
        })
    }

    /// Stops sending, waits for what is in flight, reads everything back, reports.
    pub fn finish(mut self) -> LoadReport {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("a load is finished once");
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // The thread of a failed test ends with its connection; nobody waits for it.
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl LoadOptions {
    /// Region in bytes; whole blocks of 4 KiB.
    #[must_use]
    pub fn region(mut self, offset: u64, len: u64) -> Self {
        self.offset = offset;
        self.blocks = len / u64::from(BLOCK);
        self
    }

    /// Requests in flight.
    #[must_use]
    pub fn depth(mut self, depth: usize) -> Self {
        self.depth = depth;
        self
    }

    /// Number of the writer in its stamps.
    #[must_use]
    pub fn writer(mut self, writer: u16) -> Self {
        self.writer = writer;
        self
    }

    /// A FLUSH after every so many requests.
    #[must_use]
    pub fn flush_every(mut self, requests: u64) -> Self {
        self.flush_every = Some(requests);
        self
    }

    /// Connects and starts; the export must be there.
    pub fn start(self, endpoint: &Endpoint, export: &str) -> Load {
        let client = Client::open(endpoint, export)
            .unwrap_or_else(|e| panic!("the load cannot open {export} at {endpoint}: {e:?}"));
        assert!(self.depth as u64 <= self.blocks, "each block has one request in flight at most");
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let worker = Worker {
            client,
            acknowledged: vec![0; self.blocks as usize],
            busy: vec![false; self.blocks as usize],
            in_flight: HashMap::new(),
            random: u64::from(self.writer) << 20 | 0x5bd1,
            sequence: 0,
            sent: 0,
            last_answer: Instant::now(),
            report: LoadReport::default(),
            stop: Arc::clone(&stop),
            answered: Arc::clone(&answered),
            options: self,
        };
        Load { stop, answered, thread: Some(std::thread::spawn(move || worker.run())) }
    }
}

enum InFlight {
    Read { block: u64 },
    Write { block: u64, sequence: u64 },
    Flush,
}

struct Worker {
    options: LoadOptions,
    client: Client,
    /// Sequence number of the last acknowledged write of each block; 0: never written.
    acknowledged: Vec<u64>,
    busy: Vec<bool>,
    in_flight: HashMap<u64, InFlight>,
    random: u64,
    sequence: u64,
    sent: u64,
    last_answer: Instant,
    report: LoadReport,
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
}

impl Worker {
    fn run(mut self) -> LoadReport {
        if let Err(error) = self.work().and_then(|()| self.read_back()) {
            self.report.problems.push(format!("the host lost its connection: {error:?}"));
        }
        self.report
    }

    fn work(&mut self) -> Result<(), ClientError> {
        self.last_answer = Instant::now();
        loop {
            while !self.stop.load(Ordering::Relaxed) && self.in_flight.len() < self.options.depth {
                self.send_next()?;
            }
            if self.in_flight.is_empty() {
                return Ok(());
            }
            self.take_reply()?;
        }
    }

    fn send_next(&mut self) -> Result<(), ClientError> {
        self.sent += 1;
        if self.options.flush_every.is_some_and(|every| self.sent.is_multiple_of(every)) {
            let cookie = self.client.submit(command::FLUSH, 0, 0, 0, &[])?;
            self.in_flight.insert(cookie, InFlight::Flush);
            return Ok(());
        }
        let draw = self.draw();
        let mut block = draw % self.options.blocks;
        while self.busy[block as usize] {
            block = (block + 1) % self.options.blocks;
        }
        // Half reads, but only of blocks that have a known content.
        if draw >> 60 < 8 && self.acknowledged[block as usize] > 0 {
            self.send_read(block)
        } else {
            self.send_write(block)
        }
    }

    fn send_read(&mut self, block: u64) -> Result<(), ClientError> {
        let cookie = self.client.submit_read(self.offset(block), BLOCK)?;
        self.busy[block as usize] = true;
        self.in_flight.insert(cookie, InFlight::Read { block });
        Ok(())
    }

    fn send_write(&mut self, block: u64) -> Result<(), ClientError> {
        self.sequence += 1;
        let stamp = Stamp { writer: self.options.writer, sequence: self.sequence };
        let payload = stamp.fill(self.offset(block), BLOCK as usize);
        let cookie = self.client.submit_write(self.offset(block), &payload)?;
        self.busy[block as usize] = true;
        self.in_flight.insert(cookie, InFlight::Write { block, sequence: self.sequence });
        Ok(())
    }

    fn take_reply(&mut self) -> Result<(), ClientError> {
        let in_flight = &self.in_flight;
        let reply = self.client.reply(|cookie| match in_flight.get(&cookie) {
            Some(InFlight::Read { .. }) => BLOCK as usize,
            _ => 0,
        })?;
        self.report.longest_gap = self.report.longest_gap.max(self.last_answer.elapsed());
        self.last_answer = Instant::now();
        let Some(request) = self.in_flight.remove(&reply.cookie) else {
            return Err(ClientError::Protocol(format!(
                "a reply for {} which is not in flight",
                reply.cookie
            )));
        };
        self.settle(&request, &reply);
        self.answered.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn settle(&mut self, request: &InFlight, reply: &Reply) {
        match *request {
            InFlight::Read { block } => {
                self.report.reads += 1;
                self.busy[block as usize] = false;
                self.check_read(block, reply);
            }
            InFlight::Write { block, sequence } => {
                self.report.writes += 1;
                self.busy[block as usize] = false;
                if reply.error == 0 {
                    self.acknowledged[block as usize] = sequence;
                } else {
                    self.report.problems.push(format!("WRITE of block {block}: error {}", reply.error));
                }
            }
            InFlight::Flush => {
                self.report.flushes += 1;
                if reply.error != 0 {
                    self.report.problems.push(format!("FLUSH: error {}", reply.error));
                }
            }
        }
    }

    fn check_read(&mut self, block: u64, reply: &Reply) {
        let expected = Stamp { writer: self.options.writer, sequence: self.acknowledged[block as usize] };
        let problem = if reply.error == 0 {
            match Stamp::check(self.offset(block), &reply.data) {
                Ok(found) if found == expected => return,
                Ok(found) => format!("holds {found:?} instead of {expected:?}"),
                Err(damage) => damage,
            }
        } else {
            format!("error {}", reply.error)
        };
        self.report.problems.push(format!("READ of block {block}: {problem}"));
    }

    /// Reads every block that was ever written, one after the other.
    fn read_back(&mut self) -> Result<(), ClientError> {
        for block in 0..self.options.blocks {
            if self.acknowledged[block as usize] > 0 {
                let reply = self.client.read(self.offset(block), BLOCK)?;
                self.report.reads += 1;
                self.check_read(block, &reply);
            }
        }
        Ok(())
    }

    fn offset(&self, block: u64) -> u64 {
        self.options.offset + block * u64::from(BLOCK)
    }

    fn draw(&mut self) -> u64 {
        // xorshift64: a fixed sequence per writer.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }
}
