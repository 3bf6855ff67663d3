// SPDX-License-Identifier: MIT OR Apache-2.0
//! Groups by priority, by what gates say and by measured latency: the best one that has a usable path carries the I/O.

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

/// Two gates of one volume, one of which says that it is not the way to go: it stands by, carries when the other dies,
/// and is as good as the other when it says so after a restart.
#[test]
fn gates_say_which_way_to_go() {
    let dir = TestDir::new();
    let image = dir.patterned_image("image", 8 << 20, 3);
    let ip = loopback();
    let start = |name: &str, port: u16, access: &str| {
        let exports = [(DEVICE.to_owned(), format!("{image}{access}"))];
        Gate::start(&dir, name, &[Endpoint::tcp(ip, port)], &exports)
    };
    let mut near = start("near", 10809, "");
    let far = start("far", 10810, ",access=non-optimized");
    let device = Device::new(DEVICE)
        .key(r#"failback = "immediate""#)
        .path("a", &near.endpoint().uri(DEVICE))
        .path("b", &far.endpoint().uri(DEVICE));
    let node = Node::start(&dir, &Config::new(&dir).device(device));
    node.await_state(DEVICE, "a", "up");
    node.await_state(DEVICE, "b", "standby");
    let told = |path: &str| {
        let document = node.device(DEVICE);
        let paths = document.json().get("paths").items();
        let of = paths.iter().find(|it| it.get("name").text() == path).expect("it is there");
        (of.get("access_state").text().to_owned(), of.get("group").number())
    };
    assert_eq!(told("a"), ("optimized".to_owned(), 1));
    assert_eq!(told("b"), ("non-optimized".to_owned(), 2));
    let load = Load::options().start(node.host(), DEVICE);
    node.await_in_use(DEVICE, &["a"], 200);
    assert_eq!(node.path(DEVICE, "b").writes, 0, "a lesser group carried requests");
    near.process().kill();
    node.await_in_use(DEVICE, &["b"], 200);
    assert_eq!(node.path(DEVICE, "b").access, "non-optimized");
    let _near = start("near-again", 10809, ",access=optimized");
    node.await_in_use(DEVICE, &["a"], 200);
    node.await_state(DEVICE, "b", "standby");
    drop(far);
    let _far = start("far-again", 10810, "");
    node.await_in_use(DEVICE, &["a", "b"], 200);
    assert_eq!(told("b"), ("optimized".to_owned(), 1));
    load.finish().assert_clean();
}

/// `groups = "latency"`: the far path is configured first and connects first; it stands by once it is known to be far,
/// carries while the near ones are away, and is not blamed for being far.
#[test]
fn far_storage_is_used_when_nothing_is_near() {
    let mut rig = RigOptions::new(3)
        .key(r#"groups = "latency""#)
        .key(r#"failback = "immediate""#)
        .filter(0, "delay", &["delay-read=30ms", "delay-write=30ms"])
        .start();
    let moved = rig.node.await_event(0, "a far path", |event| event.name == "path_distance");
    assert_eq!(moved.path, "a");
    rig.node.await_state(DEVICE, "a", "standby");
    let load = rig.load();
    let before = rig.node.path(DEVICE, "a").writes;
    rig.node.await_in_use(DEVICE, &["b", "c"], 500);
    assert_eq!(rig.node.path(DEVICE, "a").writes, before, "a write went the long way");
    rig.inject(1, Fault::Kill);
    rig.inject(2, Fault::Kill);
    rig.node.await_in_use(DEVICE, &["a"], 50);
    assert_eq!(rig.node.path(DEVICE, "a").state, "up");
    rig.heal(1, Fault::Kill);
    rig.heal(2, Fault::Kill);
    rig.node.await_in_use(DEVICE, &["b", "c"], 500);
    rig.node.await_state(DEVICE, "a", "standby");
    let slow = rig.node.events_after(0).into_iter().any(|event| event.name == "path_slow");
    assert!(!slow, "a far path was called slow");
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
