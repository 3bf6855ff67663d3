// SPDX-License-Identifier: MIT OR Apache-2.0
//! A record of decision points, for a shadow (`policies::shadow`).
//!
//! Kept where the engine asks a policy, with what the policy was given and what it answered, in the
//! order of asking: a shadow with the running settings that is fed a whole record decides the
//! same throughout.
//!
//! **Off unless asked for**, and then one branch for each decision and nothing else. What is on costs an
//! allocation for each request with a choice. **Bounded**: the oldest points make room for new ones
//! and are counted. What a reader must know of those that are gone (settings, number of paths)
//! stands in the [`DecisionPoint::Started`] that takes their place.

use alloc::boxed::Box;
use alloc::collections::VecDeque;

use nbd::Command;
pub use policies::shadow::DecisionPoint;
use policies::shadow::Proposal;
use program::{DeviceProgram, Nanos};

use crate::engine::{Engine, selector_kind};
use crate::slab::Key;

/// The points that are not read yet.
#[derive(Debug)]
pub(crate) struct Record {
    at_most: usize,
    points: VecDeque<(Nanos, DecisionPoint)>,
    /// As of the oldest point kept.
    settings: Proposal,
    paths: usize,
    since: Nanos,
    /// The start, or a gap, is to be told.
    starts: bool,
    dropped: u64,
}

impl Record {
    fn keep(&mut self, now: Nanos, point: DecisionPoint) {
        if self.points.len() == self.at_most {
            self.pop();
            self.dropped += 1;
            self.starts = true;
        }
        self.points.push_back((now, point));
    }

    fn pop(&mut self) -> Option<(Nanos, DecisionPoint)> {
        let (at, point) = self.points.pop_front()?;
        self.since = at;
        match point {
            DecisionPoint::Settings(settings) => self.settings = settings,
            DecisionPoint::Paths { paths } => self.paths = paths,
            _ => {}
        }
        Some((at, point))
    }

    fn next(&mut self) -> Option<(Nanos, DecisionPoint)> {
        if !core::mem::take(&mut self.starts) {
            return self.pop();
        }
        let dropped = core::mem::take(&mut self.dropped);
        let (settings, paths) = (self.settings, self.paths);
        Some((self.since, DecisionPoint::Started { settings, paths, dropped }))
    }
}

/// What a program sets of what a shadow may propose.
fn settings_of(program: &DeviceProgram) -> Proposal {
    Proposal {
        kind: selector_kind(program.selector),
        hedge_ppm: program.hedge_budget_ppm,
        burst: crate::hedge::burst(program),
    }
}

impl Engine {
    /// Records decision points from now on, of which at most so many are kept until they are read
    /// ([`Engine::next_recorded`]); 0 = none, and what was recorded is forgotten. A shadow that is to
    /// agree needs the record from the device's start.
    pub fn record_decisions(&mut self, at_most: usize) {
        self.record = (at_most > 0).then(|| {
            Box::new(Record {
                at_most,
                points: VecDeque::new(),
                settings: settings_of(&self.program),
                paths: self.paths.len(),
                since: self.now,
                starts: true,
                dropped: 0,
            })
        });
    }

    /// The oldest decision point that was not read yet, and when it was.
    pub fn next_recorded(&mut self) -> Option<(Nanos, DecisionPoint)> {
        self.record.as_mut()?.next()
    }

    /// A decision point; worked out only while a record is kept.
    #[inline]
    pub(crate) fn note(&mut self, point: impl FnOnce(&Self) -> DecisionPoint) {
        if self.record.is_some() {
            self.keep(point);
        }
    }

    /// Apart, so that nothing but the branch is on the way of a request.
    #[cold]
    #[inline(never)]
    fn keep(&mut self, point: impl FnOnce(&Self) -> DecisionPoint) {
        let point = point(self);
        if let Some(record) = &mut self.record {
            record.keep(self.now, point);
        }
    }

    /// A piece goes to one of the `candidates`.
    pub(crate) fn note_choice(&mut self, key: Key, chosen: usize) {
        self.note(|engine| {
            let piece = engine.pieces.get(key);
            let started = |request| engine.requests.get(request).started;
            DecisionPoint::Chosen {
                len_bytes: piece.len,
                first_read: piece.command == Command::Read
                    && piece.request.is_some_and(|request| !started(request)),
                candidates: engine.candidates.clone(),
                chosen,
            }
        });
    }

    /// The program has changed.
    pub(crate) fn note_settings(&mut self) {
        self.note(|engine| DecisionPoint::Settings(settings_of(&engine.program)));
    }
}
