// SPDX-License-Identifier: MIT OR Apache-2.0
//! The built `holdfast` binary: configuration, start, status, events.

mod config;
mod gate;
mod node;
mod status;

pub use config::{Config, Device};
pub use gate::Gate;
pub use node::{Node, binary_path, cli, cli_status, command};
pub use status::{DeviceStatus, Event, PathStatus};
