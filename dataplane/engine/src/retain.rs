// SPDX-License-Identifier: MIT OR Apache-2.0
//! Acknowledged writes that storage may still lose (rule F5).
//!
//! One history for the whole device, in the order of acknowledgement: a log that a
//! FLUSH cuts at its old end. The normal path pays a push for a write and a pop for
//! its FLUSH; a map is built only when a cache was lost (`replay`).
//!
//! | content of an entry | from | when its cache is lost |
//! |---|---|---|
//! | bytes, pinned | WRITE | written again, where nothing newer covers it |
//! | zeroes | WRITE_ZEROES | the same |
//! | none | TRIM, a write with FUA, a write that a FLUSH has covered since | nothing, but it covers what is older |
//!
//! The last row is the point of one history: X1 acknowledged through one path and
//! X2 over it through another, the first server loses its cache: X1 must not come back.
//!
//! Bounds: when half of the limit is used a FLUSH of our own is sent, and where the last one
//! cost the storage next to nothing already at 8 MiB: less can be lost, and the buffers of
//! the writes stay in the processor's cache. At the limit
//! writes carry FUA and are not retained, which is back-pressure by the storage
//! itself. What is in flight at that moment may go over it, by no more than the
//! in-flight caps allow. A log whose old end cannot be flushed is rid of what says nothing any more (`compact`).
//!
//! Local storage needs none of this: its cache is this host's kernel, which does not
//! end before us. Nor has a device with several writers any: what another member wrote
//! since must not be written over (F7).

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use nbd::{Command, CommandFlags};
use program::{MILLISECOND, Nanos, SECOND, Target, Writers};

use crate::compact::COMPACT_MIN;
use crate::engine::Engine;
use crate::ghost::Ghost;
use crate::request::{Origin, Request};
use crate::slab::{Key, Slab};
use crate::{Action, BufferId, HostRequest};

/// What an entry costs beside its bytes.
pub(crate) const ENTRY_BYTES: u64 = 128;
/// So much is enough for a FLUSH of our own where one is cheap; else half of the limit.
const CHEAP_FLUSH_BYTES: u64 = 8 << 20;
/// A FLUSH answered this fast found a cache that need not be written out: memory, or one
/// that outlives a power failure.
const CHEAP_FLUSH: Nanos = 2 * MILLISECOND;
/// Until the next FLUSH of our own after one that failed.
const FLUSH_AGAIN: Nanos = SECOND;

/// Bytes of a write that several entries may refer to.
#[derive(Debug)]
struct Payload {
    buffer: BufferId,
    len: u64,
    users: u32,
}

/// See the table in the module header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// `at`: first byte of the payload.
    Bytes {
        payload: Key,
        at: u64,
    },
    Zeroes {
        no_hole: bool,
    },
    None,
}

impl Content {
    /// The same, `by` bytes further on.
    pub(crate) fn from(self, by: u64) -> Self {
        match self {
            Self::Bytes { payload, at } => Self::Bytes { payload, at: at + by },
            other => other,
        }
    }
}

/// One acknowledged write, or a part of one that went another way than the rest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// Cache domain it was acknowledged by.
    pub(crate) domain: usize,
    /// Stable once this many writes of the domain are covered by a FLUSH.
    pub(crate) mark: u64,
    pub(crate) content: Content,
}

/// Where a piece was acknowledged, and whether it was durable by that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Settled {
    pub(crate) domain: usize,
    pub(crate) mark: u64,
    pub(crate) durable: bool,
}

/// See the module header.
#[derive(Debug)]
pub(crate) struct Retention {
    bytes: u64,
    pub(crate) limit_bytes: u64,
    pub(crate) log: VecDeque<Entry>,
    payloads: Slab<Payload>,
    /// A FLUSH of our own is on its way.
    flushing: bool,
    /// When it was started.
    flush_began: Nanos,
    /// The last one was cheap.
    flush_is_cheap: bool,
    /// Another is to follow: that one may have been sent too early.
    flush_next: bool,
    flush_again_at: Nanos,
    /// Length of the log at which it is looked through (`compact`).
    pub(crate) compact_at: usize,
}

impl Retention {
    pub(crate) fn new(limit_bytes: u64) -> Self {
        Self {
            bytes: 0,
            limit_bytes,
            log: VecDeque::new(),
            payloads: Slab::new(),
            flushing: false,
            flush_began: 0,
            flush_is_cheap: false,
            flush_next: false,
            flush_again_at: 0,
            compact_at: COMPACT_MIN,
        }
    }

    /// Takes over a buffer; its first user must follow.
    pub(crate) fn keep(&mut self, buffer: BufferId, len: u64) -> Key {
        // As much as the driver's pool takes for it.
        let len = len.next_power_of_two().max(512);
        self.bytes += len;
        self.payloads.insert(Payload { buffer, len, users: 0 })
    }

    pub(crate) fn buffer(&self, payload: Key) -> BufferId {
        self.payloads.get(payload).buffer
    }

    /// One more user of the bytes of `content`.
    pub(crate) fn share(&mut self, content: Content) {
        if let Content::Bytes { payload, .. } = content {
            self.payloads.get_mut(payload).users += 1;
        }
    }

    /// One user less; the buffer if it was the last.
    #[must_use]
    fn give_up(&mut self, content: Content) -> Option<BufferId> {
        let Content::Bytes { payload, .. } = content else { return None };
        let entry = self.payloads.get_mut(payload);
        entry.users -= 1;
        if entry.users > 0 {
            return None;
        }
        let entry = self.payloads.remove(payload);
        self.bytes -= entry.len;
        Some(entry.buffer)
    }

    fn push(&mut self, entry: Entry) {
        self.bytes += ENTRY_BYTES;
        self.share(entry.content);
        self.log.push_back(entry);
    }

    /// A FLUSH of our own is on its way.
    pub(crate) fn is_flushing(&self) -> bool {
        self.flushing
    }

    /// Not before then is another one sent: the last was answered with an error.
    pub(crate) fn next_flush(&self) -> Nanos {
        self.flush_again_at
    }

    /// Enough is kept that a FLUSH of our own is due.
    fn wants_flush(&self) -> bool {
        let half = self.limit_bytes / 2;
        self.bytes > if self.flush_is_cheap { half.min(CHEAP_FLUSH_BYTES) } else { half }
    }

    /// For `check_invariants`; `others`: users of bytes outside the log.
    pub(crate) fn check(&self, others: impl Iterator<Item = Content>) {
        let most = self.payloads.iter().map(|(key, _)| key as usize + 1).max().unwrap_or(0);
        let mut users = alloc::vec![0_u32; most];
        for content in self.log.iter().map(|entry| entry.content).chain(others) {
            if let Content::Bytes { payload, .. } = content {
                users[payload as usize] += 1;
            }
        }
        let mut bytes = self.log.len() as u64 * ENTRY_BYTES;
        for (key, payload) in self.payloads.iter() {
            assert_eq!(payload.users, users[key as usize], "retained bytes miscount their users");
            bytes += payload.len;
        }
        assert_eq!(bytes, self.bytes, "retention miscounts its memory");
    }
}

impl Engine {
    /// Whether acknowledged writes are kept (F5, F7).
    pub(crate) fn retains(&self) -> bool {
        self.program.retention_bytes > 0
            && self.program.writers == Writers::One
            && self.paths.iter().any(|path| matches!(path.program.target, Target::Nbd { .. }))
    }

    /// No room for another acknowledged write: it must be durable when it is answered.
    pub(crate) fn retention_is_full(&self) -> bool {
        self.retention.bytes >= self.retention.limit_bytes && self.retains()
    }

    /// Memory pinned by acknowledged writes, in bytes. The buffers among it are counted
    /// by the driver as in use, too.
    pub fn retained_bytes(&self) -> u64 {
        self.retention.bytes
    }

    /// Room for acknowledged writes as far as others leave it: the driver shares one budget among devices. Never above
    /// what is configured.
    pub fn set_retention_limit(&mut self, limit_bytes: u64) {
        let limit_bytes = limit_bytes.min(self.program.retention_bytes);
        if limit_bytes < self.retention.limit_bytes {
            // What is there already is looked through at the next write that finds no room.
            self.retention.compact_at = self.retention.compact_at.max(self.retention.log.len());
        }
        self.retention.limit_bytes = limit_bytes;
    }

    /// A write of a host is about to be answered well: notes it, and keeps its bytes as
    /// long as a cache may lose them or a ghost may overwrite them (W13). Returns whether the
    /// payload was taken over.
    pub(crate) fn retain(&mut self, request: &Request) -> bool {
        let host = request.host;
        let haunted = self.haunts(host.offset, host.offset + host.len);
        let mut kept = None;
        if self.retains() {
            let mut next = request.first_piece;
            while let Some(key) = next {
                next = self.pieces.get(key).next;
                self.retain_piece(key, &host, &mut kept);
            }
        }
        if haunted {
            if let (None, Some(buffer)) = (kept, host.payload) {
                kept = Some(self.retention.keep(buffer, host.len));
            }
            // Held while the ghosts take their shares.
            let all = kept.map_or(Content::None, |payload| Content::Bytes { payload, at: 0 });
            self.retention.share(all);
            self.keep_newer(request, kept);
            self.forget_content(all);
        }
        self.replay_superseded(host.offset, host.offset + host.len);
        // Last: a FLUSH may begin a replay, to which this write is no newer one.
        if self.retention.wants_flush() && self.retains() {
            self.flush_for_room();
        }
        kept.is_some()
    }

    fn retain_piece(&mut self, key: Key, host: &HostRequest, kept: &mut Option<Key>) {
        let piece = self.pieces.get(key);
        let Some(Settled { domain, mark, durable }) = piece.settled else { return };
        let stable = durable || self.domains[domain].flushed >= mark;
        let content = match (stable, piece.command, host.payload) {
            (false, Command::Write, Some(buffer)) => {
                let at = piece.at;
                let payload = *kept.get_or_insert_with(|| self.retention.keep(buffer, host.len));
                Content::Bytes { payload, at }
            }
            (false, Command::WriteZeroes, _) => {
                Content::Zeroes { no_hole: piece.flags.contains(CommandFlags::NO_HOLE) }
            }
            _ => Content::None,
        };
        // Something older may be there that it has to cover.
        if content != Content::None || !self.retention.log.is_empty() {
            let (start, end) = (piece.offset, piece.end());
            self.retention.push(Entry { start, end, domain, mark, content });
            self.compact_log();
        }
    }

    /// A part was written again: from now on it is a write of that domain.
    pub(crate) fn retain_again(&mut self, start: u64, end: u64, settled: Settled, content: Content) {
        let Settled { domain, mark, durable } = settled;
        if !self.retains() {
            return;
        }
        let content = if durable { Content::None } else { content };
        self.retention.push(Entry { start, end, domain, mark, content });
        self.compact_log();
    }

    /// Nothing can lose it any more, or it only covers what is older.
    pub(crate) fn is_stable(&self, entry: &Entry) -> bool {
        entry.content == Content::None || self.domains[entry.domain].flushed >= entry.mark
    }

    /// A FLUSH has covered something: lets go of what is stable.
    pub(crate) fn cut_log(&mut self) {
        while let Some(entry) = self.retention.log.front().copied()
            && self.is_stable(&entry)
        {
            self.retention.log.pop_front();
            self.forget_entry(entry);
        }
        let most = (2 * self.retention.log.len()).max(COMPACT_MIN);
        self.retention.compact_at = self.retention.compact_at.min(most);
        // Something old cannot be flushed: lets at least the bytes behind it go.
        if self.retention.bytes * 2 > self.retention.limit_bytes {
            for at in 0..self.retention.log.len() {
                let entry = self.retention.log[at];
                if entry.content != Content::None && self.is_stable(&entry) {
                    self.retention.log[at].content = Content::None;
                    self.forget_content(entry.content);
                }
            }
        }
    }

    /// An entry has left the log.
    pub(crate) fn forget_entry(&mut self, entry: Entry) {
        self.retention.bytes -= ENTRY_BYTES;
        self.forget_content(entry.content);
    }

    /// One user of these bytes less.
    pub(crate) fn forget_content(&mut self, content: Content) {
        if let Some(buffer) = self.retention.give_up(content) {
            self.act(Action::Release(buffer));
        }
    }

    /// The device ends: gives back what acknowledged writes pin. Actions follow.
    pub fn discard_retained(&mut self) {
        let log = core::mem::take(&mut self.retention.log);
        self.retention.bytes -= log.len() as u64 * ENTRY_BYTES;
        let logged = log.into_iter().map(|entry| entry.content);
        let replayed = self.replay.take().map(|replay| replay.contents().collect::<Vec<_>>());
        let haunting = core::mem::take(&mut self.ghosts);
        let haunted = haunting.iter().flat_map(Ghost::contents);
        let all: Vec<Content> = logged.chain(replayed.into_iter().flatten()).chain(haunted).collect();
        for content in all {
            self.forget_content(content);
        }
    }

    /// Nothing is kept any more. What is kept is made durable once more, and forgotten: what is written from now on is not
    /// noted, so that what is older would come over it if it was written again, should more be kept later (F5, F7).
    pub(crate) fn stop_retaining(&mut self) {
        self.keep_replay();
        self.own_flush();
        while let Some(entry) = self.retention.log.pop_front() {
            self.forget_entry(entry);
        }
    }

    /// What was acknowledged until now is not kept: until a FLUSH has covered it a lost cache is nothing that could be
    /// written again.
    pub(crate) fn start_retaining(&mut self) {
        for domain in &mut self.domains {
            domain.not_kept = domain.acked;
        }
        if self.domains.iter().any(|domain| domain.acked > domain.flushed) {
            self.own_flush();
        }
    }

    fn flush_for_room(&mut self) {
        if !self.retention.flushing && self.replay.is_none() && self.now >= self.retention.flush_again_at {
            self.own_flush();
        }
    }

    /// Makes everything acknowledged so far durable, in the background.
    ///
    /// One at a time: where each FLUSH fails, each leads to a replay and that to another FLUSH.
    pub(crate) fn own_flush(&mut self) {
        if self.retention.flushing {
            self.retention.flush_next = true;
        } else if !self.is_draining() {
            self.retention.flushing = true;
            self.retention.flush_began = self.now;
            self.internal(Origin::OwnFlush, Command::Flush, CommandFlags::empty(), 0, 0);
        }
    }

    pub(crate) fn own_flush_done(&mut self, good: bool) {
        self.retention.flushing = false;
        self.retention.flush_is_cheap = good && self.now - self.retention.flush_began < CHEAP_FLUSH;
        let next = core::mem::take(&mut self.retention.flush_next);
        if !good {
            self.retention.flush_again_at = self.now + FLUSH_AGAIN;
        } else if next {
            self.own_flush();
        } else {
            self.flushed_apart();
        }
    }
}
