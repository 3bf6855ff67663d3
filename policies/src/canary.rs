// SPDX-License-Identifier: MIT OR Apache-2.0
//! When the next probe read is due on a path.
//!
//! **Model.** A path that answers host I/O needs no probe: any reply counts. A canary is due
//! when a path has said nothing for the interval: 1 s while its device is busy (so a standby
//! path is known to be good when it is needed), 10 s while the device is idle.
//!
//! **Spread.** Each canary is up to a quarter of the interval early, drawn anew each time. Paths
//! that came up together therefore drift apart, and a thousand idle devices do not probe in
//! one instant. A fixed time for each path would spread them at once, but then a canary is
//! due right after a reply or half an interval late; this one is never late.
//!
//! **Grid.** Canaries start at multiples of 1/64 of the interval. Those of many idle paths wake a
//! reactor once for several; waking is most of what an idle path costs.
//!
//! Canaries are reads of the same kind as host I/O on the same connection: a health channel of
//! its own says "good" while I/O hangs. Paths that are down are probed by connecting
//! ([`crate::backoff`]).

use crate::Nanos;
use crate::limits::{CANARY_GRID_DIVISOR, CANARY_INTERVAL_MIN, CANARY_PHASE_DIVISOR};

/// Paces the probes of one path.
#[derive(Clone, Debug)]
pub struct Canary {
    interval: Nanos,
    idle: Nanos,
    phase_draw: u64,
    last_sent: Option<Nanos>,
}

impl Canary {
    /// `interval` while the device is busy, `idle` while it is not; below 10 ms counts
    /// as 10 ms, `idle` is at least `interval`. `phase_draw` is uniform over all of `u64`, one
    /// for the life of a path; all draws of its phases follow from it.
    pub fn new(interval: Nanos, idle: Nanos, phase_draw: u64) -> Self {
        let interval = interval.max(CANARY_INTERVAL_MIN);
        Self { interval, idle: idle.max(interval), phase_draw, last_sent: None }
    }

    /// Changes the intervals as in [`Canary::new`]; the phase and the last probe stay.
    pub fn set_times(&mut self, interval: Nanos, idle: Nanos) {
        *self = Self { last_sent: self.last_sent, ..Self::new(interval, idle, self.phase_draw) };
    }

    /// Asserts what must hold between any two calls.
    pub fn check_invariants(&self) {
        assert!(CANARY_INTERVAL_MIN <= self.interval && self.interval <= self.idle);
    }

    /// A canary was sent: the next is counted from here even if it is never answered.
    pub fn on_sent(&mut self, now: Nanos) {
        self.last_sent = Some(now);
    }

    /// When the next canary is due: at a multiple of 1/64 interval, between 47/64 and 64/64 interval
    /// after the path last answered (`last_activity`) or was last probed, whichever is later. A
    /// time in the past means now.
    pub fn next_due(&self, last_activity: Nanos, device_busy: bool) -> Nanos {
        let interval = if device_busy { self.interval } else { self.idle };
        let early_max = interval / CANARY_PHASE_DIVISOR;
        let quiet_since = last_activity.max(self.last_sent.unwrap_or(0));
        // Multiplied by an odd number a uniform draw stays one; another one after each reply.
        let draw = self.phase_draw.wrapping_mul(quiet_since.wrapping_mul(2) | 1);
        let early = ((u128::from(draw) * u128::from(early_max)) >> u64::BITS) as u64;
        let due = quiet_since.saturating_add(interval - early);
        due - due % (interval / CANARY_GRID_DIVISOR)
    }
}
