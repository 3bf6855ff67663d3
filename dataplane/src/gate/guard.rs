// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the owner of a gated device keeps: which generation its sessions were judged under, and what is in
//! execution since when. The protocol is in the header of `live`.

use std::collections::VecDeque;
use std::sync::Arc;

use program::Nanos;

use crate::gate::Gate;
use crate::gate::claims::Claiming;

/// See the module header.
pub(crate) struct Guard {
    pub(crate) gate: Arc<Gate>,
    /// Generation the sessions were last judged under.
    seen: u64,
    /// Requests that change data and are in execution.
    total: u64,
    /// The same by the generation they were dispatched under, oldest first.
    started: VecDeque<(u64, u64)>,
    /// Sessions that are ended and not out of the table yet.
    pub(crate) ended: u32,
    pub(crate) claims: Vec<Claiming>,
    pub(crate) claims_made: u64,
    /// The claim the register is judging now, by its number. One at a time: a wait for another process must
    /// not take all helper threads.
    pub(crate) asking: Option<u64>,
    /// When the timer is set that looks at other processes.
    pub(crate) look_at: Option<Nanos>,
}

impl Guard {
    pub(crate) fn new(gate: Arc<Gate>) -> Self {
        let seen = gate.register.live.generation();
        Self {
            gate,
            seen,
            total: 0,
            started: VecDeque::new(),
            ended: 0,
            claims: Vec::new(),
            claims_made: 0,
            asking: None,
            look_at: None,
        }
    }

    /// Counts one more request in execution: the generation it runs under. `None`: there was a raise or a
    /// kill, and the sessions must be judged first.
    pub(crate) fn begin(&mut self) -> Option<u64> {
        let register = &self.gate.register;
        let generation = register.live.dispatch(register.slot, self.total + 1);
        if generation != self.seen {
            self.settle();
            return None;
        }
        self.total += 1;
        match self.started.back_mut() {
            Some((last, count)) if *last == generation => *count += 1,
            _ => self.started.push_back((generation, 1)),
        }
        Some(generation)
    }

    /// A request that began under `generation` is no longer in execution.
    pub(crate) fn end(&mut self, generation: u64) {
        let entry = self.started.iter_mut().find(|(started, _)| *started == generation);
        let (_, count) = entry.expect("a request ends under the generation it began under");
        *count -= 1;
        self.total -= 1;
        while self.started.len() > 1 && self.started[0].1 == 0 {
            self.started.pop_front();
        }
        self.settle();
    }

    fn settle(&self) {
        let oldest = self.started.iter().find(|(_, count)| *count > 0).map(|(generation, _)| *generation);
        let register = &self.gate.register;
        register.live.settle(register.slot, self.total, oldest.unwrap_or(self.seen));
    }

    /// Whether there was a raise or a kill since the sessions were judged. They must be judged now.
    pub(crate) fn must_judge(&mut self) -> bool {
        let generation = self.gate.register.live.generation();
        let must = generation != self.seen;
        self.seen = generation;
        must
    }

    /// They were judged.
    pub(crate) fn judged(&self) {
        self.settle();
    }
}
