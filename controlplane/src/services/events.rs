// SPDX-License-Identifier: MIT OR Apache-2.0
//! The last events of this node, numbered, for `holdfast events` and the API.
//!
//! Numbers begin at 1 with every run of the node and never skip, so a reader
//! that asks "after N" knows what it missed. What is older than the ring is
//! gone from here; it was logged.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use program::{Report, ReportKind};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::clock;
use crate::explain::DecisionDocument;
use crate::limits::EVENTS_KEPT_MAX;
use crate::log::{self, Field, Level};

/// One event.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Number within this run of the node, from 1.
    pub seq: u64,
    /// Wall-clock time, RFC 3339.
    pub time: String,
    /// Engine time in nanoseconds, 0 for events of the control plane.
    pub at_ns: u64,
    /// Stable name, e.g. `path_state`, `cache_unproven`, `reloaded`.
    pub name: String,
    /// Device concerned.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub device: Option<String>,
    /// Path concerned.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub path: Option<String>,
    /// State before, for `path_state`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub from: Option<String>,
    /// State after, for `path_state`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub to: Option<String>,
    /// Access state after, for `path_state`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub access: Option<String>,
    /// Rule that decided it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rule: Option<String>,
    /// What happened, for an operator.
    pub text: String,
    /// The figures of a `decision`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub decision: Option<Box<DecisionDocument>>,
}

/// Name of the events that tell of a decision alone.
pub const DECISION: &str = "decision";

/// Some events, as the API hands them out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventPage {
    /// Changes with every start of the node: numbers begin again then.
    pub run: String,
    /// In order.
    pub events: Vec<Event>,
    /// Ask for events after this number next.
    pub next: u64,
    /// Events between the number asked for and the first one here that are no longer kept.
    pub missed: u64,
}

/// The ring of events.
#[derive(Debug)]
pub(crate) struct Events {
    run: String,
    ring: Mutex<Ring>,
    last: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Ring {
    kept: VecDeque<Event>,
    last: u64,
}

impl Events {
    pub(crate) fn new(run: String) -> Self {
        Self { run, ring: Mutex::default(), last: watch::Sender::new(0) }
    }

    /// Numbers and keeps an event.
    pub(crate) fn add(&self, mut event: Event) {
        event.time = clock::now_text();
        let mut ring = self.lock();
        ring.last += 1;
        event.seq = ring.last;
        if ring.kept.len() == EVENTS_KEPT_MAX {
            ring.kept.pop_front();
        }
        ring.kept.push_back(event);
        let last = ring.last;
        drop(ring);
        self.last.send_replace(last);
    }

    /// Name of this run.
    pub(crate) fn run(&self) -> &str {
        &self.run
    }

    /// Number of the last event.
    pub(crate) fn last(&self) -> u64 {
        self.lock().last
    }

    /// Up to `limit` events after number `after`. A number of an earlier run,
    /// beyond the last event, starts from the beginning.
    pub(crate) fn page(&self, after: u64, limit: usize) -> EventPage {
        let ring = self.lock();
        let after = if after > ring.last { 0 } else { after };
        let first = ring.last - ring.kept.len() as u64;
        let skip = after.saturating_sub(first) as usize;
        let events: Vec<Event> = ring.kept.iter().skip(skip).take(limit).cloned().collect();
        let next = events.last().map_or(after.max(first), |event| event.seq);
        EventPage { run: self.run.clone(), events, next, missed: first.saturating_sub(after) }
    }

    /// As [`Events::page`], but waits up to `wait` for the first event.
    pub(crate) async fn page_when_there(&self, after: u64, limit: usize, wait: Duration) -> EventPage {
        let mut last = self.last.subscribe();
        let arrived = last.wait_for(|last| *last != after);
        // On time-out the page is empty, which is an answer; the sender lives as long as `self`.
        let _ = tokio::time::timeout(wait, arrived).await;
        self.page(after, limit)
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        // The ring is whole whenever a statement can panic.
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Event {
    /// An event of the control plane.
    pub(crate) fn own(name: &str, text: impl Into<String>) -> Self {
        Self { name: name.to_owned(), text: text.into(), ..Self::default() }
    }

    /// The event that tells of a report, and how much it matters.
    pub(crate) fn of_report(report: &Report) -> (Level, Self) {
        let device = Some(report.device.clone());
        let base = Self { at_ns: report.at, device, ..Self::default() };
        match &report.kind {
            ReportKind::PathState { path, from, to, access, rule, reason } => {
                use program::PathState::{Drained, Probation, Standby, Up};
                // A node that stops takes its paths down on purpose.
                let good = matches!(to, Up | Standby | Probation | Drained) || *rule == "stop";
                let event = Self {
                    name: "path_state".to_owned(),
                    path: Some(path.clone()),
                    from: Some(from.as_str().to_owned()),
                    to: Some(to.as_str().to_owned()),
                    access: Some(access.as_str().to_owned()),
                    rule: Some((*rule).to_owned()),
                    text: reason.clone(),
                    ..base
                };
                (if good { Level::Info } else { Level::Warning }, event)
            }
            ReportKind::Geometry(geometry) => {
                let text = format!(
                    "{} bytes, blocks of {} to {} bytes, flags {:#06x}",
                    geometry.size_bytes,
                    geometry.min_block_bytes,
                    geometry.max_payload_bytes,
                    geometry.transmission_flags
                );
                (Level::Info, Self { name: "geometry".to_owned(), text, ..base })
            }
            ReportKind::Samples(samples) => {
                let text = match samples.len() {
                    0 => "hosts have written over every content sample; new ones are read".to_owned(),
                    count => format!("{count} content samples identify the volume"),
                };
                (Level::Info, Self { name: "samples".to_owned(), text, ..base })
            }
            ReportKind::Clean => {
                let text = "nothing that was sent is in doubt; the next start need not wait";
                (Level::Info, Self { name: "clean".to_owned(), text: text.to_owned(), ..base })
            }
            ReportKind::Loss(loss) => {
                let text = match loss {
                    Some(_) => {
                        "the loss is kept in the state directory: FLUSH and FUA fail after a restart too"
                    }
                    None => "the loss is taken out of the state directory",
                };
                (Level::Info, Self { name: "loss_noted".to_owned(), text: text.to_owned(), ..base })
            }
            ReportKind::Decision(decision) => {
                let (path, rule) = (decision.path.clone(), Some(decision.rule.to_owned()));
                let document = DecisionDocument::new(decision, report.at);
                let text = document.sentence();
                let decision = Some(Box::new(document));
                (Level::Info, Self { name: DECISION.to_owned(), path, rule, text, decision, ..base })
            }
            ReportKind::Event { name, path, rule, text } => {
                let (path, rule) = (path.clone(), Some((*rule).to_owned()));
                let name = (*name).to_owned();
                (Level::Warning, Self { name, path, rule, text: text.clone(), ..base })
            }
        }
    }

    /// Writes the event to the log.
    ///
    /// Decisions are not logged: what they led to is, with its reason, and `explain` has them.
    pub(crate) fn log(&self, level: Level) {
        if self.decision.is_some() {
            return;
        }
        let message = self.change().map_or_else(|| self.name.clone(), |change| format!("path {change}"));
        let fields = [
            ("device", self.device.as_deref()),
            ("path", self.path.as_deref()),
            ("access", self.access.as_deref()),
            ("rule", self.rule.as_deref().filter(|rule| !rule.is_empty())),
            ("reason", Some(self.text.as_str()).filter(|text| !text.is_empty())),
        ];
        let present = fields.into_iter().filter_map(|(name, value)| Some((name, value?)));
        let fields: Vec<Field<'_>> = present.collect();
        log::log(level, &message, &fields);
    }

    /// What a change of state changed: the state or, where that stays, the access.
    fn change(&self) -> Option<String> {
        match (&self.from, &self.to, &self.access) {
            (Some(from), Some(to), Some(access)) if from == to => Some(format!("{to}, now {access}")),
            (Some(from), Some(to), _) => Some(format!("{from} -> {to}")),
            _ => None,
        }
    }

    /// The event as one line without its time, e.g. `path_state vol0/a up -> down (W16): no ACK for 412 ms`.
    pub fn summary(&self) -> String {
        let place = match (&self.device, &self.path) {
            (Some(device), Some(path)) => format!(" {device}/{path}"),
            (Some(device), None) => format!(" {device}"),
            (None, _) => String::new(),
        };
        let change = self.change().map(|change| format!(" {change}")).unwrap_or_default();
        let rule = self.rule.as_deref().filter(|rule| !rule.is_empty());
        let rule = rule.map(|rule| format!(" ({rule})")).unwrap_or_default();
        let text = if self.text.is_empty() { String::new() } else { format!(": {}", self.text) };
        let out = format!("{}{place}{change}{rule}{text}", self.name);
        log::one_line(&out)
    }
}

/// Logs a report, for a data plane that runs without a control plane.
pub fn log_report(report: &Report) {
    let (level, event) = Event::of_report(report);
    event.log(level);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(count: u64) -> Events {
        let events = Events::new("run".to_owned());
        for n in 1..=count {
            events.add(Event::own("test", n.to_string()));
        }
        events
    }

    fn numbers(page: &EventPage) -> Vec<u64> {
        page.events.iter().map(|event| event.seq).collect()
    }

    #[test]
    fn pages_follow_each_other() {
        let events = filled(5);
        let page = events.page(0, 2);
        assert_eq!((numbers(&page), page.next, page.missed), (vec![1, 2], 2, 0));
        let page = events.page(page.next, 100);
        assert_eq!((numbers(&page), page.next), (vec![3, 4, 5], 5));
        let page = events.page(5, 100);
        assert_eq!((numbers(&page), page.next), (vec![], 5));
        // A number of an earlier run.
        assert_eq!(numbers(&events.page(77, 1)), [1]);
    }

    #[test]
    fn a_change_of_access_alone_is_told_as_one() {
        let event = |from: &str, to: &str| Event {
            from: Some(from.to_owned()),
            to: Some(to.to_owned()),
            access: Some("optimized".to_owned()),
            ..Event::own("path_state", "")
        };
        assert_eq!(event("down", "up").summary(), "path_state down -> up");
        assert_eq!(event("probation", "probation").summary(), "path_state probation, now optimized");
    }

    #[test]
    fn the_ring_is_bounded_and_says_what_is_gone() {
        let events = filled(EVENTS_KEPT_MAX as u64 + 3);
        let page = events.page(1, 1);
        assert_eq!((numbers(&page), page.missed), (vec![4], 2));
        assert_eq!(events.page(0, usize::MAX).events.len(), EVENTS_KEPT_MAX);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_reader_waits_for_the_next_event() {
        let events = std::sync::Arc::new(filled(1));
        let reader = std::sync::Arc::clone(&events);
        let waiting =
            tokio::spawn(async move { reader.page_when_there(1, 10, Duration::from_mins(1)).await });
        tokio::task::yield_now().await;
        events.add(Event::own("test", "2"));
        assert_eq!(numbers(&waiting.await.expect("no panic")), [2]);
        // Nothing comes: an empty page.
        assert!(events.page_when_there(2, 10, Duration::ZERO).await.events.is_empty());
    }
}
