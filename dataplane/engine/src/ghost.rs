// SPDX-License-Identifier: MIT OR Apache-2.0
//! Writes that were let go without proof and may still land (rule W13).
//!
//! `unproven = "assume"` ends a quarantine at the hold although the old copy's connection
//! still stands. From then on the copy is a *ghost*: its connection is kept, and so are
//! the newest bytes of everything written over its range since. If its late reply ever
//! comes it may have overwritten them, so they are written again (`replay` carries that
//! out: reads of the range wait) and flushed: event `ghost_repaired`. A write over it that is not
//! answered yet may have been executed before the ghost: what was sent of it until then does
//! not count and is sent again.
//!
//! If the connection ends without a reply it is written again all the same when the copy is
//! taken to be over: at the EOF of a server that drains, else after `quiesce`. What is kept
//! is bounded; a ghost whose bytes found no room is told, if it may have landed, as a loss (F9).

use alloc::format;
use alloc::vec::Vec;

use nbd::Command;

use crate::engine::Engine;
use crate::request::{Piece, Request};
use crate::retain::Content;
use crate::slab::Key;

/// Bytes kept for ghosts where nothing is retained otherwise, and in addition to that.
const KEPT_BYTES_MAX: u64 = 8 << 20;

/// The newest content of a part of a ghost's range.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Newer {
    start: u64,
    end: u64,
    content: Content,
}

/// One copy that was let go.
#[derive(Debug)]
pub(crate) struct Ghost {
    piece: Key,
    path: usize,
    start: u64,
    end: u64,
    newer: Vec<Newer>,
    kept_bytes: u64,
    /// Something newer found no room.
    incomplete: bool,
    /// Others write the device since it was let go: what is newest there may be theirs (F7).
    shared: bool,
}

impl Ghost {
    pub(crate) fn contents(&self) -> impl Iterator<Item = Content> {
        self.newer.iter().map(|newer| newer.content)
    }
}

impl Engine {
    /// The quarantine of a copy that stays on its zombie ends without proof.
    pub(crate) fn let_go(&mut self, key: Key, path: usize) {
        let piece = self.pieces.get_mut(key);
        let Some(range) = piece.quarantine.take() else { return };
        piece.ghost = true;
        let (start, end) = (piece.offset, piece.end());
        let newer = Vec::new();
        let (kept_bytes, incomplete, shared) = (0, false, false);
        self.ghosts.push(Ghost { piece: key, path, start, end, newer, kept_bytes, incomplete, shared });
        self.release_range(range);
    }

    /// There are several writers now.
    pub(crate) fn leave_ghosts_to_others(&mut self) {
        for ghost in &mut self.ghosts {
            ghost.shared = true;
        }
    }

    /// Whether a write of this range must be kept for a ghost.
    pub(crate) fn haunts(&self, start: u64, end: u64) -> bool {
        self.ghosts.iter().any(|ghost| ghost.start < end && start < ghost.end)
    }

    /// A host write was acknowledged over a ghost's range: its bytes are the newest.
    pub(crate) fn keep_newer(&mut self, request: &Request, payload: Option<Key>) {
        let host = request.host;
        let (start, end) = (host.offset, host.offset + host.len);
        for at in 0..self.ghosts.len() {
            let ghost = &self.ghosts[at];
            let (from, to) = (ghost.start.max(start), ghost.end.min(end));
            if from >= to {
                continue;
            }
            let content = match (host.command, payload) {
                (Command::Write, Some(payload)) => Content::Bytes { payload, at: from - start },
                (Command::WriteZeroes, _) => {
                    Content::Zeroes { no_hole: host.flags.contains(nbd::CommandFlags::NO_HOLE) }
                }
                _ => Content::None,
            };
            self.replace_newer(at, from, to, content);
        }
    }

    fn replace_newer(&mut self, at: usize, from: u64, to: u64, content: Content) {
        let old = core::mem::take(&mut self.ghosts[at].newer);
        let mut newer = Vec::with_capacity(old.len() + 2);
        for part in old {
            for (start, end) in [(part.start, part.end.min(from)), (part.start.max(to), part.end)] {
                if start < end {
                    let content = part.content.from(start - part.start);
                    self.retention.share(content);
                    newer.push(Newer { start, end, content });
                }
            }
            self.forget_content(part.content);
        }
        let own: u64 = newer.iter().map(|part| part.end - part.start).sum();
        let others = self.ghosts.iter().enumerate().filter(|&(other, _)| other != at);
        let all = own + others.map(|(_, ghost)| ghost.kept_bytes).sum::<u64>();
        let room = all + (to - from) <= KEPT_BYTES_MAX;
        if room {
            self.retention.share(content);
            newer.push(Newer { start: from, end: to, content });
        }
        let ghost = &mut self.ghosts[at];
        ghost.incomplete |= !room;
        ghost.kept_bytes = newer.iter().map(|part| part.end - part.start).sum();
        ghost.newer = newer;
    }

    /// The fate of one more copy is known. `executed`: its late reply was good.
    pub(crate) fn ghost_settled(&mut self, key: Key, executed: bool) {
        let Some(at) = self.ghosts.iter().position(|ghost| ghost.piece == key) else { return };
        if executed && self.rules.w13_repair {
            self.repair_ghost(at);
        }
        if self.pieces.get(key).copies > 0 {
            return;
        }
        self.pieces.get_mut(key).ghost = false;
        for newer in self.ghosts.swap_remove(at).newer {
            self.forget_content(newer.content);
        }
    }

    fn repair_ghost(&mut self, at: usize) {
        let ghost = &self.ghosts[at];
        let (start, len, path) = (ghost.start, ghost.end - ghost.start, ghost.path);
        let (bytes, incomplete, shared) = (ghost.kept_bytes, ghost.incomplete, ghost.shared);
        self.redo_under_way(start, start + len);
        if shared {
            self.lose_to_others(bytes);
        }
        let ghost = &self.ghosts[at];
        let written: Vec<Newer> =
            ghost.newer.iter().copied().filter(|newer| newer.content != Content::None).collect();
        if !written.is_empty() && !shared {
            let text = format!(
                "a write of {len} bytes at {start} that was let go without proof was executed late, or may have been; {bytes} newer bytes over it are written again"
            );
            self.event("ghost_repaired", Some(path), "W13", text);
            self.decide_repair(path, start, len, bytes);
            self.repair(written.iter().map(|newer| (newer.start, newer.end, newer.content)));
        }
        if incomplete {
            self.lose_writes(format!(
                "a write of {len} bytes at {start} was executed late, after newer ones over it that were too many to keep"
            ));
        }
    }
}

impl Engine {
    /// Writes of this range that are not answered count only as far as they are sent from now on.
    fn redo_under_way(&mut self, start: u64, end: u64) {
        let turn = self.turn;
        for request in self.unanswered_writes() {
            let touched = |piece: &Piece| piece.offset < end && start < piece.end();
            let mut next = self.requests.get(request).first_piece;
            while let Some(key) = next {
                let piece = self.pieces.get_mut(key);
                next = piece.next;
                if touched(piece) {
                    piece.valid_from_turn = turn;
                }
            }
            self.redo_done(request, touched);
        }
    }

    /// Whether writes were let go without proof and may still land (W13).
    pub fn has_ghosts(&self) -> bool {
        !self.ghosts.is_empty()
    }
}
