// SPDX-License-Identifier: MIT OR Apache-2.0
//! Errors of storage, and what another path says of the same request (rules W7, W14).
//!
//! ```text
//!            EIO, another path may be asked            it answers well: the EIO is the path's own
//!  InFlight ------------------------------> asked ---------------------------------------------> done
//!     |                                       |  it answers EIO too
//!     | a definite error, or no other path    |  none was there within `SECOND_OPINION`
//!     +---------------------------------------+-----------------------------> the host is told
//! ```
//!
//! A path whose errors others disprove [`STRIKES`] times in a row is taken out until its canaries are good. While only
//! paths are left that answered EIO a piece waits aside (*parked*) and they are asked again every [`ASK_AGAIN`].

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use nbd::Errno;
use policies::faults::{PathAction, RequestAction, host_errno};
use policies::limits::{ASK_AGAIN, SECOND_OPINION, STRIKES};
use program::AccessPolicy;

use crate::complete::Answered;
use crate::engine::Engine;
use crate::path::Path;
use crate::request::{Kind, PieceState, Request};
use crate::slab::Key;

impl Engine {
    pub(crate) fn piece_error(&mut self, answered: &Answered, errno: Errno) {
        let key = answered.piece;
        self.blame_rule(answered.path, "W7");
        // A read may have a copy elsewhere that still answers.
        let left = answered.moved || self.hedge_left(key, &answered.slot);
        let (class, verdict) = self.verdict_on_error(errno, 1);
        match verdict.request {
            RequestAction::ToHost if left && !answered.moved => {}
            RequestAction::ToHost => {
                let errno = Errno::from_wire(host_errno(class, errno.to_wire())).unwrap_or(Errno::Io);
                // A copy elsewhere may still succeed, but the server understood the
                // request and turned it down: another will too (W7).
                self.piece_failed(key, errno);
            }
            RequestAction::RetryElsewhereOnce => {
                self.paths[answered.path].errors += 1;
                if matches!(self.pieces.get(key).kind, Kind::Flush { .. }) {
                    // Asked again, a server may answer well although what it lost is
                    // gone: a failed FLUSH is believed at once (F9).
                    self.piece_failed(key, Errno::Io);
                    return;
                }
                let speaker = self.speaks_as(answered.path);
                let piece = self.pieces.get_mut(key);
                piece.refused_by |= 1 << speaker.min(63);
                if !left {
                    self.second_opinion(key, answered.path);
                }
            }
            RequestAction::RetryElsewhere | RequestAction::Wait => {
                // ESHUTDOWN and the like: the server is leaving.
                self.paths[answered.path].errors += 1;
                if !left {
                    self.requeue(key);
                }
                self.lane_leaves(answered.lane);
            }
        }
    }

    /// EIO is tried once on another path, then believed (W7, W14).
    fn second_opinion(&mut self, key: Key, path: usize) {
        let (refused_by, write) = (self.pieces.get(key).refused_by, self.pieces.get(key).is_write_like());
        // A path for reads alone has no opinion of a write.
        let may_say =
            |index: usize, path: &Path| refused_by & (1 << index.min(63)) == 0 && (!write || path.writable());
        let mut paths = self.paths.iter().enumerate();
        let others = paths.any(|(index, path)| path.program_index.is_some() && may_say(index, path));
        let (_, verdict) = self.verdict_on_error(Errno::Io, refused_by.count_ones());
        if verdict.request == RequestAction::ToHost || !others || !self.rules.w7_second_opinion {
            self.decide_second_opinion(path, refused_by.count_ones(), None);
            self.piece_failed(key, Errno::Io);
            return;
        }
        let believe_at = self.now + SECOND_OPINION;
        self.pieces.get_mut(key).believe_at.get_or_insert(believe_at);
        self.decide_second_opinion(path, refused_by.count_ones(), Some(SECOND_OPINION));
        self.requeue(key);
        let mut paths = self.paths.iter().enumerate();
        let elsewhere = paths.any(|(index, path)| path.steering.answers() && may_say(index, path));
        if self.active.policy == AccessPolicy::ActivePassive
            && elsewhere
            && self.active.members.contains(&path)
        {
            // One path at a time: the second opinion is a switch.
            self.sicken(path, String::from("it answered EIO; another path is asked"));
        }
    }

    /// The entry whose opinion an answer of this one is: a path that an operator changed is no second path (W7).
    fn speaks_as(&self, path: usize) -> usize {
        let mut speaker = path;
        while let Some(successor) = self.paths[speaker].successor {
            speaker = successor;
        }
        speaker
    }

    /// A path was changed: what was answered over the old entry was answered by the server of the new one.
    pub(crate) fn inherit_opinions(&mut self, old: usize, new: usize) {
        let asked: Vec<Key> =
            self.pieces.iter().filter(|(_, piece)| piece.refused_by != 0).map(|it| it.0).collect();
        for key in asked {
            let piece = self.pieces.get_mut(key);
            if piece.refused_by & (1 << old.min(63)) != 0 {
                piece.refused_by = piece.refused_by & !(1 << old.min(63)) | 1 << new.min(63);
            }
        }
    }

    /// No path was left, and one is back: an EIO from before says nothing of it, and no other path could be asked
    /// meanwhile. Not for ever, or a server that dies of a bad block each time it is asked would never be believed.
    pub(crate) fn forget_opinions(&mut self) {
        let hold = self.hold_time();
        let young = |request: &Request| self.now - request.accepted < hold;
        let asked: Vec<Key> = self
            .pieces
            .iter()
            .filter(|(_, piece)| piece.believe_at.is_some())
            .filter(|(_, piece)| piece.request.is_some_and(|request| young(self.requests.get(request))))
            .map(|(key, _)| key)
            .collect();
        for key in asked {
            let piece = self.pieces.get_mut(key);
            piece.believe_at = None;
            piece.refused_by = 0;
        }
        self.unpark();
    }

    /// Another path answered well what these answered with EIO: it is theirs.
    pub(crate) fn disproved(&mut self, refused_by: u64) {
        if refused_by == 0 {
            return;
        }
        for index in 0..self.paths.len() {
            if refused_by & (1 << index.min(63)) == 0 {
                continue;
            }
            // What is in flight when it is taken out comes back with the same error: one fault, told once.
            if !self.paths[index].sick {
                self.in_trouble(index);
            }
            let path = &mut self.paths[index];
            path.strikes = path.strikes.saturating_add(1);
            let verdict = Self::verdict_on_disproof(path.strikes >= STRIKES);
            if verdict.path == PathAction::Canaries && !path.sick {
                let text = format!("it answered EIO {STRIKES} times where another path succeeded");
                self.sicken(index, text);
            }
        }
    }

    /// Takes a path out until its canaries are good again.
    pub(crate) fn sicken(&mut self, path: usize, text: String) {
        self.decide_sick(path);
        self.blame_rule(path, "W7");
        let path = &mut self.paths[path];
        path.sick = true;
        path.probation = None;
        path.failed_before = true;
        path.explain("W7", text);
        self.regroup();
    }

    pub(crate) fn believe_parked(&mut self) {
        let now = self.now;
        let due: Vec<Key> = self
            .active
            .parked
            .iter()
            .copied()
            .filter(|&key| self.pieces.get(key).believe_at.is_some_and(|at| at <= now))
            .collect();
        for key in due {
            self.active.parked.retain(|&parked| parked != key);
            self.pieces.get_mut(key).queued = false;
            if self.pieces.get(key).state == PieceState::Done {
                self.forget_piece(key);
            } else {
                self.piece_failed(key, Errno::Io);
            }
        }
        self.ask_again();
    }

    /// The other paths are away, and the one that answered EIO may have been
    /// mended: until the EIO is believed it is asked again every [`ASK_AGAIN`].
    fn ask_again(&mut self) {
        if self.active.parked.is_empty() || self.now < self.active.ask_again {
            return;
        }
        self.active.ask_again = self.now + ASK_AGAIN;
        for &key in &self.active.parked {
            self.pieces.get_mut(key).refused_by = 0;
        }
        self.unpark();
    }
}
