// SPDX-License-Identifier: MIT OR Apache-2.0
//! A host that sends requests while something happens.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::load::{self, Control, LoadError, LoadOptions, Report};
use crate::peers::PeerError;

/// How often the first answer is looked for: how exactly the start is known.
const LOOK_INTERVAL: Duration = Duration::from_micros(500);

/// A running host.
pub(super) struct Host {
    thread: JoinHandle<Result<Report, LoadError>>,
    started: Instant,
}

impl Host {
    /// Starts it; returns with its first answer. From then its time is counted.
    pub(super) fn start(load: LoadOptions) -> Self {
        let control = Arc::new(Control::default());
        let shared = Arc::clone(&control);
        let thread = thread::spawn(move || load::run(&load, &shared));
        while control.answered() == 0 && !thread.is_finished() {
            thread::sleep(LOOK_INTERVAL);
        }
        Self { thread, started: Instant::now() }
    }

    /// Returns when the host has run for so long.
    pub(super) fn sleep_until(&self, at: Duration) {
        thread::sleep(at.saturating_sub(self.started.elapsed()));
    }

    /// Waits for its end.
    pub(super) fn join(self) -> Result<Report, PeerError> {
        let report = self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Ok(report?)
    }
}
