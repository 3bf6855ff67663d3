// SPDX-License-Identifier: MIT OR Apache-2.0
//! Handles to blocks of a pool: one writer first, then any number of readers.
//!
//! The two types are rule W3: bytes that a frame refers to are never changed, because a
//! [`Buffer`] has no way to write and a [`BufferMut`] has no second handle.

use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use crate::pool::release;
use crate::slab::Slot;

/// A buffer with one owner who may write it.
pub struct BufferMut {
    slot: NonNull<Slot>,
    len: usize,
}

impl BufferMut {
    /// Takes over the one reference to `slot`.
    pub(crate) fn new(slot: NonNull<Slot>, len: usize) -> Self {
        Self { slot, len }
    }

    /// From now on shared and immutable.
    pub fn freeze(self) -> Buffer {
        let buffer = Buffer { slot: self.slot, len: self.len };
        std::mem::forget(self);
        buffer
    }

    /// Shortens it; the class, and so what it counts for, stays.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Where `at` lies; for an operation that owns this buffer.
    pub(crate) fn pointer(&mut self, at: usize, len: usize) -> *mut u8 {
        assert!(at <= self.len && len <= self.len - at, "a range outside the buffer");
        // SAFETY: the range was just checked against the block.
        unsafe { self.slot.as_ref().base.add(at).as_ptr() }
    }
}

impl Deref for BufferMut {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `len` is at most the block's size, the mapping was zero-filled by the
        // kernel and later written only with bytes, and nobody else writes it.
        unsafe { std::slice::from_raw_parts(self.slot.as_ref().base.as_ptr(), self.len) }
    }
}

impl DerefMut for BufferMut {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `deref`; `&mut self` is the only handle to this block.
        unsafe { std::slice::from_raw_parts_mut(self.slot.as_ref().base.as_ptr(), self.len) }
    }
}

impl Drop for BufferMut {
    fn drop(&mut self) {
        release(self.slot);
    }
}

/// A shared, immutable buffer; clones count references.
pub struct Buffer {
    slot: NonNull<Slot>,
    len: usize,
}

impl Buffer {
    /// What it takes from the budget.
    pub fn class_bytes(&self) -> usize {
        // SAFETY: we hold a reference.
        unsafe { self.slot.as_ref().class_bytes() }
    }
}

impl Clone for Buffer {
    fn clone(&self) -> Self {
        // SAFETY: we hold a reference.
        unsafe { self.slot.as_ref().retain() };
        Self { slot: self.slot, len: self.len }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: as for `BufferMut`; a frozen block has no writer.
        unsafe { std::slice::from_raw_parts(self.slot.as_ref().base.as_ptr(), self.len) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        release(self.slot);
    }
}
