// SPDX-License-Identifier: MIT OR Apache-2.0
//! One connection of the storage server after its handshake.
//!
//! Requests are read in order, executed concurrently and answered as they finish, as
//! real servers do; a lock per connection keeps their frames whole.

use std::io;
use std::rc::Rc;
use std::time::Instant;

use tokio::sync::Mutex;
use tokio_uring::net::TcpStream;

use super::reader::{Reader, close, send};
use super::server::Shared;
use super::{Garble, RequestEntry, handshake};
use crate::wire::{CHUNK_MAGIC, Request, SIMPLE_REPLY_MAGIC, command, errno};

/// Zeroes are written in pieces of this many bytes.
const ZERO_BYTES: usize = 1 << 20;

/// One connection; shared by the tasks of its requests.
struct Session {
    stream: Rc<TcpStream>,
    sending: Mutex<()>,
    shared: Rc<Shared>,
}

/// Serves a connection to its end.
pub(super) async fn run(stream: Rc<TcpStream>, shared: Rc<Shared>) {
    let number = shared.record.connection_opened();
    let closing = Closing(Rc::clone(&shared));
    let mut reader = Reader::new(Rc::clone(&stream));
    let session = Rc::new(Session { stream: Rc::clone(&stream), sending: Mutex::new(()), shared });
    // Clients go as they please: the end of a connection is no news here.
    let _ = session.serve(&mut reader, number).await;
    close(&stream);
    drop(closing);
}

/// Counts the connection as closed even if its task is dropped.
struct Closing(Rc<Shared>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.record.connection_closed();
    }
}

impl Session {
    async fn serve(self: &Rc<Self>, reader: &mut Reader, number: u32) -> io::Result<()> {
        if !handshake::run(&self.stream, reader, &self.shared).await? {
            return Ok(());
        }
        loop {
            if self.shared.faults().stop_reading {
                self.shared.record.fault_fired();
                self.shared.until(|faults| !faults.stop_reading).await;
            }
            let head = reader.take(Request::SIZE).await?;
            let Some(request) = Request::decode(&head) else { return Ok(()) };
            if request.command == command::DISC {
                return Ok(());
            }
            let payload = self.payload(reader, request).await?;
            let index = self.shared.record.arrived(RequestEntry {
                arrived: Instant::now(),
                answered: None,
                connection: number,
                command: request.command,
                flags: request.flags,
                offset: request.offset,
                len: request.len,
                head: if payload.len() >= 8 { crate::wire::u64_at(&payload, 0) } else { 0 },
            });
            let session = Rc::clone(self);
            tokio_uring::spawn(async move {
                if session.answer(request, payload, index).await.is_err() {
                    close(&session.stream);
                }
            });
        }
    }

    async fn payload(&self, reader: &mut Reader, request: Request) -> io::Result<Vec<u8>> {
        if request.command != command::WRITE {
            return Ok(Vec::new());
        }
        if self.shared.faults().cut_write_payload {
            reader.take(request.len as usize / 2).await?;
            self.shared.record.fault_fired();
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        reader.take(request.len as usize).await
    }

    async fn answer(&self, request: Request, payload: Vec<u8>, index: usize) -> io::Result<()> {
        if self.shared.faults().hold_execution {
            self.shared.record.fault_fired();
            self.shared.until(|faults| !faults.hold_execution).await;
        }
        let (error, data) = match self.injected_error(request) {
            Some(error) => {
                self.shared.record.fault_fired();
                (error, Vec::new())
            }
            None => self.execute(request, payload).await,
        };
        let delay = self.shared.faults().reply_delay;
        if !delay.is_zero() {
            self.shared.record.fault_fired();
            tokio::time::sleep(delay).await;
        }
        if self.shared.faults().hold_replies {
            self.shared.record.fault_fired();
            self.shared.until(|faults| !faults.hold_replies).await;
        }
        self.send_reply(request, error, data).await?;
        self.shared.record.answered(index);
        Ok(())
    }

    fn injected_error(&self, request: Request) -> Option<u32> {
        let faults = self.shared.faults();
        match request.command {
            command::READ => faults.read_error,
            command::WRITE | command::TRIM | command::WRITE_ZEROES => faults.write_error,
            command::FLUSH => faults.flush_error,
            _ => None,
        }
    }

    /// Error number and data of a READ.
    async fn execute(&self, request: Request, payload: Vec<u8>) -> (u32, Vec<u8>) {
        let in_range = request.offset.checked_add(u64::from(request.len));
        if in_range.is_none_or(|end| end > self.shared.size_bytes) {
            return (errno::EINVAL, Vec::new());
        }
        let file = &self.shared.file;
        let done = match request.command {
            command::READ => return self.read(request).await,
            command::WRITE => file.write_all_at(payload, request.offset).await.0,
            command::TRIM | command::WRITE_ZEROES => self.zero(request).await,
            command::FLUSH => file.sync_data().await,
            command::CACHE => Ok(()),
            _ => return (errno::EINVAL, Vec::new()),
        };
        let done = match done {
            Ok(()) if request.flags & crate::wire::COMMAND_FUA != 0 => file.sync_data().await,
            other => other,
        };
        (if done.is_ok() { 0 } else { errno::EIO }, Vec::new())
    }

    async fn read(&self, request: Request) -> (u32, Vec<u8>) {
        let mut data: Vec<u8> = Vec::with_capacity(request.len as usize);
        while data.len() < request.len as usize {
            let rest = Vec::with_capacity(request.len as usize - data.len());
            let (result, part) = self.shared.file.read_at(rest, request.offset + data.len() as u64).await;
            match result {
                // A file shorter than the size we told.
                Ok(0) => data.resize(request.len as usize, 0),
                Ok(read) => data.extend_from_slice(&part[..read]),
                Err(_) => return (errno::EIO, Vec::new()),
            }
        }
        (0, data)
    }

    async fn zero(&self, request: Request) -> io::Result<()> {
        let mut done = 0;
        while done < u64::from(request.len) {
            let piece = ZERO_BYTES.min((u64::from(request.len) - done) as usize);
            self.shared.file.write_all_at(vec![0; piece], request.offset + done).await.0?;
            done += piece as u64;
        }
        Ok(())
    }

    async fn send_reply(&self, request: Request, error: u32, data: Vec<u8>) -> io::Result<()> {
        let faults = self.shared.faults();
        let mut bytes = Vec::with_capacity(16 + data.len());
        bytes.extend_from_slice(&SIMPLE_REPLY_MAGIC.to_be_bytes());
        bytes.extend_from_slice(&error.to_be_bytes());
        bytes.extend_from_slice(&request.cookie.to_be_bytes());
        if let Some(garble) = faults.garble {
            self.shared.record.fault_fired();
            garble_reply(&mut bytes, garble);
        }
        let _turn = self.sending.lock().await;
        if faults.cut_reply_header {
            self.shared.record.fault_fired();
            bytes.truncate(7);
            send(&self.stream, bytes).await?;
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        let cut = faults.cut_read_data && data.len() > 1;
        bytes.extend_from_slice(if cut { &data[..data.len() / 2] } else { &data });
        send(&self.stream, bytes).await?;
        if cut {
            self.shared.record.fault_fired();
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        Ok(())
    }
}

fn garble_reply(bytes: &mut Vec<u8>, garble: Garble) {
    match garble {
        Garble::ReplyMagic => bytes[0] ^= 0xff,
        Garble::UnknownCookie => bytes[8] ^= 0xff,
        Garble::UnexpectedChunk => bytes[..4].copy_from_slice(&CHUNK_MAGIC.to_be_bytes()),
        Garble::StrayBytes => {
            bytes.splice(0..0, [0xa5; 5]);
        }
    }
}
