// SPDX-License-Identifier: MIT OR Apache-2.0
//! Holdfast itself is killed: what its old process had under way must not surface later
//! (rules W1, W10).

use tests_support::holdfast::{Config, Device, Gate, Node};
use tests_support::servers::{NbdServer, Trace};
use tests_support::{
    Endpoint, Fabric, LinkFault, Relay, Stamp, TestDir, client_queues, loopback, server_queues, wait,
};

use crate::rig::DEVICE;

const BLOCK: usize = 4096;
/// Writes that are under way when the process is killed.
const WRITES: u64 = 10;

fn offset(number: u64) -> u64 {
    (number + 16) * BLOCK as u64
}

/// After SIGKILL a kernel goes on sending what a process had queued, for many minutes. A
/// lane leaves nothing behind: none of its writes may reach the storage when a cut link heals.
#[test]
fn nothing_of_a_killed_process_leaves_its_send_queue() {
    let dir = TestDir::new();
    let fabric = Fabric::new(1);
    let image = dir.patterned_image("image", 4 << 20, 5);
    let exports = [(DEVICE.to_owned(), image)];
    let server_at = Endpoint::tcp(loopback(), Fabric::PORT);
    let trace = Trace::new(&dir, "trace");
    let _server = NbdServer::start_with(&dir, "nbd-server", &server_at, &exports, Some(&trace));
    let relay = Relay::start(fabric.storage(), &fabric.endpoint(0), &server_at);
    let config = Config::new(&dir).device(Device::new(DEVICE).path("a", &relay.endpoint().uri(DEVICE)));
    let mut node = Node::start_within(fabric.host(), &dir, &config);
    node.await_state(DEVICE, "a", "up");
    let mut host = node.open(DEVICE);

    fabric.inject(0, LinkFault::DropToStorage);
    for number in 0..WRITES {
        let stamp = Stamp { writer: 0xa, sequence: number };
        let sent = host.submit_write(offset(number), &stamp.fill(offset(number), BLOCK));
        sent.expect("the socket takes it");
    }
    let queued = || client_queues(fabric.host(), relay.endpoint()).iter().map(|q| q.send_bytes).sum::<u64>();
    wait::until_true("the writes to be in the send queue", || queued() >= WRITES * BLOCK as u64);
    node.process().kill();
    wait::until_true("the kernel to hold nothing of it", || queued() == 0);
    assert!(fabric.caught_packets(0) > 0, "the link was never cut");
    fabric.heal(0);

    // A node that works through it shows that the link carries again.
    let next = Node::start_within(fabric.host(), &dir, &config);
    next.await_state(DEVICE, "a", "up");
    let changes = trace.changes();
    assert!(changes.is_empty(), "writes of a dead process reached the storage: {changes:?}");
}

const A: Stamp = Stamp { writer: 0xa, sequence: 1 };
const B: Stamp = Stamp { writer: 0xb, sequence: 2 };

/// Two servers of one file and a node that prefers the first.
struct Site {
    node: Node,
    config: Config,
    stalled: NbdServer,
    _other: NbdServer,
    trace: Trace,
    image: String,
    dir: TestDir,
}

fn site(quiesce: &str) -> Site {
    let dir = TestDir::new();
    let image = dir.patterned_image("image", 4 << 20, 6);
    let exports = [(DEVICE.to_owned(), image.clone())];
    let ip = loopback();
    let (first, second) = (Endpoint::tcp(ip, 10809), Endpoint::tcp(ip, 10810));
    let trace = Trace::new(&dir, "trace");
    let stalled = NbdServer::start_with(&dir, "nbd-server-a", &first, &exports, Some(&trace));
    let other = NbdServer::start_with(&dir, "nbd-server-b", &second, &exports, None);
    let device = Device::new(DEVICE)
        .key(r#"policy = "active-passive""#)
        .key(&format!("quiesce = \"{quiesce}\""))
        .path("a", &first.uri(DEVICE))
        .path_key("priority = 60")
        .path_key(r#"same_cache = "page-cache""#)
        .path("b", &second.uri(DEVICE))
        .path_key("priority = 40")
        .path_key(r#"same_cache = "page-cache""#);
    let config = Config::new(&dir).device(device);
    let node = Node::start(&dir, &config);
    node.await_state(DEVICE, "a", "up");
    node.await_state(DEVICE, "b", "standby");
    Site { node, config, stalled, _other: other, trace, image, dir }
}

/// A is in a stopped server when Holdfast is killed. The host sends it again to the next
/// process and writes B over it: B must not be overtaken by the first A, of which that
/// process knows nothing (W10).
#[test]
fn what_the_old_process_sent_never_wins() {
    let Site { mut node, config, stalled, _other, trace, image, dir } = site("6s");
    let mut host = node.open(DEVICE);
    let old = stalled.stop_children();
    host.submit_write(offset(0), &A.fill(offset(0), BLOCK)).expect("the socket takes it");
    wait::until_true("A to be in the server's queue", || {
        server_queues(stalled.endpoint()).iter().any(|queues| queues.receive_bytes > BLOCK as u64)
    });
    node.process().kill();
    drop(node);

    let node = Node::start(&dir, &config);
    let mut host = node.open(DEVICE);
    node.await_device(DEVICE, "recovering");
    let a = host.submit_write(offset(0), &A.fill(offset(0), BLOCK)).expect("the socket takes it");
    let b = host.submit_write(offset(0), &B.fill(offset(0), BLOCK)).expect("the socket takes it");
    // Reads go on.
    assert_eq!(node.open(DEVICE).read(offset(1), BLOCK as u32).expect("not held up").error, 0);
    stalled.resume_children();
    let late = || trace.changes().iter().any(|c| c.done && c.head == A.head() && old.contains(&c.pid));
    wait::until_true("the old copy to be executed", late);
    assert_eq!(node.device(DEVICE).state(), "recovering", "the old copy came too late to show anything");

    for cookie in [a, b] {
        let reply = host.reply(|_| 0).expect("writes go on after quiesce");
        assert_eq!((reply.cookie, reply.error), (cookie, 0));
    }
    node.await_event(0, "recovered_unproven", |event| event.name == "recovered_unproven");
    assert_eq!(host.flush().expect("a path is there").error, 0);
    let disk = std::fs::read(&image).expect("it is there");
    let found = Stamp::check(offset(0), &disk[offset(0) as usize..offset(0) as usize + BLOCK]);
    assert_eq!(found, Ok(B), "the storage holds what the old process sent");
}

/// With gates that share a register the new process's claim ends the old one's sessions at all of
/// them: the gate that has A may go on at any time, here long after the wait of a crash is over.
#[test]
fn what_the_old_process_sent_through_a_gate_never_lands() {
    let dir = TestDir::new();
    let image = dir.patterned_image("image", 4 << 20, 6);
    let exports = [(DEVICE.to_owned(), image.clone())];
    let [first, second] = [10809, 10810].map(|port| Endpoint::tcp(loopback(), port));
    let stalled = Gate::start(&dir, "gate-a", std::slice::from_ref(&first), &exports);
    let _other = Gate::start(&dir, "gate-b", std::slice::from_ref(&second), &exports);
    let device = Device::new(DEVICE)
        .key(r#"policy = "active-passive""#)
        .key(r#"quiesce = "2s""#)
        .path("a", &first.uri(DEVICE))
        .path_key("priority = 60")
        .path("b", &second.uri(DEVICE))
        .path_key("priority = 40");
    let config = Config::new(&dir).device(device);
    let mut node = Node::start(&dir, &config);
    node.await_state(DEVICE, "a", "up");
    node.await_state(DEVICE, "b", "standby");
    let mut host = node.open(DEVICE);
    stalled.stop();
    host.submit_write(offset(0), &A.fill(offset(0), BLOCK)).expect("the socket takes it");
    wait::until_true("A to be in the queue of the gate that is stopped", || {
        server_queues(stalled.endpoint()).iter().any(|queues| queues.receive_bytes > BLOCK as u64)
    });
    node.process().kill();
    drop(node);

    let node = Node::start(&dir, &config);
    let mut host = node.open(DEVICE);
    for stamp in [A, B] {
        let reply = host.write(offset(0), &stamp.fill(offset(0), BLOCK)).expect("the other gate is there");
        assert_eq!(reply.error, 0);
    }
    assert_eq!(host.flush().expect("a path is there").error, 0);
    // The reset of the killed process came after A: the gate finds both.
    stalled.go_on();
    node.await_path(DEVICE, "a", "to be usable", |path| path.is_up() || path.state == "standby");
    wait::until_true("the gate to have read all that was sent", || {
        server_queues(stalled.endpoint()).iter().all(|queues| queues.receive_bytes == 0)
    });
    let disk = std::fs::read(&image).expect("it is there");
    let found = Stamp::check(offset(0), &disk[offset(0) as usize..offset(0) as usize + BLOCK]);
    assert_eq!(found, Ok(B), "the storage holds what the old process sent");
}

/// A stop in order leaves nothing in doubt: the next process writes at once.
#[test]
fn a_clean_stop_costs_no_wait() {
    let Site { mut node, config, stalled: _a, _other, dir, .. } = site("10min");
    let mut host = node.open(DEVICE);
    assert_eq!(host.write(offset(0), &A.fill(offset(0), BLOCK)).expect("all is well").error, 0);
    drop(host);
    node.terminate(wait::BOUND);
    drop(node);
    let node = Node::start(&dir, &config);
    let mut host = node.open(DEVICE);
    assert_eq!(host.write(offset(0), &B.fill(offset(0), BLOCK)).expect("nothing is in doubt").error, 0);
}
