// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which paths carry I/O now (design 3.4; rules W18, W20).
//!
//! ```text
//! usable   = in by the operator, connected, identity proven, and of the best standing that
//!            exists (`steering`): a path is never held back when it is the last one
//! suspect  -> last resort: not even one of them answers now
//! members  = active-active:  the usable paths of the chosen group (`rank`)
//!            active-passive: one path, kept until it is not usable or a better
//!                            group takes over by the failback rule
//! writers  = the members that may be written; if none, those of the best group
//!            that has one (read-only paths serve reads only), of a lesser standing
//!            if none of the best has one; active-passive uses that path for reads, too,
//!            but not one that answers nothing
//! ```
//!
//! An active-passive switch away from a path that still answers waits until its
//! requests are answered, and one from a path behind a gate for the gate's word (`fence`);
//! `exclusive = "proven"` waits for proof in every case.
//! A server without multi-conn, or `coherent = false`, makes the device
//! active-passive with FUA on every write whatever was configured (W18).

use alloc::vec::Vec;

use nbd::TransmissionFlags;
use policies::limits::GIVE_UP;
use policies::{Rank, Standing};
use program::{Access, AccessPolicy, Coherence, Exclusive, Nanos, NoPath, PathState, ReportKind};

use crate::Action;
use crate::engine::Engine;
use crate::lane::{Cause, Lane, LaneState, Suspicion};
use crate::path::{Admin, Path};
use crate::slab::Key;

/// See the module header.
#[derive(Debug)]
pub(crate) struct Active {
    /// Paths that carry reads.
    pub(crate) members: Vec<usize>,
    /// Paths that carry writes.
    pub(crate) writers: Vec<usize>,
    /// Rank of the group in use.
    pub(crate) rank: Option<Rank>,
    /// Policy in force.
    pub(crate) policy: AccessPolicy,
    /// FUA on every write (W18).
    pub(crate) write_through: bool,
    /// Standing of the paths in use.
    pub(crate) best: Option<Standing>,
    /// No healthy path: suspect ones are used.
    pub(crate) last_resort: bool,
    /// No path answers that may be written, whatever those for reads alone do.
    pub(crate) unwritable: Option<Unwritable>,
    /// Active-passive: the old path must finish first.
    pub(crate) waiting_for: Option<usize>,
    /// Since when it has been that one, as seen by the timer.
    pub(crate) waiting_since: Option<(usize, Nanos)>,
    /// Pieces that wait for a path that has not answered them EIO.
    pub(crate) parked: Vec<Key>,
    /// Until when nothing new is sent, as the paths have just turned out not to share a cache (`unshared`).
    pub(crate) apart_by: Option<Nanos>,
    /// Since then a write was answered that no FLUSH has brought out.
    pub(crate) apart_owed: bool,
    /// Pieces of reads that wait for a write which moves (`unshared`).
    pub(crate) readers: Vec<Key>,
    /// When parked pieces may ask the path that answered EIO once more.
    pub(crate) ask_again: Nanos,
}

/// Since when, and whether the hold is over for what writes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unwritable {
    pub(crate) since: Nanos,
    pub(crate) over: bool,
}

impl Default for Active {
    fn default() -> Self {
        Self {
            members: Vec::new(),
            writers: Vec::new(),
            rank: None,
            policy: AccessPolicy::ActiveActive,
            write_through: false,
            best: None,
            last_resort: false,
            unwritable: None,
            waiting_for: None,
            waiting_since: None,
            parked: Vec::new(),
            apart_by: None,
            apart_owed: false,
            readers: Vec::new(),
            ask_again: 0,
        }
    }
}

impl Engine {
    /// Works out anew what carries I/O; called after every change of a path.
    pub(crate) fn regroup(&mut self) {
        if self.mark_standings() {
            self.failback.force();
        }
        self.narrow_policy();
        self.arrange_distances();
        let standings = self.paths.iter().filter_map(|path| path.steering.standing);
        let best = policies::standing::in_use(standings);
        self.active.best = best;
        let usable: Vec<usize> =
            (0..self.paths.len()).filter(|&path| self.paths[path].steering.is_of(best)).collect();
        let lesser = self.writers_of_lesser_standing(&usable);
        // Of one path at a time one that answers nothing is not preferred to one that does, be it for reads alone.
        let one = self.active.policy == AccessPolicy::ActivePassive;
        let lesser = lesser.filter(|_| !one || self.some_writer_speaks(lesser));
        self.active.last_resort = best.min(lesser.or(best)) <= Some(Standing::Suspect);
        let mut written = usable.clone();
        if lesser.is_some() {
            let of_lesser = |path: &usize| self.paths[*path].steering.is_of(lesser);
            written
                .extend((0..self.paths.len()).filter(of_lesser).filter(|&path| self.paths[path].writable()));
            written.sort_unstable();
        }
        match self.active.policy {
            AccessPolicy::ActiveActive => {
                let group = self.best_group(&usable);
                self.share(&written, group);
            }
            AccessPolicy::ActivePassive => {
                let group = self.best_group(&written);
                self.choose_one(&written, &group);
            }
        }
        self.end_rests();
        self.note_held();
        self.decide_group();
        self.unpark();
        self.report_paths();
    }

    /// None of these can be written through, and others can: the best standing of those.
    fn writers_of_lesser_standing(&self, usable: &[usize]) -> Option<Standing> {
        if usable.iter().any(|&path| self.paths[path].writable()) {
            return None;
        }
        let writable = self.paths.iter().filter(|path| path.writable());
        policies::standing::in_use(writable.filter_map(|path| path.steering.standing))
    }

    fn some_writer_speaks(&self, standing: Option<Standing>) -> bool {
        let fits = |path: &Path| path.steering.is_of(standing) && path.writable();
        self.paths.iter().any(|path| fits(path) && !self.is_mute(path))
    }

    /// The link of every lane of this path is silent, or nothing came for as long as a lane is given up after, and well before
    /// the hold is over. While one is used as the last that there is, a single answer ends the suspicion.
    fn is_mute(&self, path: &Path) -> bool {
        let patience = match self.program.no_path {
            NoPath::Hold(hold) => GIVE_UP.min(hold / 2),
            NoPath::Fail | NoPath::Forever => GIVE_UP,
        };
        let lanes = path.lanes.iter().map(|&slot| self.lane_at(slot)).filter(|lane| lane.is_up());
        let mute = |it: &Suspicion| it.cause == Cause::LinkSilent || self.now - it.since >= patience;
        lanes.map(|lane| lane.suspicion).all(|suspicion| suspicion.as_ref().is_some_and(mute))
    }

    /// One path at a time: the one in use has become mute, and another answers.
    pub(crate) fn leave_mute_path(&mut self) {
        let Some(&member) = self.active.members.first() else { return };
        let one = self.active.policy == AccessPolicy::ActivePassive;
        if one && self.has_sibling(member) && self.is_mute(&self.paths[member]) {
            self.regroup();
        }
    }

    /// Whether some path other than this one answers, so that this one can be left: by reads.
    pub(crate) fn has_sibling(&self, index: usize) -> bool {
        (0..self.paths.len()).any(|other| other != index && self.paths[other].steering.answers())
    }

    /// The same for what is written: a path for reads alone takes nothing of that.
    pub(crate) fn has_writable_sibling(&self, index: usize) -> bool {
        let takes = |path: &Path| path.steering.answers() && path.writable();
        (0..self.paths.len()).any(|other| other != index && takes(&self.paths[other]))
    }

    /// W18: what the servers offer may narrow the policy.
    fn narrow_policy(&mut self) {
        let several = self.paths.iter().filter(|path| path.admin != Admin::Removed).count() > 1
            || self.paths.iter().any(|path| path.program.lanes > 1);
        let single_conn = self.paths.iter().any(|path| {
            path.admin != Admin::Removed
                && path.offer.is_some_and(|offer| {
                    !offer.local && !offer.flags.contains(TransmissionFlags::CAN_MULTI_CONN)
                })
        });
        let incoherent = self.program.coherent == Coherence::Incoherent || (several && single_conn);
        let before = self.active.write_through;
        self.active.write_through = incoherent;
        if before {
            self.release_readers();
        }
        let narrow = incoherent && self.rules.w18_one_path;
        self.active.policy = if narrow { AccessPolicy::ActivePassive } else { self.program.access };
        if !incoherent {
            self.active.apart_by = None;
        }
        if incoherent && !before {
            self.come_apart();
            self.event(
                "incoherent_paths",
                None,
                "W18",
                "the paths do not share one cache (declared so, or a server without multi-conn): one path at a time, every write with FUA".into(),
            );
        }
    }

    /// Lanes a path should have.
    pub(crate) fn lanes_wanted(&self, path: usize) -> usize {
        if self.active.write_through { 1 } else { usize::from(self.paths[path].program.lanes.max(1)) }
    }

    /// Those of these paths that are in the best group.
    fn best_group(&mut self, usable: &[usize]) -> Vec<usize> {
        let ranks: Vec<(Rank, Nanos)> =
            usable.iter().map(|&path| (self.rank(path), self.ranked_since(path))).collect();
        // A path in use that has come to a better group takes the use with it; one that has come to a lesser is left.
        let in_use = self.active.members.iter().filter(|path| usable.contains(path));
        let current = in_use.map(|&path| self.rank(path)).max().max(self.active.rank);
        self.active.rank = self.failback.choose(self.now, current, &ranks);
        usable.iter().copied().filter(|&path| Some(self.rank(path)) == self.active.rank).collect()
    }

    fn share(&mut self, usable: &[usize], group: Vec<usize>) {
        self.active.waiting_for = None;
        let writable = |path: &&usize| self.paths[**path].writable();
        self.active.writers = group.iter().filter(writable).copied().collect();
        if self.active.writers.is_empty() {
            let best = usable.iter().filter(writable).map(|&path| self.rank(path)).max();
            let of_best = |path: &&usize| Some(self.rank(**path)) == best;
            self.active.writers = usable.iter().filter(writable).filter(of_best).copied().collect();
        }
        self.active.members = group;
    }

    fn choose_one(&mut self, usable: &[usize], group: &[usize]) {
        let current = self.active.members.first().copied();
        let writable = |path: &&usize| self.paths[**path].writable();
        // Where the group has none that may be written, the best that may; of equal ones that in use, else the first.
        let of_group = group.iter().filter(writable).map(|&path| self.rank(path)).max();
        let best = of_group.or_else(|| usable.iter().filter(writable).map(|&path| self.rank(path)).max());
        let fits = |path: &&usize| self.paths[**path].writable() && Some(self.rank(**path)) == best;
        let keeps = current.filter(|path| usable.contains(path) && fits(&path));
        let Some(next) =
            keeps.or_else(|| usable.iter().find(fits).copied()).or_else(|| group.first().copied())
        else {
            self.keep_or_clear();
            return;
        };
        if current != Some(next) && self.rules.w20_exclusive {
            self.take_over(next);
        }
        if let Some(old) = current.filter(|&old| old != next)
            && self.must_wait_for(old)
        {
            self.active.waiting_for = Some(old);
        }
        if self.program.exclusive == Exclusive::Proven && self.rules.w20_exclusive {
            // Not only the last one: a path before it may have open copies still. The path
            // it goes back to is no second one.
            self.active.waiting_for = self.unproven_beside(next);
        }
        // Back on the path that was waited for: there is no second one.
        self.active.waiting_for.take_if(|old| *old == next);
        if current != Some(next) {
            self.active.waiting_for = self.active.waiting_for.or_else(|| self.word_awaited_beside(next));
        }
        self.active.members.clear();
        self.active.members.push(next);
        self.active.writers.clear();
        if self.paths[next].writable() {
            self.active.writers.push(next);
        }
        self.after_proof();
    }

    /// No path at all: the last one used stays known, so that the next one knows
    /// whom it must wait for.
    fn keep_or_clear(&mut self) {
        self.active.writers.clear();
        if let Some(old) = self.active.members.first().copied()
            && self.program.exclusive == Exclusive::Proven
        {
            self.active.waiting_for.get_or_insert(old);
        }
        self.active.members.clear();
    }

    /// W20: planned switches wait until the old path's requests are answered;
    /// `proven` waits for proof in every case.
    fn must_wait_for(&self, old: usize) -> bool {
        match self.program.exclusive {
            _ if !self.rules.w20_exclusive => false,
            Exclusive::Proven => self.path_has_open_copies(old),
            Exclusive::Issue => {
                let lanes = &self.paths[old].lanes;
                self.awaits_word(old) || lanes.iter().any(|&slot| is_at_work(self.lane_at(slot)))
            }
        }
    }

    /// A path other than this one on which something may still be carried out.
    fn unproven_beside(&self, path: usize) -> Option<usize> {
        (0..self.paths.len()).find(|&other| other != path && self.path_has_open_copies(other))
    }

    /// Whether a switch has waited for so long that requests fail of it. With proof asked for their own age counts (W20);
    /// else a switch ends by answers, and a slow one is not to blame for what waited before it.
    pub(crate) fn switch_hangs(&mut self, hold: Nanos) -> bool {
        let now = self.now;
        let Some(old) = self.active.waiting_for else {
            self.active.waiting_since = None;
            return false;
        };
        let since = self.active.waiting_since.filter(|&(of, _)| of == old).map_or(now, |(_, since)| since);
        self.active.waiting_since = Some((old, since));
        self.program.exclusive == Exclusive::Proven || (now - since >= hold && !self.awaits_word(old))
    }

    /// Something was settled: the new path may be free to start.
    pub(crate) fn after_proof(&mut self) {
        let Some(old) = self.active.waiting_for else { return };
        match (self.program.exclusive, self.active.members.first()) {
            (Exclusive::Proven, Some(&member)) if self.rules.w20_exclusive => {
                self.active.waiting_for = self.unproven_beside(member);
            }
            (_, Some(&member)) if !self.must_wait_for(old) => {
                self.active.waiting_for = self.word_awaited_beside(member);
            }
            (_, None) if !self.must_wait_for(old) => self.active.waiting_for = None,
            _ => {}
        }
    }

    fn note_held(&mut self) {
        let trusted =
            |path: &usize| self.paths[*path].lanes.iter().any(|&slot| self.lane_at(slot).is_trusted());
        let served = self.active.members.iter().any(trusted);
        let written = self.active.writers.iter().any(trusted);
        self.note_served(served);
        let writable = self.geometry.is_none_or(|told| {
            !TransmissionFlags(told.transmission_flags).contains(TransmissionFlags::READ_ONLY)
        });
        if written || !writable {
            self.active.unwritable = None;
        } else if self.active.unwritable.is_none() {
            self.active.unwritable = Some(Unwritable { since: self.now, over: false });
            self.end_pauses();
        }
        if served {
            if self.held_since.take().is_some() {
                self.forget_opinions();
            }
            self.failed = false;
        } else {
            self.held_since.get_or_insert(self.now);
            self.end_pauses();
        }
    }

    /// A path came or went: parked pieces look again.
    pub(crate) fn unpark(&mut self) {
        while let Some(key) = self.active.parked.pop() {
            self.pieces.get_mut(key).queued = false;
            self.enqueue(key, true);
        }
    }

    fn report_paths(&mut self) {
        for index in 0..self.paths.len() {
            let (state, access) = self.state_of(index);
            if self.paths[index].admin == Admin::Removed {
                continue;
            }
            let unchanged = (self.paths[index].state, self.paths[index].access) == (state, access);
            if state == PathState::Up && !self.paths[index].reason.is_empty() {
                self.paths[index].explain("", alloc::string::String::new());
            }
            if unchanged {
                continue;
            }
            if matches!(state, PathState::Held | PathState::Slow)
                && let Some((rule, text)) = self.standing_reason(index)
            {
                self.paths[index].explain(rule, text);
            }
            let path = &mut self.paths[index];
            let kind = ReportKind::PathState {
                path: path.program.name.clone(),
                from: path.state,
                to: state,
                access,
                rule: path.rule,
                reason: path.reason.clone(),
            };
            path.state = state;
            path.access = access;
            self.act(Action::Report(kind));
        }
    }

    /// The words for an operator.
    fn state_of(&self, index: usize) -> (PathState, Access) {
        let path = &self.paths[index];
        let carries = self.active.members.contains(&index) || self.active.writers.contains(&index);
        let access =
            if path.steering.standing < Some(Standing::Demoted) && !(carries && path.steering.answers()) {
                Access::Unavailable
            } else if !carries {
                Access::Standby
            } else if self.group_of(index) == 0 {
                Access::Optimized
            } else {
                Access::NonOptimized
            };
        let unproven = path.lanes.iter().any(|&slot| self.lane_at(slot).state == LaneState::Unproven);
        let state = match path.admin {
            Admin::Drained => PathState::Drained,
            Admin::In if path.refusal.is_some() => PathState::Refused,
            Admin::In if path.sick => PathState::Down,
            Admin::In if path.lanes.iter().any(|&slot| self.lane_at(slot).is_trusted()) => {
                self.state_of_connected(index, carries)
            }
            Admin::In if unproven => PathState::Unproven,
            Admin::In | Admin::Failed | Admin::Removed => PathState::Down,
        };
        (state, access)
    }

    fn state_of_connected(&self, index: usize, carries: bool) -> PathState {
        let path = &self.paths[index];
        match path.steering.standing {
            // In use it is not held, whatever its standing: there is nothing better.
            Some(Standing::HeldOut) if !carries => PathState::Held,
            Some(Standing::Demoted) => PathState::Slow,
            _ if path.probation.as_ref().is_some_and(|probation| !probation.done(self.now)) => {
                PathState::Probation
            }
            _ if carries => PathState::Up,
            _ => PathState::Standby,
        }
    }
}

/// W20, `exclusive = "issue"`: the next path waits for what is on this connection.
fn is_at_work(lane: &Lane) -> bool {
    match lane.state {
        LaneState::Up => lane.in_flight > 0 && lane.suspicion.is_none(),
        // The FLUSH that ends a planned switch belongs to it (W18).
        LaneState::Draining => !lane.is_empty() && lane.suspicion.is_none(),
        // When it is gone its gate is asked, and that word awaited.
        LaneState::Closing => {
            !lane.finished && lane.has_io() && lane.offer.is_some_and(|offer| offer.gate.is_some())
        }
        _ => false,
    }
}
