// SPDX-License-Identifier: MIT OR Apache-2.0
//! Work that blocks: resolving names, opening files, asking a file for its extents.
//!
//! A reactor must never wait for a name server or a disk's metadata, so these run on a
//! few threads per reactor, made when first needed; the result comes back as mail. A
//! name server that hangs occupies threads and not the reactor.

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use policies::fence::Refusal;
use ring::file::{self, Extent, Storage};

use crate::gate::Gate;
use crate::gate::register::{Granted, Wish};
use crate::limits::{JOB_THREADS_MAX, LOCAL_EXTENTS_MAX};
use crate::mailbox::{Mail, Mailbox};
use crate::slab::Key;

/// What to do.
pub(crate) enum Task {
    /// Addresses of a host name.
    Resolve { host: String, port: u16 },
    /// A file or block device.
    Open { path: String, create_bytes: Option<u64> },
    /// A claim at a gate; the lane is the device then.
    Claim { gate: Arc<Gate>, wish: Box<Wish> },
    /// Data and holes of a range.
    Extents { fd: OwnedFd, offset: u64, len: u64 },
}

/// What came of it.
pub(crate) enum Outcome {
    Addresses(io::Result<Vec<SocketAddr>>),
    Storage(io::Result<Storage>),
    Extents(io::Result<Vec<Extent>>),
    Claim(io::Result<Result<Granted, Refusal>>),
}

/// A finished task, for the lane that asked.
pub(crate) struct Done {
    pub(crate) lane: Key,
    /// Names the request of the lane, where there are several.
    pub(crate) cookie: u64,
    pub(crate) outcome: Outcome,
}

/// Work for a helper thread.
pub(crate) struct Job {
    pub(crate) lane: Key,
    pub(crate) cookie: u64,
    /// The lane still waits for it.
    pub(crate) wanted: Arc<AtomicBool>,
    pub(crate) task: Task,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
    stop: bool,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    more: Condvar,
}

/// The threads of one reactor; they end when this is dropped and their task is done.
pub(crate) struct Jobs {
    shared: Arc<Shared>,
    mailbox: Arc<Mailbox>,
}

impl Jobs {
    pub(crate) fn new(mailbox: Arc<Mailbox>) -> Self {
        Self { shared: Arc::default(), mailbox }
    }

    /// Queues a task; its result arrives as [`Mail::Job`].
    pub(crate) fn start(&self, job: Job) {
        let mut queue = lock(&self.shared);
        // While a name server hangs, lanes give up and ask again: only the last asking counts.
        queue.jobs.retain(|job| job.wanted.load(Ordering::Relaxed));
        queue.jobs.push_back(job);
        if queue.idle >= queue.jobs.len() || queue.threads == JOB_THREADS_MAX {
            self.shared.more.notify_one();
            return;
        }
        queue.threads += 1;
        drop(queue);
        let (shared, mailbox) = (self.shared.clone(), self.mailbox.clone());
        let spawned =
            std::thread::Builder::new().name("hf-job".into()).spawn(move || work(&shared, &mailbox));
        if let Err(error) = spawned {
            // The job stays queued; another thread takes it, or the next start tries again.
            crate::log::warning!("threads", "cannot start a helper thread: {error}");
            lock(&self.shared).threads -= 1;
        }
    }
}

impl Drop for Jobs {
    fn drop(&mut self) {
        lock(&self.shared).stop = true;
        self.shared.more.notify_all();
    }
}

fn lock(shared: &Shared) -> std::sync::MutexGuard<'_, Queue> {
    shared.queue.lock().unwrap_or_else(PoisonError::into_inner)
}

fn work(shared: &Shared, mailbox: &Mailbox) {
    loop {
        let Some(Job { lane, cookie, task, .. }) = next(shared) else { return };
        mailbox.send(Mail::Job(Done { lane, cookie, outcome: run(task) }));
    }
}

fn next(shared: &Shared) -> Option<Job> {
    let mut queue = lock(shared);
    loop {
        if queue.stop {
            return None;
        }
        if let Some(job) = queue.jobs.pop_front() {
            return Some(job);
        }
        queue.idle += 1;
        queue = shared.more.wait(queue).unwrap_or_else(PoisonError::into_inner);
        queue.idle -= 1;
    }
}

fn run(task: Task) -> Outcome {
    match task {
        Task::Resolve { host, port } => {
            Outcome::Addresses((host.as_str(), port).to_socket_addrs().map(Iterator::collect))
        }
        Task::Open { path, create_bytes } => Outcome::Storage(file::open(Path::new(&path), create_bytes)),
        Task::Claim { gate, wish } => Outcome::Claim(gate.register.claim(&wish)),
        Task::Extents { fd, offset, len } => {
            Outcome::Extents(file::extents(fd, offset, len, LOCAL_EXTENTS_MAX))
        }
    }
}
