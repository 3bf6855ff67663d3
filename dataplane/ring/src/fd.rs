// SPDX-License-Identifier: MIT OR Apache-2.0
//! A descriptor shared by its user and the operations in flight on it.
//!
//! The kernel names files by number, and a number is reused as soon as it is closed:
//! an operation queued on a closed number would act on somebody else's file. So every
//! operation holds a clone, and the descriptor closes when the last clone is dropped,
//! which is after the last operation on it has ended.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::rc::Rc;

/// An owned descriptor; clones share it. Closes when the last clone goes.
#[derive(Clone, Debug)]
pub struct Fd(Rc<OwnedFd>);

impl Fd {
    /// Takes ownership.
    pub fn new(fd: OwnedFd) -> Self {
        Self(Rc::new(fd))
    }

    /// The descriptor itself, to hand it to another thread; `None` while an operation
    /// in flight or another clone still holds it.
    pub fn into_owned(self) -> Option<OwnedFd> {
        Rc::try_unwrap(self.0).ok()
    }

    pub(crate) fn raw(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl From<OwnedFd> for Fd {
    fn from(fd: OwnedFd) -> Self {
        Self::new(fd)
    }
}

impl AsFd for Fd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Fd {
    fn as_raw_fd(&self) -> RawFd {
        self.raw()
    }
}
