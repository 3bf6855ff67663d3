// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reads that go on elsewhere after a part of their data has come (W2; design 3.2).
//!
//! A connection that breaks in the middle of a payload has delivered its beginning. Where the protocol has the server
//! stand by it (the driver offers nothing else), that beginning is what the storage held while the host's request
//! was open, like the data of any read, and it is in our own buffer, of which the host has seen nothing yet. So it
//! is kept, as a piece of its own that is done, and only the rest
//! is read on another path:
//!
//! ```text
//!  |<---------------- piece, in flight --------------->|
//!  |<----- came ----->|<---------- did not ----------->|
//!  |   done, landed   |   queued: read anew elsewhere  |
//! ```
//!
//! **What a concurrent write may do.** A read that overlaps a write may return some blocks from before it and some from
//! after, on any NBD server and in every read that we cut; each block's content was current at some moment while the
//! read was open. That stays true, also if a write that overlaps the part was acknowledged meanwhile. A block
//! is never torn: the driver offers whole blocks only.
//!
//! **When not.** Another copy of the read is waited for (`hedge`) or was moved; the read was answered; what came is all
//! of it (then what is missing is the server's word that it is good); a replay has still to write there (F6).

use nbd::Command;

use crate::engine::Engine;
use crate::lane::Use;
use crate::request::{Piece, PieceState};
use crate::slab::Key;
use crate::{Action, BufferId, LaneId};

impl Engine {
    /// [`crate::Event::ReadPart`].
    pub(crate) fn read_part(&mut self, id: LaneId, cookie: u64, data: BufferId, len: u64) {
        // Nothing more is sent on it, the rest of this read least of all.
        self.lane_mut(id).broken = true;
        match self.part_of(id, cookie, len) {
            Some(key) => self.keep_part(key, data, len),
            None => self.act(Action::Release(data)),
        }
    }

    /// The piece that may keep a part of `len` bytes.
    fn part_of(&self, id: LaneId, cookie: u64, len: u64) -> Option<Key> {
        let lane = self.lane_if(id)?;
        let Use::Piece { piece: key, moved: false, .. } = lane.slot(lane.find(cookie)?).used else {
            return None;
        };
        let piece = self.pieces.get(key);
        let alone = piece.state == PieceState::InFlight && !piece.hedged && piece.copies == 1;
        let rewritten = self.replay.as_ref().is_some_and(|replay| replay.covers(piece.offset, piece.end()));
        let part = piece.command == Command::Read && len > 0 && len < piece.len;
        (alone && part && !rewritten && piece.request.is_some()).then_some(key)
    }

    /// The piece ends where the data did; a new one behind it is queued for the rest.
    fn keep_part(&mut self, key: Key, data: BufferId, len: u64) {
        let piece = self.pieces.get_mut(key);
        let rest = Piece {
            offset: piece.offset + len,
            len: piece.len - len,
            at: piece.at + len,
            queued: false,
            state: PieceState::Queued,
            copies: 0,
            resent: true,
            hedge_bytes: 0,
            ..*piece
        };
        piece.len = len;
        piece.landed = Some(data);
        let Some(request) = piece.request else { unreachable!("only of a read that is open") };
        let rest = self.pieces.insert(rest);
        self.pieces.get_mut(key).next = Some(rest);
        self.requests.get_mut(request).pieces_open += 1;
        self.counters.resent += 1;
        self.enqueue(rest, true);
        self.set_piece_state(key, PieceState::Done);
        self.piece_closed(key);
    }
}
