// SPDX-License-Identifier: MIT OR Apache-2.0
//! Memory: none per request, and none on a peer's word alone.
//!
//! A counting allocator stands in for the system's, per thread so that tests cannot disturb one another. It
//! proves two things no reading of the code can: that requests and common replies are decoded, judged and
//! encoded without an allocation, and that a peer which announces much and sends little makes us hold little
//! (CVE-2022-26495 allocated by the announced length).

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use nbd::client::{self, ChunkHeader, ClientConfig, ReadAssembly, ReadPiece, ReplyHeader};
use nbd::server::{
    self, ExportLimits, REPLY_HEADER_MAX, ReplyEncoder, ServerConfig, SessionMode, Verdict, check_request,
};
use nbd::{
    BlockSizes, Command, CommandFlags, Decoded, REQUEST_HEADER_MAX, ReplyMode, RequestHeader,
    TransmissionFlags, encode_request,
};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    static ALLOCATED_BYTES: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

fn count(bytes: usize) {
    ALLOCATIONS.set(ALLOCATIONS.get() + 1);
    ALLOCATED_BYTES.set(ALLOCATED_BYTES.get() + bytes as u64);
}

// SAFETY: every call goes to the system allocator unchanged; the counters are thread-local cells without a
// destructor and never allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from `alloc` above, which is the system's.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Allocations and bytes allocated while `work` runs.
fn counted<T>(work: impl FnOnce() -> T) -> (T, u64, u64) {
    let before = (ALLOCATIONS.get(), ALLOCATED_BYTES.get());
    let result = work();
    (result, ALLOCATIONS.get() - before.0, ALLOCATED_BYTES.get() - before.1)
}

const LIMITS: ExportLimits = ExportLimits {
    size_bytes: 1 << 30,
    flags: TransmissionFlags(0b1101_1111_1101),
    block: BlockSizes::DEFAULT,
};

#[test]
fn the_allocator_counts() {
    let (boxed, allocations, bytes) = counted(|| Box::new([0u8; 100]));
    assert_eq!((allocations, bytes), (1, 100));
    drop(boxed);
}

#[test]
fn a_request_and_its_reply_allocate_nothing() {
    for mode in [ReplyMode::Simple, ReplyMode::Structured, ReplyMode::Extended] {
        let session = SessionMode { reply: mode, block_status: mode.has_chunks() };
        let (accepted, allocations, _) = counted(|| {
            let mut accepted = 0;
            for command in
                [Command::Read, Command::Write, Command::Trim, Command::WriteZeroes, Command::Cache]
            {
                let mut bytes = [0; REQUEST_HEADER_MAX];
                let len = encode_request(mode, command, CommandFlags::empty(), 1, 4096, 4096, &mut bytes);
                let Decoded::Header { header, .. } = RequestHeader::decode(&bytes[..len], mode.is_extended())
                else {
                    continue;
                };
                accepted += u32::from(matches!(check_request(&header, &LIMITS, session), Verdict::Accept(_)));
                let encoder = ReplyEncoder::new(mode, header.cookie, header.offset);
                let mut reply = [0; REPLY_HEADER_MAX];
                encoder.done(&mut reply);
                encoder.error(nbd::Errno::Io, &mut reply);
            }
            accepted
        });
        assert_eq!((accepted, allocations), (5, 0), "{mode:?}");
    }
}

#[test]
fn a_refusal_allocates_nothing() {
    let header = RequestHeader {
        flags: CommandFlags(0xffff),
        command: 99,
        cookie: 1,
        offset: u64::MAX,
        len: u64::MAX,
    };
    let session = SessionMode { reply: ReplyMode::Extended, block_status: true };
    let (verdict, allocations, _) = counted(|| check_request(&header, &LIMITS, session));
    assert!(matches!(verdict, Verdict::RejectAndClose(_)));
    assert_eq!(allocations, 0);
}

#[test]
fn a_read_answered_in_order_allocates_nothing() {
    for mode in [ReplyMode::Structured, ReplyMode::Extended] {
        let mut bytes = [0; REPLY_HEADER_MAX];
        let len = ReplyEncoder::new(mode, 1, 4096).read_ok(4096, &mut bytes);
        let (piece, allocations, _) = counted(|| {
            let Decoded::Header { header: ReplyHeader::Chunk(chunk), consumed } =
                ReplyHeader::decode(&bytes[..len], mode)
            else {
                return None;
            };
            let mut read = ReadAssembly::new(4096, 4096, false);
            read.accept(&chunk, &bytes[consumed..len])
                .ok()
                .map(|piece| matches!(piece, ReadPiece::Data { .. }))
        });
        assert_eq!((piece, allocations), (Some(true), 0));
    }
    let mut read = ReadAssembly::new(0, 4096, false);
    let kind = nbd::ChunkType::OffsetData;
    let (accepted, allocations, _) = counted(|| {
        (0u64..8).all(|at| {
            let header = ChunkHeader { kind, done: at == 7, cookie: 0, offset: None, len: 8 + 512 };
            read.accept(&header, &(at * 512).to_be_bytes()).is_ok()
        })
    });
    assert_eq!((accepted, allocations), (true, 0), "eight chunks in order");
}

fn option_header(code: u32, len: u32) -> Vec<u8> {
    [&b"IHAVEOPT"[..], &code.to_be_bytes(), &len.to_be_bytes()].concat()
}

#[test]
fn an_announced_option_costs_nothing_until_it_comes() {
    for code in [1, 6, 7, 9, 10, 77] {
        let mut handshake = server::Handshake::new(ServerConfig::default());
        assert_eq!(handshake.receive(&[0, 0, 0, 3]), Ok(4));
        let header = option_header(code, 65536);
        let (result, _, bytes) = counted(|| handshake.receive(&header));
        assert_eq!(result, Ok(16));
        assert!(bytes <= 64, "option {code}: {bytes} bytes for an announcement");
    }
}

#[test]
fn a_skipped_option_is_not_kept() {
    let mut handshake = server::Handshake::new(ServerConfig::default());
    assert_eq!(handshake.receive(&[0, 0, 0, 3]), Ok(4));
    assert_eq!(handshake.receive(&option_header(77, 65536)), Ok(16));
    let junk = vec![0xaa; 65535];
    let (result, _, bytes) = counted(|| handshake.receive(&junk));
    assert_eq!((result, bytes), (Ok(65535), 0));
}

#[test]
fn counts_inside_an_option_are_not_believed() {
    let name = [0, 0, 0, 4, b'v', b'o', b'l', b'0'];
    let mut handshake = server::Handshake::new(ServerConfig::default());
    assert_eq!(handshake.receive(&[0, 0, 0, 3]), Ok(4));
    for (code, data) in [
        (7, u32::MAX.to_be_bytes().to_vec()),
        (7, [&name[..], &[0xff, 0xff]].concat()),
        (8, vec![]),
        (10, [&name[..], &[0, 0, 0, 64], &[0xff, 0xff, 0xff, 0xff]].concat()),
    ] {
        let option = [option_header(code, data.len() as u32), data].concat();
        let (result, _, bytes) = counted(|| handshake.receive(&option));
        assert_eq!(result, Ok(option.len()));
        assert!(bytes <= 1024, "option {code}: {bytes} bytes");
        handshake.output().clear();
    }
}

#[test]
fn an_announced_option_reply_costs_nothing_until_it_comes() {
    let config = ClientConfig { extended: false, structured: false, ..ClientConfig::new("vol0") };
    let mut handshake = client::Handshake::new(config);
    assert_eq!(handshake.receive(b"NBDMAGICIHAVEOPT\x00\x03"), Ok(18));
    let magic = 0x0003_e889_0455_65a9_u64.to_be_bytes();
    let header = [&magic[..], &[0, 0, 0, 7], &[0x80, 0, 0, 2], &[0, 1, 0, 0]].concat();
    let (result, _, bytes) = counted(|| handshake.receive(&header));
    assert_eq!(result, Ok(20));
    assert!(bytes <= 64, "{bytes} bytes for an announcement");
}
