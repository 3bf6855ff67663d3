// SPDX-License-Identifier: MIT OR Apache-2.0
//! Files, block devices and memory as storage.
//!
//! Opened through the page cache: O_DIRECT would refuse the unaligned requests that
//! hosts may send. Durability comes from fdatasync and RWF_DSYNC.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::{Whence, lseek};

/// `fallocate` mode: make the range a hole that reads as zeroes; the size stays.
pub const PUNCH_HOLE: i32 = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
/// `fallocate` mode: make the range read as zeroes, space reserved.
pub const ZERO_RANGE: i32 = libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE;

/// An open file or block device.
pub struct Storage {
    /// Hand it to the ring.
    pub fd: OwnedFd,
    /// In bytes.
    pub size_bytes: u64,
    /// Writes are refused by the system.
    pub read_only: bool,
    /// A block device: holes cannot be seen.
    pub block_device: bool,
}

/// Opens a file or block device; `create_bytes` makes a missing file of that size.
/// Falls back to read-only where writing is not permitted.
pub fn open(path: &Path, create_bytes: Option<u64>) -> io::Result<Storage> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(libc::O_CLOEXEC);
    let (mut file, read_only) = match options.open(path) {
        Ok(file) => (file, false),
        Err(error) if error.kind() == io::ErrorKind::NotFound && create_bytes.is_some() => {
            (create(path, create_bytes.unwrap_or(0))?, false)
        }
        Err(error) if matches!(error.raw_os_error(), Some(libc::EACCES | libc::EROFS | libc::EPERM)) => {
            (OpenOptions::new().read(true).custom_flags(libc::O_CLOEXEC).open(path)?, true)
        }
        Err(error) => return Err(error),
    };
    let kind = file.metadata()?.file_type();
    if !kind.is_file() && !kind.is_block_device() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "neither a file nor a block device"));
    }
    // The end works for block devices too, whose metadata has no length.
    let size_bytes = file.seek(SeekFrom::End(0))?;
    Ok(Storage { fd: file.into(), size_bytes, read_only, block_device: kind.is_block_device() })
}

/// `create_new`: of two that find it missing, one makes it and the other opens it.
fn create(path: &Path, size_bytes: u64) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(libc::O_CLOEXEC);
    match options.clone().create_new(true).open(path) {
        Ok(file) => {
            file.set_len(size_bytes)?;
            Ok(file)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => options.open(path),
        Err(error) => Err(error),
    }
}

/// A file without a name that ends with its last descriptor; `name` is only for people.
pub fn anonymous(name: &str) -> io::Result<File> {
    Ok(File::from(memfd_create(name, MFdFlags::MFD_CLOEXEC)?))
}

/// Memory that ends with its last clone.
///
/// A memfd and not a plain allocation: what was never written, or was trimmed, takes no
/// memory. Its requests are plain system calls: they never wait for a device, while
/// io_uring hands every one of them to a worker thread, at many times the cost. Not a
/// mapping either: reading a hole through one would fill it.
pub struct Memory {
    file: File,
    size_bytes: u64,
}

impl Memory {
    /// All zeroes.
    pub fn new(size_bytes: u64) -> io::Result<Self> {
        let file = anonymous("holdfast-memory")?;
        file.set_len(size_bytes)?;
        Ok(Self { file, size_bytes })
    }

    /// The same bytes once more.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { file: self.file.try_clone()?, size_bytes: self.size_bytes })
    }

    /// In bytes.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Fills `buffer` from `offset`.
    pub fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    /// Writes all of `data` at `offset`.
    pub fn write(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(data, offset)
    }

    /// Makes a range read as zeroes and gives its memory back.
    pub fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        let mode = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        Ok(fallocate(&self.file, mode, offset as i64, len as i64)?)
    }

    /// See [`extents`].
    pub fn extents(&self, offset: u64, len: u64, max: usize) -> io::Result<Vec<Extent>> {
        extents(&self.file, offset, len, max)
    }
}

/// One run of a file that is data or hole all along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// In bytes.
    pub len: u64,
    /// Reads as zeroes and takes no space.
    pub hole: bool,
}

/// Data and holes of `offset..offset + len`, at most `max` runs. What the file system
/// cannot tell is data. Moves the descriptor's file position and may block.
pub fn extents(fd: impl AsFd, offset: u64, len: u64, max: usize) -> io::Result<Vec<Extent>> {
    let end = offset + len;
    let mut at = offset;
    let mut runs = Vec::new();
    while at < end && runs.len() < max {
        let (next, hole) = run(fd.as_fd(), at, end)?;
        runs.push(Extent { len: next - at, hole });
        at = next;
    }
    Ok(runs)
}

/// End of the run that `at` lies in, and what it is.
fn run(fd: BorrowedFd<'_>, at: u64, end: u64) -> io::Result<(u64, bool)> {
    let data = match lseek(fd, at as i64, Whence::SeekData) {
        Ok(data) => data as u64,
        // No data up to the end of the file.
        Err(Errno::ENXIO) => return Ok((end, true)),
        Err(Errno::EINVAL | Errno::EOPNOTSUPP) => return Ok((end, false)),
        Err(error) => return Err(error.into()),
    };
    if data > at {
        return Ok((data.min(end), true));
    }
    let hole = lseek(fd, at as i64, Whence::SeekHole)? as u64;
    // A concurrent change may answer `at` itself; progress is guaranteed by one byte at least.
    Ok((hole.clamp(at + 1, end), false))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_file_is_made_only_when_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk");
        assert_eq!(open(&path, None).err().unwrap().kind(), io::ErrorKind::NotFound);
        assert_eq!(open(&path, Some(1 << 20)).unwrap().size_bytes, 1 << 20);
        assert_eq!(open(&path, Some(9)).unwrap().size_bytes, 1 << 20, "an existing file keeps its size");
    }

    #[test]
    fn memory_is_shared_by_its_clones_and_trimmed() {
        let memory = Memory::new(1 << 20).unwrap();
        let other = memory.try_clone().unwrap();
        memory.write(&[7; 8192], 4096).unwrap();
        other.punch(4096, 4096).unwrap();
        let mut data = [1; 8192];
        other.read(&mut data, 4096).unwrap();
        assert!(data[..4096] == [0; 4096] && data[4096..] == [7; 4096]);
        assert!(memory.read(&mut data, (1 << 20) - 10).is_err(), "past the end");
    }

    #[test]
    fn a_directory_is_no_storage() {
        let directory = tempfile::tempdir().unwrap();
        assert!(open(directory.path(), None).is_err());
    }

    #[test]
    fn extents_tell_data_from_holes() {
        let memory = Memory::new(1 << 20).unwrap();
        memory.write(&[1; 4096], 8192).unwrap();
        let all = memory.extents(0, 1 << 20, 100).unwrap();
        assert_eq!(
            all,
            [
                Extent { len: 8192, hole: true },
                Extent { len: 4096, hole: false },
                Extent { len: (1 << 20) - 12288, hole: true }
            ]
        );
        assert_eq!(memory.extents(0, 1 << 20, 1).unwrap().len(), 1);
        assert_eq!(memory.extents(9000, 100, 9).unwrap(), [Extent { len: 100, hole: false }]);
    }
}
