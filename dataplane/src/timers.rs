// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is to happen when, on one reactor.
//!
//! A heap of (time, who) in which nothing is ever searched or removed: whoever is due
//! looks for itself whether it still wants something (a deadline may have moved, the
//! session may be gone). Setting a deadline is a push, and engines whose deadline only
//! moves later push nothing.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use program::Nanos;

use crate::slab::Key;

/// Who wants to be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Due {
    /// An engine's deadline.
    Device(Key),
    /// A host handshake has had its time.
    Handshake(Key),
    /// A session that ends has had its time to close.
    Linger(Key),
    /// A lane's connect, handshake or DISC has had its time.
    Lane(Key),
    /// Claims at a device's gate wait.
    Gate(Key),
    /// A listener may accept again.
    Accept(Key),
    /// Look at stalled sessions.
    Sweep,
    /// Look at idle memory.
    Trim,
    /// A shutdown has had its time.
    Shutdown,
}

/// See the module header.
#[derive(Default)]
pub(crate) struct Timers {
    heap: BinaryHeap<Reverse<(Nanos, Due)>>,
}

impl Timers {
    pub(crate) fn set(&mut self, at: Nanos, due: Due) {
        self.heap.push(Reverse((at, due)));
    }

    /// The earliest time of any.
    pub(crate) fn next(&self) -> Option<Nanos> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    /// Takes out one that is due.
    pub(crate) fn pop(&mut self, now: Nanos) -> Option<Due> {
        if self.next()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse((_, due))| due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_order_of_time_and_not_before() {
        let mut timers = Timers::default();
        timers.set(20, Due::Trim);
        timers.set(10, Due::Sweep);
        assert_eq!(timers.next(), Some(10));
        assert_eq!(timers.pop(9), None);
        assert_eq!(timers.pop(15), Some(Due::Sweep));
        assert_eq!(timers.pop(15), None);
        assert_eq!(timers.pop(20), Some(Due::Trim));
        assert_eq!(timers.next(), None);
    }
}
