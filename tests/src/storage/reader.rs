// SPDX-License-Identifier: MIT OR Apache-2.0
//! One connection: read in exact amounts, send, close.

use std::io;
use std::rc::Rc;

use bytes::BytesMut;
use tokio_uring::net::TcpStream;

const READ_BYTES: usize = 64 * 1024;

/// Sends everything.
pub(super) async fn send(stream: &TcpStream, bytes: Vec<u8>) -> io::Result<()> {
    stream.write_all(bytes).await.0
}

/// Closes both directions; pending reads and writes end.
pub(super) fn close(stream: &TcpStream) {
    // A connection that is gone already cannot be shut down: nothing is left to do.
    let _ = stream.shutdown(std::net::Shutdown::Both);
}

/// Reads exact amounts from a connection.
pub(super) struct Reader {
    stream: Rc<TcpStream>,
    pending: BytesMut,
}

impl Reader {
    pub(super) fn new(stream: Rc<TcpStream>) -> Self {
        Self { stream, pending: BytesMut::new() }
    }

    /// The next `len` bytes; an error at the end of the stream.
    pub(super) async fn take(&mut self, len: usize) -> io::Result<Vec<u8>> {
        while self.pending.len() < len {
            let (result, buffer) = self.stream.read(Vec::with_capacity(READ_BYTES)).await;
            let read = result?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.pending.extend_from_slice(&buffer[..read]);
        }
        Ok(self.pending.split_to(len).into())
    }
}
