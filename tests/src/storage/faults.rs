// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a misbehaving storage server does wrong.

use std::time::Duration;

/// All faults at once; the default is a good server. Each applies from the moment it is
/// set to every connection, also to requests already received where that makes sense.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Answer READ with this NBD error.
    pub read_error: Option<u32>,
    /// Answer WRITE, TRIM and WRITE_ZEROES with this NBD error, without executing them.
    pub write_error: Option<u32>,
    /// Answer FLUSH with this NBD error.
    pub flush_error: Option<u32>,
    /// Answer READ with a header and half its data, then close the connection.
    pub cut_read_data: bool,
    /// Take half the payload of a WRITE, then close the connection.
    pub cut_write_payload: bool,
    /// Close the connection in the middle of a reply header.
    pub cut_reply_header: bool,
    /// Execute requests and keep the replies until this is taken back.
    pub hold_replies: bool,
    /// Take requests and do not execute them until this is taken back.
    pub hold_execution: bool,
    /// Take nothing more from the sockets until this is taken back.
    pub stop_reading: bool,
    /// Answer each request this much later; requests overlap.
    pub reply_delay: Duration,
    /// Say nothing at all to new connections.
    pub silent_handshake: bool,
    /// Answer GO with a policy error and this text.
    pub refuse: Option<String>,
    /// Break the framing of replies.
    pub garble: Option<Garble>,
}

/// Ways to break the framing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Garble {
    /// A reply that begins with no known magic number.
    ReplyMagic,
    /// A reply for a cookie that was never sent.
    UnknownCookie,
    /// A reply in chunks though none were negotiated.
    UnexpectedChunk,
    /// Bytes that belong to no reply, then the reply.
    StrayBytes,
}

impl Faults {
    /// A good server.
    pub fn none() -> Self {
        Self::default()
    }

    /// EIO for reads and writes. Not for FLUSH: a failed FLUSH says that acknowledged
    /// writes may be lost, which no other path can make good (rule F9).
    pub fn eio() -> Self {
        use crate::wire::errno::EIO;
        Self { read_error: Some(EIO), write_error: Some(EIO), ..Self::default() }
    }

    /// Close in the middle of payloads, both ways.
    pub fn cut_payload() -> Self {
        Self { cut_read_data: true, cut_write_payload: true, ..Self::default() }
    }
}
