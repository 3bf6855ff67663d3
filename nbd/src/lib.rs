// SPDX-License-Identifier: MIT OR Apache-2.0
//! NBD without I/O: wire format, both handshakes, the transmission phase, URIs.
//!
//! Bytes come in as slices, decisions go out as values; the caller owns every socket, clock and buffer of
//! data. The two handshakes are state machines ([`server::Handshake`], [`client::Handshake`]) of the same
//! shape: `receive` takes bytes, `output` holds bytes to send, `next_step` says what is missing. The
//! transmission phase has no state machine of its own: [`RequestHeader`] and [`client::ReplyHeader`] are
//! decoded one at a time from the front of a buffer, [`server::check_request`] judges a request against the
//! export, [`server::ReplyEncoder`] writes reply headers in front of data that this crate never sees, and
//! [`client::ReadAssembly`] and [`client::StatusAssembly`] judge the chunks of one reply. So the bytes of a
//! READ or WRITE can go from socket to socket without passing through here.
//!
//! The rules are those of the NBD protocol document (master of 2026-05, and its `extension-ext-header` branch
//! for extended headers) and of the NBD URI specification. `docs/nbd-support.md` is the ledger of what is
//! supported and which test says so. Every limit is in [`limits`] and is checked before memory is taken.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod chunk;
pub mod client;
mod command;
mod decoded;
mod errno;
mod export;
mod extent;
mod flags;
pub mod gate;
pub mod limits;
mod mode;
mod option;
mod request;
pub mod server;
mod text;
mod tls;
pub mod uri;
mod wire;

pub use chunk::ChunkType;
pub use command::{Command, CommandFlags};
pub use decoded::{Decoded, WireViolation};
pub use errno::Errno;
pub use export::{BlockSizes, is_valid_name};
pub use extent::Extent;
pub use flags::TransmissionFlags;
pub use mode::{EnteredBy, ReplyMode};
pub use option::{OptionCode, OptionError};
pub use request::{REQUEST_HEADER_MAX, RequestHeader, encode_disconnect, encode_request};
pub use tls::TlsMode;
