// SPDX-License-Identifier: MIT OR Apache-2.0
//! The data plane behind the control plane's trait.
//!
//! Joining it consumes it, while the API may still ask for status: it is taken
//! out first, and whoever asks then is told that the node is stopping.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use controlplane::CommandFailed;
use dataplane::{DataPlane, ReportSink, StartError};
use program::{ControlCommand, DeviceExplanation, DeviceStatus, Program};

use crate::failure::{Failure, Status};

/// A running data plane.
pub(crate) struct Plane {
    inner: RwLock<Option<DataPlane>>,
}

impl Plane {
    /// Starts `program`; takes all listening addresses.
    pub(crate) fn start(program: Arc<Program>, reports: ReportSink) -> Result<Arc<Self>, Failure> {
        let inner = DataPlane::start(program, reports).map_err(|error| failure(&error))?;
        Ok(Arc::new(Self { inner: RwLock::new(Some(inner)) }))
    }

    /// Lets requests in flight finish for up to `bound`, then ends; blocks that long.
    pub(crate) fn finish(&self, bound: Duration) {
        let nanos = u64::try_from(bound.as_nanos()).unwrap_or(u64::MAX);
        if let Some(inner) = self.read().as_ref() {
            inner.shutdown(nanos);
        }
        let taken = self.inner.write().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(inner) = taken {
            inner.join();
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Option<DataPlane>> {
        // Nothing is half done under this lock.
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl controlplane::DataPlane for Plane {
    fn send(&self, command: ControlCommand) -> Result<(), CommandFailed> {
        match self.read().as_ref() {
            Some(inner) => inner.send(command).map_err(|error| CommandFailed(error.to_string())),
            None => Err(CommandFailed("the node is stopping".to_owned())),
        }
    }

    fn explain(&self, device: &str, timeout: Duration) -> Option<DeviceExplanation> {
        self.read().as_ref()?.explain(device, timeout)
    }

    fn snapshot(&self, timeout: Duration) -> Vec<DeviceStatus> {
        self.read().as_ref().map(|inner| inner.snapshot(timeout)).unwrap_or_default()
    }
}

fn failure(error: &StartError) -> Failure {
    let status = match error {
        StartError::Listen(_) => Status::Unavailable,
        StartError::Memory { .. } => Status::Configuration,
        StartError::NoReactors => Status::Internal,
        StartError::Ring(_) | StartError::Gate(_) | StartError::System(_) => Status::System,
    };
    Failure::new(status, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `check` must know what the data plane will say about memory.
    #[test]
    fn the_memory_a_reactor_needs_is_the_one_in_the_program() {
        let environment = controlplane::config::Environment::of_this_machine();
        let mut program = crate::template::empty_program(&environment);
        program.node.memory_bytes = 0;
        program.node.reactors = 3;
        match DataPlane::start(Arc::new(program), Box::new(|_| {})) {
            Err(StartError::Memory { needed_bytes, .. }) => {
                assert_eq!(needed_bytes, 3 * program::REACTOR_MEMORY_BYTES_MIN);
            }
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("it started without memory"),
        }
    }
}
