// SPDX-License-Identifier: MIT OR Apache-2.0
//! The gate: the fence in front of a device (semantics 2.4).
//!
//! ```text
//! host handshake           owner of the device              helper thread
//! GO vol0;e=7;m=m1;..  ->  claims   one at a time     ->    register   judge, write, sync, publish
//!                          guard    judge sessions    <-
//!                          cut what is ended, wait until nothing of it is in execution, here and elsewhere
//! admission, or why    <-
//! ```
//!
//! Within this process a session is finished when it has left the session table: it leaves only when every
//! request it had was answered, and on storage of this kernel an answer is the end of the execution. For other
//! processes of the same volume there is the live table (`live`), whose header has the argument; that is why
//! each request that changes data goes through [`guard::Guard`] right before it is submitted, and not where it
//! was read from the socket.
//!
//! Lanes to gates (the client role) are in `lane::claim`.

pub(crate) mod auth;
mod claims;
mod dispatch;
pub(crate) mod guard;
mod live;
mod record;
pub(crate) mod register;

use std::io;
use std::path::Path;
use std::sync::Arc;

use nbd::gate::{Authentication, Identity, RegisterWriters};
use policies::fence::{Ended, Writers};
use program::FenceProgram;

pub(crate) use claims::{ClaimMail, ClaimRefused};
pub(crate) use dispatch::Passage;
use register::Register;

/// One volume's gate, shared by the reactor that shakes hands and the one that owns the device.
pub(crate) struct Gate {
    pub(crate) register: Register,
    pub(crate) fence: FenceProgram,
}

impl Gate {
    pub(crate) fn open(fence: &FenceProgram) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self { register: Register::open(fence)?, fence: fence.clone() }))
    }

    /// What a client is told on a connection with this challenge.
    pub(crate) fn identity(&self, challenge: u128, with_key: bool) -> Identity {
        let (epoch, holder) = self.register.epoch_and_holder();
        Identity {
            volume: self.register.volume,
            nonce: self.register.nonce,
            challenge,
            cache_generation: self.register.cache_generation,
            epoch,
            writers: match self.register.writers() {
                Writers::One => RegisterWriters::One,
                Writers::Many => RegisterWriters::Many,
            },
            authentication: if with_key { Authentication::Key } else { Authentication::Local },
            holder,
        }
    }
}

/// What a session was admitted with.
#[derive(Clone, Debug)]
pub(crate) struct Claimed {
    pub(crate) session: u128,
    pub(crate) member: String,
    /// Its index in the register.
    pub(crate) index: usize,
    pub(crate) epoch: u64,
    /// Kills counted when it was last judged.
    pub(crate) kills: u64,
    /// Nothing more of it is executed or answered.
    pub(crate) ended: Option<Ended>,
}

/// Sets the epoch of a register and forgets its members: the operator's way out. Returns the epoch before.
///
/// # Errors
///
/// When a gate of the volume runs and `force` is not set, or the register cannot be used.
pub fn reset_epoch(register: &Path, epoch: u64, force: bool) -> io::Result<u64> {
    Register::reset(register, epoch, force)
}
