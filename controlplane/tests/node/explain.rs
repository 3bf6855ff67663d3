// SPDX-License-Identifier: MIT OR Apache-2.0
//! `explain` over the API, and events as a stream.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use program::{
    Access, BudgetStatus, Comparison, Decision, DeviceExplanation, DeviceState, Figure, FigureUnit,
    PathExplanation, PathState, Refused, Report, ReportKind, SECOND,
};
use serde_json::{Value, json};

use crate::harness::TestNode;

fn decision(at: u64, what: &'static str) -> Decision {
    Decision {
        at,
        last_at: at,
        times: 1,
        path: Some("a".to_owned()),
        what,
        rule: "W16",
        figures: vec![Figure {
            name: "without an ACK",
            value: 412_000_000,
            unit: FigureUnit::Nanoseconds,
            limit: Some((Comparison::AtLeast, 408_000_000)),
        }],
        refused: vec![Refused { alternative: "close it", because: "a late reply is proof" }],
        until: "a reply",
        request: 7,
    }
}

fn explained() -> DeviceExplanation {
    DeviceExplanation {
        name: "vol0".to_owned(),
        now: 9 * SECOND,
        state: DeviceState::Degraded,
        present: Decision { path: None, ..decision(9 * SECOND, "served, with fewer paths") },
        budget: BudgetStatus::default(),
        decisions: Vec::new(),
        paths: vec![PathExplanation {
            name: "a".to_owned(),
            state: PathState::Down,
            access: Access::Unavailable,
            reason: "the link is silent".to_owned(),
            present: decision(9 * SECOND, "suspect: the link is silent"),
            decisions: vec![decision(2 * SECOND, "suspect")],
        }],
    }
}

#[test]
fn a_device_and_a_path_are_explained() {
    let node = TestNode::start();
    node.fake.explanations.lock().unwrap().push(explained());
    let document = node.json("/v1/devices/vol0/explain");
    assert_eq!((&document["name"], &document["state"]), (&json!("vol0"), &json!("degraded")));
    let path = &document["paths"][0];
    assert_eq!((&path["state"], &path["reason"]), (&json!("down"), &json!("the link is silent")));
    assert_eq!(path["present"]["ago_ms"], 0);
    let past = &path["decisions"][0];
    assert_eq!(
        (&past["ago_ms"], &past["rule"], &past["until"]),
        (&json!(7000), &json!("W16"), &json!("a reply"))
    );
    assert_eq!(
        past["figures"][0]["limit"],
        json!({
            "comparison": "at_least", "value": 408_000_000, "shown": "at least 408 ms", "holds": true
        })
    );
    assert_eq!(past["refused"][0], json!({"alternative": "close it", "because": "a late reply is proof"}));
    let alone = node.json("/v1/devices/vol0/paths/a/explain");
    assert_eq!((&alone["name"], &alone["reason"]), (&path["name"], &path["reason"]));
    assert_eq!(alone["decisions"][0]["figures"], past["figures"]);
    for (target, hint) in [
        ("/v1/devices/none/explain", "lists the devices"),
        ("/v1/devices/vol0/paths/c/explain", "its paths are: a"),
    ] {
        let (code, body) = node.tcp("GET", target);
        assert_eq!(code, 404, "{body}");
        assert!(body.contains(hint), "{body}");
    }
}

#[test]
fn it_answers_in_bounded_time_when_the_data_plane_does_not() {
    let mut node = TestNode::start();
    node.fake.hang(true);
    let start = Instant::now();
    let (code, body) = node.tcp("GET", "/v1/devices/vol0/explain");
    assert_eq!(code, 503, "{body}");
    assert!(body.contains("did not answer in time"), "{body}");
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    node.stop();
}

/// Messages of a stream as `(event, id, data)`.
struct Messages(BufReader<TcpStream>);

impl Messages {
    fn open(node: &TestNode, target: &str, headers: &str) -> Self {
        let mut stream = TcpStream::connect(node.tcp).expect("connects");
        let host = node.tcp;
        write!(stream, "GET {target} HTTP/1.0\r\nHost: {host}\r\n{headers}\r\n").expect("sent");
        let mut lines = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(lines.read_line(&mut head).expect("a head") > 0, "{head}");
        }
        assert!(head.starts_with("HTTP/1.0 200"), "{head}");
        assert!(head.to_lowercase().contains("content-type: text/event-stream"), "{head}");
        Self(lines)
    }

    fn next(&mut self) -> (String, String, Value) {
        let (mut kind, mut id, mut data) = (String::new(), String::new(), String::new());
        loop {
            let mut line = String::new();
            assert!(self.0.read_line(&mut line).expect("a line") > 0, "the stream ended");
            match line.trim_end().split_once(": ") {
                Some(("event", value)) => value.clone_into(&mut kind),
                Some(("id", value)) => value.clone_into(&mut id),
                Some(("data", value)) => value.clone_into(&mut data),
                None if !data.is_empty() => return (kind, id, serde_json::from_str(&data).expect("JSON")),
                _ => {}
            }
        }
    }
}

fn report(node: &TestNode, n: u64) {
    let kind = ReportKind::Event { name: "test", path: None, rule: "r", text: n.to_string() };
    node.sink.push(Report { at: n, device: "vol0".to_owned(), kind });
}

#[test]
fn events_come_as_they_happen_and_a_reader_goes_on_where_it_was() {
    let node = TestNode::start();
    let before = node.json("/v1/status")["node"]["last_event"].as_u64().expect("a number");
    let mut stream = Messages::open(&node, &format!("/v1/events/stream?after={before}"), "");
    let (kind, _, hello) = stream.next();
    assert_eq!((kind.as_str(), &hello["after"]), ("run", &json!(before)));
    report(&node, 1);
    let (kind, _, event) = stream.next();
    assert_eq!((kind.as_str(), &event["text"]), ("event", &json!("1")));
    node.sink.push(Report {
        at: 5,
        device: "vol0".to_owned(),
        kind: ReportKind::Decision(Box::new(decision(5, "suspect"))),
    });
    let (_, id, event) = stream.next();
    assert_eq!(
        (&event["name"], &event["path"], &event["rule"]),
        (&json!("decision"), &json!("a"), &json!("W16"))
    );
    assert_eq!(event["decision"]["figures"][0]["value"], 412_000_000);
    assert!(event["text"].as_str().expect("text").starts_with("suspect: without an ACK 412 ms"), "{event}");
    drop(stream);
    report(&node, 2);
    node.event(before, |event| event["text"] == "2");
    let mut again = Messages::open(&node, "/v1/events/stream", &format!("Last-Event-ID: {id}\r\n"));
    assert_eq!(again.next().0, "run");
    assert_eq!(again.next().2["text"], "2", "it goes on behind the id");
    // An id of another run begins with the first event of this one.
    let mut other = Messages::open(&node, "/v1/events/stream", "Last-Event-ID: another/9\r\n");
    assert_eq!(other.next().2["after"], 0);
    assert_eq!(other.next().2["seq"], 1);
}

#[test]
fn a_reader_is_told_what_is_no_longer_kept() {
    let node = TestNode::start();
    let kept = controlplane::limits::EVENTS_KEPT_MAX as u64;
    for n in 0..kept + 50 {
        report(&node, n);
        // The inbox is bounded too; let it be emptied.
        if n % 4000 == 3999 {
            node.event(0, |event| event["at_ns"].as_u64() == Some(n));
        }
    }
    node.event(0, |event| event["at_ns"].as_u64() == Some(kept + 49));
    let mut stream = Messages::open(&node, "/v1/events/stream?after=1", "");
    assert_eq!(stream.next().0, "run");
    let (kind, _, missed) = stream.next();
    let last = node.json("/v1/status")["node"]["last_event"].as_u64().expect("a number");
    assert_eq!((kind.as_str(), &missed["missed"]), ("missed", &json!(last - kept - 1)));
    assert_eq!(stream.next().2["seq"], last - kept + 1);
}
