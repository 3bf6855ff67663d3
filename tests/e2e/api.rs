// SPDX-License-Identifier: MIT OR Apache-2.0
//! The HTTP API: read-only on TCP, changes over the Unix socket, bounded whatever the
//! paths do.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tests_support::holdfast::{Config, Device, Node};
use tests_support::servers::{Nbdkit, Server};
use tests_support::{Endpoint, Http, Json, TestDir, loopback};

struct Site {
    node: Node,
    tcp: Http,
    address: SocketAddr,
    server: Server,
    _dir: TestDir,
}

fn site() -> Site {
    let dir = TestDir::new();
    let image = dir.patterned_image("image", 4 << 20, 1);
    let server = Nbdkit::file(&image).start(&dir, "nbdkit", &Endpoint::tcp(loopback(), 10809));
    let address = SocketAddr::new(loopback().into(), 10880);
    let device = Device::new("vol0").path("a", &server.endpoint().uri(""));
    let node = Node::start(&dir, &Config::new(&dir).api(&address.to_string()).device(device));
    node.await_state("vol0", "a", "up");
    let tcp = Http::new(Endpoint::Tcp(address));
    Site { node, tcp, address, server, _dir: dir }
}

#[test]
fn tcp_reads_and_changes_nothing() {
    let site = site();
    let status = site.tcp.get("/v1/status").expect("it answers");
    assert_eq!(status.status, 200);
    assert_eq!(Json::parse("status", &status.body).get("devices").items().len(), 1);
    for path in ["/v1/devices/vol0/paths/a/fail", "/v1/reload"] {
        let refused = site.tcp.post(path, "").expect("it answers");
        assert_eq!(refused.status, 403, "{path}: {}", refused.body);
    }
    assert_eq!(site.node.path("vol0", "a").state, "up", "a refused command was carried out");
    // A page in a browser that had its name point here.
    let rebound = site.tcp.send("GET", "/v1/status", "attacker.example", "").expect("it answers");
    assert_eq!(rebound.status, 403, "{}", rebound.body);
    let named = site.tcp.send("GET", "/v1/status", &format!("localhost:{}", site.address.port()), "");
    assert_eq!(named.expect("it answers").status, 200);
}

#[test]
fn the_unix_socket_takes_changes() {
    let site = site();
    let taken = site.node.api().post("/v1/devices/vol0/paths/a/drain", "").expect("it answers");
    assert!((200..300).contains(&taken.status), "{taken:?}");
    site.node.await_state("vol0", "a", "drained");
    let unknown = site.node.api().post("/v1/devices/vol0/paths/nobody/drain", "").expect("it answers");
    assert_eq!(unknown.status, 404, "{}", unknown.body);
    assert!(unknown.body.contains("nobody"), "{}", unknown.body);
}

#[test]
fn metrics_agree_with_status() {
    let site = site();
    let mut host = site.node.open("vol0");
    for block in 0..100 {
        assert_eq!(host.write(block * 4096, &[1; 4096]).expect("it serves").error, 0);
    }
    let metrics = site.tcp.get("/metrics").expect("it answers");
    assert_eq!(metrics.status, 200);
    let samples: Vec<&str> = metrics.body.lines().filter(|line| line.starts_with("holdfast_")).collect();
    assert!(samples.iter().any(|line| line.contains("device=\"vol0\"")), "{samples:?}");
    assert!(
        samples
            .iter()
            .all(|line| line.rsplit_once(' ').is_some_and(|(_, value)| value.parse::<f64>().is_ok()))
    );
    assert!(metrics.body.trim_end().ends_with("# EOF"), "not OpenMetrics text");
}

/// Status tells the truth about a stopped server, and does not wait for it.
#[test]
fn status_is_bounded_whatever_the_paths_do() {
    let site = site();
    let mut host = site.node.open("vol0");
    assert_eq!(host.write(0, &[1; 4096]).expect("it serves").error, 0);
    site.server.stop();
    host.submit_read(0, 4096).expect("the socket takes it");
    for _ in 0..20 {
        let start = Instant::now();
        assert_eq!(site.tcp.get("/v1/status").expect("it answers").status, 200);
        assert!(start.elapsed() < Duration::from_secs(2), "status took {} ms", start.elapsed().as_millis());
    }
    site.node.await_path("vol0", "a", "to be noticed", |path| !path.is_up());
    site.server.go_on();
    assert_eq!(host.reply(|_| 4096).expect("answered when the server goes on").data, [1; 4096]);
}

/// The event of a command names the path, both states and the reason.
#[test]
fn events_tell_what_changed() {
    let site = site();
    let before = site.node.last_event();
    site.node.path_command("fail", "vol0", "a");
    let event = site
        .node
        .await_event(before, "path_state of a", |event| event.name == "path_state" && event.path == "a");
    assert_eq!(event.json.get("from").text(), "up", "{}", event.json);
    assert_ne!(event.json.get("to").text(), "up", "{}", event.json);
    assert!(!event.json.get("text").text().is_empty(), "{}", event.json);
    assert!(event.number > before);
}
