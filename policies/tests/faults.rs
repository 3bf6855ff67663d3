// SPDX-License-Identifier: MIT OR Apache-2.0
//! The two tables: class to action, error to what a host may be told.

use policies::faults::{
    Fault, FaultClass, LaneAction, PathAction, Persistence, RequestAction, Scope, Spread, act,
    classify_errno, host_errno, verdict,
};

const PAGE: &str = include_str!("../../docs/policies/faults.md");

/// Every number a server may send: all small ones, and a few of any size.
fn wire_numbers() -> impl Iterator<Item = u32> {
    (0..=4_096).chain([65_535, 0x7fff_ffff, 0xffff_fff3, u32::MAX])
}

fn cells(columns: usize) -> Vec<Vec<String>> {
    let rows = PAGE.lines().map(|line| line.split('|').map(|cell| cell.trim().replace('`', "")).collect());
    rows.filter(|row: &Vec<String>| row.len() == columns + 2)
        .map(|row| row[1..=columns].to_vec())
        .skip(2) // head and ruler
        .collect()
}

fn faults() -> impl Iterator<Item = Fault> {
    FaultClass::ALL.into_iter().flat_map(|class| {
        Persistence::ALL.into_iter().flat_map(move |persistence| {
            Scope::ALL.into_iter().map(move |scope| Fault { class, persistence, scope })
        })
    })
}

#[test]
fn the_page_shows_what_one_sign_means() {
    let table: Vec<Vec<String>> = FaultClass::ALL
        .iter()
        .map(|&class| {
            let it = verdict(class);
            let scope = format!("{:?}", it.scope);
            let (lane, request) = (format!("{:?}", it.lane), format!("{:?}", it.request));
            vec![it.rule.to_string(), scope, format!("{:?}", it.persistence), lane, request]
        })
        .collect();
    assert_eq!(cells(5), table);
}

#[test]
fn the_page_shows_all_cells() {
    let mut table = Vec::new();
    for class in FaultClass::ALL {
        for persistence in Persistence::ALL {
            let mut row = vec![verdict(class).rule.to_string(), format!("{persistence:?}")];
            row.extend(
                Scope::ALL.map(|scope| format!("{:?}", act(Fault { class, persistence, scope }).path)),
            );
            table.push(row);
        }
    }
    assert_eq!(cells(7), table);
}

#[test]
fn what_every_cell_must_keep() {
    let answers = [FaultClass::Capacity, FaultClass::RequestError];
    for fault in faults() {
        let it = act(fault);
        assert_eq!((it.scope, it.persistence), (fault.scope, fault.persistence));
        assert_eq!(it.lane, verdict(fault.class).lane, "{fault:?}: the class alone decides the lane");
        let takes_away = matches!(
            it.path,
            PathAction::HoldOut
                | PathAction::Demote
                | PathAction::Suspect
                | PathAction::SuspectServer
                | PathAction::Canaries
        );
        if fault.scope == Scope::Device {
            assert!(!takes_away, "{fault:?}: nobody is blamed for what all share");
        }
        if answers.contains(&fault.class) || fault.class == FaultClass::Overload {
            assert_eq!((it.lane, it.path), (LaneAction::Keep, PathAction::Keep), "{fault:?}");
        }
        if fault.class == FaultClass::IdentityChange {
            assert_eq!(it.path, PathAction::Refuse, "{fault:?}: other data is never served");
        } else if fault.scope == Scope::Member {
            assert!(
                matches!(it.path, PathAction::Report | PathAction::Keep),
                "{fault:?}: members are judged elsewhere"
            );
        }
        if fault.persistence == Persistence::Transient {
            assert!(!it.alarm, "{fault:?}: what passes by itself wakes nobody");
            assert!(!matches!(it.path, PathAction::HoldOut | PathAction::Demote), "{fault:?}: not at once");
        }
        if it.lane == LaneAction::Replace {
            assert_ne!(it.path, PathAction::Keep, "{fault:?}: a path without its lane is not kept as it is");
        }
        if it.request == RequestAction::Wait {
            assert_eq!(it.lane, LaneAction::Keep, "{fault:?}: it cannot wait on a lane that goes");
        }
        if it.request == RequestAction::ToHost {
            assert_eq!(it.lane, LaneAction::Keep, "{fault:?}: an answer is no fault of the lane");
            assert!(
                answers.contains(&fault.class) || fault == confirmed_eio(),
                "{fault:?}: nothing else reaches a host"
            );
        }
    }
}

fn confirmed_eio() -> Fault {
    Fault::first_sight(FaultClass::StorageError).repeated()
}

#[test]
fn what_every_first_verdict_must_keep() {
    for (at, &class) in FaultClass::ALL.iter().enumerate() {
        let it = verdict(class);
        assert!(
            FaultClass::ALL[..at].iter().all(|&other| other != class && verdict(other).rule != it.rule),
            "{class:?} stands once and has a rule name of its own"
        );
        if it.scope == Scope::Device {
            assert_eq!(it.lane, LaneAction::Keep, "{class:?}: no path is blamed for the storage");
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
    // A broken frame latches its connection: it is never used again.
    assert_eq!(verdict(FaultClass::ProtocolViolation).lane, LaneAction::Replace);
    assert_eq!(verdict(FaultClass::ProtocolViolation).path, PathAction::Reconnect);
    let again = Fault::first_sight(FaultClass::ProtocolViolation).repeated();
    assert_eq!(act(again).path, PathAction::HoldOut);
}

/// The life of an EIO in the table (rules W7, W14).
#[test]
fn an_eio_is_asked_once_elsewhere_then_believed_or_blamed() {
    let first = Fault::first_sight(FaultClass::StorageError);
    assert_eq!(act(first).request, RequestAction::RetryElsewhereOnce);
    assert_eq!(act(first).path, PathAction::Keep);
    // Another path answers well: it is this path's, and a strike.
    let one_of_two = Spread { server_paths: 2, server_faulty: 1, device_paths: 2, device_faulty: 1 };
    let disproved = first.seen_on(one_of_two);
    assert_eq!(disproved.scope, Scope::Path);
    assert_eq!(act(disproved).request, RequestAction::RetryElsewhere);
    assert_eq!(act(disproved).path, PathAction::Keep);
    assert_eq!(act(disproved.repeated()).path, PathAction::Canaries);
    // It says the same: the host is told, no path is blamed.
    let both = Spread { server_faulty: 2, device_faulty: 2, ..one_of_two };
    assert_eq!(act(first.seen_on(both).repeated()).request, RequestAction::ToHost);
}

/// Against a naive reading of the rule, for every class and all counts up to 3 + 3 paths.
#[test]
fn scope_follows_the_paths_that_show_the_fault() {
    let counts = || (1..=3_u32).flat_map(|paths| (1..=paths).map(move |faulty| (paths, faulty)));
    for class in FaultClass::ALL {
        for (server_paths, server_faulty) in counts() {
            for other_paths in 0..=3 {
                for other_faulty in 0..=other_paths {
                    let spread = Spread {
                        server_paths,
                        server_faulty,
                        device_paths: server_paths + other_paths,
                        device_faulty: server_faulty + other_faulty,
                    };
                    let first = Fault::first_sight(class);
                    let seen = first.seen_on(spread);
                    assert_eq!((seen.class, seen.persistence), (class, first.persistence));
                    let keeps = [FaultClass::Capacity, FaultClass::RequestError, FaultClass::IdentityChange];
                    let lone = spread.device_paths == 1;
                    let expected = if keeps.contains(&class) || lone {
                        first.scope
                    } else if server_faulty == server_paths && other_faulty == other_paths {
                        Scope::Device
                    } else if server_faulty == server_paths && server_paths > 1 {
                        Scope::Server
                    } else if server_faulty < server_paths && first.scope != Scope::Link {
                        Scope::Path
                    } else if first.scope == Scope::Device {
                        Scope::Server
                    } else {
                        first.scope
                    };
                    assert_eq!(seen.scope, expected, "{class:?} {spread:?}");
                }
            }
        }
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
