// SPDX-License-Identifier: MIT OR Apache-2.0
//! Waking a reactor from another thread.
//!
//! An eventfd that the reactor reads through its ring. MSG_RING was measured at the
//! same cost and works only between threads that own rings, so one way serves all.
//! A flag saves the system call when the reactor has been told already.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::Fd;

struct Shared {
    event: EventFd,
    signalled: AtomicBool,
}

/// Any thread's end; cheap to clone.
#[derive(Clone)]
pub struct Waker(Arc<Shared>);

/// The reactor's end: read it with [`crate::Ring::read_event`].
pub struct WakeSource {
    shared: Arc<Shared>,
    fd: Fd,
}

impl Waker {
    /// A new event.
    pub fn new() -> io::Result<Self> {
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC)?;
        Ok(Self(Arc::new(Shared { event, signalled: AtomicBool::new(false) })))
    }

    /// The end for the one thread that is woken.
    pub fn source(&self) -> io::Result<WakeSource> {
        let fd = self.0.event.as_fd().try_clone_to_owned()?;
        Ok(WakeSource { shared: self.0.clone(), fd: Fd::new(fd) })
    }

    /// Makes the reactor's pending read complete. Call it after the message is queued.
    /// Never blocks: at most one write happens between two reads.
    pub fn wake(&self) {
        if !self.0.signalled.swap(true, Ordering::AcqRel) {
            let written = self.0.event.write(1);
            assert!(written.is_ok(), "a write to our own eventfd failed");
        }
    }
}

impl WakeSource {
    /// To arm the read on.
    pub fn fd(&self) -> &Fd {
        &self.fd
    }

    /// Call after the read completed and before looking at what was sent: a message
    /// queued later signals again. A swap and not a store, so that it sees what a waker
    /// queued before it found the flag still set.
    pub fn acknowledge(&self) {
        self.shared.signalled.swap(false, Ordering::AcqRel);
    }
}
