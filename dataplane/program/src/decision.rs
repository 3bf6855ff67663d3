// SPDX-License-Identifier: MIT OR Apache-2.0
//! Why a device and its paths are as they are: decisions, as `holdfast explain` shows them.
//!
//! A [`Decision`] carries what was decided, the rule, the figures with the limits they were
//! compared with, what was refused and what would change it. Names are those of the engine's
//! source, so nothing is formatted before somebody reads it.

use alloc::string::String;
use alloc::vec::Vec;

use crate::{Access, BudgetStatus, DeviceState, Nanos, PathState};

/// Unit of a figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FigureUnit {
    /// A number of things.
    Count,
    /// A time in nanoseconds.
    Nanoseconds,
    /// A size in bytes.
    Bytes,
    /// A part in millionths.
    Ppm,
}

/// How a figure was compared; the limit stands beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// The rule asks for the limit or more.
    AtLeast,
    /// The rule asks for more than the limit.
    Above,
    /// The rule asks for less than the limit.
    Below,
    /// The rule asks for the limit or less.
    AtMost,
}

/// One input of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figure {
    /// As an operator reads it, e.g. `without an ACK`.
    pub name: &'static str,
    /// What was measured, in `unit`.
    pub value: u64,
    /// Of value and limit.
    pub unit: FigureUnit,
    /// What it was compared with, in `unit`; `None`: it was only looked at.
    pub limit: Option<(Comparison, u64)>,
}

/// What was considered and not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// E.g. `hold it out`.
    pub alternative: &'static str,
    /// E.g. `it is the last usable path`.
    pub because: &'static str,
}

/// One decision about a device or a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// When it was first made, in engine time.
    pub at: Nanos,
    /// When it was made last.
    pub last_at: Nanos,
    /// How often it was made with nothing else of that subject in between, 1 or more; the
    /// figures are the latest.
    pub times: u32,
    /// Path it is about; `None` = the device as a whole.
    pub path: Option<String>,
    /// What was decided, e.g. `suspect`.
    pub what: &'static str,
    /// Rule number or name, e.g. `W16`.
    pub rule: &'static str,
    /// At most 4.
    pub figures: Vec<Figure>,
    /// At most 3.
    pub refused: Vec<Refused>,
    /// What would change it; empty if nothing would.
    pub until: &'static str,
    /// Tag of the request that showed it; 0 = none in particular.
    pub request: u64,
}

/// Why a device is as it is.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceExplanation {
    /// Export name.
    pub name: String,
    /// Engine time of the snapshot; times of decisions are to be read against it.
    pub now: Nanos,
    /// State of the device.
    pub state: DeviceState,
    /// Why it is in that state now: the figures of this moment.
    pub present: Decision,
    /// What failures cost its hosts since the device was made.
    pub budget: BudgetStatus,
    /// The last decisions about the device as a whole, oldest first.
    pub decisions: Vec<Decision>,
    /// Paths in configuration order.
    pub paths: Vec<PathExplanation>,
}

/// Why a path is as it is.
#[derive(Clone, Debug, PartialEq)]
pub struct PathExplanation {
    /// Path name.
    pub name: String,
    /// State.
    pub state: PathState,
    /// Access state.
    pub access: Access,
    /// What was last seen of it, for an operator; empty when up.
    pub reason: String,
    /// Why it is in that state now: the figures of this moment.
    pub present: Decision,
    /// The last decisions about it, oldest first.
    pub decisions: Vec<Decision>,
}
