// SPDX-License-Identifier: MIT OR Apache-2.0
//! Files and block devices behind a lane.
//!
//! The same requests as over NBD, on the same ring: WRITE with FUA is RWF_DSYNC, FLUSH is
//! fdatasync, TRIM and WRITE_ZEROES are fallocate, BLOCK_STATUS asks for holes on a helper
//! thread. Short reads and writes are continued. A completion is proof: a local lane goes
//! down only when its last operation has ended, so nothing on it is ever in doubt.

use std::io;
use std::os::fd::AsFd;

use engine::{LaneFault, Offer, SendData};
use nbd::limits::PAYLOAD_MAX_BYTES;
use nbd::{Command, CommandFlags, Errno, Extent, TransmissionFlags};
use ring::file::{self, Storage};
use ring::{BufferMut, Fd, Message, Resource};

use crate::gate::Passage;
use crate::jobs::Task;
use crate::lane::output::{Frame, frame_bytes, landing_of};
use crate::lane::pending::{Assembly, Pending};
use crate::lane::{Lane, Local, LocalFile};
use crate::reactor::Reactor;
use crate::slab::Key;
use crate::tokens::{Asked, token};

/// Preferred block of local storage, in bytes: a page.
const PREFERRED_BYTES: u32 = 4096;

/// What a file operation was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Read,
    Write,
    /// fallocate for TRIM or WRITE_ZEROES.
    Punch,
    /// fdatasync: FLUSH, or FUA of a TRIM or WRITE_ZEROES.
    Sync,
}

/// One request on local storage.
pub(crate) struct FileRequest {
    lane: Key,
    cookie: u64,
    step: Step,
    /// Bytes done so far.
    done: usize,
}

impl Reactor {
    /// The file is open, or not.
    pub(crate) fn lane_file_ready(&mut self, key: Key, storage: io::Result<Storage>) {
        let opened = storage.and_then(|storage| {
            let for_jobs = storage.fd.as_fd().try_clone_to_owned()?;
            Ok((storage, for_jobs))
        });
        match opened {
            Err(error) => {
                let text = format!("the file cannot be opened: {error}");
                self.lane_fail(key, LaneFault::Unreachable(text));
            }
            Ok((storage, for_jobs)) => {
                let offer = offer(storage.size_bytes, storage.read_only, storage.block_device);
                let lane = self.lanes.get_mut(key).expect("only called for lanes in the table");
                let no_holes = storage.block_device;
                lane.local = Some(Local::File(LocalFile { fd: Fd::new(storage.fd), for_jobs, no_holes }));
                self.lane_opened(key, offer);
            }
        }
    }

    /// A request for local storage.
    pub(crate) fn local_request(&mut self, key: Key, frame: &Frame) {
        let lane = self.lanes.get_mut(key).expect("only called for lanes in the table");
        let start = lane.queued_bytes;
        lane.queued_bytes += frame_bytes(lane, frame);
        // Nothing of it waits for a kernel queue: it is sent as soon as it is asked.
        lane.taken_bytes = lane.queued_bytes;
        let mut buffer = None;
        if frame.command == Command::Read {
            buffer = Some(self.pool.take(frame.len as usize));
        }
        lane.pending.insert(Pending {
            cookie: frame.cookie,
            command: frame.command,
            flags: frame.flags,
            offset: frame.offset,
            len: frame.len,
            landing: landing_of(frame.data),
            buffer,
            arrived: 0,
            assembly: Assembly::Fresh,
            dispatched: None,
            frame: start..lane.queued_bytes,
        });
        if matches!(lane.local, Some(Local::Memory(_))) {
            self.memory_request(key, frame);
            return;
        }
        if matches!(frame.command, Command::Write | Command::Trim | Command::WriteZeroes) {
            let lane = self.lanes.get_mut(key).expect("only called for lanes in the table");
            let (device, id) = (lane.device, lane.id);
            match self.gate_pass(device, id, frame.cookie) {
                Passage::Free => {}
                Passage::Granted(generation) => {
                    let lane = self.lanes.get_mut(key).expect("still there");
                    lane.pending.get_mut(frame.cookie).expect("just put into the table").dispatched =
                        Some(generation);
                }
                // Nobody hears of it: its session is answered nothing any more.
                Passage::Barred => return self.local_done(key, frame.cookie, Err(Errno::Perm)),
            }
        }
        match frame.command {
            Command::Read => self.local_read(key, frame.cookie, 0),
            Command::Write => self.local_write(key, frame),
            Command::Flush => self.local_sync(key, frame.cookie),
            Command::Trim | Command::WriteZeroes => self.local_punch(key, frame),
            Command::BlockStatus => self.local_status(key, frame),
            Command::Cache => self.local_done(key, frame.cookie, Ok(())),
            Command::Disconnect => panic!("DISC is not a request"),
        }
    }

    fn local_read(&mut self, key: Key, cookie: u64, done: usize) {
        let lane = self.lanes.get_mut(key).expect("only called for lanes in the table");
        let pending = lane.pending.get_mut(cookie).expect("a request in flight");
        let buffer = pending.buffer.take().expect("a READ has its buffer");
        let (offset, len) = (pending.offset + done as u64, buffer.len() - done);
        let token =
            file_token(&mut self.files, lane, FileRequest { lane: key, cookie, step: Step::Read, done });
        self.ring.read_at(token, &lane.file().fd, buffer, done, len, offset);
    }

    fn local_write(&mut self, key: Key, frame: &Frame) {
        let mut message = self.messages.take();
        match frame.data {
            SendData::Buffer { buffer, at } => {
                message.push_buffer(self.held.get(buffer), at as usize, frame.len as usize);
            }
            SendData::Zeroes => message.push_zeroes(frame.len as usize),
            SendData::None | SendData::Land | SendData::Digest => panic!("a WRITE without a payload"),
        }
        self.local_write_message(key, frame.cookie, message, 0);
    }

    fn local_write_message(&mut self, key: Key, cookie: u64, message: Box<Message>, done: usize) {
        let lane = self.lanes.get_mut(key).expect("only called for lanes in the table");
        let pending = lane.pending.get_mut(cookie).expect("a request in flight");
        let offset = pending.offset + done as u64;
        let durable = pending.flags.contains(CommandFlags::FUA);
        let token =
            file_token(&mut self.files, lane, FileRequest { lane: key, cookie, step: Step::Write, done });
        self.ring.write_at(token, &lane.file().fd, message, offset, durable);
    }

    fn local_sync(&mut self, key: Key, cookie: u64) {
        let lane = self.lanes.get_mut(key).expect("only called for lanes in the table");
        let token =
            file_token(&mut self.files, lane, FileRequest { lane: key, cookie, step: Step::Sync, done: 0 });
        self.ring.sync_data(token, &lane.file().fd);
    }

    fn local_punch(&mut self, key: Key, frame: &Frame) {
        let lane = self.lanes.get_mut(key).expect("only called for lanes in the table");
        if lane.file().no_holes {
            self.local_without_holes(key, frame.cookie);
            return;
        }
        let keep = frame.command == Command::WriteZeroes && frame.flags.contains(CommandFlags::NO_HOLE);
        let mode = if keep { file::ZERO_RANGE } else { file::PUNCH_HOLE };
        let request = FileRequest { lane: key, cookie: frame.cookie, step: Step::Punch, done: 0 };
        let token = file_token(&mut self.files, lane, request);
        self.ring.fallocate(token, &lane.file().fd, mode, frame.offset, frame.len);
    }

    /// A TRIM is a hint and needs nothing; WRITE_ZEROES becomes a write, unless it was
    /// to be fast.
    fn local_without_holes(&mut self, key: Key, cookie: u64) {
        let lane = self.lanes.get_mut(key).expect("only called for lanes in the table");
        let pending = lane.pending.get_mut(cookie).expect("a request in flight");
        match pending.command {
            Command::WriteZeroes if pending.flags.contains(CommandFlags::FAST_ZERO) => {
                self.local_done(key, cookie, Err(Errno::NotSupported));
            }
            Command::WriteZeroes => {
                let mut message = self.messages.take();
                message.push_zeroes(pending.len as usize);
                self.local_write_message(key, cookie, message, 0);
            }
            _ => self.local_done(key, cookie, Ok(())),
        }
    }

    fn local_status(&mut self, key: Key, frame: &Frame) {
        let lane = self.lanes.get_mut(key).expect("only called for lanes in the table");
        match lane.file().for_jobs.try_clone() {
            Ok(fd) => {
                lane.working += 1;
                self.lane_job(key, frame.cookie, Task::Extents { fd, offset: frame.offset, len: frame.len });
            }
            Err(_) => self.local_done(key, frame.cookie, Err(Errno::Io)),
        }
    }

    /// A helper thread knows the extents.
    pub(crate) fn lane_extents(&mut self, key: Key, cookie: u64, extents: io::Result<Vec<file::Extent>>) {
        let lane = self.lanes.get_mut(key).expect("a lane outlives its jobs");
        lane.working -= 1;
        let result = match extents {
            Err(_) => Err(Errno::Io),
            Ok(extents) => {
                let buffer = self.land_extents(extents.into_iter().map(extent_of));
                self.local_land(key, cookie, buffer);
                Ok(())
            }
        };
        self.local_done(key, cookie, result);
        self.lane_settle(key);
    }

    /// A file operation has ended.
    pub(crate) fn file_done(&mut self, file: Key, result: Result<u32, ring::Errno>, resource: Resource) {
        let FileRequest { lane: key, cookie, step, done } =
            self.files.remove(file).expect("a file operation ends once");
        let lane = self.lanes.get_mut(key).expect("a lane outlives its operations");
        lane.working -= 1;
        match (step, result, resource) {
            (Step::Read, Ok(len), Resource::Buffer(buffer)) => {
                self.local_was_read(key, cookie, buffer, done, len as usize);
            }
            (Step::Write, Ok(len), Resource::Message(message)) => {
                self.local_was_written(key, cookie, message, done, len as usize);
            }
            (Step::Punch, Ok(_), _) => self.local_was_punched(key, cookie),
            (Step::Punch, Err(ring::Errno::EOPNOTSUPP | ring::Errno::ENODEV), _) => {
                lane.file().no_holes = true;
                self.local_without_holes(key, cookie);
            }
            (Step::Sync, Ok(_), _) => self.local_done(key, cookie, Ok(())),
            (_, Err(error), _) => self.local_done(key, cookie, Err(nbd_errno(error))),
            (_, Ok(_), _) => panic!("a file operation came back without what it was given"),
        }
        self.lane_settle(key);
    }

    fn local_was_read(&mut self, key: Key, cookie: u64, buffer: BufferMut, done: usize, len: usize) {
        let whole = done + len == buffer.len();
        let lane = self.lanes.get_mut(key).expect("only called for lanes in the table");
        lane.pending.get_mut(cookie).expect("a request in flight").buffer = Some(buffer);
        if whole {
            self.local_done(key, cookie, Ok(()));
        } else if len == 0 {
            // The file is shorter than it was when it was opened.
            self.local_done(key, cookie, Err(Errno::Io));
        } else {
            self.local_read(key, cookie, done + len);
        }
    }

    fn local_was_written(
        &mut self,
        key: Key,
        cookie: u64,
        mut message: Box<Message>,
        done: usize,
        len: usize,
    ) {
        message.advance(len);
        if message.remaining() > 0 && len > 0 {
            self.local_write_message(key, cookie, message, done + len);
            return;
        }
        let result = if message.remaining() == 0 { Ok(()) } else { Err(Errno::NoSpace) };
        self.messages.give_back(message);
        self.local_done(key, cookie, result);
    }

    fn local_was_punched(&mut self, key: Key, cookie: u64) {
        let lane = self.lanes.get_mut(key).expect("only called for lanes in the table");
        let pending = lane.pending.get_mut(cookie).expect("a request in flight");
        if pending.flags.contains(CommandFlags::FUA) {
            self.local_sync(key, cookie);
        } else {
            self.local_done(key, cookie, Ok(()));
        }
    }

    /// What a request asked for is there.
    pub(crate) fn local_land(&mut self, key: Key, cookie: u64, buffer: BufferMut) {
        let lane = self.lanes.get_mut(key).expect("only called for lanes in the table");
        lane.pending.get_mut(cookie).expect("a request in flight").buffer = Some(buffer);
    }

    /// Queued and not fed: requests that need no operation are done within their `Send`.
    pub(crate) fn local_done(&mut self, key: Key, cookie: u64, result: Result<(), Errno>) {
        let lane = self.lanes.get_mut(key).expect("only called for lanes in the table");
        let pending = lane.pending.remove(cookie).expect("a request is answered once");
        let (device, id) = (lane.device, lane.id);
        if let Some(generation) = pending.dispatched {
            self.gate_done(device, generation);
        }
        self.answers.push_back((device, id, pending, result));
    }
}

fn file_token(files: &mut crate::slab::Slab<FileRequest>, lane: &mut Lane, request: FileRequest) -> u64 {
    lane.working += 1;
    token(Asked::File, files.insert(request))
}

pub(crate) fn extent_of(extent: file::Extent) -> Extent {
    Extent { len: extent.len, flags: if extent.hole { Extent::HOLE | Extent::ZERO } else { 0 } }
}

/// What local storage offers: everything, within reason.
pub(crate) fn offer(size_bytes: u64, read_only: bool, block_device: bool) -> Offer {
    let mut flags = [
        TransmissionFlags::SEND_FLUSH,
        TransmissionFlags::SEND_FUA,
        TransmissionFlags::SEND_TRIM,
        TransmissionFlags::SEND_WRITE_ZEROES,
        TransmissionFlags::SEND_FAST_ZERO,
        TransmissionFlags::SEND_DF,
        TransmissionFlags::SEND_CACHE,
        TransmissionFlags::CAN_MULTI_CONN,
    ]
    .into_iter()
    .fold(TransmissionFlags::HAS_FLAGS, TransmissionFlags::with);
    if read_only {
        flags = flags.with(TransmissionFlags::READ_ONLY);
    }
    if block_device {
        flags = flags.without(TransmissionFlags::SEND_FAST_ZERO);
    }
    Offer {
        size_bytes,
        flags,
        min_block_bytes: 1,
        preferred_block_bytes: PREFERRED_BYTES,
        max_payload_bytes: PAYLOAD_MAX_BYTES,
        structured: true,
        extended: false,
        block_status: true,
        local: true,
        node: false,
        access: program::AccessState::default(),
        gate: None,
    }
}

/// The one table from the system's errors on local storage to NBD's. What has no number
/// of its own is an I/O error.
pub(crate) fn nbd_errno(error: ring::Errno) -> Errno {
    match error {
        ring::Errno::EPERM | ring::Errno::EACCES | ring::Errno::EROFS => Errno::Perm,
        ring::Errno::ENOSPC | ring::Errno::EDQUOT | ring::Errno::EFBIG => Errno::NoSpace,
        ring::Errno::EINVAL => Errno::Invalid,
        ring::Errno::EOPNOTSUPP => Errno::NotSupported,
        _ => Errno::Io,
    }
}
