// SPDX-License-Identifier: MIT OR Apache-2.0
//! The ring: queue operations, submit and wait in one system call, take completions.
//!
//! Operations are queued in memory and go to the kernel with the next
//! [`Ring::submit_and_wait`]; a reactor calls that once per turn.

use std::io;
use std::mem::ManuallyDrop;
use std::rc::Rc;

use io_uring::types::{CancelBuilder, FsyncFlags, SubmitArgs, TimeoutFlags, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue, types};
use nix::errno::Errno;
use nix::sys::socket::{SockaddrLike, SockaddrStorage, UnixAddr};

use crate::chunk::ChunkRing;
use crate::op::{Completion, ConnectAddress, Op, Ops, Resource};
use crate::setup::{Features, RingConfig, build, check};
use crate::{BufferMut, Fd, Message, RingError};

/// `IORING_RECVSEND_POLL_FIRST` of <linux/io_uring.h>.
const RECVSEND_POLL_FIRST: u16 = 1;
/// The one group of provided buffers.
const CHUNK_GROUP: u16 = 0;
/// One wait for operations when the ring is dropped.
const DROP_WAIT_NS: u64 = 500_000_000;
/// Waits without any progress before they are given up: file I/O cannot be cancelled.
const DROP_ROUNDS_MAX: u32 = 10;
/// Largest receive buffer length of one operation.
const RECV_BYTES_MAX: usize = 1 << 30;

/// Whether a receive will find bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Probably: look at once.
    Now,
    /// Probably not: a look would be wasted.
    Later,
}

/// How to wait.
#[derive(Clone, Copy, Debug)]
pub struct Wait {
    /// Completions to wait for.
    pub want: u32,
    /// Return after this long in any case; `None` waits for ever. [`Ring::alarm`] is
    /// cheaper where one time limit serves many waits.
    pub timeout_ns: Option<u64>,
}

impl Wait {
    /// Submit, run what is ready, return at once.
    pub const NONE: Self = Self { want: 0, timeout_ns: None };
    /// Until something happens.
    pub const ONE: Self = Self { want: 1, timeout_ns: None };
}

/// One io_uring with its operations and receive chunks.
pub struct Ring {
    /// Dropped by hand: before the memory the kernel writes to.
    uring: ManuallyDrop<IoUring>,
    ops: Ops,
    chunks: Rc<ChunkRing>,
    /// Completions taken from the kernel and not yet handed out, in reverse.
    ready: Vec<cqueue::Entry>,
    features: Features,
    /// Of alarms that rang: another is about to be set.
    #[expect(clippy::vec_box, reason = "the kernel reads each at its own stable place")]
    spare: Vec<Box<Timespec>>,
}

impl Ring {
    /// Sets up a ring for the calling thread, which alone may use it.
    pub fn new(config: RingConfig) -> Result<Self, RingError> {
        let (uring, defer_taskrun) = build(config)?;
        check(&uring)?;
        // Saves a descriptor look-up per call; worth having, not needed.
        let _ = uring.submitter().register_ring_fd();
        let chunks = ChunkRing::new(config.chunks, config.chunk_bytes);
        // SAFETY: `chunks` is kept until the kernel ring is closed (see `drop`).
        unsafe {
            uring.submitter().register_buf_ring_with_flags(chunks.address(), chunks.count(), CHUNK_GROUP, 0)
        }
        .map_err(|_| RingError::Missing("provided buffer rings"))?;
        let features = Features { defer_taskrun };
        Ok(Self {
            uring: ManuallyDrop::new(uring),
            ops: Ops::default(),
            chunks,
            ready: Vec::with_capacity(config.completion_entries as usize),
            features,
            spare: Vec::new(),
        })
    }

    /// What this kernel offers.
    pub fn features(&self) -> Features {
        self.features
    }

    /// Operations in flight or queued.
    pub fn in_flight(&self) -> usize {
        self.ops.live()
    }

    /// Chunks nobody is reading. Some may already hold bytes of completions to come.
    pub fn chunks_available(&self) -> usize {
        usize::from(self.chunks.available())
    }

    /// Bytes of memory behind the chunks.
    pub fn chunk_memory_bytes(&self) -> usize {
        self.chunks.bytes()
    }

    /// Accepts connections until cancelled: one [`Resource::Accepted`] each.
    pub fn accept(&mut self, token: u64, listener: &Fd) {
        let entry = opcode::AcceptMulti::new(types::Fd(listener.raw())).flags(libc::SOCK_CLOEXEC).build();
        self.queue(token, Op::Accept { _fd: listener.clone() }, entry);
    }

    /// Connects to an IP address.
    pub fn connect_ip(&mut self, token: u64, fd: &Fd, address: std::net::SocketAddr) {
        self.connect(token, fd, ConnectAddress::Ip(SockaddrStorage::from(address)));
    }

    /// Connects to a Unix socket. Fails at once for a path that does not fit an address.
    pub fn connect_unix(&mut self, token: u64, fd: &Fd, path: &std::path::Path) -> Result<(), Errno> {
        let address = UnixAddr::new(path)?;
        self.connect(token, fd, ConnectAddress::Unix(address));
        Ok(())
    }

    fn connect(&mut self, token: u64, fd: &Fd, address: ConnectAddress) {
        let address = Box::new(address);
        let (pointer, len) = match address.as_ref() {
            ConnectAddress::Ip(ip) => (ip.as_ptr(), ip.len()),
            ConnectAddress::Unix(unix) => (unix.as_ptr().cast(), unix.len()),
        };
        let entry = opcode::Connect::new(types::Fd(fd.raw()), pointer, len).build();
        self.queue(token, Op::Connect { _fd: fd.clone(), _address: address }, entry);
    }

    /// Receives at most `len_max` bytes (and at most a chunk) into whatever chunk is free
    /// when they arrive. No chunk free: ENOBUFS. EOF: 0 and no chunk. `expect`: whether
    /// bytes are probably there already; if not, the kernel waits before it looks.
    pub fn recv_chunk(&mut self, token: u64, fd: &Fd, len_max: usize, expect: Expect) {
        assert!(len_max > 0, "a receive of no bytes could not be told from EOF");
        let len = len_max.min(RECV_BYTES_MAX) as u32;
        let entry = opcode::Recv::new(types::Fd(fd.raw()), std::ptr::null_mut(), len)
            .buf_group(CHUNK_GROUP)
            .ioprio(match expect {
                Expect::Now => 0,
                Expect::Later => RECVSEND_POLL_FIRST,
            })
            .build()
            .flags(squeue::Flags::BUFFER_SELECT);
        self.queue(token, Op::RecvChunk { _fd: fd.clone() }, entry);
    }

    /// Receives into `len` bytes of `buffer` from `at`. `whole`: ends only when all have
    /// arrived, at EOF, or with an error.
    ///
    /// # Panics
    /// For a range outside the buffer.
    pub fn recv_into(
        &mut self,
        token: u64,
        fd: &Fd,
        mut buffer: BufferMut,
        at: usize,
        len: usize,
        whole: bool,
    ) {
        assert!(len > 0, "a receive of no bytes could not be told from EOF");
        let pointer = buffer.pointer(at, len);
        let flags = if whole { libc::MSG_WAITALL } else { 0 };
        let entry = opcode::Recv::new(types::Fd(fd.raw()), pointer, len as u32).flags(flags).build();
        self.queue(token, Op::RecvInto { _fd: fd.clone(), buffer }, entry);
    }

    /// Sends what remains of `message`; may send a part.
    pub fn send(&mut self, token: u64, fd: &Fd, mut message: Box<Message>) {
        let header = message.prepare();
        let entry = opcode::SendMsg::new(types::Fd(fd.raw()), header.as_ptr())
            .flags(libc::MSG_NOSIGNAL as u32)
            .build();
        self.queue(token, Op::Send { _fd: fd.clone(), message }, entry);
    }

    /// Reads `len` bytes at `offset` of a file into `buffer` from `at`; may read a part.
    ///
    /// # Panics
    /// For a range outside the buffer.
    pub fn read_at(
        &mut self,
        token: u64,
        fd: &Fd,
        mut buffer: BufferMut,
        at: usize,
        len: usize,
        offset: u64,
    ) {
        let pointer = buffer.pointer(at, len);
        let entry = opcode::Read::new(types::Fd(fd.raw()), pointer, len as u32).offset(offset).build();
        self.queue(token, Op::Read { _fd: fd.clone(), buffer }, entry);
    }

    /// Writes what remains of `message` at `offset` of a file; may write a part.
    /// `durable`: on stable storage before it completes (RWF_DSYNC).
    pub fn write_at(&mut self, token: u64, fd: &Fd, message: Box<Message>, offset: u64, durable: bool) {
        let (list, count) = message.parts();
        let flags = if durable { libc::RWF_DSYNC } else { 0 };
        let entry = opcode::Writev::new(types::Fd(fd.raw()), list, count as u32)
            .offset(offset)
            .rw_flags(flags)
            .build();
        self.queue(token, Op::Write { _fd: fd.clone(), message }, entry);
    }

    /// Makes all data of a file durable (fdatasync).
    pub fn sync_data(&mut self, token: u64, fd: &Fd) {
        let entry = opcode::Fsync::new(types::Fd(fd.raw())).flags(FsyncFlags::DATASYNC).build();
        self.queue(token, Op::Plain { _fd: fd.clone() }, entry);
    }

    /// fallocate(2) with `mode`, see [`crate::file`] for the modes.
    pub fn fallocate(&mut self, token: u64, fd: &Fd, mode: i32, offset: u64, len: u64) {
        let entry = opcode::Fallocate::new(types::Fd(fd.raw()), len).offset(offset).mode(mode).build();
        self.queue(token, Op::Plain { _fd: fd.clone() }, entry);
    }

    /// Completes when the waker that belongs to `source` wakes.
    pub fn read_event(&mut self, token: u64, source: &crate::wake::WakeSource) {
        let mut value = Box::new([0_u8; 8]);
        let fd = source.fd().clone();
        let entry = opcode::Read::new(types::Fd(fd.raw()), value.as_mut_ptr(), 8).build();
        self.queue(token, Op::Event { _fd: fd, _value: value }, entry);
    }

    /// Completes with ETIME after `after_ns` of CLOCK_BOOTTIME. Cheaper than a time limit on
    /// every wait, which the system would program and take back each time.
    pub fn alarm(&mut self, token: u64, after_ns: u64) {
        let mut after = self.spare.pop().unwrap_or_default();
        *after = timespec(after_ns);
        let entry = opcode::Timeout::new(&raw const *after).flags(TimeoutFlags::BOOTTIME).build();
        self.queue(token, Op::Alarm { after }, entry);
    }

    /// Cancels every operation on `fd`; each ends with its own completion (ECANCELED,
    /// or what it had achieved).
    pub fn cancel(&mut self, fd: &Fd) {
        let builder = CancelBuilder::fd(types::Fd(fd.raw())).all();
        let entry = opcode::AsyncCancel2::new(builder).build();
        self.queue(0, Op::Cancel { _fd: Some(fd.clone()) }, entry);
    }

    /// Gives a connection up so that nothing of it can reach the peer later (rule W1):
    /// connect(AF_UNSPEC) resets it at once, also with operations armed (a close would
    /// send nothing until they end), then they are cancelled. The descriptor closes with
    /// the last clone of `fd`.
    pub fn abort(&mut self, fd: &Fd) {
        crate::socket::reset(fd);
        self.cancel(fd);
    }

    fn queue(&mut self, token: u64, op: Op, entry: squeue::Entry) {
        let entry = entry.user_data(self.ops.insert(token, op));
        loop {
            // SAFETY: everything the entry points to (buffer, message, address, event
            // value) is owned by `op`, which stays in `self.ops` until its completion;
            // `Drop` waits for all of them. The descriptor is held by `op` as well.
            let pushed = unsafe { self.uring.submission().push(&entry) };
            if pushed.is_ok() {
                return;
            }
            // The queue is full: hand over what is there. Short of room for completions
            // or interrupted, the kernel takes them after some were taken in.
            if let Err(error) = self.uring.submit() {
                let passes = matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EINTR | libc::EAGAIN));
                assert!(passes, "io_uring takes no operations any more: {error}");
            }
            self.collect();
        }
    }

    /// Hands everything queued to the kernel and waits as told. Returns early when a
    /// signal arrives. Take the results with [`Ring::next_completion`].
    pub fn submit_and_wait(&mut self, wait: Wait) -> io::Result<()> {
        let result = if wait.want == 0 {
            self.uring.submit()
        } else {
            let timeout = wait.timeout_ns.map(timespec);
            let mut args = SubmitArgs::new();
            if let Some(timeout) = timeout.as_ref() {
                args = args.timespec(timeout);
            }
            self.uring.submitter().submit_with_args(wait.want as usize, &args)
        };
        self.collect();
        match result {
            Ok(_) => Ok(()),
            Err(error) => match error.raw_os_error() {
                // The time is over; a signal; completions must be taken in first.
                Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
                _ => Err(error),
            },
        }
    }

    /// Whether something has happened that the next submission would bring; asks memory
    /// and not the system.
    pub fn has_news(&mut self) -> bool {
        self.uring.submission().taskrun() || !self.uring.completion().is_empty()
    }

    fn collect(&mut self) {
        // Handed out from the back, so new ones (later) go in front: rare, because a
        // turn empties the list before it waits.
        let start = self.ready.len();
        self.ready.extend(self.uring.completion());
        if start == 0 {
            self.ready.reverse();
        } else {
            let new = self.ready.len() - start;
            self.ready[start..].reverse();
            self.ready.rotate_right(new);
        }
    }

    /// The next result, in the order the kernel produced them.
    pub fn next_completion(&mut self) -> Option<Completion> {
        loop {
            let entry = self.ready.pop()?;
            if let Some(completion) = self.complete(&entry) {
                return Some(completion);
            }
        }
    }

    /// Completions taken from the kernel and not yet handed out.
    pub fn ready(&self) -> usize {
        self.ready.len()
    }

    fn complete(&mut self, entry: &cqueue::Entry) -> Option<Completion> {
        let value = entry.result();
        let result = u32::try_from(value).map_err(|_| Errno::from_raw(-value));
        let more = cqueue::more(entry.flags());
        if more {
            // Only accepts repeat.
            let resource = accepted(result);
            let token = self.ops.token(entry.user_data());
            return Some(Completion { token, result, left_bytes: false, more, resource });
        }
        let (token, op) = self.ops.remove(entry.user_data());
        let resource = match op {
            Op::Accept { .. } => accepted(result),
            Op::RecvChunk { .. } => self.chunk(entry, result),
            Op::RecvInto { buffer, .. } | Op::Read { buffer, .. } => Resource::Buffer(buffer),
            Op::Send { message, .. } | Op::Write { message, .. } => Resource::Message(message),
            Op::Connect { .. } | Op::Plain { .. } | Op::Event { .. } => Resource::None,
            Op::Alarm { after } => {
                self.spare.push(after);
                Resource::None
            }
            Op::Cancel { .. } => return None,
        };
        let left_bytes = cqueue::sock_nonempty(entry.flags());
        Some(Completion { token, result, left_bytes, more, resource })
    }

    fn chunk(&self, entry: &cqueue::Entry, result: Result<u32, Errno>) -> Resource {
        let Some(index) = cqueue::buffer_select(entry.flags()) else {
            assert!(!matches!(result, Ok(1..)), "bytes were received and no chunk was named");
            return Resource::None;
        };
        let chunk = self.chunks.take(index, result.unwrap_or(0) as usize);
        // A chunk may come with EOF or an error; dropping it here gives it back.
        if chunk.is_empty() { Resource::None } else { Resource::Chunk(chunk) }
    }
}

/// The connection an accept produced.
fn accepted(result: Result<u32, Errno>) -> Resource {
    match result {
        // SAFETY: the kernel just made this descriptor for us; nobody else knows it.
        Ok(raw) => Resource::Accepted(Fd::new(unsafe { std::os::fd::FromRawFd::from_raw_fd(raw as i32) })),
        Err(_) => Resource::None,
    }
}

fn timespec(ns: u64) -> Timespec {
    Timespec::new().sec(ns / 1_000_000_000).nsec((ns % 1_000_000_000) as u32)
}

impl Drop for Ring {
    fn drop(&mut self) {
        let entry = opcode::AsyncCancel2::new(CancelBuilder::any().all()).build();
        self.queue(0, Op::Cancel { _fd: None }, entry);
        let mut rounds = 0;
        let mut broken = false;
        while self.ops.live() > 0 && !broken {
            while self.next_completion().is_some() {}
            if self.ops.live() > 0 {
                let wait = Wait { want: 1, timeout_ns: Some(DROP_WAIT_NS) };
                let before = self.ops.live();
                broken = self.submit_and_wait(wait).is_err();
                rounds = if self.ready.is_empty() && self.ops.live() == before { rounds + 1 } else { 0 };
                broken |= rounds == DROP_ROUNDS_MAX;
            }
        }
        // SAFETY: dropped here only; closing the ring ends the kernel's use of the chunks,
        // which are fields dropped after this.
        unsafe { ManuallyDrop::drop(&mut self.uring) };
        if broken {
            // The kernel refused to wait, or a disk hangs: what is still in flight may be
            // written to later, so its memory must never be reused.
            std::mem::forget(std::mem::take(&mut self.ops));
        }
    }
}
