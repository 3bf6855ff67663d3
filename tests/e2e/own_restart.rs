// SPDX-License-Identifier: MIT OR Apache-2.0
//! Holdfast itself is killed: what its old process had under way must not surface later
//! (rules W1, W10).

use tests_support::holdfast::{Config, Device, Node};
use tests_support::servers::{NbdServer, Trace};
use tests_support::{Endpoint, Fabric, LinkFault, Relay, Stamp, TestDir, client_queues, loopback, wait};

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
