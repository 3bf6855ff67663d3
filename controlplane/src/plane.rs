// SPDX-License-Identifier: MIT OR Apache-2.0
//! The data plane as the control plane sees it.
//!
//! The binary implements this over the real one. The control plane does not
//! import the data plane, so neither rebuilds the other, and tests drive the
//! services and the API with a fake.

use std::fmt;
use std::time::Duration;

use program::{ControlCommand, DeviceExplanation, DeviceStatus};

/// Handle to a running data plane.
pub trait DataPlane: Send + Sync {
    /// Hands a command down; returns when it was accepted, not when it was carried out.
    ///
    /// # Errors
    ///
    /// [`CommandFailed`] if it was not accepted.
    fn send(&self, command: ControlCommand) -> Result<(), CommandFailed>;

    /// Why a device and its paths are as they are; `None` if there is no such device or it does
    /// not answer within `timeout`. Blocks at most that long.
    fn explain(&self, device: &str, timeout: Duration) -> Option<DeviceExplanation>;

    /// Status of the devices that answer within `timeout`; blocks at most that long.
    fn snapshot(&self, timeout: Duration) -> Vec<DeviceStatus>;
}

/// The data plane did not accept a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandFailed(pub String);

impl fmt::Display for CommandFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for CommandFailed {}
