// SPDX-License-Identifier: MIT OR Apache-2.0
//! Engine time: CLOCK_BOOTTIME less our own pauses (rule W17).
//!
//! When this process does not run (SIGSTOP, a stolen CPU, a suspended machine), servers
//! look silent and deadlines pass although nothing is wrong. So a gap of more than 50 ms
//! in which we did not run is taken out of the time that engines see. There are two such
//! gaps: a turn that took too long, and a wait that ended too long after the time it was
//! to end at. A wait without a time limit cannot be late, and nothing is due after it.
//!
//! What is left in: the part of a pause before the limit of a wait. It is harmless,
//! because every completion is taken in before a timer fires.

use program::Nanos;

use crate::limits::PAUSE_MIN;

/// Engine time of one reactor.
pub(crate) struct ReactorClock {
    /// Real time of the last look.
    seen: Nanos,
    /// Sum of all pauses.
    paused: Nanos,
}

impl ReactorClock {
    pub(crate) fn new(real: Nanos) -> Self {
        Self { seen: real, paused: 0 }
    }

    /// Engine time of the last look.
    pub(crate) fn now(&self) -> Nanos {
        self.seen - self.paused
    }

    /// A look at the end of a stretch in which we were running all the time. The pause
    /// that was found, if any.
    pub(crate) fn ran(&mut self, real: Nanos) -> Option<Nanos> {
        let gap = real.saturating_sub(self.seen);
        self.seen = self.seen.max(real);
        self.take_out(gap)
    }

    /// A look after a wait that was to end after `limit` at the latest.
    pub(crate) fn waited(&mut self, real: Nanos, limit: Option<Nanos>) -> Option<Nanos> {
        let late = limit.map_or(0, |limit| real.saturating_sub(self.seen).saturating_sub(limit));
        self.seen = self.seen.max(real);
        self.take_out(late)
    }

    fn take_out(&mut self, gap: Nanos) -> Option<Nanos> {
        (gap > PAUSE_MIN).then(|| {
            self.paused += gap;
            gap
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use program::{MILLISECOND, SECOND};

    #[test]
    fn running_and_waiting_pass_time() {
        let mut clock = ReactorClock::new(100 * SECOND);
        assert_eq!(clock.ran(100 * SECOND + MILLISECOND), None);
        assert_eq!(clock.waited(103 * SECOND, Some(5 * SECOND)), None);
        assert_eq!(clock.waited(200 * SECOND, None), None);
        assert_eq!(clock.now(), 200 * SECOND);
    }

    #[test]
    fn a_stop_while_running_does_not_pass_time() {
        let mut clock = ReactorClock::new(0);
        assert_eq!(clock.ran(5 * SECOND), Some(5 * SECOND));
        assert_eq!(clock.now(), 0);
    }

    #[test]
    fn a_stop_while_waiting_passes_time_up_to_the_limit_only() {
        let mut clock = ReactorClock::new(0);
        assert_eq!(clock.waited(6 * SECOND, Some(SECOND)), Some(5 * SECOND));
        assert_eq!(clock.now(), SECOND);
        assert_eq!(
            clock.waited(7 * SECOND + 40 * MILLISECOND, Some(SECOND)),
            None,
            "a late wake-up is no pause"
        );
    }

    #[test]
    fn time_never_goes_back() {
        let mut clock = ReactorClock::new(SECOND);
        clock.ran(SECOND - 1);
        clock.waited(0, Some(1));
        assert_eq!(clock.now(), SECOND);
    }
}
