// SPDX-License-Identifier: MIT OR Apache-2.0
//! The NBD wire, written down a second time.
//!
//! From the protocol document and not from the product's crate: a test that shares the
//! product's constants shares its mistakes. Only what the suites need: fixed newstyle,
//! simple and structured replies, 28-byte requests.

mod claim;
mod client;
mod frame;

pub use claim::{Claim, GateIdentity};
pub use client::{Client, ClientError, Reply};
pub use frame::{OptionReply, Request, go_payload, option_frame};
pub(crate) use frame::{u32_at, u64_at};

/// First eight bytes of a server: "NBDMAGIC".
pub const NBD_MAGIC: u64 = 0x4e42_444d_4147_4943;
/// Before every option, and second in the server's greeting: "IHAVEOPT".
pub const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
/// Before every option reply.
pub const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
/// Before every request.
pub const REQUEST_MAGIC: u32 = 0x2560_9513;
/// Before every simple reply.
pub const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
/// Before every structured reply chunk.
pub const CHUNK_MAGIC: u32 = 0x668e_33ef;

/// Handshake flags of a fixed newstyle server that can leave out the zeroes.
pub const HANDSHAKE_FLAGS: u16 = 3;

/// Options by number.
pub mod option {
    /// Choose an export; no errors possible.
    pub const EXPORT_NAME: u32 = 1;
    /// End the handshake.
    pub const ABORT: u32 = 2;
    /// Name the exports.
    pub const LIST: u32 = 3;
    /// Begin TLS.
    pub const STARTTLS: u32 = 5;
    /// Describe an export.
    pub const INFO: u32 = 6;
    /// Choose an export.
    pub const GO: u32 = 7;
    /// Answer in chunks.
    pub const STRUCTURED_REPLY: u32 = 8;
    /// Name metadata contexts.
    pub const LIST_META_CONTEXT: u32 = 9;
}

/// Option replies by number.
pub mod reply {
    /// Done.
    pub const ACK: u32 = 1;
    /// One export's name.
    pub const SERVER: u32 = 2;
    /// One piece of information.
    pub const INFO: u32 = 3;
    /// One metadata context.
    pub const META_CONTEXT: u32 = 4;
    /// Unknown option.
    pub const ERR_UNSUP: u32 = 0x8000_0001;
    /// Refused by policy.
    pub const ERR_POLICY: u32 = 0x8000_0002;
    /// Malformed option.
    pub const ERR_INVALID: u32 = 0x8000_0003;
    /// No such export.
    pub const ERR_UNKNOWN: u32 = 0x8000_0006;
    /// The server is going away.
    pub const ERR_SHUTDOWN: u32 = 0x8000_0007;
}

/// Commands by number.
pub mod command {
    /// Read.
    pub const READ: u16 = 0;
    /// Write; a payload follows.
    pub const WRITE: u16 = 1;
    /// End the session.
    pub const DISC: u16 = 2;
    /// Make answered writes stable.
    pub const FLUSH: u16 = 3;
    /// Discard.
    pub const TRIM: u16 = 4;
    /// Prefetch hint.
    pub const CACHE: u16 = 5;
    /// Write zeroes without a payload.
    pub const WRITE_ZEROES: u16 = 6;
    /// Ask for extents.
    pub const BLOCK_STATUS: u16 = 7;
}

/// Transmission flags.
pub mod flags {
    /// Always set.
    pub const HAS_FLAGS: u16 = 1 << 0;
    /// No writes.
    pub const READ_ONLY: u16 = 1 << 1;
    /// FLUSH works.
    pub const FLUSH: u16 = 1 << 2;
    /// FUA works.
    pub const FUA: u16 = 1 << 3;
    /// TRIM works.
    pub const TRIM: u16 = 1 << 5;
    /// WRITE_ZEROES works.
    pub const WRITE_ZEROES: u16 = 1 << 6;
    /// One cache for all connections.
    pub const MULTI_CONN: u16 = 1 << 8;
    /// CACHE works.
    pub const CACHE: u16 = 1 << 10;
}

/// Command flag: reply only when stable.
pub const COMMAND_FUA: u16 = 1;

/// NBD error numbers.
pub mod errno {
    /// Not permitted.
    pub const EPERM: u32 = 1;
    /// Input or output failed.
    pub const EIO: u32 = 5;
    /// Malformed request.
    pub const EINVAL: u32 = 22;
    /// No room.
    pub const ENOSPC: u32 = 28;
    /// The server is going away.
    pub const ESHUTDOWN: u32 = 108;
}
