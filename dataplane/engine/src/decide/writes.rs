// SPDX-License-Identifier: MIT OR Apache-2.0
//! Decisions about writes: in doubt, quarantined, fenced, let go, written again, lost.

use policies::explain::Limit;
use program::{Nanos, Unproven};

use crate::doubt::Doubt;
use crate::engine::Engine;
use crate::slab::Key;

impl Engine {
    /// A whole frame of a write was on a connection that is gone (W4).
    pub(crate) fn decide_doubt(&mut self, piece: Key, path: usize) {
        let open = self.doubts.iter().filter(|doubt| doubt.path == path).count() as u64;
        let entry = self.pieces.get(piece);
        let decision = self
            .on_path(path, "write in doubt", "W4")
            .count("writes in doubt on this path", open, Limit::Above(0))
            .bytes("the last one begins at", entry.offset, Limit::Informs)
            .bytes("its length", entry.len, Limit::Informs)
            .refused("let a newer write over it go", "the storage may carry the old one out after it");
        let decision = match (self.program.unproven, self.rules.w13_hold) {
            (Unproven::Hold, true) => decision
                .refused("assume after `quiesce` that it is over", "`unproven = \"hold\"` is configured")
                .until(
                    "the old session is proven finished: its reply, a gate, or the end of a draining server",
                ),
            _ => decision
                .time("assumed over after", self.program.quiesce, Limit::Informs)
                .until("the old session is proven finished, or `quiesce` has passed"),
        };
        self.decide(&decision);
    }

    /// A write was answered while an older copy of it may still land (W4).
    pub(crate) fn decide_quarantine(&mut self, piece: Key) {
        let entry = self.pieces.get(piece);
        let decision = self
            .on_device("quarantine", "W4")
            .bytes("range begins at", entry.offset, Limit::Informs)
            .bytes("its length", entry.len, Limit::Informs)
            .count("copies that may still land", u64::from(entry.copies), Limit::Above(0))
            .count("ranges quarantined", self.ranges.quarantined(), Limit::Informs)
            .refused("let newer writes over it go", "an old copy could land on top of them")
            .until("each copy is proven finished: a late reply, a gate, the end of a draining server; or `quiesce`");
        self.decide(&decision);
    }

    /// A late reply settled a copy that kept a range quarantined.
    pub(crate) fn decide_late_reply(&mut self, path: usize, piece: Key, sent_at: Nanos) {
        let entry = self.pieces.get(piece);
        if entry.quarantine.is_none() {
            return;
        }
        let decision = self
            .on_path(path, "copy proven finished: its late reply came", "2.3")
            .time("after its sending", self.now - sent_at, Limit::Informs)
            .count("copies of it that may still land", u64::from(entry.copies), Limit::Informs);
        let until = match entry.copies {
            0 => "nothing: newer writes over it go on",
            _ => "each other copy is proven finished too: then newer writes over it go on",
        };
        self.decide(&decision.until(until));
    }

    /// Nothing proved it over, and `quiesce` has passed (W4).
    pub(crate) fn decide_unproven_release(&mut self, doubt: Doubt) {
        let decision = self
            .on_path(doubt.path, "end the quarantine without proof", "W4")
            .time("in doubt for", self.now.saturating_sub(doubt.since), Limit::AtLeast(self.program.quiesce))
            .count("writes still in doubt", self.doubts.len() as u64, Limit::Informs)
            .refused(
                "wait for proof",
                "`unproven = \"assume\"`: an assumption, and reported as one if it mattered",
            )
            .until("`unproven = \"hold\"`, `drains = true`, or a gate in front of the storage");
        self.decide(&decision);
    }

    /// A gate is to finish a session (2.4).
    pub(crate) fn decide_fence(&mut self, path: usize) {
        let decision = self
            .on_path(path, "have the gate finish the old session", "2.4")
            .count("sessions asked for", self.kills.len() as u64, Limit::Informs)
            .refused("wait for `quiesce`", "a gate can prove it")
            .until("the gate acknowledges, or its process was started anew");
        self.decide(&decision);
    }

    /// A gate has finished it.
    pub(crate) fn decide_fenced(&mut self, path: usize, took: Nanos, settled: u64) {
        let decision = self
            .on_path(path, "old session proven finished by the gate", "2.4")
            .time("since it was asked", took, Limit::Informs)
            .count("writes not in doubt any more", settled, Limit::Informs);
        self.decide(&decision.until("nothing: that session can write no more"));
    }

    /// A copy on a connection that stands is let go at the hold (W13).
    pub(crate) fn decide_let_go(&mut self, piece: Key, path: usize) {
        let entry = self.pieces.get(piece);
        let decision = self
            .on_path(path, "let a write go without proof", "W13")
            .bytes("begins at", entry.offset, Limit::Informs)
            .bytes("its length", entry.len, Limit::Informs)
            .count("writes let go", self.ghosts.len() as u64 + 1, Limit::Informs)
            .refused("forget it", "should it land late, what is newer is written again")
            .until("its late reply, or the end of its connection");
        self.decide(&decision);
    }

    /// A ghost may have landed: what is newer is written again (W13).
    pub(crate) fn decide_repair(&mut self, path: usize, start: u64, len: u64, newer_bytes: u64) {
        let decision = self
            .on_path(path, "write again what is newer", "W13")
            .bytes("ghost begins at", start, Limit::Informs)
            .bytes("its length", len, Limit::Informs)
            .bytes("newer bytes over it", newer_bytes, Limit::Above(0));
        self.decide(&decision.until("all of it is written and flushed"));
    }

    /// A cache was lost with acknowledged writes in it (F2, F6).
    pub(crate) fn decide_replay(&mut self, domain: usize) {
        let entry = &self.domains[domain];
        let lost = entry.acked.saturating_sub(entry.flushed);
        if lost == 0 {
            return;
        }
        let decision = self
            .on_device("write acknowledged writes again", "F6")
            .count("acknowledged and not flushed", lost, Limit::Above(0))
            .bytes("retained", self.retained_bytes(), Limit::Informs)
            .refused(
                "trust the server's cache",
                "every connection to it was lost; it may have been started anew",
            )
            .until("all is written again, or the gate shows the same cache generation");
        self.decide(&decision);
    }

    /// It is done, or was not needed.
    pub(crate) fn decide_replayed(&mut self, segments: u64, bytes: u64) {
        let decision = self
            .on_device("replay over", "F6")
            .count("parts written again", segments, Limit::Informs)
            .bytes("in all", bytes, Limit::Informs);
        self.decide(&decision.until("a storage server loses its cache again"));
    }

    /// A FLUSH failed (F9).
    pub(crate) fn decide_flush_failed(&mut self, path: usize) {
        let domain = &self.domains[self.paths[path].domain];
        let decision = self
            .on_path(path, "fail the next FLUSH of every session", "F9")
            .count(
                "writes not covered by a FLUSH",
                domain.acked.saturating_sub(domain.flushed),
                Limit::Informs,
            )
            .refused("ask again", "a server may answer well although what it lost is gone")
            .until("each session was told once");
        self.decide(&decision);
    }

    /// Acknowledged writes are gone (F9).
    pub(crate) fn decide_loss(&mut self) {
        let decision = self
            .on_device("fail FLUSH and FUA", "F9")
            .bytes("retained", self.retained_bytes(), Limit::Informs)
            .refused("go on as if nothing was lost", "an error at FLUSH is what applications act on")
            .until("`device clear-loss`");
        self.decide(&decision);
    }

    /// The process before this one ended without a clean stop (W10).
    pub(crate) fn decide_recovery(&mut self, wait: Nanos) {
        let decision = self
            .on_device("hold writes back", "W10")
            .time("assumed over in", wait, Limit::Informs)
            .refused("write at once", "what the process before this one sent may still be carried out")
            .until("every path leads to a gate that took our claim, or `quiesce` has passed");
        self.decide(&decision);
    }

    /// Writes go on. `proven`: by gates, not by the clock.
    pub(crate) fn decide_recovered(&mut self, proven: bool) {
        let decision = if proven {
            self.on_device("writes go on: the gates have finished the old sessions", "W10")
        } else {
            self.on_device("writes go on without proof", "W10").time(
                "waited",
                self.program.quiesce,
                Limit::AtLeast(self.program.quiesce),
            )
        };
        self.decide(&decision.until("the next stop that is not clean"));
    }
}
