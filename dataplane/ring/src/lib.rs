// SPDX-License-Identifier: MIT OR Apache-2.0
//! io_uring and the few system calls: the only unsafe code.
//!
//! *Ownership is the safety argument.* Whatever the kernel may still read or write
//! (a buffer, a gather list, a socket address, a descriptor) is moved into the ring
//! with the operation and comes back with its [`Completion`]. So no caller can free,
//! change or close what an operation in flight refers to, and everything above this
//! crate forbids unsafe code. Dropping the [`Ring`] cancels what is in flight and
//! waits for it (memory of an operation that never ends is given up, not freed).
//!
//! The pieces: [`Ring`] (submission, waiting, completions), [`Pool`] (request
//! buffers: one owner while they are written, shared and immutable after
//! [`BufferMut::freeze`]), [`Chunk`] (receive memory that an idle connection does not
//! hold), [`Message`] (one gathered send), [`Fd`] (a descriptor that closes when its
//! last operation has ended), and the modules [`socket`], [`listen`], [`mod@file`],
//! [`clock`], [`cpu`], [`random`], [`mod@shared`] and [`wake`] with the plain system calls.
//!
//! Not `tokio-uring`: it polls the ring through epoll, which rules out deferred task
//! work (10 to 20 % of CPU), and has no cancellation by descriptor, which rule W1 needs.
//!
//! Everything here belongs to one thread; nothing is `Send` but [`wake::Waker`] and [`shared::SharedWords`].

mod buffer;
mod chunk;
pub mod clock;
pub mod cpu;
mod error;
mod fd;
pub mod file;
pub mod listen;
mod message;
mod op;
mod pool;
pub mod random;
mod ring;
mod setup;
pub mod shared;
mod slab;
pub mod socket;
pub mod wake;

pub use buffer::{Buffer, BufferMut};
pub use chunk::Chunk;
pub use error::RingError;
pub use fd::Fd;
pub use message::{IOVECS_MAX, Message};
pub use nix::errno::Errno;
pub use op::{Completion, Resource};
pub use pool::{CLASS_BYTES_MAX, CLASS_BYTES_MIN, Pool, class_bytes};
pub use ring::{Expect, Ring, Wait};
pub use setup::{Features, RingConfig};
