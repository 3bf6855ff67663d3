// SPDX-License-Identifier: MIT OR Apache-2.0
//! Invariants, checked after every event in tests and simulation.
//!
//! Request accounting: every accepted request is in exactly one place, every
//! piece belongs to a request or waits for late copies only, every copy is on a
//! lane or in doubt.

use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;

use crate::Rules;
use crate::compact::COMPACT_MIN;
use crate::engine::Engine;
use crate::ghost::Ghost;
use crate::lane::Use;
use crate::request::{Origin, PieceState, RequestState};
use crate::retain::ENTRY_BYTES;

impl Engine {
    /// Stops the process if the engine's books do not balance. Looks at
    /// everything: for tests, simulation and fuzzing, not for every event in production.
    pub fn check_invariants(&self) {
        self.check_copies();
        self.check_requests();
        self.check_queues();
        let replayed = self.replay.iter().flat_map(|replay| replay.contents());
        let haunted = self.ghosts.iter().flat_map(Ghost::contents);
        let hedged = self.pieces.iter().map(|(_, piece)| piece.hedge_bytes).sum();
        self.hedges.check(hedged);
        self.retention.check(replayed.chain(haunted));
        // What the room allows, and what the last look through it left.
        let room = (self.program.retention_bytes / ENTRY_BYTES) as usize + COMPACT_MIN;
        let bounded = self.retention.log.len() <= self.retention.compact_at.max(room);
        assert!(
            bounded || !self.rules.f5_one_history,
            "the history of acknowledged writes grows without bound"
        );
    }

    fn check_copies(&self) {
        let mut copies: Vec<u16> =
            vec![0; self.pieces.iter().map(|(key, _)| key as usize + 1).max().unwrap_or(0)];
        for lane in self.lanes.iter().flatten() {
            let mut host = 0;
            let alone = lane.in_order().filter(|(_, slot)| slot.is_flush_alone()).count();
            assert!(lane.behind.weightless() as usize <= alone, "a lane miscounts its FLUSHes");
            for (_, slot) in lane.in_order() {
                if let Use::Piece { piece, .. } = slot.used {
                    copies[piece as usize] += 1;
                    host += 1;
                }
            }
            assert_eq!(host, lane.in_flight, "a lane miscounts what is in flight");
            assert!(lane.sent_bytes <= lane.queued_bytes, "more was sent than queued");
        }
        for doubt in &self.doubts {
            copies[doubt.piece as usize] += 1;
        }
        for (key, piece) in self.pieces.iter() {
            assert_eq!(piece.copies, copies[key as usize], "piece {key} miscounts its copies");
            if piece.hedged {
                let two = piece.copies >= 2 && piece.state == PieceState::InFlight;
                assert!(two && piece.command == nbd::Command::Read, "a second copy of what is no late read");
            }
            match piece.state {
                PieceState::Queued => assert!(piece.queued, "a waiting piece is in no queue"),
                PieceState::InFlight => {
                    assert!(piece.copies > 0 && !piece.queued, "a piece in flight is nowhere");
                }
                PieceState::Done => {}
            }
            if piece.request.is_none() {
                assert_eq!(piece.state, PieceState::Done, "a piece works for nobody");
                assert!(piece.copies > 0 || piece.queued, "a piece that nothing refers to was kept");
                assert!(
                    !piece.is_write_like()
                        || piece.copies == 0
                        || piece.ghost
                        || piece.quarantine.is_some()
                        || self.rules != Rules::ALL,
                    "a write in doubt is not quarantined (W4)"
                );
            }
        }
    }

    fn check_requests(&self) {
        let own = self.requests.iter().filter(|(_, request)| request.origin == Origin::OwnFlush).count();
        assert!(own <= 1, "{own} FLUSHes of our own are under way");
        for (key, request) in self.requests.iter() {
            let mut open = 0;
            let mut next = request.first_piece;
            while let Some(piece) = next {
                let entry = self.pieces.get(piece);
                assert_eq!(entry.request, Some(key), "a piece is in another request's list");
                open += u32::from(entry.state != PieceState::Done);
                next = entry.next;
            }
            assert_eq!(open, request.pieces_open, "request {key} miscounts its pieces");
            match request.state {
                RequestState::Blocked => assert!(request.range.is_some() && request.first_piece.is_none()),
                RequestState::Active => assert!(open > 0, "an active request has nothing to do"),
                RequestState::AwaitingProof => assert_eq!(open, 0),
                RequestState::AwaitingReplay => assert!(self.replay.is_some(), "waits for no replay"),
            }
        }
    }

    fn check_queues(&self) {
        let queues = &self.queues;
        let queued = queues.reads.len()
            + queues.writes.len()
            + queues.discards.len()
            + queues.flushes.len()
            + queues.moved.iter().map(VecDeque::len).sum::<usize>()
            + self.active.parked.len()
            + self.active.readers.len()
            + self.replay.as_ref().map_or(0, |replay| replay.readers.len());
        let marked = self.pieces.iter().filter(|(_, piece)| piece.queued).count();
        assert_eq!(queued, marked, "queues and pieces disagree");
        let quarantines = self.pieces.iter().filter(|(_, piece)| piece.quarantine.is_some()).count();
        let locks = self.requests.iter().filter(|(_, request)| request.range.is_some()).count();
        assert!(self.ranges.len() >= quarantines + locks, "a range lock was lost");
    }
}
