// SPDX-License-Identifier: MIT OR Apache-2.0
//! The end of a request: when it is answered, and what stays of it (rules W4, W5, W14).
//!
//! | its last piece is done, and | then |
//! |---|---|
//! | no copy of it is open | the host is answered, nothing stays |
//! | a copy of a write may still land, one writer | answered; the pieces with copies keep their ranges quarantined |
//! | the same, several writers | not answered before every copy is proven over (`AwaitingProof`) |

use nbd::{Command, Errno};
use program::Writers;

use crate::engine::Engine;
use crate::ranges::Holder;
use crate::request::{Origin, PieceState, Request, RequestState};
use crate::slab::Key;
use crate::{Action, Rules};

impl Engine {
    /// Every piece is done.
    pub(crate) fn finish_request(&mut self, key: Key) {
        let request = self.requests.get(key);
        if request.state == RequestState::AwaitingReplay {
            return;
        }
        let write = request.host.command.is_write_like();
        let waits = self.program.writers == Writers::Many && self.rules.w5_answer_waits;
        if write && waits && self.has_copies(key) {
            self.requests.get_mut(key).state = RequestState::AwaitingProof;
            return;
        }
        self.answer(key);
    }

    fn has_copies(&self, key: Key) -> bool {
        let mut next = self.requests.get(key).first_piece;
        while let Some(piece) = next {
            let piece = self.pieces.get(piece);
            if piece.copies > 0 {
                return true;
            }
            next = piece.next;
        }
        false
    }

    /// Answers the host and takes the request apart. Pieces with copies stay, and
    /// keep their range quarantined if they write (W4).
    pub(crate) fn answer(&mut self, key: Key) {
        let request = self.requests.remove(key);
        self.leave_replay(key, &request);
        let good = request.error.is_none();
        let kept = match request.origin {
            Origin::Host if good && request.host.command.is_write_like() => self.retain(&request),
            Origin::Replay(slot) => {
                self.segment_written(slot, &request);
                true
            }
            Origin::Host | Origin::OwnFlush => false,
        };
        // What is written again is the newest acknowledged, however it ends.
        let acknowledged = good || matches!(request.origin, Origin::Replay(_));
        let stays = if good { self.rules.w4_quarantine } else { self.rules.w14_failed_writes };
        let mut next = request.first_piece;
        while let Some(piece) = next {
            next = self.pieces.get(piece).next;
            if let Some(buffer) = self.pieces.get_mut(piece).landed.take() {
                let action = match request.error {
                    None => Action::ReplyData { tag: request.host.tag, buffer },
                    Some(_) => Action::Release(buffer),
                };
                self.act(action);
            }
            self.part_from(piece, request.range.filter(|_| stays), acknowledged);
        }
        match request.origin {
            Origin::Host => {
                self.note_answered(&request);
                self.answer_host(&request, kept);
            }
            Origin::OwnFlush => self.own_flush_done(good),
            Origin::Replay(_) => {}
        }
        if let Some(range) = request.range {
            self.release_range(range);
        }
        if matches!(request.origin, Origin::Replay(_)) {
            self.wake_readers();
            self.check_replay();
        }
        if request.host.command.is_write_like() {
            self.release_readers();
        }
    }

    fn answer_host(&mut self, request: &Request, kept: bool) {
        let mut result = request.error.map_or(Ok(()), Err);
        // Any failed FLUSH tells its session, of whatever was lost by then.
        if request.host.command == Command::Flush
            && (self.owes_flush_error(request.host.session) || self.lost_writes.is_some())
        {
            result = result.and(Err(Errno::Io));
        }
        self.reply_to_host(request.host, result);
        if let Some(payload) = request.host.payload.filter(|_| !kept) {
            self.act(Action::Release(payload));
        }
    }

    fn part_from(&mut self, key: Key, range: Option<Key>, acknowledged: bool) {
        let piece = self.pieces.get_mut(key);
        assert_eq!(piece.state, PieceState::Done, "a request was answered before its piece was done");
        piece.request = None;
        piece.payload = None;
        if piece.copies > 0 && piece.is_write_like() {
            let (start, end) = (piece.offset, piece.end());
            assert!(range.is_some() || self.rules != Rules::ALL, "a write without a range lock was sent");
            let holder = Holder::Piece(key);
            let quarantine =
                range.map(|range| self.ranges.quarantine(range, start, end, holder, acknowledged));
            self.pieces.get_mut(key).quarantine = quarantine;
            self.decide_quarantine(key);
        }
        self.forget_piece(key);
    }

    /// A copy's fate is known.
    pub(crate) fn copy_settled(&mut self, key: Key) {
        let piece = self.pieces.get(key);
        if piece.state != PieceState::Done {
            return;
        }
        match piece.request {
            None => self.forget_piece(key),
            Some(request) => {
                if self.requests.get(request).state == RequestState::AwaitingProof
                    && !self.has_copies(request)
                {
                    self.answer(request);
                }
            }
        }
    }

    /// Removes a done piece that nothing refers to any more.
    pub(crate) fn forget_piece(&mut self, key: Key) {
        let piece = self.pieces.get(key);
        if piece.request.is_some() || piece.copies > 0 || piece.queued {
            return;
        }
        let piece = self.pieces.remove(key);
        assert!(piece.landed.is_none(), "data of a read was forgotten");
        self.hedges.give_back(piece.hedge_bytes);
        if let Some(range) = piece.quarantine {
            self.release_range(range);
        }
    }
}
