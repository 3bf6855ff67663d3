// SPDX-License-Identifier: MIT OR Apache-2.0
//! A plain blocking host: one thing at a time, nothing checked but what the test checks.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use nbd::client::{ClientConfig, Handshake, HandshakeError, Negotiated, ReplyHeader, Step};
use nbd::{
    ChunkType, Command, CommandFlags, Decoded, Errno, REQUEST_HEADER_MAX, encode_disconnect, encode_request,
};

/// Long enough that only a missing event lets it pass.
const PATIENCE: Duration = Duration::from_secs(30);

pub struct Host {
    pub stream: TcpStream,
    pub negotiated: Negotiated,
    next_cookie: u64,
}

/// One reply.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub cookie: u64,
    pub result: Result<Vec<u8>, Errno>,
}

impl Host {
    pub fn connect(address: SocketAddr, export: &str) -> Self {
        Self::connect_as(address, ClientConfig::new(export)).unwrap()
    }

    pub fn simple(address: SocketAddr, export: &str) -> Self {
        let config = ClientConfig {
            structured: false,
            extended: false,
            base_allocation: false,
            ..ClientConfig::new(export)
        };
        Self::connect_as(address, config).unwrap()
    }

    pub fn structured(address: SocketAddr, export: &str) -> Self {
        Self::connect_as(address, ClientConfig { extended: false, ..ClientConfig::new(export) }).unwrap()
    }

    pub fn connect_as(address: SocketAddr, config: ClientConfig) -> Result<Self, HandshakeError> {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut machine = Handshake::new(config);
        let mut byte = [0; 4096];
        loop {
            let output = std::mem::take(machine.output());
            stream.write_all(&output).unwrap();
            match machine.next_step() {
                Step::NeedInput => {}
                Step::StartTls => panic!("TLS"),
                Step::ChooseExport(_) => panic!("nothing was listed"),
                Step::Finished(negotiated) => {
                    return Ok(Self { stream, negotiated: *negotiated, next_cookie: 1 });
                }
                Step::Failed(why) => return Err(why),
            }
            let len = stream.read(&mut byte).unwrap();
            assert!(len > 0, "closed in the handshake");
            // The last step shows what was wrong.
            let _ = machine.receive(&byte[..len]);
        }
    }

    fn cookie(&mut self) -> u64 {
        self.next_cookie += 1;
        self.next_cookie
    }

    /// Bytes of a request frame.
    pub fn frame(
        &self,
        command: Command,
        flags: CommandFlags,
        cookie: u64,
        offset: u64,
        len: u64,
    ) -> Vec<u8> {
        let mut header = [0; REQUEST_HEADER_MAX];
        let used = encode_request(self.negotiated.mode, command, flags, cookie, offset, len, &mut header);
        header[..used].to_vec()
    }

    pub fn send(
        &mut self,
        command: Command,
        flags: CommandFlags,
        offset: u64,
        len: u64,
        payload: &[u8],
    ) -> u64 {
        let cookie = self.cookie();
        let mut bytes = self.frame(command, flags, cookie, offset, len);
        bytes.extend_from_slice(payload);
        self.stream.write_all(&bytes).unwrap();
        cookie
    }

    /// The next whole reply; `len` is what a READ has asked for.
    pub fn answer(&mut self, len: usize) -> io::Result<Answer> {
        let mut data = Vec::new();
        loop {
            let header = self.header()?;
            match header {
                ReplyHeader::Simple { cookie, result } => {
                    if result.is_ok() {
                        data = self.bytes(len)?;
                    }
                    return Ok(Answer { cookie, result: result.map(|()| data) });
                }
                ReplyHeader::Chunk(chunk) => {
                    let payload = self.bytes(chunk.len as usize)?;
                    match chunk.kind {
                        ChunkType::None => {}
                        ChunkType::OffsetData => data.extend_from_slice(&payload[8..]),
                        ChunkType::BlockStatus | ChunkType::BlockStatusExt => data = payload,
                        kind if kind.is_error() => {
                            let number = u32::from_be_bytes(payload[..4].try_into().unwrap());
                            let result = Err(Errno::from_wire(number).unwrap());
                            return Ok(Answer { cookie: chunk.cookie, result });
                        }
                        kind => panic!("unexpected {kind:?}"),
                    }
                    if chunk.done {
                        return Ok(Answer { cookie: chunk.cookie, result: Ok(data) });
                    }
                }
            }
        }
    }

    fn header(&mut self) -> io::Result<ReplyHeader> {
        let mut bytes = Vec::new();
        loop {
            bytes.extend(self.bytes(1)?);
            match ReplyHeader::decode(&bytes, self.negotiated.mode) {
                Decoded::Header { header, .. } => return Ok(header),
                Decoded::NeedMore => {}
                Decoded::Violation(violation) => panic!("{violation}"),
            }
        }
    }

    fn bytes(&mut self, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.stream.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// One request and its reply.
    pub fn call(
        &mut self,
        command: Command,
        flags: CommandFlags,
        offset: u64,
        len: u64,
        payload: &[u8],
    ) -> Result<Vec<u8>, Errno> {
        let cookie = self.send(command, flags, offset, len, payload);
        let len = if command == Command::Read { len as usize } else { 0 };
        let answer = self.answer(len).unwrap();
        assert_eq!(answer.cookie, cookie);
        answer.result
    }

    pub fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), Errno> {
        self.call(Command::Write, CommandFlags::empty(), offset, data.len() as u64, data).map(drop)
    }

    pub fn read(&mut self, offset: u64, len: u64) -> Result<Vec<u8>, Errno> {
        self.call(Command::Read, CommandFlags::empty(), offset, len, &[])
    }

    pub fn flush(&mut self) -> Result<(), Errno> {
        self.call(Command::Flush, CommandFlags::empty(), 0, 0, &[]).map(drop)
    }

    pub fn send_disconnect(&mut self) {
        let mut header = [0; REQUEST_HEADER_MAX];
        let used = encode_disconnect(self.negotiated.mode, &mut header);
        self.stream.write_all(&header[..used]).unwrap();
    }

    /// Whether the other side has closed and nothing more comes.
    pub fn is_closed(&mut self) -> bool {
        let mut byte = [0; 1];
        match self.stream.read(&mut byte) {
            Ok(0) => true,
            Ok(_) => false,
            Err(error) => {
                assert!(
                    !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut),
                    "neither closed nor answered"
                );
                true
            }
        }
    }

    pub fn half_close(&self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }
}

/// Bytes that tell their place.
pub fn pattern(seed: u64, len: usize) -> Vec<u8> {
    (0..len as u64).map(|at| ((seed + at) ^ ((seed + at) >> 8)).to_be_bytes()[7]).collect()
}
