// SPDX-License-Identifier: MIT OR Apache-2.0
//! One path: configuration, lanes, health and counters.

use alloc::string::String;
use alloc::vec::Vec;

use policies::{Backoff, Canary, Latency, Portals, Probation};
use program::{Access, AccessState, Nanos, PathProgram, PathState};

use crate::Offer;
use crate::rank::Measuring;
use crate::steering::Steering;

/// What the operator said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admin {
    /// Use it.
    In,
    /// `path fail`: out, as if it had failed.
    Failed,
    /// `path drain`: out, what was in flight was let finish.
    Drained,
    /// No longer in the configuration; kept until its lanes are gone.
    Removed,
}

/// See the module header.
#[derive(Debug)]
pub(crate) struct Path {
    pub(crate) program: PathProgram,
    /// Index into the running program's paths; `None` once removed.
    pub(crate) program_index: Option<usize>,
    pub(crate) admin: Admin,
    /// Entry that leads where this one led, since the path was changed.
    pub(crate) successor: Option<usize>,
    /// Index of its cache domain (rule F1).
    pub(crate) domain: usize,
    /// Slots of all its lanes, zombies included.
    pub(crate) lanes: Vec<u16>,
    pub(crate) backoff: Backoff,
    /// Attempts to connect since a connection was last accepted, the coming one included.
    pub(crate) attempts: u32,
    /// When the next lane may be opened.
    pub(crate) reconnect_at: Nanos,
    /// Which address is next.
    pub(crate) portals: Portals,
    /// Portal whose connection was lost, until another carries or the path has failed.
    pub(crate) lost_portal: Option<usize>,
    /// The silence of its link was counted as a failure; that its connection ends then is no other.
    pub(crate) silent_counted: bool,
    /// Last offer that was accepted.
    pub(crate) offer: Option<Offer>,
    /// What its server said of the way to it when it was last accepted.
    pub(crate) access_told: AccessState,
    /// Why the server was turned away, until it is asked again.
    pub(crate) refusal: Option<String>,
    /// Identity was proven on some lane in this run.
    pub(crate) proven: bool,
    /// Out because its storage answers errors that others do not; canaries decide.
    pub(crate) sick: bool,
    /// EIO answers in a row that another path did not confirm.
    pub(crate) strikes: u8,
    /// It failed since it was last in full use: comes back on probation.
    pub(crate) failed_before: bool,
    pub(crate) probation: Option<Probation>,
    pub(crate) canary: Canary,
    pub(crate) measuring: Measuring,
    pub(crate) latency: Latency,
    /// When it was last given a request whose time tells how fast it is: not a FLUSH.
    pub(crate) last_used: Nanos,
    /// What the rules hold against it.
    pub(crate) steering: Steering,
    /// It was in good standing once in this run.
    pub(crate) was_usable: bool,
    pub(crate) reads: u64,
    pub(crate) writes: u64,
    pub(crate) bytes: u64,
    pub(crate) errors: u64,
    /// Kind of fault that an event told of since the path was last open.
    pub(crate) told: Option<core::mem::Discriminant<crate::LaneFault>>,
    /// As last reported.
    pub(crate) state: PathState,
    pub(crate) access: Access,
    /// What was last seen, for an operator; empty when all is well.
    pub(crate) reason: String,
    pub(crate) rule: &'static str,
}

impl Path {
    pub(crate) fn new(program: PathProgram, index: usize, domain: usize, canary: Canary) -> Self {
        let portals = Portals::new(portal_count(&program));
        Self {
            program,
            program_index: Some(index),
            admin: Admin::In,
            successor: None,
            domain,
            lanes: Vec::new(),
            backoff: Backoff::new(),
            attempts: 0,
            reconnect_at: 0,
            portals,
            lost_portal: None,
            silent_counted: false,
            offer: None,
            access_told: AccessState::default(),
            refusal: None,
            proven: false,
            sick: false,
            strikes: 0,
            failed_before: false,
            probation: None,
            canary,
            measuring: Measuring::default(),
            latency: Latency::new(),
            last_used: 0,
            steering: Steering::default(),
            was_usable: false,
            reads: 0,
            writes: 0,
            bytes: 0,
            errors: 0,
            told: None,
            state: PathState::Down,
            access: Access::Unavailable,
            reason: String::from("not connected yet"),
            rule: "start",
        }
    }

    /// Addresses of its server.
    pub(crate) fn portal_count(&self) -> usize {
        portal_count(&self.program)
    }

    /// May be written through.
    pub(crate) fn writable(&self) -> bool {
        let server_allows =
            self.offer.is_none_or(|offer| !offer.flags.contains(nbd::TransmissionFlags::READ_ONLY));
        server_allows && !self.program.read_only
    }

    /// Notes what was seen; reported with the next change of state.
    pub(crate) fn explain(&mut self, rule: &'static str, reason: String) {
        self.rule = rule;
        self.reason = reason;
    }
}

fn portal_count(program: &PathProgram) -> usize {
    match &program.target {
        program::Target::Nbd { portals, .. } => portals.len().max(1),
        program::Target::File { .. } | program::Target::Memory { .. } => 1,
    }
}
