// SPDX-License-Identifier: MIT OR Apache-2.0
//! A changed program, and what an operator says of a path.
//!
//! Paths are told apart by name. One whose target is unchanged keeps its lanes;
//! a changed or removed one is drained and its lanes closed when they are empty.
//! An entry stays in the engine's table until its last lane is gone, because
//! copies in doubt and late replies name it.

use alloc::string::String;

use policies::{Canary, Distances, failback::When};
use program::{DeviceProgram, Failback, Groups, PathCommand, PathProgram, Writers};

use crate::Close;
use crate::engine::{Engine, selector_kind};
use crate::lane::LaneState;
use crate::lanes::FAIL_GRACE;
use crate::path::{Admin, Path};
use crate::record::DecisionPoint;

pub(crate) fn failback_when(failback: Failback) -> When {
    match failback {
        Failback::Immediate => When::Immediate,
        Failback::After(time) => When::After(time),
        Failback::Manual => When::Manual,
    }
}

impl Engine {
    /// Makes the path of `program.paths[index]`.
    pub(crate) fn add_path(&mut self, index: usize) {
        let program = self.program.paths[index].clone();
        let domain = self.domain_for(&program);
        let draw = self.draw();
        let canary = Canary::new(self.program.canary.interval, self.program.canary.idle, draw);
        self.paths.push(Path::new(program, index, domain, canary));
        self.explain.set_paths(self.paths.len());
        self.slow.set_paths(self.paths.len());
        self.distances.set_paths(self.paths.len());
        self.note(|engine| DecisionPoint::Paths { paths: engine.paths.len() });
    }

    pub(crate) fn reload(&mut self, program: DeviceProgram) {
        self.selector.set_kind(selector_kind(program.selector));
        self.failback.set_when(failback_when(program.failback));
        self.hedges.set_program(&program);
        if program.groups == Groups::Priority {
            self.distances = Distances::new(self.paths.len());
        }
        self.identity.declared = program.identity.is_some();
        self.put_in_force(program);
        self.time_doubts();
        self.note_settings();
        for path in &mut self.paths {
            path.program_index = None;
            path.canary.set_times(self.program.canary.interval, self.program.canary.idle);
        }
        for index in 0..self.program.paths.len() {
            self.reload_path(index);
        }
        for path in 0..self.paths.len() {
            if self.paths[path].program_index.is_none() {
                self.paths[path].admin = Admin::Removed;
                self.drain(path);
                self.forget_removed(path);
            }
        }
        self.regroup();
        self.open_lanes();
    }

    /// What is kept begins or ends with it.
    fn put_in_force(&mut self, program: DeviceProgram) {
        let retained = self.retains();
        let before = core::mem::replace(&mut self.program, program);
        self.set_retention_limit(self.retention.limit_bytes);
        let shared = before.writers == Writers::One && self.program.writers == Writers::Many;
        match (retained, self.retains()) {
            (true, false) => {
                let program = core::mem::replace(&mut self.program, before);
                // What a FLUSH has failed for is to be written again: while it is there.
                self.rewrite_failed();
                self.program = program;
                self.stop_retaining();
            }
            (false, true) => self.start_retaining(),
            _ => {}
        }
        if shared {
            self.leave_replay_to_others();
            self.leave_ghosts_to_others();
        }
    }

    fn reload_path(&mut self, index: usize) {
        let new = self.program.paths[index].clone();
        let kept = self
            .paths
            .iter()
            .position(|path| path.admin != Admin::Removed && keeps_lanes(&path.program, &new));
        match kept {
            Some(path) => {
                let path = &mut self.paths[path];
                path.program = new;
                path.program_index = Some(index);
            }
            None => self.replace_path(index, &new),
        }
    }

    /// Adds a path. One that leads where an earlier one of its name led takes over what
    /// that one proved (3.8) and its cache: what was written through it is still there.
    fn replace_path(&mut self, index: usize, new: &PathProgram) {
        let led_there = |path: &Path| path.program.name == new.name && path.program.target == new.target;
        let old = self.paths.iter().rposition(led_there);
        self.add_path(index);
        let (Some(old), Some(added)) = (old, self.paths.len().checked_sub(1)) else { return };
        self.paths[added].proven = core::mem::take(&mut self.paths[old].proven);
        self.paths[old].successor = Some(added);
        self.paths[added].access_told = self.paths[old].access_told;
        self.distances.inherit(old, added);
        self.inherit_opinions(old, added);
        if self.paths[old].program.same_cache == new.same_cache {
            self.paths[added].domain = self.paths[old].domain;
        }
    }

    /// `path` is an index into the running program's paths.
    pub(crate) fn path_command(&mut self, path: usize, command: PathCommand) {
        let found = self.paths.iter().position(|entry| entry.program_index == Some(path));
        let Some(index) = found else { return };
        match command {
            PathCommand::Fail => {
                self.paths[index].admin = Admin::Failed;
                self.paths[index].reconnect_at = self.now + FAIL_GRACE;
                self.paths[index].explain("operator", String::from("taken out by `path fail`"));
                self.decide_command(index, "take it out: `path fail`", "`path reinstate`");
                self.drain(index);
            }
            PathCommand::Drain => {
                self.paths[index].admin = Admin::Drained;
                self.paths[index].explain("operator", String::from("taken out by `path drain`"));
                self.decide_command(index, "take it out: `path drain`", "`path reinstate`");
                self.drain(index);
            }
            PathCommand::Reinstate => {
                let now = self.now;
                let entry = &mut self.paths[index];
                entry.admin = Admin::In;
                entry.refusal = None;
                entry.sick = false;
                entry.probation = None;
                entry.failed_before = false;
                entry.reconnect_at = now;
                entry.backoff.reset();
                entry.explain("operator", String::from("reinstated by the operator, connecting"));
                self.decide_command(
                    index,
                    "connect at once: `path reinstate`",
                    "it is connected and checked",
                );
                self.forgive(index);
                self.failback.force();
            }
        }
        self.regroup();
        self.open_lanes();
    }

    /// Nothing new on this path; its lanes close when they are empty.
    pub(crate) fn drain(&mut self, index: usize) {
        for at in 0..self.paths[index].lanes.len() {
            let slot = self.paths[index].lanes[at];
            let lane = self.lane_at_mut(slot);
            match lane.state {
                LaneState::Up => {
                    lane.state = LaneState::Draining;
                    if lane.is_empty() {
                        self.finish_drain(slot);
                    }
                }
                LaneState::Opening | LaneState::Verifying | LaneState::Unproven => {
                    self.close(slot, Close::Abort);
                }
                LaneState::Draining | LaneState::Zombie | LaneState::Closing => {}
            }
        }
    }

    /// Names of removed paths may not be reused while something refers to them;
    /// the entry stays, hidden, and costs a few hundred bytes.
    pub(crate) fn forget_removed(&mut self, index: usize) {
        let path = &mut self.paths[index];
        if path.admin == Admin::Removed && path.lanes.is_empty() {
            path.offer = None;
            self.explain.forget_path(index);
            let domain = path.domain;
            self.abandon_domain(domain);
        }
    }
}

/// Whether lanes of `old` may serve `new`.
fn keeps_lanes(old: &PathProgram, new: &PathProgram) -> bool {
    old.name == new.name
        && old.target == new.target
        && old.in_flight == new.in_flight
        && old.drains == new.drains
        && old.read_only == new.read_only
        // The cache domain goes with the lanes: what was written through them is there.
        && old.same_cache == new.same_cache
}
