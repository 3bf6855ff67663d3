// SPDX-License-Identifier: MIT OR Apache-2.0
//! Why a device and its paths are as they are: the documents of `holdfast explain --json`.
//!
//! Decisions come up from the data plane as names and figures; [`policies::explain`] knows
//! how a figure is shown. Times are engine times; a document also gives the wall-clock time that
//! belongs to them by the clock of this moment. The names are a promise: fields are
//! added, never renamed or removed.

use std::time::Duration;

use policies::explain::{Shown, Unit};
use program::{Comparison, Decision, DeviceExplanation, Figure, FigureUnit, Nanos, PathExplanation};
use serde::{Deserialize, Serialize};

use crate::api::BudgetDocument;
use crate::clock;

/// `GET /v1/devices/{device}/explain`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExplainDocument {
    /// Export name.
    pub name: String,
    /// As in `status`.
    pub state: String,
    /// When this was asked, RFC 3339.
    pub time: String,
    /// Why it is in that state now.
    pub present: DecisionDocument,
    /// What failures cost its hosts, as in `status`.
    pub budget: BudgetDocument,
    /// The last decisions about the device as a whole, oldest first, at most 64.
    pub decisions: Vec<DecisionDocument>,
    /// Paths in the order of the configuration.
    pub paths: Vec<PathExplainDocument>,
}

/// One path of it; `GET /v1/devices/{device}/paths/{path}/explain`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PathExplainDocument {
    /// Its name.
    pub name: String,
    /// As in `status`.
    pub state: String,
    /// As in `status`.
    pub access: String,
    /// What was last seen of it; empty when up.
    pub reason: String,
    /// Why it is in that state now.
    pub present: DecisionDocument,
    /// The last decisions about it, oldest first, at most 16.
    pub decisions: Vec<DecisionDocument>,
}

/// One decision.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DecisionDocument {
    /// When it was made last, RFC 3339, by the clock of this moment.
    pub time: String,
    /// How long ago that was.
    pub ago_ms: u64,
    /// How long ago it was made for the first time in this row.
    pub first_ago_ms: u64,
    /// How often it was made in a row; figures are the latest.
    pub times: u32,
    /// What was decided.
    pub what: String,
    /// Rule number or name.
    pub rule: String,
    /// What the rule looked at.
    pub figures: Vec<FigureDocument>,
    /// What was considered and not done.
    pub refused: Vec<RefusedDocument>,
    /// What would change it; empty if nothing would.
    pub until: String,
    /// Tag of the request that showed it; 0 = none in particular.
    pub request: u64,
}

/// One input of a rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FigureDocument {
    /// What was measured.
    pub name: String,
    /// In `unit`.
    pub value: u64,
    /// `count`, `ns`, `bytes` or `ppm`.
    pub unit: String,
    /// For people, e.g. `412 ms`.
    pub shown: String,
    /// What it was compared with, if it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<LimitDocument>,
}

/// What a figure was compared with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LimitDocument {
    /// `at_least`, `above`, `below` or `at_most`.
    pub comparison: String,
    /// In the figure's unit.
    pub value: u64,
    /// For people, e.g. `at least 408 ms`.
    pub shown: String,
    /// Whether the figure fulfils it.
    pub holds: bool,
}

/// What was not done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RefusedDocument {
    /// What.
    pub alternative: String,
    /// Why not.
    pub because: String,
}

impl ExplainDocument {
    /// What the data plane told, read now.
    pub(crate) fn new(told: &DeviceExplanation) -> Self {
        Self {
            name: told.name.clone(),
            state: told.state.as_str().to_owned(),
            time: clock::now_text(),
            present: DecisionDocument::new(&told.present, told.now),
            budget: BudgetDocument::new(&told.budget),
            decisions: told.decisions.iter().map(|it| DecisionDocument::new(it, told.now)).collect(),
            paths: told.paths.iter().map(|path| PathExplainDocument::new(path, told.now)).collect(),
        }
    }
}

impl PathExplainDocument {
    fn new(told: &PathExplanation, now: Nanos) -> Self {
        Self {
            name: told.name.clone(),
            state: told.state.as_str().to_owned(),
            access: told.access.as_str().to_owned(),
            reason: told.reason.clone(),
            present: DecisionDocument::new(&told.present, now),
            decisions: told.decisions.iter().map(|it| DecisionDocument::new(it, now)).collect(),
        }
    }
}

impl DecisionDocument {
    /// `now`: the engine's time when it was read.
    pub(crate) fn new(decision: &Decision, now: Nanos) -> Self {
        let ago = |at: Nanos| Duration::from_nanos(now.saturating_sub(at));
        let milliseconds = |ago: Duration| u64::try_from(ago.as_millis()).unwrap_or(u64::MAX);
        Self {
            time: clock::text_ago(ago(decision.last_at)),
            ago_ms: milliseconds(ago(decision.last_at)),
            first_ago_ms: milliseconds(ago(decision.at)),
            times: decision.times,
            what: decision.what.to_owned(),
            rule: decision.rule.to_owned(),
            figures: decision.figures.iter().map(FigureDocument::new).collect(),
            refused: decision
                .refused
                .iter()
                .map(|it| RefusedDocument {
                    alternative: it.alternative.to_owned(),
                    because: it.because.to_owned(),
                })
                .collect(),
            until: decision.until.to_owned(),
            request: decision.request,
        }
    }

    /// In one line without the rule, e.g. `suspect: without an ACK 412 ms (at least 408 ms); not: ...; until: ...`.
    pub fn sentence(&self) -> String {
        let times = if self.times > 1 { format!(", {} times", self.times) } else { String::new() };
        let figures: Vec<String> = self.figures.iter().map(FigureDocument::sentence).collect();
        let figures = if figures.is_empty() { String::new() } else { format!(": {}", figures.join(", ")) };
        let refused: Vec<String> =
            self.refused.iter().map(|it| format!("; not: {} ({})", it.alternative, it.because)).collect();
        let refused = refused.concat();
        let until = if self.until.is_empty() { String::new() } else { format!("; until: {}", self.until) };
        format!("{}{times}{figures}{refused}{until}", self.what)
    }
}

impl FigureDocument {
    fn new(figure: &Figure) -> Self {
        let (unit, word) = match figure.unit {
            FigureUnit::Count => (Unit::Count, "count"),
            FigureUnit::Nanoseconds => (Unit::Nanoseconds, "ns"),
            FigureUnit::Bytes => (Unit::Bytes, "bytes"),
            FigureUnit::Ppm => (Unit::Ppm, "ppm"),
        };
        let show = |value| Shown { value, unit }.to_string();
        let limit = figure.limit.map(|(comparison, limit)| {
            let (word, said, holds) = match comparison {
                Comparison::AtLeast => ("at_least", "at least", figure.value >= limit),
                Comparison::Above => ("above", "above", figure.value > limit),
                Comparison::Below => ("below", "below", figure.value < limit),
                Comparison::AtMost => ("at_most", "at most", figure.value <= limit),
            };
            LimitDocument {
                comparison: word.to_owned(),
                value: limit,
                shown: format!("{said} {}", show(limit)),
                holds,
            }
        });
        Self {
            name: figure.name.to_owned(),
            value: figure.value,
            unit: word.to_owned(),
            shown: show(figure.value),
            limit,
        }
    }

    /// E.g. `without an ACK 412 ms (at least 408 ms)`, or `good canaries 1 (needs at least 3)`.
    pub fn sentence(&self) -> String {
        match &self.limit {
            None => format!("{} {}", self.name, self.shown),
            Some(limit) if limit.holds => format!("{} {} ({})", self.name, self.shown, limit.shown),
            Some(limit) => format!("{} {} (needs {})", self.name, self.shown, limit.shown),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use program::Refused;

    fn decision() -> Decision {
        let figure = |name, value, unit, limit| Figure { name, value, unit, limit };
        Decision {
            at: 1_000_000_000,
            last_at: 3_000_000_000,
            times: 4,
            path: Some("a".to_owned()),
            what: "suspect",
            rule: "W16",
            figures: vec![
                figure(
                    "without an ACK",
                    412_000_001,
                    FigureUnit::Nanoseconds,
                    Some((Comparison::AtLeast, 408_000_000)),
                ),
                figure("good canaries", 1, FigureUnit::Count, Some((Comparison::AtLeast, 3))),
                figure("share", 50_000, FigureUnit::Ppm, None),
            ],
            refused: vec![Refused { alternative: "close it", because: "its late reply is proof" }],
            until: "a reply",
            request: 7,
        }
    }

    #[test]
    fn a_decision_is_told_with_its_age_and_in_a_sentence() {
        let document = DecisionDocument::new(&decision(), 5_500_000_000);
        assert_eq!((document.ago_ms, document.first_ago_ms, document.times), (2_500, 4_500, 4));
        assert_eq!(
            document.sentence(),
            "suspect, 4 times: without an ACK 412 ms (at least 408 ms), good canaries 1 (needs at least 3), \
             share 5 %; not: close it (its late reply is proof); until: a reply"
        );
    }

    #[test]
    fn the_document_keeps_numbers_and_comparisons() {
        let document = DecisionDocument::new(&decision(), 3_000_000_000);
        let json = serde_json::to_value(&document).expect("plain data");
        assert_eq!(json["figures"][0]["value"], 412_000_001_u64);
        assert_eq!(json["figures"][0]["unit"], "ns");
        assert_eq!(json["figures"][0]["limit"]["comparison"], "at_least");
        assert_eq!(json["figures"][0]["limit"]["value"], 408_000_000_u64);
        assert_eq!(json["figures"][1]["limit"]["holds"], false);
        assert!(json["figures"][2].get("limit").is_none());
        assert_eq!(json["request"], 7);
        assert_eq!(serde_json::from_value::<DecisionDocument>(json).expect("the same"), document);
    }
}
