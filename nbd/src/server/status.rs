// SPDX-License-Identifier: MIT OR Apache-2.0
//! Answers to BLOCK_STATUS.
//!
//! The caller gives the extents it found, in any lengths; this file makes them lawful: neighbours of one
//! status are joined, nothing is empty, the list stops at the end of the request (a longer last extent would
//! be allowed, but nobody needs it) and at [`EXTENTS_SENT_MAX`], REQ_ONE leaves one, and with 32-bit lengths
//! a longer extent is cut into several. Stopping early is always allowed; answering nothing is not, so an
//! empty list becomes one extent of unknown status, which is status 0.

use alloc::vec::Vec;

use crate::extent::Extent;
use crate::limits::EXTENTS_SENT_MAX;
use crate::server::{REPLY_HEADER_MAX, ReplyEncoder};
use crate::wire::Put;

/// Longest extent of a 32-bit descriptor that keeps the alignment of any minimum block size.
const COMPACT_EXTENT_MAX: u64 = 0xffff_ffff & !0xffff;

/// What a status chunk must fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusReply {
    /// Session and request.
    pub encoder: ReplyEncoder,
    /// Length of the request, not zero.
    pub len: u64,
    /// The request carries REQ_ONE.
    pub one_extent: bool,
    /// Id of the metadata context.
    pub context_id: u32,
    /// No other chunk follows (the last of the selected contexts).
    pub last: bool,
}

/// Appends one status chunk to `out`. `extents` follow one another from the offset of the request.
///
/// # Panics
///
/// When the length of the request is zero, which [`check_request`](crate::server::check_request) refuses.
pub fn encode_status(reply: &StatusReply, extents: impl IntoIterator<Item = Extent>, out: &mut Vec<u8>) {
    assert!(reply.len > 0, "status of an empty range");
    let extended = reply.encoder.mode.is_extended();
    let (fixed_bytes, each_bytes) = if extended { (8, 16) } else { (4, 8) };
    // The chunk header has one length in a dialect, so the list can be written behind it and both filled in
    // afterwards.
    let mut header = [0; REPLY_HEADER_MAX];
    let header_bytes = reply.encoder.status_header(reply.last, 0, &mut header);
    let start = out.len();
    out.extend_from_slice(&header[..header_bytes]);
    out.put_u32(reply.context_id);
    if extended {
        out.put_u32(0);
    }
    let mut list = List { reply, out, count: 0, room: reply.len };
    list.fill(extents);
    let count = list.count;
    let payload_bytes = fixed_bytes + each_bytes * count as u64;
    reply.encoder.status_header(reply.last, payload_bytes, &mut header);
    out[start..start + header_bytes].copy_from_slice(&header[..header_bytes]);
    if extended {
        let at = start + header_bytes + 4;
        out[at..at + 4].copy_from_slice(&(count as u32).to_be_bytes());
    }
}

/// The descriptors of one chunk while they are written.
struct List<'a> {
    reply: &'a StatusReply,
    out: &'a mut Vec<u8>,
    count: usize,
    /// Bytes of the request not described yet.
    room: u64,
}

impl List<'_> {
    fn fill(&mut self, extents: impl IntoIterator<Item = Extent>) {
        let mut open: Option<Extent> = None;
        for extent in extents {
            open = match open {
                Some(before) if before.flags == extent.flags || extent.len == 0 => {
                    Some(Extent { len: before.len.saturating_add(extent.len), ..before })
                }
                Some(before) => {
                    self.write(before);
                    Some(extent)
                }
                None => (extent.len > 0).then_some(extent),
            };
            if self.is_full() || open.is_some_and(|extent| extent.len >= self.room) {
                break;
            }
        }
        if let Some(last) = open {
            self.write(last);
        }
        if self.count == 0 {
            self.write(Extent { len: self.reply.len, flags: 0 });
        }
    }

    fn is_full(&self) -> bool {
        self.room == 0 || self.count == EXTENTS_SENT_MAX || (self.reply.one_extent && self.count == 1)
    }

    fn write(&mut self, extent: Extent) {
        let mut left = extent.len;
        while left > 0 && !self.is_full() {
            let extended = self.reply.encoder.mode.is_extended();
            let len = left.min(self.room).min(if extended { u64::MAX } else { COMPACT_EXTENT_MAX });
            if extended {
                self.out.put_u64(len);
                self.out.put_u64(extent.flags);
            } else {
                self.out.put_u32(len as u32);
                self.out.put_u32(extent.flags as u32);
            }
            self.count += 1;
            self.room -= len;
            left -= len;
        }
    }
}
