// SPDX-License-Identifier: MIT OR Apache-2.0
//! A storage server that misbehaves on demand and remembers every request.
//!
//! What the real servers of [`crate::servers`] cannot do: cut a frame in the middle, hold
//! replies back, answer with errors for a while, lie about what they can. It serves one
//! file, so a well-behaved server can serve the same data through another path. Built
//! on `tokio-uring`: speed is no point here, many small concurrent waits are.

mod faults;
mod handshake;
mod reader;
mod record;
mod server;
mod session;

pub use faults::{Faults, Garble};
pub use record::{Record, RequestEntry};
pub use server::{Options, Storage};
