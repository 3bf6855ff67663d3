// SPDX-License-Identifier: MIT OR Apache-2.0
//! The control plane of a node: configuration to program, status, events, API.
//!
//! It knows the data plane as a trait ([`DataPlane`]) and as values (`program`):
//! programs go down, reports and status come up. All services run on one thread
//! with a current-thread runtime. Nothing here is on the I/O path, and the data
//! plane goes on serving whatever happens here.
//!
//! ```text
//! configuration file --config--> Program --DataPlane::send--> data plane
//! state_dir <--recorder-- inbox <--ReportSink-- data plane
//! API <-- events, snapshots
//! ```
#![forbid(unsafe_code)]

pub mod api;
pub mod clock;
pub mod config;
pub mod explain;
mod gate_key;
pub mod limits;
pub mod log;
mod node_thread;
mod plane;
pub mod services;
pub mod state;

pub use gate_key::read_gate_key;
pub use node_thread::{ControlPlane, Startup};
pub use plane::{CommandFailed, DataPlane};
