// SPDX-License-Identifier: MIT OR Apache-2.0
//! Memory behind a lane: the embedded storage of the demo and of tests.
//!
//! Done at once, with plain system calls (see [`ring::file::Memory`]); the answer is
//! queued like any other, so that an engine never sees a reply within its own `Send`.

use std::io;

use engine::{LaneFault, SendData};
use nbd::{Command, Errno, Extent};
use ring::file::Memory;

use crate::lane::Local;
use crate::lane::local::{extent_of, offer};
use crate::lane::output::Frame;
use crate::limits::LOCAL_EXTENTS_MAX;
use crate::reactor::Reactor;
use crate::slab::Key;

impl Reactor {
    /// The memory is there, or not.
    pub(crate) fn lane_memory_ready(&mut self, key: Key, memory: io::Result<Memory>) {
        match memory {
            Err(error) => self.lane_fail(key, LaneFault::Unreachable(error.to_string())),
            Ok(memory) => {
                let offer = offer(memory.size_bytes(), false, false);
                let lane = self.lanes.get_mut(key).expect("only called for lanes in the table");
                lane.local = Some(Local::Memory(memory));
                self.lane_opened(key, offer);
            }
        }
    }

    /// A request for memory.
    pub(crate) fn memory_request(&mut self, key: Key, frame: &Frame) {
        let lane = self.lanes.get_mut(key).expect("only called for lanes in the table");
        let Some(Local::Memory(memory)) = &lane.local else { panic!("not a lane to memory") };
        let pending = lane.pending.get_mut(frame.cookie).expect("just put into the table");
        let done = match frame.command {
            Command::Read => {
                let buffer = pending.buffer.as_mut().expect("a READ has its buffer");
                memory.read(buffer, frame.offset)
            }
            Command::Write => match frame.data {
                SendData::Buffer { buffer, at } => {
                    let (at, len) = (at as usize, frame.len as usize);
                    memory.write(&self.held.get(buffer)[at..at + len], frame.offset)
                }
                _ => memory.punch(frame.offset, frame.len),
            },
            Command::Trim | Command::WriteZeroes => memory.punch(frame.offset, frame.len),
            Command::BlockStatus => match memory.extents(frame.offset, frame.len, LOCAL_EXTENTS_MAX) {
                Err(error) => Err(error),
                Ok(extents) => {
                    let extents: Vec<Extent> = extents.into_iter().map(extent_of).collect();
                    let buffer = self.land_extents(extents.into_iter());
                    self.local_land(key, frame.cookie, buffer);
                    Ok(())
                }
            },
            Command::Flush | Command::Cache => Ok(()),
            Command::Disconnect => panic!("DISC is not a request"),
        };
        let result = done.map_err(|error| match error.raw_os_error() {
            Some(code) => crate::lane::local::nbd_errno(ring::Errno::from_raw(code)),
            None => Errno::Io,
        });
        self.local_done(key, frame.cookie, result);
    }
}
