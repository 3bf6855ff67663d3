// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reload and recording: what reaches the data plane and the state directory.

use std::fs;

use crate::harness::{CONFIG, TestNode};
use program::{Geometry, Recorded, Report, ReportKind};
use serde_json::{Value, json};

const GEOMETRY: Geometry = Geometry {
    size_bytes: 1 << 30,
    transmission_flags: 0x0d6d,
    min_block_bytes: 1,
    preferred_block_bytes: 4096,
    max_payload_bytes: 32 << 20,
};

fn geometry(device: &str) -> Report {
    Report { at: 1, device: device.to_owned(), kind: ReportKind::Geometry(GEOMETRY) }
}

#[test]
fn a_changed_file_becomes_the_next_program() {
    let node = TestNode::start();
    let added = format!(
        "{CONFIG}\n[[device]]\nname = \"vol9\"\n[[device.path]]\nname = \"a\"\nuri = \"nbd://10.0.1.5/vol9\"\n"
    );
    fs::write(node.config_file(), added).expect("written");
    let (code, body) = node.unix("POST", "/v1/reload");
    assert_eq!(code, 200, "{body}");
    let answer: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!((&answer["generation"], &answer["changed"]), (&json!(2), &json!(true)));
    let program = node.last_program().expect("applied");
    assert_eq!((program.generation, program.devices.len()), (2, 3));
    // Listed at once, although it has told nothing yet.
    let status = node.json("/v1/status");
    assert_eq!(
        (&status["devices"][2]["name"], &status["devices"][2]["state"]),
        (&json!("vol9"), &json!("unknown"))
    );
    assert_eq!(status["node"]["generation"], 2);
    // The same file again changes nothing and sends nothing.
    let sent = node.fake.commands.lock().unwrap().len();
    let (_, body) = node.unix("POST", "/v1/reload");
    assert!(body.contains("\"changed\":false"), "{body}");
    assert_eq!(node.fake.commands.lock().unwrap().len(), sent);
}

#[test]
fn a_bad_file_changes_nothing_and_lists_all_mistakes() {
    let node = TestNode::start();
    fs::write(node.config_file(), "[node]\nnmae = 1\n[[device]]\nname = \"vol0\"\n").expect("written");
    let (code, body) = node.unix("POST", "/v1/reload");
    assert_eq!(code, 422, "{body}");
    let answer: Value = serde_json::from_str(&body).expect("JSON");
    let mistakes = answer["mistakes"].as_str().expect("rendered");
    assert!(mistakes.contains("unknown key `nmae`") && mistakes.contains("has no path"), "{mistakes}");
    assert!(
        answer["error"].as_str().expect("error").contains("2 mistakes; the old one stays in force"),
        "{body}"
    );
    assert!(node.last_program().is_none());
    assert_eq!(node.json("/v1/status")["node"]["generation"], 1);
    fs::remove_file(node.config_file()).expect("removed");
    let (code, body) = node.unix("POST", "/v1/reload");
    assert_eq!(code, 422, "{body}");
    assert!(body.contains("cannot read the configuration"), "{body}");
}

#[test]
fn sighup_reloads_too() {
    let node = TestNode::start();
    node.sighup();
    node.event(0, |event| event["name"] == "reloaded");
    fs::write(node.config_file(), "nonsense").expect("written");
    node.sighup();
    let event = node.event(0, |event| event["name"] == "reload_failed");
    assert!(event["text"].as_str().expect("text").contains("stays in force"), "{event}");
}

#[test]
fn what_only_a_restart_changes_is_said_and_kept() {
    let node = TestNode::start();
    let changed = CONFIG.replace("name = \"m1\"", "name = \"m2\"\nreactors = 3");
    fs::write(node.config_file(), changed).expect("written");
    let (code, body) = node.unix("POST", "/v1/reload");
    assert_eq!(code, 200, "{body}");
    let answer: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(
        answer["warnings"],
        json!([
            "`name` stays \"m1\" until the node is restarted (the file says \"m2\")",
            "`reactors` stays \"auto\" until the node is restarted (the file says 3)",
        ])
    );
    assert_eq!(answer["changed"], false);
    let values = node.json("/v1/config")["values"].clone();
    let reactors = values.as_array().expect("list").iter().find(|value| value["key"] == "reactors").cloned();
    assert_eq!(reactors.expect("shown")["value"], "\"auto\"");
}

#[test]
fn what_devices_report_is_recorded() {
    let mut node = TestNode::start();
    node.sink.push(Report { at: 1, device: "vol0".to_owned(), kind: ReportKind::Samples(vec![(4096, 7)]) });
    node.sink.push(geometry("vol0"));
    node.sink.push(geometry("x/y z"));
    // Not configured: nothing to record.
    node.sink.push(geometry("stranger"));
    node.stop();
    let state = controlplane::state::StateDir::open(&node.dir.path().join("state")).expect("free now");
    assert_eq!(state.load("vol0"), Some(Recorded { geometry: GEOMETRY, samples: vec![(4096, 7)] }));
    assert_eq!(state.load("x/y z"), Some(Recorded { geometry: GEOMETRY, samples: vec![] }));
    assert_eq!(state.load("stranger"), None);
}

#[test]
fn a_reload_does_not_make_known_devices_look_changed() {
    // The data plane compares devices to see what changed: what was recorded
    // since the start must not be a difference.
    let node = TestNode::start();
    node.sink.push(geometry("vol0"));
    node.event(0, |event| event["name"] == "geometry");
    let (_, body) = node.unix("POST", "/v1/reload");
    assert!(body.contains("\"changed\":false"), "{body}");
}

/// W10: the next start is told of a crash, unless the device said that it left nothing in doubt.
#[test]
fn a_clean_stop_is_noted() {
    for clean in [true, false] {
        let mut node = TestNode::start();
        if clean {
            node.sink.push(Report { at: 1, device: "vol0".to_owned(), kind: ReportKind::Clean });
        }
        node.stop();
        let state = controlplane::state::StateDir::open(&node.dir.path().join("state")).expect("free now");
        assert_eq!(
            state.mark_running("vol0", &[]).expect("read") == controlplane::state::Left::Nothing,
            clean
        );
    }
}

/// F9: a loss is recorded, also that of a device which was taken out of the configuration a moment ago; and what an
/// operator has taken note of is no loss any more.
#[test]
fn a_loss_is_recorded() {
    let loss = |device: &str, why: Option<&str>| Report {
        at: 1,
        device: device.to_owned(),
        kind: ReportKind::Loss(why.map(str::to_owned)),
    };
    let mut node = TestNode::start();
    node.sink.push(loss("vol0", Some("first")));
    node.sink.push(loss("x/y z", Some("second")));
    node.sink.push(loss("stranger", Some("third")));
    node.event(0, |event| event["name"] == "loss_noted");
    node.sink.push(loss("vol0", None));
    node.stop();
    let state = controlplane::state::StateDir::open(&node.dir.path().join("state")).expect("free now");
    assert_eq!(state.loss("vol0"), None);
    assert_eq!(state.loss("x/y z").as_deref(), Some("second"));
    assert_eq!(state.loss("stranger"), None);
}

#[test]
fn a_record_that_cannot_be_written_is_told_once() {
    let mut node = TestNode::start();
    let devices = node.dir.path().join("state/devices");
    fs::remove_dir_all(&devices).expect("removed");
    fs::write(&devices, "in the way").expect("written");
    node.sink.push(geometry("vol0"));
    let event = node.event(0, |event| event["name"] == "state_not_written");
    assert_eq!(event["device"], "vol0");
    // Once the way is free, the next report writes both.
    fs::remove_file(&devices).expect("removed");
    fs::create_dir(&devices).expect("created");
    node.sink.push(geometry("x/y z"));
    node.stop();
    let state = controlplane::state::StateDir::open(&node.dir.path().join("state")).expect("free now");
    assert!(state.load("vol0").is_some() && state.load("x/y z").is_some());
}
