// SPDX-License-Identifier: MIT OR Apache-2.0
//! `holdfast explain`: why a device and its paths are as they are, for people.
//!
//! Written for whoever was woken up by it: first how things stand, what was seen and what
//! would change it; then how it came to this, newest first. The rule in force names the page
//! that explains it.

use controlplane::api::BudgetDocument;
use controlplane::explain::{DecisionDocument, ExplainDocument, FigureDocument, PathExplainDocument};
use serde_json::Value;

use crate::ask::parse;
use crate::cli::ExplainArgs;
use crate::client::{Client, segment};
use crate::failure::Failure;
use crate::output;
use crate::table::{self, clean};

/// `holdfast explain`.
pub(crate) fn explain(arguments: &ExplainArgs) -> Result<(), Failure> {
    let client = Client::new(arguments.api.api.as_ref())?;
    let mut device = arguments.device.as_str();
    let mut path = arguments.path.as_deref();
    let whole = client.get(&format!("/v1/devices/{}/explain", segment(device)));
    // A device may have a slash in its name, so DEVICE/PATH is what is tried second.
    let body = match (whole, device.rsplit_once('/')) {
        (Ok(body), _) => body,
        (Err(_), Some((before, after))) if path.is_none() => {
            (device, path) = (before, Some(after));
            client.get(&format!("/v1/devices/{}/explain", segment(before)))?
        }
        (Err(failure), _) => return Err(failure),
    };
    let body = match path {
        Some(path) => {
            client.get(&format!("/v1/devices/{}/paths/{}/explain", segment(device), segment(path)))?
        }
        None => body,
    };
    let text = if arguments.json {
        format!("{:#}\n", parse::<Value>(&body)?)
    } else if path.is_some() {
        path_text(device, &parse::<PathExplainDocument>(&body)?, arguments.last)
    } else {
        device_text(&parse::<ExplainDocument>(&body)?, arguments.last)
    };
    output::print(&text);
    Ok(())
}

fn device_text(document: &ExplainDocument, last: usize) -> String {
    let name = clean(&document.name);
    let mut out = headline(&format!("device {name}"), &document.state, &document.present);
    out += &present(&document.present, "");
    out += &costs(&document.budget);
    out += &history(&document.decisions, last);
    for path in &document.paths {
        out.push('\n');
        out += &path_text(&document.name, path, last);
    }
    out
}

/// What failures cost so far, by whose they were.
fn costs(budget: &BudgetDocument) -> String {
    let told = budget.causes.iter().filter_map(|cause| {
        let cost = table::budget(cause, budget.bound_ms)?;
        let whose = match (&cause.path, cause.rule.as_str()) {
            (Some(path), rule) => format!("path {} ({rule})", clean(path)),
            (None, "storage") => "slow storage, nothing failed".to_owned(),
            (None, "start") => "start of the node".to_owned(),
            (None, rule) => format!("no single path ({rule})"),
        };
        Some(line("cost", &format!("{whose}: {cost}")))
    });
    told.collect()
}

fn path_text(device: &str, path: &PathExplainDocument, last: usize) -> String {
    let place = format!("path {}/{}", clean(device), clean(&path.name));
    let mut out = headline(&place, &path.state, &path.present);
    out += &present(&path.present, &clean(&path.reason));
    out += &history(&path.decisions, last);
    out
}

fn headline(place: &str, state: &str, present: &DecisionDocument) -> String {
    format!("{place}  {}: {}\n", state.to_uppercase(), present.what)
}

/// How it stands. `reason`: what was last seen, in words.
fn present(decision: &DecisionDocument, reason: &str) -> String {
    let mut out = String::new();
    if !reason.is_empty() {
        out += &line("seen", reason);
    }
    if !decision.rule.is_empty() {
        let rule = clean(&decision.rule);
        out += &match page(&rule) {
            Some((about, file)) => line("rule", &format!("{rule}, {about}: docs/{file}")),
            None => line("rule", &rule),
        };
    }
    out += &details(decision, "now");
    out
}

/// Figures, refused alternatives, and what would change it.
fn details(decision: &DecisionDocument, figures: &str) -> String {
    let mut out = String::new();
    let shown: Vec<String> = decision.figures.iter().map(FigureDocument::sentence).collect();
    if !shown.is_empty() {
        out += &line(figures, &shown.join(", "));
    }
    for refused in &decision.refused {
        out += &line("not", &format!("{}: {}", refused.alternative, refused.because));
    }
    if !decision.until.is_empty() {
        out += &line("until", &decision.until);
    }
    out
}

/// What a rule is about and where it is written down: `docs/policies/NAME.md`, `docs/NAME.md`.
fn page(rule: &str) -> Option<(&'static str, &'static str)> {
    Some(match rule {
        "W1" | "2.3" => ("old connections and what may still come of them", "fault-model.md"),
        "W4" | "W5" | "W13" => ("writes in doubt", "fault-model.md"),
        "2.4" => ("sessions ended by a gate", "gate.md"),
        "W10" => ("after a stop that was not clean", "fault-model.md"),
        "F2" | "F6" | "F9" => ("caches and FLUSH", "fault-model.md"),
        "W7" | "W14" => ("what an error means", "policies/faults.md"),
        "W15" => ("age of a request or canary", "policies/deadline.md"),
        "W16" => ("silent link or slow server", "policies/silence.md"),
        "W18" | "W20" => ("one path at a time", "fault-model.md"),
        "3.3" => ("what a server must offer", "nbd-support.md"),
        "3.4" => ("which group of paths is used", "policies/group.md"),
        "3.5" => ("when a path is connected again", "policies/backoff.md"),
        "3.7" => ("no path at all", "configuration.md"),
        "3.8" => ("is it the same device", "fault-model.md"),
        "hedge" | "W2" => ("late reads sent to a second path", "policies/hedge.md"),
        "failure-limit" => ("paths that fail often", "policies/failure_limit.md"),
        "marginal" => ("paths that spoil requests", "policies/marginal.md"),
        "slow" => ("paths slower than their siblings", "policies/slow.md"),
        "pacing" => ("how what was in flight is sent again", "policies/pacing.md"),
        "failback" => ("when a better group takes over", "policies/failback.md"),
        "probation" => ("how a path earns its share", "policies/probation.md"),
        "operator" => ("a command", "cli.md"),
        _ => return None,
    })
}

fn line(label: &str, text: &str) -> String {
    format!("  {label:<6} {text}\n")
}

/// The last decisions, newest first.
fn history(decisions: &[DecisionDocument], last: usize) -> String {
    let mut out: String = decisions.iter().rev().take(last).map(entry).collect();
    match decisions.len().saturating_sub(last) {
        0 => out,
        more => {
            let hint = format!("  ({more} older decisions: --last {})\n", decisions.len());
            out.push_str(&hint);
            out
        }
    }
}

fn entry(decision: &DecisionDocument) -> String {
    let times = match decision.times {
        0 | 1 => String::new(),
        times => format!(", {times} times since {} ago", age(decision.first_ago_ms)),
    };
    let rule = if decision.rule.is_empty() { String::new() } else { format!(" [{}]", decision.rule) };
    let head = format!("  {} ago  {}  {}{rule}{times}\n", age(decision.ago_ms), decision.time, decision.what);
    let details: Vec<String> = details(decision, "saw").lines().map(|line| format!("  {line}\n")).collect();
    head + &details.concat()
}

fn age(milliseconds: u64) -> String {
    match milliseconds {
        0..10_000 => format!("{}.{} s", milliseconds / 1000, milliseconds % 1000 / 100),
        10_000..120_000 => format!("{} s", milliseconds / 1000),
        120_000..7_200_000 => format!("{} min", milliseconds / 60_000),
        _ => format!("{} h", milliseconds / 3_600_000),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use controlplane::explain::{LimitDocument, RefusedDocument};

    fn decision(what: &str, ago_ms: u64) -> DecisionDocument {
        let limit =
            LimitDocument { shown: "at least 408 ms".to_owned(), holds: true, ..LimitDocument::default() };
        let figure = FigureDocument {
            name: "without an ACK".to_owned(),
            shown: "412 ms".to_owned(),
            limit: Some(limit),
            ..FigureDocument::default()
        };
        DecisionDocument {
            time: "2026-01-31T08:15:30.250Z".to_owned(),
            what: what.to_owned(),
            rule: "W16".to_owned(),
            ago_ms,
            first_ago_ms: ago_ms + 130_000,
            times: if ago_ms > 0 { 3 } else { 1 },
            figures: vec![figure],
            refused: vec![RefusedDocument {
                alternative: "close it".to_owned(),
                because: "a late reply is proof".to_owned(),
            }],
            until: "a reply".to_owned(),
            ..DecisionDocument::default()
        }
    }

    /// Rules as the engine names them: `W16`, `F9`, `3.4`.
    fn rules_of(directory: &std::path::Path, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                rules_of(&path, found);
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let quoted = text.split('"').skip(1).step_by(2);
            found.extend(quoted.filter(|word| is_numbered(word)).map(str::to_owned));
        }
    }

    fn is_numbered(word: &str) -> bool {
        let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        match word.split_once('.') {
            Some((section, point)) => number(section) && number(point),
            None => word.strip_prefix(['W', 'F']).is_some_and(number),
        }
    }

    #[test]
    fn every_rule_that_decides_has_a_page() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut rules = BTreeSet::new();
        rules_of(&root.join("dataplane/engine/src"), &mut rules);
        assert!(rules.len() > 15, "{rules:?}");
        let named =
            ["failback", "failure-limit", "hedge", "marginal", "operator", "pacing", "probation", "slow"];
        rules.extend(named.map(str::to_owned));
        for rule in rules {
            let (_, file) = page(&rule).unwrap_or_else(|| panic!("{rule} has no page"));
            assert!(root.join("docs").join(file).is_file(), "{rule}: {file} is not there");
        }
        assert_eq!(page("no such rule"), None);
    }

    #[test]
    fn the_text_says_how_it_stands_and_how_it_came_to_this() {
        let path = PathExplainDocument {
            name: "a".to_owned(),
            state: "down".to_owned(),
            reason: "the link is silent\x1b[2J".to_owned(),
            present: decision("suspect: the link is silent", 0),
            decisions: vec![decision("oldest", 90_000), decision("suspect", 9_400)],
            ..PathExplainDocument::default()
        };
        assert_eq!(
            path_text("vol0", &path, 1),
            "\
path vol0/a  DOWN: suspect: the link is silent
  seen   the link is silent\u{fffd}[2J
  rule   W16, silent link or slow server: docs/policies/silence.md
  now    without an ACK 412 ms (at least 408 ms)
  not    close it: a late reply is proof
  until  a reply
  9.4 s ago  2026-01-31T08:15:30.250Z  suspect [W16], 3 times since 2 min ago
    saw    without an ACK 412 ms (at least 408 ms)
    not    close it: a late reply is proof
    until  a reply
  (1 older decisions: --last 2)
"
        );
    }
}
