// SPDX-License-Identifier: MIT OR Apache-2.0
//! What all devices of a run share: the clock, chance, servers, links, the verdict.

use std::fmt;

use program::Nanos;

use crate::coverage::{Coverage, Mark};
use crate::plan::Plan;
use crate::queue::{DeviceIndex, Happening, OpRef, Queue};
use crate::rng::Rng;
use crate::sabotage::Sabotage;
use crate::server::{Link, Server};

/// What a run was stopped for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Rule of the oracle, e.g. `T1`; `panic` if the engine stopped itself.
    pub rule: &'static str,
    /// What was seen.
    pub text: String,
    /// When, in virtual time.
    pub at: Nanos,
    /// Host requests answered until then.
    pub requests: u64,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} (after {} requests, at {}.{:09} s)",
            self.rule,
            self.text,
            self.requests,
            self.at / program::SECOND,
            self.at % program::SECOND
        )
    }
}

/// Running hash over everything that goes in and out of the engines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace(u64);

impl Trace {
    /// Adds one number.
    pub fn add(&mut self, value: u64) {
        self.0 = (self.0.rotate_left(5) ^ value).wrapping_mul(0x517c_c1b7_2722_0a95);
    }

    /// The hash so far.
    pub fn value(self) -> u64 {
        self.0
    }
}

/// See the module header.
#[derive(Debug)]
pub struct Env {
    /// Virtual time.
    pub now: Nanos,
    /// What happens next.
    pub queue: Queue,
    /// Chance.
    pub rng: Rng,
    /// Server processes.
    pub servers: Vec<Server>,
    /// By cache: how often it was lost, which a gate tells (F6).
    pub cache_losses: Vec<u64>,
    /// Links, one per path.
    pub links: Vec<Link>,
    /// What was drawn.
    pub plan: Plan,
    /// What was exercised.
    pub coverage: Coverage,
    /// The first thing that went wrong.
    pub failure: Option<Failure>,
    /// See there.
    pub trace: Trace,
    /// Host requests answered.
    pub requests: u64,
    /// Happenings so far.
    pub happenings: u64,
    /// Hosts issue requests.
    pub issuing: bool,
    /// Faults are injected.
    pub faulting: bool,
    /// Damage outside the fault model, for tests of the oracle.
    pub sabotage: Sabotage,
    /// Everything is told on standard output.
    pub story: bool,
    /// Decision points an engine keeps at most; 0 = none.
    pub record_at_most: usize,
}

impl Env {
    /// At the start of a run.
    pub fn new(seed: u64, plan: Plan, sabotage: Sabotage) -> Self {
        Self {
            now: program::SECOND,
            queue: Queue::default(),
            rng: Rng::new(seed ^ 0x5151_5151),
            servers: plan.servers.iter().cloned().map(Server::new).collect(),
            links: plan.links.iter().map(|&server| Link::new(server)).collect(),
            cache_losses: vec![0; plan.caches()],
            plan,
            coverage: Coverage::default(),
            failure: None,
            trace: Trace(0),
            requests: 0,
            happenings: 0,
            issuing: true,
            faulting: true,
            sabotage,
            story: false,
            record_at_most: 0,
        }
    }

    /// Something happens after a while.
    pub fn after(&mut self, delay: Nanos, what: Happening) {
        self.queue.push(self.now + delay, what);
    }

    /// The oracle was violated; the first violation counts.
    pub fn fail(&mut self, rule: &'static str, text: impl FnOnce() -> String) {
        if self.failure.is_none() {
            self.failure = Some(Failure { rule, text: text(), at: self.now, requests: self.requests });
        }
    }

    /// Tells what happens, if asked to.
    pub fn tell(&self, device: DeviceIndex, what: impl FnOnce() -> String) {
        if self.story {
            println!("{}.{:09} d{device} {}", self.now / program::SECOND, self.now % program::SECOND, what());
        }
    }

    /// An outcome was reached.
    pub fn mark(&mut self, mark: Mark) {
        self.coverage.mark(mark);
    }

    /// Server behind a link.
    pub fn server_of(&self, link: usize) -> &Server {
        &self.servers[self.links[link].server]
    }

    /// Since when link and server have been free of faults; `None` while they are not.
    pub fn well_since(&self, link: usize) -> Option<Nanos> {
        Some(self.links[link].well_since?.max(self.server_of(link).well_since?))
    }

    /// Plans an operation's execution; a hung server keeps it.
    pub fn schedule(&mut self, server: usize, device: DeviceIndex, op: OpRef, delay: Nanos, again: bool) {
        if self.servers[server].hang {
            self.servers[server].stuck.push((device, op, again));
        } else {
            self.after(delay, Happening::Execute(device, op, again));
        }
    }
}
