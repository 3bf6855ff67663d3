// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the simulator found about ends that never came: memory that grew while something failed, and
//! paths that could be used and were not.

use engine::LaneFault;
use nbd::Command::{Read, Write};
use nbd::{CommandFlags, Errno};
use program::{AccessPolicy, DeviceProgram, MILLISECOND, NoPath, SECOND};

use crate::script::{Script, Sent, device, offer};

/// F5: while one old write cannot be flushed, durable ones beside and over it cost no memory.
#[test]
fn a_history_that_cannot_be_cut_stays_small() {
    let mut s = Script::up(&DeviceProgram { retention_bytes: 128 << 10, ..device(1) });
    let old = s.request(Write, 0, 4096);
    let sent = s.take();
    s.answer(sent, Ok(()));
    assert_eq!(s.result(old), Some(Ok(())));
    for n in 0..6000 {
        let tag = s.request_with(Write, CommandFlags::FUA, (n % 500) * 512, 512);
        // A FLUSH of our own is under way and never answered.
        let at = s.sent.iter().position(|sent| sent.command == Write).expect("it is sent");
        let sent = s.sent.remove(at).expect("it is there");
        s.answer(sent, Ok(()));
        assert_eq!(s.result(tag), Some(Ok(())));
    }
    let kept = s.engine.retained_bytes();
    assert!(kept < 256 << 10, "{kept} bytes are kept for one write of 4 KiB");
}

/// 3.4: when nothing is usable, a path on probation that answers goes before one that is silent.
#[test]
fn the_last_resort_is_what_answers() {
    let passive =
        DeviceProgram { access: AccessPolicy::ActivePassive, no_path: NoPath::Hold(5 * SECOND), ..device(2) };
    let mut s = Script::up(&passive);
    s.reset(1);
    s.request(Read, 0, 4096);
    assert_eq!(s.take().path, 0, "from here on path 0 answers nothing");
    s.wait_alive(12 * SECOND, |sent| sent.path == 1);
    assert!(s.events.contains(&"hold_over"));
    s.open_path(1, offer());
    let read = s.request(Read, 8192, 4096);
    assert_eq!(s.result(read), None, "it is held no more");
    let sent = s.sent.iter().copied().find(|sent| sent.offset == 8192 && sent.command == Read);
    assert_eq!(sent.map(|sent: Sent| sent.path), Some(1));
}

/// 3.8: a path that could not be compared is looked at again when the last other one has gone: more
/// may be known by then.
#[test]
fn an_unproven_path_is_looked_at_again_when_the_last_other_one_has_gone() {
    let mut s = Script::new(&DeviceProgram { identity: None, ..device(2) });
    s.open_path(0, offer());
    s.wait(0);
    // What there is, is not known yet when the other path is compared.
    let samples: Vec<_> = s.sent.drain(..).collect();
    s.open_path(1, offer());
    while let Some(read) = s.sent.pop_front() {
        let result = if read.path == 0 { Err(Errno::Io) } else { Ok(()) };
        s.answer(read, result);
    }
    assert_eq!((s.state(0), s.state(1)), ("up", "unproven"));
    for read in samples {
        s.answer_digest(read, u128::from(read.offset) + 1, false);
    }
    assert_eq!(s.state(1), "unproven");
    let lane = s.lanes.iter().find(|(_, path, _)| *path == 0).expect("it is up").0;
    s.down(lane, LaneFault::Closed);
    s.refuse_connect(0);
    for _ in 0..30 {
        s.wait(100 * MILLISECOND);
        while let Some(read) = s.sent.pop_front() {
            s.answer_digest(read, u128::from(read.offset) + 1, false);
        }
    }
    assert_ne!(s.state(1), "unproven");
}
