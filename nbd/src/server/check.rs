// SPDX-License-Identifier: MIT OR Apache-2.0
//! Judges one request against the export and the session, before anything is done for it.
//!
//! Model: a request is accepted as a small plain value that the engine can trust (inside the export, aligned,
//! not empty, only flags that mean something for it), or refused with an error that leaves the connection in
//! step, or it ends the connection. The payload of a refused WRITE must be read and thrown away before the
//! next header can be found; where that would be more than [`DISCARD_MAX_BYTES`] the error is sent and the
//! connection closed.
//!
//! Choices the protocol document leaves open, and why:
//!
//! * A length of zero is refused with EINVAL for everything but FLUSH and DISC ("unspecified, but SHOULD NOT
//!   disconnect"). nbdkit refuses it too, so no client can rely on it, and the engine never meets an empty
//!   range.
//! * An extended WRITE has a payload even without the PAYLOAD_LEN flag that it must carry: qemu's client
//!   (10.0) leaves the flag out, and a WRITE without data means nothing else.
//! * CACHE is accepted without having been advertised, as existing clients send it; its flags are still
//!   checked.
//! * FLUSH with an offset or a length is refused (both MUST be zero), DISC with them is tolerated (there is
//!   no reply to it).
//! * A range that wraps 2^64 is malformed (EINVAL); one that is merely past the end is ENOSPC for WRITE and
//!   WRITE_ZEROES.
//! * A READ above the payload limit is EOVERFLOW where replies have chunks (the document's own code for it),
//!   else EINVAL.

use crate::command::{Command, CommandFlags};
use crate::errno::Errno;
use crate::export::BlockSizes;
use crate::flags::TransmissionFlags;
use crate::limits::DISCARD_MAX_BYTES;
use crate::mode::ReplyMode;
use crate::request::RequestHeader;

/// What requests are checked against: the export as this client was told of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExportLimits {
    /// Size in bytes.
    pub size_bytes: u64,
    /// Transmission flags as sent.
    pub flags: TransmissionFlags,
    /// Size constraints. `max_bytes` bounds READ and WRITE.
    pub block: BlockSizes,
}

/// What the handshake of this session agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionMode {
    /// Dialect.
    pub reply: ReplyMode,
    /// At least one metadata context is selected.
    pub block_status: bool,
}

/// A request that can be executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AcceptedRequest {
    /// Never [`Command::Disconnect`].
    pub command: Command,
    /// Only flags that mean something for the command: FUA is dropped where nothing is written, PAYLOAD_LEN
    /// always.
    pub flags: CommandFlags,
    /// To be sent back in the reply.
    pub cookie: u64,
    /// First byte; 0 for FLUSH.
    pub offset: u64,
    /// Bytes of the export concerned, inside it and not zero; 0 for FLUSH. At most the payload limit for READ
    /// and WRITE.
    pub len: u64,
    /// Bytes that follow the header on the wire: `len` for WRITE, else 0.
    pub payload_bytes: u32,
}

/// Why a request is refused: the number for the wire, and words for logs and structured error chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Error number of the reply.
    pub errno: Errno,
    /// The rule that was broken.
    pub reason: &'static str,
}

/// What to do with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Execute it.
    Accept(AcceptedRequest),
    /// Read and drop the payload, reply with the error, go on.
    Reject {
        /// What to reply.
        refusal: Refusal,
        /// Payload bytes to drop before the next header, at most [`DISCARD_MAX_BYTES`].
        discard_bytes: u64,
    },
    /// Reply with the error, finish what is outstanding, then close: the payload is too long to skip.
    RejectAndClose(Refusal),
    /// Read nothing more, finish what is outstanding, then close; no reply.
    Disconnect,
}

/// Judges one request.
#[inline]
pub fn check_request(header: &RequestHeader, limits: &ExportLimits, mode: SessionMode) -> Verdict {
    let payload = payload_bytes(header, mode.reply);
    let refusal = match Command::from_wire(header.command) {
        None => Refusal { errno: Errno::Invalid, reason: "unknown command" },
        Some(Command::Disconnect) => return Verdict::Disconnect,
        Some(command) => match check_command(command, header, limits, mode) {
            Ok(flags) => {
                return Verdict::Accept(AcceptedRequest {
                    command,
                    flags,
                    cookie: header.cookie,
                    offset: header.offset,
                    len: header.len,
                    payload_bytes: payload as u32,
                });
            }
            Err(refusal) => refusal,
        },
    };
    if payload > DISCARD_MAX_BYTES {
        return Verdict::RejectAndClose(refusal);
    }
    Verdict::Reject { refusal, discard_bytes: payload }
}

/// Bytes that follow the header, whatever is wrong with it: those of a WRITE always (see above), of anything
/// else where extended headers say so.
#[inline]
fn payload_bytes(header: &RequestHeader, mode: ReplyMode) -> u64 {
    let is_write = header.command == Command::Write as u16;
    let says_so = mode.is_extended() && header.flags.contains(CommandFlags::PAYLOAD_LEN);
    if is_write || says_so { header.len } else { 0 }
}

const fn refuse<T>(errno: Errno, reason: &'static str) -> Result<T, Refusal> {
    Err(Refusal { errno, reason })
}

/// All rules of one known command; the flags that remain for the engine.
#[inline]
fn check_command(
    command: Command,
    header: &RequestHeader,
    limits: &ExportLimits,
    mode: SessionMode,
) -> Result<CommandFlags, Refusal> {
    if command.is_write_like() && limits.flags.contains(TransmissionFlags::READ_ONLY) {
        return refuse(Errno::Perm, "the export is read-only");
    }
    check_offered(command, limits, mode)?;
    check_flags(command, header.flags, limits, mode)?;
    if command == Command::Flush {
        if header.offset != 0 || header.len != 0 {
            return refuse(Errno::Invalid, "FLUSH with an offset or a length");
        }
    } else {
        check_range(command, header, limits, mode.reply)?;
    }
    let meaningless = if command.is_write_like() { CommandFlags::empty() } else { CommandFlags::FUA };
    Ok(header.flags.without(meaningless).without(CommandFlags::PAYLOAD_LEN))
}

/// Whether the export offers the command at all.
#[inline]
fn check_offered(command: Command, limits: &ExportLimits, mode: SessionMode) -> Result<(), Refusal> {
    let offered = match command {
        Command::Flush => limits.flags.contains(TransmissionFlags::SEND_FLUSH),
        Command::Trim => limits.flags.contains(TransmissionFlags::SEND_TRIM),
        Command::WriteZeroes => limits.flags.contains(TransmissionFlags::SEND_WRITE_ZEROES),
        Command::BlockStatus => mode.block_status && mode.reply.has_chunks(),
        Command::Read | Command::Write | Command::Cache | Command::Disconnect => true,
    };
    if offered { Ok(()) } else { refuse(Errno::Invalid, "the command was not negotiated") }
}

/// Every flag must be one that is documented for the command and that the export offers.
#[inline]
fn check_flags(
    command: Command,
    flags: CommandFlags,
    limits: &ExportLimits,
    mode: SessionMode,
) -> Result<(), Refusal> {
    if flags == CommandFlags::empty() {
        return Ok(());
    }
    let offers = |flag| limits.flags.contains(flag);
    let mut allowed = CommandFlags::empty();
    if offers(TransmissionFlags::SEND_FUA) {
        allowed = allowed.with(CommandFlags::FUA);
    }
    match command {
        Command::Read if mode.reply.has_chunks() && offers(TransmissionFlags::SEND_DF) => {
            allowed = allowed.with(CommandFlags::DF);
        }
        Command::Write if mode.reply.is_extended() => {
            allowed = allowed.with(CommandFlags::PAYLOAD_LEN);
        }
        Command::WriteZeroes => {
            allowed = allowed.with(CommandFlags::NO_HOLE);
            if offers(TransmissionFlags::SEND_FAST_ZERO) {
                allowed = allowed.with(CommandFlags::FAST_ZERO);
            }
        }
        Command::BlockStatus => allowed = allowed.with(CommandFlags::REQ_ONE),
        _ => {}
    }
    if allowed.contains(flags) {
        Ok(())
    } else {
        refuse(Errno::Invalid, "a flag that is not valid for the command")
    }
}

/// Length, end, alignment and payload size, in 64-bit arithmetic that cannot wrap (CVE-2025-47711/47712).
#[inline]
fn check_range(
    command: Command,
    header: &RequestHeader,
    limits: &ExportLimits,
    mode: ReplyMode,
) -> Result<(), Refusal> {
    if header.len == 0 {
        return refuse(Errno::Invalid, "a length of zero");
    }
    let Some(end) = header.offset.checked_add(header.len) else {
        return refuse(Errno::Invalid, "the range wraps");
    };
    if end > limits.size_bytes {
        let full = matches!(command, Command::Write | Command::WriteZeroes);
        return refuse(if full { Errno::NoSpace } else { Errno::Invalid }, "the range ends past the export");
    }
    let mask = u64::from(limits.block.min_bytes) - 1;
    if (header.offset | header.len) & mask != 0 {
        return refuse(Errno::Invalid, "the range is not aligned to the minimum block size");
    }
    let has_data = matches!(command, Command::Read | Command::Write);
    if has_data && header.len > u64::from(limits.block.max_bytes) {
        let too_large =
            if command == Command::Read && mode.has_chunks() { Errno::Overflow } else { Errno::Invalid };
        return refuse(too_large, "the length is above the maximum payload size");
    }
    Ok(())
}
