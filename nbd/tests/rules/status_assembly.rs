// SPDX-License-Identifier: MIT OR Apache-2.0
//! Chunks of one BLOCK_STATUS.

use nbd::client::{ChunkHeader, ReplyViolation, StatusAssembly};
use nbd::{ChunkType, Errno, Extent};

use crate::support::Wire;

const OFFSET: u64 = 1 << 20;
const LEN: u64 = 65536;
const ID: u32 = 9;

fn status() -> StatusAssembly {
    StatusAssembly::new(OFFSET, LEN, false, ID)
}

fn extent(len: u64, flags: u64) -> Extent {
    Extent { len, flags }
}

/// Feeds a 32-bit chunk, its descriptors in pieces of `step` bytes.
fn chunk32(
    status: &mut StatusAssembly,
    id: u32,
    extents: &[(u32, u32)],
    done: bool,
    step: usize,
) -> Result<(), ReplyViolation> {
    let list = extents.iter().fold(Wire::new(), |list, (len, flags)| list.u32(*len).u32(*flags)).0;
    let len = 4 + list.len() as u32;
    let header = ChunkHeader { kind: ChunkType::BlockStatus, done, cookie: 0, offset: None, len };
    status.accept(&header, &id.to_be_bytes())?;
    assert_eq!(status.left_bytes() as usize, list.len());
    list.chunks(step).try_for_each(|piece| {
        assert_eq!(status.outcome(), None, "descriptors are missing");
        status.feed(piece)
    })
}

fn reply32(extents: &[(u32, u32)]) -> (Result<(), ReplyViolation>, StatusAssembly) {
    let mut status = status();
    let result = chunk32(&mut status, ID, extents, true, 8);
    (result, status)
}

fn chunk64(
    status: &mut StatusAssembly,
    count: u32,
    extents: &[(u64, u64)],
    step: usize,
) -> Result<(), ReplyViolation> {
    let list = extents.iter().fold(Wire::new(), |list, (len, flags)| list.u64(*len).u64(*flags)).0;
    let len = 8 + list.len() as u32;
    let kind = ChunkType::BlockStatusExt;
    let header = ChunkHeader { kind, done: true, cookie: 0, offset: Some(OFFSET), len };
    status.accept(&header, &Wire::new().u32(ID).u32(count).0)?;
    list.chunks(step).try_for_each(|piece| status.feed(piece))
}

fn none() -> ChunkHeader {
    ChunkHeader { kind: ChunkType::None, done: true, cookie: 0, offset: None, len: 0 }
}

fn error() -> (ChunkHeader, Vec<u8>) {
    let header = ChunkHeader { kind: ChunkType::Error, done: true, cookie: 0, offset: None, len: 6 };
    (header, Wire::new().u32(5).u16(0).0)
}

#[test]
fn extents_of_the_selected_context() {
    for step in 1..=16 {
        let mut status = status();
        chunk32(&mut status, ID, &[(4096, 0), (61440, 3)], true, step).unwrap();
        assert_eq!(status.outcome(), Some(Ok(&[extent(4096, 0), extent(61440, 3)][..])), "step {step}");
    }
}

#[test]
fn extents_of_64_bits() {
    for step in 1..=32 {
        let mut status = StatusAssembly::new(OFFSET, 1 << 41, false, ID);
        chunk64(&mut status, 2, &[(1 << 40, 3), (1 << 40, 0)], step).unwrap();
        assert_eq!(status.outcome(), Some(Ok(&[extent(1 << 40, 3), extent(1 << 40, 0)][..])));
    }
}

#[test]
fn done_may_come_alone() {
    let mut status = status();
    chunk32(&mut status, ID, &[(512, 0)], false, 8).unwrap();
    assert_eq!(status.outcome(), None);
    assert_eq!(status.accept(&none(), &[]), Ok(None));
    assert_eq!(status.outcome(), Some(Ok(&[extent(512, 0)][..])), "shorter than asked is lawful");
}

#[test]
fn the_last_extent_may_end_behind_the_request_and_is_cut() {
    let (result, status) = reply32(&[(4096, 0), (u32::MAX, 3)]);
    assert_eq!(result, Ok(()));
    assert_eq!(status.outcome(), Some(Ok(&[extent(4096, 0), extent(61440, 3)][..])));
}

#[test]
fn no_extent_may_begin_at_or_behind_the_end_of_the_request() {
    let (result, status) = reply32(&[(65536, 0), (512, 3)]);
    assert_eq!(result, Err(ReplyViolation::ExtentsPastEnd));
    assert_eq!(status.outcome(), Some(Err(Errno::Io)));
}

#[test]
fn lengths_that_wrap_are_behind_the_end() {
    let mut status = StatusAssembly::new(OFFSET, 1 << 41, false, ID);
    let result = chunk64(&mut status, 2, &[(u64::MAX, 3), (u64::MAX, 0)], 16);
    assert_eq!(result, Err(ReplyViolation::ExtentsPastEnd));
}

#[test]
fn req_one_means_one_extent_inside_the_request() {
    for (extents, ok) in [
        (&[(4096, 0)][..], true),
        (&[(65536, 0)], true),
        (&[(65537, 0)], false),
        (&[(512, 0), (512, 3)], false),
    ] {
        let mut status = StatusAssembly::new(OFFSET, LEN, true, ID);
        let result = chunk32(&mut status, ID, extents, true, 8);
        assert_eq!(result, if ok { Ok(()) } else { Err(ReplyViolation::ExtentsPastEnd) }, "{extents:?}");
    }
}

#[test]
fn an_empty_extent_is_a_violation() {
    assert_eq!(reply32(&[(0, 0)]).0, Err(ReplyViolation::EmptyExtent));
    assert_eq!(reply32(&[(512, 0), (0, 3)]).0, Err(ReplyViolation::EmptyExtent));
}

#[test]
fn unknown_status_flags_are_ignored() {
    let (_, status) = reply32(&[(65536, 0xffff_fffe)]);
    assert_eq!(status.outcome(), Some(Ok(&[extent(65536, 2)][..])));
}

#[test]
fn another_context_is_a_violation() {
    let result = chunk32(&mut status(), ID + 1, &[(512, 0)], true, 8);
    assert_eq!(result, Err(ReplyViolation::UnknownContext(ID + 1)));
}

#[test]
fn the_same_context_twice_is_a_violation() {
    let mut status = status();
    chunk32(&mut status, ID, &[(512, 0)], false, 8).unwrap();
    let result = chunk32(&mut status, ID, &[(512, 0)], true, 8);
    assert_eq!(result, Err(ReplyViolation::RepeatedContext(ID)));
}

#[test]
fn success_without_a_status_chunk_is_a_violation() {
    let mut status = status();
    assert_eq!(status.accept(&none(), &[]), Err(ReplyViolation::Incomplete { missing: LEN }));
    assert_eq!(status.outcome(), Some(Err(Errno::Io)));
}

#[test]
fn descriptor_count_must_fit_the_chunk() {
    for count in [0, 1, 3, u32::MAX] {
        let result = chunk64(&mut status(), count, &[(512, 0), (512, 3)], 16);
        assert_eq!(result, Err(ReplyViolation::DescriptorCount(count)));
    }
}

#[test]
fn an_error_chunk_fails_the_request_even_after_extents() {
    let (header, payload) = error();
    let mut alone = status();
    assert!(alone.accept(&header, &payload).unwrap().is_some());
    assert_eq!(alone.outcome(), Some(Err(Errno::Io)));

    let mut after = status();
    chunk32(&mut after, ID, &[(512, 0)], false, 8).unwrap();
    after.accept(&header, &payload).unwrap();
    assert_eq!(after.outcome(), Some(Err(Errno::Io)));
}

#[test]
fn a_simple_reply_can_only_be_an_error() {
    let mut refused = status();
    assert_eq!(refused.accept_simple(Err(Errno::Invalid)), Ok(()));
    assert_eq!(refused.outcome(), Some(Err(Errno::Invalid)));
    assert_eq!(status().accept_simple(Ok(())), Err(ReplyViolation::SimpleReply));
}

#[test]
fn content_chunks_do_not_answer_a_block_status() {
    for kind in [ChunkType::OffsetData, ChunkType::OffsetHole] {
        let header = ChunkHeader { kind, ..none() };
        assert_eq!(status().accept(&header, &[0; 12]), Err(ReplyViolation::NotForCommand(kind)));
    }
}

#[test]
fn more_extents_than_we_keep_are_read_and_dropped() {
    let mut status = StatusAssembly::new(OFFSET, 1 << 20, false, ID);
    let extents: Vec<(u32, u32)> = (0..1 << 20).map(|at| (1, at & 1)).collect();
    chunk32(&mut status, ID, &extents, true, 4099).unwrap();
    let kept = status.outcome().unwrap().unwrap();
    assert_eq!(kept.len(), 65536);
    assert_eq!(kept[65535], extent(1, 1));
}
