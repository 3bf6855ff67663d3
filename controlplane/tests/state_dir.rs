// SPDX-License-Identifier: MIT OR Apache-2.0
//! The state directory: what survives a restart, a crash and damage.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use controlplane::state::{Left, StateDir};
use program::{Geometry, Recorded};

fn recorded() -> Recorded {
    Recorded {
        geometry: Geometry {
            size_bytes: 1 << 30,
            transmission_flags: 0x0d6d,
            min_block_bytes: 1,
            preferred_block_bytes: 4096,
            max_payload_bytes: 32 << 20,
        },
        samples: vec![(0, 0x00ff), (512 << 20, u128::MAX - 1)],
    }
}

fn files(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir.join("devices")).expect("readable");
    let mut names: Vec<_> =
        entries.map(|e| e.expect("entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn a_record_survives_the_restart() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let path = dir.path().join("state");
    let state = StateDir::open(&path).expect("opens");
    assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o700);
    assert_eq!(state.load("vol0"), None);
    state.store("vol0", &recorded()).expect("stored");
    state.store("a/../b", &recorded()).expect("stored");
    drop(state);
    let state = StateDir::open(&path).expect("opens again");
    assert_eq!(state.load("vol0"), Some(recorded()));
    assert_eq!(state.load("a/../b"), Some(recorded()));
    assert_eq!(state.load("a"), None);
    assert_eq!(files(&path), ["a%2F%2E%2E%2Fb.json", "vol0.json"]);
}

#[test]
fn two_nodes_do_not_share_a_directory() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let first = StateDir::open(dir.path()).expect("opens");
    let error = StateDir::open(dir.path()).expect_err("held").to_string();
    let own = format!("another node (process {}) uses the state directory", std::process::id());
    assert!(error.contains(&own) && error.contains("--state-dir"), "{error}");
    drop(first);
    StateDir::open(dir.path()).expect("free again");
}

#[test]
fn a_directory_that_cannot_be_made_is_explained() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let file = dir.path().join("file");
    fs::write(&file, "").expect("written");
    // Below a file nobody can create anything, not even root.
    let error = StateDir::open(&file.join("state")).expect_err("refused").to_string();
    assert!(error.contains("cannot create the state directory") && error.contains("--state-dir"), "{error}");
}

#[test]
fn a_damaged_record_is_set_aside_and_absent() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let state = StateDir::open(dir.path()).expect("opens");
    let file = dir.path().join("devices/vol0.json");
    state.store("vol0", &recorded()).expect("stored");
    let good = fs::read_to_string(&file).expect("readable");
    for (n, bad) in ["", &good[..good.len() / 2], "{\"format\":99}", "\u{0}\u{0}\u{0}"].iter().enumerate() {
        fs::write(&file, bad).expect("written");
        assert_eq!(state.load("vol0"), None, "{bad:?}");
        assert!(!file.exists());
        let kept = dir.path().join(format!("devices/vol0.json.set-aside-{}", n + 1));
        assert_eq!(fs::read_to_string(kept).expect("kept for a look"), *bad);
    }
    // Ten are kept at most.
    for _ in 0..8 {
        fs::write(&file, "x").expect("written");
        assert_eq!(state.load("vol0"), None);
    }
    assert_eq!(files(dir.path()).len(), 10);
    // And a new record is taken.
    state.store("vol0", &recorded()).expect("stored");
    assert_eq!(state.load("vol0"), Some(recorded()));
}

#[test]
fn a_crash_in_the_middle_of_writing_leaves_the_old_record() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let state = StateDir::open(dir.path()).expect("opens");
    state.store("vol0", &recorded()).expect("stored");
    drop(state);
    // What the crash left: half of a new record under the temporary name.
    fs::write(dir.path().join("devices/vol0.json.tmp"), "{\"format\":1,\"crc").expect("written");
    let state = StateDir::open(dir.path()).expect("opens");
    assert_eq!(state.load("vol0"), Some(recorded()));
    assert_eq!(files(dir.path()), ["vol0.json"]);
}

#[test]
fn records_of_every_format_are_read() {
    let golden = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/state");
    let dir = tempfile::tempdir().expect("temporary directory");
    let state = StateDir::open(dir.path()).expect("opens");
    fs::copy(golden.join("format-1.json"), dir.path().join("devices/vol0.json")).expect("copied");
    assert_eq!(state.load("vol0"), Some(recorded()));
    // Today's format is the last one there is a golden file of.
    state.store("vol0", &recorded()).expect("stored");
    let written = fs::read_to_string(dir.path().join("devices/vol0.json")).expect("readable");
    assert_eq!(written, fs::read_to_string(golden.join("format-1.json")).expect("readable"));
}

/// W10: the marker of a running device outlives a crash and nothing else.
#[test]
fn a_marker_tells_of_a_crash() {
    let dir = tempfile::tempdir().expect("a directory");
    let state = StateDir::open(dir.path()).expect("opened");
    let marked = |state: &StateDir, device, uris: &[&str]| state.mark_running(device, uris).expect("marked");
    assert_eq!(marked(&state, "vol0", &["nbd://a"]), Left::Nothing, "nobody served it before");
    drop(state);
    let state = StateDir::open(dir.path()).expect("opened again");
    assert_eq!(marked(&state, "vol0", &["nbd://a"]), Left::OnThese, "no clean stop was noted");
    state.mark_clean("vol0").expect("noted");
    state.mark_clean("vol0").expect("noted twice");
    assert_eq!(marked(&state, "vol0", &["nbd://a"]), Left::Nothing);
    assert_eq!(marked(&state, "x/y z", &["nbd://a"]), Left::Nothing, "each device has its own");
}

/// F9: a loss outlives the process, until an operator has taken note; a record of one that cannot be read is one.
#[test]
fn a_loss_is_remembered_until_it_is_cleared() {
    let dir = tempfile::tempdir().expect("a directory");
    let state = StateDir::open(dir.path()).expect("opened");
    assert_eq!(state.loss("vol0"), None);
    state.note_loss("vol0", Some("a cache was lost")).expect("noted");
    drop(state);
    let state = StateDir::open(dir.path()).expect("opened again");
    assert_eq!(state.loss("vol0").as_deref(), Some("a cache was lost"));
    assert_eq!(state.loss("x/y z"), None, "each device has its own");
    state.note_loss("vol0", None).expect("cleared");
    state.note_loss("vol0", None).expect("cleared twice");
    assert_eq!(state.loss("vol0"), None);
    fs::create_dir(dir.path().join("devices/vol0.lost")).expect("in the way");
    assert!(state.loss("vol0").is_some_and(|why| why.contains("cannot be read")));
}

/// W10: a volume that has another name now, over a crash or by a reload: what is in doubt of it goes with its paths.
#[test]
fn a_marker_of_another_name_is_taken_over() {
    let dir = tempfile::tempdir().expect("a directory");
    let state = StateDir::open(dir.path()).expect("opened");
    let marked = |name, uris: &[&str]| state.mark_running(name, uris).expect("marked");
    marked("old", &["nbd://a", "nbd://b"]);
    marked("stays", &["nbd://s"]);
    assert_eq!(state.others_over("new", &["nbd://x"]), []);
    for (uris, left) in [(&["nbd://b"][..], Left::Elsewhere), (&["nbd://a", "nbd://b"][..], Left::OnThese)] {
        let others = state.others_over("new", uris);
        assert_eq!(others.len(), 1, "{uris:?}");
        assert_eq!(state.take_over("new", uris, &others, &["new", "stays"]).expect("taken over"), left);
        assert_eq!(state.others_over("new", uris), [], "its marker is gone");
        // What it left is this one's now, over any number of crashes.
        assert_ne!(marked("new", &["nbd://b"]), Left::Nothing);
        state.mark_clean("new").expect("noted");
        assert_eq!(marked("new", &["nbd://b"]), Left::Nothing);
        state.mark_clean("new").expect("noted");
        marked("old", &["nbd://a", "nbd://b"]);
    }
    // One that is served itself keeps its marker.
    let others = state.others_over("new", &["nbd://s"]);
    assert_eq!(
        state.take_over("new", &["nbd://s"], &others, &["new", "stays"]).expect("noted"),
        Left::OnThese
    );
    assert_eq!(marked("stays", &["nbd://s"]), Left::OnThese);
    // One that cannot be read may be of any.
    fs::create_dir(dir.path().join("devices/broken.running")).expect("in the way");
    let others = state.others_over("free", &["nbd://f"]);
    assert_eq!(others.len(), 1);
    assert_eq!(
        state.take_over("free", &["nbd://f"], &others, &["free", "broken"]).expect("noted"),
        Left::Elsewhere
    );
}

/// W10: a path that was taken out is remembered until a clean stop, over any number of crashes.
#[test]
fn a_marker_remembers_paths_that_are_gone() {
    let dir = tempfile::tempdir().expect("a directory");
    let state = StateDir::open(dir.path()).expect("opened");
    let marked = |uris: &[&str]| state.mark_running("vol0", uris).expect("marked");
    assert_eq!(marked(&["nbd://a", "nbd://b"]), Left::Nothing);
    assert_eq!(marked(&["nbd://b", "nbd://c"]), Left::Elsewhere, "a is gone");
    assert_eq!(marked(&["nbd://b", "nbd://c"]), Left::Elsewhere, "and stays gone");
    assert_eq!(marked(&["nbd://a", "nbd://b", "nbd://c", "nbd://d"]), Left::OnThese);
    state.mark_clean("vol0").expect("noted");
    assert_eq!(marked(&["nbd://d"]), Left::Nothing);
    // As an earlier version left it.
    fs::write(dir.path().join("devices/vol0.running"), "").expect("written");
    assert_eq!(marked(&["nbd://d"]), Left::Elsewhere, "nobody knows which it had");
}
