// SPDX-License-Identifier: MIT OR Apache-2.0
//! The API against a fake data plane: documents, access, bounded time.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;

use crate::harness::TestNode;
use program::{ControlCommand, DeviceCommand, PathCommand, PathState, Report, ReportKind};
use serde_json::{Value, json};

fn parse(body: &str) -> Value {
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}"))
}

#[test]
fn status_has_the_promised_fields() {
    let node = TestNode::start();
    let status = node.json("/v1/status");
    assert_eq!(status["sets"], json!([]));
    assert_eq!(status["members"], json!([{"name": "m1", "state": "up"}]));
    let device = &status["devices"][0];
    for (field, value) in [
        ("name", json!("vol0")),
        ("policy", json!("active-active")),
        ("state", json!("optimal")),
        ("size_bytes", json!(1 << 30)),
        ("fence", json!("assume")),
        ("quiesce_ms", json!(5000)),
        ("listed", json!(true)),
        ("resent", json!(4)),
        ("hedges", json!({"sent": 9, "won": 5, "lost": 3, "refused": 2})),
        ("sessions", json!([{"peer": "127.0.0.1:4000", "inflight": 2}])),
    ] {
        assert_eq!(device[field], value, "{field}");
    }
    assert_eq!(
        device["paths"][0],
        json!({
            "name": "a", "uri": "nbd://10.0.1.5/vol0", "state": "up", "access": "optimized", "priority": 50,
            "group": 1, "access_state": "optimized", "distance_us": 0, "inflight": 3, "reads": 10, "writes": 20, "bytes": 4096, "errors": 1, "p50_us": 150, "p99_us": 2500,
            "fence": "drain", "lanes_up": 1, "zombies": 0, "reason": ""
        })
    );
    let one = node.json("/v1/devices/x%2Fy%20z");
    assert_eq!((&one["name"], &one["paths"][0]["name"]), (&json!("x/y z"), &json!("p 1")));
}

#[test]
fn status_answers_while_the_data_plane_does_not() {
    let node = TestNode::start();
    node.fake.hang(true);
    let status = node.json("/v1/status");
    let device = &status["devices"][0];
    assert_eq!(
        (&device["name"], &device["state"], &device["age_ms"]),
        (&json!("vol0"), &json!("unknown"), &Value::Null)
    );
    assert_eq!(device["paths"][1]["state"], "down");
    assert_eq!(node.tcp("GET", "/healthz").0, 503);
    let (code, body) = node.tcp("GET", "/metrics");
    assert_eq!(code, 200, "{body}");
    node.fake.hang(false);
    assert_eq!(node.tcp("GET", "/healthz").0, 200);
    // Hanging again, the last values stay, with their age.
    node.json("/v1/status");
    node.fake.hang(true);
    let device = node.json("/v1/status")["devices"][0].clone();
    assert_eq!(device["state"], "optimal");
    assert!(device["age_ms"].is_u64(), "{device}");
}

#[test]
fn tcp_reads_and_the_socket_changes() {
    let node = TestNode::start();
    for target in ["/v1/devices/vol0/paths/a/fail", "/v1/reload", "/v1/status", "/nowhere"] {
        let (code, body) = node.tcp("POST", target);
        assert_eq!(code, 403, "{target}");
        let error = parse(&body);
        let hint = error["hint"].as_str().expect("a hint");
        assert!(hint.contains("api.sock"), "{hint}");
    }
    assert!(node.fake.commands.lock().unwrap().is_empty());
    let (code, body) = node.unix("POST", "/v1/devices/vol0/paths/a/fail");
    assert_eq!(code, 202, "{body}");
    assert_eq!(parse(&body), json!({"device": "vol0", "path": "a", "command": "fail"}));
    let (code, _) = node.unix("POST", "/v1/devices/x%2Fy%20z/paths/p%201/drain");
    assert_eq!(code, 202);
    let (code, _) = node.unix("POST", "/v1/devices/vol0/paths/a/reinstate");
    assert_eq!(code, 202);
    let commands = node.fake.commands.lock().unwrap();
    let seen: Vec<_> = commands
        .iter()
        .map(|command| match command {
            ControlCommand::Path { device, path, command } => (device.as_str(), path.as_str(), *command),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        seen,
        [
            ("vol0", "a", PathCommand::Fail),
            ("x/y z", "p 1", PathCommand::Drain),
            ("vol0", "a", PathCommand::Reinstate)
        ]
    );
    let mode = std::fs::metadata(node.socket()).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn devices_take_commands_too() {
    let node = TestNode::start();
    let (code, _) = node.tcp("POST", "/v1/devices/vol0/fail-now");
    assert_eq!(code, 403, "changes are for the socket");
    for (word, command) in [("fail-now", DeviceCommand::FailNow), ("clear-loss", DeviceCommand::ClearLoss)] {
        let (code, body) = node.unix("POST", &format!("/v1/devices/vol0/{word}"));
        assert_eq!((code, parse(&body)), (202, json!({"device": "vol0", "command": word})));
        let last = node.fake.commands.lock().unwrap().pop();
        assert!(
            matches!(&last, Some(ControlCommand::Device { device, command: sent }) if device == "vol0" && *sent == command),
            "{last:?}"
        );
    }
    let (code, body) = node.unix("POST", "/v1/devices/vol0/explode");
    assert!(code == 404 && body.contains("clear-loss"), "{body}");
    let (code, body) = node.unix("POST", "/v1/devices/stranger/fail-now");
    assert!(code == 404 && body.contains("stranger"), "{body}");
}

#[test]
fn taking_the_last_path_away_is_said() {
    let node = TestNode::start();
    let (_, body) = node.unix("POST", "/v1/devices/vol0/paths/a/drain");
    assert_eq!(parse(&body)["warning"], Value::Null);
    node.fake.statuses.lock().unwrap()[0].paths[1].state = PathState::Down;
    let (code, body) = node.unix("POST", "/v1/devices/vol0/paths/a/drain");
    assert_eq!(code, 202);
    assert!(body.contains("no other path of the device is usable"), "{body}");
}

#[test]
fn what_does_not_exist_is_told_with_what_does() {
    let node = TestNode::start();
    for (method, target, code, error, hint) in [
        ("GET", "/v1/devices/nope", 404, "there is no device \"nope\"", "GET /v1/status"),
        ("POST", "/v1/devices/nope/paths/a/fail", 404, "there is no device \"nope\"", "GET /v1/status"),
        ("POST", "/v1/devices/vol0/paths/c/fail", 404, "device \"vol0\" has no path \"c\"", "a, b"),
        ("POST", "/v1/devices/vol0/paths/a/kill", 404, "no such path command", "fail, reinstate and drain"),
        ("GET", "/v2/status", 404, "nothing at this address", "GET /"),
        ("DELETE", "/v1/status", 405, "does not take that method", "POST"),
        ("GET", "/v1/reload", 405, "does not take that method", "POST"),
        ("GET", "/v1/events?after=x", 400, "not understood", "after, limit and wait"),
    ] {
        let (found, body) = node.unix(method, target);
        assert_eq!(found, code, "{method} {target}: {body}");
        let document = parse(&body);
        assert!(document["error"].as_str().expect("error").contains(error), "{body}");
        assert!(document["hint"].as_str().expect("hint").contains(hint), "{body}");
    }
    *node.fake.refuse.lock().unwrap() = true;
    let (code, body) = node.unix("POST", "/v1/devices/vol0/paths/a/fail");
    assert_eq!((code, parse(&body)["error"].as_str()), (503, Some("it is stopping")));
}

#[test]
fn a_request_for_another_host_is_refused() {
    let node = TestNode::start();
    let port = node.tcp.port();
    for good in [format!("127.0.0.1:{port}"), format!("localhost:{port}"), "[::1]".to_owned()] {
        assert_eq!(node.tcp_with_host("GET", "/v1/status", &good).0, 200, "{good}");
    }
    for bad in [format!("attacker.example:{port}"), "10.1.2.3".to_owned()] {
        let (code, body) = node.tcp_with_host("GET", "/v1/status", &bad);
        assert_eq!(code, 403, "{bad}");
        assert!(body.contains("names another host"), "{body}");
    }
    assert_eq!(node.tcp_with_host("GET", "/v1/status", "").0, 400);
    // In absolute form the request line decides.
    let target = format!("http://attacker.example:{port}/v1/status");
    assert_eq!(node.tcp_with_host("GET", &target, &node.tcp.to_string()).0, 403);
}

#[test]
fn reports_become_events() {
    let node = TestNode::start();
    node.sink.push(Report {
        at: 77,
        device: "vol0".to_owned(),
        kind: ReportKind::PathState {
            path: "a".to_owned(),
            from: PathState::Up,
            to: PathState::Down,
            access: program::Access::Unavailable,
            rule: "W16",
            reason: "no ACK for 412 ms".to_owned(),
        },
    });
    let event = node.event(0, |event| event["name"] == "path_state");
    for (field, value) in [
        ("at_ns", json!(77)),
        ("device", json!("vol0")),
        ("path", json!("a")),
        ("from", json!("up")),
        ("to", json!("down")),
        ("access", json!("unavailable")),
        ("rule", json!("W16")),
        ("text", json!("no ACK for 412 ms")),
    ] {
        assert_eq!(event[field], value, "{field}");
    }
    node.unix("POST", "/v1/devices/vol0/paths/b/fail");
    let event = node.event(event["seq"].as_u64().expect("seq"), |_| true);
    assert_eq!((&event["name"], &event["path"]), (&json!("path_command"), &json!("b")));
}

#[test]
fn metrics_are_valid_and_labelled() {
    let node = TestNode::start();
    let (code, text) = node.tcp("GET", "/metrics");
    assert_eq!(code, 200);
    assert!(text.ends_with("# EOF\n"), "{text}");
    for line in [
        "holdfast_path_state{device=\"vol0\",path=\"a\",state=\"up\"} 1.0",
        "holdfast_path_state{device=\"vol0\",path=\"a\",state=\"down\"} 0.0",
        "holdfast_path_reads_total{device=\"x/y z\",path=\"p 1\"} 10.0",
        "holdfast_device_size_bytes{device=\"vol0\"} 1073741824.0",
        "holdfast_path_service_seconds{device=\"vol0\",path=\"b\",quantile=\"0.99\"} 0.0025",
        "holdfast_device_delayed_requests_total{device=\"vol0\",path=\"a\",rule=\"W16\"} 3.0",
        "holdfast_device_delay_excess_seconds_total{device=\"vol0\",path=\"a\",rule=\"W16\"} 1.5",
        "holdfast_program_generation 1.0",
        "# TYPE holdfast_path_errors counter",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is missing:\n{text}");
    }
    for metric in controlplane::api::METRICS {
        assert!(text.contains(&format!("# TYPE {} ", metric.name)), "{}", metric.name);
    }
}

#[test]
fn the_configuration_is_shown_with_origins() {
    let node = TestNode::start();
    let document = node.json("/v1/config");
    assert_eq!(document["file"].as_str(), node.config_file().to_str());
    let values = document["values"].as_array().expect("values");
    let name =
        values.iter().find(|value| value["key"] == "name" && value["table"] == "[node]").expect("shown");
    assert_eq!(
        (&name["value"], &name["origin"], &name["line"]),
        (&json!("\"m1\""), &json!("file"), &json!(3))
    );
}

#[test]
fn half_a_request_and_garbage_harm_nobody_else() {
    let node = TestNode::start();
    let mut half = TcpStream::connect(node.tcp).expect("connects");
    half.write_all(b"GET /v1/status HTT").expect("sent");
    let mut garbage = TcpStream::connect(node.tcp).expect("connects");
    garbage.write_all(&[0xff; 4096]).expect("sent");
    let mut answer = Vec::new();
    // Closed, with or without a word.
    let _ = garbage.read_to_end(&mut answer);
    let (code, _) = node.tcp("GET", &format!("/{}", "x".repeat(100_000)));
    assert!((400..500).contains(&code), "{code}");
    assert_eq!(node.tcp("GET", "/v1/status").0, 200);
    drop(half);
}
