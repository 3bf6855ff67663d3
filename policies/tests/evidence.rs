// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every sign leads to the right coordinates; silence is told from slowness (rule W16).

mod support;

use policies::evidence::{CanaryState, Sign, Unanswered, characterise};
use policies::faults::{FaultClass, PathAction, RequestAction, Scope, act};
use policies::silence::TcpEvidence;
use support::{MILLISECOND, SECOND};

const CANARIES: [CanaryState; 4] =
    [CanaryState::NotAsked, CanaryState::Young, CanaryState::Overdue, CanaryState::Answered];

const LINK_SILENT: TcpEvidence =
    TcpEvidence { unacked: 1, notsent_bytes: 0, last_ack_ms: 500, rto_us: 204_000 };
const WINDOW_CLOSED: TcpEvidence =
    TcpEvidence { unacked: 0, notsent_bytes: 4_096, last_ack_ms: 0, rto_us: 204_000 };
const ACKED: TcpEvidence = TcpEvidence { unacked: 0, notsent_bytes: 0, last_ack_ms: 500, rto_us: 204_000 };

fn seen(unanswered: Unanswered) -> Option<(FaultClass, Scope)> {
    characterise(&Sign::Unanswered(unanswered)).map(|fault| (fault.class, fault.scope))
}

/// Every combination against the table of the module, read row by row.
#[test]
fn no_answer_has_four_causes() {
    use CanaryState::{Answered, Overdue};
    use FaultClass::{DeadlinePassed, Silent};
    for tcp in [None, Some(LINK_SILENT), Some(WINDOW_CLOSED), Some(ACKED)] {
        for window_was_closed in [false, true] {
            for canary in CANARIES {
                for oldest_age in [0, SECOND - 1, SECOND, 60 * SECOND] {
                    let unanswered =
                        Unanswered { tcp, window_was_closed, canary, oldest_age, deadline: SECOND };
                    let late = oldest_age >= SECOND;
                    let expected = match (tcp, canary) {
                        (Some(LINK_SILENT), _) => Some((Silent, Scope::Link)),
                        (Some(WINDOW_CLOSED), _) if window_was_closed => Some((Silent, Scope::Server)),
                        (_, Overdue) => Some((DeadlinePassed, Scope::Server)),
                        (_, Answered) if late => Some((DeadlinePassed, Scope::Device)),
                        _ if late => Some((DeadlinePassed, Scope::Path)),
                        _ => None,
                    };
                    assert_eq!(seen(unanswered), expected, "{unanswered:?}");
                }
            }
        }
    }
}

#[test]
fn signs_of_sockets_and_replies() {
    for (sign, class) in [
        (Sign::ConnectionLost, FaultClass::TransportReset),
        (Sign::ConnectRefused, FaultClass::Refused),
        (Sign::ConnectTimedOut, FaultClass::Unreachable),
        (Sign::ErrorReply(5), FaultClass::StorageError),
        (Sign::ErrorReply(28), FaultClass::Capacity),
        (Sign::ErrorReply(108), FaultClass::Refused),
        (Sign::ErrorReply(0), FaultClass::ProtocolViolation),
        (Sign::BrokenFrame, FaultClass::ProtocolViolation),
        (Sign::WrongIdentity, FaultClass::IdentityChange),
    ] {
        assert_eq!(characterise(&sign).map(|fault| fault.class), Some(class), "{sign:?}");
    }
}

/// What follows for a path: a cut cable tries another portal, a stopped server is steered
/// around with all its paths, a slow disk blames no path. In all three the read moves.
#[test]
fn cable_server_and_disk_get_three_treatments() {
    let late = |tcp, canary| Unanswered {
        tcp: Some(tcp),
        window_was_closed: true,
        canary,
        oldest_age: 2 * SECOND,
        deadline: SECOND,
    };
    for (unanswered, path) in [
        (late(LINK_SILENT, CanaryState::Overdue), PathAction::NextPortal),
        (late(WINDOW_CLOSED, CanaryState::Young), PathAction::SuspectServer),
        (late(ACKED, CanaryState::Overdue), PathAction::SuspectServer),
        (late(ACKED, CanaryState::Answered), PathAction::Keep),
    ] {
        let fault = characterise(&Sign::Unanswered(unanswered)).expect("late is a fault");
        assert_eq!(act(fault).path, path, "{unanswered:?}");
        assert_eq!(act(fault).request, RequestAction::RetryElsewhere);
    }
}

/// Rule W19: on a path whose peer holds requests of its own accord, age takes nothing away
/// as long as canaries on that lane are answered.
#[test]
fn a_held_request_is_no_fault_of_a_stacked_path() {
    for age_s in [1, 10, 600] {
        let held = Unanswered {
            tcp: Some(ACKED),
            window_was_closed: false,
            canary: CanaryState::Answered,
            oldest_age: age_s * SECOND,
            deadline: SECOND,
        };
        let fault = characterise(&Sign::Unanswered(held)).expect("it is late all the same");
        assert_eq!(act(fault).path, PathAction::Keep);
    }
}

/// A closed window for a moment is load; so is a request that is merely young.
#[test]
fn a_busy_lane_is_well() {
    let busy = Unanswered {
        tcp: Some(WINDOW_CLOSED),
        window_was_closed: false,
        canary: CanaryState::Young,
        oldest_age: 150 * MILLISECOND,
        deadline: SECOND,
    };
    assert_eq!(characterise(&Sign::Unanswered(busy)), None);
}
