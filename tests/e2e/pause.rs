// SPDX-License-Identifier: MIT OR Apache-2.0
//! Holdfast itself is stopped for a while (rule W17): its own pause is no fault of a path.

use std::collections::HashMap;
use std::time::Duration;

use tests_support::wait;
use tests_support::wire::command;

use crate::rig::{DEVICE, Rig, RigOptions};

/// Longer than every deadline and canary time that is configured.
const PAUSE: Duration = Duration::from_secs(5);

#[test]
fn a_stopped_holdfast_blames_no_path() {
    let mut rig = RigOptions::new(2).misbehaving().start();
    let load = rig.load();
    rig.await_all_in_use();
    let event = rig.node.last_event();
    let connections = |rig: &Rig| [0, 1].map(|path| rig.storage(path).record().connections());
    let connected = connections(&rig);

    rig.node.process().stop();
    let answered = load.await_standstill();
    wait::pass(PAUSE);
    assert_eq!(load.answered(), answered, "holdfast was not stopped");
    rig.node.process().go_on();

    // Half of it are writes.
    load.await_progress(4000);
    rig.await_all_in_use();
    let report = load.finish();
    report.assert_clean();
    assert!(report.longest_gap >= PAUSE, "the pause did not reach the host: {report:?}");

    let mut events = rig.node.events_after(event);
    // What the identity record learns in the background has nothing to do with a path.
    events.retain(|event| !event.path.is_empty() || event.name != "samples");
    assert!(events.is_empty(), "a pause of our own is no event of a path: {events:?}");
    assert_eq!(connections(&rig), connected, "a path reconnected");
    assert_eq!(rig.node.device(DEVICE).number("resent"), 0);
    // Each write has a content of its own: the same content twice is a re-send.
    let mut seen: HashMap<(u64, u64), usize> = HashMap::new();
    for path in 0..2 {
        for entry in rig.storage(path).record().requests() {
            if entry.command == command::WRITE {
                *seen.entry((entry.offset, entry.head)).or_default() += 1;
            }
        }
    }
    assert!(seen.len() > 1000, "the storage saw only {} writes", seen.len());
    let twice: Vec<_> = seen.iter().filter(|(_, count)| **count > 1).collect();
    assert!(twice.is_empty(), "writes sent more than once: {twice:?}");
}
