// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an operator or the control plane asks of a running data plane.

use alloc::string::String;

use crate::{Nanos, Program};

/// One message from the control plane to the data plane.
#[derive(Clone, Debug)]
pub enum ControlCommand {
    /// Run this program from now on; sessions of unchanged devices stay.
    Apply(alloc::sync::Arc<Program>),
    /// Act on one path.
    Path {
        /// Device name.
        device: String,
        /// Path name.
        path: String,
        /// What to do.
        command: PathCommand,
    },
    /// Act on a device as a whole.
    Device {
        /// Device name.
        device: String,
        /// What to do.
        command: DeviceCommand,
    },
    /// Finish what is in flight, close host sessions at a frame boundary, stop.
    Shutdown {
        /// Give up waiting after this long.
        bound: Nanos,
    },
}

/// What an operator does to a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathCommand {
    /// Take it out at once, as if it had failed; stays out until reinstated.
    Fail,
    /// Undo `Fail` or `Drain`; clears back-off.
    Reinstate,
    /// Issue nothing new on it, let what is in flight finish; stays out until reinstated.
    Drain,
}

/// What an operator does to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceCommand {
    /// End the hold now: what waits for a path fails with EIO, and so does what comes, until one is back.
    FailNow,
    /// The loss of acknowledged writes is known: FLUSH and FUA work again (rule F9).
    ClearLoss,
}
