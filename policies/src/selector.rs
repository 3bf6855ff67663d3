// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which path of the group in use carries one request.
//!
//! **Model.** A kind is a cost. The cheapest candidates are the *tied* ones, and the
//! turns among those are dealt by smooth weighted round-robin. So `round-robin` is the
//! kind whose cost is always the same, and symmetric paths are used equally by every kind.
//!
//! | kind | cost |
//! |---|---|
//! | round-robin | 0 |
//! | queue-depth | requests in flight / weight |
//! | service-time | (bytes in flight + bytes of this request) / weight |
//! | latency | expected service time x (requests in flight + 1) / weight |
//!
//! **Latency: noise.** Expected times within 25 % of the fastest count as equal. Without
//! that, of two like paths the one that looked 1 % better would carry everything at depth 1
//! and the other would go stale.
//!
//! **Latency: winning back.** A path that looked slow gets no requests, hence no samples,
//! and would look slow for ever. So an idle path that was not used for 1 s gets one request;
//! if that lowered its expectation it gets the next at once, one at a time, until it stops
//! improving or competes on its own. One sample per second alone would need most of a minute
//! to pull an average from 30 ms to 100 us; trusting a single sample would let one lucky
//! reply bring a slow path back. At most one of 64 choices starts this, and a path rests 32 times
//! its expected time (up to a minute) in between, so that a host with one request at a time
//! loses at most 1/32 to it, however slow it is.
//!
//! **Latency: unknown.** A path whose service time for this size and direction is unknown
//! gets one request at once, and another only when it has answered as much as it was given
//! since. So it becomes known quickly, also while it is busy with requests of other sizes, and
//! if it hangs it holds one request.
//!
//! **Share.** A candidate with less than the largest share (a path on probation) is outside
//! the competition: it is taken for its share of the choices by a credit counter, and holds
//! at most that share of the requests in flight (or one), so that a path that hangs again
//! cannot collect the slots of the device.
//!
//! State is kept per index. When paths come or go, what was kept for another path is used
//! for at most a few choices; credits are clamped so that they cannot cause a burst.

use crate::Nanos;
use crate::latency::size_class;
use crate::limits::{
    FULL_SHARE_PPM, LATENCY_TIE_DIVISOR, RESAMPLE_AFTER, RESAMPLE_AFTER_MAX, RESAMPLE_CHOICES_MIN,
    RESAMPLE_COST_FACTOR, RESAMPLE_GAIN_DIVISOR, SELECTOR_CANDIDATES_MAX,
};

/// A path that may carry the request, as the engine sees it now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Requests sent on the path and not answered, without the FLUSHes that nothing waits for.
    pub in_flight: u32,
    /// Their payload bytes, both directions.
    pub in_flight_bytes: u64,
    /// Configured share relative to the others, at least 1.
    pub weight: u32,
    /// Expected service time of a request of this size class and direction, in
    /// nanoseconds ([`crate::Latency::expected_ns`]); 0 = unknown.
    pub expected_ns: u64,
    /// When the path was last given a request other than a FLUSH; 0 = never.
    pub last_used: Nanos,
    /// Part of the choices it may have, in parts per million: 1,000,000 = full,
    /// on probation 50,000 ([`crate::Probation::share_ppm`]).
    pub share_ppm: u32,
}

/// What makes a path the best choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// In turn, by weight.
    RoundRobin,
    /// Fewest requests in flight by weight.
    QueueDepth,
    /// Fewest bytes in flight by weight, this request's included.
    ServiceTime,
    /// Shortest expected wait. The default of a device.
    Latency,
}

/// A path as it was when it was last given a request to measure it. Cleared when it is
/// chosen for its cost.
#[derive(Clone, Copy, Debug)]
struct Sample {
    /// 0 = no re-sampling goes on.
    expected_ns: u64,
    size_class: usize,
    /// `u32::MAX` = no request to measure it is out.
    in_flight: u32,
}

/// Chooses the path of each request of one device.
#[derive(Clone, Debug)]
pub struct Selector {
    kind: Kind,
    /// Smooth round-robin: the highest has the next turn.
    turns: [i64; SELECTOR_CANDIDATES_MAX],
    /// Of candidates with a small share, in parts per million of one choice.
    credits: [u32; SELECTOR_CANDIDATES_MAX],
    samples: [Sample; SELECTOR_CANDIDATES_MAX],
    /// Choices since an idle path was re-sampled.
    choices_since_resample: u32,
}

impl Selector {
    /// A selector without history.
    pub const fn new(kind: Kind) -> Self {
        Self {
            kind,
            turns: [0; SELECTOR_CANDIDATES_MAX],
            credits: [0; SELECTOR_CANDIDATES_MAX],
            samples: [Sample::NONE; SELECTOR_CANDIDATES_MAX],
            choices_since_resample: RESAMPLE_CHOICES_MIN,
        }
    }

    /// Changes the kind from the next choice on.
    pub fn set_kind(&mut self, kind: Kind) {
        self.kind = kind;
    }

    /// Index of the candidate to use for a request of `len_bytes`.
    ///
    /// The order of candidates is that of the paths' ranks in their group; their number may
    /// change from call to call. Only the first 64 are looked at. Does not allocate.
    ///
    /// # Panics
    ///
    /// If there is no candidate or one has weight 0: both are the caller's bugs.
    pub fn choose(&mut self, now: Nanos, len_bytes: u64, candidates: &[Candidate]) -> usize {
        assert!(!candidates.is_empty(), "a choice needs a candidate");
        assert!(candidates.iter().all(|c| c.weight >= 1), "a weight is at least 1");
        let candidates = &candidates[..candidates.len().min(SELECTOR_CANDIDATES_MAX)];
        if candidates.len() == 1 {
            return 0;
        }
        let competing = competing(candidates);
        if let Some(index) = self.take_share(candidates, competing) {
            return index;
        }
        let chosen = if self.kind == Kind::Latency {
            if let Some(index) = self.take_sample(now, len_bytes, candidates, competing) {
                return index;
            }
            self.deal(candidates, quickest(candidates, competing))
        } else {
            let kind = self.kind;
            self.deal(candidates, cheapest(candidates, competing, |c| load(kind, len_bytes, c)))
        };
        self.samples[chosen] = Sample::NONE;
        chosen
    }

    /// Asserts what must hold between any two calls.
    pub fn check_invariants(&self) {
        let round_max = SELECTOR_CANDIDATES_MAX as i64 * i64::from(u32::MAX);
        assert!(self.turns.iter().all(|turn| turn.abs() <= 2 * round_max), "turns are bounded by rounds");
        assert!(self.credits.iter().all(|&credit| credit <= 2 * FULL_SHARE_PPM), "no burst of credit");
    }

    /// Gives a small-share candidate its due choice, if one has collected enough credit.
    fn take_share(&mut self, candidates: &[Candidate], competing: Set) -> Option<usize> {
        let limited = Set::all(candidates).without(competing);
        if limited.is_empty() {
            return None;
        }
        let in_flight: u64 = candidates.iter().map(|c| u64::from(c.in_flight)).sum();
        let mut due: Option<usize> = None;
        for index in limited.indices() {
            let Candidate { share_ppm, in_flight: own, .. } = candidates[index];
            // Two choices' worth at most: waiting for a turn keeps the rate, but makes no burst.
            let credit = self.credits[index].saturating_add(share_ppm).min(2 * FULL_SHARE_PPM);
            self.credits[index] = credit;
            let within_share = u64::from(own) * u64::from(FULL_SHARE_PPM) <= u64::from(share_ppm) * in_flight;
            if credit >= FULL_SHARE_PPM && within_share && due.is_none_or(|best| credit > self.credits[best])
            {
                due = Some(index);
            }
        }
        if let Some(index) = due {
            self.credits[index] -= FULL_SHARE_PPM;
        }
        due
    }

    /// Picks a path whose service time is unknown or out of date, if one may be tried now.
    fn take_sample(
        &mut self,
        now: Nanos,
        len_bytes: u64,
        candidates: &[Candidate],
        competing: Set,
    ) -> Option<usize> {
        let size_class = size_class(len_bytes);
        let unknown = competing.filter(|index| candidates[index].expected_ns == 0);
        if unknown == competing {
            // At the start: spread by requests in flight, which measures all of them.
            return None;
        }
        let may_be_tried = |&index: &usize| candidates[index].in_flight <= self.samples[index].in_flight;
        let unknown = unknown.indices().find(may_be_tried);
        let chosen = unknown.or_else(|| self.resample(now, size_class, candidates, competing))?;
        let Candidate { expected_ns, in_flight, .. } = candidates[chosen];
        self.samples[chosen] = Sample { expected_ns, size_class, in_flight };
        Some(chosen)
    }

    /// Picks an idle path that improves while it is measured, or that was not used for long.
    fn resample(
        &mut self,
        now: Nanos,
        size_class: usize,
        candidates: &[Candidate],
        competing: Set,
    ) -> Option<usize> {
        self.choices_since_resample = self.choices_since_resample.saturating_add(1);
        let idle = competing.filter(|index| candidates[index].in_flight == 0);
        let improving =
            idle.indices().find(|&index| self.samples[index].improved(size_class, &candidates[index]));
        if improving.is_some() || self.choices_since_resample < RESAMPLE_CHOICES_MIN {
            return improving;
        }
        let is_due = |&index: &usize| {
            let Candidate { expected_ns, last_used, .. } = candidates[index];
            let cost_ns = expected_ns.saturating_mul(RESAMPLE_COST_FACTOR);
            now.saturating_sub(last_used) >= cost_ns.clamp(RESAMPLE_AFTER, RESAMPLE_AFTER_MAX)
        };
        let stalest = idle.indices().filter(is_due).min_by_key(|&index| candidates[index].last_used)?;
        self.choices_since_resample = 0;
        Some(stalest)
    }

    /// Smooth weighted round-robin among the tied candidates: each gains its weight, the
    /// one with the most takes the turn and pays for all. Weights 5:1:1 give AABACAA, not
    /// AAAAABC.
    fn deal(&mut self, candidates: &[Candidate], tied: Set) -> usize {
        // What was kept for a path that left, or for other weights, is bounded by one round.
        let round: i64 = candidates.iter().map(|c| i64::from(c.weight)).sum();
        let mut pot = 0;
        let mut best: Option<usize> = None;
        for index in tied.indices() {
            let weight = i64::from(candidates[index].weight);
            pot += weight;
            self.turns[index] = self.turns[index].clamp(-round, round) + weight;
            if best.is_none_or(|best| self.turns[index] > self.turns[best]) {
                best = Some(index);
            }
        }
        let best = best.expect("the cheapest of at least one candidate exists");
        self.turns[best] -= pot;
        best
    }
}

impl Sample {
    const NONE: Self = Self { expected_ns: 0, size_class: 0, in_flight: u32::MAX };

    /// Whether the re-sampling request lowered the expectation enough to earn another.
    fn improved(&self, size_class: usize, candidate: &Candidate) -> bool {
        self.expected_ns != 0
            && self.size_class == size_class
            && candidate.expected_ns < self.expected_ns - self.expected_ns / RESAMPLE_GAIN_DIVISOR
    }
}

/// Candidates with the largest share: only they compete by cost.
fn competing(candidates: &[Candidate]) -> Set {
    let largest = candidates.iter().map(|c| c.share_ppm).max().unwrap_or(FULL_SHARE_PPM);
    Set::all(candidates).filter(|index| candidates[index].share_ppm == largest)
}

/// Cost by what is outstanding.
fn load(kind: Kind, len_bytes: u64, candidate: &Candidate) -> u64 {
    match kind {
        Kind::RoundRobin => 0,
        Kind::QueueDepth | Kind::Latency => by_weight(u64::from(candidate.in_flight), candidate.weight),
        Kind::ServiceTime => by_weight(candidate.in_flight_bytes.saturating_add(len_bytes), candidate.weight),
    }
}

/// The candidates with the shortest expected wait.
fn quickest(candidates: &[Candidate], competing: Set) -> Set {
    let measured = competing.filter(|index| candidates[index].expected_ns != 0);
    let Some(fastest_ns) = measured.indices().map(|index| candidates[index].expected_ns).min() else {
        // Nothing is known of any of them yet.
        return cheapest(candidates, competing, |c| load(Kind::Latency, 0, c));
    };
    let noise_ns = fastest_ns.saturating_add(fastest_ns / LATENCY_TIE_DIVISOR);
    cheapest(candidates, measured, |c| {
        let expected_ns = if c.expected_ns <= noise_ns { fastest_ns } else { c.expected_ns };
        by_weight(expected_ns.saturating_mul(u64::from(c.in_flight) + 1), c.weight)
    })
}

/// `amount / weight` with 16 binary places, so that small amounts keep their order.
fn by_weight(amount: u64, weight: u32) -> u64 {
    amount.saturating_mul(1 << 16) / u64::from(weight)
}

/// The members of `among` with the lowest cost.
fn cheapest(candidates: &[Candidate], among: Set, cost: impl Fn(&Candidate) -> u64) -> Set {
    let mut lowest = u64::MAX;
    let mut tied = Set(0);
    for index in among.indices() {
        let cost = cost(&candidates[index]);
        if cost < lowest {
            lowest = cost;
            tied = Set(0);
        }
        if cost == lowest {
            tied.0 |= 1 << index;
        }
    }
    tied
}

/// Indices of candidates, one bit each: a set without allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Set(u64);

impl Set {
    fn all(candidates: &[Candidate]) -> Self {
        assert!((1..=SELECTOR_CANDIDATES_MAX).contains(&candidates.len()));
        Self(u64::MAX >> (SELECTOR_CANDIDATES_MAX - candidates.len()))
    }

    fn is_empty(self) -> bool {
        self.0 == 0
    }

    fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    fn filter(self, keep: impl Fn(usize) -> bool) -> Self {
        self.indices().filter(|&index| keep(index)).fold(Self(0), |set, index| Self(set.0 | 1 << index))
    }

    fn indices(self) -> impl Iterator<Item = usize> {
        let mut rest = self.0;
        core::iter::from_fn(move || {
            let index = (rest != 0).then(|| rest.trailing_zeros() as usize)?;
            rest &= rest - 1;
            Some(index)
        })
    }
}
