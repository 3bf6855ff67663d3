// SPDX-License-Identifier: MIT OR Apache-2.0
//! `GET /v1/events/stream`: events as they come, as server-sent events.
//!
//! ```text
//! event: run      data: {"run": "...", "after": N}        first: which run of the node, and where it begins
//! event: missed   data: {"missed": N}                     N events were no longer kept when you were ready for them
//! event: event    id: RUN/SEQ    data: {an event}
//! : a comment every 5 s while nothing happens
//! ```
//!
//! Nothing is queued for a reader but one small page: what a slow one has not taken stays
//! in the ring of events, and what the ring has lost by then is counted and told. A
//! reader that comes back with the last id it saw (`Last-Event-ID`, as browsers do by
//! themselves, or `?after=SEQ&run=RUN`) goes on behind it; after a restart of the node it begins with
//! the first event of the new run.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event as Message, KeepAlive};
use axum::response::{IntoResponse, Response, Sse};
use futures_core::Stream;
use serde_json::json;

use super::answer::Refusal;
use crate::limits::{EVENT_STREAM_BEAT, EVENT_WAIT_MAX, EVENTS_PER_STREAM_MAX};
use crate::services::{EventPage, Node};

/// Where a reader wants to begin.
#[derive(Debug, Default, PartialEq, Eq)]
struct Place {
    /// Of this run; empty: of whatever runs.
    run: String,
    after: u64,
}

pub(crate) async fn events(
    State(node): State<Arc<Node>>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Response, Refusal> {
    let place = match headers.get("last-event-id").and_then(|id| Place::of_id(id.to_str().ok()?)) {
        Some(place) => place,
        None => Place::of_query(query.as_deref().unwrap_or_default())?,
    };
    let stream = EventStream::new(node, &place);
    let beat = KeepAlive::new().interval(EVENT_STREAM_BEAT);
    Ok(Sse::new(stream).keep_alive(beat).into_response())
}

impl Place {
    fn of_id(id: &str) -> Option<Self> {
        let (run, after) = id.rsplit_once('/')?;
        Some(Self { run: run.to_owned(), after: after.parse().ok()? })
    }

    fn of_query(query: &str) -> Result<Self, Refusal> {
        let mut place = Self::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            match (name, value.parse::<u64>()) {
                ("after", Ok(after)) => place.after = after,
                ("run", _) => value.clone_into(&mut place.run),
                _ => {
                    let hint = "parameters are after (a number) and run (as an answer named it)";
                    return Err(Refusal::new(StatusCode::BAD_REQUEST, "a parameter is not understood", hint));
                }
            }
        }
        Ok(place)
    }
}

type Page = Pin<Box<dyn Future<Output = EventPage> + Send>>;

/// See the module header.
struct EventStream {
    node: Arc<Node>,
    ready: VecDeque<Message>,
    after: u64,
    next: Option<Page>,
}

impl EventStream {
    fn new(node: Arc<Node>, place: &Place) -> Self {
        let run = node.run().to_owned();
        let same = place.run.is_empty() || place.run == run;
        let after = if same && place.after <= node.last_event() { place.after } else { 0 };
        let hello = message("run", &json!({ "run": run, "after": after }));
        Self { node, ready: VecDeque::from([hello]), after, next: None }
    }

    fn take(&mut self, page: &EventPage) {
        if page.missed > 0 {
            self.ready.push_back(message("missed", &json!({ "missed": page.missed })));
        }
        for event in &page.events {
            let id = format!("{}/{}", page.run, event.seq);
            let event = message("event", &serde_json::to_value(event).unwrap_or_default());
            self.ready.push_back(event.id(id));
        }
        self.after = page.next;
    }
}

fn message(kind: &str, data: &serde_json::Value) -> Message {
    // JSON text has no line break, so it is one line of data.
    Message::default().event(kind).data(data.to_string())
}

impl Stream for EventStream {
    type Item = Result<Message, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(message) = self.ready.pop_front() {
                return Poll::Ready(Some(Ok(message)));
            }
            let (node, after) = (Arc::clone(&self.node), self.after);
            let next = self.next.get_or_insert_with(|| {
                Box::pin(async move { node.events(after, EVENTS_PER_STREAM_MAX, EVENT_WAIT_MAX).await })
            });
            let Poll::Ready(page) = next.as_mut().poll(cx) else { return Poll::Pending };
            self.next = None;
            self.take(&page);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_named_by_id_or_query() {
        let place = |run: &str, after| Place { run: run.to_owned(), after };
        assert_eq!(
            Place::of_id("2026-01-31T08:15:30.250Z-7/12"),
            Some(place("2026-01-31T08:15:30.250Z-7", 12))
        );
        assert_eq!(Place::of_id("12"), None);
        assert_eq!(Place::of_query("after=7&run=r").expect("good"), place("r", 7));
        assert_eq!(Place::of_query("").expect("good"), place("", 0));
        for bad in ["after=x", "after", "limit=3"] {
            assert!(Place::of_query(bad).is_err(), "{bad}");
        }
    }
}
