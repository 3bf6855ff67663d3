// SPDX-License-Identifier: MIT OR Apache-2.0
//! The story of the matrix, for all cells of one place to hide at once.

use std::time::Duration;

use tests_support::holdfast::{DeviceStatus, Event};
use tests_support::wait;
use tests_support::wire::errno;

use super::case::Case;
use super::cell::{Cell, Fate, Mode, OPERATIONS, Operation, Stall, fate};
use super::site::{HOLD_QUIESCE_MS, Site};

/// Runs every cell in which A hides there.
pub(super) fn run(stall: Stall) {
    let mut site = Site::start();
    let mut cases: Vec<Case> = Cell::all().map(|cell| Case::open(&site, cell, stall)).collect();
    let event = site.node.last_event();

    stall_a(&mut site, &mut cases, stall);
    site.break_paths();
    cases.iter_mut().for_each(Case::await_a);
    cases.iter_mut().for_each(Case::submit_b);
    await_quarantines(&site, &cases);
    for case in &cases {
        case.assert_stalled(&site);
    }

    // The default's assumption holds: the server is done before the timer is.
    site.let_loose(stall, Mode::Assume);
    // Where no time is a proof, B still waits when that timer has long run out.
    wait::pass(Duration::from_millis(HOLD_QUIESCE_MS + 1000));
    of_mode(&mut cases, Mode::Hold).for_each(Case::assert_b_waits);
    site.let_loose(stall, Mode::Hold);
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

fn of_mode(cases: &mut [Case], mode: Mode) -> impl Iterator<Item = &mut Case> {
    cases.iter_mut().filter(move |case| case.cell.mode == mode)
}

/// Sends A into the stall and waits until it is there (T6).
fn stall_a(site: &mut Site, cases: &mut [Case], stall: Stall) {
    site.stall(stall);
    let ahead = (stall == Stall::SendQueue).then_some(None);
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
        site.await_stuck(stall, Case::bytes_on_path());
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

/// B must not be sent while the stalled copy can still land.
fn await_quarantines(site: &Site, cases: &[Case]) {
    for case in cases {
        let name = case.cell.to_string();
        wait::until_true(&format!("{case}: B to wait for A"), || {
            site.node.device(&name).number("quarantined") > 0
        });
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
        if cell.mode == Mode::Assume || fate == Fate::Answered {
            assert_eq!(answer, 0, "{case}, {operation:?}: B failed");
        }
    }
}

/// A release that rests on the timer alone is told; one that rests on a late reply, or none
/// at all, is not (W13).
fn assert_events(site: &Site, cases: &[Case], stall: Stall, after: u64) {
    let events = site.node.events_after(after);
    for case in cases {
        let name = case.cell.to_string();
        let of_device =
            |event: &&Event| event.name == "quarantine_unproven" && event.json.get("device").text() == name;
        let told = events.iter().filter(of_device).count();
        let fate = fate(stall, case.cell);
        if case.cell.mode == Mode::Hold || fate == Fate::Answered {
            assert_eq!(
                told, 0,
                "{case}: an event quarantine_unproven although nothing was let go without proof"
            );
        } else {
            assert!(told > 0, "{case}: no event quarantine_unproven although a timer let B go");
        }
    }
}
