// SPDX-License-Identifier: MIT OR Apache-2.0
//! Start, reload and end of a node with hosts at work.

use std::time::Duration;

use nix::sys::signal::Signal;
use tests_support::holdfast::{Config, Device, Node};
use tests_support::storage::{Faults, Options, Storage};
use tests_support::wire::Client;
use tests_support::{Endpoint, Exit, Load, TestDir, loopback, wait};

const MIB: u64 = 1 << 20;

/// Within this a node that has nothing to wait for must be gone.
const BOUND: Duration = Duration::from_secs(15);

fn storage(dir: &TestDir, port_ip: std::net::Ipv4Addr, port: u16, image: &str) -> Storage {
    Storage::start(&Endpoint::tcp(port_ip, port), Options::of(&dir.patterned_image(image, 4 * MIB, 1)))
}

#[test]
fn sigterm_finishes_what_is_in_flight() {
    let dir = TestDir::new();
    let storage = storage(&dir, loopback(), 10809, "image");
    let device = Device::new("vol0").path("a", &storage.endpoint().uri(""));
    let mut node = Node::start(&dir, &Config::new(&dir).device(device));
    node.await_state("vol0", "a", "up");
    let mut busy = node.open("vol0");
    let mut idle = node.open("vol0");
    storage.set(Faults { hold_replies: true, ..Faults::none() });
    let before = storage.record().faults_fired();
    let cookies: Vec<u64> =
        (0..8).map(|n| busy.submit_write(n * 4096, &[n as u8; 4096]).expect("the socket takes it")).collect();
    wait::until_true("the writes to reach the storage", || storage.record().faults_fired() >= before + 8);

    node.process().signal(Signal::SIGTERM);
    idle.await_eof().expect("an idle session is closed at once");
    assert!(node.process().try_wait().is_none(), "it ended with requests in flight");
    storage.set(Faults::none());
    let mut answered: Vec<u64> = (0..8)
        .map(|_| {
            let reply = busy.reply(|_| 0).expect("answered before the end");
            assert_eq!(reply.error, 0, "a request in flight failed");
            reply.cookie
        })
        .collect();
    answered.sort_unstable();
    assert_eq!(answered, cookies);
    busy.await_eof().expect("closed at a frame boundary");
    assert_eq!(node.process().wait_within(BOUND), Exit::Code(0));
    let log = node.process().log();
    let told = log.lines().find(|line| line.contains("path up -> down")).expect("its path went down");
    assert!(told.contains(" info ") && told.contains("this node stops"), "no fault of a path: {told}");
}

/// `timeout`, terminals and supervisors signal twice in one breath: that is one wish. Asked
/// again later, it stops at once.
#[test]
fn only_a_later_second_signal_cuts_off_what_is_in_flight() {
    let dir = TestDir::new();
    let storage = storage(&dir, loopback(), 10809, "image");
    let device = Device::new("vol0").path("a", &storage.endpoint().uri(""));
    let mut node = Node::start(&dir, &Config::new(&dir).device(device));
    node.await_state("vol0", "a", "up");
    let mut host = node.open("vol0");
    storage.set(Faults { hold_replies: true, ..Faults::none() });
    host.submit_write(0, &[1; 4096]).expect("the socket takes it");
    wait::until_true("the write to reach the storage", || storage.record().faults_fired() > 0);

    node.process().signal(Signal::SIGTERM);
    node.process().signal(Signal::SIGTERM);
    node.process().signal(Signal::SIGINT);
    wait::pass(Duration::from_millis(700));
    assert!(node.process().try_wait().is_none(), "it did not let the write finish");
    node.process().signal(Signal::SIGTERM);
    assert_eq!(node.process().wait_within(BOUND), Exit::Code(128 + Signal::SIGTERM as i32));
}

/// A path that never answers does not keep it alive for ever.
#[test]
fn sigterm_is_bounded() {
    let dir = TestDir::new();
    let storage = storage(&dir, loopback(), 10809, "image");
    let device = Device::new("vol0").path("a", &storage.endpoint().uri(""));
    let config = Config::new(&dir).device(device);
    let mut node = Node::start_with_arguments(&dir, &config, &["--drain", "2"]);
    node.await_state("vol0", "a", "up");
    let mut host = node.open("vol0");
    storage.set(Faults { hold_replies: true, ..Faults::none() });
    host.submit_read(0, 4096).expect("the socket takes it");
    wait::until_true("the read to reach the storage", || storage.record().faults_fired() > 0);
    let exit = node.terminate(BOUND);
    assert_eq!(exit, Exit::Code(0));
}

/// Hosts of devices that a change does not concern notice nothing.
fn reload(trigger: impl Fn(&mut Node)) {
    let dir = TestDir::new();
    let ip = loopback();
    let (first, second) = (storage(&dir, ip, 10809, "one"), storage(&dir, ip, 10810, "two"));
    let one = Device::new("one").path("a", &first.endpoint().uri(""));
    let two = Device::new("two").path("a", &second.endpoint().uri(""));
    let three = Device::new("three").path("a", &second.endpoint().uri(""));
    let mut node = Node::start(&dir, &Config::new(&dir).device(one.clone()).device(two.clone()));
    node.await_state("one", "a", "up");
    node.await_state("two", "a", "up");
    let load = Load::options().start(node.host(), "one");
    let mut leaving = node.open("two");
    let connections = first.record().connections();

    node.rewrite(&Config::new(&dir).device(one.clone()).device(three.clone()));
    trigger(&mut node);
    node.await_state("three", "a", "up");
    assert_eq!(node.open("three").read(0, 512).expect("it serves").error, 0);
    leaving.await_eof().expect("sessions of a removed device are closed");
    assert!(Client::open(node.host(), "two").is_err(), "a removed device is gone");
    load.await_progress(500);
    assert_eq!(first.record().connections(), connections, "an unchanged device reconnected");

    // A file with a mistake changes nothing and says why.
    let event = node.last_event();
    node.rewrite(&Config::new(&dir).device(one).device(three.key("no_such_key = 1")));
    trigger(&mut node);
    wait::until_true("the mistake to be told", || {
        let in_events = node.events_after(event).iter().any(|e| e.json.to_string().contains("no_such_key"));
        in_events || node.process().log().contains("no_such_key")
    });
    load.await_progress(500);
    load.finish().assert_clean();
    node.process().assert_running();
    assert_eq!(node.open("three").read(0, 512).expect("it still serves").error, 0);
}

#[test]
fn sighup_applies_a_changed_file() {
    reload(|node| node.process().signal(Signal::SIGHUP));
}

#[test]
fn the_reload_command_applies_a_changed_file() {
    reload(|node| {
        // A refused file makes the command fail; the test looks at what the node says.
        node.cli(&["reload"]);
    });
}

#[test]
fn a_path_joins_and_leaves_by_reload() {
    let dir = TestDir::new();
    let ip = loopback();
    let image = dir.patterned_image("image", 4 * MIB, 1);
    let first = Storage::start(&Endpoint::tcp(ip, 10809), Options::of(&image));
    let second = Storage::start(&Endpoint::tcp(ip, 10810), Options::of(&image));
    let one_path = Device::new("vol0").path("a", &first.endpoint().uri(""));
    let both = one_path.clone().path("b", &second.endpoint().uri(""));
    let other = Device::new("vol0").path("b", &second.endpoint().uri(""));
    let mut node = Node::start(&dir, &Config::new(&dir).device(one_path));
    node.await_state("vol0", "a", "up");
    let load = Load::options().start(node.host(), "vol0");
    node.rewrite(&Config::new(&dir).device(both));
    node.process().signal(Signal::SIGHUP);
    wait::until_true("the new path to be there", || node.device("vol0").paths().len() == 2);
    node.await_in_use("vol0", &["a", "b"], 50);
    node.rewrite(&Config::new(&dir).device(other));
    node.process().signal(Signal::SIGHUP);
    wait::until_true("the old path to be gone", || node.device("vol0").paths().len() == 1);
    wait::until_true("its connections to be closed", || first.record().open_connections() == 0);
    load.await_progress(500);
    load.finish().assert_clean();
}

/// An operator's commands on a path, under load.
#[test]
fn path_commands_take_out_and_put_back() {
    let dir = TestDir::new();
    let ip = loopback();
    let image = dir.patterned_image("image", 4 * MIB, 1);
    let first = Storage::start(&Endpoint::tcp(ip, 10809), Options::of(&image));
    let second = Storage::start(&Endpoint::tcp(ip, 10810), Options::of(&image));
    let device =
        Device::new("vol0").path("a", &first.endpoint().uri("")).path("b", &second.endpoint().uri(""));
    let node = Node::start(&dir, &Config::new(&dir).device(device));
    node.await_state("vol0", "a", "up");
    node.await_state("vol0", "b", "up");
    let load = Load::options().start(node.host(), "vol0");
    node.await_in_use("vol0", &["a", "b"], 50);
    for (command, state) in [("drain", "drained"), ("fail", "drained")] {
        node.path_command(command, "vol0", "a");
        node.await_path("vol0", "a", "to be out", |path| path.state == state || path.state == "down");
        wait::until_true("nothing in flight on it", || node.path("vol0", "a").inflight == 0);
        let completed = node.path("vol0", "a").completed();
        load.await_progress(500);
        assert_eq!(node.path("vol0", "a").completed(), completed, "{command}: it still carries requests");
        node.path_command("reinstate", "vol0", "a");
        node.await_in_use("vol0", &["a", "b"], 50);
    }
    load.finish().assert_clean();
    let unknown = node.cli(&["path", "fail", "vol0", "nobody"]);
    assert!(unknown.status != 0 && unknown.stderr.contains("nobody"), "{unknown:?}");
}
