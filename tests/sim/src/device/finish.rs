// SPDX-License-Identifier: MIT OR Apache-2.0
//! What must be true once every fault is healed (rule T7).

use program::{DeviceState, Exclusive, Nanos, NoPath, PathState, Unproven};

use super::Device;
use crate::coverage::Mark;
use crate::env::Env;

impl Device {
    /// Nothing is open and the engine says so.
    pub fn is_idle(&self) -> bool {
        self.open == 0 && self.engine.is_idle() && !self.is_stopping()
    }

    /// How long a request may rightly wait for something that never comes.
    pub fn longest_wait(&self) -> Nanos {
        match (self.program.unproven, self.program.no_path) {
            // A write in doubt that nothing proves ends its successors' patience (W13).
            (Unproven::Hold, NoPath::Hold(hold)) => hold + self.program.quiesce,
            _ => 0,
        }
    }

    /// The engine's own view is that all is well.
    pub fn is_well(&self, env: &Env) -> bool {
        let status = self.engine.status(env.now);
        if status.quarantined > 0 && !env.plan.gates() {
            // `hold` without any proof keeps its quarantines: that is what it is for. A
            // blank volume's path may not be provable behind them.
            let served = matches!(status.state, DeviceState::Optimal | DeviceState::Degraded);
            return served && self.program.unproven == Unproven::Hold;
        }
        // Some servers are slow against the others even when well: shown, and no complaint.
        let well = |state| matches!(state, PathState::Up | PathState::Standby | PathState::Slow);
        let slow = status.state == DeviceState::Degraded && status.paths.iter().all(|path| well(path.state));
        status.quarantined == 0 && (status.state == DeviceState::Optimal || slow)
    }

    /// A gate that is well ends every doubt (2.4).
    pub fn is_fenced(&self, env: &Env) -> bool {
        !env.plan.gates() || self.engine.status(env.now).quarantined == 0
    }

    /// The last words: content, buffers, accounts.
    pub fn conclude(&self, env: &mut Env) {
        self.engine.check_invariants();
        let hedges = self.engine.status(env.now).hedges;
        for _ in 0..hedges.sent {
            env.mark(Mark::Hedged);
        }
        for _ in 0..hedges.won {
            env.mark(Mark::HedgeWon);
        }
        if let Some(text) = self.sweep().filter(|_| !self.waits_for_proof(env)) {
            env.fail("T1", || text);
        }
        let used = self.buffers.used();
        if used > 0 && self.is_idle() && self.engine.retained_bytes() == 0 {
            env.fail("buffers", || format!("{used} buffers were not given back"));
        }
    }

    /// One path at a time, and the one before may still be at work for all that is known: nothing is sent until
    /// that is proven (W20), not even what a lost cache held. Reads of it fail, so no host sees what is there.
    fn waits_for_proof(&self, env: &Env) -> bool {
        self.program.exclusive == Exclusive::Proven
            && self.program.unproven == Unproven::Hold
            && self.engine.status(env.now).quarantined > 0
    }

    /// Why it is not well.
    pub fn complaint(&self, env: &Env) -> String {
        let status = self.engine.status(env.now);
        let paths: Vec<String> = status
            .paths
            .iter()
            .map(|path| {
                format!("{} {:?} in flight {} ({})", path.name, path.state, path.in_flight, path.reason)
            })
            .collect();
        let stays = if self.is_stopping() { self.stays_for(env).unwrap_or("being closed") } else { "" };
        format!(
            "{stays} {:?}, {} requests open, {} quarantines; {}",
            status.state,
            self.open,
            status.quarantined,
            paths.join("; ")
        )
    }
}
