// SPDX-License-Identifier: MIT OR Apache-2.0
//! Error numbers of replies (protocol document, "Error values").

/// An NBD error number. Only these go on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Errno {
    /// Operation not permitted, e.g. a write to a read-only export.
    Perm = 1,
    /// Input/output error.
    Io = 5,
    /// Out of memory; we never send it.
    NoMemory = 12,
    /// Invalid request.
    Invalid = 22,
    /// No space left on the device, or a write past its end.
    NoSpace = 28,
    /// Value too large (DF reads, extended requests).
    Overflow = 75,
    /// Not supported (only for requests with FAST_ZERO and the like).
    NotSupported = 95,
    /// The server is going away; never sent to a host (nbd.ko turns it into EIO).
    Shutdown = 108,
}

impl Errno {
    /// Number on the wire.
    pub const fn to_wire(self) -> u32 {
        self as u32
    }

    /// From the wire; 0 is no error, Linux's EDQUOT and EFBIG are no-space.
    ///
    /// Unknown numbers are [`Errno::Io`]. The protocol document says to treat them as
    /// EINVAL, which would go to the host at once; but what an unknown error means nobody
    /// knows, another path may do better, and one error that leaks is enough to
    /// lose a filesystem (rule W7, design 3.5): EIO is tried elsewhere before it is believed.
    pub const fn from_wire(value: u32) -> Option<Self> {
        match value {
            0 => None,
            1 => Some(Self::Perm),
            12 => Some(Self::NoMemory),
            28 | 122 | 27 => Some(Self::NoSpace),
            22 => Some(Self::Invalid),
            75 => Some(Self::Overflow),
            95 => Some(Self::NotSupported),
            108 => Some(Self::Shutdown),
            // 5, and what nobody knows.
            _ => Some(Self::Io),
        }
    }
}
