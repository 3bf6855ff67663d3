// SPDX-License-Identifier: MIT OR Apache-2.0
//! Request buffers of one reactor.
//!
//! Power-of-two classes from 512 B to 32 MiB with a free list each, so that the steady
//! state calls no allocator. A buffer has exactly one writer while it is a
//! [`BufferMut`] and becomes a shared, immutable [`crate::Buffer`] by `freeze`: bytes that a
//! queued frame refers to cannot be changed, which is rule W3 as a type. Counts are
//! plain cells: buffers do not leave their thread.
//!
//! The pool counts what is in use ([`Pool::live_bytes`]) and what it has from the system
//! ([`Pool::mapped_bytes`]). It never refuses: the one who accepts work asks first
//! whether it fits the budget. Before it maps beyond the budget it gives back what lies
//! idle, so a change from many small to few large requests does not add up.
//!
//! Not the global allocator: page-aligned blocks cost it a page each in headers, and
//! what it holds back after a burst could be neither counted nor returned.

use std::cell::{Cell, RefCell};
use std::ptr::NonNull;
use std::rc::Rc;

use crate::BufferMut;
use crate::slab::{HUGE_BYTES, Slab, Slot};

/// Smallest class.
pub const CLASS_BYTES_MIN: usize = 512;
/// Largest class: the largest request payload.
pub const CLASS_BYTES_MAX: usize = 32 << 20;
const CLASSES: usize = (CLASS_BYTES_MAX.trailing_zeros() - CLASS_BYTES_MIN.trailing_zeros() + 1) as usize;
/// Small classes are cut from mappings of this size; larger ones have one each.
const SLAB_BYTES: usize = 256 << 10;
/// From this class on mappings grow to a huge page. Of smaller blocks one that is still in
/// use would hold too many idle ones.
const HUGE_BLOCK_BYTES_MIN: usize = 64 << 10;

const _: () = assert!(CLASS_BYTES_MIN.is_power_of_two() && CLASS_BYTES_MAX.is_power_of_two());
const _: () = assert!(SLAB_BYTES.is_power_of_two() && SLAB_BYTES < CLASS_BYTES_MAX);

/// Bytes that a buffer of `len` bytes takes from the budget.
///
/// # Panics
/// Above [`CLASS_BYTES_MAX`]; lengths are checked when a request is accepted.
pub fn class_bytes(len: usize) -> usize {
    CLASS_BYTES_MIN << class_of(len)
}

fn class_of(len: usize) -> usize {
    assert!(len <= CLASS_BYTES_MAX, "a buffer of {len} bytes was asked for");
    let size = len.max(CLASS_BYTES_MIN).next_power_of_two();
    (size.trailing_zeros() - CLASS_BYTES_MIN.trailing_zeros()) as usize
}

#[derive(Default)]
struct Class {
    /// Blocks nobody uses, the most recent (warmest) last.
    free: Vec<NonNull<Slot>>,
    /// Fewest free blocks since the last [`Pool::trim_idle`].
    free_min: usize,
    slabs: Vec<Slab>,
}

pub(crate) struct Pooled {
    classes: RefCell<[Class; CLASSES]>,
    budget_bytes: Cell<usize>,
    live_bytes: Cell<usize>,
    mapped_bytes: Cell<usize>,
}

/// The buffers of one reactor; clones share them.
#[derive(Clone)]
pub struct Pool(Rc<Pooled>);

impl Pool {
    /// `budget_bytes`: idle blocks are given back before more than this is mapped.
    pub fn new(budget_bytes: usize) -> Self {
        Self(Rc::new(Pooled {
            classes: RefCell::new(std::array::from_fn(|_| Class::default())),
            budget_bytes: Cell::new(budget_bytes),
            live_bytes: Cell::new(0),
            mapped_bytes: Cell::new(0),
        }))
    }

    /// A writable buffer of `len` bytes (its content is what a former user left).
    /// Page-aligned from 4 KiB on.
    ///
    /// # Panics
    /// If `len` is above [`CLASS_BYTES_MAX`], or the system has no memory left.
    pub fn take(&self, len: usize) -> BufferMut {
        let class = class_of(len);
        let recycled = self.0.pop(class);
        let slot = recycled.unwrap_or_else(|| self.0.grow(class));
        self.0.live_bytes.set(self.0.live_bytes.get() + (CLASS_BYTES_MIN << class));
        // SAFETY: slots stay at their address while their slab is mapped, and a slab
        // with a block in use is never unmapped.
        let references = unsafe { &slot.as_ref().references };
        assert_eq!(references.replace(1), 0, "a block on the free list was in use");
        // Keeps `Pooled` alive; undone when the block is returned.
        let _ = Rc::into_raw(self.0.clone());
        BufferMut::new(slot, len)
    }

    /// Bytes in use, as whole classes.
    pub fn live_bytes(&self) -> usize {
        self.0.live_bytes.get()
    }

    /// Bytes held from the system, in use or not.
    pub fn mapped_bytes(&self) -> usize {
        self.0.mapped_bytes.get()
    }

    /// The limit set.
    pub fn budget_bytes(&self) -> usize {
        self.0.budget_bytes.get()
    }

    /// A changed limit; takes effect with the next mapping.
    pub fn set_budget_bytes(&self, budget_bytes: usize) {
        self.0.budget_bytes.set(budget_bytes);
    }

    /// Gives back blocks that were not needed since the last call. `true` if there may
    /// be more to give back later.
    pub fn trim_idle(&self) -> bool {
        let mut classes = self.0.classes.borrow_mut();
        let mut more = false;
        for class in classes.iter_mut() {
            let idle = class.free_min;
            self.0.unmap(class, idle);
            class.free_min = class.free.len();
            more |= !class.free.is_empty();
        }
        more
    }
}

impl Pooled {
    fn pop(&self, class: usize) -> Option<NonNull<Slot>> {
        let class = &mut self.classes.borrow_mut()[class];
        let slot = class.free.pop()?;
        class.free_min = class.free_min.min(class.free.len());
        Some(slot)
    }

    /// Maps another slab, puts its blocks but one on the free list and returns that one.
    fn grow(&self, class: usize) -> NonNull<Slot> {
        let block = CLASS_BYTES_MIN << class;
        let bytes = self.slab_bytes(class);
        if self.mapped_bytes.get() + bytes > self.budget_bytes.get() {
            self.give_back(bytes);
        }
        let slab = Slab::map(bytes, block, class as u8, self);
        self.mapped_bytes.set(self.mapped_bytes.get() + bytes);
        let mut pointers = slab.slots().iter().map(NonNull::from);
        let first = pointers.next().expect("a slab has at least one block");
        let class = &mut self.classes.borrow_mut()[class];
        class.free.extend(pointers.rev());
        class.slabs.push(slab);
        first
    }

    /// How much to map: large blocks as much again as there is, up to a huge page, for a
    /// class that little is asked of is to stay small; no more than the least where the
    /// budget ends.
    fn slab_bytes(&self, class: usize) -> usize {
        let block = CLASS_BYTES_MIN << class;
        let least = block.max(SLAB_BYTES);
        if block < HUGE_BLOCK_BYTES_MIN {
            return least;
        }
        let mapped: usize = self.classes.borrow()[class].slabs.iter().map(Slab::bytes).sum();
        let wanted = least.max(mapped.min(HUGE_BYTES).next_power_of_two());
        let fits = self.mapped_bytes.get() + wanted <= self.budget_bytes.get();
        if fits { wanted } else { least }
    }

    /// Unmaps idle slabs, the largest classes first, until `length` more fit the budget
    /// or nothing idle is left.
    fn give_back(&self, length: usize) {
        let mut classes = self.classes.borrow_mut();
        for class in classes.iter_mut().rev() {
            if self.mapped_bytes.get() + length <= self.budget_bytes.get() {
                return;
            }
            let all = class.free.len();
            self.unmap(class, all);
        }
    }

    /// Unmaps slabs of `class` without a block in use, as long as they hold at most
    /// `blocks` free blocks in all.
    fn unmap(&self, class: &mut Class, blocks: usize) {
        let mut left = blocks;
        let mut kept = Vec::new();
        let mut gone = Vec::new();
        for slab in class.slabs.drain(..) {
            let blocks = slab.slots().len();
            if blocks <= left && slab.is_idle() {
                left -= blocks;
                gone.push(slab);
            } else {
                kept.push(slab);
            }
        }
        class.slabs = kept;
        if gone.is_empty() {
            return;
        }
        class.free.retain(|slot| !gone.iter().any(|slab| slab.holds(*slot)));
        class.free_min = class.free_min.min(class.free.len());
        for slab in gone {
            self.mapped_bytes.set(self.mapped_bytes.get() - slab.bytes());
            slab.unmap();
        }
    }

    /// The last reference to `slot` is gone.
    fn put(&self, slot: NonNull<Slot>, class: usize) {
        self.live_bytes.set(self.live_bytes.get() - (CLASS_BYTES_MIN << class));
        self.classes.borrow_mut()[class].free.push(slot);
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        // Every block in use holds a count of us, so here all are free.
        assert_eq!(self.live_bytes.get(), 0);
        for class in self.classes.get_mut() {
            for slab in class.slabs.drain(..) {
                slab.unmap();
            }
        }
    }
}

/// Drops one reference; the last one returns the block.
pub(crate) fn release(slot: NonNull<Slot>) {
    // SAFETY: the caller held a reference, so the slab is mapped and the slot valid.
    let (references, class, pool) = unsafe {
        let slot = slot.as_ref();
        (&slot.references, usize::from(slot.class), slot.pool)
    };
    let left = references.get() - 1;
    references.set(left);
    if left == 0 {
        // SAFETY: `take` leaked one count of this `Rc`; this is its one return.
        let pool = unsafe { Rc::from_raw(pool) };
        pool.put(slot, class);
    }
}

impl Slot {
    /// One more reference.
    pub(crate) fn retain(&self) {
        self.references.set(self.references.get().checked_add(1).expect("fewer than 2^32 references"));
    }

    /// What the block takes from the budget.
    pub(crate) fn class_bytes(&self) -> usize {
        CLASS_BYTES_MIN << self.class
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn classes_are_powers_of_two_and_aligned() {
        let pool = Pool::new(256 * MIB);
        for (len, class) in [(0, 512), (1, 512), (512, 512), (513, 1024), (4096, 4096), (4097, 8192)] {
            assert_eq!(class_bytes(len), class);
        }
        let page = pool.take(4096);
        assert_eq!(page.as_ptr() as usize % 4096, 0);
        let large = pool.take(CLASS_BYTES_MAX);
        assert_eq!(large.as_ptr() as usize % 4096, 0);
        assert_eq!(pool.live_bytes(), 4096 + CLASS_BYTES_MAX);
    }

    #[test]
    fn a_block_returns_with_its_last_reference() {
        let pool = Pool::new(MIB);
        let mut buffer = pool.take(100);
        buffer.copy_from_slice(&[7; 100]);
        let frozen = buffer.freeze();
        let second = frozen.clone();
        drop(frozen);
        assert_eq!(pool.live_bytes(), 512);
        assert_eq!(&second[..], &[7; 100]);
        drop(second);
        assert_eq!(pool.live_bytes(), 0);
    }

    #[test]
    fn blocks_in_use_do_not_overlap() {
        let pool = Pool::new(64 * MIB);
        let mut buffers: Vec<_> = (0..1000_u32)
            .map(|index| {
                let mut buffer = pool.take(512 << (index % 6));
                buffer.fill(index as u8);
                buffer
            })
            .collect();
        for (index, buffer) in buffers.iter_mut().enumerate() {
            assert!(buffer.iter().all(|byte| *byte == index as u8));
        }
    }

    #[test]
    fn the_steady_state_maps_nothing_new() {
        let pool = Pool::new(MIB);
        drop((0..32).map(|_| pool.take(4096)).collect::<Vec<_>>());
        let mapped = pool.mapped_bytes();
        for _ in 0..1000 {
            drop((0..32).map(|_| pool.take(4096)).collect::<Vec<_>>());
        }
        assert_eq!(pool.mapped_bytes(), mapped);
    }

    #[test]
    fn idle_small_blocks_make_room_for_large_ones() {
        let pool = Pool::new(2 * MIB);
        drop((0..512).map(|_| pool.take(4096)).collect::<Vec<_>>());
        assert_eq!(pool.mapped_bytes(), 2 * MIB);
        let _large = pool.take(2 * MIB);
        assert_eq!(pool.mapped_bytes(), 2 * MIB);
    }

    #[test]
    fn large_blocks_grow_to_aligned_mappings_of_a_huge_page() {
        let pool = Pool::new(256 * MIB);
        let first = pool.take(128 << 10);
        assert_eq!(pool.mapped_bytes(), SLAB_BYTES, "little is asked for");
        let more: Vec<_> = (0..127).map(|_| pool.take(128 << 10)).collect();
        assert_eq!(pool.mapped_bytes(), 16 * MIB, "nothing is mapped that is not used");
        let starts = more.iter().filter(|block| (block.as_ptr() as usize).is_multiple_of(HUGE_BYTES)).count();
        assert!(starts >= 7, "{starts} of the last 14 MiB begin at a huge page");
        drop((first, more));
        pool.trim_idle();
        pool.trim_idle();
        assert_eq!(pool.mapped_bytes(), 0);
    }

    #[test]
    fn the_last_of_the_budget_is_not_taken_by_growth() {
        let pool = Pool::new(3 * MIB);
        let blocks: Vec<_> = (0..24).map(|_| pool.take(128 << 10)).collect();
        assert_eq!((pool.mapped_bytes(), blocks.len()), (3 * MIB, 24));
    }

    #[test]
    fn a_slab_with_one_block_in_use_stays() {
        let pool = Pool::new(SLAB_BYTES);
        let mut kept = pool.take(4096);
        kept.fill(9);
        let _large = pool.take(MIB);
        assert!(kept.iter().all(|byte| *byte == 9));
        assert_eq!(pool.mapped_bytes(), SLAB_BYTES + MIB);
    }

    #[test]
    fn what_was_not_needed_is_given_back() {
        let pool = Pool::new(256 * MIB);
        drop((0..8).map(|_| pool.take(MIB)).collect::<Vec<_>>());
        assert!(pool.trim_idle(), "the first call only notes what is idle");
        drop(pool.take(MIB));
        pool.trim_idle();
        assert_eq!(
            pool.mapped_bytes(),
            2 * MIB,
            "one block of a slab of two was in use between the two calls"
        );
        pool.trim_idle();
        assert_eq!(pool.mapped_bytes(), 0);
        assert!(!pool.trim_idle());
    }

    #[test]
    fn a_buffer_outlives_its_pool() {
        let pool = Pool::new(MIB);
        let mut buffer = pool.take(4096);
        drop(pool);
        buffer.fill(3);
        assert!(buffer.iter().all(|byte| *byte == 3));
    }
}
