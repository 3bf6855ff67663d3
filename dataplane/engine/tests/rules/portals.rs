// SPDX-License-Identifier: MIT OR Apache-2.0
//! Several addresses of one server (design 3.4): a lost portal is no lost path.

use engine::{Event, LaneFault, LaneId, TcpSample};
use nbd::Command::Read;
use program::{DeviceProgram, MILLISECOND, Portal, SECOND, Target};

use crate::script::{Script, device, offer};

fn two_portals() -> DeviceProgram {
    let mut program = device(2);
    if let Target::Nbd { portals, .. } = &mut program.paths[0].target {
        portals.push(Portal::Tcp { host: "s0-b".into(), port: 10809 });
    }
    program
}

fn portal_of(s: &Script, lane: LaneId) -> usize {
    s.portals.iter().find(|(of, _)| *of == lane).expect("it was opened").1
}

fn opening(s: &Script, path: usize) -> LaneId {
    s.opening.iter().find(|(_, of)| *of == path).expect("the path is connecting").0
}

/// A reset of one portal with the other alive: connected over that one at once, without
/// probation, and the failure limit hears nothing of it, however often.
#[test]
fn a_lost_portal_is_no_lost_path() {
    let mut s = Script::up(&two_portals());
    assert_eq!(portal_of(&s, s.lanes[0].0), 0);
    for n in 0..10 {
        s.reset(0);
        s.wait(0);
        let lane = opening(&s, 0);
        assert_eq!(portal_of(&s, lane), 1 - n % 2, "the other one first");
        s.open(lane, offer());
        assert_eq!(s.state(0), "up", "no probation");
        s.wait_alive(SECOND, |_| true);
    }
    assert!(!s.events.contains(&"path_held_out"));
    let decisions = s.engine.explain(s.now).paths[0].decisions.clone();
    assert!(decisions.iter().any(|decision| decision.what == "go on over another portal"));
}

/// The path has failed when every portal was tried, once however often they are tried again.
#[test]
fn a_path_has_failed_when_all_its_portals_have() {
    let mut s = Script::up(&two_portals());
    for n in 1..=6 {
        let lost = s.lanes.iter().find(|(_, path, _)| *path == 0).expect("it is up").0;
        let lost = portal_of(&s, lost);
        s.reset(0);
        s.wait(0);
        assert_eq!(portal_of(&s, opening(&s, 0)), 1 - lost);
        s.refuse_connect(0);
        s.wait(0);
        assert_eq!(portal_of(&s, opening(&s, 0)), lost, "the lost one last, and at once");
        s.refuse_connect(0);
        assert!(s.opening.is_empty(), "then each by its own back-off");
        s.wait_alive(300 * MILLISECOND, |_| true);
        s.refuse_connect(0);
        s.wait_alive(SECOND, |_| true);
        s.open_path(0, offer());
        s.wait_alive(SECOND, |_| true);
        assert_eq!(s.state(0), if n == 6 { "held" } else { "probation" }, "{n} failures");
        s.wait_alive(15 * SECOND, |_| true);
    }
}

/// A minute over the lesser portal, and the better one is tried beside it: the connection in use
/// is given up when the better one has passed, not before; one that fails changes nothing.
#[test]
fn the_better_portal_is_tried_beside_the_one_in_use() {
    let mut s = Script::up(&two_portals());
    s.reset(0);
    s.wait(0);
    s.open_path(0, offer());
    s.wait_alive(59 * SECOND, |_| true);
    assert!(s.opening.is_empty());
    s.wait_alive(2 * SECOND, |_| true);
    assert_eq!(portal_of(&s, opening(&s, 0)), 0);
    assert_eq!(s.state(0), "up");
    s.refuse_connect(0);
    assert_eq!(s.state(0), "up");
    s.wait_alive(SECOND, |_| true);
    let better = opening(&s, 0);
    let old = s.lanes.iter().find(|(_, path, _)| *path == 0).expect("in use").0;
    let read = s.request(Read, 0, 4096);
    let busy = s.take();
    s.open(better, offer());
    assert_eq!(s.state(0), "up");
    if busy.path == 0 {
        assert!(s.closing.is_empty(), "it finishes what it has");
    }
    s.answer(busy, Ok(()));
    assert_eq!(s.result(read), Some(Ok(())));
    assert!(s.closing.iter().any(|(lane, _)| *lane == old));
    s.down(old, LaneFault::ByUs);
    for n in 0..4 {
        s.request(Read, n * 4096, 4096);
    }
    assert!(s.sent.iter().any(|sent| sent.lane == better));
    assert_eq!((s.state(0), s.engine.status(s.now).paths[0].lanes_up), ("up", 1));
}

/// A silent link: the other portal is tried while the silent connection is still open, so the
/// path is back before the silence is proven a loss.
#[test]
fn a_silent_link_is_left_for_another_portal() {
    let mut s = Script::up(&two_portals());
    s.request(Read, 0, 4096);
    s.request(Read, 4096, 4096);
    let lane = s.sent.iter().find(|sent| sent.path == 0).expect("by turns").lane;
    s.wait_alive(300 * MILLISECOND, |sent| sent.path == 1);
    let silent = TcpSample { unacked: 1, last_ack_ms: 290, rto_us: 10_000, ..TcpSample::default() };
    s.event(Event::Tcp { lane, sample: silent });
    let beside = opening(&s, 0);
    assert_eq!(portal_of(&s, beside), 1);
    s.open(beside, offer());
    assert_eq!(s.state(0), "up", "{}", s.reason(0));
    s.wait_alive(1_100 * MILLISECOND, |sent| sent.lane != lane);
    assert!(s.closing.iter().any(|(closed, _)| *closed == lane), "W1: a silent link is aborted");
    s.down(lane, LaneFault::ByUs);
    assert_eq!(s.state(0), "up");
    assert!(!s.events.contains(&"path_held_out"));
}

/// A link that is cut on this side shows no silence to the kernel: canaries are late, and that is enough to try the other
/// portal beside it, also on the only path.
#[test]
fn a_late_canary_has_another_portal_tried() {
    let mut program = device(1);
    program.paths[0] = two_portals().paths[0].clone();
    let mut s = Script::up(&program);
    let read = s.request(Read, 0, 4096);
    let stuck = s.take();
    s.wait_alive(3_900 * MILLISECOND, |sent| sent.lane != stuck.lane);
    assert!(s.opening.is_empty(), "the last path has patience");
    s.wait_alive(SECOND, |sent| sent.lane != stuck.lane);
    let lane = opening(&s, 0);
    assert_eq!(portal_of(&s, lane), 1);
    s.open(lane, offer());
    let moved = loop {
        s.wait_alive(100 * MILLISECOND, |sent| sent.lane != stuck.lane);
        if let Some(at) = s.sent.iter().position(|sent| sent.lane == lane && sent.len == 4096) {
            break s.sent.remove(at).expect("just found");
        }
        assert!(s.now < 20 * SECOND, "the read stays where it is");
    };
    s.answer(moved, Ok(()));
    assert_eq!(s.result(read), Some(Ok(())));
    assert_eq!(s.state(0), "up");
}
