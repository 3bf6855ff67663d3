// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether a host request may be accepted now.
//!
//! One budget per reactor covers every buffer in use plus what was promised: a READ
//! reserves the memory of its reply when it is accepted, so that an answer never lacks
//! memory and lanes are always read. Over the budget nothing fails: the host's socket is
//! not read for a while (back-pressure).
//!
//! A quarter of the memory is for acknowledged writes that are retained (rule F5): what they pin is counted
//! there and not against requests, else a device that cannot flush would leave no room for any request. Of that
//! quarter a device may have what others leave.
//!
//! Shares are dynamic. A session with requests in flight may go up to a quarter of what
//! is free, so that n greedy sessions settle at B / (4 + n) each and some is always left.
//! A session without any gets its one request as soon as it fits at all, in the order of
//! asking; while one waits for that, nobody else's share grows.

use crate::limits::{HEDGE_SHARE, REQUEST_OVERHEAD_BYTES, RETENTION_SHARE, SESSION_SHARE};

/// Memory of one reactor.
pub(crate) struct Budget {
    /// For requests.
    limit: usize,
    reserved: usize,
    /// For acknowledged writes.
    retention: usize,
    retained: usize,
}

/// Why a request must wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Until one of the session's own requests is done.
    Own,
    /// Until others give memory back.
    Memory,
}

impl Budget {
    /// `memory`: all there is, in bytes.
    pub(crate) fn new(memory: usize) -> Self {
        let mut budget = Self { limit: 0, reserved: 0, retention: 0, retained: 0 };
        budget.set_memory(memory);
        budget
    }

    pub(crate) fn set_memory(&mut self, memory: usize) {
        self.retention = memory / RETENTION_SHARE;
        self.limit = memory - self.retention;
    }

    /// A device retains `now` bytes instead of `before`; returns how many it may.
    pub(crate) fn retain(&mut self, before: usize, now: usize) -> usize {
        self.retained = self.retained + now - before;
        now + self.retention.saturating_sub(self.retained)
    }

    /// Second copies of late reads have `now` bytes promised instead of `before`: of the free
    /// memory, as replies have.
    pub(crate) fn hedge(&mut self, before: usize, now: usize) {
        self.reserved = self.reserved + now - before;
    }

    /// What second copies may have beyond that: hosts have the first claim on memory.
    pub(crate) fn hedge_room(&self, live: usize) -> usize {
        self.free(live) / HEDGE_SHARE
    }

    /// What a request with `data` bytes either way counts for.
    pub(crate) fn cost(data: usize) -> usize {
        let buffer = if data == 0 { 0 } else { ring::class_bytes(data) };
        buffer + REQUEST_OVERHEAD_BYTES
    }

    fn free(&self, live: usize) -> usize {
        self.limit.saturating_sub(self.reserved).saturating_sub(self.requests(live))
    }

    /// Bytes in buffers of requests, of `live` in all.
    fn requests(&self, live: usize) -> usize {
        live.saturating_sub(self.retained)
    }

    /// Judges a request of `cost` bytes. `live`: bytes in buffers now; `held`: what the
    /// session's requests count for already; `queue`: others wait for memory.
    pub(crate) fn judge(&self, cost: usize, live: usize, held: usize, queue: bool) -> Result<(), Wait> {
        let free = self.free(live);
        if self.reserved == 0 && self.requests(live) == 0 {
            // Nothing else is in hand: the largest request gets through on the smallest budget.
            return Ok(());
        }
        if held == 0 {
            return if cost <= free && !queue { Ok(()) } else { Err(Wait::Memory) };
        }
        if !queue && held + cost <= free / SESSION_SHARE { Ok(()) } else { Err(Wait::Own) }
    }

    /// Promises memory for a reply.
    pub(crate) fn reserve(&mut self, bytes: usize) {
        self.reserved += bytes;
    }

    /// The promise is kept or not needed.
    pub(crate) fn release(&mut self, bytes: usize) {
        assert!(bytes <= self.reserved, "more was given back than was reserved");
        self.reserved -= bytes;
    }

    pub(crate) fn reserved(&self) -> usize {
        self.reserved
    }

    /// Less than an eighth is left.
    pub(crate) fn is_short(&self, live: usize) -> bool {
        self.free(live) < self.limit / 8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    /// This much for requests.
    fn with(limit: usize) -> Budget {
        let budget = Budget::new(limit / (RETENTION_SHARE - 1) * RETENTION_SHARE);
        Budget { limit, ..budget }
    }

    /// Retained bytes take no request's place, and a device gets what others leave.
    #[test]
    fn retained_bytes_have_a_share_of_their_own() {
        let mut budget = Budget::new(64 * MIB);
        assert_eq!(budget.retain(0, 0), 16 * MIB);
        assert_eq!(budget.retain(0, 15 * MIB), 16 * MIB, "a device alone has all of it");
        assert_eq!(budget.retain(0, 512), MIB, "another what is left");
        assert_eq!(budget.judge(32 * MIB, 15 * MIB + 512, 0, false), Ok(()));
        assert_eq!(budget.retain(15 * MIB, 0), 16 * MIB - 512);
        assert_eq!(budget.judge(48 * MIB, 512, 0, false), Ok(()));
    }

    #[test]
    fn second_copies_have_a_part_of_what_is_free() {
        let mut budget = with(64 * MIB);
        assert_eq!(budget.hedge_room(0), 16 * MIB);
        budget.hedge(0, 16 * MIB);
        assert_eq!(budget.hedge_room(0), 12 * MIB);
        assert_eq!(budget.judge(49 * MIB, 0, 0, false), Err(Wait::Memory), "they are promised");
        budget.hedge(16 * MIB, 0);
        budget.reserve(64 * MIB);
        assert_eq!(budget.hedge_room(0), 0);
        assert_eq!(budget.reserved(), 64 * MIB);
    }

    #[test]
    fn a_greedy_session_leaves_room_for_the_next() {
        let mut budget = with(64 * MIB);
        let mut held = 0;
        while budget.judge(MIB, 0, held, false).is_ok() {
            budget.reserve(MIB);
            held += MIB;
        }
        assert!((10 * MIB..=16 * MIB).contains(&held), "{held}");
        assert_eq!(budget.judge(MIB, 0, held, false), Err(Wait::Own));
        assert_eq!(budget.judge(32 * MIB, 0, 0, false), Ok(()), "another's first request fits");
    }

    #[test]
    fn a_first_request_waits_only_for_memory() {
        let mut budget = with(64 * MIB);
        budget.reserve(40 * MIB);
        assert_eq!(budget.judge(32 * MIB, 0, 0, false), Err(Wait::Memory));
        budget.release(8 * MIB);
        assert_eq!(budget.judge(32 * MIB, 0, 0, false), Ok(()));
        assert_eq!(budget.judge(32 * MIB, MIB, 0, false), Err(Wait::Memory), "buffers in use count");
    }

    #[test]
    fn the_smallest_budget_lets_the_largest_request_through() {
        let mut budget = with(MIB);
        assert_eq!(budget.judge(32 * MIB, 0, 0, false), Ok(()));
        budget.reserve(32 * MIB);
        assert_eq!(budget.judge(512, 0, 0, false), Err(Wait::Memory));
    }

    #[test]
    fn while_one_waits_nobody_overtakes() {
        let mut budget = with(64 * MIB);
        budget.reserve(512);
        assert_eq!(budget.judge(512, 0, 0, true), Err(Wait::Memory));
        assert_eq!(budget.judge(512, 0, 512, true), Err(Wait::Own));
    }
}
