// SPDX-License-Identifier: MIT OR Apache-2.0
//! A scripted storage server: does the handshake, then whatever the test says.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread::JoinHandle;

use nbd::server::{ExportInfo, Handshake, ServerConfig, Session, Step};
use nbd::{Decoded, RequestHeader, TransmissionFlags};

/// Takes the connections of one lane, one after the other.
pub struct Server {
    listener: TcpListener,
}

/// One connection after its handshake.
pub struct Connection {
    pub stream: TcpStream,
    pub session: Box<Session>,
}

pub const SIZE_BYTES: u64 = 16 << 20;

impl Server {
    pub fn bind() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").unwrap() }
    }

    pub fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    /// Runs `script` for connection 0, 1, 2 ... until it returns `false`.
    pub fn run(self, mut script: impl FnMut(usize, Connection) -> bool + Send + 'static) -> JoinHandle<()> {
        std::thread::spawn(move || {
            for index in 0.. {
                let (stream, _) = self.listener.accept().unwrap();
                // A connection that broke in its handshake does not count.
                let Ok(connection) = shake(stream) else { continue };
                if !script(index, connection) {
                    return;
                }
            }
        })
    }

    pub fn accept_raw(&self) -> TcpStream {
        self.listener.accept().unwrap().0
    }
}

fn shake(mut stream: TcpStream) -> io::Result<Connection> {
    stream.set_nodelay(true)?;
    let mut machine =
        Handshake::new(ServerConfig { structured: false, extended: false, ..ServerConfig::default() });
    loop {
        let output = std::mem::take(machine.output());
        stream.write_all(&output)?;
        match machine.next_step() {
            Step::Lookup { .. } => {
                let mut info = ExportInfo::new("disk", SIZE_BYTES);
                for flag in [
                    TransmissionFlags::SEND_FLUSH,
                    TransmissionFlags::SEND_FUA,
                    TransmissionFlags::SEND_TRIM,
                    TransmissionFlags::SEND_WRITE_ZEROES,
                    TransmissionFlags::CAN_MULTI_CONN,
                ] {
                    info.flags = info.flags.with(flag);
                }
                machine.answer_lookup(Ok(info));
                continue;
            }
            Step::Finished(session) => return Ok(Connection { stream, session }),
            Step::NeedInput | Step::SendOutput => {}
            other => panic!("{other:?}"),
        }
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        machine.receive(&byte).unwrap();
    }
}

impl Connection {
    /// The next request and its payload; `None` at EOF.
    pub fn request(&mut self) -> Option<(RequestHeader, Vec<u8>)> {
        let mut bytes = [0; 28];
        self.stream.read_exact(&mut bytes).ok()?;
        let Decoded::Header { header, .. } = RequestHeader::decode(&bytes, false) else {
            panic!("bad request")
        };
        let mut payload = Vec::new();
        if header.command == nbd::Command::Write as u16 {
            payload.resize(header.len as usize, 0);
            self.stream.read_exact(&mut payload).ok()?;
        }
        Some((header, payload))
    }

    /// A simple reply.
    pub fn reply(&mut self, cookie: u64, error: u32, data: &[u8]) -> io::Result<()> {
        let mut bytes = 0x6744_6698_u32.to_be_bytes().to_vec();
        bytes.extend(error.to_be_bytes());
        bytes.extend(cookie.to_be_bytes());
        bytes.extend(data);
        self.stream.write_all(&bytes)
    }

    /// Serves everything out of `disk` until EOF or DISC.
    pub fn serve(&mut self, disk: &std::sync::Mutex<Vec<u8>>) {
        while let Some((header, payload)) = self.request() {
            if !self.serve_one(disk, &header, &payload) {
                return;
            }
        }
    }

    /// Serves one request; `false` at DISC or when the peer is gone.
    pub fn serve_one(
        &mut self,
        disk: &std::sync::Mutex<Vec<u8>>,
        header: &RequestHeader,
        payload: &[u8],
    ) -> bool {
        let range = header.offset as usize..(header.offset + header.len) as usize;
        let mut data = Vec::new();
        match header.command {
            0 => data.extend_from_slice(&disk.lock().unwrap()[range]),
            1 => disk.lock().unwrap()[range].copy_from_slice(payload),
            2 => return false,
            6 => disk.lock().unwrap()[range].fill(0),
            _ => {}
        }
        self.reply(header.cookie, 0, &data).is_ok()
    }
}
