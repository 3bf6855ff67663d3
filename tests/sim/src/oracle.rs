// SPDX-License-Identifier: MIT OR Apache-2.0
//! What every sector may hold, known from the hosts' side alone (rules T1-T3).
//!
//! Writes are numbered in the order in which they arrive at the device (W8). Per
//! sector:
//!
//! | number | meaning |
//! |---|---|
//! | `acked` | newest WRITE or WRITE_ZEROES that was answered well |
//! | `seen` | newest write a READ has returned; a later READ must not go back behind it |
//! | `promised` | the same as `acked`, but never lowered by what a cache lost while we could not know |
//! | `zeroish` | newest WRITE_ZEROES that was issued: from then on zeroes may be read |
//! | `trimmed` | newest TRIM that was issued, or write that was told lost: from then on anything that was ever there may be read |
//!
//! A value is *allowed* over a floor when it is a write of this sector that is not
//! older than the floor; zeroes are allowed when `zeroish` is not older. A TRIM leaves
//! the content open until the next write: when `trimmed` is not older than the floor,
//! any write of the sector is allowed. A write that was answered with an error, or whose
//! host is lost, may show or not, and be gone again when older content is replayed: it
//! raises nothing.
//!
//! * T1: a READ returns what is allowed over `max(acked, seen)` as they were when it was issued.
//! * T3: when a FLUSH is answered well, the *stable* storage holds what is allowed over
//!   `promised` as it was when the FLUSH was issued; the same for a FUA write over itself.
//!
//! A write that was let go without proof (W13: `unproven = "assume"`, at the hold) may still
//! land over newer ones; until it is noticed and repaired its content may show. Such a
//! sector is *haunted* by that content from the moment it lands until the newest is there
//! again, and for what was on its way then. At the end none may be.
//!
//! When a server loses its cache, other servers show older content until the loss can be
//! known (the connections are gone). In that time reads may go back; from then on the
//! old floors hold again, because what was acknowledged is written again before it is read (F6).

use program::{Nanos, SECOND};

use crate::medium::{INITIAL, Value, ZERO};

/// What was on its way when a ghost was repaired has arrived by then.
const ON_ITS_WAY: Nanos = 15 * SECOND;

/// How a write changes content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteKind {
    /// Its own number.
    Data,
    /// Zeroes.
    Zeroes,
    /// Zeroes or what was there.
    Trim,
}

#[derive(Clone, Copy, Debug)]
struct Write {
    start: u32,
    end: u32,
    kind: WriteKind,
    /// Answered with an error: it may show, and be gone again.
    failed: bool,
}

/// See the module header.
#[derive(Clone, Debug)]
pub struct Oracle {
    writes: Vec<Write>,
    acked: Vec<Value>,
    promised: Vec<Value>,
    /// A loss is not known yet: acknowledgements raise `promised` alone.
    uncertain: bool,
    seen: Vec<Value>,
    zeroish: Vec<Value>,
    trimmed: Vec<Value>,
    /// Newest write with content of its own that was carried out and not answered with an error.
    carried: Vec<Value>,
    /// Content of a ghost that landed, and when the newest was there again.
    haunted: Vec<Option<(Value, Option<Nanos>)>>,
    /// Of `acked`, what an operator gave up (F2): durability is not asked of it.
    given_up: Vec<Value>,
    /// Of `promised`, what a failed FLUSH dropped: it is written again before the next one, and may not show
    /// until then, whatever becomes of other caches.
    dropped: Vec<Value>,
    /// Writes issued before our own process died last: nobody retains them (F8).
    forgotten: Value,
}

impl Oracle {
    /// A volume that holds `initial` everywhere.
    pub fn new(sectors: usize, initial: Value) -> Self {
        let all = Write { start: 0, end: sectors as u32, kind: WriteKind::Data, failed: false };
        Self {
            // Numbers 0 and 1 are ZERO and INITIAL.
            writes: vec![all; 2],
            acked: vec![initial; sectors],
            promised: vec![initial; sectors],
            uncertain: false,
            seen: vec![initial; sectors],
            zeroish: vec![ZERO; sectors],
            trimmed: vec![0; sectors],
            carried: vec![initial; sectors],
            haunted: vec![None; sectors],
            given_up: vec![0; sectors],
            dropped: vec![0; sectors],
            forgotten: 0,
        }
    }

    /// A host issues a write; its number.
    pub fn issue(&mut self, kind: WriteKind, start: usize, end: usize) -> Value {
        self.writes.push(Write { start: start as u32, end: end as u32, kind, failed: false });
        let number = (self.writes.len() - 1) as Value;
        match kind {
            WriteKind::Data => {}
            WriteKind::Zeroes => self.zeroish[start..end].fill(number),
            WriteKind::Trim => self.trimmed[start..end].fill(number),
        }
        number
    }

    /// A write was answered well.
    pub fn ack(&mut self, number: Value) {
        let write = self.writes[number as usize];
        if write.kind == WriteKind::Trim {
            return;
        }
        for sector in write.start as usize..write.end as usize {
            self.promised[sector] = self.promised[sector].max(number);
            if !self.uncertain {
                self.acked[sector] = self.acked[sector].max(number);
            }
        }
    }

    /// A write was answered with an error.
    pub fn fail(&mut self, number: Value) {
        let write = &mut self.writes[number as usize];
        write.failed = true;
        for sector in write.start as usize..write.end as usize {
            if self.seen[sector] == number {
                self.seen[sector] = self.acked[sector];
            }
            if self.carried[sector] == number {
                self.carried[sector] = self.acked[sector];
            }
        }
    }

    /// A loss begins that nobody can know of yet.
    pub fn doubt(&mut self) {
        self.uncertain = true;
    }

    /// Whether such a loss is open.
    pub fn is_uncertain(&self) -> bool {
        self.uncertain
    }

    /// The loss can be known now.
    pub fn trust(&mut self) {
        self.uncertain = false;
        for (sector, acked) in self.acked.iter_mut().enumerate() {
            let promised = self.promised[sector];
            if promised > self.dropped[sector] {
                *acked = (*acked).max(promised);
            }
        }
    }

    /// Floors of a READ that is issued now.
    pub fn read_floors(&self, start: usize, end: usize, floors: &mut Vec<Value>) {
        floors.clear();
        floors.extend((start..end).map(|sector| self.acked[sector].max(self.seen[sector])));
    }

    /// Floors of a FLUSH that is issued now.
    pub fn flush_floors(&self, floors: &mut Vec<Value>) {
        floors.clear();
        let given_up =
            |(&promised, &given_up): (&Value, &Value)| if promised <= given_up { 0 } else { promised };
        floors.extend(self.promised.iter().zip(&self.given_up).map(given_up));
    }

    /// Whether a sector may hold `value` over `floor`.
    pub fn allows(&self, sector: usize, value: Value, floor: Value) -> bool {
        let trimmed = self.trimmed[sector] > 0 && self.trimmed[sector] >= floor;
        if value == ZERO {
            return trimmed || self.zeroish[sector] >= floor;
        }
        let covers = |write: &Write| {
            write.kind == WriteKind::Data && (write.start as usize..write.end as usize).contains(&sector)
        };
        (trimmed || value >= floor) && self.writes.get(value as usize).is_some_and(covers)
    }

    /// `value` was carried out on a sector; `by_ghost`: by a write that may have been let go.
    /// Tells whether it haunts the sector.
    pub fn landed(&mut self, sector: usize, value: Value, by_ghost: bool, now: Nanos) -> bool {
        // What was carried out and is not answered yet may be overwritten too.
        let newest = self.allows(sector, value, self.acked[sector].max(self.carried[sector]));
        if value != ZERO && !self.writes[value as usize].failed {
            self.carried[sector] = self.carried[sector].max(value);
        }
        match &mut self.haunted[sector] {
            Some((_, until @ None)) if newest => *until = Some(now),
            slot if !newest && by_ghost => *slot = Some((value, None)),
            _ => return false,
        }
        !newest
    }

    /// Whether `value` may show because a ghost landed.
    pub fn is_haunted(&self, sector: usize, value: Value, now: Nanos) -> bool {
        self.haunted[sector].is_some_and(|(ghost, until)| {
            ghost == value && until.is_none_or(|until| now <= until + ON_ITS_WAY)
        })
    }

    /// Whether a ghost's content may still show anywhere.
    pub fn is_haunted_anywhere(&self, now: Nanos) -> bool {
        let open = |(_, until): (Value, Option<Nanos>)| until.is_none_or(|until| now <= until + ON_ITS_WAY);
        self.haunted.iter().flatten().copied().any(open)
    }

    /// Our own process dies: what it retained of the writes until now is gone.
    pub fn forget(&mut self) {
        self.forgotten = (self.writes.len() - 1) as Value;
    }

    /// Whether the newest acknowledged write of a sector is retained by nobody.
    pub fn is_forgotten(&self, sector: usize) -> bool {
        self.promised[sector] <= self.forgotten
    }

    /// Of what a process before left, some cache could not be reached: hosts are told that FLUSH goes on without.
    pub fn give_up_forgotten(&mut self) {
        for (given_up, &promised) in self.given_up.iter_mut().zip(&self.promised) {
            if promised <= self.forgotten {
                *given_up = (*given_up).max(promised);
            }
        }
    }

    /// A READ returned `value`, which was allowed.
    pub fn observe(&mut self, sector: usize, value: Value) {
        if value != ZERO && !self.writes[value as usize].failed {
            self.seen[sector] = self.seen[sector].max(value);
        }
    }

    /// Newest acknowledged write of a sector.
    pub fn acked(&self, sector: usize) -> Value {
        self.acked[sector]
    }

    /// The same, as if nothing had been lost.
    pub fn promised(&self, sector: usize) -> Value {
        self.promised[sector]
    }

    /// What is acknowledged here was given up by the operator, unflushed.
    pub fn give_up(&mut self, sector: usize) {
        self.given_up[sector] = self.promised[sector];
    }

    /// What is lost here was told to the hosts: it is promised no more.
    pub fn release(&mut self, sector: usize) {
        self.promised[sector] = self.acked[sector];
    }

    /// The same, and for good: older writes under it are not written again either, lest they come over it where it
    /// is there all the same. Until the next write any content may show that ever was there.
    pub fn open(&mut self, sector: usize) {
        self.trimmed[sector] = self.trimmed[sector].max(self.promised[sector]);
        // What a ghost left here is a part of what was told.
        self.haunted[sector] = None;
        self.release(sector);
    }

    /// A FLUSH failed and its server dropped what was here.
    pub fn drop_unflushed(&mut self, sector: usize) {
        self.dropped[sector] = self.promised[sector];
    }

    /// A FLUSH was answered well: nothing is left dropped.
    pub fn flushed(&mut self) {
        self.dropped.fill(0);
    }

    /// A sector may read as `stable` again.
    pub fn lose(&mut self, sector: usize, stable: Value) {
        // Zeroes carry no number: the newest write that could have made them will do.
        let floor = if stable == ZERO { self.zeroish[sector] } else { stable };
        self.acked[sector] = self.acked[sector].min(floor);
        self.seen[sector] = self.acked[sector];
    }

    /// Range and kind of a write, in sectors.
    pub fn range_of(&self, number: Value) -> (usize, usize, WriteKind) {
        let write = self.writes[number as usize];
        (write.start as usize, write.end as usize, write.kind)
    }

    /// Writes issued so far.
    pub fn issued(&self) -> usize {
        self.writes.len() - INITIAL as usize - 1
    }
}
