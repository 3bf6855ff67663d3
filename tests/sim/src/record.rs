// SPDX-License-Identifier: MIT OR Apache-2.0
//! Decision points as lines of a file, so that a shadow can run on them later.
//!
//! One point is one line of JSON, with the seed and the device it is of; the points of one device
//! stand together and begin with `started`:
//!
//! ```text
//! {"seed":1,"device":0,"at":1000000000,"point":{"started":{"settings":{"kind":"latency",...},"paths":2,"dropped":0}}}
//! {"seed":1,"device":0,"at":1004200000,"point":{"answered":{"path":0,"write":false,"len_bytes":4096,"service_ns":211000}}}
//! ```
//!
//! A line that cannot be what an engine recorded is refused with its number: a shadow that went on
//! behind it would tell figures of something else.

use std::fmt;
use std::io::{self, BufRead, Write};

use engine::DecisionPoint;
use policies::Candidate;
use policies::hedge::PendingRead;
use policies::limits::SELECTOR_CANDIDATES_MAX;
use policies::selector::Kind;
use policies::shadow::Proposal;
use program::Nanos;
use serde::{Deserialize, Serialize};

/// Decision points of one device, in the order of time.
pub type Points = Vec<(Nanos, DecisionPoint)>;

/// Times in a file are below this (36 years), so that sums of them are times too.
const AT_MAX: Nanos = 1 << 60;
/// More paths than any device had, removed ones included.
const PATHS_MAX: usize = 4096;

/// Where a point was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The run.
    pub seed: u64,
    /// The device in it.
    pub device: u16,
}

/// Why a file is no record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damaged {
    /// From 1.
    pub line: u64,
    /// What is wrong.
    pub text: String,
}

impl fmt::Display for Damaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.text)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    seed: u64,
    device: u16,
    at: Nanos,
    #[serde(with = "PointForm")]
    point: DecisionPoint,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "DecisionPoint", rename_all = "kebab-case", deny_unknown_fields)]
enum PointForm {
    Started {
        #[serde(with = "SettingsForm")]
        settings: Proposal,
        paths: usize,
        dropped: u64,
    },
    Settings(#[serde(with = "SettingsForm")] Proposal),
    Paths {
        paths: usize,
    },
    Chosen {
        len_bytes: u64,
        first_read: bool,
        #[serde(with = "candidates")]
        candidates: Vec<Candidate>,
        chosen: usize,
    },
    Answered {
        path: usize,
        write: bool,
        len_bytes: u64,
        service_ns: u64,
    },
    Canary {
        path: usize,
        service_ns: u64,
    },
    Compared {
        in_good_standing: Vec<bool>,
        groups: Vec<u32>,
    },
    Late {
        #[serde(with = "ReadForm")]
        read: PendingRead,
        hedged: bool,
    },
    Failed {
        path: usize,
    },
    Forgiven {
        path: usize,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Proposal", deny_unknown_fields)]
struct SettingsForm {
    #[serde(with = "KindForm")]
    kind: Kind,
    hedge_ppm: u32,
    burst: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Kind", rename_all = "kebab-case")]
enum KindForm {
    RoundRobin,
    QueueDepth,
    ServiceTime,
    Latency,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "PendingRead", deny_unknown_fields)]
struct ReadForm {
    len_bytes: u64,
    age: Nanos,
    one_at_a_time: bool,
    other_paths: u32,
    recovering: bool,
    median_ns: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Candidate", deny_unknown_fields)]
struct CandidateForm {
    in_flight: u32,
    in_flight_bytes: u64,
    weight: u32,
    expected_ns: u64,
    last_used: Nanos,
    share_ppm: u32,
}

mod candidates {
    use serde::{Deserializer, Serializer};

    use super::{Candidate, CandidateForm, Deserialize, Serialize};

    #[derive(Serialize, Deserialize)]
    struct One(#[serde(with = "CandidateForm")] Candidate);

    pub(super) fn serialize<S: Serializer>(all: &[Candidate], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(all.iter().map(|&candidate| One(candidate)))
    }

    pub(super) fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<Vec<Candidate>, D::Error> {
        let all = Vec::<One>::deserialize(from)?;
        Ok(all.into_iter().map(|One(candidate)| candidate).collect())
    }
}

/// Writes the points of one device.
pub fn write(to: &mut impl Write, origin: Origin, points: Points) -> io::Result<()> {
    let Origin { seed, device } = origin;
    for (at, point) in points {
        serde_json::to_writer(&mut *to, &Line { seed, device, at, point })?;
        to.write_all(b"\n")?;
    }
    Ok(())
}

/// Reads what [`write()`] has written, point by point.
pub fn read(
    mut from: impl BufRead,
    mut each: impl FnMut(Origin, Nanos, &DecisionPoint),
) -> Result<(), Damaged> {
    let mut sense = Sense::default();
    let mut text = Vec::new();
    for line in 1.. {
        text.clear();
        let damaged = |text: String| Damaged { line, text };
        let len = from.read_until(b'\n', &mut text).map_err(|error| damaged(error.to_string()))?;
        if len == 0 {
            let empty = || damaged("there is no decision point in it".into());
            return if line == 1 { Err(empty()) } else { Ok(()) };
        }
        let parsed = serde_json::from_slice(&text).map_err(|error| damaged(not_a_point(&error)))?;
        let Line { seed, device, at, point } = parsed;
        let origin = Origin { seed, device };
        sense.check(origin, at, &point).map_err(damaged)?;
        each(origin, at, &point);
    }
    Ok(())
}

/// The reader counts lines within what it was given, which is one line.
fn not_a_point(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let what = text.split(" at line ").next().unwrap_or(&text);
    format!("this is no decision point: {what} (column {})", error.column())
}

/// What a point must agree with.
#[derive(Default)]
struct Sense {
    origin: Option<Origin>,
    at: Nanos,
    paths: usize,
}

impl Sense {
    fn check(&mut self, origin: Origin, at: Nanos, point: &DecisionPoint) -> Result<(), String> {
        if self.origin != Some(origin) {
            if !matches!(point, DecisionPoint::Started { .. }) {
                return Err("the record of a device begins with `started`".into());
            }
            (self.origin, self.at) = (Some(origin), 0);
        }
        if at < self.at || at >= AT_MAX {
            return Err(format!("the time {at} does not follow {}", self.at));
        }
        self.at = at;
        self.check_paths(point)?;
        match point {
            DecisionPoint::Chosen { candidates, chosen, .. } => check_choice(candidates, *chosen),
            DecisionPoint::Answered { service_ns, .. } | DecisionPoint::Canary { service_ns, .. }
                if *service_ns > at =>
            {
                Err(format!("it took {service_ns} ns and was answered at {at}"))
            }
            _ => Ok(()),
        }
    }

    fn check_paths(&mut self, point: &DecisionPoint) -> Result<(), String> {
        let has = self.paths;
        match *point {
            DecisionPoint::Started { paths, .. } | DecisionPoint::Paths { paths } => {
                self.paths = paths;
                if paths > PATHS_MAX { Err(format!("a device with {paths} paths")) } else { Ok(()) }
            }
            DecisionPoint::Answered { path, .. }
            | DecisionPoint::Canary { path, .. }
            | DecisionPoint::Failed { path }
            | DecisionPoint::Forgiven { path }
                if path >= has =>
            {
                Err(format!("path {path} of a device with {has}"))
            }
            DecisionPoint::Compared { ref in_good_standing, ref groups }
                if in_good_standing.len() != has || groups.len() != has =>
            {
                let (paths, grouped) = (in_good_standing.len(), groups.len());
                Err(format!(
                    "{paths} paths, {grouped} of them in groups, are compared of a device with {has}"
                ))
            }
            _ => Ok(()),
        }
    }
}

fn check_choice(candidates: &[Candidate], chosen: usize) -> Result<(), String> {
    if chosen >= candidates.len().min(SELECTOR_CANDIDATES_MAX) {
        return Err(format!("candidate {chosen} of {} was chosen", candidates.len()));
    }
    if candidates.iter().any(|candidate| candidate.weight == 0) {
        return Err("a candidate has no weight".into());
    }
    Ok(())
}
