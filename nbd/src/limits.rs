// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every bound of this crate, with its unit last and its reason.
//!
//! A peer can make us hold at most what is written here. A bound that the protocol document sets is marked
//! (spec); the others are ours, chosen from what other servers do and from the attacks that were published
//! against them.

/// Longest string of the protocol: names, descriptions, contexts, error texts, in bytes (spec).
pub const STRING_MAX_BYTES: usize = 4096;

/// Longest option payload a client may send us, in bytes. Anything longer closes the connection: no option
/// needs more, and skipping 4 GiB is a denial of service (CVE-2017-15118/15119, CVE-2022-26495).
pub const OPTION_MAX_BYTES: u32 = 64 * 1024;

/// Options of one connection. One more closes it. Real clients send fewer than ten; nbdkit stops at 32.
pub const OPTIONS_MAX: u32 = 64;

/// Metadata queries in one option. More are answered `ERR_TOO_BIG`.
pub const META_QUERIES_MAX: u32 = 64;

/// Unsent handshake output, in bytes, at which the server role consumes no more options until it is drained.
pub const OUTPUT_PAUSE_BYTES: usize = 64 * 1024;

/// Bytes of one LIST answer. A longer one is answered `ERR_TOO_BIG`.
pub const LIST_MAX_BYTES: usize = 256 * 1024;

/// Longest option reply a server may send us, in bytes.
pub const OPTION_REPLY_MAX_BYTES: u32 = 64 * 1024;

/// Option replies of one connection that the client role reads (a flood of INFO hangs other clients for
/// ever).
pub const OPTION_REPLIES_MAX: u32 = 256;

/// Bytes of all option replies of one connection that the client role reads.
pub const HANDSHAKE_MAX_BYTES: u64 = 1024 * 1024;

/// Metadata context names kept from one listing.
pub const LISTED_CONTEXTS_MAX: usize = 64;

/// Text of a peer that we repeat in errors and logs, in bytes.
pub const PEER_TEXT_MAX_BYTES: usize = 256;

/// Largest payload of one request that we advertise, send, or accept, in bytes. (spec): every peer must take
/// this much.
pub const PAYLOAD_MAX_BYTES: u32 = 32 * 1024 * 1024;

/// Payload of a refused request that is read and thrown away so that the connection can go on, in bytes. A
/// longer one is answered and the connection closed. No memory is needed to discard.
pub const DISCARD_MAX_BYTES: u64 = 64 * 1024 * 1024;

/// Largest minimum block size, in bytes (spec).
pub const BLOCK_MIN_MAX_BYTES: u32 = 64 * 1024;

/// Largest export, in bytes: offsets must fit the signed offsets of the system (CVE-2023-5215).
pub const EXPORT_MAX_BYTES: u64 = i64::MAX as u64;

/// Extents in one status chunk that we send. The document allows 2^20; a reply may always stop early.
pub const EXTENTS_SENT_MAX: usize = 64 * 1024;

/// Extents in one status chunk that we read (spec).
pub const EXTENTS_READ_MAX: u64 = 1 << 20;

/// Extents of one reply that we keep; the rest of the reply is read and dropped, which shortens the answer.
pub const EXTENTS_KEPT_MAX: usize = 64 * 1024;

/// Pieces of one READ that arrive out of order and must be remembered. In order they merge, so one is the
/// rule.
pub const READ_PIECES_MAX: usize = 1024;

/// Error chunks of one reply.
pub const ERROR_CHUNKS_MAX: u32 = 64;

/// Payload of one error chunk, in bytes: the fixed fields, the longest text, and room for fields we do not
/// know.
pub const ERROR_CHUNK_MAX_BYTES: u64 = 8 * 1024;

const _: () =
    assert!(OPTION_MAX_BYTES as usize > 4 + STRING_MAX_BYTES + 2, "a GO with the longest name must fit");
const _: () = assert!(LIST_MAX_BYTES > 24 + STRING_MAX_BYTES);
const _: () = assert!(DISCARD_MAX_BYTES >= PAYLOAD_MAX_BYTES as u64);
const _: () = assert!(ERROR_CHUNK_MAX_BYTES >= (14 + STRING_MAX_BYTES) as u64);
const _: () = assert!(EXTENTS_SENT_MAX as u64 <= EXTENTS_READ_MAX);
