// SPDX-License-Identifier: MIT OR Apache-2.0
//! One node for each state directory.
//!
//! `flock` on a file: the kernel releases it when the process ends, however it
//! ends. A file that merely exists (a PID file) survives a crash and then keeps
//! the node from starting.

use std::fmt;
use std::fs::{File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// A state directory that cannot be used; the text says why and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateError {
    text: String,
}

impl StateError {
    pub(super) fn unusable(path: &Path, action: &str, error: &io::Error) -> Self {
        let advice = match error.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                "; choose another directory with --state-dir or `state_dir` in [node], or run as its owner"
            }
            _ => "; choose another directory with --state-dir or `state_dir` in [node]",
        };
        Self { text: format!("cannot {action} the state directory {}: {error}{advice}", path.display()) }
    }
}

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for StateError {}

/// The lock on a state directory, held until dropped.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock or says who has it.
    pub(super) fn take(dir: &Path) -> Result<Self, StateError> {
        let unusable = |error: io::Error| StateError::unusable(dir, "write to", &error);
        let path = dir.join("lock");
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(unusable)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(held(dir, &mut file)),
            Err(TryLockError::Error(error)) => return Err(unusable(error)),
        }
        // For the message of whoever finds it held.
        file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(unusable)?;
        Ok(Self { _file: file })
    }
}

fn held(dir: &Path, file: &mut File) -> StateError {
    let mut holder = String::new();
    let read = file.rewind().and_then(|()| file.take(20).read_to_string(&mut holder));
    let holder = match read {
        Ok(_) if !holder.trim().is_empty() => format!(" (process {})", holder.trim()),
        _ => String::new(),
    };
    StateError {
        text: format!(
            "another node{holder} uses the state directory {}; give this one its own with --state-dir",
            dir.display()
        ),
    }
}
