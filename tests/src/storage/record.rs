// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a storage server has seen.

use std::sync::{Mutex, MutexGuard};
use std::time::Instant;

/// One request as it arrived.
#[derive(Clone, Debug)]
pub struct RequestEntry {
    /// When its frame was complete.
    pub arrived: Instant,
    /// When its reply was handed to the kernel.
    pub answered: Option<Instant>,
    /// Which connection, counted from 0.
    pub connection: u32,
    /// NBD command.
    pub command: u16,
    /// NBD command flags.
    pub flags: u16,
    /// Byte offset.
    pub offset: u64,
    /// Length in bytes.
    pub len: u32,
    /// First eight bytes of a WRITE's payload, which the suites make unique.
    pub head: u64,
}

/// Log and counters of one server; they outlive its restarts.
#[derive(Debug, Default)]
pub struct Record {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    requests: Vec<RequestEntry>,
    connections: u32,
    open: u32,
    faults_fired: u64,
}

impl Record {
    /// A copy of the log.
    pub fn requests(&self) -> Vec<RequestEntry> {
        self.lock().requests.clone()
    }

    /// Requests that satisfy a condition.
    pub fn count(&self, condition: impl Fn(&RequestEntry) -> bool) -> usize {
        self.lock().requests.iter().filter(|entry| condition(entry)).count()
    }

    /// Requests of one command.
    pub fn count_of(&self, command: u16) -> usize {
        self.count(|entry| entry.command == command)
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> u32 {
        self.lock().connections
    }

    /// Connections open now.
    pub fn open_connections(&self) -> u32 {
        self.lock().open
    }

    /// How often a fault changed what happened to a request or connection.
    pub fn faults_fired(&self) -> u64 {
        self.lock().faults_fired
    }

    pub(super) fn connection_opened(&self) -> u32 {
        let mut inner = self.lock();
        inner.connections += 1;
        inner.open += 1;
        inner.connections - 1
    }

    pub(super) fn connection_closed(&self) {
        self.lock().open -= 1;
    }

    pub(super) fn arrived(&self, entry: RequestEntry) -> usize {
        let mut inner = self.lock();
        inner.requests.push(entry);
        inner.requests.len() - 1
    }

    pub(super) fn answered(&self, index: usize) {
        self.lock().requests[index].answered = Some(Instant::now());
    }

    pub(super) fn fault_fired(&self) {
        self.lock().faults_fired += 1;
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no holder of the record panics")
    }
}
