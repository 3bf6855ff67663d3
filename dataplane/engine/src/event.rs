// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the driver tells the engine.

use alloc::boxed::Box;
use alloc::string::String;

use nbd::{Command, CommandFlags, Errno};
use program::{DeviceCommand, DeviceProgram, PathCommand};

use crate::{BufferId, LaneId, RequestTag, SessionId};

/// One thing that happened. Handed over with the time by [`crate::Engine::handle`].
#[derive(Debug)]
pub enum Event {
    /// A host finished its handshake on this device.
    SessionOpened(SessionId),
    /// A host session ended. `clean`: by DISC, everything it sent is to be
    /// finished; else what has not been started is dropped (semantics 2.5).
    SessionClosed {
        /// Which.
        session: SessionId,
        /// By DISC.
        clean: bool,
    },
    /// A complete, validated request of a host, payload included.
    Request(HostRequest),
    /// A lane finished its handshake.
    LaneOpened {
        /// Which.
        lane: LaneId,
        /// What the server offers.
        offer: Offer,
    },
    /// A lane could not be opened, or broke. After this the driver sends nothing
    /// more on it and delivers no reply of it.
    LaneDown {
        /// Which.
        lane: LaneId,
        /// Why.
        fault: LaneFault,
        /// Bytes of the transmission phase the kernel accepted in all; final.
        sent_bytes: u64,
    },
    /// Our kernel accepted bytes of this lane for sending.
    LaneSent {
        /// Which.
        lane: LaneId,
        /// Of the transmission phase, in all.
        sent_bytes: u64,
    },
    /// Bytes arrived on this lane in this turn (a reply header, or part of a payload).
    LaneActive(LaneId),
    /// A request on a lane was answered, all its data has arrived.
    Reply {
        /// Which.
        lane: LaneId,
        /// As sent.
        cookie: u64,
        /// The server's verdict.
        result: Result<(), Errno>,
        /// Data of a READ or extents of a BLOCK_STATUS; now the engine's to release.
        data: Option<BufferId>,
        /// Of the data, if the request asked for one.
        digest: Option<Digest>,
    },
    /// The connection broke in the middle of the data of a READ; [`Event::LaneDown`] of the lane follows. At most one
    /// for each lane, and never for data of which a host was sent anything.
    ReadPart {
        /// Which.
        lane: LaneId,
        /// As sent.
        cookie: u64,
        /// The data from the beginning; now the engine's to release.
        data: BufferId,
        /// Bytes of it: whole blocks.
        len: u64,
    },
    /// Answer to [`crate::Action::SampleTcp`].
    Tcp {
        /// Which.
        lane: LaneId,
        /// Evidence (rule W16).
        sample: TcpSample,
    },
    /// The deadline given by [`crate::Engine::next_deadline`] has passed. A driver
    /// reaps all ready completions before it sends this (rule W17).
    Timer,
    /// A changed configuration of this device.
    Program(Box<DeviceProgram>),
    /// An operator's command.
    Path {
        /// Index into the program's paths.
        path: usize,
        /// What to do.
        command: PathCommand,
    },
    /// An operator's command for the device as a whole.
    Device(DeviceCommand),
    /// This node stops: finish, and make durable what is acknowledged; held requests are not waited for. Once more is no news.
    Shutdown,
    /// Finish at once: the time for the above is over, or the device is taken out. What is lost by that is told, for
    /// this reason.
    Abandon {
        /// In words of an operator.
        why: &'static str,
    },
}

/// One request of a host, checked against the export by the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostRequest {
    /// The driver's name for it; comes back in the answer.
    pub tag: RequestTag,
    /// Whose.
    pub session: SessionId,
    /// Any but `Disconnect`.
    pub command: Command,
    /// As sent by the host.
    pub flags: CommandFlags,
    /// Byte offset.
    pub offset: u64,
    /// Length in bytes.
    pub len: u64,
    /// WRITE only: the payload, `len` bytes; the engine's to release.
    pub payload: Option<BufferId>,
}

/// What a server offered in its handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Export size in bytes.
    pub size_bytes: u64,
    /// Transmission flags.
    pub flags: nbd::TransmissionFlags,
    /// Smallest block in bytes.
    pub min_block_bytes: u32,
    /// Preferred block in bytes.
    pub preferred_block_bytes: u32,
    /// Largest payload in bytes.
    pub max_payload_bytes: u32,
    /// Structured (or extended) replies are on.
    pub structured: bool,
    /// 64-bit lengths are on.
    pub extended: bool,
    /// `base:allocation` can be asked.
    pub block_status: bool,
    /// A local file or memory: its completions are proof, nothing can be in doubt.
    pub local: bool,
    /// The server is a Holdfast: it may hold a request for long and is well as long as it answers canaries (rule W19).
    pub node: bool,
    /// What the server says of the way to it.
    pub access: program::AccessState,
    /// The server proved to be a gate and took this lane's claim.
    pub gate: Option<GateOffer>,
}

/// What a gate told of itself in the handshake (semantics 2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GateOffer {
    /// UUID of the volume, from its epoch register.
    pub volume: u128,
    /// Drawn when the first gate process of a volume on its host starts; those that run beside it tell the
    /// same and share all they know of sessions. Another one: every process of that time is gone.
    pub nonce: u128,
    /// Changes whenever unflushed data may have been lost.
    pub cache_generation: u64,
    /// The epoch this lane's session was admitted with.
    pub epoch: u64,
    /// The session named by [`crate::Action::OpenLane`]'s `kill` is finished: nothing of
    /// it will be executed any more. What it had not answered may have been executed or not.
    pub killed: bool,
}

/// Why a lane is down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LaneFault {
    /// Nothing listens (ECONNREFUSED, ENOENT of a Unix socket).
    Refused(String),
    /// No route, unresolvable name, connect timed out.
    Unreachable(String),
    /// The peer reset the connection, or our kernel gave it up.
    Reset(String),
    /// The peer closed it.
    Closed,
    /// The handshake did not end in time.
    HandshakeTimeout,
    /// The server turned the export away, with its text.
    Rejected(String),
    /// The peer broke the protocol; latched until replaced.
    Protocol(String),
    /// We closed it ourselves by [`crate::Action::CloseLane`].
    ByUs,
    /// EOF after [`crate::Close::Drain`]: everything that was sent is finished.
    Drained,
}

/// Digest of data, for comparing content across paths without keeping it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest {
    /// 128 bits over the data.
    pub value: u128,
    /// Every byte is the same: proves nothing about identity.
    pub uniform: bool,
}

/// What the kernel knows of a lane's connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpSample {
    /// Segments sent and not acknowledged.
    pub unacked: u32,
    /// Bytes in the send queue that were never sent (closed window).
    pub notsent_bytes: u32,
    /// Bytes in the send queue in all (SIOCOUTQ).
    pub outq_bytes: u32,
    /// Milliseconds since the last ACK arrived.
    pub last_ack_ms: u32,
    /// Probes of a closed window or an idle connection since the last ACK.
    pub probes: u32,
    /// Retransmission time-out in microseconds, as the round trips measure it: without a floor
    /// that the kernel may keep to.
    pub rto_us: u32,
}
