// SPDX-License-Identifier: MIT OR Apache-2.0
//! A minimal NBD server in memory that counts what it was asked, and lies once if told to.
//!
//! It is the reason to believe `--verify`: a checker that was never shown a wrong answer proves nothing.

use std::collections::{HashMap, HashSet};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use nbd::server::{
    ExportInfo, Handshake, REPLY_HEADER_MAX, ReplyEncoder, ServerConfig, Step, Verdict, check_request,
};
use nbd::{Command, Decoded, Errno, ReplyMode, RequestHeader, TransmissionFlags};

/// What the server does wrong, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lie {
    /// Nothing.
    None,
    /// Answers a READ of a block that was overwritten with the content before that.
    StaleRead,
    /// Acknowledges the overwriting of a block and does not do it.
    LostWrite,
    /// Executes a WRITE at the block behind.
    MisplacedWrite,
    /// Answers a READ with EIO.
    Error,
    /// Closes the connection instead of answering a READ.
    Close,
}

/// Requests that were executed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// READs.
    pub reads: u64,
    /// WRITEs.
    pub writes: u64,
    /// FLUSHes.
    pub flushes: u64,
    /// Lies told.
    pub lies: u64,
}

/// A running server; ends on drop.
pub(crate) struct Server {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    thread: Option<JoinHandle<()>>,
}

struct State {
    memory: Vec<u8>,
    /// Content before the last WRITE, of blocks that were written twice.
    previous: HashMap<u64, Vec<u8>>,
    written: HashSet<u64>,
    counts: Counts,
    lie: Lie,
    ends: bool,
}

impl Server {
    /// Serves `size_bytes` of zeroes.
    pub(crate) fn start(size_bytes: usize, lie: Lie) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let state = State {
            memory: vec![0; size_bytes],
            previous: HashMap::new(),
            written: HashSet::new(),
            counts: Counts::default(),
            lie,
            ends: false,
        };
        let (address, state) = (listener.local_addr().expect("it listens"), Arc::new(Mutex::new(state)));
        let shared = Arc::clone(&state);
        let thread = std::thread::spawn(move || accept(&listener, &shared));
        Self { address, state, thread: Some(thread) }
    }

    /// URI of its only export.
    pub(crate) fn uri(&self) -> String {
        format!("nbd://{}/", self.address)
    }

    /// What it did so far.
    pub(crate) fn counts(&self) -> Counts {
        lock(&self.state).counts
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        lock(&self.state).ends = true;
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn lock(state: &Mutex<State>) -> std::sync::MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn accept(listener: &TcpListener, state: &Arc<Mutex<State>>) {
    let mut sessions = Vec::new();
    for stream in listener.incoming() {
        if lock(state).ends {
            break;
        }
        let (stream, state) = (stream.expect("accept"), Arc::clone(state));
        // A client that goes away ends its session; nothing else does.
        sessions.push(std::thread::spawn(move || drop(serve(stream, &state))));
    }
    for session in sessions {
        session.join().expect("a session ends in order");
    }
}

fn serve(mut stream: TcpStream, state: &Mutex<State>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let size = lock(state).memory.len() as u64;
    let Some((session, mut input)) = negotiate(&mut stream, size)? else { return Ok(()) };
    let (limits, mode) = (session.limits(), session.session_mode());
    loop {
        let (header, consumed) = match RequestHeader::decode(&input, mode.reply.is_extended()) {
            Decoded::NeedMore => {
                receive(&mut stream, &mut input)?;
                continue;
            }
            Decoded::Violation(violation) => panic!("the load generator sent {violation}"),
            Decoded::Header { header, consumed } => (header, consumed),
        };
        let request = match check_request(&header, &limits, mode) {
            Verdict::Accept(request) => request,
            Verdict::Disconnect => return Ok(()),
            other => panic!("the load generator sent {header:?}: {other:?}"),
        };
        while input.len() < consumed + request.payload_bytes as usize {
            receive(&mut stream, &mut input)?;
        }
        let payload: Vec<u8> =
            input.drain(..consumed + request.payload_bytes as usize).skip(consumed).collect();
        let reply = lock(state).execute(mode.reply, &request, &payload);
        let Some(reply) = reply else { return Ok(()) };
        stream.write_all(&reply)?;
    }
}

type Session = nbd::server::Session;

fn negotiate(stream: &mut TcpStream, size: u64) -> io::Result<Option<(Session, Vec<u8>)>> {
    let mut handshake = Handshake::new(ServerConfig::default());
    let mut input = Vec::new();
    loop {
        let consumed = handshake.receive(&input).unwrap_or_else(|error| panic!("handshake: {error}"));
        input.drain(..consumed);
        match handshake.next_step() {
            Step::Lookup { .. } => {
                let mut export = ExportInfo::new("", size);
                export.flags = TransmissionFlags::SEND_FLUSH.with(TransmissionFlags::CAN_MULTI_CONN);
                handshake.answer_lookup(Ok(export));
                continue;
            }
            Step::Finished(session) => {
                stream.write_all(handshake.output())?;
                return Ok(Some((*session, input)));
            }
            Step::Close(_) => return Ok(None),
            _ => {}
        }
        stream.write_all(&std::mem::take(handshake.output()))?;
        receive(stream, &mut input)?;
    }
}

fn receive(stream: &mut TcpStream, input: &mut Vec<u8>) -> io::Result<()> {
    let mut part = [0; 16 * 1024];
    match stream.read(&mut part)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        received => {
            input.extend_from_slice(&part[..received]);
            Ok(())
        }
    }
}

impl State {
    /// The reply, or nothing when the connection is to be closed.
    fn execute(
        &mut self,
        mode: ReplyMode,
        request: &nbd::server::AcceptedRequest,
        payload: &[u8],
    ) -> Option<Vec<u8>> {
        let encoder = ReplyEncoder { mode, cookie: request.cookie, offset: request.offset };
        let mut header = [0; REPLY_HEADER_MAX];
        match request.command {
            Command::Read => {
                self.counts.reads += 1;
                let (offset, len) = (request.offset, request.len as usize);
                let data = match self.read(offset, len) {
                    Ok(data) => data,
                    Err(Some(errno)) => return Some(header_of(encoder.error(errno, &mut header), &header)),
                    Err(None) => return None,
                };
                let header_bytes = encoder.read_ok(request.len as u32, &mut header);
                let mut reply = header_of(header_bytes, &header);
                reply.extend_from_slice(&data);
                return Some(reply);
            }
            Command::Write => self.write(request.offset, payload),
            Command::Flush => self.counts.flushes += 1,
            other => panic!("the load generator sent {other:?}"),
        }
        Some(header_of(encoder.done(&mut header), &header))
    }

    fn read(&mut self, offset: u64, len: usize) -> Result<Vec<u8>, Option<Errno>> {
        let stale = self.previous.get(&offset).cloned();
        let truth = self.memory[offset as usize..][..len].to_vec();
        match (self.lie, stale) {
            (Lie::StaleRead, Some(stale)) => {
                self.told();
                Ok(stale)
            }
            (Lie::Error, Some(_)) => {
                self.told();
                Err(Some(Errno::Io))
            }
            (Lie::Close, Some(_)) => {
                self.told();
                Err(None)
            }
            _ => Ok(truth),
        }
    }

    fn write(&mut self, offset: u64, payload: &[u8]) {
        self.counts.writes += 1;
        let is_overwrite = !self.written.insert(offset);
        let mut place = offset as usize;
        if is_overwrite {
            match self.lie {
                Lie::LostWrite => return self.told(),
                Lie::MisplacedWrite => {
                    self.told();
                    place = (place + payload.len()) % self.memory.len();
                }
                _ => {}
            }
            self.previous.insert(offset, self.memory[place..][..payload.len()].to_vec());
        }
        self.memory[place..][..payload.len()].copy_from_slice(payload);
    }

    fn told(&mut self) {
        self.counts.lies += 1;
        self.lie = Lie::None;
    }
}

fn header_of(len: usize, header: &[u8]) -> Vec<u8> {
    header[..len].to_vec()
}
