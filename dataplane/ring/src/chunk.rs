// SPDX-License-Identifier: MIT OR Apache-2.0
//! Receive memory that only a connection with data in hand occupies.
//!
//! A receive names no buffer; the kernel takes one out of this ring when bytes have
//! arrived. So ten thousand idle connections hold nothing, and the number of chunks
//! follows what is being parsed now. The reader drops its [`Chunk`] when it has
//! parsed it, in the same turn; a receive that finds the ring empty ends with ENOBUFS
//! and is armed again then.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::cell::Cell;
use std::ops::Deref;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;

const PAGE_BYTES: usize = 4096;

/// The provided-buffer ring and its memory. Freed when the kernel ring is gone and no
/// [`Chunk`] is left.
pub(crate) struct ChunkRing {
    entries: NonNull<BufRingEntry>,
    memory: NonNull<u8>,
    chunk_bytes: usize,
    count: u16,
    tail: Cell<u16>,
    lent: Cell<u16>,
}

impl ChunkRing {
    /// `count` chunks (a power of two) of `chunk_bytes` each, all available.
    pub(crate) fn new(count: u16, chunk_bytes: usize) -> Rc<Self> {
        assert!(count.is_power_of_two() && chunk_bytes.is_multiple_of(PAGE_BYTES));
        let ring = Self {
            entries: allocate(Self::entries_layout(count)).cast(),
            memory: allocate(Self::memory_layout(count, chunk_bytes)),
            chunk_bytes,
            count,
            tail: Cell::new(0),
            lent: Cell::new(count),
        };
        for index in 0..count {
            ring.give(index);
        }
        Rc::new(ring)
    }

    fn entries_layout(count: u16) -> Layout {
        Layout::array::<BufRingEntry>(usize::from(count))
            .and_then(|layout| layout.align_to(PAGE_BYTES))
            .expect("at most 32768 entries of 16 bytes")
    }

    fn memory_layout(count: u16, chunk_bytes: usize) -> Layout {
        Layout::from_size_align(usize::from(count) * chunk_bytes, PAGE_BYTES)
            .expect("bounded by the ring's configuration")
    }

    /// Address to register with the kernel.
    pub(crate) fn address(&self) -> u64 {
        self.entries.as_ptr() as u64
    }

    pub(crate) fn count(&self) -> u16 {
        self.count
    }

    pub(crate) fn available(&self) -> u16 {
        self.count - self.lent.get()
    }

    pub(crate) fn bytes(&self) -> usize {
        usize::from(self.count) * self.chunk_bytes
    }

    /// The kernel filled chunk `index`; it is ours until the [`Chunk`] is dropped.
    pub(crate) fn take(self: &Rc<Self>, index: u16, len: usize) -> Chunk {
        assert!(index < self.count && len <= self.chunk_bytes, "the kernel named a chunk we do not have");
        self.lent.set(self.lent.get() + 1);
        Chunk { ring: self.clone(), index, len }
    }

    fn give(&self, index: u16) {
        let tail = self.tail.get();
        let slot = usize::from(tail & (self.count - 1));
        // SAFETY: `slot < count` and `index < count`, so both addresses lie in our two
        // allocations. The kernel reads entries below the tail only, and this one
        // becomes visible to it by the release store of the tail below. Entry 0's
        // `resv` field, where the tail lives, is not touched by the three setters.
        unsafe {
            let entry = &mut *self.entries.as_ptr().add(slot);
            entry.set_addr(self.memory.as_ptr().add(usize::from(index) * self.chunk_bytes) as u64);
            entry.set_len(self.chunk_bytes as u32);
            entry.set_bid(index);
            let shared_tail = BufRingEntry::tail(self.entries.as_ptr()).cast::<AtomicU16>();
            (*shared_tail).store(tail.wrapping_add(1), Ordering::Release);
        }
        self.tail.set(tail.wrapping_add(1));
        self.lent.set(self.lent.get() - 1);
    }
}

fn allocate(layout: Layout) -> NonNull<u8> {
    // SAFETY: both layouts have a size above zero (`count >= 1`).
    let pointer = unsafe { alloc_zeroed(layout) };
    NonNull::new(pointer).unwrap_or_else(|| handle_alloc_error(layout))
}

impl Drop for ChunkRing {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with these layouts. The ring that owned the
        // registration holds a clone of our `Rc` until it has closed the kernel ring,
        // so the kernel cannot write here any more.
        unsafe {
            dealloc(self.entries.as_ptr().cast(), Self::entries_layout(self.count));
            dealloc(self.memory.as_ptr(), Self::memory_layout(self.count, self.chunk_bytes));
        }
    }
}

/// Received bytes; goes back to the kernel when dropped.
pub struct Chunk {
    ring: Rc<ChunkRing>,
    index: u16,
    len: usize,
}

impl Deref for Chunk {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `take` checked index and length; the chunk is out of the ring while
        // this value lives, so the kernel does not write to it.
        unsafe {
            let start = self.ring.memory.as_ptr().add(usize::from(self.index) * self.ring.chunk_bytes);
            std::slice::from_raw_parts(start, self.len)
        }
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        self.ring.give(self.index);
    }
}
