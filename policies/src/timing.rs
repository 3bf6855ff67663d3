// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether configured times fit inside each other (design section 4).
//!
//! **Model.** Each time is the patience of one layer, and an inner layer must have spoken
//! before an outer one loses patience. Most systems let these be set against each other and
//! the result is found in an outage; here they are checked at start and at each reload, and
//! *all* that do not fit are reported at once, each with both values.
//!
//! A canary deadline may equal the read deadline (both are 1 s by default): a read's age is
//! its deadline plus the time for the bytes ahead of it ([`crate::deadline`]), so the canary
//! still speaks first. All other comparisons are strict but the heartbeat's.

use alloc::vec::Vec;

use crate::Nanos;
use crate::limits::{
    CANARY_DEADLINE, HEARTBEATS_PER_SUSPECT, NO_PATH_HOLD, QUIESCE, READ_DEADLINE, SILENCE_CEILING,
    USER_TIMEOUT, WRITE_DEADLINE,
};

/// The times of one device, and of its failover set if it has one; all in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// Age at which a canary counts as failed. Default 1 s.
    pub canary_deadline: Nanos,
    /// Age that moves a read. Default 1 s.
    pub read_deadline: Nanos,
    /// Age that moves a write. Default 2 s.
    pub write_deadline: Nanos,
    /// Quarantine of a write in doubt. Default 5 s.
    pub quiesce: Nanos,
    /// TCP_USER_TIMEOUT of lanes in use. Default 2 s.
    pub user_timeout: Nanos,
    /// Longest time without an ACK before a link is called silent. Default 1 s.
    pub silence_limit: Nanos,
    /// How long requests wait for a path; `None` if they fail at once or wait for ever.
    /// Default 600 s.
    pub hold: Option<Nanos>,
    /// Between heartbeats of a member.
    pub heartbeat: Option<Nanos>,
    /// Without heartbeats before a member is suspect.
    pub suspect: Option<Nanos>,
    /// How long a member may serve after a renewal.
    pub lease: Option<Nanos>,
    /// Between renewals of a lease.
    pub renew: Option<Nanos>,
}

impl Default for Times {
    /// The defaults of a device that belongs to no failover set.
    fn default() -> Self {
        Self {
            canary_deadline: CANARY_DEADLINE,
            read_deadline: READ_DEADLINE,
            write_deadline: WRITE_DEADLINE,
            quiesce: QUIESCE,
            user_timeout: USER_TIMEOUT,
            silence_limit: SILENCE_CEILING,
            hold: Some(NO_PATH_HOLD),
            heartbeat: None,
            suspect: None,
            lease: None,
            renew: None,
        }
    }
}

/// Two times that do not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The rule as an operator reads it.
    pub rule: &'static str,
    /// What must be the smaller.
    pub smaller: &'static str,
    /// Its value in nanoseconds.
    pub smaller_ns: Nanos,
    /// What must be the larger.
    pub larger: &'static str,
    /// Its value in nanoseconds.
    pub larger_ns: Nanos,
}

/// Every rule the times break; empty when they nest. Rules about times that are not
/// given are not applied.
pub fn violations(times: &Times) -> Vec<Violation> {
    let canary = ("canary deadline", times.canary_deadline);
    let read = ("read deadline", times.read_deadline);
    let write = ("write deadline", times.write_deadline);
    let quiesce = ("quiesce", times.quiesce);
    let silence = ("silence limit", times.silence_limit);
    let user_timeout = ("TCP user timeout", times.user_timeout);
    let heartbeats =
        times.heartbeat.map(|time| ("heartbeat x 3", time.saturating_mul(HEARTBEATS_PER_SUSPECT)));
    let suspect = times.suspect.map(|time| ("suspect", time));
    let spare = times.lease.zip(times.renew).map(|(lease, renew)| lease.saturating_sub(renew));
    let spare = spare.map(|time| ("lease - renew", time));
    let hold = times.hold.map(|time| ("hold", time));
    [
        at_most("canary deadline <= read deadline", Some(canary), Some(read)),
        below("write deadline < quiesce", Some(write), Some(quiesce)),
        below("silence limit < TCP user timeout", Some(silence), Some(user_timeout)),
        below("write deadline < hold", Some(write), hold),
        at_most("heartbeat x 3 <= suspect", heartbeats, suspect),
        below("suspect < lease - renew", suspect, spare),
    ]
    .into_iter()
    .flatten()
    .collect()
}

type Named = Option<(&'static str, Nanos)>;

fn below(rule: &'static str, smaller: Named, larger: Named) -> Option<Violation> {
    unless(|smaller, larger| smaller < larger, rule, smaller, larger)
}

fn at_most(rule: &'static str, smaller: Named, larger: Named) -> Option<Violation> {
    unless(|smaller, larger| smaller <= larger, rule, smaller, larger)
}

fn unless(
    holds: impl Fn(Nanos, Nanos) -> bool,
    rule: &'static str,
    smaller: Named,
    larger: Named,
) -> Option<Violation> {
    let ((smaller, smaller_ns), (larger, larger_ns)) = smaller.zip(larger)?;
    (!holds(smaller_ns, larger_ns)).then_some(Violation { rule, smaller, smaller_ns, larger, larger_ns })
}
