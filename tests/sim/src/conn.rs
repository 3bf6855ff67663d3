// SPDX-License-Identifier: MIT OR Apache-2.0
//! One connection: where the bytes of its requests are (semantics 2.1).
//!
//! ```text
//!  queued by us -> accepted by our kernel -> received by the server's -> read by the server
//!   frames laid      `LaneSent` counts         survives a reset           in service
//!   end to end       survives plain close      while it is not read
//! ```
//!
//! Positions are bytes of the transmission phase. A frame counts where its end is.

use std::collections::VecDeque;

use engine::{LaneFault, LaneId, Offer};
use program::Nanos;

/// What the engine knows of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Connecting and shaking hands.
    Opening,
    /// Carries requests.
    Open,
    /// DISC is queued; the driver waits for EOF.
    Disconnecting,
    /// Reset by us, or found broken; the engine has not heard of it yet.
    Ending,
    /// The engine knows. What the server still has is ghosts.
    Gone,
}

/// A request on its way to the server.
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    /// Index of its operation.
    pub op: u32,
    /// First byte.
    pub start: u64,
    /// Byte after the last.
    pub end: u64,
}

/// See the module header.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts of a socket")]
pub struct Conn {
    /// Its name in the engine.
    pub lane: LaneId,
    /// Index into the program's paths when it was opened, which is the link.
    pub path: usize,
    /// Which process of ours opened it.
    pub process: u32,
    /// The session the gate is to finish before it answers (2.4).
    pub kill: Option<LaneId>,
    /// Process of its server, once it is open.
    pub server_process: u32,
    /// See there.
    pub stage: Stage,
    /// Why it is down, once it is.
    pub fault: LaneFault,
    /// What the server offered.
    pub offer: Option<Offer>,
    /// Not yet read by the server.
    pub frames: VecDeque<Frame>,
    /// Bytes queued in all.
    pub queued: u64,
    /// Accepted by our kernel.
    pub accepted: u64,
    /// Acknowledged by the server's kernel.
    pub acked: u64,
    /// In the server's kernel.
    pub received: u64,
    /// Read by the server.
    pub read: u64,
    /// Operations in service at the server.
    pub serving: Vec<u32>,
    /// Answers that a silent link keeps.
    pub answers: Vec<crate::queue::OpRef>,
    /// An `Arrive` is on its way.
    pub arriving: bool,
    /// Its EOF is awaited as proof that everything on it is finished (`Close::Drain`).
    pub proof: bool,
    /// Nothing more is sent.
    pub quiet: bool,
    /// The server reads no more (reset on its side, or the process is gone).
    pub deaf: bool,
    /// TCP_USER_TIMEOUT is on.
    pub user_timeout: bool,
    /// A look at it is planned.
    pub watched: bool,
    /// Last time bytes were acknowledged, or any came.
    pub last_ack: Nanos,
    /// Since when bytes wait for an acknowledgement.
    pub waiting_since: Option<Nanos>,
    /// The server process has gone while the link was silent.
    pub orphaned: bool,
}

impl Conn {
    /// A connect that was just begun.
    pub fn new(lane: LaneId, path: usize, process: u32, kill: Option<LaneId>, now: Nanos) -> Self {
        Self {
            lane,
            path,
            process,
            kill,
            server_process: 0,
            stage: Stage::Opening,
            fault: LaneFault::ByUs,
            offer: None,
            frames: VecDeque::new(),
            queued: 0,
            accepted: 0,
            acked: 0,
            received: 0,
            read: 0,
            serving: Vec::new(),
            answers: Vec::new(),
            arriving: false,
            proof: false,
            quiet: false,
            deaf: false,
            user_timeout: true,
            watched: false,
            last_ack: now,
            waiting_since: None,
            orphaned: false,
        }
    }

    /// The engine may send on it.
    pub fn is_open(&self) -> bool {
        self.stage == Stage::Open
    }

    /// Nothing is sent on it any more: what its server still has may be let go without proof (W13).
    pub fn is_given_up(&self) -> bool {
        self.quiet || !self.is_open()
    }

    /// Our socket exists: replies are read.
    pub fn is_ours(&self) -> bool {
        matches!(self.stage, Stage::Open | Stage::Disconnecting)
    }

    /// Lays a frame behind the others.
    pub fn push(&mut self, op: u32, bytes: u64) {
        let start = self.queued;
        self.queued += bytes;
        self.frames.push_back(Frame { op, start, end: self.queued });
    }

    /// Our kernel takes what fits into its buffer; whether it took anything.
    pub fn accept(&mut self, send_buffer: u64) -> bool {
        let limit = if self.quiet { self.accepted } else { self.queued };
        let accepted = limit.min(self.acked + send_buffer).max(self.accepted);
        std::mem::replace(&mut self.accepted, accepted) < accepted
    }

    /// Bytes reach the server's kernel, which takes `window` beyond what is read; whether any did.
    pub fn receive(&mut self, window: u64) -> bool {
        let received = self.accepted.min(self.read.saturating_add(window)).max(self.received);
        std::mem::replace(&mut self.received, received) < received
    }

    /// Bytes of the transmission phase that left the process; final once it is down.
    pub fn sent(&self) -> u64 {
        self.accepted
    }
}
