// SPDX-License-Identifier: MIT OR Apache-2.0
//! Why: decisions are kept where they are made, and read out when somebody asks.
//!
//! A part of the engine that decides something says so in one line, `self.decide_...()`, beside
//! the act itself. The functions here gather the figures the rule looked at, from
//! the state it looked at, and keep them in [`policies::explain`]: a bounded ring for the device
//! and one for each path. Nothing is formatted, and nothing here is on the way of a
//! request that goes well.
//!
//! | file | about |
//! |---|---|
//! | `lanes` | suspicion, giving up, reconnects, identity, probation, errors, commands |
//! | `writes` | copies in doubt, quarantines, gates, ghosts, caches, our own restart |
//! | `present` | not a decision: why things stand as they do now, worked out when asked |
//! | `steering` | a path's standing: held out, slow, marginal; portals, pacing |
//! | `group` | which paths carry I/O, failback, switches, the hold |
//!
//! A decision that is new (not the last one about its subject once more) is also reported, so
//! the event stream has what the rings have pushed out.

mod group;
mod lanes;
mod present;
mod steering;
mod writes;

use alloc::boxed::Box;
use alloc::vec::Vec;

use policies::explain::{Decision, Figure, Limit, Subject, Unit};
use program::{Comparison, DeviceExplanation, FigureUnit, Nanos, PathExplanation, ReportKind};

use crate::Action;
use crate::engine::Engine;
use crate::path::Admin;

pub(crate) use group::Grouping;
pub(crate) use steering::spared_text;

impl Engine {
    /// A decision about a path, made now; figures are added to it.
    pub(crate) fn on_path(&self, path: usize, what: &'static str, rule: &'static str) -> Decision {
        Decision::new(self.now, Subject::Path(path), what, rule)
    }

    /// A decision about the device as a whole, made now.
    pub(crate) fn on_device(&self, what: &'static str, rule: &'static str) -> Decision {
        Decision::new(self.now, Subject::Device, what, rule)
    }

    /// Keeps a decision, and reports it if it is new.
    pub(crate) fn decide(&mut self, decision: &Decision) {
        if self.explain.record(*decision) {
            let told = Box::new(self.told(decision));
            self.act(Action::Report(ReportKind::Decision(told)));
        }
    }

    /// Why the device and its paths are as they are. `now` must not be older than the last event.
    pub fn explain(&self, now: Nanos) -> DeviceExplanation {
        debug_assert!(now >= self.now, "a snapshot of the past");
        let of = |subject| self.explain.of(subject).map(|decision| self.told(decision)).collect();
        let standing = self.paths.iter().enumerate().filter(|(_, path)| path.admin != Admin::Removed);
        DeviceExplanation {
            name: self.program.name.clone(),
            now,
            state: self.device_state(),
            present: self.told(&self.device_now(now)),
            budget: self.budget_status(now),
            decisions: of(Subject::Device),
            paths: standing
                .map(|(index, path)| PathExplanation {
                    name: path.program.name.clone(),
                    state: path.state,
                    access: path.access,
                    reason: path.reason.clone(),
                    present: self.told(&self.path_now(index, now)),
                    decisions: of(Subject::Path(index)),
                })
                .collect(),
        }
    }

    /// In the words of the planes.
    fn told(&self, decision: &Decision) -> program::Decision {
        let path = match decision.subject {
            Subject::Device => None,
            Subject::Path(path) => Some(self.paths[path].program.name.clone()),
        };
        let refused = |it: &policies::explain::Refused| program::Refused {
            alternative: it.alternative,
            because: it.because,
        };
        program::Decision {
            at: decision.at,
            last_at: decision.last_at,
            times: decision.times,
            path,
            what: decision.what,
            rule: decision.rule,
            figures: decision.figures().iter().map(told_figure).collect::<Vec<_>>(),
            refused: decision.alternatives().iter().map(refused).collect(),
            until: decision.until,
            request: decision.request,
        }
    }
}

fn told_figure(figure: &Figure) -> program::Figure {
    program::Figure {
        name: figure.name,
        value: figure.value,
        unit: match figure.unit {
            Unit::Count => FigureUnit::Count,
            Unit::Nanoseconds => FigureUnit::Nanoseconds,
            Unit::Bytes => FigureUnit::Bytes,
            Unit::Ppm => FigureUnit::Ppm,
        },
        limit: match figure.limit {
            Limit::Informs => None,
            Limit::AtLeast(limit) => Some((Comparison::AtLeast, limit)),
            Limit::Above(limit) => Some((Comparison::Above, limit)),
            Limit::Below(limit) => Some((Comparison::Below, limit)),
            Limit::AtMost(limit) => Some((Comparison::AtMost, limit)),
        },
    }
}
