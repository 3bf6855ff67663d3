// SPDX-License-Identifier: MIT OR Apache-2.0
//! One connection of one path and what is in flight on it.
//!
//! ```text
//!  OpenLane        LaneOpened            identity proven
//! ---------> Opening -------> Verifying ----------------> Up <--> suspect (W15, W16)
//!               |                |  \ blank volume         | |
//!               |                |   --> Unproven ---------+ | given up, replies may come
//!               |                | other data                v
//!               v                v                        Zombie (W1)
//!            LaneDown <------ Closing <----------------------+  all copies settled
//! ```
//!
//! The lane knows how much of what it queued has left the process: a frame that
//! ends past that mark was never sent or was cut and can never execute, a whole
//! one is in doubt until it is answered (semantics 2.1).
//!
//! Requests in flight are slots of a fixed table; the wire cookie is the slot's
//! number and its incarnation, so a cookie never comes twice on one connection.
//! Slots are also linked in the order of sending, so the oldest is at the head.

use alloc::vec::Vec;

use program::Nanos;

use crate::behind::BehindFlush;
use crate::slab::Key;
use crate::verify::Verify;
use crate::{LaneId, Offer};

/// Slots kept free for what is not host I/O: canaries, identity reads, FLUSH.
pub(crate) const SPARE_SLOTS: usize = 16;

/// See the diagram in the module header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LaneState {
    /// Connecting and shaking hands.
    Opening,
    /// Identity is being checked; carries nothing of a host.
    Verifying,
    /// Identity cannot be proven on a blank volume; carries nothing of a host.
    Unproven,
    /// Carries I/O.
    Up,
    /// Nothing new is issued; closed when empty.
    Draining,
    /// Given up, kept open for late replies.
    Zombie,
    /// Close has been asked for.
    Closing,
}

/// Why a lane is avoided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Suspicion {
    pub(crate) since: Nanos,
    pub(crate) cause: Cause,
}

/// Evidence behind a suspicion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Sent bytes are not acknowledged (W16).
    LinkSilent,
    /// A request is overdue (W15).
    Overdue,
    /// A canary is overdue.
    CanaryOverdue,
    /// Second copies of its reads were answered elsewhere while it sent no byte.
    Outrun,
    /// The peer accepts no bytes (W16).
    WindowClosed,
}

impl Cause {
    /// The rule that reads this evidence.
    pub(crate) const fn rule(self) -> &'static str {
        match self {
            Self::LinkSilent | Self::WindowClosed => "W16",
            Self::Overdue | Self::CanaryOverdue => "W15",
            Self::Outrun => "hedge",
        }
    }
}

/// What a slot is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// Free.
    Free,
    /// A copy of a piece. `flush_after`: FUA is emulated and the FLUSH is still to come;
    /// `flushing`: this is that FLUSH.
    Piece {
        /// Which.
        piece: Key,
        /// Emulated FUA: a FLUSH on this lane must follow.
        flush_after: bool,
        /// Emulated FUA: this is the FLUSH.
        flushing: bool,
        /// The piece was given to another lane as well.
        moved: bool,
    },
    /// A probe read.
    Canary,
    /// Identity: read of the lane `of`'s current sample, by the candidate itself
    /// or by a reference lane.
    Verify {
        /// Slot of the lane that is checked.
        of: u16,
        /// Its generation.
        generation: u32,
        /// Which round of reads; a reply of an older round counts no more.
        round: u32,
        /// This read goes through the reference.
        reference: bool,
    },
    /// A read that tells how far away the storage is (`policies::distance`).
    Distance {
        /// When it was sent.
        sent_at: Nanos,
    },
    /// FLUSH before a drained lane is closed, so that nothing acknowledged stays behind.
    DrainFlush,
    /// Reads a sample for the identity record.
    Sample {
        /// Index into the known samples.
        index: usize,
        /// Writes to it when it was sent; a later write makes the digest stale.
        writes: u32,
    },
}

/// One request in flight.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    pub(crate) used: Use,
    pub(crate) generation: u32,
    pub(crate) len: u64,
    pub(crate) write: bool,
    pub(crate) sent_at: Nanos,
    /// Bytes queued on the lane and unanswered when it was sent.
    pub(crate) ahead: u64,
    pub(crate) frame_end: u64,
    /// The engine's turn in which it was sent.
    pub(crate) turn: u64,
    /// Cache domain's acknowledged count when a FLUSH was sent.
    pub(crate) flush_mark: u64,
    /// A write that carries FUA: durable once answered.
    pub(crate) durable: bool,
    /// It was moved here off a lost path, and is paced.
    pub(crate) paced: bool,
    /// A FLUSH: may take as long as the storage needs, so its age says nothing.
    pub(crate) patient: bool,
    /// A second copy of a late read: lane of the first.
    pub(crate) hedge_of: Option<LaneId>,
    previous: u16,
    next: u16,
}

impl Slot {
    /// A FLUSH that no write of this lane waits for: not the end of an emulated FUA.
    pub(crate) fn is_flush_alone(&self) -> bool {
        self.patient && matches!(self.used, Use::Piece { flushing: false, .. })
    }

    /// It reads or writes for a host, or is the FLUSH that belongs to a write.
    pub(crate) fn is_io(&self) -> bool {
        matches!(self.used, Use::Piece { flushing, .. } if flushing || self.len > 0)
    }
}

const NONE: u16 = u16::MAX;

const FREE_SLOT: Slot = Slot {
    used: Use::Free,
    generation: 0,
    len: 0,
    write: false,
    sent_at: 0,
    ahead: 0,
    frame_end: 0,
    turn: 0,
    flush_mark: 0,
    durable: false,
    paced: false,
    patient: false,
    hedge_of: None,
    previous: NONE,
    next: NONE,
};

/// See the module header.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) id: LaneId,
    /// Index into the engine's paths.
    pub(crate) path: usize,
    /// Index into the path's portals.
    pub(crate) portal: usize,
    pub(crate) state: LaneState,
    pub(crate) suspicion: Option<Suspicion>,
    pub(crate) offer: Option<Offer>,
    pub(crate) verify: Option<Verify>,
    pub(crate) opened_at: Nanos,
    pub(crate) last_reply: Nanos,
    /// When the newest request was sent that it has answered.
    pub(crate) answered_sent: Nanos,
    /// Last byte either way that proves the peer alive.
    pub(crate) last_active: Nanos,
    /// When its link was last silent: what was under way then tells how long that took, not the server.
    pub(crate) silent_until: Nanos,
    /// The kernel is not asked about it before.
    pub(crate) next_sample: Nanos,
    pub(crate) canary_sent: Option<Nanos>,
    /// When the last canary was sent, answered or not.
    pub(crate) last_canary: Nanos,
    /// When it was given up.
    pub(crate) given_up_at: Nanos,
    /// Its session is proven finished: nothing on it is in doubt.
    pub(crate) finished: bool,
    /// The session that a gate is to finish when this one is opened (`fence`).
    pub(crate) kill: Option<LaneId>,
    /// It was opened only to have another session finished (`fence`).
    pub(crate) fencing: bool,
    /// It was opened beside others, over another portal, and is not accepted yet.
    pub(crate) beside: bool,
    /// Its server said that it is leaving (ESHUTDOWN): it is asked for nothing more.
    pub(crate) leaving: bool,
    /// Its identity was proven: it has carried I/O.
    pub(crate) accepted: bool,
    /// It broke, and is about to be told down.
    pub(crate) broken: bool,
    /// TCP_USER_TIMEOUT is on.
    pub(crate) timed: bool,
    /// Known to be of the server process that holds what its cache domain has acknowledged
    /// (F6): the first lane of the domain, and every one that was up while such a lane answered.
    pub(crate) linked: bool,
    /// What waits for a FLUSH.
    pub(crate) behind: BehindFlush,
    /// The FLUSH of a drained lane was sent.
    pub(crate) drain_flushed: bool,
    /// Requests in flight, host pieces only.
    pub(crate) in_flight: u32,
    /// Bytes of those.
    pub(crate) in_flight_bytes: u64,
    /// Bytes of the transmission phase queued so far.
    pub(crate) queued_bytes: u64,
    /// Of those, accepted by our kernel.
    pub(crate) sent_bytes: u64,
    /// Bytes in the kernel's send queue when last sampled; `None` before that.
    pub(crate) outq_bytes: Option<u32>,
    /// What the kernel said last, as the rule of silence (W16) took it.
    pub(crate) evidence: Option<policies::TcpEvidence>,
    /// When that was.
    pub(crate) evidence_at: Nanos,
    /// The sample before showed a closed window, and the peer has taken nothing since.
    pub(crate) window_was_closed: bool,
    /// What the peer had acknowledged at the last sample.
    pub(crate) acked_bytes: u64,
    slots: Vec<Slot>,
    free: Vec<u16>,
    oldest: u16,
    newest: u16,
    used: u32,
}

impl Lane {
    pub(crate) fn new(id: LaneId, path: usize, portal: usize, in_flight_max: u32, now: Nanos) -> Self {
        let slots = in_flight_max as usize + SPARE_SLOTS;
        assert!(slots < NONE as usize, "the in-flight cap is limited by the configuration");
        Self {
            id,
            path,
            portal,
            state: LaneState::Opening,
            suspicion: None,
            offer: None,
            verify: None,
            opened_at: now,
            last_reply: now,
            answered_sent: 0,
            last_active: now,
            silent_until: 0,
            next_sample: 0,
            canary_sent: None,
            last_canary: 0,
            given_up_at: 0,
            finished: false,
            kill: None,
            fencing: false,
            beside: false,
            leaving: false,
            accepted: false,
            broken: false,
            timed: true,
            linked: false,
            behind: BehindFlush::default(),
            drain_flushed: false,
            in_flight: 0,
            in_flight_bytes: 0,
            queued_bytes: 0,
            sent_bytes: 0,
            outq_bytes: None,
            evidence: None,
            evidence_at: 0,
            window_was_closed: false,
            acked_bytes: 0,
            slots: alloc::vec![FREE_SLOT; slots],
            free: (0..slots as u16).rev().collect(),
            oldest: NONE,
            newest: NONE,
            used: 0,
        }
    }

    /// What the server offered.
    pub(crate) fn offer(&self) -> &Offer {
        let Some(offer) = self.offer.as_ref() else {
            panic!("asked for the offer of a lane that was never opened")
        };
        offer
    }

    /// May carry host I/O, suspect or not.
    pub(crate) fn is_up(&self) -> bool {
        self.state == LaneState::Up && !self.broken
    }

    pub(crate) fn is_trusted(&self) -> bool {
        self.is_up() && self.suspicion.is_none()
    }

    /// A slot for host I/O is free, with the spare ones kept back.
    pub(crate) fn has_room(&self) -> bool {
        self.free.len() > SPARE_SLOTS
    }

    pub(crate) fn has_spare(&self) -> bool {
        !self.free.is_empty()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// Takes a slot for a frame of `frame_bytes`; returns its cookie.
    pub(crate) fn take(&mut self, now: Nanos, used: Use, len: u64, write: bool, frame_bytes: u64) -> u64 {
        let Some(index) = self.free.pop() else { panic!("a lane without a free slot was chosen") };
        let extended = self.offer().extended;
        self.queued_bytes += frame_bytes + if extended { 32 } else { 28 };
        let slot = &mut self.slots[index as usize];
        let generation = slot.generation.wrapping_add(1);
        *slot = Slot {
            used,
            generation,
            len,
            write,
            sent_at: now,
            ahead: self.in_flight_bytes,
            frame_end: self.queued_bytes,
            turn: 0,
            flush_mark: 0,
            durable: false,
            paced: false,
            patient: false,
            hedge_of: None,
            previous: self.newest,
            next: NONE,
        };
        if self.newest == NONE {
            self.oldest = index;
        } else {
            self.slots[self.newest as usize].next = index;
        }
        self.newest = index;
        self.used += 1;
        if matches!(used, Use::Piece { .. }) {
            self.in_flight += 1;
            self.in_flight_bytes += len;
        }
        (u64::from(generation) << 16) | u64::from(index)
    }

    /// What was just taken is a FLUSH that covers `mark` writes of its cache domain.
    pub(crate) fn mark_flush(&mut self, index: u16, mark: u64) {
        let slot = self.slot_mut(index);
        (slot.flush_mark, slot.patient) = (mark, true);
        let (end, alone) = (slot.frame_end, slot.is_flush_alone());
        self.behind.on_flush(end, alone);
    }

    /// The slot a reply's cookie names; `None` if there is none in flight.
    pub(crate) fn find(&self, cookie: u64) -> Option<u16> {
        let index = (cookie & 0xffff) as u16;
        let slot = self.slots.get(index as usize)?;
        let matches = slot.used != Use::Free && u64::from(slot.generation) == cookie >> 16;
        matches.then_some(index)
    }

    pub(crate) fn slot(&self, index: u16) -> &Slot {
        &self.slots[index as usize]
    }

    pub(crate) fn slot_mut(&mut self, index: u16) -> &mut Slot {
        &mut self.slots[index as usize]
    }

    /// Frees a slot and returns what it was.
    pub(crate) fn settle(&mut self, index: u16) -> Slot {
        let slot = self.slots[index as usize];
        assert!(slot.used != Use::Free, "a slot was settled twice");
        match slot.previous {
            NONE => self.oldest = slot.next,
            previous => self.slots[previous as usize].next = slot.next,
        }
        match slot.next {
            NONE => self.newest = slot.previous,
            next => self.slots[next as usize].previous = slot.previous,
        }
        self.slots[index as usize] = Slot { generation: slot.generation, ..FREE_SLOT };
        self.free.push(index);
        self.used -= 1;
        if slot.patient {
            self.behind.on_flush_settled(slot.frame_end, slot.is_flush_alone());
        } else {
            self.behind.on_settled(slot.frame_end);
        }
        if matches!(slot.used, Use::Piece { .. }) {
            self.in_flight -= 1;
            self.in_flight_bytes -= slot.len;
        }
        slot
    }

    /// Slots in use, oldest first.
    pub(crate) fn in_order(&self) -> InOrder<'_> {
        InOrder { lane: self, at: self.oldest }
    }

    /// Something of a host is on it that reads or writes; a FLUSH alone is for its cache.
    pub(crate) fn has_io(&self) -> bool {
        self.in_order().any(|(_, slot)| slot.is_io())
    }

    /// The slot that was taken last.
    pub(crate) fn newest(&self) -> Option<u16> {
        (self.newest != NONE).then_some(self.newest)
    }

    /// The time a request took that was sent then is how long the server takes.
    pub(crate) fn tells_speed(&self, sent_at: Nanos) -> bool {
        let silent = self.suspicion.is_some_and(|suspicion| suspicion.cause == Cause::LinkSilent);
        !silent && sent_at >= self.silent_until
    }

    /// Oldest slot in use.
    pub(crate) fn oldest(&self) -> Option<u16> {
        (self.oldest != NONE).then_some(self.oldest)
    }
}

/// Iterator over a lane's slots in use, oldest first.
pub(crate) struct InOrder<'a> {
    lane: &'a Lane,
    at: u16,
}

impl<'a> Iterator for InOrder<'a> {
    type Item = (u16, &'a Slot);

    fn next(&mut self) -> Option<Self::Item> {
        if self.at == NONE {
            return None;
        }
        let index = self.at;
        let slot = &self.lane.slots[index as usize];
        self.at = slot.next;
        Some((index, slot))
    }
}
