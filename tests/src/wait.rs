// SPDX-License-Identifier: MIT OR Apache-2.0
//! Waiting for things to become true.
//!
//! The only place of the suites that sleeps: a few milliseconds between two looks at
//! something that gives no notice (a file, a counter, `/proc`). The bound decides nothing
//! in a test that passes; it turns a hang into a failure that says what was awaited.

use std::time::{Duration, Instant};

/// Generous bound for what takes milliseconds on an idle machine.
pub const BOUND: Duration = Duration::from_secs(30);

const STEP: Duration = Duration::from_millis(5);

/// Looks until there is an answer; panics with `what` after `bound`.
pub fn until_within<T>(bound: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < bound, "waited {} s in vain: {what}", bound.as_secs());
        std::thread::sleep(STEP);
    }
}

/// [`until_within`] with [`BOUND`].
pub fn until<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    until_within(BOUND, what, look)
}

/// Waits until a condition holds, with [`BOUND`].
pub fn until_true(what: &str, mut holds: impl FnMut() -> bool) {
    until(what, || holds().then_some(()));
}

/// Lets time pass because time itself is the input: how long a process stays stopped, how
/// long an idle process is measured. Never a guess at when something is ready.
pub fn pass(duration: Duration) {
    std::thread::sleep(duration);
}

/// Asserts that a condition keeps holding for `duration`, looking every few milliseconds.
pub fn holds_for(duration: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while start.elapsed() < duration {
        assert!(holds(), "stopped holding after {} ms: {what}", start.elapsed().as_millis());
        std::thread::sleep(STEP);
    }
}
