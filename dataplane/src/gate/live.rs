// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the gate processes of a volume tell one another in shared memory, and why that is enough.
//!
//! # The words
//!
//! ```text
//! generation     rises with every raise and every kill; never falls while a process lives
//! epoch, floors  the register's, by index of the member; they only rise
//! killed         ring of the last sessions that were killed, and their count
//! life           drawn when the first process comes and all before it are gone: the nonce that clients are told
//! slot i         of one process: dispatched, finished; its lock is held as long as the process lives
//! ```
//!
//! # The protocol
//!
//! A process *dispatches* a request that changes data (only those matter) in this order:
//!
//! ```text
//! D1  dispatched += 1          D2  full fence        D3  read generation
//! D4  the same as last seen?   then execute; else dispatched -= 1, judge its sessions anew, and begin again
//! ```
//!
//! and when it is done sets `dispatched -= 1`, and `finished` to the lowest generation under which something is
//! still in execution, or to the last seen one.
//!
//! Whoever *fences* (holding the register's lock) does:
//!
//! ```text
//! F1  epoch, floors, killed    F2  generation += 1   F3  full fence
//! F4  for every slot whose lock is held by another process: wait until dispatched = 0 or finished >= generation
//! ```
//!
//! # Why nothing of a fenced session is executed after F4
//!
//! Take a request R of a session that F1 fences, in another process P.
//!
//! * R's D3 read the new generation, or a newer one: then it also reads F1's words (they were stored before
//!   F2), finds its session fenced and is dropped.
//! * R's D3 read an older generation. D2 and F3 are full fences, so of the pair (D1, F2) at least one is seen by
//!   the other's read: D3 did not see F2, hence F4 sees D1. So `dispatched` counts R until R is done, and
//!   `finished` stays below the new generation, because R was dispatched under an older one. F4 waits.
//! * P is stopped anywhere, for any time: between D1 and its end it is counted, and F4 waits for it and in the end
//!   fails, never succeeds; before D1, R is not counted, F4 does not wait for P, and when P goes on R's D3
//!   reads the new generation.
//! * P dies: its lock is given up only after its requests in the kernel have ended (`ring::shared`), so a
//!   slot without a lock has nothing in execution. That holds for storage of this kernel; in front of another
//!   server only one process at a time has the register, and what it left is the engine's to wait for.
//!
//! A process is one writer of its own slot, so D1 is a plain store; all of it is two stores, a fence and a load
//! for each write, and no system call.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use policies::fence::Register;
use policies::limits::FENCE_MEMBERS_MAX;
use ring::shared::SharedWords;

/// Gate processes of one volume at once.
pub(crate) const PROCESSES_MAX: usize = 16;
/// Kills remembered. Who missed more takes all its sessions for killed.
pub(crate) const KILLED_MAX: usize = 64;
/// Bytes of the table.
pub(crate) const LIVE_BYTES: usize = 4096;

const WORDS: usize = LIVE_BYTES / 8;
const MAGIC: u64 = 0x4846_4c49_5645_0002;

const AT_MAGIC: usize = 0;
const AT_GENERATION: usize = 1;
const AT_EPOCH: usize = 2;
const AT_RAISED: usize = 3;
const AT_KILLED: usize = 4;
/// Two words.
const AT_LIFE: usize = 5;
const AT_SLOTS: usize = 16;
/// A cache line each.
const SLOT_WORDS: usize = 8;
const AT_FLOORS: usize = AT_SLOTS + PROCESSES_MAX * SLOT_WORDS;
const AT_RING: usize = AT_FLOORS + FENCE_MEMBERS_MAX;
/// Session in two words, index of its member.
const KILL_WORDS: usize = 4;

const _: () = assert!(AT_RING + KILLED_MAX * KILL_WORDS <= WORDS, "the table must fit its page");

/// See the module header.
pub(crate) struct Live(SharedWords);

/// Words of one process.
#[derive(Clone, Copy)]
pub(crate) enum SlotWord {
    Dispatched = 0,
    Finished = 1,
    /// 1 from the start of its process to an orderly end.
    InUse = 2,
    /// For people who look at the file.
    Pid = 3,
}

impl Live {
    pub(crate) fn map(file: &File, offset: u64) -> io::Result<Self> {
        SharedWords::map(file, offset, WORDS).map(Self)
    }

    /// Begins anew with this life: no other process lives.
    pub(crate) fn reset(&self, register: &Register, life: u128) {
        for index in 0..WORDS {
            self.0.word(index).store(0, Ordering::Relaxed);
        }
        self.0.word(AT_MAGIC).store(MAGIC, Ordering::Relaxed);
        self.store(AT_LIFE, (life >> 64) as u64);
        self.store(AT_LIFE + 1, life as u64);
        self.publish(register);
    }

    /// Names the time since when there was always a process: whoever was told the same one shares this table, and
    /// what was told another one has nothing in execution any more.
    pub(crate) fn life(&self) -> u128 {
        u128::from(self.load(AT_LIFE)) << 64 | u128::from(self.load(AT_LIFE + 1))
    }

    pub(crate) fn is_valid(&self) -> bool {
        self.0.word(AT_MAGIC).load(Ordering::SeqCst) == MAGIC
    }

    fn load(&self, index: usize) -> u64 {
        self.0.word(index).load(Ordering::SeqCst)
    }

    fn store(&self, index: usize, value: u64) {
        self.0.word(index).store(value, Ordering::SeqCst);
    }

    pub(crate) fn generation(&self) -> u64 {
        self.load(AT_GENERATION)
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.load(AT_EPOCH)
    }

    /// Generation of the last raise of an epoch or a floor.
    pub(crate) fn raised(&self) -> u64 {
        self.load(AT_RAISED)
    }

    pub(crate) fn floor(&self, member: usize) -> u64 {
        assert!(member < FENCE_MEMBERS_MAX);
        self.load(AT_FLOORS + member)
    }

    /// F1 and F2 for a register that may have been raised. Under the register's lock.
    pub(crate) fn publish(&self, register: &Register) {
        let floors = register.members.iter().enumerate();
        let same = register.epoch == self.epoch()
            && floors.clone().all(|(index, member)| member.floor == self.floor(index));
        if same && self.generation() > 0 {
            return;
        }
        self.store(AT_EPOCH, register.epoch);
        for (index, member) in floors {
            self.store(AT_FLOORS + index, member.floor);
        }
        let generation = self.generation() + 1;
        self.store(AT_RAISED, generation);
        self.advance(generation);
    }

    /// F1 and F2 for a kill. Under the register's lock.
    pub(crate) fn kill(&self, session: u128, member: usize) {
        let count = self.load(AT_KILLED);
        let at = AT_RING + count as usize % KILLED_MAX * KILL_WORDS;
        self.store(at, (session >> 64) as u64);
        self.store(at + 1, session as u64);
        self.store(at + 2, member as u64);
        self.store(AT_KILLED, count + 1);
        self.advance(self.generation() + 1);
    }

    fn advance(&self, generation: u64) {
        self.store(AT_GENERATION, generation);
        fence(Ordering::SeqCst);
    }

    pub(crate) fn kills(&self) -> u64 {
        self.load(AT_KILLED)
    }

    /// Whether a session of a member was killed, as far as kills since `since` are concerned. More of them
    /// than are remembered: yes, to be safe.
    pub(crate) fn is_killed(&self, session: u128, member: usize, since: u64) -> bool {
        let count = self.kills();
        let found = (since.max(count.saturating_sub(KILLED_MAX as u64))..count).any(|kill| {
            let at = AT_RING + kill as usize % KILLED_MAX * KILL_WORDS;
            let id = u128::from(self.load(at)) << 64 | u128::from(self.load(at + 1));
            id == session && self.load(at + 2) == member as u64
        });
        // The oldest one may be overwritten before the next is counted.
        found || self.kills().saturating_sub(since) >= KILLED_MAX as u64
    }

    /// Whether a session is among the kills that are remembered.
    pub(crate) fn remembers_kill(&self, session: u128, member: usize) -> bool {
        self.is_killed(session, member, self.kills().saturating_sub(KILLED_MAX as u64 - 1))
    }

    pub(crate) fn slot(&self, slot: usize, word: SlotWord) -> &AtomicU64 {
        assert!(slot < PROCESSES_MAX);
        self.0.word(AT_SLOTS + slot * SLOT_WORDS + word as usize)
    }

    /// F4 for one slot: nothing dispatched before `generation` is in execution there.
    pub(crate) fn is_through(&self, slot: usize, generation: u64) -> bool {
        self.slot(slot, SlotWord::Dispatched).load(Ordering::SeqCst) == 0
            || self.slot(slot, SlotWord::Finished).load(Ordering::SeqCst) >= generation
    }

    /// D1 to D3, for the owner of the slot: `total` with the new request. The generation it was dispatched under.
    pub(crate) fn dispatch(&self, slot: usize, total: u64) -> u64 {
        self.slot(slot, SlotWord::Dispatched).store(total, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        self.0.word(AT_GENERATION).load(Ordering::SeqCst)
    }

    /// The owner's account after a request has ended, or was not dispatched after all.
    pub(crate) fn settle(&self, slot: usize, total: u64, finished: u64) {
        // Finished first: whoever sees the lower total may rely on either.
        self.slot(slot, SlotWord::Finished).store(finished, Ordering::Release);
        self.slot(slot, SlotWord::Dispatched).store(total, Ordering::Release);
    }
}
