// SPDX-License-Identifier: MIT OR Apache-2.0
//! Mail for a reactor, from other reactors, the control plane and helper threads.
//!
//! Never on the path of a request. The queue is not bounded by itself: what is in it is
//! bounded by its senders (connections by `max_sessions`, jobs by their lanes, control
//! commands by who sends them one at a time).

use std::os::fd::OwnedFd;
use std::sync::Arc;

use crossbeam::channel::Sender;
use crossbeam::queue::SegQueue;
use program::{DeviceCommand, DeviceExplanation, DeviceStatus, Listener, Nanos, PathCommand, Program};
use ring::wake::Waker;

use crate::gate::register::Granted;
use crate::gate::{ClaimMail, ClaimRefused, Claimed};
use crate::jobs::Done;
use crate::slab::Key;

/// A connection whose handshake is over, on its way to the owner of its device.
pub(crate) struct NewSession {
    pub(crate) fd: OwnedFd,
    pub(crate) peer: String,
    pub(crate) session: Box<nbd::server::Session>,
    /// What it was admitted with, at a gate.
    pub(crate) claim: Option<Claimed>,
    /// Bytes the host sent behind its handshake.
    pub(crate) rest: Vec<u8>,
    /// Counts it against `max_sessions` until it ends.
    pub(crate) ticket: crate::node::SessionTicket,
}

/// One message.
pub(crate) enum Mail {
    /// Serve it.
    Session(Box<NewSession>),
    /// A claim at the gate of a device of yours.
    Claim(Box<ClaimMail>),
    /// What became of the claim of a handshake of yours.
    Claimed(Key, Result<Granted, ClaimRefused>),
    /// Run this program from now on. Reactor 0 also gets the sockets of new listeners.
    Apply(Arc<Program>, Vec<(Listener, OwnedFd)>),
    /// An operator's command.
    Path { device: String, path: usize, command: PathCommand },
    /// The same for a device as a whole.
    Device { device: String, command: DeviceCommand },
    /// Answer with the state of every device of yours.
    Snapshot(Sender<Vec<DeviceStatus>>),
    /// Answer with why a device of yours is as it is; `None` if there is none of that name.
    Explain(String, Sender<Option<DeviceExplanation>>),
    /// The directory has changed: waiting handshakes may go on.
    Directory,
    /// A helper thread is done.
    Job(Done),
    /// Finish, at the latest after this long.
    Shutdown(Nanos),
    /// The public devices of all reactors have finished; finish the hidden ones.
    StopHidden,
}

/// See the module header.
pub(crate) struct Mailbox {
    queue: SegQueue<Mail>,
    waker: Waker,
}

impl Mailbox {
    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Self { queue: SegQueue::new(), waker: Waker::new()? })
    }

    pub(crate) fn send(&self, mail: Mail) {
        self.queue.push(mail);
        self.waker.wake();
    }

    pub(crate) fn take(&self) -> Option<Mail> {
        self.queue.pop()
    }

    pub(crate) fn waker(&self) -> &Waker {
        &self.waker
    }
}
