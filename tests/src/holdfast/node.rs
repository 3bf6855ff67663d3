// SPDX-License-Identifier: MIT OR Apache-2.0
//! A running `holdfast serve`.

use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::{Config, DeviceStatus, Event, PathStatus};
use crate::wire::Client;
use crate::{Command, Endpoint, Exit, Http, Json, Namespace, Output, Process, TestDir, wait};

/// A node with a configuration of its own; killed on drop.
#[derive(Debug)]
pub struct Node {
    process: Process,
    api: Http,
    host: Endpoint,
    config_path: PathBuf,
}

impl Node {
    /// Starts a node in the test's directory and waits until hosts can connect.
    pub fn start(dir: &TestDir, config: &Config) -> Self {
        Self::start_with(dir, config, None, &[])
    }

    /// Starts a node inside a namespace; its Unix sockets are reached from outside.
    pub fn start_within(namespace: &Namespace, dir: &TestDir, config: &Config) -> Self {
        Self::start_with(dir, config, Some(namespace), &[])
    }

    /// Starts a node with more arguments on its command line.
    pub fn start_with_arguments(dir: &TestDir, config: &Config, arguments: &[&str]) -> Self {
        Self::start_with(dir, config, None, arguments)
    }

    fn start_with(dir: &TestDir, config: &Config, namespace: Option<&Namespace>, arguments: &[&str]) -> Self {
        let config_path = dir.write("holdfast.toml", config.text());
        let mut serve = command(&["serve", "--config", &config_path.display().to_string()]);
        serve = serve.args(arguments.iter().copied());
        if let Some(namespace) = namespace {
            serve = serve.within(namespace);
        }
        let host = Endpoint::unix(dir.join("nbd.sock"));
        let api = Http::new(Endpoint::unix(dir.join("state/api.sock")));
        let mut node = Self { process: serve.spawn(dir, "holdfast"), api, host, config_path };
        node.await_serving();
        node
    }

    fn await_serving(&mut self) {
        let (process, host, api) = (&mut self.process, &self.host, &self.api);
        wait::until("holdfast to serve", || {
            process.assert_running();
            host.connects().ok()?;
            api.get("/v1/status").ok().filter(|answer| answer.status == 200).map(|_| ())
        });
    }

    /// Where hosts connect.
    pub fn host(&self) -> &Endpoint {
        &self.host
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Its API on the Unix socket.
    pub fn api(&self) -> &Http {
        &self.api
    }

    /// URI of a device for client programs.
    pub fn uri(&self, device: &str) -> String {
        self.host.uri(device)
    }

    /// Opens a host session.
    pub fn open(&self, device: &str) -> Client {
        Client::open(&self.host, device).unwrap_or_else(|e| panic!("cannot open {device}: {e:?}"))
    }

    /// The status document.
    pub fn status(&self) -> Json {
        let answer = self.api.get("/v1/status").expect("the API answers");
        assert_eq!(answer.status, 200, "{}", answer.body);
        Json::parse("status", &answer.body)
    }

    /// Status of a device that may not be there yet.
    pub fn find_device(&self, name: &str) -> Option<DeviceStatus> {
        DeviceStatus::find(&self.status(), name)
    }

    /// Status of a device.
    pub fn device(&self, name: &str) -> DeviceStatus {
        self.find_device(name).unwrap_or_else(|| panic!("no device {name} in {}", self.status()))
    }

    /// Status of a path.
    pub fn path(&self, device: &str, path: &str) -> PathStatus {
        self.device(device).path(path)
    }

    /// Waits until a path satisfies a condition.
    pub fn await_path(
        &self,
        device: &str,
        path: &str,
        what: &str,
        holds: impl Fn(&PathStatus) -> bool,
    ) -> PathStatus {
        let what = format!("path {path} of {device} {what}");
        let look = || {
            let status = self.find_device(device)?.find_path(path)?;
            holds(&status).then_some(status)
        };
        // The state at the end says more than the fact that it never came.
        let guard = OnPanic(|| eprintln!("{what}: the node was {}", self.status()));
        let found = wait::until(&what, look);
        std::mem::forget(guard);
        found
    }

    /// Waits until a path is `state`.
    pub fn await_state(&self, device: &str, path: &str, state: &str) -> PathStatus {
        self.await_path(device, path, &format!("to be {state}"), |status| status.state == state)
    }

    /// Waits until a device is `state`.
    pub fn await_device(&self, device: &str, state: &str) -> DeviceStatus {
        wait::until(&format!("{device} to be {state}"), || {
            let status = self.device(device);
            (status.state() == state).then_some(status)
        })
    }

    /// Waits until each of these paths is up and has completed `requests` more.
    pub fn await_in_use(&self, device: &str, paths: &[&str], requests: u64) {
        for path in paths {
            let before = self.await_state(device, path, "up").completed();
            let what = format!("to complete {requests} more requests");
            self.await_path(device, path, &what, |status| {
                status.is_up() && status.completed() >= before + requests
            });
        }
    }

    /// Number of the latest event.
    pub fn last_event(&self) -> u64 {
        self.status().get("node").get("last_event").number()
    }

    /// All events after a number that are known now.
    pub fn events_after(&self, after: u64) -> Vec<Event> {
        let mut events = self.poll_events(after, 0);
        // An answer holds a thousand at most.
        while let Some(last) = events.last().map(|event| event.number) {
            let more = self.poll_events(last, 0);
            if more.is_empty() {
                break;
            }
            events.extend(more);
        }
        events
    }

    /// Waits for an event after a number that satisfies a condition.
    pub fn await_event(&self, after: u64, what: &str, holds: impl Fn(&Event) -> bool) -> Event {
        let mut seen = after;
        wait::until(&format!("event: {what}"), || {
            let events = self.poll_events(seen, 1);
            seen = events.last().map_or(seen, |event| event.number);
            events.into_iter().find(|event| holds(event))
        })
    }

    fn poll_events(&self, after: u64, wait_s: u64) -> Vec<Event> {
        let answer = self.api.get(&format!("/v1/events?after={after}&limit=1000&wait={wait_s}"));
        let answer = answer.expect("the API answers");
        assert_eq!(answer.status, 200, "{}", answer.body);
        let document = Json::parse("events", &answer.body);
        document.get("events").items().iter().map(Event::from).collect()
    }

    /// A command of an operator on a path: `fail`, `reinstate`, `drain`.
    pub fn path_command(&self, command: &str, device: &str, path: &str) {
        let output = self.cli(&["path", command, device, path]);
        assert_eq!(output.status, 0, "path {command}: {output:?}");
    }

    /// Runs `holdfast` against this node.
    pub fn cli(&self, arguments: &[&str]) -> Output {
        let socket = self.config_path.with_file_name("state/api.sock");
        let url = format!("unix:{}", socket.display());
        let all = arguments.iter().map(|&a| a.to_owned()).chain(["--api".to_owned(), url]);
        crate::run_status(&binary_path(), all)
    }

    /// Replaces the configuration file; takes effect with a reload.
    pub fn rewrite(&self, config: &Config) {
        std::fs::write(&self.config_path, config.text()).expect("the test's directory can be written");
    }

    /// Asks it to end and returns how it did.
    pub fn terminate(&mut self, bound: Duration) -> Exit {
        self.process.signal(Signal::SIGTERM);
        self.process.wait_within(bound)
    }
}

/// Runs something if the thread panics while it lives.
struct OnPanic<F: Fn()>(F);

impl<F: Fn()> Drop for OnPanic<F> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            (self.0)();
        }
    }
}

/// The binary under test: `HOLDFAST_BIN`, or the one built beside this test.
fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("HOLDFAST_BIN") {
        return PathBuf::from(path);
    }
    let test = std::env::current_exe().expect("a test knows its own program");
    let profile = test.parent().and_then(std::path::Path::parent).expect("tests are in PROFILE/deps");
    let path = profile.join("holdfast");
    assert!(path.exists(), "{} is not built: run `cargo build --release -p holdfast`", path.display());
    path
}

/// The binary under test as text.
pub fn binary_path() -> String {
    binary().display().to_string()
}

/// `holdfast` with arguments, not started.
pub fn command(arguments: &[&str]) -> Command {
    Command::new(binary_path()).args(arguments.iter().copied())
}

/// Runs `holdfast` to its end; it must succeed.
pub fn cli(arguments: &[&str]) -> String {
    crate::run(&binary_path(), arguments.iter().copied())
}

/// Runs `holdfast` to its end, whatever comes of it.
pub fn cli_status(arguments: &[&str]) -> Output {
    crate::run_status(&binary_path(), arguments.iter().copied())
}
