// SPDX-License-Identifier: MIT OR Apache-2.0
//! The client role: what a storage server sees of us.
//!
//! [`Handshake`] negotiates one connection. After it requests are written with
//! [`encode_request`](crate::encode_request), and replies are read in three steps, so that data can go
//! straight to where it belongs:
//!
//! 1. [`ReplyHeader::decode`] finds a header. Its cookie says whose reply it is; a cookie that nobody waits
//!    for (or waited for: a request that was given up may still be answered) means that the stream is out of
//!    step, and the connection is closed.
//! 2. A simple reply is a whole answer, except that the data of a successful READ follows. A chunk has
//!    [`inline_bytes`](ChunkHeader::inline_bytes) that the request's assembly must see, with `accept`.
//! 3. The assembly says where the rest of the chunk belongs: for READ into which part of the buffer, for
//!    BLOCK_STATUS back into `feed`. When it has an `outcome`, and that rest has arrived, the request is
//!    over.
//!
//! Every violation ends the connection: behind it nothing can be trusted. qemu's client takes overlapping and
//! missing data for success, libnbd's an export without a size; these assemblies take neither.

mod config;
mod error;
mod error_chunk;
mod handshake;
mod plain_reply;
mod read_assembly;
mod reply_header;
mod status_assembly;
mod violation;

pub use config::{ClientConfig, Negotiated, Step};
pub use error::HandshakeError;
pub use error_chunk::ErrorChunk;
pub use handshake::Handshake;
pub use plain_reply::PlainReply;
pub use read_assembly::{ReadAssembly, ReadPiece};
pub use reply_header::{CHUNK_HEADER_MAX, ChunkHeader, ReplyHeader};
pub use status_assembly::StatusAssembly;
pub use violation::ReplyViolation;
