// SPDX-License-Identifier: MIT OR Apache-2.0
//! What happens in which order: drawn from a seed, so that a failure can be had again.

use std::fmt;

use crate::rig::Fault;

/// What an operator or a host does meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Act {
    /// `path fail`, later `path reinstate`.
    Fail,
    /// `path drain`, later `path reinstate`.
    Drain,
    /// A reload that changes a time of the device.
    ReloadTime,
    /// A reload that takes a path away, and one that gives it back.
    ReloadPath,
    /// A host says goodbye and comes again.
    Reconnect,
    /// A host dies with requests in flight, and comes again.
    Crash,
}

pub(super) const ACTS: [Act; 6] =
    [Act::Fail, Act::Drain, Act::ReloadTime, Act::ReloadPath, Act::Reconnect, Act::Crash];

/// One step of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A path breaks, perhaps somebody does something, it is mended.
    Fault { fault: Fault, act: Option<Act> },
    /// Somebody does something while every path is well.
    Act(Act),
}

/// A sequence of pseudo-random numbers.
#[derive(Clone, Copy)]
pub(super) struct Draws(u64);

impl Draws {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        // xorshift64.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// One of them, all equally likely.
    pub(super) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[(self.next() >> 11) as usize % from.len()]
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for at in (1..items.len()).rev() {
            items.swap(at, (self.next() >> 11) as usize % (at + 1));
        }
    }
}

/// One round: each of these faults once, with something done during most of them; and every act once
/// while all is well.
pub(super) fn round(draws: &mut Draws, faults: &[Fault]) -> Vec<Step> {
    let mut acts: Vec<Option<Act>> = ACTS.iter().copied().map(Some).collect();
    acts.resize(faults.len(), None);
    draws.shuffle(&mut acts);
    // A guest that leaves reads back what it wrote, and waits for it: with a server that is stopped with a write in
    // its hands that may be until it goes on.
    let stopped = faults.iter().position(|fault| *fault == Fault::Stop);
    if let Some(at) = stopped.filter(|at| acts[*at] == Some(Act::Reconnect)) {
        let other = (at + 1) % acts.len();
        acts.swap(at, other);
    }
    let faults = faults.iter().zip(acts).map(|(fault, act)| Step::Fault { fault: *fault, act });
    let mut steps: Vec<Step> = faults.chain(ACTS.iter().copied().map(Step::Act)).collect();
    draws.shuffle(&mut steps);
    steps
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fault { fault, act: Some(act) } => write!(f, "{fault:?} with {act:?}"),
            Self::Fault { fault, act: None } => write!(f, "{fault:?}"),
            Self::Act(act) => write!(f, "{act:?}"),
        }
    }
}
