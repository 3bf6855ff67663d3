// SPDX-License-Identifier: MIT OR Apache-2.0
//! The services of a node: events, recording, status, reload, path commands.
//!
//! They run on one thread with a current-thread runtime, apart from the data
//! plane's threads. Nothing on the I/O path waits for anything here.

mod collector;
mod events;
mod inbox;
mod node;
mod recorder;
mod reload;
mod snapshots;

pub use events::{DECISION, Event, EventPage, log_report};
pub use inbox::{Inbox, ReportSink, reports};
pub use reload::{ConfigFile, ReloadError, Reloaded, first_program, give_epoch};

pub(crate) use collector::collect;
pub(crate) use node::{Node, NodeParts, PathCommandError};
pub(crate) use snapshots::{Sample, Snapshot, policy_word};
