// SPDX-License-Identifier: MIT OR Apache-2.0
//! The segments of a replay, one by one: handed out, overtaken by newer writes, written (rules F5, F6, W13).
//!
//! | a segment | when | then |
//! |---|---|---|
//! | pending | there is room in the window; what a read waits for goes first | a request of our own, in line for its range |
//! | pending | a host write over it was acknowledged | its part leaves |
//! | in line | the same | void: nothing is written; what is left of it is pending again |
//! | has its range | it was written | where it went it is a write like any other (`retain`) |
//! | has its range | no path took it | pending again |
//! | has its range | the storage turned it down | a loss (`loss`) |

use alloc::format;
use alloc::vec::Vec;

use nbd::{Command, CommandFlags};

use super::{Replay, Segment, Writing};
use crate::engine::Engine;
use crate::request::{Origin, Request, RequestState};
use crate::retain::Content;
use crate::slab::Key;

/// Segments being written at once: enough to keep a path busy, few enough for hosts to get a word in. Those
/// that wait for their range are not counted: all wait at the same time for what may take as long as the hold.
const WINDOW: usize = 16;

impl Engine {
    /// Hands out segments as far as the window allows; called before every dispatch.
    pub(crate) fn pump_replay(&mut self) {
        // Newer writes of hosts may have left nothing of it.
        self.check_replay();
        // What waits for proof of another path (W20) is not given up as lost meanwhile.
        if self.active.writers.is_empty() || self.active.waiting_for.is_some() || self.is_draining() {
            return;
        }
        while let Some(replay) = self.replay.as_mut()
            && replay.started < WINDOW
            && let Some((start, segment)) = next_segment(replay)
        {
            let Segment { end, content, repair } = segment;
            let new = Writing {
                start,
                end,
                content,
                repair,
                request: None,
                void: false,
                started: false,
                left: false,
            };
            let slot = replay.writing.insert(new);
            let (command, flags) = match content {
                Content::Bytes { .. } => (Command::Write, CommandFlags::empty()),
                Content::Zeroes { no_hole: true } => (Command::WriteZeroes, CommandFlags::NO_HOLE),
                Content::Zeroes { no_hole: false } | Content::None => {
                    (Command::WriteZeroes, CommandFlags::empty())
                }
            };
            self.internal(Origin::Replay(slot), command, flags, start, end - start);
        }
    }

    /// The request of a segment exists; tells its payload, if it has one.
    pub(crate) fn replay_begins(&mut self, slot: Key, request: Key) -> Option<(crate::BufferId, u64)> {
        let writing = self.replaying().writing.get_mut(slot);
        writing.request = Some(request);
        match writing.content {
            Content::Bytes { payload, at } => Some((self.retention.buffer(payload), at)),
            Content::Zeroes { .. } | Content::None => None,
        }
    }

    /// A segment has its range; says whether nothing is left to be written of it.
    pub(crate) fn segment_starts(&mut self, slot: Key) -> bool {
        let replay = self.replaying();
        replay.started += 1;
        let writing = replay.writing.get_mut(slot);
        writing.started = true;
        writing.void
    }

    fn replaying(&mut self) -> &mut Replay {
        let Some(replay) = self.replay.as_mut() else { panic!("a segment without a replay") };
        replay
    }

    /// A host write of `[start, end)` was acknowledged: it is newer.
    pub(crate) fn replay_superseded(&mut self, start: u64, end: u64) {
        if self.replay.is_none() {
            return;
        }
        for at in self.replaying().touching(start, end) {
            let Some(segment) = self.replaying().pending.remove(&at) else { continue };
            self.return_rest(at, segment, start, end);
            self.forget_content(segment.content);
        }
        let touched: Vec<Key> = self
            .replaying()
            .writing
            .iter()
            .filter(|(_, writing)| writing.start < end && start < writing.end && !writing.void)
            .map(|(slot, _)| slot)
            .collect();
        for slot in touched {
            let Writing { start: first, end: last, content, repair, request, .. } =
                *self.replaying().writing.get(slot);
            let blocked = request.is_some_and(|key| self.requests.get(key).state == RequestState::Blocked);
            assert!(blocked, "a host write was acknowledged over a segment that held its range");
            self.replaying().writing.get_mut(slot).void = true;
            self.return_rest(first, Segment { end: last, content, repair }, start, end);
        }
    }

    /// What `[start, end)` leaves of a segment goes back to the pending ones.
    fn return_rest(&mut self, first: u64, segment: Segment, start: u64, end: u64) {
        let parts = [(first, segment.end.min(start)), (first.max(end), segment.end)];
        for (from, to) in parts {
            if from < to {
                let content = segment.content.from(from - first);
                self.retention.share(content);
                self.replaying().add(from, Segment { end: to, content, ..segment });
            }
        }
    }

    /// The request of a segment has ended; its pieces tell where each part went.
    pub(crate) fn segment_written(&mut self, slot: Key, request: &Request) {
        let replay = self.replaying();
        let writing = replay.writing.remove(slot);
        replay.started -= usize::from(writing.started);
        let Writing { start, end, content, repair, void, left, .. } = writing;
        match request.error {
            _ if void => {}
            None => {
                let mut next = request.first_piece;
                while let Some(key) = next {
                    let piece = self.pieces.get(key);
                    next = piece.next;
                    let (from, to) = (piece.offset, piece.end());
                    if let Some(settled) = piece.settled {
                        self.retain_again(from, to, settled, content.from(from - start));
                    }
                }
                let replay = self.replaying();
                replay.segments += 1;
                replay.bytes += end - start;
            }
            Some(_) if left => self.lose_to_others(end - start),
            Some(_) if self.has_nowhere_to_write() => {
                // It waits for a path, as long as that takes.
                self.retention.share(content);
                self.replaying().add(start, Segment { end, content, repair });
            }
            Some(errno) => self.lose_writes(format!(
                "{} bytes at {start} were acknowledged, their server lost its cache, and writing them again was answered {errno:?}",
                end - start,
            )),
        }
        self.forget_content(content);
    }

    /// A piece of a segment that was begun while we were the only writer (F7): it is not sent any more.
    pub(crate) fn is_left_to_others(&self, key: Key) -> bool {
        let (Some(replay), Some(request)) = (&self.replay, self.pieces.get(key).request) else {
            return false;
        };
        let Origin::Replay(slot) = self.requests.get(request).origin else { return false };
        replay.writing.get(slot).left
    }

    /// No path, or none that may start yet.
    fn has_nowhere_to_write(&self) -> bool {
        let no_path = self.failed || self.held_since.is_some() || self.active.writers.is_empty();
        no_path || self.is_draining() || self.active.waiting_for.is_some()
    }
}

/// What a read waits for, else the first in order of offset.
fn next_segment(replay: &mut Replay) -> Option<(u64, Segment)> {
    while let Some(place) = replay.urgent.pop() {
        let found = replay.pending.range(..=place).next_back().filter(|(_, segment)| segment.end > place);
        let found = found.or_else(|| replay.pending.range(place..).next()).map(|(&start, _)| start);
        if let Some(start) = found {
            return replay.pending.remove_entry(&start);
        }
    }
    replay.pending.pop_first()
}
