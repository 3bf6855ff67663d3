// SPDX-License-Identifier: MIT OR Apache-2.0
//! Our own process is told to stop: it finishes what it can, and the next one is started (rules W10, F9).
//!
//! | the end | the next process | the oracle |
//! |---|---|---|
//! | clean | waits for nothing | everything acknowledged is stable (T3); nothing may land any more (T1) |
//! | with a loss | tells it, until an operator takes note (F9) | what was told is not expected |
//! | neither | waits as after a crash (W10) | everything acknowledged is there; what was not stable hangs on its cache (F8) |
//!
//! The driver gives it a time; what is left then is cut off. Faults go on meanwhile, and hosts wait.
//!
//! As with a crash, what only this process knows of keeps it here: a ghost that was let go and may still be repaired,
//! a lost cache that it cannot know of yet.

use engine::Event;
use program::{Nanos, SECOND};

use super::Device;
use crate::coverage::Mark;
use crate::env::Env;
use crate::medium::Value;
use crate::queue::Happening;

/// What the driver gives it.
const BOUND: Nanos = 10 * SECOND;
/// Between two looks at whether it may end.
const LOOK: Nanos = SECOND;

/// A stop under way.
#[derive(Debug)]
pub(super) struct Stopping {
    number: u32,
    since: Nanos,
    abandoned: bool,
    /// FLUSHes that servers had carried out when it began.
    flushes: u64,
    unstable: bool,
}

impl Device {
    /// SIGTERM. `None` if it cannot be now; else whether anything was in flight.
    pub fn stop_in_order(&mut self, env: &mut Env) -> Option<bool> {
        if self.is_stopping() || self.engine.geometry().is_none() {
            return None;
        }
        env.tell(self.index, || "our process is told to stop".into());
        let met = self.open > 0 || self.engine.retained_bytes() > 0;
        let number = self.process;
        self.stopping = Some(Stopping {
            number,
            since: env.now,
            abandoned: false,
            flushes: self.flushes,
            unstable: self.engine.retained_bytes() > 0,
        });
        self.feed(env, Event::Shutdown);
        env.after(LOOK, Happening::StopLook(self.index, number));
        Some(met)
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.is_some()
    }

    /// Once in a while: the time may be over, or what kept it.
    pub(super) fn stop_look(&mut self, env: &mut Env, number: u32) {
        let stays = self.stays_for(env).is_some();
        let Some(stopping) = self.stopping.as_mut().filter(|stopping| stopping.number == number) else {
            return;
        };
        env.after(LOOK, Happening::StopLook(self.index, number));
        let over = !stays && env.now >= stopping.since + BOUND;
        if over && !std::mem::replace(&mut stopping.abandoned, true) {
            self.feed(env, Event::Abandon { why: "the time to stop was over" });
        }
    }

    /// The process ends if it is through, or has been abandoned; whether it did.
    pub(super) fn end_if_over(&mut self, env: &mut Env) -> bool {
        let Some(stopping) = self.stopping.as_ref() else { return false };
        let lanes = self.live.iter().any(|&conn| self.conns[conn as usize].stage != crate::conn::Stage::Gone);
        let through = self.engine.is_ended() && !lanes;
        if !(through || stopping.abandoned) || self.stays_for(env).is_some() {
            return false;
        }
        let clean = through && !stopping.abandoned && self.engine.is_clean();
        let settled = stopping.unstable && self.flushes > stopping.flushes;
        self.stopping = None;
        env.tell(self.index, || format!("our process ends, clean: {clean}, loss: {:?}", self.recorded_loss));
        if clean && self.recorded_loss.is_none() {
            let mut floors = Vec::new();
            self.oracle.flush_floors(&mut floors);
            self.judge_durable(env, 0..self.plan.sectors, |sector| floors[sector], "a clean end");
            self.oracle.flushed();
            env.mark(Mark::EndedClean);
            if settled {
                env.mark(Mark::EndedSettling);
            }
        } else if self.recorded_loss.is_some() {
            env.mark(Mark::EndedWithLoss);
        } else {
            self.judge_unclean(env);
            env.mark(Mark::EndedUnclean);
        }
        self.loss_open = false;
        self.begin_anew(env, clean);
        true
    }

    /// No loss was told, so what is not stable is at least there: every server shows it (F9).
    fn judge_unclean(&self, env: &mut Env) {
        let mut floors = Vec::new();
        self.oracle.flush_floors(&mut floors);
        for (sector, &floor) in floors.iter().enumerate() {
            let missing = |value: &Value| !self.oracle.allows(sector, *value, floor);
            if let Some(value) = self.medium.views(sector).find(missing) {
                env.fail("F9", || {
                    format!(
                        "it ended and told no loss; sector {sector} shows {value}, {floor} was acknowledged"
                    )
                });
                return;
            }
        }
    }

    /// Some server still has a write of ours, on whatever connection. A gate may have dropped them without our hearing of it.
    fn may_land(&self) -> bool {
        self.live.iter().any(|&index| {
            let conn = &self.conns[index as usize];
            let ops = conn.serving.iter().copied().chain(conn.frames.iter().map(|frame| frame.op));
            ops.map(|op| self.ops.get(op)).any(crate::op::Op::writes)
        })
    }

    /// What keeps it here; see the module header.
    pub(super) fn stays_for(&self, env: &Env) -> Option<&'static str> {
        let blind = env.servers.iter().any(|server| server.other_data || server.smaller);
        // Unless it is a part of what was told to be lost.
        let haunted = self.recorded_loss.is_none() && self.oracle.is_haunted_anywhere(env.now);
        let reasons = [
            (self.engine.has_ghosts() && self.may_land(), "a ghost that may be repaired"),
            (haunted, "a ghost that landed"),
            (self.oracle.is_uncertain(), "a loss that nobody can know of"),
            (blind, "a server with other data"),
        ];
        reasons.into_iter().find(|(holds, _)| *holds).map(|(_, why)| why)
    }
}
