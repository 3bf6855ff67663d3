// SPDX-License-Identifier: MIT OR Apache-2.0
//! Numbers of the protocol, written down from the document.

use nbd::server::ExportInfo;
use nbd::{
    BlockSizes, ChunkType, Command, CommandFlags, Errno, OptionCode, OptionError, TransmissionFlags,
    is_valid_name,
};

#[test]
fn transmission_flags_have_their_bits() {
    use TransmissionFlags as F;
    let bits = [
        (F::HAS_FLAGS, 0),
        (F::READ_ONLY, 1),
        (F::SEND_FLUSH, 2),
        (F::SEND_FUA, 3),
        (F::ROTATIONAL, 4),
        (F::SEND_TRIM, 5),
        (F::SEND_WRITE_ZEROES, 6),
        (F::SEND_DF, 7),
        (F::CAN_MULTI_CONN, 8),
        (F::SEND_CACHE, 10),
        (F::SEND_FAST_ZERO, 11),
    ];
    for (flag, bit) in bits {
        assert_eq!(flag.0, 1 << bit);
    }
    let both = F::READ_ONLY.with(F::SEND_FUA);
    assert!(both.contains(F::SEND_FUA) && !both.contains(F::SEND_FUA.with(F::SEND_TRIM)));
    assert_eq!(both.without(F::READ_ONLY), F::SEND_FUA);
}

#[test]
fn command_flags_have_their_bits() {
    use CommandFlags as F;
    for (flag, bit) in
        [(F::FUA, 0), (F::NO_HOLE, 1), (F::DF, 2), (F::REQ_ONE, 3), (F::FAST_ZERO, 4), (F::PAYLOAD_LEN, 5)]
    {
        assert_eq!(flag.0, 1 << bit);
    }
    let both = F::FUA.with(F::DF);
    assert!(both.contains(F::DF) && !both.contains(F::DF.with(F::REQ_ONE)));
    assert_eq!(both.without(F::FUA), F::DF);
}

#[test]
fn commands_have_their_numbers() {
    use Command as C;
    let commands =
        [C::Read, C::Write, C::Disconnect, C::Flush, C::Trim, C::Cache, C::WriteZeroes, C::BlockStatus];
    for (number, command) in commands.into_iter().enumerate() {
        assert_eq!(C::from_wire(number as u16), Some(command));
        assert_eq!(command as usize, number);
        assert_eq!(command.is_write_like(), matches!(command, C::Write | C::Trim | C::WriteZeroes));
    }
    assert_eq!(C::from_wire(8), None);
    assert_eq!(C::from_wire(u16::MAX), None);
}

#[test]
fn chunk_types_have_their_numbers() {
    use ChunkType as T;
    let types = [
        (0, T::None),
        (1, T::OffsetData),
        (2, T::OffsetHole),
        (5, T::BlockStatus),
        (6, T::BlockStatusExt),
        (0x8001, T::Error),
        (0x8002, T::ErrorOffset),
        (0x8003, T::UnknownError(0x8003)),
    ];
    for (number, kind) in types {
        assert_eq!((T::from_wire(number), kind.to_wire()), (Some(kind), number));
        assert_eq!(kind.is_error(), number >= 0x8000);
    }
    for number in [3, 4, 7, 0x7fff] {
        assert_eq!(T::from_wire(number), None);
    }
}

#[test]
fn options_and_their_errors_have_their_numbers() {
    use OptionError as E;
    let options = [
        (1, "EXPORT_NAME"),
        (2, "ABORT"),
        (3, "LIST"),
        (5, "STARTTLS"),
        (6, "INFO"),
        (7, "GO"),
        (8, "STRUCTURED_REPLY"),
        (9, "LIST_META_CONTEXT"),
        (10, "SET_META_CONTEXT"),
        (11, "EXTENDED_HEADERS"),
        (4, "option 4"),
        (12, "option 12"),
    ];
    for (number, name) in options {
        assert_eq!(OptionCode(number).to_string(), name);
    }
    let errors = [
        E::Unsupported,
        E::Policy,
        E::Invalid,
        E::Platform,
        E::TlsRequired,
        E::Unknown,
        E::Shutdown,
        E::BlockSizeRequired,
        E::TooBig,
        E::ExtendedHeadersRequired,
        E::Other(11),
    ];
    for (number, error) in (1..).zip(errors) {
        assert_eq!((error.to_wire(), E::from_wire(1 << 31 | number)), (1 << 31 | number, Some(error)));
    }
    assert_eq!(E::from_wire(1), None, "bit 31 makes an error");
}

#[test]
fn error_numbers_are_those_of_the_protocol() {
    for number in [1, 5, 12, 22, 28, 75, 95, 108] {
        assert_eq!(Errno::from_wire(number).map(Errno::to_wire), Some(number));
    }
    assert_eq!(Errno::from_wire(0), None);
}

#[test]
fn names_are_4096_bytes_without_nul() {
    assert!(is_valid_name("") && is_valid_name(&"x".repeat(4096)));
    assert!(!is_valid_name(&"x".repeat(4097)) && !is_valid_name("a\0"));
}

#[test]
fn block_sizes_are_powers_of_two_in_order() {
    let valid = |min_bytes, preferred_bytes, max_bytes| {
        BlockSizes { min_bytes, preferred_bytes, max_bytes }.is_valid()
    };
    assert!(BlockSizes::DEFAULT.is_valid());
    assert!(valid(1, 512, 512) && valid(65536, 65536, 65536) && valid(512, 4096, 5000));
    assert!(!valid(0, 512, 512), "no minimum");
    assert!(!valid(3, 512, 512), "no power of two");
    assert!(!valid(131_072, 131_072, 1 << 20), "minimum above 64 KiB");
    assert!(!valid(1, 256, 512), "preferred below 512");
    assert!(!valid(1, 1000, 4096), "preferred no power of two");
    assert!(!valid(4096, 512, 4096), "preferred below the minimum");
    assert!(!valid(1, 4096, 4095), "maximum below the preferred");
}

#[test]
fn an_export_that_cannot_be_offered_says_why() {
    let problem = |change: fn(&mut ExportInfo)| {
        let mut export = ExportInfo::new("vol0", i64::MAX as u64);
        change(&mut export);
        export.problem().unwrap_or("none")
    };
    assert_eq!(problem(|_| ()), "none");
    assert_eq!(problem(|export| export.contexts.push("x-holdfast:a".into())), "none");
    assert!(problem(|export| export.name = "a\0".into()).contains("name"));
    assert!(problem(|export| export.description = "a\0".into()).contains("description"));
    assert!(problem(|export| export.size_bytes += 1).contains("size"));
    assert!(problem(|export| export.block.min_bytes = 3).contains("block sizes"));
    for context in ["plain", ":leaf", "base:allocation", "x:\0"] {
        let mut export = ExportInfo::new("vol0", 0);
        export.contexts.push(context.into());
        assert!(export.problem().is_some_and(|why| why.contains("context")), "{context:?}");
    }
}
