// SPDX-License-Identifier: MIT OR Apache-2.0
//! The driver: reactors, host sessions, lanes, local storage.
//!
//! It moves bytes and decides nothing: what is sent where, held or answered is the
//! engine's business (`ARCHITECTURE.md`, "Contract between engine and driver").
//!
//! ```text
//! plane      start, commands, snapshots, shutdown     (any thread)
//! reactor/   one thread: turn, events and actions, reload, stop
//! host/      listeners, handshakes, sessions          (requests in, replies out)
//! lane/      connections to storage, local storage    (requests out, replies in)
//! outbox     gathered sends      budget   what may be accepted
//! directory  who owns what       mailbox  between threads
//! gate/      the fence in front of a device, its register
//! ```
//!
//! There is no lock and no atomic on the path of a request (but one of a write at a gate), and in the steady state no
//! allocation.
#![forbid(unsafe_code)]

mod budget;
mod clock;
mod device;
mod directory;
mod gate;
mod host;
mod jobs;
mod lane;
mod limits;
mod log;
mod mailbox;
mod node;
mod outbox;
mod plane;
mod reactor;
mod reports;
mod requests;
mod slab;
mod spin;
mod start;
mod timers;
mod tokens;

pub use gate::reset_epoch;
pub use plane::DataPlane;
pub use reports::ReportSink;
pub use start::{CommandError, ListenError, StartError};
