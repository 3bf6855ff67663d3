// SPDX-License-Identifier: MIT OR Apache-2.0
//! `holdfast explain` while paths are pulled: each state names its rule, its figures with
//! their thresholds, and what would change it; so do the last transitions.

use tests_support::{Json, wait};

use crate::rig::{DEVICE, Fault, Rig, RigOptions};

/// What `holdfast explain --json` says of a path.
fn explained(rig: &Rig, path: &str) -> Json {
    let output = rig.node.cli(&["explain", DEVICE, path, "--json"]);
    assert_eq!(output.status, 0, "{output:?}");
    Json::parse("explain", &output.stdout)
}

fn text(rig: &Rig, path: &str) -> String {
    let output = rig.node.cli(&["explain", &format!("{DEVICE}/{path}"), "--last", "16"]);
    assert_eq!(output.status, 0, "{output:?}");
    output.stdout
}

/// Waits until the present reason of a path is this, and checks that it is complete.
fn await_present(rig: &Rig, path: &str, state: &str, what: &str) {
    drop(presented(rig, path, state, what));
}

/// The same, to look at.
fn presented(rig: &Rig, path: &str, state: &str, what: &str) -> Json {
    let found = wait::until(&format!("{path} is explained: {state}, {what}"), || {
        let document = explained(rig, path);
        let said = document.get("present").get("what").text().to_owned();
        (document.get("state").text() == state && said.contains(what)).then_some(document)
    });
    let present = found.get("present");
    assert!(!present.get("rule").text().is_empty(), "{found:?}");
    assert!(!present.get("until").text().is_empty(), "{found:?}");
    assert!(!present.get("figures").items().is_empty(), "{found:?}");
    found
}

/// The last decision of this kind: it must have been made on a figure that reached its limit.
fn decided(document: &Json, what: &str, rule: &str, figure: &str) {
    let all = document.get("decisions").items();
    let found = all.iter().rev().find(|it| it.get("what").text().contains(what));
    let found = found.unwrap_or_else(|| panic!("`{what}` is not among {all:?}"));
    assert_eq!(found.get("rule").text(), rule, "{found:?}");
    let figures = found.get("figures").items();
    let seen = figures.iter().find(|it| it.get("name").text() == figure);
    let seen = seen.unwrap_or_else(|| panic!("no figure `{figure}` in {found:?}"));
    let (value, limit) = (seen.get("value").number(), seen.get("limit").get("value").number());
    assert!(value >= limit, "{seen:?}");
    assert!(!found.get("until").text().is_empty(), "{found:?}");
}

#[test]
fn a_stopped_server_is_explained_from_suspicion_to_its_return() {
    let mut rig = RigOptions::new(2).for_fault(Fault::Stop).start();
    let load = rig.load();
    rig.await_all_in_use();
    await_present(&rig, "a", "up", "carries requests");

    rig.inject(0, Fault::Stop);
    await_present(&rig, "a", "down", "suspect");
    let given_up = wait::until("the connection is given up", || {
        let document = explained(&rig, "a");
        let all = document.get("decisions").items();
        all.iter().any(|it| it.get("what").text() == "give the connection up").then_some(document)
    });
    decided(&given_up, "give the connection up", "W1", "suspect, no reply");
    let shown = text(&rig, "a");
    for part in ["rule ", "until ", "saw ", "suspect [", "(at least ", "docs/policies/"] {
        assert!(shown.contains(part), "`{part}` is missing:\n{shown}");
    }

    rig.heal(0, Fault::Stop);
    await_present(&rig, "a", "probation", "on probation");
    await_present(&rig, "a", "up", "carries requests");
    decided(&explained(&rig, "a"), "give it a small share", "probation", "good canaries in a row");
    load.finish().assert_clean();
}

#[test]
fn a_dead_server_and_no_path_at_all_are_explained_and_accounted() {
    let mut rig = RigOptions::new(2).start();
    let load = rig.load();
    rig.await_all_in_use();
    rig.inject(0, Fault::Kill);
    let down = presented(&rig, "a", "down", "not connected");
    assert!(!down.get("reason").text().is_empty(), "what was seen: {down:?}");
    rig.inject(1, Fault::Kill);
    rig.node.await_device(DEVICE, "held");
    let output = rig.node.cli(&["explain", DEVICE]);
    for part in ["HELD: no path: requests are held", "requests waiting", "(below 10 min", "device fail-now"] {
        let found = output.stdout.contains(part)
            || part.starts_with("(below") && output.stdout.contains("(below 600 s)");
        assert!(found, "`{part}` is missing:\n{}", output.stdout);
    }
    rig.heal(0, Fault::Kill);
    rig.heal(1, Fault::Kill);
    rig.await_all_in_use();
    load.finish().assert_clean();
    // The outage is on the account of the path that went last.
    let device = Json::parse("explain", &rig.node.cli(&["explain", DEVICE, "--json"]).stdout);
    let causes = device.get("budget").get("causes").items();
    let outage = causes.iter().find(|it| it.get("rule").text() == "3.5");
    let outage = outage.unwrap_or_else(|| panic!("no outage in {causes:?}"));
    assert_eq!(outage.get("path").text(), "b", "{causes:?}");
    assert!(outage.get("unavailable_ms").number() > 0, "{causes:?}");
}

#[test]
fn commands_are_explained() {
    let rig = RigOptions::new(2).start();
    rig.node.await_state(DEVICE, "a", "up");
    rig.node.path_command("drain", DEVICE, "a");
    await_present(&rig, "a", "drained", "path drain");
    rig.node.path_command("fail", DEVICE, "a");
    await_present(&rig, "a", "down", "path fail");
    rig.node.path_command("reinstate", DEVICE, "a");
    await_present(&rig, "a", "up", "carries requests");
    let output = rig.node.cli(&["explain", DEVICE, "none"]);
    assert_eq!(output.status, 1, "{output:?}");
    assert!(output.stderr.contains("its paths are: a, b"), "{output:?}");
}
