// SPDX-License-Identifier: MIT OR Apache-2.0
//! Groups by priority: the best one that has a usable path carries the I/O.

use crate::rig::{DEVICE, Fault, RigOptions};

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
