// SPDX-License-Identifier: MIT OR Apache-2.0
//! When a path fails so often that it is better left out for a while.
//!
//! **Model.** A path may fail five times in ten minutes. The sixth failure holds it out for
//! 30 s, and each later failure beyond the limit doubles that, up to 10 min. Failures while it
//! is held out (reconnects that fail) do not double it again. Ten minutes in service without a
//! failure forget the doubling; [`FailureLimit::clear`] forgets everything.
//!
//! It is on by default, by counts of real failures: peers have flap protection off, or need
//! minutes of test I/O to decide. It never takes the last usable path, since a flapping path
//! is better than none: [`FailureLimit::holds_out`] is asked at each choice, so a held path
//! is used the moment the others are gone.
//!
//! **With the other rules.** A path whose time is over is on probation like any that comes
//! back: canaries, then 5 % ([`crate::probation`]), so the next flap meets few requests; and a
//! failure on probation is a failure like any other. What holds a path out only lowers its
//! standing ([`crate::standing`]). In a better group it starts its time towards failback when
//! the hold-out ends ([`crate::failback`]).

use crate::Nanos;
use crate::limits::{FAILURE_WINDOW, FAILURES_ALLOWED, FAILURES_REMEMBERED, HOLD_OUT_CAP, HOLD_OUT_FIRST};

/// Failures of one path.
#[derive(Clone, Debug, Default)]
pub struct FailureLimit {
    /// Ring of the latest failures' times; the first `count` of them are set.
    times: [Nanos; FAILURES_REMEMBERED],
    count: usize,
    next: usize,
    last: Nanos,
    /// Times held out since it was last forgotten.
    holds: u32,
    held_until: Option<Nanos>,
}

impl FailureLimit {
    /// No failure yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The path failed. Returns until when it is to be held out, if it is.
    pub fn on_failure(&mut self, now: Nanos) -> Option<Nanos> {
        let in_service_since = self.last.max(self.held_until.unwrap_or(0));
        if now.saturating_sub(in_service_since) >= FAILURE_WINDOW {
            self.holds = 0;
        }
        self.remember(now);
        if let Some(until) = self.held_until.filter(|&until| now < until) {
            return Some(until);
        }
        self.held_until = None;
        if self.failures(now) > FAILURES_ALLOWED {
            let hold_out = 1_u64
                .checked_shl(self.holds)
                .and_then(|factor| HOLD_OUT_FIRST.checked_mul(factor))
                .map_or(HOLD_OUT_CAP, |time| time.min(HOLD_OUT_CAP));
            self.holds = self.holds.saturating_add(1);
            self.held_until = Some(now.saturating_add(hold_out));
        }
        self.held_until
    }

    /// An operator reinstates the path: nothing is remembered.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Until when the path is (or was last) held out. May lie in the past.
    pub fn held_until(&self) -> Option<Nanos> {
        self.held_until
    }

    /// Whether the path gets no host I/O now. `last_usable`: no other path could carry it,
    /// then it is used however often it failed.
    pub fn holds_out(&self, now: Nanos, last_usable: bool) -> bool {
        !last_usable && self.held_until.is_some_and(|until| now < until)
    }

    /// Failures within the last 10 minutes; counts to 16 and no further.
    pub fn failures(&self, now: Nanos) -> u32 {
        let recent = |time: &&Nanos| now.saturating_sub(**time) < FAILURE_WINDOW;
        self.times[..self.count].iter().filter(recent).count() as u32
    }

    /// Times held out since that was last forgotten; the next one is 30 s doubled as often.
    pub fn holds(&self) -> u32 {
        self.holds
    }

    /// When [`FailureLimit::holds_out`] will answer differently if nothing else changes. Always
    /// later than `now`.
    pub fn next_deadline(&self, now: Nanos) -> Option<Nanos> {
        self.held_until.filter(|&until| now < until)
    }

    /// Asserts what must hold between any two calls.
    pub fn check_invariants(&self) {
        assert!(self.next < FAILURES_REMEMBERED && self.count <= FAILURES_REMEMBERED);
        assert!(self.count == FAILURES_REMEMBERED || self.count == self.next, "the ring fills from 0");
        assert!(self.held_until.is_none() || self.holds > 0, "a hold is counted");
    }

    fn remember(&mut self, now: Nanos) {
        self.times[self.next] = now;
        self.next = (self.next + 1) % FAILURES_REMEMBERED;
        self.count = (self.count + 1).min(FAILURES_REMEMBERED);
        self.last = now;
    }
}
