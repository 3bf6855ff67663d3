// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which row of the fault table a sign is (design 3.5).
//!
//! `policies::evidence` makes a fault of a sign, the other paths move its scope, and
//! `policies::faults::act` says what is done. This is where the engine asks what becomes of the request and of the
//! path. What becomes of the connection is how `lanes`, `lost`, `health` and `verify` are built; `tests/rules/verdicts.rs`
//! holds them to the table, class by class.
//!
//! Paths of one cache domain lead to one server as far as is known; others to servers of their own.

use nbd::Errno;
use policies::evidence::{Sign, characterise};
use policies::faults::{Fault, FaultClass, Spread, Verdict, act, classify_errno};

use crate::LaneFault;
use crate::engine::Engine;
use crate::path::Admin;

impl Engine {
    /// What an error reply means for its request. `asked`: paths that have answered so, this one
    /// included; the second confirms the first.
    pub(crate) fn verdict_on_error(&self, errno: Errno, asked: u32) -> (FaultClass, Verdict) {
        let class = match classify_errno(errno.to_wire()) {
            FaultClass::RequestError | FaultClass::Capacity if !self.rules.w7_definite_errors => {
                FaultClass::StorageError
            }
            class => class,
        };
        let fault = Fault::first_sight(class);
        (class, act(if asked >= 2 { fault.repeated() } else { fault }))
    }

    /// What it means for a path that another one answered well what this one answered EIO.
    /// `often`: as often as the rule allows.
    pub(crate) fn verdict_on_disproof(often: bool) -> Verdict {
        let one_of_two = Spread { server_paths: 2, server_faulty: 1, device_paths: 2, device_faulty: 1 };
        let fault = Fault::first_sight(FaultClass::StorageError).seen_on(one_of_two);
        act(if often { fault.repeated() } else { fault })
    }

    /// What it means for a path that it lost its connection, given what the others show.
    pub(crate) fn verdict_on_failure(&self, index: usize, class: FaultClass, often: bool) -> Verdict {
        let fault = Fault::first_sight(class).seen_on(self.spread(index));
        act(if often { fault.repeated() } else { fault })
    }

    /// Which paths answer now, this one not.
    fn spread(&self, index: usize) -> Spread {
        let mut spread = Spread::default();
        for (other, path) in self.paths.iter().enumerate().filter(|(_, path)| path.admin == Admin::In) {
            let faulty = u32::from(other == index || !self.answers_now(other));
            spread.device_paths += 1;
            spread.device_faulty += faulty;
            if path.domain == self.paths[index].domain {
                spread.server_paths += 1;
                spread.server_faulty += faulty;
            }
        }
        spread
    }
}

/// The class of a lost or refused connection. `accepted`: it had carried I/O.
pub(crate) fn class_of(fault: &LaneFault, accepted: bool) -> FaultClass {
    let sign = match fault {
        LaneFault::Refused(_) | LaneFault::Rejected(_) => Sign::ConnectRefused,
        LaneFault::Unreachable(_) | LaneFault::HandshakeTimeout => Sign::ConnectTimedOut,
        LaneFault::Protocol(_) => Sign::BrokenFrame,
        LaneFault::Reset(_) | LaneFault::Closed if !accepted => Sign::ConnectRefused,
        LaneFault::Reset(_) | LaneFault::Closed | LaneFault::ByUs | LaneFault::Drained => {
            Sign::ConnectionLost
        }
    };
    characterise(&sign).map_or(FaultClass::TransportReset, |fault| fault.class)
}
