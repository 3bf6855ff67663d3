// SPDX-License-Identifier: MIT OR Apache-2.0
//! One mapping of a [`crate::Pool`], cut into blocks of one size.
//!
//! A mapping of [`HUGE_BYTES`] or a multiple is aligned to it, and the kernel is asked to
//! back it by huge pages. What write safety retains goes round through memory of many MiB
//! (F5): with pages of 4 KiB it would miss the processor's address cache for each of them.

use std::cell::Cell;
use std::num::NonZeroUsize;
use std::ptr::NonNull;

use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous, munmap};

use crate::pool::Pooled;

/// What the processor's larger page covers.
pub(crate) const HUGE_BYTES: usize = 2 << 20;

/// One block. Lives in its slab's box, at a stable address, until the slab is unmapped.
pub(crate) struct Slot {
    pub(crate) base: NonNull<u8>,
    pub(crate) references: Cell<u32>,
    pub(crate) class: u8,
    /// One `Rc` count of the pool is held through this while the block is in use.
    pub(crate) pool: *const Pooled,
}

/// See the module header.
pub(crate) struct Slab {
    base: NonNull<u8>,
    bytes: usize,
    /// From a box; owned by this slab alone, freed by [`Slab::unmap`].
    slots: NonNull<[Slot]>,
}

impl Slab {
    /// Maps `bytes` and cuts them into blocks of `block` bytes, of which `bytes` is a
    /// multiple.
    ///
    /// # Panics
    /// If the system has no memory left.
    pub(crate) fn map(bytes: usize, block: usize, class: u8, pool: *const Pooled) -> Self {
        let base = if bytes.is_multiple_of(HUGE_BYTES) { map_huge(bytes) } else { map(bytes) };
        let slots: Box<[Slot]> = (0..bytes / block)
            .map(|index| Slot {
                // SAFETY: `index * block < bytes`, inside the mapping.
                base: unsafe { base.add(index * block) },
                references: Cell::new(0),
                class,
                pool,
            })
            .collect();
        Self { base, bytes, slots: NonNull::from(Box::leak(slots)) }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn slots(&self) -> &[Slot] {
        // SAFETY: from a leaked box that only `unmap` takes back, by value.
        unsafe { self.slots.as_ref() }
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.slots().iter().all(|slot| slot.references.get() == 0)
    }

    pub(crate) fn holds(&self, slot: NonNull<Slot>) -> bool {
        self.slots().as_ptr_range().contains(&slot.as_ptr().cast_const())
    }

    /// Gives the memory back. No block of it is in use, nor on a free list.
    pub(crate) fn unmap(self) {
        // SAFETY: `slots` was leaked by `map`; by the caller's word no pointer into it or
        // into the mapping remains.
        unsafe {
            drop(Box::from_raw(self.slots.as_ptr()));
            unmap(self.base, self.bytes);
        }
    }
}

/// `bytes` at an address the kernel chooses.
fn map(bytes: usize) -> NonNull<u8> {
    let size = NonZeroUsize::new(bytes).expect("at least a slab");
    // SAFETY: an anonymous private mapping at an address the kernel chooses.
    let mapped = unsafe {
        mmap_anonymous(None, size, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_PRIVATE)
    };
    let Ok(base) = mapped else {
        panic!("the system has no {bytes} bytes of memory left for request buffers");
    };
    base.cast()
}

/// `bytes`, a multiple of [`HUGE_BYTES`], aligned to it.
fn map_huge(bytes: usize) -> NonNull<u8> {
    let start = map(bytes + HUGE_BYTES);
    let before = start.align_offset(HUGE_BYTES);
    let after = HUGE_BYTES - before;
    // SAFETY: `before` is less than HUGE_BYTES, so the aligned range is inside the mapping;
    // the rest of it is whole pages that nobody has seen.
    unsafe {
        let base = start.add(before);
        if before > 0 {
            unmap(start, before);
        }
        if after > 0 {
            unmap(base.add(bytes), after);
        }
        // A kernel without huge pages refuses; the memory is as good, only slower.
        let _ = madvise(base.cast(), bytes, MmapAdvise::MADV_HUGEPAGE);
        base
    }
}

/// # Safety
/// The range is mapped by us, in whole pages, and nothing refers to it.
unsafe fn unmap(base: NonNull<u8>, bytes: usize) {
    // SAFETY: see above.
    let result = unsafe { munmap(base.cast(), bytes) };
    assert!(result.is_ok(), "munmap of our own mapping failed");
}
