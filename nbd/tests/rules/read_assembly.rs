// SPDX-License-Identifier: MIT OR Apache-2.0
//! Chunks of one READ.

use nbd::client::{ChunkHeader, ReadAssembly, ReadPiece, ReplyViolation};
use nbd::{ChunkType, Errno, ReplyMode};

use crate::support::Wire;

const OFFSET: u64 = 1 << 20;
const LEN: u32 = 4096;

fn read() -> ReadAssembly {
    ReadAssembly::new(OFFSET, LEN, false)
}

fn chunk(kind: ChunkType, done: bool, len: u32) -> ChunkHeader {
    ChunkHeader { kind, done, cookie: 0, offset: None, len }
}

/// A data chunk at a position of the request.
fn data(
    read: &mut ReadAssembly,
    at: i64,
    len: u32,
    done: bool,
) -> Result<ReadPiece<'static>, ReplyViolation> {
    let offset = OFFSET.wrapping_add_signed(at).to_be_bytes();
    let piece = read.accept(&chunk(ChunkType::OffsetData, done, 8 + len), &offset)?;
    let ReadPiece::Data { at, len } = piece else { panic!("{piece:?}") };
    Ok(ReadPiece::Data { at, len })
}

fn hole(
    read: &mut ReadAssembly,
    at: i64,
    len: u32,
    done: bool,
) -> Result<ReadPiece<'static>, ReplyViolation> {
    let payload = Wire::new().u64(OFFSET.wrapping_add_signed(at)).u32(len).0;
    let piece = read.accept(&chunk(ChunkType::OffsetHole, done, 12), &payload)?;
    let ReadPiece::Zeroes { at, len } = piece else { panic!("{piece:?}") };
    Ok(ReadPiece::Zeroes { at, len })
}

fn error(read: &mut ReadAssembly, at: Option<u64>, done: bool) -> Result<(), ReplyViolation> {
    let payload = Wire::new().u32(5).u16(0);
    let (kind, payload) = match at {
        Some(at) => (ChunkType::ErrorOffset, payload.u64(OFFSET + at).0),
        None => (ChunkType::Error, payload.0),
    };
    let piece = read.accept(&chunk(kind, done, payload.len() as u32), &payload)?;
    assert!(matches!(piece, ReadPiece::Error(error) if error.errno == Errno::Io));
    Ok(())
}

fn none(read: &mut ReadAssembly) -> Result<ReadPiece<'static>, ReplyViolation> {
    read.accept(&chunk(ChunkType::None, true, 0), &[]).map(|piece| {
        assert_eq!(piece, ReadPiece::End);
        ReadPiece::End
    })
}

#[test]
fn one_chunk_with_done_is_the_whole_reply() {
    let mut read = read();
    assert_eq!(read.outcome(), None);
    assert_eq!(data(&mut read, 0, LEN, true), Ok(ReadPiece::Data { at: 0, len: LEN }));
    assert_eq!(read.outcome(), Some(Ok(())));
}

#[test]
fn chunks_may_come_in_any_order_and_be_holes() {
    let mut read = read();
    assert_eq!(data(&mut read, 1024, 1024, false), Ok(ReadPiece::Data { at: 1024, len: 1024 }));
    assert_eq!(hole(&mut read, 3072, 1024, false), Ok(ReadPiece::Zeroes { at: 3072, len: 1024 }));
    data(&mut read, 0, 1024, false).unwrap();
    hole(&mut read, 2048, 1024, false).unwrap();
    assert_eq!(read.outcome(), None);
    none(&mut read).unwrap();
    assert_eq!(read.outcome(), Some(Ok(())));
}

/// Every order of the same pieces, some of which touch and some of which do not, is accepted; and after each,
/// every byte that came is known to have come.
#[test]
fn every_order_of_pieces_is_accepted() {
    const PIECES: u32 = 7;

    fn in_order(pieces: &[u32]) {
        let mut read = ReadAssembly::new(OFFSET, PIECES * 512, false);
        for (count, piece) in pieces.iter().enumerate() {
            let done = count + 1 == pieces.len();
            data(&mut read, i64::from(*piece) * 512, 512, done).unwrap();
            for earlier in pieces[..=count].iter().filter(|_| !done) {
                for at in [0, 511] {
                    let overlap = data(&mut read.clone(), i64::from(*earlier) * 512 + at, 1, false);
                    assert!(matches!(overlap, Err(ReplyViolation::Overlap { .. })), "{pieces:?}");
                }
            }
        }
        assert_eq!(read.outcome(), Some(Ok(())), "{pieces:?}");
    }

    fn permute(pieces: &mut Vec<u32>, chosen: &mut Vec<u32>) -> u32 {
        if pieces.is_empty() {
            in_order(chosen);
            return 1;
        }
        let mut orders = 0;
        for at in 0..pieces.len() {
            let piece = pieces.remove(at);
            chosen.push(piece);
            orders += permute(pieces, chosen);
            chosen.pop();
            pieces.insert(at, piece);
        }
        orders
    }

    assert_eq!(permute(&mut (0..PIECES).collect(), &mut Vec::new()), 5040);
}

#[test]
fn data_outside_the_request_is_a_violation() {
    let offset = OFFSET;
    for (at, len) in [(-1, 1), (-1, LEN + 1), (0, LEN + 1), (4096, 1), (4095, 2), (i64::MAX, 9)] {
        let mut read = read();
        let violation =
            ReplyViolation::OutOfRange { offset: offset.wrapping_add_signed(at), len: u64::from(len) };
        assert_eq!(data(&mut read, at, len, true), Err(violation));
        assert_eq!(read.outcome(), Some(Err(Errno::Io)));
        assert!(hole(&mut crate::read_assembly::read(), at, len, true).is_err());
    }
}

/// qemu's client takes overlapping chunks for success.
#[test]
fn overlapping_data_is_a_violation() {
    for (at, len) in [(0, 1024), (1023, 1), (512, 1024), (0, LEN)] {
        let mut read = read();
        data(&mut read, 0, 1024, false).unwrap();
        let violation = ReplyViolation::Overlap { offset: OFFSET + at, len: u64::from(len) };
        assert_eq!(data(&mut read, at as i64, len, false), Err(violation));
    }
    let mut read = read();
    hole(&mut read, 0, 1024, false).unwrap();
    assert!(matches!(data(&mut read, 0, LEN, true), Err(ReplyViolation::Overlap { .. })));
}

/// qemu's client takes missing chunks for success.
#[test]
fn missing_data_at_done_is_a_violation() {
    let mut read = read();
    assert_eq!(data(&mut read, 0, LEN - 1, true), Err(ReplyViolation::Incomplete { missing: 1 }));
    assert_eq!(read.outcome(), Some(Err(Errno::Io)));
    let mut read = crate::read_assembly::read();
    assert_eq!(none(&mut read), Err(ReplyViolation::Incomplete { missing: 4096 }));
    let mut read = crate::read_assembly::read();
    data(&mut read, 0, 512, false).unwrap();
    data(&mut read, 1024, 512, false).unwrap();
    assert_eq!(none(&mut read), Err(ReplyViolation::Incomplete { missing: 3072 }));
}

#[test]
fn an_error_excuses_missing_data() {
    for at in [None, Some(512)] {
        let mut read = read();
        data(&mut read, 0, 512, false).unwrap();
        error(&mut read, at, true).unwrap();
        assert_eq!(read.outcome(), Some(Err(Errno::Io)));
    }
    let mut read = read();
    error(&mut read, None, false).unwrap();
    none(&mut read).unwrap();
    assert_eq!(read.outcome(), Some(Err(Errno::Io)));
}

#[test]
fn data_after_an_error_is_lawful_and_does_not_help() {
    let mut read = read();
    error(&mut read, None, false).unwrap();
    data(&mut read, 0, LEN, true).unwrap();
    assert_eq!(read.outcome(), Some(Err(Errno::Io)));
}

#[test]
fn data_over_an_earlier_error_offset_is_a_violation() {
    let mut read = read();
    error(&mut read, Some(1000), false).unwrap();
    data(&mut read, 0, 1000, false).unwrap();
    data(&mut read, 1001, 23, false).unwrap();
    assert!(matches!(data(&mut read, 1000, 1, false), Err(ReplyViolation::Overlap { .. })));
}

#[test]
fn an_error_inside_earlier_data_is_lawful() {
    let mut read = read();
    data(&mut read, 0, LEN, false).unwrap();
    error(&mut read, Some(1000), true).unwrap();
    assert_eq!(read.outcome(), Some(Err(Errno::Io)));
}

#[test]
fn error_offset_outside_the_request_is_a_violation() {
    let result = error(&mut read(), Some(4096), true);
    assert_eq!(result, Err(ReplyViolation::OutOfRange { offset: OFFSET + 4096, len: 1 }));
}

#[test]
fn df_allows_one_content_chunk() {
    for first in [1, 2048] {
        let mut read = ReadAssembly::new(OFFSET, LEN, true);
        data(&mut read, 0, first, false).unwrap();
        assert_eq!(data(&mut read, 2048, 2048, true), Err(ReplyViolation::Fragmented));
    }

    let mut read = ReadAssembly::new(OFFSET, LEN, true);
    hole(&mut read, 0, LEN, false).unwrap();
    none(&mut read).unwrap();
    assert_eq!(read.outcome(), Some(Ok(())));
}

#[test]
fn an_empty_hole_is_a_violation() {
    assert_eq!(hole(&mut read(), 0, 0, false), Err(ReplyViolation::EmptyHole));
}

#[test]
fn status_chunks_do_not_answer_a_read() {
    for kind in [ChunkType::BlockStatus, ChunkType::BlockStatusExt] {
        let result = read().accept(&chunk(kind, true, 24), &[0; 8]);
        assert_eq!(result, Err(ReplyViolation::NotForCommand(kind)));
    }
}

#[test]
fn nothing_follows_done() {
    let mut read = read();
    data(&mut read, 0, LEN, true).unwrap();
    assert_eq!(none(&mut read), Err(ReplyViolation::AfterDone));
    assert_eq!(read.outcome(), Some(Err(Errno::Io)), "a violation is never a success");
}

#[test]
fn extended_chunks_repeat_the_offset_of_the_request() {
    let header = ChunkHeader { offset: Some(OFFSET + 512), ..chunk(ChunkType::OffsetData, false, 520) };
    let payload = (OFFSET + 512).to_be_bytes();
    let result = read().accept(&header, &payload);
    assert_eq!(result, Err(ReplyViolation::OffsetMismatch { asked: OFFSET, got: OFFSET + 512 }));
    let header = ChunkHeader { offset: Some(OFFSET), ..header };
    assert!(
        read().accept(&header, &(OFFSET + 512).to_be_bytes()).is_ok(),
        "the data has an offset of its own"
    );
}

#[test]
fn pieces_out_of_order_are_bounded() {
    let mut read = ReadAssembly::new(OFFSET, 1 << 20, false);
    let mut accepted = 0;
    let end = (0..1 << 19).find_map(|piece| {
        let result = data(&mut read, piece * 2, 1, false);
        accepted += u32::from(result.is_ok());
        result.err()
    });
    assert_eq!(end, Some(ReplyViolation::TooManyPieces));
    assert_eq!(accepted, 1024);
}

#[test]
fn pieces_in_order_are_unbounded() {
    for forward in [true, false] {
        let mut read = ReadAssembly::new(OFFSET, 100_000, false);
        for step in 0..100_000 {
            let at = if forward { step } else { 99_999 - step };
            data(&mut read, at, 1, step == 99_999).unwrap();
        }
        assert_eq!(read.outcome(), Some(Ok(())));
    }
}

#[test]
fn a_simple_reply_is_lawful_only_without_chunks() {
    let mut simple = read();
    let piece = simple.accept_simple(ReplyMode::Simple, Ok(()));
    assert_eq!(piece, Ok(ReadPiece::Data { at: 0, len: LEN }));
    assert_eq!(simple.outcome(), Some(Ok(())));

    let mut simple = read();
    simple.accept_simple(ReplyMode::Simple, Err(Errno::Io)).unwrap();
    assert_eq!(simple.outcome(), Some(Err(Errno::Io)));

    for result in [Ok(()), Err(Errno::Invalid)] {
        let mut chunky = read();
        assert_eq!(chunky.accept_simple(ReplyMode::Structured, result), Err(ReplyViolation::SimpleReply));
        assert_eq!(chunky.outcome().map(|outcome| outcome.is_err()), Some(true));
    }
}
