// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where the data of a reply ends up: with the engine as a buffer, or as a digest.

use engine::{Digest, Event, LaneId};
use nbd::{Command, Errno, Extent};
use ring::Buffer;
use xxhash_rust::xxh3::xxh3_128;

use crate::host::encode_extents;
use crate::lane::pending::{Landing, Pending};
use crate::reactor::Reactor;
use crate::slab::Key;

impl Reactor {
    /// A reply is complete: tells the engine.
    pub(crate) fn lane_answered(
        &mut self,
        device: Key,
        lane: LaneId,
        pending: Pending,
        result: Result<(), Errno>,
    ) {
        let cookie = pending.cookie;
        let mut digest = None;
        let mut data = None;
        if result.is_ok() && pending.command == Command::Read {
            let buffer = pending.buffer.expect("a complete READ has its buffer").freeze();
            match pending.landing {
                Landing::Land => data = Some(self.held.lend(buffer)),
                Landing::Digest => digest = Some(digest_of(&buffer)),
                Landing::None => {}
            }
        } else if result.is_ok() && pending.landing == Landing::Land {
            data = pending.buffer.map(|buffer| self.held.lend(buffer.freeze()));
        }
        self.feed(device, Event::Reply { lane, cookie, result, data, digest });
    }

    /// Extents as a buffer that `reply_status` reads.
    pub(crate) fn land_extents(&mut self, extents: impl Iterator<Item = Extent>) -> ring::BufferMut {
        self.scratch.clear();
        encode_extents(extents, &mut self.scratch);
        let mut buffer = self.pool.take(self.scratch.len());
        buffer.copy_from_slice(&self.scratch);
        buffer
    }
}

fn digest_of(buffer: &Buffer) -> Digest {
    let uniform = buffer.first().is_none_or(|first| buffer.iter().all(|byte| byte == first));
    Digest { value: xxh3_128(buffer), uniform }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::Pool;

    #[test]
    fn one_different_byte_is_not_uniform() {
        let pool = Pool::new(1 << 20);
        let mut buffer = pool.take(4096);
        buffer.fill(0);
        let blank = digest_of(&buffer.freeze());
        assert!(blank.uniform);
        let mut buffer = pool.take(4096);
        buffer.fill(0);
        buffer[4095] = 1;
        let other = digest_of(&buffer.freeze());
        assert!(!other.uniform);
        assert_ne!(blank.value, other.value);
    }
}
