// SPDX-License-Identifier: MIT OR Apache-2.0
//! Why it was decided so: what is kept of each decision, and for how long.
//!
//! **Model.** An operator who asks "why is this path out" wants five things: what was decided,
//! by which rule, on which figures against which limits, what else was considered and why
//! not, and what would change it. A log line has the first two. A [`Decision`] has all of them, as
//! named numbers with units; the text is made when somebody asks, never when it is recorded,
//! so recording costs a copy of some 400 bytes and no formatting.
//!
//! **Bounded, and fair.** Each path keeps its last 16 decisions and the device its last 64, apart: a
//! path that flaps pushes out its own history, not that of the others. The same decision by the
//! same rule again (and nothing else of that subject in between) is counted on the entry
//! that stands, with its latest figures: thousands of equal lines say less than one with a
//! count.
//!
//! Memory grows to the bound as decisions come; after that nothing is allocated.

use alloc::vec::Vec;
use core::fmt;

use crate::Nanos;
use crate::limits::{
    EXPLAIN_DEVICE_KEPT, EXPLAIN_FIGURES_MAX, EXPLAIN_PATH_KEPT, EXPLAIN_REFUSED_MAX, FULL_SHARE_PPM,
    MICROSECOND, MILLISECOND, SECOND,
};

/// What a decision is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// The device as a whole.
    Device,
    /// The path with this index.
    Path(usize),
}

/// Unit of a figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A number of things.
    Count,
    /// A time in nanoseconds; shown in the largest fitting unit.
    Nanoseconds,
    /// A size in bytes.
    Bytes,
    /// A part in millionths; shown in percent.
    Ppm,
}

/// What a figure was compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// It was only looked at.
    Informs,
    /// The rule asks for this or more.
    AtLeast(u64),
    /// The rule asks for more than this.
    Above(u64),
    /// The rule asks for less than this.
    Below(u64),
    /// The rule asks for this or less.
    AtMost(u64),
}

/// One input of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figure {
    /// As an operator reads it, e.g. `without an ACK`.
    pub name: &'static str,
    /// What was measured.
    pub value: u64,
    /// Of value and limit.
    pub unit: Unit,
    /// What it was compared with.
    pub limit: Limit,
}

/// What was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// E.g. `hold it out`.
    pub alternative: &'static str,
    /// E.g. `it is the last usable path`.
    pub because: &'static str,
}

/// One decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// When it was first made.
    pub at: Nanos,
    /// When it was last made again.
    pub last_at: Nanos,
    /// How often it was made, 1 or more.
    pub times: u32,
    /// What about.
    pub subject: Subject,
    /// What was decided, e.g. `suspect`.
    pub what: &'static str,
    /// Rule number or name, e.g. `W16`.
    pub rule: &'static str,
    figures: [Figure; EXPLAIN_FIGURES_MAX],
    figures_len: u8,
    refused: [Refused; EXPLAIN_REFUSED_MAX],
    refused_len: u8,
    /// What would change it, e.g. `a reply on the connection`.
    pub until: &'static str,
    /// Tag of the request that showed it; 0 = none in particular.
    pub request: u64,
}

impl Decision {
    /// Something was decided by a rule; figures and the rest are added to it.
    #[must_use]
    pub const fn new(at: Nanos, subject: Subject, what: &'static str, rule: &'static str) -> Self {
        const FIGURE: Figure = Figure { name: "", value: 0, unit: Unit::Count, limit: Limit::Informs };
        const REFUSED: Refused = Refused { alternative: "", because: "" };
        Self {
            at,
            last_at: at,
            times: 1,
            subject,
            what,
            rule,
            figures: [FIGURE; EXPLAIN_FIGURES_MAX],
            figures_len: 0,
            refused: [REFUSED; EXPLAIN_REFUSED_MAX],
            refused_len: 0,
            until: "",
            request: 0,
        }
    }

    /// Adds an input.
    ///
    /// # Panics
    ///
    /// If there are 4 already: a rule with more is two rules.
    #[must_use]
    pub const fn figure(mut self, name: &'static str, value: u64, unit: Unit, limit: Limit) -> Self {
        self.figures[self.figures_len as usize] = Figure { name, value, unit, limit };
        self.figures_len += 1;
        self
    }

    /// Adds a number of things.
    ///
    /// # Panics
    ///
    /// As [`Decision::figure`].
    #[must_use]
    pub const fn count(self, name: &'static str, value: u64, limit: Limit) -> Self {
        self.figure(name, value, Unit::Count, limit)
    }

    /// Adds a time in nanoseconds.
    ///
    /// # Panics
    ///
    /// As [`Decision::figure`].
    #[must_use]
    pub const fn time(self, name: &'static str, value: Nanos, limit: Limit) -> Self {
        self.figure(name, value, Unit::Nanoseconds, limit)
    }

    /// Adds a size in bytes.
    ///
    /// # Panics
    ///
    /// As [`Decision::figure`].
    #[must_use]
    pub const fn bytes(self, name: &'static str, value: u64, limit: Limit) -> Self {
        self.figure(name, value, Unit::Bytes, limit)
    }

    /// Adds what was not done and why.
    ///
    /// # Panics
    ///
    /// If there are 3 already.
    #[must_use]
    pub const fn refused(mut self, alternative: &'static str, because: &'static str) -> Self {
        self.refused[self.refused_len as usize] = Refused { alternative, because };
        self.refused_len += 1;
        self
    }

    /// Says what would change it.
    #[must_use]
    pub const fn until(mut self, until: &'static str) -> Self {
        self.until = until;
        self
    }

    /// Names the request that showed it.
    #[must_use]
    pub const fn request(mut self, tag: u64) -> Self {
        self.request = tag;
        self
    }

    /// Its inputs.
    pub fn figures(&self) -> &[Figure] {
        &self.figures[..usize::from(self.figures_len)]
    }

    /// What was not done.
    pub fn alternatives(&self) -> &[Refused] {
        &self.refused[..usize::from(self.refused_len)]
    }

    fn is_again(&self, earlier: &Self) -> bool {
        self.subject == earlier.subject && self.what == earlier.what && self.rule == earlier.rule
    }
}

/// `suspect by W16: without an ACK 412 ms (at least 408 ms); not: close it (...); until: ...`
impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} by {}", self.what, self.rule)?;
        if self.times > 1 {
            write!(f, ", {} times", self.times)?;
        }
        let mut lead = ": ";
        for figure in self.figures() {
            write!(f, "{lead}{figure}")?;
            lead = ", ";
        }
        for Refused { alternative, because } in self.alternatives() {
            write!(f, "; not: {alternative} ({because})")?;
        }
        if !self.until.is_empty() {
            write!(f, "; until: {}", self.until)?;
        }
        Ok(())
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |value| Shown { value, unit: self.unit };
        write!(f, "{} {}", self.name, shown(self.value))?;
        match self.limit {
            Limit::Informs => Ok(()),
            Limit::AtLeast(limit) => write!(f, " (at least {})", shown(limit)),
            Limit::Above(limit) => write!(f, " (above {})", shown(limit)),
            Limit::Below(limit) => write!(f, " (below {})", shown(limit)),
            Limit::AtMost(limit) => write!(f, " (at most {})", shown(limit)),
        }
    }
}

/// A value with its unit, cut to one decimal and never rounded up.
#[derive(Clone, Copy, Debug)]
pub struct Shown {
    /// In `unit`.
    pub value: u64,
    /// Of it.
    pub unit: Unit,
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { value, unit } = *self;
        // One decimal, cut and not rounded: a figure below its limit is never shown as equal to it.
        let tenths = |f: &mut fmt::Formatter<'_>, of: u64, name| match (value / of, value % of * 10 / of) {
            (whole, 0) => write!(f, "{whole} {name}"),
            (whole, tenth) => write!(f, "{whole}.{tenth} {name}"),
        };
        match unit {
            Unit::Count => write!(f, "{value}"),
            Unit::Bytes => write!(f, "{value} bytes"),
            Unit::Ppm => tenths(f, u64::from(FULL_SHARE_PPM) / 100, "%"),
            Unit::Nanoseconds if value >= SECOND => tenths(f, SECOND, "s"),
            Unit::Nanoseconds if value >= MILLISECOND => tenths(f, MILLISECOND, "ms"),
            Unit::Nanoseconds if value >= MICROSECOND => tenths(f, MICROSECOND, "us"),
            Unit::Nanoseconds => write!(f, "{value} ns"),
        }
    }
}

/// The last decisions about one device and its paths.
#[derive(Clone, Debug, Default)]
pub struct Explain {
    device: Ring,
    paths: Vec<Ring>,
}

#[derive(Clone, Debug, Default)]
struct Ring {
    kept: Vec<Decision>,
    /// Where the next one goes once the ring is full; the oldest stands there.
    next: usize,
}

impl Explain {
    /// Nothing was decided yet.
    pub fn new(paths: usize) -> Self {
        Self { device: Ring::default(), paths: alloc::vec![Ring::default(); paths] }
    }

    /// The device has so many paths now; decisions about the ones beyond are dropped.
    pub fn set_paths(&mut self, paths: usize) {
        self.paths.resize(paths, Ring::default());
    }

    /// The path is gone; what is kept of it goes too.
    ///
    /// # Panics
    ///
    /// If there is no such path.
    pub fn forget_path(&mut self, path: usize) {
        self.paths[path] = Ring::default();
    }

    /// Keeps a decision. Whether it is new, and not the last one about its subject once more:
    /// what an event is sent for.
    ///
    /// # Panics
    ///
    /// If there is no such path.
    pub fn record(&mut self, decision: Decision) -> bool {
        match decision.subject {
            Subject::Device => self.device.record(&decision, EXPLAIN_DEVICE_KEPT),
            Subject::Path(path) => self.paths[path].record(&decision, EXPLAIN_PATH_KEPT),
        }
    }

    /// What is kept about a subject, oldest first.
    pub fn of(&self, subject: Subject) -> impl DoubleEndedIterator<Item = &Decision> {
        let ring = match subject {
            Subject::Device => &self.device,
            Subject::Path(path) => &self.paths[path],
        };
        let (newer, older) = ring.kept.split_at(ring.next.min(ring.kept.len()));
        older.iter().chain(newer)
    }

    /// The last decision about a subject.
    pub fn last(&self, subject: Subject) -> Option<&Decision> {
        self.of(subject).next_back()
    }
}

impl Ring {
    fn record(&mut self, decision: &Decision, kept_max: usize) -> bool {
        let len = self.kept.len();
        let newest = if self.next > 0 { self.next - 1 } else { len.saturating_sub(1) };
        if let Some(last) = self.kept.get_mut(newest).filter(|last| decision.is_again(last)) {
            let (at, times) = (last.at, last.times.saturating_add(1));
            *last = Decision { at, last_at: decision.at, times, ..*decision };
            return false;
        }
        if len < kept_max {
            self.kept.push(*decision);
        } else {
            self.kept[self.next] = *decision;
            self.next = (self.next + 1) % kept_max;
        }
        true
    }
}
