// SPDX-License-Identifier: MIT OR Apache-2.0
//! What other settings would have done with the decision points of a run, live or from a file.
//!
//! Every engine that starts gets a new shadow ([`policies::shadow`]): our process knows nothing of what an
//! earlier one measured, and neither may its shadow. A setting that is not proposed is the one
//! that runs, and follows its reloads.

use std::fmt;
use std::str::FromStr;

use engine::DecisionPoint;
use policies::selector::Kind;
use policies::shadow::{Proposal, Shadow, Tally};
use program::Nanos;

use crate::record::Origin;

/// What the argument may be.
const ALLOWED: &str = "allowed are selector=round-robin, queue-depth, service-time or latency, and hedge=SHARE \
     of the reads that may be sent twice, 0 (off) to 0.5; both with a comma between them";
const KINDS: [(&str, Kind); 4] = [
    ("round-robin", Kind::RoundRobin),
    ("queue-depth", Kind::QueueDepth),
    ("service-time", Kind::ServiceTime),
    ("latency", Kind::Latency),
];
const MILLION: f64 = 1e6;

/// Settings to try. What is `None` stays as it runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Proposed {
    /// Selector.
    pub kind: Option<Kind>,
    /// Budget of hedged reads, in parts per million.
    pub hedge_ppm: Option<u32>,
}

impl Proposed {
    fn over(self, running: Proposal) -> Proposal {
        Proposal {
            kind: self.kind.unwrap_or(running.kind),
            hedge_ppm: self.hedge_ppm.unwrap_or(running.hedge_ppm),
            ..running
        }
    }
}

impl FromStr for Proposed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut proposed = Self::default();
        for setting in text.split(',') {
            let Some((name, value)) = setting.split_once('=') else {
                return Err(format!("{setting:?} is no setting with a value; {ALLOWED}"));
            };
            let twice = match name {
                "selector" => proposed.kind.replace(kind(value)?).is_some(),
                "hedge" => proposed.hedge_ppm.replace(hedge_ppm(value)?).is_some(),
                _ => return Err(format!("a shadow has no setting {name:?}; {ALLOWED}")),
            };
            if twice {
                return Err(format!("{name} is set twice; {ALLOWED}"));
            }
        }
        Ok(proposed)
    }
}

fn kind(value: &str) -> Result<Kind, String> {
    let found = KINDS.iter().find(|(name, _)| *name == value);
    found.map(|&(_, kind)| kind).ok_or_else(|| format!("there is no selector {value:?}; {ALLOWED}"))
}

fn hedge_ppm(value: &str) -> Result<u32, String> {
    let share = value.parse().ok().filter(|share| (0.0..=0.5).contains(share));
    let share: f64 = share.ok_or_else(|| format!("{value:?} is no share; {ALLOWED}"))?;
    Ok((share * MILLION).round() as u32)
}

impl fmt::Display for Proposed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = KINDS.iter().find(|(_, kind)| Some(*kind) == self.kind);
        let kind = kind.map(|(name, _)| format!("selector={name}"));
        let hedge = self.hedge_ppm.map(|ppm| format!("hedge={}", f64::from(ppm) / MILLION));
        let all: Vec<String> = kind.into_iter().chain(hedge).collect();
        f.write_str(if all.is_empty() { "the settings that run" } else { "" })?;
        f.write_str(&all.join(","))
    }
}

/// Sums over devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Devices that were fed.
    pub devices: u64,
    /// Of them, those that did not hedge for a while and whose shadow might have.
    pub blind: u64,
    /// Decision points that were lost.
    pub dropped: u64,
    /// What the shadows say.
    pub tally: Tally,
}

/// Runs shadows beside devices, one after the other.
#[derive(Debug)]
pub struct Judge {
    proposed: Proposed,
    origin: Option<Origin>,
    shadow: Option<Shadow>,
    blind: bool,
    sums: Sums,
}

impl Judge {
    /// Nothing was fed yet.
    pub fn new(proposed: Proposed) -> Self {
        Self { proposed, origin: None, shadow: None, blind: false, sums: Sums::default() }
    }

    /// Feeds all that a device recorded.
    pub fn feed_all(&mut self, origin: Origin, points: &[(Nanos, DecisionPoint)]) {
        for (at, point) in points {
            self.feed(origin, *at, point);
        }
    }

    /// Feeds one point. Those of one device follow each other, and begin with its start.
    ///
    /// # Panics
    ///
    /// If the first point is not [`DecisionPoint::Started`].
    pub fn feed(&mut self, origin: Origin, at: Nanos, point: &DecisionPoint) {
        if self.origin != Some(origin) {
            self.end_device();
            self.origin = Some(origin);
            self.sums.devices += 1;
        }
        match *point {
            DecisionPoint::Started { settings, paths, dropped } => {
                self.end_shadow();
                self.sums.dropped += dropped;
                self.shadow = Some(Shadow::new(self.running(settings), paths));
            }
            DecisionPoint::Settings(settings) => {
                let proposal = self.running(settings);
                self.shadow().set_proposal(proposal);
            }
            _ => drop(self.shadow().on(at, point)),
        }
    }

    /// The sums over all that was fed.
    pub fn end(mut self) -> Sums {
        self.end_device();
        self.sums
    }

    fn running(&mut self, settings: Proposal) -> Proposal {
        let proposal = self.proposed.over(settings);
        self.blind |= settings.hedge_ppm == 0 && proposal.hedge_ppm > 0;
        proposal
    }

    fn shadow(&mut self) -> &mut Shadow {
        self.shadow.as_mut().unwrap_or_else(|| panic!("a record begins with its start"))
    }

    fn end_shadow(&mut self) {
        self.sums.tally += self.shadow.take().map_or_else(Tally::default, |shadow| shadow.tally());
    }

    fn end_device(&mut self) {
        self.end_shadow();
        self.sums.blind += u64::from(std::mem::take(&mut self.blind));
    }
}

/// A proposal and what came of it, in words.
#[derive(Clone, Copy, Debug)]
pub struct Told(pub Proposed, pub Sums);

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(proposed, Sums { devices, blind, dropped, tally }) = *self;
        let share = 100.0 * tally.choices_differ as f64 / tally.choices_open.max(1) as f64;
        writeln!(f, "shadow with {proposed}, beside {}:", counted(devices, "device"))?;
        writeln!(
            f,
            "  paths: {} sent, {} of them with a choice; {} of these ({share:.1} %) would differ",
            counted(tally.choices, "request"),
            tally.choices_open,
            tally.choices_differ
        )?;
        tell_gain(f, &tally)?;
        writeln!(
            f,
            "  late reads: {} looked at, {} would differ; second copies: {} sent, {} by the shadow",
            tally.late_reads, tally.late_reads_differ, tally.hedges, tally.hedges_shadow
        )?;
        write!(
            f,
            "  failing paths: {}; slow paths: {}",
            counted(tally.hold_outs, "hold-out"),
            counted(tally.demotions, "demotion")
        )?;
        if blind > 0 {
            let devices = counted(blind, "device");
            write!(
                f,
                "\n  not known: {devices} did not hedge, at least for a time: which reads were late there was not looked at"
            )?;
        }
        if dropped > 0 {
            let points = counted(dropped, "decision point");
            write!(
                f,
                "\n  incomplete: {points} dropped for want of room; a shadow that starts later may differ until it has seen as much"
            )?;
        }
        Ok(())
    }
}

fn tell_gain(f: &mut fmt::Formatter<'_>, tally: &Tally) -> fmt::Result {
    if tally.choices_estimated == 0 {
        return writeln!(f, "  estimated gain: none");
    }
    let gain_ns = tally.estimated_gain_ns as f64;
    let each_us = gain_ns / 1e3 / tally.choices_estimated as f64;
    let known = counted(tally.choices_estimated, "choice");
    writeln!(
        f,
        "  estimated gain: {:.3} ms in all, {each_us:.1} us for each of {known} with known times",
        gain_ns / 1e6
    )?;
    writeln!(
        f,
        "    (negative: longer waits; from the expected times of the moment, nobody measured the other path)"
    )
}

fn counted(n: u64, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}
