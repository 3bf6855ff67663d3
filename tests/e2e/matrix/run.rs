// SPDX-License-Identifier: MIT OR Apache-2.0
//! The story of the matrix, for all cells of one place to hide at once.

use std::time::Duration;

use tests_support::holdfast::{DeviceStatus, Event};
use tests_support::wait;
use tests_support::wire::errno;

use super::case::Case;
use super::cell::{Access, Cell, Fate, MODES, Mode, OPERATIONS, Operation, Stall, fate, gate_orders};
use super::site::{HOLD_QUIESCE_MS, Site};

/// Runs every cell in which A hides there.
pub(super) fn run(stall: Stall) {
    let mut site = Site::start(stall);
    let mut cases: Vec<Case> = Cell::all().map(|cell| Case::open(&site, cell, stall)).collect();
    let event = site.node.last_event();

    stall_and_break(&mut site, &mut cases, stall);
    let waits_at_the_gate = |case: &&mut Case| gate_orders(stall, case.cell.mode);
    cases.iter_mut().filter(|case| !waits_at_the_gate(case)).for_each(Case::await_a);
    cases.iter_mut().for_each(Case::submit_b);
    let (mut free, mut waiting): (Vec<&mut Case>, Vec<&mut Case>) = cases
        .iter_mut()
        .partition(|case| case.cell.mode == Mode::Gate && !gate_orders(stall, case.cell.mode));
    // A gate's word is enough, while A is stalled as before: for any length of the stall.
    for case in &mut free {
        case.await_b();
    }
    await_waiting(&site, &mut waiting, stall);
    for case in &cases {
        case.assert_stalled(&site);
    }

    // The default's assumption holds: the server is done before the timer is.
    let at_once = |mode: &Mode| *mode == Mode::Assume || (*mode == Mode::Gate && !gate_orders(stall, *mode));
    let (early, late): (Vec<Mode>, Vec<Mode>) = MODES.iter().copied().partition(at_once);
    for mode in &early {
        site.let_loose(*mode);
    }
    // Where no time is a proof, B still waits when that timer has long run out.
    wait::pass(Duration::from_millis(HOLD_QUIESCE_MS + 1000));
    for case in cases.iter_mut().filter(|case| late.contains(&case.cell.mode)) {
        case.assert_b_waits();
    }
    for mode in &late {
        site.let_loose(*mode);
    }
    cases.iter_mut().for_each(Case::await_b);

    site.heal();
    for case in &cases {
        case.await_fate(&site);
    }
    site.await_usable();
    for case in &mut cases {
        case.assert_storage(&site);
        case.assert_readable();
        assert_answers(case, stall);
    }
    assert_events(&site, &cases, stall, event);
    site.node.process().assert_running();
}

/// Sends A into the stall, waits until it is there (T6), and breaks the paths.
fn stall_and_break(site: &mut Site, cases: &mut [Case], stall: Stall) {
    // A path whose window stays closed is left within a tenth of a second, and a gate finishes its session then: the
    // fault would find nothing if there was another path.
    let alone = stall == Stall::SendQueue;
    if alone {
        command_b(site, cases, "drain", |state| state == "drained");
    }
    site.stall();
    let ahead = alone.then_some(None);
    let order = ahead.into_iter().chain(OPERATIONS.map(Some));
    for (stalled, operation) in order.enumerate() {
        stall_one(site, cases, operation, stalled);
    }
    cases.iter_mut().for_each(Case::mark_stalled);
    if stall == Stall::Execution {
        for case in cases.iter() {
            case.await_begun(site);
        }
    } else {
        site.await_stuck(Case::bytes_on_path());
    }
    if alone {
        site.refuse();
    }
    site.break_paths();
    if alone {
        command_b(site, cases, "reinstate", |state| matches!(state, "up" | "standby" | "probation"));
    }
}

/// Gives path `b` of every device a command and waits until it is carried out.
fn command_b(site: &Site, cases: &[Case], command: &str, done: impl Fn(&str) -> bool) {
    for case in cases {
        site.node.path_command(command, &case.cell.to_string(), "b");
    }
    for case in cases {
        let what = format!("to obey `{command}`");
        site.node.await_path(&case.cell.to_string(), "b", &what, |status| done(&status.state));
    }
}

/// Sends requests of one kind on every device until path `a` has one more in flight. Both
/// paths of an active-active device carry I/O: what the other took is answered.
fn stall_one(site: &Site, cases: &mut [Case], operation: Option<Operation>, stalled: usize) {
    let mut open: Vec<&mut Case> = cases.iter_mut().collect();
    for case in &mut open {
        case.submit_next(operation);
    }
    wait::until_true(&format!("{operation:?} to be in flight on every path a"), || {
        let status = site.node.status();
        open.retain_mut(|case| {
            let device = DeviceStatus::find(&status, &case.cell.to_string()).expect("it is configured");
            if device.path("a").inflight > stalled as u64 {
                return false;
            }
            if case.went_well(stalled) {
                case.submit_next(operation);
            }
            true
        });
        open.is_empty()
    });
}

/// B must not be sent while the stalled copy can still land. Where the gate keeps them in order it
/// is A itself that is open still, though it was sent again.
fn await_waiting(site: &Site, cases: &mut [&mut Case], stall: Stall) {
    for case in cases {
        let name = case.cell.to_string();
        let ordered = gate_orders(stall, case.cell.mode);
        wait::until_true(&format!("{case}: B to wait for A"), || {
            let device = site.node.device(&name);
            // Active-passive, a path to a gate that answers others is not left for one late request (W19).
            let stays = case.cell.access == Access::ActivePassive && device.path("a").inflight > 0;
            if ordered { stays || device.path("b").inflight > 0 } else { device.number("quarantined") > 0 }
        });
        case.assert_b_waits();
    }
}

/// B is answered well where there is proof or the mode does without, and with EIO where
/// there will never be any.
fn assert_answers(case: &Case, stall: Stall) {
    let (cell, fate) = (case.cell, fate(stall, case.cell));
    for (operation, answer) in case.answers() {
        if cell.mode == Mode::Hold && fate == Fate::Executed {
            assert_eq!(answer, errno::EIO, "{case}, {operation:?}: B was let go without proof");
        }
        if cell.mode != Mode::Hold || fate == Fate::Answered {
            assert_eq!(answer, 0, "{case}, {operation:?}: B failed");
        }
    }
}

/// A release that rests on the timer alone is told; one that rests on a late reply, a gate's
/// word, or none at all, is not (W13).
fn assert_events(site: &Site, cases: &[Case], stall: Stall, after: u64) {
    let events = site.node.events_after(after);
    for case in cases {
        let name = case.cell.to_string();
        let told = |event: &str| {
            let of_device = |e: &&Event| e.name == event && e.json.get("device").text() == name;
            events.iter().filter(of_device).count()
        };
        let (mode, answered) = (case.cell.mode, fate(stall, case.cell) == Fate::Answered);
        let (timer, gate) = (told("quarantine_unproven"), told("session_fenced"));
        if mode == Mode::Assume && !answered {
            assert!(timer > 0, "{case}: no event quarantine_unproven although a timer let B go");
        } else {
            assert_eq!(timer, 0, "{case}: quarantine_unproven although nothing was let go without proof");
        }
        if mode == Mode::Gate && !answered {
            assert!(gate > 0, "{case}: no event session_fenced although a gate's word let B go");
        } else {
            assert_eq!(gate, 0, "{case}: session_fenced although no gate had to finish a session");
        }
    }
}
