// SPDX-License-Identifier: MIT OR Apache-2.0
//! Holdfast's decisions, and nothing else.
//!
//! Every policy is a small state (or none) with functions that take the time and what
//! was observed and return what to do. No I/O, clock, randomness, thread or lock: time
//! comes in as [`Nanos`] and random draws as `u64`, so a decision can be replayed from a
//! trace and tested exhaustively. The engine and the control plane act on the answers.
//!
//! One policy is one file here, one page in `docs/policies/` and one test file in
//! `policies/tests/`, all of the same name. Numbers live in [`limits`].
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod backoff;
pub mod canary;
pub mod deadline;
pub mod distance;
pub mod error_budget;
pub mod evidence;
pub mod explain;
pub mod failback;
pub mod failure_limit;
pub mod faults;
pub mod fence;
pub mod group;
pub mod hedge;
pub mod latency;
pub mod limits;
pub mod marginal;
pub mod pacing;
pub mod portal;
pub mod probation;
pub mod selector;
pub mod shadow;
pub mod silence;
pub mod slow;
pub mod standing;
pub mod timing;

pub use backoff::Backoff;
pub use canary::Canary;
pub use deadline::request_deadline;
pub use distance::Distances;
pub use error_budget::{Cause, Cost, ErrorBudget};
pub use evidence::{CanaryState, Sign, Unanswered, characterise};
pub use explain::{Decision, Explain, Subject};
pub use failback::Failback;
pub use failure_limit::FailureLimit;
pub use group::Rank;
pub use hedge::{Hedge, Outrun};
pub use latency::Latency;
pub use marginal::Marginal;
pub use pacing::Pacing;
pub use portal::{Attempt, Portals};
pub use probation::Probation;
pub use selector::{Candidate, Selector};
pub use shadow::Shadow;
pub use silence::{Silence, TcpEvidence};
pub use slow::{SlowChange, SlowPaths};
pub use standing::{Held, Standing};

/// A time or a duration in nanoseconds. Times are CLOCK_BOOTTIME less the process's
/// own pauses (rule W17); policies only compare and add them.
pub type Nanos = u64;
