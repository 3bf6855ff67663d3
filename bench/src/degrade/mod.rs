// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a failing path costs the others: throughput beside it, as ratios within one round.
//!
//! | part | what is wrong with one of two paths | compared with |
//! |---|---|---|
//! | `dying` | it is reset, killed or goes silent | the other path alone |
//! | `slow` | each of its reads takes 30 ms more | `round-robin` without hedged reads, and the fast path alone |
//! | `flapping` | it is up for 2 s and down for 1 s | the same device with that path out |
//!
//! `stall` says how long a host waits at the moment of a fault; this says what it has left from then on.

mod dying;
mod flapper;
mod flapping;
mod host;
mod markdown;
mod options;
mod rig;
mod sample;
mod slow;
mod windows;

use serde::Serialize;

pub use dying::DyingRow;
pub use flapping::FlappingRow;
pub use options::{DegradeOptions, Kind, Medium};
pub use sample::Sample;
pub use slow::SlowRow;

use crate::compare::summary::Goal;
use crate::machine::Machine;
use crate::peers::PeerError;
use crate::place::Place;
use crate::silence;

/// Everything that came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// Where it was measured.
    pub machine: Machine,
    /// What was wanted and could not be measured, in words.
    pub skipped: Vec<String>,
    /// A path dies.
    pub dying: Vec<DyingRow>,
    /// A path is slow.
    pub slow: Vec<SlowRow>,
    /// A path flaps.
    pub flapping: Option<FlappingRow>,
    /// Goals.
    pub goals: Vec<Goal>,
    /// All samples.
    pub samples: Vec<Sample>,
}

/// A measurement under way.
struct Bench<'a> {
    options: &'a DegradeOptions,
    place: Place,
    progress: &'a mut dyn FnMut(&Sample),
    samples: Vec<Sample>,
}

impl Bench<'_> {
    fn take(&mut self, sample: Sample) {
        (self.progress)(&sample);
        self.samples.push(sample);
    }
}

/// Measures.
///
/// # Errors
///
/// Something did not start or died. What the hosts saw is in the samples.
pub fn run(options: &DegradeOptions, progress: &mut dyn FnMut(&Sample)) -> Result<Outcome, PeerError> {
    let place = match options.storage {
        Medium::Memory => Place::in_memory(&options.place)?,
        Medium::File => Place::new(&options.place)?,
    };
    let mut bench = Bench { options, place, progress, samples: Vec::new() };
    let mut kinds = options.kinds.clone();
    let skipped = prepare_silence(&mut kinds)?;
    let deaths: Vec<Kind> = kinds.iter().copied().filter(|kind| kind.is_death()).collect();
    if !deaths.is_empty() {
        dying::measure(&mut bench, &deaths)?;
    }
    if kinds.contains(&Kind::Slow) {
        slow::measure(&mut bench)?;
    }
    if kinds.contains(&Kind::Flapping) {
        flapping::measure(&mut bench)?;
    }
    let Bench { place, samples, .. } = bench;
    let (dying, slow, flapping) =
        (dying::rows(&samples, &deaths), slow::rows(&samples), flapping::row(&samples));
    let mut goals = dying::goals(&dying);
    goals.extend(slow::goals(&slow));
    goals.extend(flapping.iter().flat_map(flapping::goals));
    Ok(Outcome { machine: place.machine, skipped, dying, slow, flapping, goals, samples })
}

/// Enters the namespace that silence needs; takes silence out, and says so, where this user may not.
fn prepare_silence(kinds: &mut Vec<Kind>) -> Result<Vec<String>, PeerError> {
    if !kinds.contains(&Kind::Silence) {
        return Ok(Vec::new());
    }
    if silence::is_allowed() {
        silence::enter_namespace()?;
        return Ok(Vec::new());
    }
    kinds.retain(|kind| *kind != Kind::Silence);
    Ok(vec!["silence, which needs root for a network namespace of its own".to_owned()])
}

impl Outcome {
    /// No host saw an error, and each got answers.
    pub fn is_clean(&self) -> bool {
        self.samples.iter().all(|sample| sample.errors == 0 && sample.rate() > 0.0)
    }

    /// All goals that were measured.
    pub fn is_met(&self) -> bool {
        self.goals.iter().all(|goal| goal.met)
    }

    /// As Markdown.
    pub fn markdown(&self) -> String {
        markdown::render(self)
    }
}
