// SPDX-License-Identifier: MIT OR Apache-2.0
//! How a path that came back earns its full share of I/O.
//!
//! **Model.** Three steps: canaries only, until three in a row were good; then 5 % of the
//! choices for 10 s; then all. A bad canary at any time before the end starts over.
//!
//! Why not at once: the classic flap is a path whose check is good and whose I/O fails. Three
//! reads cost nothing; 5 % of real I/O shows what a probe cannot, and a request that must be
//! moved again is one of twenty. The only usable path is simply used: the selector gives a
//! lone candidate everything, and the engine asks for no canaries first when nothing else
//! is up.
//!
//! ```text
//! Canaries(n) --good, n + 1 < 3--> Canaries(n + 1)
//! Canaries(n) --good, n + 1 = 3--> Share until now + 10 s
//! Canaries(n) --bad--------------> Canaries(0)
//! Share ------bad before its end-> Canaries(0)
//! Share ------its end------------> done, whatever comes
//! ```

use crate::Nanos;
use crate::limits::{FULL_SHARE_PPM, PROBATION_CANARIES, PROBATION_SHARE_PPM, PROBATION_TIME};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// So many good canaries in a row; below the number needed.
    Canaries(u32),
    /// A small share until this time; then done.
    Share(Nanos),
}

/// Probation of one path since it came back.
#[derive(Clone, Debug)]
pub struct Probation {
    started: Nanos,
    step: Step,
}

impl Probation {
    /// The path has passed its identity check and gets canaries now.
    pub const fn start(now: Nanos) -> Self {
        Self { started: now, step: Step::Canaries(0) }
    }

    /// When it began.
    pub fn started(&self) -> Nanos {
        self.started
    }

    /// Asserts what must hold between any two calls.
    pub fn check_invariants(&self) {
        match self.step {
            Step::Canaries(count) => assert!(count < PROBATION_CANARIES, "enough canaries end the step"),
            Step::Share(until) => assert!(until >= self.started, "a share ends after it began"),
        }
    }

    /// A canary was answered well, or it failed or missed its deadline.
    pub fn on_canary(&mut self, now: Nanos, good: bool) {
        if self.done(now) {
            return;
        }
        self.step = match self.step {
            _ if !good => Step::Canaries(0),
            Step::Canaries(count) if count + 1 < PROBATION_CANARIES => Step::Canaries(count + 1),
            Step::Canaries(_) => Step::Share(now.saturating_add(PROBATION_TIME)),
            Step::Share(until) => Step::Share(until),
        };
    }

    /// Part of the choices the path may have now, in parts per million: 0, 50,000 or 1,000,000.
    pub fn share_ppm(&self, now: Nanos) -> u32 {
        match self.step {
            Step::Canaries(_) => 0,
            Step::Share(until) if now < until => PROBATION_SHARE_PPM,
            Step::Share(_) => FULL_SHARE_PPM,
        }
    }

    /// Good canaries in a row so far; those that are asked for once they were.
    pub fn good_canaries(&self) -> u32 {
        match self.step {
            Step::Canaries(count) => count,
            Step::Share(_) => PROBATION_CANARIES,
        }
    }

    /// Whether the path has its full share.
    pub fn done(&self, now: Nanos) -> bool {
        self.share_ppm(now) == FULL_SHARE_PPM
    }

    /// When the share ends; `None` while canaries decide. Stays at that time once it has
    /// passed: drop a probation that is [`Probation::done`].
    pub fn next_deadline(&self) -> Option<Nanos> {
        match self.step {
            Step::Canaries(_) => None,
            Step::Share(until) => Some(until),
        }
    }
}
