// SPDX-License-Identifier: MIT OR Apache-2.0
//! The little that a running load shares with whoever started it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Stop flag and progress of a load.
#[derive(Debug, Default)]
pub struct Control {
    stopped: AtomicBool,
    answered: AtomicU64,
}

impl Control {
    /// No new requests; those in flight are waited for.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// Requests answered so far.
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    pub(super) fn note_answers(&self, answers: u64) {
        self.answered.fetch_add(answers, Ordering::Relaxed);
    }
}
