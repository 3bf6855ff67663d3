// SPDX-License-Identifier: MIT OR Apache-2.0
//! Why a ring cannot be had, in words an operator can act on.
//!
//! io_uring is switched off in many container runtimes and by one sysctl; that must
//! not look like a bug of ours, so the message names the cause and the remedy.

use std::fmt;
use std::io;

/// A ring could not be set up, or the kernel lacks what it needs.
#[derive(Debug)]
pub enum RingError {
    /// The kernel or the sandbox forbids io_uring.
    NotAllowed {
        /// What `io_uring_setup` said.
        source: io::Error,
        /// `kernel.io_uring_disabled`, if it can be read: 0 on, 1 privileged only, 2 off.
        sysctl: Option<u8>,
    },
    /// The kernel is too old; the text names what is missing.
    Missing(&'static str),
    /// Anything else, such as too many open files.
    Other(io::Error),
}

impl RingError {
    /// Sorts the error of `io_uring_setup`.
    pub(crate) fn from_setup(source: io::Error) -> Self {
        match source.raw_os_error() {
            Some(libc::ENOSYS | libc::EPERM | libc::EACCES) => {
                Self::NotAllowed { source, sysctl: read_sysctl() }
            }
            _ => Self::Other(source),
        }
    }
}

fn read_sysctl() -> Option<u8> {
    std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok()?.trim().parse().ok()
}

impl fmt::Display for RingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAllowed { source, sysctl } => {
                write!(f, "io_uring is not allowed here ({source}): ")?;
                match sysctl {
                    Some(2) => write!(
                        f,
                        "kernel.io_uring_disabled is 2; set it with `sysctl -w kernel.io_uring_disabled=0`"
                    ),
                    Some(1) => write!(
                        f,
                        "kernel.io_uring_disabled is 1; run with CAP_SYS_ADMIN, join the group in \
                         kernel.io_uring_group, or `sysctl -w kernel.io_uring_disabled=0`"
                    ),
                    _ => write!(
                        f,
                        "in a container, allow the system calls io_uring_setup, io_uring_enter and \
                         io_uring_register in its seccomp profile (podman and docker: \
                         --security-opt seccomp=PROFILE); the kernel must be 6.1 or newer"
                    ),
                }
            }
            Self::Missing(what) => {
                write!(f, "this kernel's io_uring lacks {what}; Linux 6.1 or newer is needed")
            }
            Self::Other(source) => write!(f, "io_uring cannot be set up: {source}"),
        }
    }
}

impl std::error::Error for RingError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::NotAllowed { source, .. } | Self::Other(source) => Some(source),
            Self::Missing(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forbidden_ring_says_how_to_allow_it() {
        let error = RingError::from_setup(io::Error::from_raw_os_error(libc::EPERM));
        assert!(matches!(error, RingError::NotAllowed { .. }));
        let off =
            RingError::NotAllowed { source: io::Error::from_raw_os_error(libc::EPERM), sysctl: Some(2) };
        assert!(off.to_string().contains("sysctl -w kernel.io_uring_disabled=0"));
        let sandbox =
            RingError::NotAllowed { source: io::Error::from_raw_os_error(libc::EPERM), sysctl: Some(0) };
        assert!(sandbox.to_string().contains("seccomp"));
    }

    #[test]
    fn other_errors_are_not_taken_for_a_ban() {
        let error = RingError::from_setup(io::Error::from_raw_os_error(libc::EMFILE));
        assert!(matches!(error, RingError::Other(_)));
    }
}
