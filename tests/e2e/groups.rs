// SPDX-License-Identifier: MIT OR Apache-2.0
//! Groups by priority: the best one that has a usable path carries the I/O.

use tests_support::holdfast::{Config, Device, Gate, Node};
use tests_support::{Endpoint, Fabric, LinkFault, Load, Relay, TestDir, loopback};

use crate::rig::{DEVICE, Fault, RigOptions};

/// One server at two addresses: while one of them carries the path has not failed (3.4, `portals`).
#[test]
fn a_portal_is_left_before_the_path_is() {
    let dir = TestDir::new();
    let fabric = Fabric::new(2);
    let exports = [(DEVICE.to_owned(), dir.patterned_image("image", 8 << 20, 3))];
    let portals = [fabric.endpoint(0), fabric.endpoint(1)];
    let gate = Gate::start(&dir, "gate", &[Endpoint::tcp(loopback(), Fabric::PORT)], &exports);
    let _relays = [0, 1].map(|link| Relay::start(fabric.storage(), &portals[link], gate.endpoint()));
    let Endpoint::Tcp(second) = &portals[1] else { panic!("links are TCP") };
    let device =
        Device::new(DEVICE).path("a", &portals[0].uri(DEVICE)).path_key(&format!("portals = [\"{second}\"]"));
    let node = Node::start_within(fabric.host(), &dir, &Config::new(&dir).device(device));
    node.await_state(DEVICE, "a", "up");
    let load = Load::options().start(node.host(), DEVICE);
    node.await_in_use(DEVICE, &["a"], 200);
    for (link, fault) in [(0, LinkFault::Reset), (1, LinkFault::DropToStorage), (0, LinkFault::Down)] {
        let before = node.last_event();
        fabric.inject(link, fault);
        let moved = node.await_event(before, "another portal", |event| {
            event.json.get("text").text().contains("go on over another portal")
        });
        assert_eq!(moved.path, "a");
        node.await_in_use(DEVICE, &["a"], 200);
        fabric.heal(link);
    }
    assert_eq!(node.path(DEVICE, "a").state, "up");
    let held: Vec<_> =
        node.events_after(0).into_iter().filter(|event| event.name == "path_held_out").collect();
    assert!(held.is_empty(), "{held:?}");
    load.finish().assert_clean();
}

/// `failback = "after"`: the better group carries again only when it has been usable for so long.
#[test]
fn a_better_group_takes_over_after_its_time() {
    let mut rig = RigOptions::new(2)
        .key(r#"failback = "3s""#)
        .path_key(0, "priority = 60")
        .path_key(1, "priority = 40")
        .start();
    let load = rig.load();
    rig.node.await_in_use(DEVICE, &["a"], 200);
    rig.inject(0, Fault::Kill);
    rig.node.await_in_use(DEVICE, &["b"], 200);
    rig.heal(0, Fault::Kill);
    let waits = |rig: &crate::rig::Rig| {
        let all = rig.node.events_after(0);
        all.iter().any(|event| event.json.get("text").text().contains("stay with the lower group"))
    };
    rig.node.await_in_use(DEVICE, &["a"], 200);
    assert!(waits(&rig), "it took over without having been stable");
    load.finish().assert_clean();
}

#[test]
fn a_lower_group_stands_in_and_hands_back() {
    let mut rig = RigOptions::new(2)
        .key(r#"failback = "immediate""#)
        .path_key(0, "priority = 60")
        .path_key(1, "priority = 40")
        .start();
    let load = rig.load();
    rig.node.await_state(DEVICE, "a", "up");
    rig.node.await_state(DEVICE, "b", "standby");
    let idle = rig.node.path(DEVICE, "b").completed();
    rig.node.await_in_use(DEVICE, &["a"], 200);
    assert_eq!(rig.node.path(DEVICE, "b").completed(), idle, "a lower group carried requests");

    rig.inject(0, Fault::Kill);
    rig.node.await_in_use(DEVICE, &["b"], 200);
    rig.heal(0, Fault::Kill);
    rig.node.await_in_use(DEVICE, &["a"], 200);
    rig.node.await_state(DEVICE, "b", "standby");
    load.finish().assert_clean();
}
