// SPDX-License-Identifier: MIT OR Apache-2.0
//! The two tables: class to action, error to what a host may be told.

use policies::faults::{
    FaultClass, LaneAction, Persistence, RequestAction, Scope, classify_errno, host_errno, verdict,
};

const PAGE: &str = include_str!("../../docs/policies/faults.md");

/// Every number a server may send: all small ones, and a few of any size.
fn wire_numbers() -> impl Iterator<Item = u32> {
    (0..=4_096).chain([65_535, 0x7fff_ffff, 0xffff_fff3, u32::MAX])
}

#[test]
fn the_page_shows_the_table() {
    let rows: Vec<[String; 5]> = PAGE
        .lines()
        .filter_map(|line| {
            let cells: Vec<String> = line.split('|').map(|cell| cell.trim().replace('`', "")).collect();
            let row: [String; 7] = cells.try_into().ok()?;
            let [_, rule, scope, persistence, lane, request, _] = row;
            Some([rule, scope, persistence, lane, request])
        })
        .skip(2) // head and ruler
        .collect();
    let table: Vec<[String; 5]> = FaultClass::ALL
        .iter()
        .map(|&class| {
            let it = verdict(class);
            let scope = format!("{:?}", it.scope);
            let (lane, request) = (format!("{:?}", it.lane), format!("{:?}", it.request));
            [it.rule.to_string(), scope, format!("{:?}", it.persistence), lane, request]
        })
        .collect();
    assert_eq!(rows, table);
}

#[test]
fn what_every_verdict_must_keep() {
    for (at, &class) in FaultClass::ALL.iter().enumerate() {
        let it = verdict(class);
        assert!(
            FaultClass::ALL[..at].iter().all(|&other| other != class && verdict(other).rule != it.rule),
            "{class:?} stands once and has a rule name of its own"
        );
        if it.request == RequestAction::ToHost {
            assert_eq!(it.lane, LaneAction::Keep, "{class:?}: an answer is no fault of the lane");
        }
        if it.scope == Scope::Device {
            assert_eq!(it.lane, LaneAction::Keep, "{class:?}: no path is blamed for the storage");
        }
        if it.request == RequestAction::Wait {
            assert_eq!(it.lane, LaneAction::Keep, "{class:?}: a request cannot wait on a lane that goes");
        }
    }
    // Age alone never closes a lane (W15); silence keeps it for late replies (W1).
    assert_eq!(verdict(FaultClass::DeadlinePassed).lane, LaneAction::Keep);
    assert_eq!(verdict(FaultClass::Silent).lane, LaneAction::SuspectKeepOpen);
    // Back-pressure and slowness are never a fault of a path.
    for class in [FaultClass::Overload, FaultClass::Slow] {
        assert_eq!((verdict(class).lane, verdict(class).request), (LaneAction::Keep, RequestAction::Wait));
        assert_eq!(verdict(class).persistence, Persistence::Transient);
    }
}

#[test]
fn only_definite_answers_go_to_the_host() {
    for wire in wire_numbers() {
        let class = classify_errno(wire);
        let to_host = verdict(class).request == RequestAction::ToHost;
        assert_eq!(to_host, [1, 22, 27, 28, 75, 95, 122].contains(&wire), "{wire} is {class:?}");
    }
}

#[test]
fn classes_of_error_numbers() {
    for wire in wire_numbers() {
        let expected = match wire {
            0 => FaultClass::ProtocolViolation,
            1 | 22 | 75 | 95 => FaultClass::RequestError,
            27 | 28 | 122 => FaultClass::Capacity,
            108 => FaultClass::Refused,
            _ => FaultClass::StorageError,
        };
        assert_eq!(classify_errno(wire), expected, "{wire}");
    }
    // Rule W7: a server that goes away is a path to replace, and its answer moves the request.
    let shutdown = verdict(classify_errno(108));
    assert_eq!((shutdown.lane, shutdown.request), (LaneAction::Replace, RequestAction::RetryElsewhere));
    // One error nobody knows is enough to lose a filesystem if it reaches the host.
    assert_eq!(verdict(classify_errno(110)).request, RequestAction::RetryElsewhereOnce);
}

#[test]
fn a_host_is_told_six_numbers_and_no_other() {
    for class in FaultClass::ALL {
        for wire in wire_numbers() {
            let told = host_errno(class, wire);
            let expected = match class {
                FaultClass::RequestError if [1, 22, 75, 95].contains(&wire) => wire,
                FaultClass::RequestError => 22,
                FaultClass::Capacity => 28,
                _ => 5,
            };
            assert_eq!(told, expected, "{class:?} {wire}");
            assert!([1, 5, 22, 28, 75, 95].contains(&told), "never 108, never 12");
        }
    }
}
