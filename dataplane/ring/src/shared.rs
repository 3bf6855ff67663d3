// SPDX-License-Identifier: MIT OR Apache-2.0
//! What processes share through one file: words of memory, and locks that end with their holder.
//!
//! The words are a mapping of part of the file, so they are reached without a system call; all access is
//! atomic, because other processes change them at any time. The locks are "open file description" locks:
//! the kernel gives one up when the last descriptor of its open file is closed, which at the death of a process
//! is after its io_uring requests have ended (`do_exit` cancels and waits for them before it closes files).
//! A stopped process keeps its locks.
//!
//! Whoever shortens the file kills every process that maps it (SIGBUS): keep it where only its users can write.

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

/// 64-bit words of a file, shared with every other process that maps them.
pub struct SharedWords {
    start: NonNull<AtomicU64>,
    len: usize,
}

// SAFETY: the words are only reached as `&AtomicU64`, which any thread may use.
unsafe impl Send for SharedWords {}
// SAFETY: as above.
unsafe impl Sync for SharedWords {}

impl SharedWords {
    /// Maps `len` words of `file` from byte `offset`, a multiple of the page size.
    ///
    /// # Errors
    ///
    /// The system's, and `InvalidInput` when the file does not reach so far.
    pub fn map(file: &File, offset: u64, len: usize) -> io::Result<Self> {
        let bytes = NonZeroUsize::new(len * size_of::<AtomicU64>()).ok_or(io::ErrorKind::InvalidInput)?;
        if file.metadata()?.len() < offset + bytes.get() as u64 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the file is too short"));
        }
        let flags = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a fresh mapping at an address of the kernel's choice; nothing else refers to it.
        let start = unsafe { mmap(None, bytes, flags, MapFlags::MAP_SHARED, file, offset as i64)? };
        Ok(Self { start: start.cast(), len })
    }

    /// Word `index`.
    ///
    /// # Panics
    ///
    /// When there is none.
    pub fn word(&self, index: usize) -> &AtomicU64 {
        assert!(index < self.len, "a word beyond the mapping");
        // SAFETY: inside the mapping, which lives as long as `self`; a page-aligned start keeps every word
        // aligned; every bit pattern is a u64, and other processes write whole words.
        unsafe { self.start.add(index).as_ref() }
    }
}

impl Drop for SharedWords {
    fn drop(&mut self) {
        // SAFETY: our own mapping, and no reference to it outlives `self`. It cannot fail for one.
        let _ = unsafe { munmap(self.start.cast(), self.len * size_of::<AtomicU64>()) };
    }
}

fn region(kind: i32, start: u64, len: u64) -> libc::flock {
    // SAFETY: a plain C struct for which all zeroes is a value; `l_pid` must be 0.
    let mut region: libc::flock = unsafe { std::mem::zeroed() };
    region.l_type = kind as libc::c_short;
    region.l_whence = libc::SEEK_SET as libc::c_short;
    region.l_start = start as libc::off_t;
    region.l_len = len as libc::off_t;
    region
}

/// Takes the write lock on a range of bytes, which need not exist. `false`: another open file has it.
///
/// # Errors
///
/// The system's, e.g. on file systems without locks.
pub fn try_lock(file: &File, start: u64, len: u64) -> io::Result<bool> {
    match fcntl(file.as_fd(), FcntlArg::F_OFD_SETLK(&region(libc::F_WRLCK, start, len))) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Waits for the write lock on a range of bytes, for as long as another open file has it.
///
/// # Errors
///
/// The system's.
pub fn lock(file: &File, start: u64, len: u64) -> io::Result<()> {
    loop {
        match fcntl(file.as_fd(), FcntlArg::F_OFD_SETLKW(&region(libc::F_WRLCK, start, len))) {
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Gives it up.
///
/// # Errors
///
/// The system's.
pub fn unlock(file: &File, start: u64, len: u64) -> io::Result<()> {
    fcntl(file.as_fd(), FcntlArg::F_OFD_SETLK(&region(libc::F_UNLCK, start, len)))?;
    Ok(())
}

/// Whether another open file has a lock on any byte of the range. Our own do not count.
///
/// # Errors
///
/// The system's.
pub fn is_locked(file: &File, start: u64, len: u64) -> io::Result<bool> {
    let mut found = region(libc::F_WRLCK, start, len);
    // SAFETY: the descriptor is open, and the struct is valid for reading and writing.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &raw mut found) };
    Errno::result(result)?;
    Ok(i32::from(found.l_type) != libc::F_UNLCK)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;

    #[test]
    fn words_are_shared_and_bounded() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("words");
        let open =
            || File::options().read(true).write(true).create(true).truncate(false).open(&path).unwrap();
        let file = open();
        assert!(SharedWords::map(&file, 0, 8).is_err(), "an empty file");
        file.set_len(8192).unwrap();
        let (one, other) =
            (SharedWords::map(&file, 4096, 512).unwrap(), SharedWords::map(&open(), 4096, 512).unwrap());
        one.word(511).store(7, Ordering::SeqCst);
        assert_eq!(other.word(511).load(Ordering::SeqCst), 7);
        assert!(SharedWords::map(&file, 4096, 513).is_err());
    }

    #[test]
    fn locks_belong_to_an_open_file_and_end_with_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("locks");
        let open =
            || File::options().read(true).write(true).create(true).truncate(false).open(&path).unwrap();
        let (one, other) = (open(), open());
        assert!(try_lock(&one, 10, 1).unwrap());
        assert!(try_lock(&one, 10, 1).unwrap(), "again by the same open file");
        assert!(!try_lock(&other, 10, 1).unwrap());
        assert!(try_lock(&other, 11, 1).unwrap());
        assert!(is_locked(&other, 10, 1).unwrap() && !is_locked(&other, 12, 5).unwrap());
        assert!(!is_locked(&one, 10, 1).unwrap(), "our own do not count");
        unlock(&one, 10, 1).unwrap();
        assert!(try_lock(&other, 10, 1).unwrap());
        // A mapping keeps the open file, and so the lock, alive.
        one.set_len(4096).unwrap();
        assert!(try_lock(&one, 20, 1).unwrap());
        let words = SharedWords::map(&one, 0, 1).unwrap();
        drop(one);
        assert!(is_locked(&other, 20, 1).unwrap());
        drop(words);
        assert!(!is_locked(&other, 20, 1).unwrap());
    }
}
