// SPDX-License-Identifier: MIT OR Apache-2.0
//! Harness of the suites that drive the built `holdfast` binary; holds no product code.
//!
//! A test owns everything it uses: a directory ([`TestDir`]), a loopback address
//! ([`loopback`]), processes ([`Process`]), network namespaces ([`Fabric`]). Each of
//! them ends on drop, by its own id, so tests neither see nor disturb each other, and a
//! failing test prints the logs of what it ran. Nothing here waits for time to pass:
//! [`wait::until`] waits for a thing to become true, with a bound that only turns a hang
//! into a failure.
//!
//! A missing tool, a missing binary or missing rights are failures, never skips:
//! `tests/run` installs what is needed.

#![forbid(unsafe_code)]

mod dir;
mod fabric;
mod fio;
mod http;
mod json;
mod load;
mod namespace;
mod net;
mod process;
mod relay;
#[cfg(test)]
mod self_test;
mod sockets;
mod stamp;
mod tools;

pub mod holdfast;
pub mod servers;
pub mod storage;
pub mod wait;
pub mod wire;

pub use dir::TestDir;
pub use fabric::{Fabric, LinkFault};
pub use fio::{Fio, FioOptions, FioReport};
pub use http::{Http, HttpAnswer};
pub use json::Json;
pub use load::{Load, LoadOptions, LoadReport};
pub use namespace::Namespace;
pub use net::{Endpoint, loopback};
pub use process::{Command, Exit, Process};
pub use relay::{Cut, Relay};
pub use sockets::{Queues, client_queues, server_queues};
pub use stamp::Stamp;
pub use tools::{Output, run, run_status};
