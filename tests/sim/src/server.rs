// SPDX-License-Identifier: MIT OR Apache-2.0
//! Server processes and the links to them.

use program::Nanos;

use crate::plan::ServerPlan;
use crate::queue::{DeviceIndex, OpRef};

/// One server process, as it is now.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is one fault that may be in force by itself")]
pub struct Server {
    /// How it is when well.
    pub plan: ServerPlan,
    /// Counts its processes: a gate's nonce.
    pub process: u32,
    /// The process exists.
    pub alive: bool,
    /// SIGSTOP.
    pub stopped: bool,
    /// Answers EIO to most requests.
    pub eio: bool,
    /// Answers FLUSH with EIO, and may lose what was dirty.
    pub flush_eio: bool,
    /// Answers ESHUTDOWN.
    pub leaving: bool,
    /// Answers writes with ENOSPC.
    pub no_space: bool,
    /// What it works on is not finished.
    pub hang: bool,
    /// Serves another volume.
    pub other_data: bool,
    /// Serves a smaller one.
    pub smaller: bool,
    /// Extra service time.
    pub slow: Nanos,
    /// What it has taken so far is worked off by then, where operations queue.
    pub busy_until: Nanos,
    /// Since when no fault is in force; `None` while one is.
    pub well_since: Option<Nanos>,
    /// Faults in force on it.
    pub faults: u32,
    /// Executions that came due while it was stopped.
    pub frozen: Vec<(DeviceIndex, OpRef, bool)>,
    /// Executions it keeps while it hangs.
    pub stuck: Vec<(DeviceIndex, OpRef, bool)>,
}

impl Server {
    /// A server that is well.
    pub fn new(plan: ServerPlan) -> Self {
        Self {
            plan,
            process: 1,
            alive: true,
            stopped: false,
            eio: false,
            flush_eio: false,
            leaving: false,
            no_space: false,
            hang: false,
            other_data: false,
            smaller: false,
            slow: 0,
            busy_until: 0,
            well_since: Some(0),
            faults: 0,
            frozen: Vec::new(),
            stuck: Vec::new(),
        }
    }

    /// How long one more operation waits for those before it and keeps the next ones waiting.
    pub fn queue_up(&mut self, now: Nanos) -> Nanos {
        self.busy_until = self.busy_until.max(now) + self.plan.queue;
        self.busy_until - now
    }

    /// Reads and works.
    pub fn runs(&self) -> bool {
        self.alive && !self.stopped
    }
}

/// The link of one path.
#[derive(Debug)]
pub struct Link {
    /// Server at its end.
    pub server: usize,
    /// Nothing reaches the server.
    pub silent_to: bool,
    /// Nothing comes back.
    pub silent_from: bool,
    /// Since when no fault is in force; `None` while one is.
    pub well_since: Option<Nanos>,
    /// Faults in force on it.
    pub faults: u32,
}

impl Link {
    /// A link that is well.
    pub fn new(server: usize) -> Self {
        Self { server, silent_to: false, silent_from: false, well_since: Some(0), faults: 0 }
    }

    /// Both ways work.
    pub fn works(&self) -> bool {
        !self.silent_to && !self.silent_from
    }
}
