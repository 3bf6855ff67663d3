// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the devices of one protection have behind their paths: a storage end whose path `a`
//! can be stalled, and the relays on the way.
//!
//! | protection | path `a` | path `b` |
//! |---|---|---|
//! | plain | a watched nbd-server | another nbd-server on the same files |
//! | gate, `A` in execution | an address of a gate before a watched nbd-server | another address of it |
//! | gate, `A` anywhere else | a gate on the files | another gate process on the same files |
//!
//! A gate before an NBD server has its volume to itself, so stopping it would stop both paths;
//! and what a gate on a file has in execution nobody can hold. Hence two kinds of it.

use tests_support::holdfast::Gate;
use tests_support::servers::{NbdServer, Trace};
use tests_support::{Endpoint, Fabric, Relay, TestDir, loopback, server_queues};

use super::cell::{FAULTS, Fault, MODES, Mode, Stall};

/// See the module header.
pub(super) struct Side {
    pub(super) mode: Mode,
    /// Before path `a`, one for each fault.
    pub(super) relays: Vec<Relay>,
    /// Before path `b`.
    good: Relay,
    end: End,
    /// Processes that served a connection when the stall began.
    stalled: Vec<i32>,
}

enum End {
    Plain { server: NbdServer, trace: Trace, _other: NbdServer },
    Gates { stalled: Gate, _other: Gate },
    GateBefore { server: NbdServer, trace: Trace, _gate: Gate },
}

impl Side {
    /// Starts everything of one protection.
    pub(super) fn start(
        dir: &TestDir,
        fabric: &Fabric,
        mode: Mode,
        stall: Stall,
        exports: &[(String, String)],
    ) -> Self {
        let [a, b] = [(); 2].map(|()| Endpoint::tcp(loopback(), Fabric::PORT));
        let end = match (mode, stall) {
            (Mode::Gate, Stall::Execution) => End::gate_before(dir, [&a, &b], exports),
            (Mode::Gate, _) => End::Gates {
                stalled: Gate::start(dir, "gate-a", std::slice::from_ref(&a), exports),
                _other: Gate::start(dir, "gate-b", std::slice::from_ref(&b), exports),
            },
            (Mode::Assume | Mode::Hold, _) => {
                let (server, trace) = traced(dir, &format!("{mode:?}"), &a, exports);
                let other = NbdServer::start_with(dir, &format!("nbd-server-b-{mode:?}"), &b, exports, None);
                End::Plain { server, trace, _other: other }
            }
        };
        let relay = |link: usize, target: &Endpoint| {
            Relay::start(fabric.storage(), &Endpoint::tcp(fabric.address(link), port_of(mode)), target)
        };
        let relays = FAULTS.map(|fault| relay(link_of(fault), &a)).into();
        Self { mode, relays, good: relay(FAULTS.len(), &b), end, stalled: Vec::new() }
    }

    /// Where path `a` of a device with this fault leads.
    pub(super) fn path_a(&self, fault: Fault) -> &Endpoint {
        self.relays[link_of(fault)].endpoint()
    }

    /// Where path `b` leads.
    pub(super) fn path_b(&self) -> &Endpoint {
        self.good.endpoint()
    }

    /// Every byte that a path `a` carries from now on gets stuck.
    pub(super) fn stall(&mut self, stall: Stall) {
        self.stalled = self.end.server().map(NbdServer::children).unwrap_or_default();
        match (stall, &self.end) {
            (Stall::ReceiveQueue, End::Plain { server, .. }) => {
                server.stop_children();
            }
            (Stall::ReceiveQueue, End::Gates { stalled, .. }) => stalled.stop(),
            (Stall::Execution, End::Plain { trace, .. } | End::GateBefore { trace, .. }) => {
                trace.hold(&self.stalled);
            }
            (Stall::SendQueue, _) => self.relays.iter().for_each(Relay::stop_reading),
            (Stall::Network, _) => self.relays.iter().for_each(Relay::hold),
            (Stall::ReceiveQueue, End::GateBefore { .. }) | (Stall::Execution, End::Gates { .. }) => {
                panic!("this storage end is not for {stall:?}")
            }
        }
    }

    /// Lets loose what is stalled.
    pub(super) fn let_loose(&self, stall: Stall) {
        match (stall, &self.end) {
            (Stall::ReceiveQueue, End::Plain { server, .. }) => server.resume_children(),
            (Stall::ReceiveQueue, End::Gates { stalled, .. }) => stalled.go_on(),
            (Stall::Execution, End::Plain { trace, .. } | End::GateBefore { trace, .. }) => {
                trace.let_loose(&self.stalled);
            }
            (Stall::SendQueue | Stall::Network, _) => self.relays.iter().for_each(Relay::let_loose),
            (Stall::ReceiveQueue, End::GateBefore { .. }) | (Stall::Execution, End::Gates { .. }) => {
                panic!("this storage end is not for {stall:?}")
            }
        }
    }

    /// The eyes inside the server that carries out what path `a` brings, if there is one.
    pub(super) fn trace(&self) -> Option<&Trace> {
        match &self.end {
            End::Plain { trace, .. } | End::GateBefore { trace, .. } => Some(trace),
            End::Gates { .. } => None,
        }
    }

    /// Whether a process already served a connection when the stall began.
    pub(super) fn was_stalled(&self, pid: i32) -> bool {
        self.stalled.contains(&pid)
    }

    /// Bytes that the server of path `a` has not read, of each of its connections.
    pub(super) fn received(&self) -> Vec<u64> {
        let endpoint = match &self.end {
            End::Plain { server, .. } | End::GateBefore { server, .. } => server.endpoint(),
            End::Gates { stalled, .. } => stalled.endpoint(),
        };
        server_queues(endpoint).iter().map(|queues| queues.receive_bytes).collect()
    }
}

impl End {
    fn gate_before(dir: &TestDir, listen: [&Endpoint; 2], exports: &[(String, String)]) -> Self {
        let at = Endpoint::tcp(loopback(), Fabric::PORT);
        let (server, trace) = traced(dir, "behind-gate", &at, exports);
        let volumes: Vec<(String, String)> =
            exports.iter().map(|(name, _)| (name.clone(), at.uri(name))).collect();
        let gate = Gate::start(dir, "gate", &listen.map(Endpoint::clone), &volumes);
        Self::GateBefore { server, trace, _gate: gate }
    }

    fn server(&self) -> Option<&NbdServer> {
        match self {
            Self::Plain { server, .. } | Self::GateBefore { server, .. } => Some(server),
            Self::Gates { .. } => None,
        }
    }
}

fn traced(dir: &TestDir, name: &str, at: &Endpoint, exports: &[(String, String)]) -> (NbdServer, Trace) {
    let trace = Trace::new(dir, &format!("trace-{name}"));
    let server = NbdServer::start_with(dir, &format!("nbd-server-a-{name}"), at, exports, Some(&trace));
    (server, trace)
}

pub(super) fn link_of(fault: Fault) -> usize {
    FAULTS.iter().position(|other| *other == fault).expect("every fault has a link")
}

fn port_of(mode: Mode) -> u16 {
    Fabric::PORT + MODES.iter().position(|other| *other == mode).expect("every mode has a port") as u16
}
