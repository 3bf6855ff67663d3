// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the data plane tells the control plane, unasked.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use crate::{Access, Decision, Geometry, Nanos, PathState};

/// One thing that changed, with the rule that decided it.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// When, in engine time.
    pub at: Nanos,
    /// Device name.
    pub device: String,
    /// What.
    pub kind: ReportKind,
}

/// Kinds of reports.
#[derive(Clone, Debug, PartialEq)]
pub enum ReportKind {
    /// A path changed state.
    PathState {
        /// Path name.
        path: String,
        /// Before.
        from: PathState,
        /// After.
        to: PathState,
        /// Access state after.
        access: Access,
        /// Rule number or name, e.g. `W16`.
        rule: &'static str,
        /// What was seen, with figures, for an operator.
        reason: String,
    },
    /// The device's geometry is known for the first time or has grown; to be recorded.
    Geometry(Geometry),
    /// The device has finished and nothing that it sent is in doubt: the next process need not wait (rule W10).
    Clean,
    /// Acknowledged writes are lost for good, and why (rule F9): to be recorded, for the next process must go on telling
    /// it. `None`: an operator has taken note.
    Loss(Option<String>),
    /// Content samples that identify the volume; to be recorded.
    Samples(Vec<(u64, u128)>),
    /// Something was decided that was not the last decision about its subject already.
    Decision(Box<Decision>),
    /// Anything else an operator should see; `name` is stable, e.g. `cache_unproven`.
    Event {
        /// Stable name for filters and alerts.
        name: &'static str,
        /// Path it concerns, if one.
        path: Option<String>,
        /// Rule number.
        rule: &'static str,
        /// Text for an operator.
        text: String,
    },
}
