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
use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::rc::Rc;

use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};

use crate::BufferMut;

/// Smallest class.
pub const CLASS_BYTES_MIN: usize = 512;
/// Largest class: the largest request payload.
pub const CLASS_BYTES_MAX: usize = 32 << 20;
const CLASSES: usize = (CLASS_BYTES_MAX.trailing_zeros() - CLASS_BYTES_MIN.trailing_zeros() + 1) as usize;
/// Small classes are cut from mappings of this size; larger ones have one each.
const SLAB_BYTES: usize = 256 << 10;

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

/// One block. Lives in its slab's box, at a stable address, until the slab is unmapped.
pub(crate) struct Slot {
    pub(crate) base: NonNull<u8>,
    references: Cell<u32>,
    class: u8,
    /// One `Rc` count of the pool is held through this while the block is in use.
    pool: *const Inner,
}

/// One mapping and the slots cut from it.
struct Slab {
    base: NonNull<u8>,
    mapped_bytes: usize,
    /// From a box; owned by this slab alone, freed by [`Slab::unmap`].
    slots: NonNull<[Slot]>,
}

#[derive(Default)]
struct Class {
    /// Blocks nobody uses, the most recent (warmest) last.
    free: Vec<NonNull<Slot>>,
    /// Fewest free blocks since the last [`Pool::trim_idle`].
    free_min: usize,
    slabs: Vec<Slab>,
}

struct Inner {
    classes: RefCell<[Class; CLASSES]>,
    budget_bytes: Cell<usize>,
    live_bytes: Cell<usize>,
    mapped_bytes: Cell<usize>,
}

/// The buffers of one reactor; clones share them.
#[derive(Clone)]
pub struct Pool(Rc<Inner>);

impl Pool {
    /// `budget_bytes`: idle blocks are given back before more than this is mapped.
    pub fn new(budget_bytes: usize) -> Self {
        Self(Rc::new(Inner {
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
        // Keeps `Inner` alive; undone when the block is returned.
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

impl Inner {
    fn pop(&self, class: usize) -> Option<NonNull<Slot>> {
        let class = &mut self.classes.borrow_mut()[class];
        let slot = class.free.pop()?;
        class.free_min = class.free_min.min(class.free.len());
        Some(slot)
    }

    /// Maps another slab, puts its blocks but one on the free list and returns that one.
    fn grow(&self, class: usize) -> NonNull<Slot> {
        let block = CLASS_BYTES_MIN << class;
        let length = block.max(SLAB_BYTES);
        if self.mapped_bytes.get() + length > self.budget_bytes.get() {
            self.give_back(length);
        }
        let size = NonZeroUsize::new(length).expect("at least a slab");
        // SAFETY: an anonymous private mapping at an address the kernel chooses.
        let mapped = unsafe {
            mmap_anonymous(None, size, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_PRIVATE)
        };
        let Ok(base) = mapped.map(NonNull::cast::<u8>) else {
            panic!("the system has no {length} bytes of memory left for request buffers");
        };
        self.mapped_bytes.set(self.mapped_bytes.get() + length);
        let slots: Box<[Slot]> = (0..length / block)
            .map(|index| Slot {
                // SAFETY: `index * block < length`, inside the mapping.
                base: unsafe { base.add(index * block) },
                references: Cell::new(0),
                class: class as u8,
                pool: self,
            })
            .collect();
        let slab = Slab { base, mapped_bytes: length, slots: NonNull::from(Box::leak(slots)) };
        let mut pointers = slab.slots().iter().map(NonNull::from);
        let first = pointers.next().expect("a slab has at least one block");
        let class = &mut self.classes.borrow_mut()[class];
        class.free.extend(pointers.rev());
        class.slabs.push(slab);
        first
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
            let slots = slab.slots();
            if slots.len() <= left && slots.iter().all(|slot| slot.references.get() == 0) {
                left -= slots.len();
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
            self.mapped_bytes.set(self.mapped_bytes.get() - slab.mapped_bytes);
            slab.unmap();
        }
    }

    /// The last reference to `slot` is gone.
    fn put(&self, slot: NonNull<Slot>, class: usize) {
        self.live_bytes.set(self.live_bytes.get() - (CLASS_BYTES_MIN << class));
        self.classes.borrow_mut()[class].free.push(slot);
    }
}

impl Slab {
    fn slots(&self) -> &[Slot] {
        // SAFETY: from a leaked box that only `unmap` takes back, by value.
        unsafe { self.slots.as_ref() }
    }

    fn holds(&self, slot: NonNull<Slot>) -> bool {
        self.slots().as_ptr_range().contains(&slot.as_ptr().cast_const())
    }

    fn unmap(self) {
        // SAFETY: mapped by `grow` with this length and boxed there; no block of it is in
        // use and its slots are off the free list, so no pointer into either remains.
        let result = unsafe {
            drop(Box::from_raw(self.slots.as_ptr()));
            munmap(self.base.cast(), self.mapped_bytes)
        };
        assert!(result.is_ok(), "munmap of our own mapping failed");
    }
}

impl Drop for Inner {
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
        assert_eq!(pool.mapped_bytes(), MIB, "one block was in use between the two calls");
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
