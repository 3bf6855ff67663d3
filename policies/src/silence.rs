// SPDX-License-Identifier: MIT OR Apache-2.0
//! What TCP itself says about a lane that does not answer (rule W16).
//!
//! **Model.** "No reply" has three causes that need three treatments, and the kernel can
//! tell them apart. Bytes are out and no ACK comes: the *link* is silent. Nothing is out and
//! bytes wait to be sent: the peer's *window is closed*, its process does not read (stopped,
//! or overloaded). ACKs come: the peer's host lives and the server is *slow*. A timer
//! alone cannot separate a cut cable from a slow disk.
//!
//! The limit is max(200 ms, 2 x RTO), at most 1 s. The upper bound is there because the
//! kernel doubles the RTO at each retransmission, and the time that has passed stays below
//! twice the RTO most of the time: on a really cut link with an RTO of 204 ms the bare rule
//! spoke after 1.65 s instead of 0.41 s, and then took it back.
//!
//! **When to ask.** What waits may have been acknowledged just before the link was cut: only bytes that
//! leave after the cut owe an ACK, and if no host request follows these are a canary's. So the
//! first canary goes when the oldest request has taken twice what it should, and not when a
//! person would lose patience; on a lane that was asked within the canary interval the fixed time
//! applies, so that this adds one small read in a canary interval to what slow requests cost.
//!
//! The judgement is suspicion: it steers and hedges. It is no proof that anything is finished.

use crate::Nanos;
use crate::limits::{
    MICROSECOND, MILLISECOND, SILENCE_CEILING, SILENCE_FLOOR, SILENCE_PROBE_AFTER, SILENCE_PROBE_FACTOR,
    SILENCE_PROBE_MIN, SILENCE_RTO_FACTOR,
};

/// What the kernel knows of a lane's connection (TCP_INFO).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpEvidence {
    /// Segments sent and not acknowledged.
    pub unacked: u32,
    /// Bytes in the send queue that were never sent.
    pub notsent_bytes: u32,
    /// Milliseconds without an ACK *while one was owed*. The kernel counts from the last
    /// ACK even if nothing was sent since: see [`TcpEvidence::waiting_since`].
    pub last_ack_ms: u32,
    /// Retransmission time-out in microseconds, best before back-off
    /// (`tcpi_rto >> tcpi_backoff`).
    pub rto_us: u32,
}

impl TcpEvidence {
    /// Limits the ACK age to how long an ACK has been owed, in milliseconds: the age of the
    /// oldest bytes that were sent *after* the last ACK came.
    ///
    /// On a lane that was idle for a minute the last ACK is a minute old when the next
    /// request leaves; without this limit that request would prove silence at once. The age
    /// of the oldest unanswered request is too long a bound if that one was acknowledged and
    /// is merely slow.
    #[must_use]
    pub fn waiting_since(self, waiting_ms: u32) -> Self {
        Self { last_ack_ms: self.last_ack_ms.min(waiting_ms), ..self }
    }
}

/// Why a lane does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Silence {
    /// ACKs come, or none is owed yet: slow at most.
    Answering,
    /// Bytes are out and no ACK has come for the limit.
    LinkSilent,
    /// The peer accepts no more bytes: its process does not read. May be seen for a
    /// moment on a healthy lane, so look twice before acting on it.
    WindowClosed,
}

/// Time without a byte, in nanoseconds, after which a lane with requests out gets a canary.
/// `expected_ns`: what the oldest of them is expected to take ([`crate::Latency::expected_ns`]), 0 =
/// unknown. `asked_lately`: a canary went within the canary interval.
pub fn probe_after(expected_ns: Nanos, asked_lately: bool) -> Nanos {
    if expected_ns == 0 || asked_lately {
        return SILENCE_PROBE_AFTER;
    }
    expected_ns.saturating_mul(SILENCE_PROBE_FACTOR).clamp(SILENCE_PROBE_MIN, SILENCE_PROBE_AFTER)
}

/// Time without an ACK, in nanoseconds, that makes a link silent.
pub fn limit(rto_us: u32) -> Nanos {
    (u64::from(rto_us) * MICROSECOND * SILENCE_RTO_FACTOR).clamp(SILENCE_FLOOR, SILENCE_CEILING)
}

/// Time until these bytes make the link silent if no ACK comes, in nanoseconds: when it is
/// worth to look again. `None` where no ACK is owed.
pub fn silent_in(evidence: &TcpEvidence) -> Option<Nanos> {
    let without_ack = u64::from(evidence.last_ack_ms) * MILLISECOND;
    (evidence.unacked > 0).then(|| limit(evidence.rto_us).saturating_sub(without_ack))
}

/// Judges one sample.
pub fn judge(evidence: &TcpEvidence) -> Silence {
    if silent_in(evidence) == Some(0) {
        Silence::LinkSilent
    } else if evidence.unacked == 0 && evidence.notsent_bytes > 0 {
        Silence::WindowClosed
    } else {
        Silence::Answering
    }
}
