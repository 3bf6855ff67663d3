// SPDX-License-Identifier: MIT OR Apache-2.0
//! How long to wait before the next attempt to connect a path.
//!
//! **Model.** The first attempt is immediate: most resets are a server that restarts its
//! connection, not one that is gone. Then 100 ms, doubling up to 30 s, each time within
//! plus or minus 25 % by a random draw, so that the paths of a thousand devices do not come
//! back to a restarted server in one wave.
//!
//! It never gives up. A configured path is one that an operator wants; peers that stop after
//! a number of tries lose all connections in one long upgrade of the storage.

use crate::Nanos;
use crate::limits::{BACKOFF_CAP, BACKOFF_FIRST, BACKOFF_JITTER_DIVISOR};

/// Paces the attempts of one path.
#[derive(Clone, Debug, Default)]
pub struct Backoff {
    attempts: u32,
}

impl Backoff {
    /// The next attempt is immediate.
    pub const fn new() -> Self {
        Self { attempts: 0 }
    }

    /// How long to wait before the next attempt, which this counts. `draw` is uniform over
    /// all of `u64`. First 0, then 100 ms, 200 ms ... 30 s, each +-25 % (at most 37.5 s).
    pub fn next_delay(&mut self, draw: u64) -> Nanos {
        let attempt = self.attempts;
        self.attempts = attempt.saturating_add(1);
        let Some(doublings) = attempt.checked_sub(1) else {
            return 0;
        };
        let base = 1_u64
            .checked_shl(doublings)
            .and_then(|factor| BACKOFF_FIRST.checked_mul(factor))
            .map_or(BACKOFF_CAP, |delay| delay.min(BACKOFF_CAP));
        let jitter = base / BACKOFF_JITTER_DIVISOR;
        // The high half of the product: uniform over 0..=2*jitter, and it uses the high bits.
        let offset = (u128::from(draw) * u128::from(2 * jitter + 1)) >> u64::BITS;
        base - jitter + offset as u64
    }

    /// The path works again: its lane passed the handshake and the identity check. Not
    /// at mere connect, or a server that accepts and drops would be called without pause.
    pub fn reset(&mut self) {
        self.attempts = 0;
    }

    /// Attempts since the last [`Backoff::reset`].
    pub fn attempts(&self) -> u32 {
        self.attempts
    }
}
