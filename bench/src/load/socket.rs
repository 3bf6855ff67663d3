// SPDX-License-Identifier: MIT OR Apache-2.0
//! A stream socket that can be asked to wait or not to wait, call by call.
//!
//! The socket itself stays blocking and each call says whether it waits: so a load with one connection waits inside
//! `recv` and needs no `poll` for it, which is what a depth-1 latency is measured with.

use std::io::{self, IoSlice, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nbd::client::{ClientConfig, Handshake, Negotiated, Step};
use nbd::uri::{Host, NbdUri, Transport, Uri};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, sendmsg};

use super::error::LoadError;
use super::options::Replies;

/// Longest wait for a step of the handshake. Only the handshake has a bound, never a request (rule T2).
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);

/// A connected TCP or Unix stream.
#[derive(Debug)]
pub enum Socket {
    /// TCP, without delay.
    Tcp(TcpStream),
    /// Unix.
    Unix(UnixStream),
}

/// Where to connect and what to ask for there.
#[derive(Clone, Debug)]
pub struct Target {
    uri: NbdUri,
    replies: Replies,
}

impl Target {
    /// From a URI.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn parse(uri: &str, replies: Replies) -> Result<Self, LoadError> {
        match Uri::parse(uri).map_err(LoadError::Uri)? {
            Uri::File { .. } => Err(LoadError::Unsupported("a file has no connections; give an nbd: URI")),
            Uri::Nbd(uri) if uri.tls.is_some() => {
                Err(LoadError::Unsupported("the load generator has no TLS; give an nbd: URI"))
            }
            Uri::Nbd(uri) => Ok(Self { uri, replies }),
        }
    }

    /// Name of the export.
    pub fn export(&self) -> &str {
        &self.uri.export
    }

    /// Connects and negotiates.
    ///
    /// # Errors
    ///
    /// Nobody there, or the server refuses.
    pub fn open(&self) -> Result<(Socket, Negotiated), LoadError> {
        let mut socket = Socket::connect(&self.uri.transport).map_err(LoadError::Connect)?;
        let mut config = ClientConfig::new(&self.uri.export);
        config.structured = self.replies != Replies::Simple;
        config.extended = self.replies == Replies::Extended;
        config.base_allocation = false;
        socket.set_timeout(Some(HANDSHAKE_TIMEOUT)).map_err(LoadError::Connect)?;
        let negotiated = negotiate(&mut socket, config)?;
        socket.set_timeout(None).map_err(LoadError::Connect)?;
        Ok((socket, negotiated))
    }
}

fn negotiate(socket: &mut Socket, config: ClientConfig) -> Result<Negotiated, LoadError> {
    let mut handshake = Handshake::new(config);
    let mut input = [0; 4096];
    loop {
        let output = std::mem::take(handshake.output());
        socket.write_all(&output).map_err(LoadError::Handshake)?;
        match handshake.next_step() {
            Step::Finished(negotiated) => return Ok(*negotiated),
            Step::Failed(why) => return Err(LoadError::Refused(why)),
            Step::StartTls => return Err(LoadError::Unsupported("the server asks for TLS")),
            Step::NeedInput => {}
            Step::ChooseExport(_) => return Err(LoadError::Unsupported("the server was not asked to list")),
        }
        let received = socket.read(&mut input).map_err(LoadError::Handshake)?;
        if received == 0 {
            let what = format!("closed while waiting for {}", handshake.waiting_for());
            return Err(LoadError::Handshake(io::Error::new(io::ErrorKind::UnexpectedEof, what)));
        }
        // A failure shows in the next step, after its last output was sent.
        let _ = handshake.receive(&input[..received]);
    }
}

impl Socket {
    fn connect(transport: &Transport) -> io::Result<Self> {
        match transport {
            Transport::Tcp { host, port } => {
                let stream = TcpStream::connect(&*addresses(host, *port)?)?;
                stream.set_nodelay(true)?;
                Ok(Self::Tcp(stream))
            }
            Transport::Unix { path } => {
                Ok(Self::Unix(UnixStream::connect(std::ffi::OsStr::from_bytes(path))?))
            }
        }
    }

    /// Bytes that are there now; waits for the first one if `wait`. 0 is the end of the stream.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when there are none and `wait` is false.
    pub fn receive(&self, buffer: &mut [u8], wait: bool) -> io::Result<usize> {
        let flags = if wait { MsgFlags::empty() } else { MsgFlags::MSG_DONTWAIT };
        retry(|| recv(self.as_fd().as_raw_fd(), buffer, flags))
    }

    /// Sends what fits now and returns how much that was, 0 when nothing fits.
    ///
    /// # Errors
    ///
    /// The connection is broken.
    pub fn send(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        match retry(|| sendmsg::<()>(self.as_fd().as_raw_fd(), slices, &[], flags, None)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            other => other,
        }
    }

    fn set_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => {
                stream.set_read_timeout(timeout).and_then(|()| stream.set_write_timeout(timeout))
            }
            Self::Unix(stream) => {
                stream.set_read_timeout(timeout).and_then(|()| stream.set_write_timeout(timeout))
            }
        }
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
        }
    }
}

impl Write for Socket {
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

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

fn addresses(host: &Host, port: u16) -> io::Result<Vec<SocketAddr>> {
    match host {
        Host::Name(name) => (name.as_str(), port).to_socket_addrs().map(Iterator::collect),
        Host::V4(address) => Ok(vec![SocketAddr::new(IpAddr::V4(*address), port)]),
        Host::V6 { address, zone: None } => Ok(vec![SocketAddr::new(IpAddr::V6(*address), port)]),
        Host::V6 { .. } => {
            Err(io::Error::new(io::ErrorKind::InvalidInput, "link-local zones are not known here"))
        }
    }
}

fn retry<T>(mut call: impl FnMut() -> nix::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            other => return other.map_err(io::Error::from),
        }
    }
}
