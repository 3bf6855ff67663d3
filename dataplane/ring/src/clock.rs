// SPDX-License-Identifier: MIT OR Apache-2.0
//! The clock of the data plane.
//!
//! CLOCK_BOOTTIME and not `std::time::Instant`: Linux's `Instant` stands still in
//! suspend, and a lease or a quarantine must not (rule L3). A call costs about 25 ns.

use nix::time::{ClockId, clock_gettime};

/// Nanoseconds of CLOCK_BOOTTIME.
pub fn boottime_ns() -> u64 {
    // CLOCK_BOOTTIME exists since Linux 2.6.39 and this crate needs 6.1.
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("CLOCK_BOOTTIME is always there");
    now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64
}

#[cfg(test)]
mod tests {
    #[test]
    fn time_does_not_go_back() {
        let first = super::boottime_ns();
        assert!(first > 0);
        assert!(super::boottime_ns() >= first);
    }
}
