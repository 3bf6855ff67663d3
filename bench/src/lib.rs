// SPDX-License-Identifier: MIT OR Apache-2.0
//! Load generator, peers side by side, failover timing, scale.
//!
//! Everything here sees Holdfast from outside: as a program that is started with a configuration file and spoken to over
//! NBD and HTTP. Of the product only the `nbd` crate is used, for the handshake and the wire format. What is measured and
//! how is in `docs/benchmarks.md`; every measurement also runs in a tiny mode under `cargo test`, so that none can rot.

#![forbid(unsafe_code)]

pub mod compare;
pub mod degrade;
pub mod failover;
pub mod load;
pub mod machine;
pub mod peers;
pub mod place;
pub mod scale;
mod silence;
pub mod stall;
pub mod stats;
pub mod units;
pub mod usage;
