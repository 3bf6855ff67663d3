// SPDX-License-Identifier: MIT OR Apache-2.0
//! Request headers and what is allowed in them.

use nbd::server::{AcceptedRequest, ExportLimits, Refusal, SessionMode, Verdict, check_request};
use nbd::{
    BlockSizes, Command, CommandFlags, Decoded, Errno, ReplyMode, RequestHeader, TransmissionFlags,
    WireViolation,
};

use crate::support::{Wire, all_flags};

const MIB: u64 = 1 << 20;
const READ: u16 = 0;
const WRITE: u16 = 1;
const DISC: u16 = 2;
const FLUSH: u16 = 3;
const TRIM: u16 = 4;
const CACHE: u16 = 5;
const ZEROES: u16 = 6;
const STATUS: u16 = 7;
const WITH_RANGE: [u16; 6] = [READ, WRITE, TRIM, CACHE, ZEROES, STATUS];

const FUA: u16 = 1;
const NO_HOLE: u16 = 2;
const DF: u16 = 4;
const REQ_ONE: u16 = 8;
const FAST_ZERO: u16 = 16;
const PAYLOAD_LEN: u16 = 32;

const SIMPLE: SessionMode = SessionMode { reply: ReplyMode::Simple, block_status: false };
const STRUCTURED: SessionMode = SessionMode { reply: ReplyMode::Structured, block_status: true };
const EXTENDED: SessionMode = SessionMode { reply: ReplyMode::Extended, block_status: true };

/// 64 MiB with every flag, default block sizes.
fn limits() -> ExportLimits {
    ExportLimits { size_bytes: 64 * MIB, flags: all_flags(), block: BlockSizes::DEFAULT }
}

fn without(flag: TransmissionFlags) -> ExportLimits {
    ExportLimits { flags: all_flags().without(flag), ..limits() }
}

fn request(command: u16, flags: u16, offset: u64, len: u64) -> RequestHeader {
    RequestHeader { flags: CommandFlags(flags), command, cookie: 0x1122_3344, offset, len }
}

fn verdict(header: RequestHeader, limits: ExportLimits, mode: SessionMode) -> Verdict {
    check_request(&header, &limits, mode)
}

/// The request as a client of the dialect would send it: extended WRITEs say that they have a payload.
fn proper(command: u16, offset: u64, len: u64, mode: SessionMode) -> RequestHeader {
    let payload = command == WRITE && mode.reply.is_extended();
    request(command, if payload { PAYLOAD_LEN } else { 0 }, offset, len)
}

#[track_caller]
fn accepted(header: RequestHeader, limits: ExportLimits, mode: SessionMode) -> AcceptedRequest {
    match verdict(header, limits, mode) {
        Verdict::Accept(request) => request,
        other => panic!("{header:?}: {other:?}"),
    }
}

#[track_caller]
fn rejected(header: RequestHeader, limits: ExportLimits, mode: SessionMode) -> (Errno, u64) {
    match verdict(header, limits, mode) {
        Verdict::Reject { refusal, discard_bytes } => (refusal.errno, discard_bytes),
        other => panic!("{header:?}: {other:?}"),
    }
}

// Framing.

#[test]
fn compact_request_is_28_bytes() {
    let bytes = Wire::new().u32(0x2560_9513).u16(0x0102).u16(7).u64(11).u64(12).u32(13).raw("payload").0;
    let header = RequestHeader { flags: CommandFlags(0x0102), command: 7, cookie: 11, offset: 12, len: 13 };
    assert_eq!(RequestHeader::decode(&bytes, false), Decoded::Header { header, consumed: 28 });
    for short in 0..28 {
        assert_eq!(RequestHeader::decode(&bytes[..short], false), Decoded::NeedMore, "{short} bytes");
    }
}

#[test]
fn extended_request_is_32_bytes() {
    let bytes = Wire::new().u32(0x21e4_1c71).u16(1).u16(4).u64(11).u64(12).u64(1 << 40).raw("x").0;
    let header = RequestHeader { flags: CommandFlags(1), command: 4, cookie: 11, offset: 12, len: 1 << 40 };
    assert_eq!(RequestHeader::decode(&bytes, true), Decoded::Header { header, consumed: 32 });
    for short in 0..32 {
        assert_eq!(RequestHeader::decode(&bytes[..short], true), Decoded::NeedMore, "{short} bytes");
    }
}

#[test]
fn bad_request_magic_disconnects_as_soon_as_it_is_there() {
    // The magic of the other dialect, of replies, of old Linux kernels, and of nbd-server's own log.
    for magic in [0x21e4_1c71, 0x6744_6698, 0x1256_0953, 0x9674_4668, 0x2560_9514, 0] {
        let bytes = Wire::new().u32(magic).0;
        let violation = Decoded::Violation(WireViolation::RequestMagic(magic));
        assert_eq!(RequestHeader::decode(&bytes, false), violation);
        assert_eq!(RequestHeader::decode(&[bytes, vec![0; 40]].concat(), false), violation);
    }
    let compact = Wire::new().u32(0x2560_9513).0;
    let violation = Decoded::Violation(WireViolation::RequestMagic(0x2560_9513));
    assert_eq!(RequestHeader::decode(&compact, true), violation);
}

// Ranges.

#[test]
fn ranges_inside_the_export_are_accepted() {
    for mode in [STRUCTURED, EXTENDED] {
        for command in WITH_RANGE {
            for (offset, len) in [(0, 1), (0, 32 * MIB), (64 * MIB - 1, 1), (12345, 678)] {
                let request = accepted(proper(command, offset, len, mode), limits(), mode);
                assert_eq!((request.command as u16, request.cookie), (command, 0x1122_3344));
                assert_eq!((request.offset, request.len), (offset, len));
                let payload = if command == WRITE { len } else { 0 };
                assert_eq!(u64::from(request.payload_bytes), payload);
                assert_eq!(request.flags, CommandFlags::empty());
            }
        }
    }
}

#[test]
fn write_past_the_end_is_enospc_and_the_rest_einval() {
    for command in WITH_RANGE {
        let errno = if command == WRITE || command == ZEROES { Errno::NoSpace } else { Errno::Invalid };
        let discard = |len| if command == WRITE { len } else { 0 };
        for (offset, len) in [(64 * MIB, 1), (64 * MIB - 1, 2), (1 << 62, 1), (i64::MAX as u64, 512)] {
            let header = request(command, 0, offset, len);
            assert_eq!(rejected(header, limits(), STRUCTURED), (errno, discard(len)), "{header:?}");
        }
    }
}

#[test]
fn offset_plus_length_that_wraps_is_einval() {
    for command in WITH_RANGE {
        for (offset, len) in [(u64::MAX, 2), (u64::MAX - 511, 512), (u64::MAX, u64::from(u32::MAX))] {
            if command == WRITE && len > 64 * MIB {
                continue; // closes, see below
            }
            assert_eq!(rejected(request(command, 0, offset, len), limits(), STRUCTURED).0, Errno::Invalid);
        }
    }
    assert_eq!(rejected(request(TRIM, 0, 1, u64::MAX), limits(), EXTENDED).0, Errno::Invalid);
    assert_eq!(rejected(request(ZEROES, 0, u64::MAX, u64::MAX), limits(), EXTENDED).0, Errno::Invalid);
}

#[test]
fn zero_length_is_einval_without_disconnect() {
    for command in WITH_RANGE {
        assert_eq!(rejected(request(command, 0, 0, 0), limits(), STRUCTURED), (Errno::Invalid, 0));
    }
    // Not even at the very end, where the range would be inside.
    assert_eq!(rejected(request(READ, 0, 64 * MIB, 0), limits(), SIMPLE), (Errno::Invalid, 0));
}

#[test]
fn unaligned_is_einval_without_disconnect() {
    let limits = ExportLimits { block: BlockSizes { min_bytes: 512, ..BlockSizes::DEFAULT }, ..limits() };
    for command in WITH_RANGE {
        let discard = |len| if command == WRITE { len } else { 0 };
        for (offset, len) in [(1, 512), (0, 511), (256, 256), (0, 513)] {
            let header = request(command, 0, offset, len);
            assert_eq!(rejected(header, limits, STRUCTURED), (Errno::Invalid, discard(len)));
        }
        accepted(request(command, 0, 512, 1024), limits, STRUCTURED);
    }
}

#[test]
fn read_and_write_above_the_maximum_payload_are_refused() {
    let limits = ExportLimits { block: BlockSizes { max_bytes: 65536, ..BlockSizes::DEFAULT }, ..limits() };
    accepted(request(READ, 0, 0, 65536), limits, SIMPLE);
    accepted(request(WRITE, 0, 0, 65536), limits, SIMPLE);
    assert_eq!(rejected(request(READ, 0, 0, 65537), limits, SIMPLE), (Errno::Invalid, 0));
    assert_eq!(rejected(request(READ, 0, 0, 65537), limits, STRUCTURED), (Errno::Overflow, 0));
    assert_eq!(rejected(request(WRITE, 0, 0, 65537), limits, STRUCTURED), (Errno::Invalid, 65537));
}

#[test]
fn commands_without_payload_may_exceed_the_maximum_payload() {
    let limits = ExportLimits { size_bytes: 1 << 50, ..limits() };
    for command in [TRIM, CACHE, ZEROES, STATUS] {
        accepted(request(command, 0, 0, u64::from(u32::MAX)), limits, STRUCTURED);
        let request = accepted(request(command, 0, 4096, 1 << 49), limits, EXTENDED);
        assert_eq!(request.len, 1 << 49);
    }
}

// Payload of refused requests.

#[test]
fn payload_of_a_refused_write_is_consumed_up_to_64_mib() {
    let read_only = ExportLimits { flags: all_flags().with(TransmissionFlags::READ_ONLY), ..limits() };
    for len in [1, 512, 33 * MIB, 64 * MIB] {
        assert_eq!(rejected(request(WRITE, 0, 0, len), read_only, SIMPLE), (Errno::Perm, len));
    }
}

#[test]
fn refused_write_above_64_mib_is_answered_and_the_connection_closed() {
    for len in [64 * MIB + 1, u64::from(u32::MAX)] {
        let refusal = Refusal { errno: Errno::NoSpace, reason: "the range ends past the export" };
        assert_eq!(verdict(request(WRITE, 0, 0, len), limits(), SIMPLE), Verdict::RejectAndClose(refusal));
    }
    let huge = request(WRITE, PAYLOAD_LEN, 0, u64::MAX);
    assert!(matches!(verdict(huge, limits(), EXTENDED), Verdict::RejectAndClose(_)));
}

#[test]
fn payload_len_on_other_commands_is_einval_after_its_payload() {
    for command in [READ, FLUSH, TRIM, CACHE, ZEROES, STATUS, 8, 99] {
        let header = request(command, PAYLOAD_LEN, 0, 4096);
        assert_eq!(rejected(header, limits(), EXTENDED), (Errno::Invalid, 4096), "command {command}");
        let huge = request(command, PAYLOAD_LEN, 0, 65 * MIB);
        assert!(matches!(verdict(huge, limits(), EXTENDED), Verdict::RejectAndClose(_)));
    }
}

/// The flag MUST be there, but qemu's client (10.0) leaves it out and sends the payload all the same.
#[test]
fn extended_write_without_payload_len_has_its_payload_all_the_same() {
    for flags in [0, FUA] {
        let request_ok = accepted(request(WRITE, flags, 0, 4096), limits(), EXTENDED);
        assert_eq!((request_ok.payload_bytes, request_ok.flags), (4096, CommandFlags(flags)));
    }
    assert_eq!(rejected(request(WRITE, 0, 64 * MIB, 512), limits(), EXTENDED), (Errno::NoSpace, 512));
    assert_eq!(rejected(request(WRITE, PAYLOAD_LEN, 0, 0), limits(), EXTENDED), (Errno::Invalid, 0));
}

#[test]
fn payload_len_does_not_exist_in_compact_headers() {
    for mode in [SIMPLE, STRUCTURED] {
        assert_eq!(rejected(request(WRITE, PAYLOAD_LEN, 0, 512), limits(), mode), (Errno::Invalid, 512));
        assert_eq!(rejected(request(READ, PAYLOAD_LEN, 0, 512), limits(), mode), (Errno::Invalid, 0));
    }
}

// Commands.

#[test]
fn unknown_command_is_einval_and_the_connection_stays() {
    for command in [8, 9, 255, u16::MAX] {
        assert_eq!(rejected(request(command, 0, 0, 512), limits(), SIMPLE), (Errno::Invalid, 0));
        assert_eq!(rejected(request(command, 0, 0, 512), limits(), EXTENDED), (Errno::Invalid, 0));
    }
}

#[test]
fn disc_disconnects_whatever_its_fields_say() {
    for mode in [SIMPLE, STRUCTURED, EXTENDED] {
        for header in [request(DISC, 0, 0, 0), request(DISC, u16::MAX, u64::MAX, u64::from(u32::MAX))] {
            assert_eq!(verdict(header, limits(), mode), Verdict::Disconnect);
        }
    }
}

#[test]
fn flush_takes_neither_offset_nor_length() {
    let request_ok = accepted(request(FLUSH, 0, 0, 0), limits(), SIMPLE);
    assert_eq!((request_ok.command, request_ok.offset, request_ok.len), (Command::Flush, 0, 0));
    assert_eq!(rejected(request(FLUSH, 0, 1, 0), limits(), SIMPLE), (Errno::Invalid, 0));
    assert_eq!(rejected(request(FLUSH, 0, 0, 512), limits(), SIMPLE), (Errno::Invalid, 0));
}

#[test]
fn commands_that_were_not_advertised_are_einval() {
    for (command, len, flag) in [
        (FLUSH, 0, TransmissionFlags::SEND_FLUSH),
        (TRIM, 512, TransmissionFlags::SEND_TRIM),
        (ZEROES, 512, TransmissionFlags::SEND_WRITE_ZEROES),
    ] {
        accepted(request(command, 0, 0, len), limits(), SIMPLE);
        assert_eq!(rejected(request(command, 0, 0, len), without(flag), SIMPLE), (Errno::Invalid, 0));
    }
}

#[test]
fn cache_is_accepted_unadvertised_but_not_with_unknown_flags() {
    let limits = without(TransmissionFlags::SEND_CACHE);
    accepted(request(CACHE, 0, 0, 512), limits, SIMPLE);
    assert_eq!(rejected(request(CACHE, DF, 0, 512), limits, SIMPLE), (Errno::Invalid, 0));
}

#[test]
fn block_status_needs_chunks_and_a_selected_context() {
    accepted(request(STATUS, 0, 0, 512), limits(), STRUCTURED);
    accepted(request(STATUS, 0, 0, 512), limits(), EXTENDED);
    for reply in [ReplyMode::Simple, ReplyMode::Structured, ReplyMode::Extended] {
        let mode = SessionMode { reply, block_status: false };
        assert_eq!(rejected(request(STATUS, 0, 0, 512), limits(), mode), (Errno::Invalid, 0));
    }
    let nonsense = SessionMode { reply: ReplyMode::Simple, block_status: true };
    assert_eq!(rejected(request(STATUS, 0, 0, 512), limits(), nonsense), (Errno::Invalid, 0));
}

#[test]
fn changes_to_a_read_only_export_are_eperm() {
    let limits = ExportLimits { flags: all_flags().with(TransmissionFlags::READ_ONLY), ..limits() };
    assert_eq!(rejected(request(WRITE, 0, 0, 512), limits, SIMPLE), (Errno::Perm, 512));
    assert_eq!(rejected(request(TRIM, 0, 0, 512), limits, SIMPLE), (Errno::Perm, 0));
    assert_eq!(rejected(request(ZEROES, 0, 0, 512), limits, SIMPLE), (Errno::Perm, 0));
    accepted(request(READ, 0, 0, 512), limits, SIMPLE);
    accepted(request(FLUSH, 0, 0, 0), limits, SIMPLE);
}

// Flags.

/// Every flag on every command: accepted exactly where the document has it.
#[test]
fn flag_that_is_not_valid_for_the_command_is_einval() {
    let valid = [
        (READ, FUA | DF),
        (WRITE, FUA),
        (FLUSH, FUA),
        (TRIM, FUA),
        (CACHE, FUA),
        (ZEROES, FUA | NO_HOLE | FAST_ZERO),
        (STATUS, FUA | REQ_ONE),
    ];
    for mode in [STRUCTURED, EXTENDED] {
        for (command, valid) in valid {
            for bit in 0..16 {
                let payload = if mode == EXTENDED && command == WRITE { PAYLOAD_LEN } else { 0 };
                let len = if command == FLUSH { 0 } else { 512 };
                let header = request(command, 1 << bit | payload, 0, len);
                if (valid | payload) & 1 << bit != 0 {
                    accepted(header, limits(), mode);
                } else {
                    assert_eq!(rejected(header, limits(), mode).0, Errno::Invalid, "{header:?}");
                }
            }
        }
    }
}

#[test]
fn fua_is_valid_everywhere_if_advertised_and_kept_where_something_is_written() {
    for (command, len) in [(READ, 512), (WRITE, 512), (FLUSH, 0), (TRIM, 512), (CACHE, 512), (ZEROES, 512)] {
        let request_ok = accepted(request(command, FUA, 0, len), limits(), STRUCTURED);
        let writes = [WRITE, TRIM, ZEROES].contains(&command);
        assert_eq!(request_ok.flags.contains(CommandFlags::FUA), writes, "command {command}");
        let header = request(command, FUA, 0, len);
        assert_eq!(rejected(header, without(TransmissionFlags::SEND_FUA), STRUCTURED).0, Errno::Invalid);
    }
}

#[test]
fn df_needs_chunks_and_send_df() {
    accepted(request(READ, DF, 0, 512), limits(), STRUCTURED);
    assert_eq!(rejected(request(READ, DF, 0, 512), limits(), SIMPLE).0, Errno::Invalid);
    let limits = without(TransmissionFlags::SEND_DF);
    assert_eq!(rejected(request(READ, DF, 0, 512), limits, STRUCTURED).0, Errno::Invalid);
}

#[test]
fn fast_zero_needs_to_be_advertised_and_no_hole_does_not() {
    let limits = without(TransmissionFlags::SEND_FAST_ZERO);
    assert_eq!(rejected(request(ZEROES, FAST_ZERO, 0, 512), limits, SIMPLE).0, Errno::Invalid);
    let limits = without(TransmissionFlags::SEND_TRIM);
    let request_ok = accepted(request(ZEROES, NO_HOLE | FUA, 0, 512), limits, SIMPLE);
    assert_eq!(request_ok.flags, CommandFlags::NO_HOLE.with(CommandFlags::FUA));
}

#[test]
fn payload_len_is_not_passed_on() {
    let request_ok = accepted(request(WRITE, PAYLOAD_LEN | FUA, 0, 512), limits(), EXTENDED);
    assert_eq!(request_ok.flags, CommandFlags::FUA);
    assert_eq!(request_ok.payload_bytes, 512);
}
