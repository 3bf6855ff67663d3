// SPDX-License-Identifier: MIT OR Apache-2.0
//! The dimensions of the ghost matrix, and what its model says of each cell.

use std::fmt;

use tests_support::Stamp;
use tests_support::wire::{COMMAND_FUA, command};

/// Where A hides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stall {
    /// Acknowledged by the server's kernel, not read by the server: it is stopped.
    ReceiveQueue,
    /// Taken by the server, which does not get it done.
    Execution,
    /// In our kernel: the peer's window is closed, or the link carries nothing.
    SendQueue,
    /// In a relay on the way.
    Network,
}

/// How the path fails for Holdfast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The connection is reset.
    Reset,
    /// The connection ends in order.
    Fin,
    /// No packet gets through, either way.
    SilentLink,
    /// Packets are acknowledged, requests are not answered.
    SilentServer,
}

/// Protection of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// `unproven = "assume"`, the default.
    Assume,
    /// `unproven = "hold"`.
    Hold,
    /// A gate on every path.
    Gate,
}

/// Access policy of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Both paths carry I/O in turn.
    ActiveActive,
    /// Path `a` is preferred.
    ActivePassive,
}

/// What A is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    /// A write.
    Write,
    /// A write that must be stable when answered.
    FuaWrite,
    /// WRITE_ZEROES.
    Zeroes,
    /// TRIM.
    Trim,
}

/// What becomes of the stalled copy once it is let loose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// The storage executes it, and nobody hears of it.
    Executed,
    /// The storage executes it, and its reply comes back.
    Answered,
    /// It never reaches the storage.
    Discarded,
}

pub(super) const FAULTS: [Fault; 4] = [Fault::Reset, Fault::Fin, Fault::SilentLink, Fault::SilentServer];
pub(super) const MODES: [Mode; 3] = [Mode::Assume, Mode::Hold, Mode::Gate];
pub(super) const ACCESSES: [Access; 2] = [Access::ActiveActive, Access::ActivePassive];
/// In the order in which each case sends them.
pub(super) const OPERATIONS: [Operation; 4] =
    [Operation::Write, Operation::FuaWrite, Operation::Zeroes, Operation::Trim];

/// One device of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cell {
    pub(super) fault: Fault,
    pub(super) mode: Mode,
    pub(super) access: Access,
}

impl Cell {
    /// All cells of one place to hide.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        FAULTS.into_iter().flat_map(|fault| {
            MODES
                .into_iter()
                .flat_map(move |mode| ACCESSES.into_iter().map(move |access| Self { fault, mode, access }))
        })
    }
}

impl Mode {
    /// What `status` calls it.
    pub(super) fn fence(self) -> &'static str {
        match self {
            Self::Assume => "assume",
            Self::Hold => "hold",
            Self::Gate => "gate",
        }
    }
}

/// Also the device's name.
impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}-{:?}-{:?}", self.fault, self.mode, self.access)
    }
}

impl Operation {
    /// NBD command and its flags.
    pub(super) fn command(self) -> (u16, u16) {
        match self {
            Self::Write => (command::WRITE, 0),
            Self::FuaWrite => (command::WRITE, COMMAND_FUA),
            Self::Zeroes => (command::WRITE_ZEROES, 0),
            Self::Trim => (command::TRIM, 0),
        }
    }

    /// Whether A leaves zeroes instead of data.
    pub(super) fn zeroes(self) -> bool {
        matches!(self, Self::Zeroes | Self::Trim)
    }

    /// What a block holds once `stamp`'s operation was executed.
    pub(super) fn content(self, stamp: Stamp, offset: u64, len: usize) -> Vec<u8> {
        if self.zeroes() { vec![0; len] } else { stamp.fill(offset, len) }
    }
}

/// Whether A is answered, and B goes over it, only when the stalled copy was let loose. A gate puts
/// writes that overlap in order, so the copy sent again waits there for the one in execution.
pub(super) fn gate_orders(stall: Stall, mode: Mode) -> bool {
    mode == Mode::Gate && stall == Stall::Execution
}

/// The model: what becomes of the stalled copy.
pub(super) fn fate(stall: Stall, cell: Cell) -> Fate {
    match (stall, cell.fault) {
        // A gate drops what it had not begun when it finished the session (2.4).
        (Stall::ReceiveQueue | Stall::SendQueue | Stall::Network, _) if cell.mode == Mode::Gate => {
            Fate::Discarded
        }
        // An abort empties the queue (W1).
        (Stall::SendQueue, Fault::Reset | Fault::Fin | Fault::SilentLink) => Fate::Discarded,
        (_, Fault::SilentServer) => Fate::Answered,
        (_, Fault::Reset | Fault::Fin | Fault::SilentLink) => Fate::Executed,
    }
}
