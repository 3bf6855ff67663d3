// SPDX-License-Identifier: MIT OR Apache-2.0
//! Damage outside the fault model. The oracle must find each of it: a suite that
//! stays green under sabotage proves nothing.

/// What is done; nothing by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Sabotage {
    /// Nothing.
    #[default]
    None,
    /// A server forgets one sector of a write that it has answered and flushed.
    LostWrite,
    /// A server executes what it had of a lost connection after `quiesce`, in the default mode.
    LateGhost,
    /// The driver closes in the ordinary way where it must reset (W1): our kernel sends
    /// what is queued when the link lets it.
    PlainClose,
    /// A read returns the content of the sector beside.
    WrongSector,
    /// A server answers FLUSH at once and does nothing.
    LazyFlush,
    /// A gate says that it has finished a session, and has not.
    FalseKill,
}
