// SPDX-License-Identifier: MIT OR Apache-2.0
//! FLUSH over cache domains (rules F1-F4, F10).
//!
//! A *domain* is the set of paths whose servers share one volatile cache: one
//! path, unless `same_cache` joins several. Per domain two counters are kept:
//! writes acknowledged through it, and how many of them a FLUSH has covered. A
//! FLUSH sent now covers every write answered before now, so the mark is taken
//! when it is sent. A host FLUSH is answered when every domain that held an
//! uncovered write at its arrival has flushed; never on a subset.
//!
//! Nothing dirty is no reason to answer without asking the storage: what an
//! earlier process wrote may still be in its cache, so one FLUSH is always sent
//! (F10).
//!
//! A domain all of whose connections are gone may have lost what was not covered; the
//! protocol cannot tell (semantics 0.2), only a gate can. What is retained is written
//! again (`retain`, `replay`). Where nothing is retained the FLUSH waits until the domain
//! is back, is sent there, and the event `cache_unproven` says what its success assumes.
//!
//! A domain whose paths stand and answer errors is left in the same way, when a FLUSH waits for it.

use alloc::format;
use alloc::string::String;

use nbd::{Command, CommandFlags, Errno};
use program::PathProgram;

use crate::complete::is_storage_error;
use crate::engine::Engine;
use crate::lane::{Lane, LaneState, Use};
use crate::path::Admin;
use crate::request::Kind;
use crate::slab::Key;
use crate::{Action, Close, GateOffer, LaneId, SendData, SessionId};

/// Any domain will do.
pub(crate) const ANY: usize = usize::MAX;

/// One volatile cache.
#[derive(Debug, Default)]
pub(crate) struct Domain {
    /// `same_cache`, if declared.
    name: Option<String>,
    /// Writes answered through it that did not carry FUA.
    pub(crate) acked: u64,
    /// Of those, covered by a FLUSH.
    pub(crate) flushed: u64,
    /// So many of `acked` were before anything was retained.
    pub(crate) not_kept: u64,
    /// All its connections were gone at once while something was uncovered, and nothing
    /// is retained: the next FLUSH rests on the server having kept its cache.
    unproven: bool,
    /// The same where writes are retained: this many of `acked` are being written again (F6).
    pub(crate) lost: Option<u64>,
    /// An earlier process of ours that ended without a clean stop may have left something in it (W10).
    pub(crate) inherited: bool,
    /// It was waited for long enough, and that was told: FLUSH goes on without it until it is back.
    pub(crate) given_up: bool,
    /// `lost` because a FLUSH failed, or with another generation: that its server has kept its cache since does
    /// not bring it back.
    pub(crate) spoilt: bool,
    /// Its FLUSH failed: everything is written again before the next.
    pub(crate) rewrite: bool,
    /// Some lane is up that is not known to be of the process that holds its cache.
    unlinked: bool,
    /// The turn in which that was answered last. A cache that failed to write tells one FLUSH; another
    /// that was on its way then may be answered well and has not covered what is lost.
    pub(crate) failed_turn: Option<u64>,
    /// Volume and cache generation that a gate told (F6): equal ones are one cache.
    cache: Option<(u128, u64)>,
}

impl Engine {
    /// The domain of a path; made on first use.
    pub(crate) fn domain_for(&mut self, path: &PathProgram) -> usize {
        let shared = path.same_cache.as_ref();
        let apart = self.rules.f1_domains;
        let found = self
            .domains
            .iter()
            .position(|domain| !apart || (shared.is_some() && domain.name.as_ref() == shared));
        found.unwrap_or_else(|| {
            self.domains.push(Domain { name: shared.cloned(), ..Domain::default() });
            self.domains.len() - 1
        })
    }

    /// One FLUSH piece per dirty domain, or one to anywhere.
    pub(crate) fn start_flush(&mut self, request: Key) {
        let session = self.requests.get(request).host.session;
        if self.owes_flush_error(session) {
            self.fail_request(request, Errno::Io);
            return;
        }
        self.rewrite_failed();
        if self.flush_waits(request) {
            return;
        }
        let mut any = true;
        for domain in 0..self.domains.len() {
            if self.domains[domain].acked > self.domains[domain].flushed || self.asks_for_inherited(domain) {
                any = false;
                self.add_piece(request, Kind::Flush { domain });
                if !self.rules.f2_every_domain {
                    break;
                }
            }
        }
        if any && self.rules.f10_never_noop {
            self.add_piece(request, Kind::Flush { domain: ANY });
        } else if any {
            self.finish_request(request);
        }
    }

    /// A FLUSH failed before: what it should have covered is written again first.
    pub(crate) fn rewrite_failed(&mut self) {
        for domain in 0..self.domains.len() {
            if core::mem::take(&mut self.domains[domain].rewrite) {
                self.domain_spoilt(domain);
            }
        }
    }

    /// Sends the flushes whose domain can be reached.
    pub(crate) fn dispatch_flushes(&mut self) {
        let spoilt = |key: &Key| match self.pieces.get(*key).kind {
            Kind::Flush { domain } => self.domains.get(domain).is_some_and(|domain| domain.rewrite),
            Kind::Io => false,
        };
        if self.queues.flushes.iter().any(spoilt) {
            // Asked before another FLUSH of that cache failed: it begins anew, behind the replay.
            self.rewrite_failed();
        }
        self.leave_sick_domains();
        for _ in 0..self.queues.flushes.len() {
            let Some(key) = self.queues.flushes.pop_front() else { return };
            self.pieces.get_mut(key).queued = false;
            if self.pieces.get(key).state == crate::request::PieceState::Done {
                self.forget_piece(key);
            } else if !self.send_flush(key) && !self.send_elsewhere(key) {
                self.enqueue(key, false);
            }
        }
    }

    /// Its domain cannot be asked now. Where another FLUSH has covered it meanwhile any will do: it may stay away, or
    /// come back as another cache.
    fn send_elsewhere(&mut self, key: Key) -> bool {
        let Kind::Flush { domain } = self.pieces.get(key).kind else { return false };
        self.bound_wait_for_inherited(domain);
        if domain == ANY || self.is_reachable(domain) {
            return false;
        }
        self.free_flush(key);
        matches!(self.pieces.get(key).kind, Kind::Flush { domain: ANY }) && self.send_flush(key)
    }

    /// A FLUSH waits for a cache whose only paths answer errors that others do not: that may go on for long, and a
    /// FLUSH there would likely fail as well. What it holds is written again through the others (F2).
    fn leave_sick_domains(&mut self) {
        for at in 0..self.queues.flushes.len() {
            let Kind::Flush { domain } = self.pieces.get(self.queues.flushes[at]).kind else { continue };
            if self.domains.get(domain).is_some_and(|entry| entry.lost != Some(entry.acked))
                && self.is_sick_domain(domain)
            {
                self.domain_lost(domain);
            }
        }
    }

    fn is_sick_domain(&self, domain: usize) -> bool {
        let entry = &self.domains[domain];
        let elsewhere = self.active.writers.iter().any(|&path| self.paths[path].domain != domain);
        let sick = self.paths.iter().any(|path| path.domain == domain && path.sick);
        entry.acked > entry.flushed && elsewhere && sick && !self.is_reachable(domain)
    }

    /// A FLUSH can only be answered when this domain is back.
    pub(crate) fn flush_waits_for(&self, domain: usize) -> bool {
        let entry = &self.domains[domain];
        let dirty = entry.acked > entry.flushed && entry.lost.is_none();
        !self.is_reachable(domain) && (dirty || self.asks_for_inherited(domain))
    }

    fn send_flush(&mut self, key: Key) -> bool {
        let Kind::Flush { domain } = self.pieces.get(key).kind else {
            panic!("not a flush in the flush queue")
        };
        let Some(slot) = self.flush_lane(domain) else { return false };
        let path = self.lane_at(slot).path;
        self.pieces.get_mut(key).kind = Kind::Flush { domain: self.paths[path].domain };
        let used = Use::Piece { piece: key, flush_after: false, flushing: false, moved: false };
        let send = Action::Send {
            lane: self.lane_at(slot).id,
            cookie: 0,
            command: Command::Flush,
            flags: CommandFlags::empty(),
            offset: 0,
            len: 0,
            data: SendData::None,
        };
        self.transmit(key, slot, used, send);
        true
    }

    /// A FLUSH that lost its lane, or never got one, asks any other if nothing is dirty where it was asked: that path may
    /// stay away.
    pub(crate) fn free_flush(&mut self, key: Key) {
        let piece = self.pieces.get_mut(key);
        let Kind::Flush { domain } = piece.kind else { return };
        let clean = |domain: &Domain| {
            domain.acked <= domain.flushed && domain.lost.is_none() && !domain.rewrite && !domain.inherited
        };
        if self.domains.get(domain).is_some_and(clean) {
            piece.kind = Kind::Flush { domain: ANY };
        }
    }

    /// A lane into the domain, of the paths in use if there is one; a lane that is
    /// being drained will do, for what it wrote is there.
    pub(crate) fn flush_lane(&self, domain: usize) -> Option<u16> {
        let fits = |path: usize| domain == ANY || self.paths[path].domain == domain;
        let in_use = self.active.writers.iter().copied().filter(|&path| fits(path));
        let others = (0..self.paths.len()).filter(|&path| fits(path) && self.paths[path].steering.answers());
        let draining = || {
            let usable = |lane: &&Lane| {
                lane.state == LaneState::Draining
                    && lane.has_spare()
                    && fits(lane.path)
                    && lane.linked
                    && !lane.leaving
                    && !lane.broken
            };
            self.lanes.iter().flatten().find(usable).map(|lane| lane.id.slot)
        };
        // What is dirty is behind the linked lanes.
        let linked = |slot: &u16| domain == ANY || self.lane_at(*slot).linked;
        in_use.chain(others).find_map(|path| self.lane_of_which(path, linked)).or_else(draining)
    }

    /// A FLUSH failed. Every session is told once, as the kernel tells every open
    /// file once: what it wrote may be what was lost. Its next FLUSH fails, whichever is
    /// answered first: one that was on its way elsewhere has not covered what may be lost.
    pub(crate) fn flush_failed(&mut self, path: usize) {
        let text = "the storage answered FLUSH with an error: writes acknowledged before it may be lost";
        self.event("flush_failed", Some(path), "F9", text.into());
        self.decide_flush_failed(path);
        // Paths may share a cache without being declared to, so it may be anything that is
        // not stable that was lost.
        let (own, retains) = (self.paths[path].domain, self.retains());
        for (index, domain) in self.domains.iter_mut().enumerate() {
            domain.rewrite |= retains && (index == own || domain.acked > domain.flushed);
            if index == own || !retains {
                domain.failed_turn = Some(self.turn);
            }
        }
        self.inherited_failed(own);
        if !self.rules.f9_every_session {
            return;
        }
        for session in &mut self.sessions {
            session.flush_error = true;
        }
    }

    /// Whether this session has still to be told of a failed FLUSH; tells it.
    pub(crate) fn owes_flush_error(&mut self, id: SessionId) -> bool {
        let session = self.sessions.iter_mut().find(|session| session.id == id);
        session.is_some_and(|session| core::mem::take(&mut session.flush_error))
    }

    /// A lane that nothing is issued on any more is empty: flush what it wrote, close it.
    pub(crate) fn finish_drain(&mut self, slot: u16) {
        let lane = self.lane_at(slot);
        let domain = &self.domains[self.paths[lane.path].domain];
        let (mark, dirty) = (domain.acked, domain.acked > domain.flushed || domain.inherited);
        if !dirty || lane.drain_flushed {
            self.close(slot, Close::Disconnect);
            return;
        }
        let now = self.now;
        let lane = self.lane_at_mut(slot);
        lane.drain_flushed = true;
        let cookie = lane.take(now, Use::DrainFlush, 0, false, 0);
        let Some(index) = lane.find(cookie) else { unreachable!("just taken") };
        lane.mark_flush(index, mark);
        let (flags, data) = (CommandFlags::empty(), SendData::None);
        let lane = lane.id;
        self.next_tick = self.next_tick.min(now + crate::health::TICK);
        self.act(Action::Send { lane, cookie, command: Command::Flush, flags, offset: 0, len: 0, data });
    }

    pub(crate) fn drain_flush_reply(&mut self, id: LaneId, mark: u64, result: Result<(), Errno>) {
        let path = self.lane_mut(id).path;
        let domain = self.paths[path].domain;
        match result {
            Ok(()) if self.lane_mut(id).linked => self.flushed(domain, mark),
            // What is retained is written again, and nobody need hear of it.
            Err(errno) if self.domain_spoilt(domain) => {
                if is_storage_error(errno) {
                    self.inherited_failed(domain);
                }
            }
            Err(errno) if is_storage_error(errno) => self.flush_failed(path),
            // Not of the process that holds what is dirty, or it is leaving (ESHUTDOWN): the
            // domain stays dirty, and a host's FLUSH waits for it.
            Ok(()) | Err(_) => {}
        }
    }

    /// A domain that no path of the configuration leads to any more: no FLUSH can reach
    /// it, and waiting for it would be waiting for ever.
    pub(crate) fn abandon_domain(&mut self, domain: usize) {
        if self.is_named(domain) {
            return;
        }
        let entry = &mut self.domains[domain];
        let inherited = core::mem::take(&mut entry.inherited);
        let dirty = entry.acked > entry.flushed && entry.lost.is_none();
        let rests = dirty && !self.domain_lost(domain);
        self.redirect_flushes(domain, ANY);
        if !rests && !inherited {
            return;
        }
        if rests {
            let entry = &mut self.domains[domain];
            entry.flushed = entry.acked;
            entry.unproven = false;
        }
        let text = "the path was removed from the configuration before its acknowledged writes could be flushed; whether they are durable is up to its server";
        self.event("cache_unproven", None, "F2", text.into());
    }

    /// Whether a path of the configuration leads to this domain.
    fn is_named(&self, domain: usize) -> bool {
        self.paths.iter().any(|path| path.domain == domain && path.admin != Admin::Removed)
    }

    /// A FLUSH of `domain` that covers `mark` writes was answered well.
    pub(crate) fn flushed(&mut self, domain: usize, mark: u64) {
        let entry = &mut self.domains[domain];
        if entry.lost.is_some() || entry.rewrite {
            // Whatever answered has not what was lost; the replay ends that.
            return;
        }
        entry.flushed = entry.flushed.max(mark);
        entry.inherited = false;
        let unproven = core::mem::take(&mut entry.unproven);
        self.cut_log();
        if unproven {
            let path = self.paths.iter().position(|path| path.domain == domain);
            let text = format!(
                "every connection to this storage was lost while {mark} writes were acknowledged and not all flushed; the FLUSH just answered assumes that the server kept its cache"
            );
            self.event("cache_unproven", path, "F6", text);
        }
    }

    /// Called when a lane of `path` is gone or given up: with the last one the domain
    /// counts as lost (F6), until the server proves that it kept its cache.
    pub(crate) fn domain_lost_lane(&mut self, path: usize) {
        let domain = self.paths[path].domain;
        let alive = self.lanes.iter().flatten().any(|lane| {
            self.paths[lane.path].domain == domain
                && matches!(lane.state, LaneState::Up | LaneState::Draining)
                && lane.linked
        });
        if !alive {
            self.domains[domain].unlinked = true;
            self.await_inherited(domain);
            self.link_domain(domain);
        }
        let entry = &self.domains[domain];
        let news = entry.acked > entry.flushed && entry.lost != Some(entry.acked);
        if !alive && news && !self.domain_lost(domain) {
            self.domains[domain].unproven = true;
        }
    }

    /// A lane was accepted. While another one of the domain stands and does not answer, the
    /// server behind that one may be gone, and this one a new process without its cache (F6).
    pub(crate) fn link_lane(&mut self, slot: u16) {
        let domain = self.paths[self.lane_at(slot).path].domain;
        let other = self.lanes.iter().flatten().any(|lane| {
            lane.id.slot != slot
                && lane.linked
                && self.paths[lane.path].domain == domain
                && matches!(lane.state, LaneState::Up | LaneState::Draining)
        });
        self.lane_at_mut(slot).linked = !other;
        self.domains[domain].unlinked |= other;
    }

    /// A linked lane has answered, so every lane of the domain that is up is of that process;
    /// or none is left, and they begin anew.
    pub(crate) fn link_domain(&mut self, domain: usize) {
        if !core::mem::take(&mut self.domains[domain].unlinked) {
            return;
        }
        for slot in 0..self.lanes.len() {
            let Some(lane) = self.lanes[slot].as_mut() else { continue };
            let used = matches!(lane.state, LaneState::Up | LaneState::Draining);
            lane.linked |= used && self.paths[lane.path].domain == domain;
        }
    }

    /// A lane of `path` was accepted: which cache is behind it? Paths whose gates tell the
    /// same volume and generation share one (F1).
    pub(crate) fn note_cache(&mut self, path: usize, gate: Option<&GateOffer>) {
        let told = gate.map(|gate| (gate.volume, gate.cache_generation));
        let current = self.paths[path].domain;
        let before = self.domains[current].cache;
        if before == told {
            if told.is_some() {
                self.domains[current].unproven = false;
                self.cache_kept(current);
            }
            return;
        }
        if self.domains[current].unproven {
            self.lose_unkept(current, told);
        }
        let declared = self.paths[path].program.same_cache.is_some();
        let shared = self.domains.iter().position(|domain| told.is_some() && domain.cache == told);
        match shared.filter(|_| !declared && self.rules.f1_domains) {
            Some(shared) => {
                self.paths[path].domain = shared;
                // One cache: a FLUSH of it covers what is inherited, and has if it is not any more.
                self.domains[current].inherited = false;
                self.cache_kept(shared);
                if !self.is_named(current) {
                    self.redirect_flushes(current, shared);
                }
                self.abandon_domain(current);
            }
            None if declared || !self.is_shared(current, path) => self.cache_changed(current, told),
            None => {
                self.domains.push(Domain { cache: told, ..Domain::default() });
                self.paths[path].domain = self.domains.len() - 1;
            }
        }
    }

    /// The same domain, another generation: what was not stable went with the one before, and no later lane of this
    /// one may say that it was kept.
    fn cache_changed(&mut self, domain: usize, told: Option<(u128, u64)>) {
        let entry = &mut self.domains[domain];
        let before = core::mem::replace(&mut entry.cache, told);
        if before.is_some() && core::mem::take(&mut entry.inherited) {
            self.lose_inherited("its cache is another one now");
        }
        let entry = &mut self.domains[domain];
        if entry.lost.is_some() {
            entry.spoilt = true;
        } else if before.is_some() && entry.acked > entry.flushed && !self.domain_spoilt(domain) {
            self.lose_unkept(domain, told);
        }
    }

    /// A gate tells that this cache is another one now, and nothing was retained of what was not flushed.
    fn lose_unkept(&mut self, domain: usize, told: Option<(u128, u64)>) {
        let Some((_, generation)) = told else { return };
        self.lose_writes(format!(
            "the gate came back with cache generation {generation}: what was acknowledged and not flushed is gone, and nothing of it was retained"
        ));
        self.domains[domain].unproven = false;
        self.domains[domain].flushed = self.domains[domain].acked;
    }

    /// Whether another path is in the same domain.
    fn is_shared(&self, domain: usize, but: usize) -> bool {
        self.paths.iter().enumerate().any(|(other, path)| other != but && path.domain == domain)
    }
}
