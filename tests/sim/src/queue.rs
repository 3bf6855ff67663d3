// SPDX-License-Identifier: MIT OR Apache-2.0
//! The virtual clock's list of what happens next.
//!
//! A binary heap of small copies, ordered by time and then by insertion, so that
//! equal times keep one order. Nothing is ever taken out early: a happening that
//! has lost its meaning finds that out when it comes (its operation has another
//! incarnation, its connection is closed).

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use program::Nanos;

/// Index of a device in the world.
pub type DeviceIndex = u16;
/// Index of a connection within its device; never reused in a run.
pub type ConnIndex = u32;

/// An operation at a server and which incarnation of its slot is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OpRef {
    /// Index into the device's operations.
    pub index: u32,
    /// Incarnation.
    pub generation: u32,
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Happening {
    /// A host's slot issues its next request; the number is the session's incarnation.
    Issue(DeviceIndex, u16, u32),
    /// A lost host session comes back.
    SessionBack(DeviceIndex, u16),
    /// A lane's connect and handshake may end.
    Connected(DeviceIndex, ConnIndex),
    /// The driver's time limit for a handshake.
    HandshakeTimeout(DeviceIndex, ConnIndex),
    /// Bytes of a connection reach the server.
    Arrive(DeviceIndex, ConnIndex),
    /// A server carries an operation out; the second time if it does it twice.
    Execute(DeviceIndex, OpRef, bool),
    /// Its answer reaches us.
    Answer(DeviceIndex, OpRef),
    /// The engine hears that a lane is down.
    Down(DeviceIndex, ConnIndex),
    /// The driver stops waiting for the server's EOF after DISC.
    DisconnectTimeout(DeviceIndex, ConnIndex),
    /// The kernel's TCP_USER_TIMEOUT is looked at.
    UserTimeout(DeviceIndex, ConnIndex),
    /// The promise of the bounded modes: nothing of this connection is executed any more.
    EndGhosts(DeviceIndex, ConnIndex),
    /// The same: this cache has written out what a FLUSH that failed has left in it.
    EndDirty(DeviceIndex, usize),
    /// The engine's timer.
    Timer(DeviceIndex),
    /// A stop of our own is looked at; the number tells it from others.
    StopLook(DeviceIndex, u32),
    /// Caches write something back on their own.
    WriteBack,
    /// The other writer of a shared storage writes.
    OtherWriter(DeviceIndex),
    /// The next fault.
    Fault,
    /// A fault of a scenario; index into its list.
    Planned(u32),
    /// A fault ends; index into the faults in force.
    Heal(u32),
}

/// See the module header.
#[derive(Debug, Default)]
pub struct Queue {
    heap: BinaryHeap<Reverse<(Nanos, u64, Happening)>>,
    inserted: u64,
}

impl Queue {
    /// Adds one at a time that has not passed.
    pub fn push(&mut self, at: Nanos, what: Happening) {
        self.inserted += 1;
        self.heap.push(Reverse((at, self.inserted, what)));
    }

    /// The next one, with its time.
    pub fn pop(&mut self) -> Option<(Nanos, Happening)> {
        self.heap.pop().map(|Reverse((at, _, what))| (at, what))
    }
}
