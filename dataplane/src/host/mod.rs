// SPDX-License-Identifier: MIT OR Apache-2.0
//! The host side: listeners, handshakes, sessions.
//!
//! ```text
//! listener -> handshake (on the accepting reactor) -> mail -> session (on the owner of its device)
//! ```

pub(crate) mod admission;
pub(crate) mod handshake;
pub(crate) mod inbox;
mod input;
pub(crate) mod listener;
pub(crate) mod lookup;
mod output;
pub(crate) mod session;
mod wind_up;

pub(crate) use output::encode_extents;
