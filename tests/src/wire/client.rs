// SPDX-License-Identifier: MIT OR Apache-2.0
//! A small NBD client over plain blocking sockets: enough to be a host, free enough to
//! be a hostile one. It never times out a request by itself (rule T2); the reading side has
//! a bound that turns a hang into an error the test sees.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::frame::{u16_at, u32_at, u64_at};
use super::{
    CHUNK_MAGIC, NBD_MAGIC, OPTION_MAGIC, OPTION_REPLY_MAGIC, OptionReply, Request, SIMPLE_REPLY_MAGIC,
    command, go_payload, option, option_frame, reply,
};
use crate::Endpoint;

/// Longer than anything a test waits for on purpose.
const READ_BOUND: Duration = Duration::from_secs(45);

/// Why a connection could not be used.
#[derive(Debug)]
pub enum ClientError {
    /// The connection broke, was closed or stayed silent.
    Io(io::Error),
    /// The server turned the export away: kind of error reply, text.
    Refused(u32, String),
    /// The server sent something the protocol does not allow.
    Protocol(String),
}

impl From<io::Error> for ClientError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Answer to one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Cookie of the request.
    pub cookie: u64,
    /// 0, or an NBD error number.
    pub error: u32,
    /// Data of a successful READ.
    pub data: Vec<u8>,
}

/// One connection.
#[derive(Debug)]
pub struct Client {
    stream: Stream,
    size_bytes: u64,
    flags: u16,
    structured: bool,
    description: String,
    next_cookie: u64,
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Client {
    /// Connects and reads the server's greeting; the client's flags are not sent yet.
    pub fn greet(endpoint: &Endpoint) -> Result<Self, ClientError> {
        let mut client = Self::connect(endpoint)?;
        let mut greeting = [0; 18];
        client.stream.read_exact(&mut greeting)?;
        if u64_at(&greeting, 0) != NBD_MAGIC || u64_at(&greeting, 8) != OPTION_MAGIC {
            return Err(ClientError::Protocol(format!("greeting {greeting:02x?}")));
        }
        Ok(client)
    }

    /// Exactly so many bytes, whatever they are.
    pub fn receive(&mut self, len: usize) -> Result<Vec<u8>, ClientError> {
        let mut bytes = vec![0; len];
        self.stream.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// Connects and does nothing else.
    pub fn connect(endpoint: &Endpoint) -> io::Result<Self> {
        let stream = match endpoint {
            Endpoint::Tcp(address) => {
                let stream = TcpStream::connect(address)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(READ_BOUND))?;
                stream.set_write_timeout(Some(READ_BOUND))?;
                Stream::Tcp(stream)
            }
            Endpoint::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(READ_BOUND))?;
                stream.set_write_timeout(Some(READ_BOUND))?;
                Stream::Unix(stream)
            }
        };
        let description = String::new();
        Ok(Self { stream, size_bytes: 0, flags: 0, structured: false, description, next_cookie: 1 })
    }

    /// Connects, shakes hands and opens an export with GO; simple replies.
    pub fn open(endpoint: &Endpoint, export: &str) -> Result<Self, ClientError> {
        let mut client = Self::greet(endpoint)?;
        client.send(&3u32.to_be_bytes())?;
        client.go(export)?;
        Ok(client)
    }

    /// Chooses an export on a connection that has sent its flags.
    pub fn go(&mut self, export: &str) -> Result<(), ClientError> {
        self.go_with(&go_payload(export))
    }

    /// The same, and asks for the export's description.
    pub fn go_described(&mut self, export: &str) -> Result<(), ClientError> {
        let mut payload = go_payload(export);
        let count = payload.len() - 2;
        payload[count..].copy_from_slice(&[0, 1]);
        payload.extend_from_slice(&[0, 2]);
        self.go_with(&payload)
    }

    fn go_with(&mut self, payload: &[u8]) -> Result<(), ClientError> {
        self.send(&option_frame(option::GO, payload))?;
        let mut told = false;
        loop {
            let answer = self.option_reply()?;
            match answer.kind {
                reply::ACK if told => return Ok(()),
                reply::INFO if answer.data.len() == 12 && u16_at(&answer.data, 0) == 0 => {
                    self.size_bytes = u64_at(&answer.data, 2);
                    self.flags = u16_at(&answer.data, 10);
                    told = true;
                }
                reply::INFO if answer.data.len() >= 2 && u16_at(&answer.data, 0) == 2 => {
                    self.description = String::from_utf8_lossy(&answer.data[2..]).into_owned();
                }
                reply::INFO => {}
                kind if kind >= reply::ERR_UNSUP => return Err(ClientError::Refused(kind, answer.text())),
                kind => return Err(ClientError::Protocol(format!("GO answered with {kind}"))),
            }
        }
    }

    /// Export size in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Description of the export, where it was asked for.
    pub fn description(&self) -> &str {
        &self.description
    }

    /// Transmission flags of the export.
    pub fn flags(&self) -> u16 {
        self.flags
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends one option and returns its first reply.
    pub fn option(&mut self, number: u32, payload: &[u8]) -> Result<OptionReply, ClientError> {
        self.send(&option_frame(number, payload))?;
        let answer = self.option_reply()?;
        if number == option::STRUCTURED_REPLY && answer.kind == reply::ACK {
            self.structured = true;
        }
        Ok(answer)
    }

    /// Reads one option reply.
    pub fn option_reply(&mut self) -> Result<OptionReply, ClientError> {
        let mut head = [0; 20];
        self.stream.read_exact(&mut head)?;
        if u64_at(&head, 0) != OPTION_REPLY_MAGIC {
            return Err(ClientError::Protocol(format!("option reply {head:02x?}")));
        }
        let mut data = vec![0; u32_at(&head, 16) as usize];
        self.stream.read_exact(&mut data)?;
        Ok(OptionReply { option: u32_at(&head, 8), kind: u32_at(&head, 12), data })
    }

    /// Sends a request with its payload and returns its cookie.
    pub fn submit(
        &mut self,
        command: u16,
        flags: u16,
        offset: u64,
        len: u32,
        payload: &[u8],
    ) -> io::Result<u64> {
        let cookie = self.next_cookie;
        self.next_cookie += 1;
        let mut bytes = Request { flags, command, cookie, offset, len }.encode().to_vec();
        bytes.extend_from_slice(payload);
        self.send(&bytes)?;
        Ok(cookie)
    }

    /// Sends a READ.
    pub fn submit_read(&mut self, offset: u64, len: u32) -> io::Result<u64> {
        self.submit(command::READ, 0, offset, len, &[])
    }

    /// Sends a WRITE.
    pub fn submit_write(&mut self, offset: u64, payload: &[u8]) -> io::Result<u64> {
        let len = u32::try_from(payload.len()).expect("test payloads are small");
        self.submit(command::WRITE, 0, offset, len, payload)
    }

    /// Reads one simple reply; `read_len(cookie)` tells the length of a READ's data.
    pub fn reply(&mut self, read_len: impl Fn(u64) -> usize) -> Result<Reply, ClientError> {
        if self.structured {
            return self.structured_reply(read_len);
        }
        let mut head = [0; 16];
        self.stream.read_exact(&mut head)?;
        if u32_at(&head, 0) != SIMPLE_REPLY_MAGIC {
            return Err(ClientError::Protocol(format!("reply {head:02x?}")));
        }
        let (error, cookie) = (u32_at(&head, 4), u64_at(&head, 8));
        let mut data = vec![0; if error == 0 { read_len(cookie) } else { 0 }];
        self.stream.read_exact(&mut data)?;
        Ok(Reply { cookie, error, data })
    }

    fn structured_reply(&mut self, read_len: impl Fn(u64) -> usize) -> Result<Reply, ClientError> {
        let mut answer: Option<Reply> = None;
        loop {
            let mut head = [0; 20];
            self.stream.read_exact(&mut head[..16])?;
            if u32_at(&head, 0) == SIMPLE_REPLY_MAGIC && answer.is_none() {
                // Allowed for everything but READ.
                return Ok(Reply { cookie: u64_at(&head, 8), error: u32_at(&head, 4), data: Vec::new() });
            }
            self.stream.read_exact(&mut head[16..])?;
            if u32_at(&head, 0) != CHUNK_MAGIC {
                return Err(ClientError::Protocol(format!("chunk {head:02x?}")));
            }
            let (done, kind, cookie) = (u16_at(&head, 4) & 1 == 1, u16_at(&head, 6), u64_at(&head, 8));
            let mut data = vec![0; u32_at(&head, 16) as usize];
            self.stream.read_exact(&mut data)?;
            let reply =
                answer.get_or_insert_with(|| Reply { cookie, error: 0, data: vec![0; read_len(cookie)] });
            if kind & 0x8000 != 0 {
                reply.error = u32_at(&data, 0);
                reply.data.clear();
            }
            // Offsets of data chunks are absolute; the suites read whole, aligned blocks.
            if kind == 1 {
                reply.data = data[8..].to_vec();
            }
            if done {
                return answer.ok_or_else(|| ClientError::Protocol("no reply".to_owned()));
            }
        }
    }

    /// Sends a request and waits for its reply; nothing else may be in flight.
    pub fn call(&mut self, command: u16, flags: u16, offset: u64, len: u32) -> Result<Reply, ClientError> {
        let cookie = self.submit(command, flags, offset, len, &[])?;
        let data_len = if command == command::READ { len as usize } else { 0 };
        self.own_reply(cookie, data_len)
    }

    /// Reads a range; nothing else may be in flight.
    pub fn read(&mut self, offset: u64, len: u32) -> Result<Reply, ClientError> {
        self.call(command::READ, 0, offset, len)
    }

    /// Writes a range; nothing else may be in flight.
    pub fn write(&mut self, offset: u64, payload: &[u8]) -> Result<Reply, ClientError> {
        let cookie = self.submit_write(offset, payload)?;
        self.own_reply(cookie, 0)
    }

    /// Flushes; nothing else may be in flight.
    pub fn flush(&mut self) -> Result<Reply, ClientError> {
        self.call(command::FLUSH, 0, 0, 0)
    }

    /// Says goodbye and waits until the server has closed the connection.
    pub fn disconnect(mut self) -> Result<(), ClientError> {
        self.submit(command::DISC, 0, 0, 0, &[])?;
        self.await_eof()
    }

    /// Waits until the server closes the connection; anything it still sends is dropped.
    pub fn await_eof(&mut self) -> Result<(), ClientError> {
        let mut rest = [0; 4096];
        loop {
            match self.stream.read(&mut rest) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::ConnectionReset => return Ok(()),
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Sends nothing more; what is under way may still be answered.
    pub fn half_close(&self) -> io::Result<()> {
        match &self.stream {
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Stream::Unix(stream) => stream.shutdown(Shutdown::Write),
        }
    }

    /// Bounds how long a read waits.
    pub fn set_read_bound(&self, bound: Duration) -> io::Result<()> {
        match &self.stream {
            Stream::Tcp(stream) => stream.set_read_timeout(Some(bound)),
            Stream::Unix(stream) => stream.set_read_timeout(Some(bound)),
        }
    }

    /// A second handle of the connection, so that one thread can send while another reads.
    pub fn try_clone(&self) -> io::Result<Self> {
        let stream = match &self.stream {
            Stream::Tcp(stream) => Stream::Tcp(stream.try_clone()?),
            Stream::Unix(stream) => Stream::Unix(stream.try_clone()?),
        };
        let Self { size_bytes, flags, structured, next_cookie, .. } = *self;
        let description = self.description.clone();
        Ok(Self { stream, size_bytes, flags, structured, description, next_cookie })
    }

    fn own_reply(&mut self, cookie: u64, data_len: usize) -> Result<Reply, ClientError> {
        let reply = self.reply(|_| data_len)?;
        if reply.cookie == cookie {
            Ok(reply)
        } else {
            Err(ClientError::Protocol(format!("reply for {} instead of {cookie}", reply.cookie)))
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
