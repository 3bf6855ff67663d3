// SPDX-License-Identifier: MIT OR Apache-2.0
//! A node with a fake data plane, and a small HTTP client.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use controlplane::api::ApiListeners;
use controlplane::config::{Environment, load};
use controlplane::services::{ConfigFile, ReportSink, first_program, reports};
use controlplane::state::StateDir;
use controlplane::{CommandFailed, ControlPlane, DataPlane, Startup};
use program::{
    Access, BudgetCause, BudgetStatus, ControlCommand, DeviceExplanation, DeviceState, DeviceStatus, Fence,
    PathState, PathStatus, Program, SECOND, SessionStatus,
};
use serde_json::Value;
use tempfile::TempDir;

pub(crate) const CONFIG: &str = r#"
[node]
name = "m1"

[[device]]
name = "vol0"
[[device.path]]
name = "a"
uri = "nbd://10.0.1.5/vol0"
[[device.path]]
name = "b"
uri = "nbd://10.0.2.5/vol0"

[[device]]
name = "x/y z"
[[device.path]]
name = "p 1"
uri = "nbd://10.0.1.5/other"
"#;

/// A data plane that remembers its commands and answers with what it was given.
#[derive(Default)]
pub(crate) struct Fake {
    pub(crate) commands: Mutex<Vec<ControlCommand>>,
    pub(crate) statuses: Mutex<Vec<DeviceStatus>>,
    pub(crate) explanations: Mutex<Vec<DeviceExplanation>>,
    pub(crate) refuse: Mutex<bool>,
    /// While set, snapshots do not return.
    stuck: Mutex<bool>,
    freed: Condvar,
}

impl Fake {
    pub(crate) fn hang(&self, stuck: bool) {
        *self.stuck.lock().unwrap() = stuck;
        self.freed.notify_all();
    }
}

impl DataPlane for Fake {
    fn send(&self, command: ControlCommand) -> Result<(), CommandFailed> {
        if *self.refuse.lock().unwrap() {
            return Err(CommandFailed("it is stopping".to_owned()));
        }
        self.commands.lock().unwrap().push(command);
        Ok(())
    }

    fn explain(&self, device: &str, _timeout: Duration) -> Option<DeviceExplanation> {
        let mut stuck = self.stuck.lock().unwrap();
        while *stuck {
            stuck = self.freed.wait(stuck).unwrap();
        }
        let known = self.explanations.lock().unwrap();
        known.iter().find(|known| known.name == device).cloned()
    }

    fn snapshot(&self, _timeout: Duration) -> Vec<DeviceStatus> {
        let mut stuck = self.stuck.lock().unwrap();
        while *stuck {
            stuck = self.freed.wait(stuck).unwrap();
        }
        self.statuses.lock().unwrap().clone()
    }
}

pub(crate) struct TestNode {
    pub(crate) fake: Arc<Fake>,
    pub(crate) sink: ReportSink,
    pub(crate) dir: TempDir,
    pub(crate) tcp: SocketAddr,
    control: Option<ControlPlane>,
}

impl TestNode {
    pub(crate) fn start() -> Self {
        Self::start_with(CONFIG)
    }

    pub(crate) fn start_with(text: &str) -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        let file = dir.path().join("holdfast.toml");
        std::fs::write(&file, text).expect("written");
        let state_dir = dir.path().join("state");
        let environment = Environment {
            host_name: "host1".to_owned(),
            cores: 2,
            state_dir: Some(state_dir.to_string_lossy().into_owned()),
        };
        let config = load(&file, &environment).expect("a good configuration");
        let state = StateDir::open(&state_dir).expect("opens");
        let any_port = "127.0.0.1:0".parse().expect("address");
        let listeners = ApiListeners::bind(Some(any_port), Some(&state.socket())).expect("bound");
        let tcp = listeners.tcp_address().expect("bound");
        let (sink, inbox) = reports();
        let fake = Arc::new(Fake::default());
        let program = Arc::new(first_program(&config, Some(&state)));
        *fake.statuses.lock().unwrap() =
            program.devices.iter().map(|device| status(device, PathState::Up)).collect();
        let control = ControlPlane::start(Startup {
            config,
            program,
            file: Some(ConfigFile { path: file, environment }),
            state,
            record: true,
            inbox,
            data_plane: Arc::clone(&fake) as Arc<dyn DataPlane>,
            listeners,
        });
        Self { fake, sink, dir, tcp, control: Some(control.expect("starts")) }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("state/api.sock")
    }

    pub(crate) fn config_file(&self) -> PathBuf {
        self.dir.path().join("holdfast.toml")
    }

    pub(crate) fn sighup(&self) {
        self.control.as_ref().expect("running").reload();
    }

    pub(crate) fn stop(&mut self) {
        self.fake.hang(false);
        if let Some(control) = self.control.take() {
            control.stop();
        }
    }

    /// `(status, body)` of a request on TCP with a good Host header.
    pub(crate) fn tcp(&self, method: &str, target: &str) -> (u16, String) {
        self.tcp_with_host(method, target, &self.tcp.to_string())
    }

    pub(crate) fn tcp_with_host(&self, method: &str, target: &str, host: &str) -> (u16, String) {
        exchange(TcpStream::connect(self.tcp).expect("connects"), method, target, host)
    }

    pub(crate) fn unix(&self, method: &str, target: &str) -> (u16, String) {
        exchange(UnixStream::connect(self.socket()).expect("connects"), method, target, "holdfast")
    }

    pub(crate) fn json(&self, target: &str) -> Value {
        let (status, body) = self.tcp("GET", target);
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).expect("JSON")
    }

    /// The first event after `after` that `wanted` accepts.
    pub(crate) fn event(&self, after: u64, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut after = after;
        loop {
            let page = self.json(&format!("/v1/events?after={after}&wait=30"));
            let events = page["events"].as_array().expect("a list");
            assert!(!events.is_empty(), "the event did not come");
            if let Some(event) = events.iter().find(|event| wanted(event)) {
                return event.clone();
            }
            after = page["next"].as_u64().expect("a number");
        }
    }

    pub(crate) fn last_program(&self) -> Option<Arc<Program>> {
        let commands = self.fake.commands.lock().unwrap();
        commands.iter().rev().find_map(|command| match command {
            ControlCommand::Apply(program) => Some(Arc::clone(program)),
            _ => None,
        })
    }
}

impl Drop for TestNode {
    fn drop(&mut self) {
        self.stop();
    }
}

fn exchange(mut stream: impl Read + Write, method: &str, target: &str, host: &str) -> (u16, String) {
    let host = if host.is_empty() { String::new() } else { format!("Host: {host}\r\n") };
    let request =
        format!("{method} {target} HTTP/1.1\r\n{host}Connection: close\r\nContent-Length: 0\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answered");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    (status, body.to_owned())
}

pub(crate) fn status(device: &program::DeviceProgram, state: PathState) -> DeviceStatus {
    let path = |path: &program::PathProgram| PathStatus {
        name: path.name.clone(),
        uri: path.uri.clone(),
        state,
        access: Access::Optimized,
        priority: path.priority,
        group: 1,
        access_state: path.access_state.unwrap_or_default(),
        distance_us: 0,
        in_flight: 3,
        reads: 10,
        writes: 20,
        bytes: 4096,
        errors: 1,
        p50_us: 150,
        p99_us: 2500,
        fence: Fence::Drain,
        lanes_up: 1,
        zombies: 0,
        reason: String::new(),
    };
    DeviceStatus {
        name: device.name.clone(),
        access: device.access,
        state: DeviceState::Optimal,
        size_bytes: 1 << 30,
        fence: Fence::Assume,
        quiesce: 5 * SECOND,
        sessions: vec![SessionStatus { peer: "127.0.0.1:4000".to_owned(), in_flight: 2, claim: None }],
        in_flight: 6,
        held: 0,
        quarantined: 0,
        ghosts: 0,
        retained_bytes: 0,
        replaying: false,
        lost_writes: String::new(),
        reads: 100,
        writes: 200,
        errors: 0,
        resent: 4,
        hedges: program::HedgeStatus { sent: 9, won: 5, lost: 3, refused: 2 },
        budget: BudgetStatus {
            bound: SECOND,
            requests: 300,
            causes: vec![BudgetCause {
                path: Some("a".to_owned()),
                rule: "W16",
                unavailable: 0,
                delayed: 3,
                excess: 1_500_000_000,
                worst: 2 * SECOND,
            }],
        },
        paths: device.paths.iter().map(path).collect(),
    }
}
