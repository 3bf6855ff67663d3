// SPDX-License-Identifier: MIT OR Apache-2.0
//! Signals as messages.
//!
//! They are blocked in every thread and waited for in one, so no handler runs
//! in the middle of anything and no system call is interrupted.

use std::sync::mpsc::Sender;

use nix::sys::signal::{SigSet, Signal};

use crate::failure::{Failure, Status};

/// What wakes the main thread.
#[derive(Debug)]
pub(crate) enum Wake {
    /// SIGHUP.
    Reload,
    /// SIGTERM or SIGINT.
    Stop(Signal),
    /// The data plane has ended.
    Ended,
}

/// Blocks the signals in this thread and all that it starts later: call it first.
pub(crate) fn block() -> Result<SigSet, Failure> {
    let mut set = SigSet::empty();
    for signal in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM] {
        set.add(signal);
    }
    set.thread_block()
        .map_err(|error| Failure::new(Status::System, format!("cannot block signals: {error}")))?;
    Ok(set)
}

/// Passes blocked signals on as they come.
pub(crate) fn forward(set: SigSet, wake: Sender<Wake>) -> Result<(), Failure> {
    let wait = move || {
        while let Ok(signal) = set.wait() {
            let message = if signal == Signal::SIGHUP { Wake::Reload } else { Wake::Stop(signal) };
            if wake.send(message).is_err() {
                return;
            }
        }
    };
    let thread = std::thread::Builder::new().name("signals".to_owned()).spawn(wait);
    thread
        .map(|_| ())
        .map_err(|error| Failure::new(Status::System, format!("cannot start a thread: {error}")))
}
