// SPDX-License-Identifier: MIT OR Apache-2.0
//! What users of comparable systems complain of, tried with real servers and links
//! (`docs/complaints.md`; the numbers are its rows).

use std::time::Duration;

use tests_support::{Load, TestDir, wait};

use crate::rig::{DEVICE, Fault, Rig, RigOptions};

const MIB: u64 = 1 << 20;

/// Events that tell of a path. What the identity record learns in the background is none.
fn path_events(rig: &Rig, after: u64, path: &str) -> Vec<String> {
    let events = rig.node.events_after(after);
    let of_path = events.iter().filter(|event| event.path == path && event.name != "samples");
    of_path.map(|event| event.json.to_string()).collect()
}

/// 6: the checker says good, I/O fails, the path flaps for ever. Here every read of a path is good, its canaries
/// with them, and every write fails.
#[test]
fn complaint_6_good_checks_do_not_keep_a_bad_path_in_use() {
    let dir = TestDir::new();
    let trigger = dir.join("writes-fail");
    let file = format!("error-pwrite-file={}", trigger.display());
    let mut rig =
        RigOptions::new(2).filter(0, "error", &["error-pwrite=EIO", "error-pwrite-rate=100%", &file]).start();
    let load = rig.load();
    rig.await_all_in_use();
    let before = rig.node.last_event();
    std::fs::write(&trigger, "").expect("it can be written");
    let out = rig.node.await_event(before, "the path to be kept out", |event| {
        event.path == "a" && matches!(event.name.as_str(), "path_held_out" | "path_marginal")
    });
    println!("{}", out.json);
    load.await_progress(1000);
    let (seen, answered) = (rig.node.last_event(), rig.node.path(DEVICE, "a").completed());
    // While it is out it neither flaps nor gets anything but canaries and what probation asks for.
    wait::pass(Duration::from_secs(8));
    load.await_progress(1000);
    let events = path_events(&rig, seen, "a");
    assert!(events.len() <= 4, "it flaps: {events:#?}");
    let more = rig.node.path(DEVICE, "a").completed() - answered;
    assert!(more <= 100, "{more} requests on a path that fails every write");

    std::fs::remove_file(&trigger).expect("it is ours");
    rig.node.path_command("reinstate", DEVICE, "a");
    rig.await_all_in_use();
    load.finish().assert_clean();
    rig.node.process().assert_running();
}

/// 11: plain load marks a member faulty. 256 requests wait at two servers that take one at a time.
#[test]
fn complaint_11_load_alone_makes_no_path_faulty() {
    let delay = ["rdelay=2ms", "wdelay=2ms"];
    let rig = RigOptions::new(2).filter(0, "delay", &delay).filter(1, "delay", &delay).start();
    rig.node.await_in_use(DEVICE, rig.paths(), 0);
    let before = rig.node.last_event();
    let load = Load::options().region(0, 4 * MIB).depth(256).start(rig.node.host(), DEVICE);
    let answered = load.answered();
    wait::pass(Duration::from_secs(10));
    assert!(load.answered() > answered, "nothing is answered");
    for path in rig.paths() {
        let status = rig.node.path(DEVICE, path);
        assert!(status.inflight > 16, "{path} is not loaded: {status:?}");
        assert_eq!((status.state.as_str(), status.errors), ("up", 0), "{status:?}");
        let events = path_events(&rig, before, path);
        assert!(events.is_empty(), "{events:#?}");
    }
    let report = load.finish();
    report.assert_clean();
    println!(
        "{} requests of 256 in flight, longest silence {:?}",
        report.reads + report.writes,
        report.longest_gap
    );
}

/// 16: a flickering adapter: thousands of log lines, endless resets.
#[test]
fn complaint_16_a_flickering_link_makes_no_storm() {
    const FLICKERS: usize = 100;
    let mut rig = RigOptions::new(2).start();
    let load = rig.load();
    rig.await_all_in_use();
    let before = rig.node.last_event();
    let lines = |rig: &mut Rig| rig.node.process().log().lines().count();
    let lines_before = lines(&mut rig);
    let descriptors = rig.node.process().descriptors();
    for _ in 0..FLICKERS {
        rig.inject(0, Fault::Reset);
        wait::pass(Duration::from_millis(50));
        rig.heal(0, Fault::Reset);
        wait::pass(Duration::from_millis(50));
    }
    load.await_progress(1000);
    let events = path_events(&rig, before, "a");
    let written = lines(&mut rig) - lines_before;
    println!("{FLICKERS} flickers: {} events, {written} lines", events.len());
    assert!(!events.is_empty(), "the link did not flicker");
    assert!(events.len() <= 150 && written <= 70, "{} events, {written} lines", events.len());
    assert!(rig.node.process().descriptors() <= descriptors + 4, "connections pile up");
    assert!(path_events(&rig, before, "b").is_empty(), "the other path is well");

    rig.node.path_command("reinstate", DEVICE, "a");
    rig.await_all_in_use();
    load.finish().assert_clean();
}
