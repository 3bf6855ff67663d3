// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whose completion this is: what was asked, and of which entry, in one ring token.

use crate::slab::Key;

/// What an operation was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Asked {
    /// Mail has come.
    Mail,
    /// The earliest timer is due.
    Alarm,
    /// A listener accepts.
    Accept,
    HandshakeReceive,
    HandshakeSend,
    SessionReceive,
    SessionSend,
    LaneConnect,
    LaneReceive,
    LaneSend,
    /// One request on local storage.
    File,
}

const ALL: [Asked; 11] = [
    Asked::Mail,
    Asked::Alarm,
    Asked::Accept,
    Asked::HandshakeReceive,
    Asked::HandshakeSend,
    Asked::SessionReceive,
    Asked::SessionSend,
    Asked::LaneConnect,
    Asked::LaneReceive,
    Asked::LaneSend,
    Asked::File,
];

/// The token of an operation.
pub(crate) fn token(asked: Asked, key: Key) -> u64 {
    assert!(key.index < 1 << 24, "a slab is larger than a token can name");
    u64::from(asked as u8) << 56 | u64::from(key.index) << 32 | u64::from(key.generation)
}

/// What a token stands for.
pub(crate) fn parse(token: u64) -> (Asked, Key) {
    let asked = ALL[(token >> 56) as usize];
    (asked, Key { index: (token >> 32) as u32 & 0x00ff_ffff, generation: token as u32 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back_as_they_went() {
        for (position, asked) in ALL.into_iter().enumerate() {
            assert_eq!(asked as usize, position);
            let key = Key { index: 0x00ab_cdef, generation: u32::MAX - 1 };
            assert_eq!(parse(token(asked, key)), (asked, key));
        }
    }
}
