// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which byte ranges are being written, and who waits for them (rules W4, W8).
//!
//! Overlapping writes of one device are carried out in the order of their
//! arrival, across all its host sessions: NBD leaves that order free, but hosts
//! re-send too, and a late copy must not overtake its successor. An entry is
//! *held* (its write may be on a lane, or a copy of it may still be executed
//! later: a quarantine) or *waiting*.
//!
//! Rule: an entry waits for the newest older entry that overlaps it, and looks
//! again when that one is gone. So each waiter hangs in exactly one chain,
//! nothing is allocated for it, and order of arrival is kept.
//!
//! What is written again because a cache was lost is the newest that was acknowledged of its
//! range (F5), so a copy in doubt of an acknowledged write that touches it carries the same
//! bytes there: a newer one would have had to wait for that doubt. Such an entry (*again*)
//! waits for neither, W3, and whoever waits for the quarantine waits for it too: it counts as
//! older than all of them. Else what nothing can prove would end as a loss at the hold.
//!
//! The normal case must cost next to nothing: a counter per 1 MiB bucket says
//! that nobody else is near, and only a hit searches. The search is a scan of a
//! dense array, which for the few hundred entries that in-flight caps allow is
//! cheaper than any tree and allocates nothing.

use alloc::vec;
use alloc::vec::Vec;

use crate::slab::{Key, Slab};

/// Bytes of one bucket as a shift: 1 MiB.
const BUCKET_SHIFT: u32 = 20;
/// Quarantines that something written again may lie over: it can come into doubt itself, and no number of them must grow
/// with every failure of a path.
const OVER_MAX: usize = 8;
/// Room before the first for what counts as older.
const FIRST_SEQUENCE: u64 = 1 << 40;
/// Buckets of the counter table; ranges further apart share them, which costs only a search.
const BUCKETS: u64 = 4096;

/// Who holds or waits for a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holder {
    /// A host request.
    Request(Key),
    /// A piece whose request was answered while a copy is in doubt (quarantine).
    Piece(Key),
    /// The identity check of a lane (design 3.8).
    Verify(u16),
}

#[derive(Debug)]
struct Entry {
    start: u64,
    end: u64,
    /// Order of arrival; a quarantine keeps its write's.
    sequence: u64,
    holder: Holder,
    kind: EntryKind,
    waiting: bool,
    first_waiter: Option<Key>,
    next_waiter: Option<Key>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EntryKind {
    /// Waits for everything older.
    Ordinary,
    /// See the module header.
    Again,
    /// A quarantine of a write that was acknowledged.
    Acknowledged,
}

/// See the module header.
#[derive(Debug)]
pub(crate) struct RangeTable {
    ordered: bool,
    entries: Slab<Entry>,
    /// (start, end, sequence, key) of every entry: the array that is searched.
    dense: Vec<(u64, u64, u64, Key)>,
    buckets: Vec<u32>,
    sequence: u64,
    quarantined: u64,
}

impl RangeTable {
    /// `ordered`: rule W8 is in force; else only quarantines are waited for.
    pub(crate) fn new(ordered: bool) -> Self {
        Self {
            ordered,
            entries: Slab::new(),
            dense: Vec::new(),
            buckets: vec![0; BUCKETS as usize],
            sequence: FIRST_SEQUENCE,
            quarantined: 0,
        }
    }

    /// Takes `[start, end)` for `holder`, or puts it in line. Returns the key and
    /// whether it is held now.
    pub(crate) fn acquire(&mut self, start: u64, end: u64, holder: Holder) -> (Key, bool) {
        self.take(start, end, holder, EntryKind::Ordinary)
    }

    /// The same for what is written again; see the module header.
    pub(crate) fn acquire_again(&mut self, start: u64, end: u64, holder: Holder) -> (Key, bool) {
        self.take(start, end, holder, EntryKind::Again)
    }

    fn take(&mut self, start: u64, end: u64, holder: Holder, kind: EntryKind) -> (Key, bool) {
        assert!(start < end, "an empty range cannot be locked");
        // In steps of two: what is written again comes in between.
        self.sequence += 2;
        let near = self.near(start, end);
        let key = self.insert(start, end, self.sequence, holder, kind);
        let blocker = if near { self.blocker(key) } else { None };
        match blocker {
            Some(blocker) => {
                self.entries.get_mut(key).waiting = true;
                self.wait_for(key, blocker);
            }
            None if near => self.grant(key),
            None => {}
        }
        (key, blocker.is_none())
    }

    /// Keeps a part of a held range quarantined for a copy in doubt. It counts as
    /// old as the write, so whoever waits for the write waits for it too.
    /// `acknowledged`: the host was told that it is written.
    pub(crate) fn quarantine(
        &mut self,
        of: Key,
        start: u64,
        end: u64,
        holder: Holder,
        acknowledged: bool,
    ) -> Key {
        let kind = if acknowledged { EntryKind::Acknowledged } else { EntryKind::Ordinary };
        let sequence = self.entries.get(of).sequence;
        assert!(!self.entries.get(of).waiting, "only a write that was started can be in doubt");
        self.quarantined += 1;
        self.insert(start, end, sequence, holder, kind)
    }

    /// Gives up a range, held or waiting; pushes whoever holds its range now.
    pub(crate) fn release(&mut self, key: Key, granted: &mut Vec<Holder>) {
        let entry = self.remove(key);
        let mut waiter = entry.first_waiter;
        while let Some(key) = waiter {
            waiter = self.entries.get_mut(key).next_waiter.take();
            if let Some(blocker) = self.blocker(key) {
                self.wait_for(key, blocker);
            } else {
                self.grant(key);
                granted.push(self.entries.get(key).holder);
            }
        }
        if entry.kind == EntryKind::Acknowledged {
            self.look_again(entry.start, entry.end, granted);
        }
    }

    /// A quarantine is gone that what is written again does not wait for, but that counts: there may be few enough now.
    fn look_again(&mut self, start: u64, end: u64, granted: &mut Vec<Holder>) {
        let touching = |&&(s, e, ..): &&(u64, u64, u64, Key)| s < end && start < e;
        let keys: Vec<Key> = self.dense.iter().filter(touching).map(|&(.., key)| key).collect();
        for key in keys {
            let entry = self.entries.get(key);
            if entry.kind != EntryKind::Again || !entry.waiting {
                continue;
            }
            self.leave_chain(key);
            if let Some(blocker) = self.blocker(key) {
                self.wait_for(key, blocker);
            } else {
                self.grant(key);
                granted.push(self.entries.get(key).holder);
            }
        }
    }

    /// Entries that are quarantines.
    pub(crate) fn quarantined(&self) -> u64 {
        self.quarantined
    }

    /// Whether somebody waits for this entry.
    pub(crate) fn is_awaited(&self, key: Key) -> bool {
        self.entries.get(key).first_waiter.is_some()
    }

    /// Whether any entry, held or waiting, touches `[start, end)`.
    pub(crate) fn touches(&self, start: u64, end: u64) -> bool {
        self.near(start, end) && self.dense.iter().any(|&(s, e, ..)| s < end && start < e)
    }

    /// Whether a quarantine touches `[start, end)`, or something that may wait for one: a
    /// lock there could take as long as the quarantine.
    pub(crate) fn is_quarantined(&self, start: u64, end: u64) -> bool {
        let touching = |&&(s, e, ..): &&(u64, u64, u64, Key)| s < end && start < e;
        self.quarantined > 0
            && self
                .dense
                .iter()
                .filter(touching)
                .map(|&(.., key)| self.entries.get(key))
                .any(|entry| entry.waiting || matches!(entry.holder, Holder::Piece(_)))
    }

    /// Whether what this entry waits for is a quarantine, or waits for one.
    pub(crate) fn waits_for_quarantine(&self, key: Key) -> bool {
        let mut key = key;
        while self.quarantined > 0 && self.entries.get(key).waiting {
            let Some(blocker) = self.blocker(key) else { return false };
            if matches!(self.entries.get(blocker).holder, Holder::Piece(_)) {
                return true;
            }
            key = blocker;
        }
        false
    }

    /// Entries in all.
    pub(crate) fn len(&self) -> usize {
        self.dense.len()
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.dense.is_empty()
    }

    fn insert(&mut self, start: u64, end: u64, sequence: u64, holder: Holder, kind: EntryKind) -> Key {
        let key = self.entries.insert(Entry {
            start,
            end,
            sequence,
            holder,
            kind,
            waiting: false,
            first_waiter: None,
            next_waiter: None,
        });
        self.dense.push((start, end, sequence, key));
        self.count(start, end, 1);
        key
    }

    fn remove(&mut self, key: Key) -> Entry {
        if self.entries.get(key).waiting {
            self.leave_chain(key);
        }
        let entry = self.entries.remove(key);
        let Some(at) = self.dense.iter().position(|&(.., k)| k == key) else {
            panic!("a range is in the table but not in the array")
        };
        self.dense.swap_remove(at);
        self.count(entry.start, entry.end, -1);
        if matches!(entry.holder, Holder::Piece(_)) {
            self.quarantined -= 1;
        }
        entry
    }

    /// A waiter that gives up is taken out of its blocker's chain; its own
    /// waiters are handled by `release`.
    fn leave_chain(&mut self, key: Key) {
        let keys: Vec<Key> = self.dense.iter().map(|&(.., k)| k).collect();
        for blocker in keys {
            if self.entries.get(blocker).first_waiter == Some(key) {
                let next = self.entries.get_mut(key).next_waiter.take();
                self.entries.get_mut(blocker).first_waiter = next;
                return;
            }
            if self.entries.get(blocker).next_waiter == Some(key) {
                let next = self.entries.get_mut(key).next_waiter.take();
                self.entries.get_mut(blocker).next_waiter = next;
                return;
            }
        }
        panic!("a waiting range hangs in no chain");
    }

    fn wait_for(&mut self, key: Key, blocker: Key) {
        let first = self.entries.get_mut(blocker).first_waiter.replace(key);
        self.entries.get_mut(key).next_waiter = first;
    }

    /// What an entry waits for: the newest older one that overlaps it, of those that count for it.
    fn blocker(&self, key: Key) -> Option<Key> {
        let Entry { start, end, sequence, kind, .. } = *self.entries.get(key);
        let older = || self.dense.iter().filter(move |&&(s, e, q, _)| s < end && start < e && q < sequence);
        let is_of = |other: Key, kind: EntryKind| self.entries.get(other).kind == kind;
        let over = || older().filter(|&&(.., other)| is_of(other, EntryKind::Acknowledged)).count();
        let again = kind == EntryKind::Again && over() < OVER_MAX;
        let counts = |other: Key| {
            let entry = self.entries.get(other);
            let ignored = again && (entry.waiting || entry.kind == EntryKind::Acknowledged);
            !ignored && (self.ordered || matches!(entry.holder, Holder::Piece(_)))
        };
        let blockers = older().filter(|&&(.., other)| counts(other));
        blockers.max_by_key(|&&(_, _, q, _)| q).map(|&(.., other)| other)
    }

    /// It has its range. What is written again is older from now on than all that touch it.
    fn grant(&mut self, key: Key) {
        let entry = self.entries.get_mut(key);
        entry.waiting = false;
        if entry.kind != EntryKind::Again {
            return;
        }
        let Entry { start, end, sequence, .. } = *entry;
        let touching = self.dense.iter().filter(|&&(s, e, ..)| s < end && start < e);
        let Some(oldest) = touching.map(|&(_, _, q, _)| q).min().filter(|&oldest| oldest < sequence) else {
            return;
        };
        self.entries.get_mut(key).sequence = oldest - 1;
        let Some(at) = self.dense.iter().position(|&(.., k)| k == key) else {
            panic!("a range is in the table but not in the array")
        };
        self.dense[at].2 = oldest - 1;
    }

    fn near(&self, start: u64, end: u64) -> bool {
        buckets_of(start, end).any(|bucket| self.buckets[bucket] > 0)
    }

    fn count(&mut self, start: u64, end: u64, by: i32) {
        for bucket in buckets_of(start, end) {
            let Some(count) = self.buckets[bucket].checked_add_signed(by) else {
                panic!("a bucket counts below zero")
            };
            self.buckets[bucket] = count;
        }
    }
}

fn buckets_of(start: u64, end: u64) -> impl Iterator<Item = usize> {
    let first = start >> BUCKET_SHIFT;
    let last = (end - 1) >> BUCKET_SHIFT;
    (first..=last).take(BUCKETS as usize).map(|bucket| (bucket % BUCKETS) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(n: Key) -> Holder {
        Holder::Request(n)
    }

    fn release(table: &mut RangeTable, key: Key) -> Vec<Holder> {
        let mut granted = Vec::new();
        table.release(key, &mut granted);
        granted
    }

    /// W8: overlapping writes go in order of arrival.
    #[test]
    fn overlapping_ranges_are_granted_in_order_of_arrival() {
        let mut table = RangeTable::new(true);
        let (a, held) = table.acquire(0, 4096, request(1));
        assert!(held);
        let (b, held) = table.acquire(0, 8192, request(2));
        assert!(!held);
        let (c, held) = table.acquire(4096, 8192, request(3));
        assert!(!held, "c overlaps b, which came first, although nothing that is held");
        assert_eq!(release(&mut table, a), [request(2)]);
        assert_eq!(release(&mut table, b), [request(3)]);
        assert_eq!(release(&mut table, c), []);
        assert!(table.is_empty());
    }

    #[test]
    fn ranges_apart_do_not_wait() {
        let mut table = RangeTable::new(true);
        assert!(table.acquire(0, 4096, request(1)).1);
        assert!(table.acquire(4096, 8192, request(2)).1);
        assert!(table.acquire(1 << 40, (1 << 40) + 1, request(3)).1);
    }

    /// W4: the successor waits for the quarantine, not only for the write.
    #[test]
    fn a_quarantine_blocks_who_waited_for_the_write() {
        let mut table = RangeTable::new(true);
        let (a, _) = table.acquire(0, 8192, request(1));
        let (_b, held) = table.acquire(0, 4096, request(2));
        assert!(!held);
        let q = table.quarantine(a, 0, 4096, Holder::Piece(7), true);
        assert_eq!(release(&mut table, a), []);
        assert_eq!(table.quarantined(), 1);
        assert!(table.is_awaited(q));
        assert!(table.acquire(4096, 8192, request(3)).1, "only the piece in doubt is quarantined");
        assert_eq!(release(&mut table, q), [request(2)]);
        assert_eq!(table.quarantined(), 0);
    }

    /// W3, W4: what is written again waits for no doubt of its own bytes; the successor waits for both.
    #[test]
    fn what_is_written_again_goes_over_its_own_quarantine() {
        let mut table = RangeTable::new(true);
        let (a, _) = table.acquire(0, 8192, request(1));
        let q = table.quarantine(a, 0, 8192, Holder::Piece(7), true);
        assert_eq!(release(&mut table, a), []);
        let (b, held) = table.acquire(4096, 12288, request(2));
        assert!(!held);
        let (again, held) = table.acquire_again(0, 8192, request(3));
        assert!(held, "neither the doubt nor who waits for it");
        assert_eq!(release(&mut table, q), [], "b waits for what is written again, too");
        let ghost = table.quarantine(again, 0, 8192, Holder::Piece(8), true);
        assert_eq!(release(&mut table, again), []);
        assert!(table.acquire_again(0, 512, request(4)).1);
        assert_eq!(release(&mut table, ghost), [request(2)], "it is apart from 4");
        let (_, held) = table.acquire_again(4096, 8192, request(5));
        assert!(!held, "what a host is writing is newer");
        assert_eq!(release(&mut table, b), [request(5)]);
    }

    /// W14: a write that was answered with an error may have other bytes.
    #[test]
    fn what_is_written_again_waits_for_a_failed_write_in_doubt() {
        let mut table = RangeTable::new(true);
        let (a, _) = table.acquire(0, 4096, request(1));
        let q = table.quarantine(a, 0, 4096, Holder::Piece(7), false);
        assert_eq!(release(&mut table, a), []);
        assert!(!table.acquire_again(0, 4096, request(2)).1);
        assert_eq!(release(&mut table, q), [request(2)]);
    }

    /// What can never be proven does not grow without bound.
    #[test]
    fn only_so_many_doubts_lie_over_each_other() {
        let mut table = RangeTable::new(true);
        let mut doubts = Vec::new();
        let mut taken = table.acquire(0, 4096, request(0));
        for n in 1.. {
            let (key, held) = taken;
            if !held {
                assert_eq!(n as usize, OVER_MAX + 1);
                break;
            }
            doubts.push(table.quarantine(key, 0, 4096, Holder::Piece(n), true));
            assert_eq!(release(&mut table, key), []);
            taken = table.acquire_again(0, 4096, request(n));
        }
        assert_eq!(table.len(), OVER_MAX + 1);
        let waiting = taken.0;
        assert!(table.waits_for_quarantine(waiting));
        // Any of them will do, not only the one it hangs on.
        let granted = doubts.last().map(|&doubt| release(&mut table, doubt));
        assert_eq!(granted, Some(vec![request(OVER_MAX as Key)]));
    }

    #[test]
    fn a_waiter_may_give_up() {
        let mut table = RangeTable::new(true);
        let (a, _) = table.acquire(0, 4096, request(1));
        let (b, _) = table.acquire(0, 4096, request(2));
        let (_, held) = table.acquire(0, 4096, request(3));
        assert!(!held);
        assert_eq!(release(&mut table, b), [], "3 now waits for 1");
        assert_eq!(release(&mut table, a), [request(3)]);
    }

    #[test]
    fn a_whole_device_trim_is_counted_once_per_bucket() {
        let mut table = RangeTable::new(true);
        let (a, _) = table.acquire(0, 1 << 50, request(1));
        assert!(!table.acquire(1 << 49, (1 << 49) + 512, request(2)).1);
        assert_eq!(release(&mut table, a), [request(2)]);
    }

    /// Against a naive reference: held ranges never overlap, and order holds.
    #[test]
    fn random_ranges_are_never_held_twice() {
        let mut seed = 42_u64;
        let mut draw = |n: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % n
        };
        let mut table = RangeTable::new(true);
        let mut held: Vec<(Key, u64, u64, u64)> = Vec::new();
        let mut waiting: Vec<(Key, u64, u64, u64)> = Vec::new();
        for n in 0..20_000_u64 {
            if draw(2) == 0 || held.is_empty() {
                let start = draw(64) * 512;
                let end = start + (1 + draw(16)) * 512;
                let (key, granted) = table.acquire(start, end, request(n as Key));
                if granted { held.push((key, start, end, n)) } else { waiting.push((key, start, end, n)) }
            } else {
                let from_waiting = draw(5) == 0 && !waiting.is_empty();
                let list = if from_waiting { &mut waiting } else { &mut held };
                let (key, ..) = list.swap_remove(draw(list.len() as u64) as usize);
                for holder in release(&mut table, key) {
                    let Holder::Request(n) = holder else { panic!("only requests here") };
                    let at = waiting.iter().position(|w| w.3 == u64::from(n)).expect("it waited");
                    held.push(waiting.swap_remove(at));
                }
            }
            for (i, a) in held.iter().enumerate() {
                assert!(held[i + 1..].iter().all(|b| a.2 <= b.1 || b.2 <= a.1), "two holders of one range");
            }
            for w in &waiting {
                let older = |o: &&(Key, u64, u64, u64)| o.3 < w.3 && o.1 < w.2 && w.1 < o.2;
                assert!(held.iter().chain(&waiting).any(|o| older(&o)), "a waiter that nobody blocks");
            }
        }
    }
}
