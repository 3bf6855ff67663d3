// SPDX-License-Identifier: MIT OR Apache-2.0
//! Longest time without an answer (rule T8): what a failover costs a host.
//!
//! Counted only while requests are in flight: a host that asks nothing misses nothing. Kept per connection, because a
//! connection that answers would hide one that does not. And counted only while the host goes on asking: at the end of a load
//! the slowest request is alone, and its wait is a latency, not a gap.

use std::time::{Duration, Instant};

/// Gaps between the answers on one connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Gap {
    /// Since when something is in flight and nothing came; `None` while nothing is in flight.
    silent_since: Option<Instant>,
    /// The host asks no more.
    is_closed: bool,
    longest: Duration,
    began: Option<Instant>,
}

impl Gap {
    /// A request was sent.
    pub(super) fn on_send(&mut self, now: Instant) {
        if !self.is_closed {
            self.silent_since.get_or_insert(now);
        }
    }

    /// Answers came; `in_flight` are left.
    pub(super) fn on_answer(&mut self, now: Instant, in_flight: usize) {
        self.end(now);
        self.silent_since = (in_flight > 0 && !self.is_closed).then_some(now);
    }

    /// The host could ask more and does not: nothing is counted any more.
    pub(super) fn close(&mut self, now: Instant) {
        self.end(now);
        self.is_closed = true;
    }

    /// The connection ended; what is in flight will never be answered.
    pub(super) fn end(&mut self, now: Instant) {
        if let Some(since) = self.silent_since.take()
            && now.duration_since(since) > self.longest
        {
            self.longest = now.duration_since(since);
            self.began = Some(since);
        }
    }

    /// The longest gap and when it began.
    pub(super) fn longest(&self) -> (Duration, Option<Instant>) {
        (self.longest, self.began)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::Gap;

    #[test]
    fn only_time_with_requests_in_flight_counts() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut gap = Gap::default();
        gap.on_send(at(0));
        gap.on_answer(at(5), 0);
        // Idle for a long time, then a gap of 30 ms with two requests in flight.
        gap.on_send(at(1000));
        gap.on_send(at(1010));
        gap.on_answer(at(1030), 1);
        gap.on_answer(at(1040), 0);
        assert_eq!(gap.longest(), (Duration::from_millis(30), Some(at(1000))));
    }

    /// A load that ends with one slow request in flight was not without answers all that time.
    #[test]
    fn the_last_request_makes_no_gap() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut gap = Gap::default();
        gap.on_send(at(0));
        gap.on_send(at(0));
        gap.on_answer(at(4), 1);
        gap.close(at(5));
        gap.on_answer(at(3000), 0);
        gap.on_send(at(4000));
        gap.on_answer(at(5000), 0);
        assert_eq!(gap.longest(), (Duration::from_millis(4), Some(at(0))));
    }

    #[test]
    fn silence_until_the_end_counts() {
        let start = Instant::now();
        let mut gap = Gap::default();
        gap.on_send(start);
        gap.end(start + Duration::from_millis(7));
        assert_eq!(gap.longest().0, Duration::from_millis(7));
    }
}
