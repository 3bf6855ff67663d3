// SPDX-License-Identifier: MIT OR Apache-2.0
//! Host handshakes, on the reactor that accepted.
//!
//! The protocol is `nbd`'s; here are only its bytes and its time limit. When the host
//! has chosen its export the connection goes to the reactor that owns the device, with
//! whatever the host sent behind its last option.

use nbd::gate::Identity;
use nbd::server::{CloseReason, Handshake, ServerConfig, Session, Step};
use program::{Exports, Nanos};
use ring::{Errno, Expect, Fd, Resource, socket};

use crate::gate::Claimed;
use crate::host::admission::Admitting;
use crate::limits::{LINGER, RECV_BYTES_MIN, TURNED_AWAY};
use crate::log;
use crate::mailbox::{Mail, NewSession};
use crate::node::SessionTicket;
use crate::outbox::Outbox;
use crate::reactor::stop::Stopping;
use crate::reactor::{Conn, Reactor};
use crate::slab::Key;
use crate::timers::Due;
use crate::tokens::{Asked, token};

/// Largest piece of output that goes to a message at once.
const PIECE_BYTES: usize = 64;

/// What is left to do.
pub(crate) enum Stage {
    /// Options are exchanged.
    Haggling,
    /// A device that does not know its geometry yet was asked for.
    Waiting,
    /// The owner of a gated device judges a claim.
    Claiming(Box<Admitting>),
    /// Over: hand the connection on when the output is sent.
    Done(Box<Session>),
    /// Close when the output is sent and the host has had the time to read it.
    Closing,
}

/// One connection in its handshake.
pub(crate) struct Shaking {
    pub(crate) fd: Option<Fd>,
    pub(crate) peer: String,
    /// What its listener shows.
    pub(crate) shown: Exports,
    pub(crate) machine: Handshake,
    /// Identity of the gate it asks about; its challenge belongs to this connection.
    pub(crate) identity: Option<Identity>,
    /// What it was admitted with.
    pub(crate) claim: Option<Claimed>,
    pub(crate) stage: Stage,
    /// Received and not consumed yet.
    pub(crate) rest: Vec<u8>,
    pub(crate) outbox: Outbox,
    pub(crate) receiving: bool,
    /// Our half is closed.
    half_closed: bool,
    pub(crate) deadline: Nanos,
    /// It has waited for a geometry in vain: it is not kept waiting again.
    pub(crate) waited: bool,
    /// Above `max_sessions`: it learns so when it asks for an export, and gets none.
    pub(crate) turned_away: bool,
    ticket: SessionTicket,
}

impl Reactor {
    pub(crate) fn handshake_begin(
        &mut self,
        fd: Fd,
        shown: Exports,
        ticket: SessionTicket,
        turned_away: bool,
    ) {
        let timeout = self.program.node.handshake_timeout;
        let deadline = self.clock.now() + if turned_away { timeout.min(TURNED_AWAY) } else { timeout };
        let mut machine = Handshake::new(ServerConfig::default());
        if self.stopping == Stopping::All || (self.stopping > Stopping::No && shown == Exports::Public) {
            machine.begin_shutdown();
        }
        let key = self.handshakes.insert(Shaking {
            peer: socket::peer_name(&fd),
            fd: Some(fd),
            shown,
            machine,
            identity: None,
            claim: None,
            stage: Stage::Haggling,
            rest: Vec::new(),
            outbox: Outbox::default(),
            receiving: false,
            half_closed: false,
            deadline,
            waited: false,
            turned_away,
            ticket,
        });
        self.timers.set(deadline, Due::Handshake(key));
        self.handshake_advance(key);
    }

    /// A receive of a handshake has ended.
    pub(crate) fn handshake_received(&mut self, key: Key, result: Result<u32, Errno>, resource: Resource) {
        let shaking = self.handshakes.get_mut(key).expect("a handshake outlives its operations");
        shaking.receiving = false;
        match (resource, result) {
            (Resource::Chunk(chunk), Ok(_)) => {
                if matches!(shaking.stage, Stage::Haggling) {
                    shaking.rest.extend_from_slice(&chunk);
                }
                drop(chunk);
                self.handshake_advance(key);
            }
            (_, Err(Errno::ENOBUFS)) => self.starved.push(Conn::Handshake(key)),
            _ => self.handshake_end(key),
        }
    }

    /// Goes on until the handshake waits for something.
    pub(crate) fn handshake_advance(&mut self, key: Key) {
        while let Some(shaking) = self.handshakes.get_mut(key) {
            if !matches!(shaking.stage, Stage::Haggling) {
                break;
            }
            let consumed = match shaking.machine.receive(&shaking.rest) {
                Ok(consumed) => consumed,
                // The reason comes again as the next step.
                Err(_) => shaking.rest.len(),
            };
            shaking.rest.drain(..consumed);
            match shaking.machine.next_step() {
                Step::NeedInput if consumed == 0 => break,
                Step::NeedInput => {}
                Step::SendOutput => break,
                Step::Lookup { name, purpose } => self.handshake_lookup(key, &name, purpose),
                Step::List => self.handshake_list(key),
                Step::StartTls => panic!("TLS is off and was not offered"),
                Step::Finished(session) => shaking.stage = Stage::Done(session),
                Step::Close(reason) => self.handshake_refused(key, &reason),
            }
        }
        self.handshake_flush(key);
    }

    fn handshake_refused(&mut self, key: Key, reason: &CloseReason) {
        let deadline = self.clock.now() + LINGER;
        let Some(shaking) = self.handshakes.get_mut(key) else { return };
        if !matches!(reason, CloseReason::Aborted) {
            log::warning!("handshake", "{} refused: {reason}", shaking.peer);
        }
        shaking.stage = Stage::Closing;
        shaking.deadline = deadline;
        self.timers.set(deadline, Due::Handshake(key));
    }

    /// Queues output; then receives, hands on or closes as the stage says.
    pub(crate) fn handshake_flush(&mut self, key: Key) {
        let Some(shaking) = self.handshakes.get_mut(key) else { return };
        let output = std::mem::take(shaking.machine.output());
        for piece in output.chunks(PIECE_BYTES) {
            let (message, _) = shaking.outbox.room(0, &mut self.messages);
            message.push_header(piece);
        }
        if !shaking.outbox.is_empty() {
            self.handshake_send(key);
            return;
        }
        match &shaking.stage {
            Stage::Haggling => self.handshake_receive(key),
            Stage::Waiting | Stage::Claiming(_) => {}
            Stage::Done(_) => self.handshake_hand_on(key),
            Stage::Closing => {
                if let (Some(fd), false) = (shaking.fd.as_ref(), shaking.half_closed) {
                    shaking.half_closed = true;
                    socket::shutdown_write(fd);
                }
                self.handshake_receive(key);
            }
        }
    }

    pub(crate) fn handshake_receive(&mut self, key: Key) {
        let Some(shaking) = self.handshakes.get_mut(key) else { return };
        if let (Some(fd), false) = (shaking.fd.as_ref(), shaking.receiving) {
            shaking.receiving = true;
            self.ring.recv_chunk(token(Asked::HandshakeReceive, key), fd, RECV_BYTES_MIN, Expect::Now);
        }
    }

    fn handshake_send(&mut self, key: Key) {
        let Some(shaking) = self.handshakes.get_mut(key) else { return };
        let Some(fd) = shaking.fd.as_ref() else { return };
        if let Some(message) = shaking.outbox.next() {
            self.ring.send(token(Asked::HandshakeSend, key), fd, message);
        }
    }

    /// A send of a handshake has ended.
    pub(crate) fn handshake_sent(&mut self, key: Key, result: Result<u32, Errno>, resource: Resource) {
        let Resource::Message(message) = resource else { panic!("a send without its message") };
        let shaking = self.handshakes.get_mut(key).expect("a handshake outlives its operations");
        let Ok(sent) = result else {
            shaking.outbox.failed(message, &mut self.messages);
            self.handshake_end(key);
            return;
        };
        shaking.outbox.sent(message, sent as usize, &mut self.messages);
        if shaking.fd.is_none() {
            self.handshake_end(key);
        } else if shaking.outbox.is_empty() {
            self.handshake_advance(key);
        } else {
            self.handshake_send(key);
        }
    }

    /// Its time is over.
    pub(crate) fn handshake_due(&mut self, key: Key) {
        let now = self.clock.now();
        let Some(shaking) = self.handshakes.get(key) else { return };
        if now < shaking.deadline {
            return;
        }
        match shaking.stage {
            Stage::Waiting => self.handshake_give_up_waiting(key),
            Stage::Claiming(_) => self.handshake_claim_overdue(key),
            Stage::Closing => self.handshake_end(key),
            Stage::Haggling | Stage::Done(_) => {
                let seconds = self.program.node.handshake_timeout / program::SECOND;
                log::warning!("handshake", "{} closed: no end of its handshake in {seconds} s", shaking.peer);
                self.handshake_end(key);
            }
        }
    }

    /// Closes the connection; the entry goes when its last operation has ended.
    pub(crate) fn handshake_end(&mut self, key: Key) {
        let Some(shaking) = self.handshakes.get_mut(key) else { return };
        shaking.outbox.drop_waiting(&mut self.messages);
        if let Some(fd) = shaking.fd.take()
            && (shaking.receiving || shaking.outbox.is_sending())
        {
            self.ring.cancel(&fd);
        }
        if !shaking.receiving && !shaking.outbox.is_sending() {
            self.handshakes.remove(key);
        }
    }

    /// The host has chosen: the owner of the device goes on.
    fn handshake_hand_on(&mut self, key: Key) {
        let Some(shaking) = self.handshakes.remove(key) else { return };
        let Stage::Done(session) = shaking.stage else { panic!("handed on before its end") };
        let Some(owner) = self.node.directory.owner(&session.export.name) else {
            log::warning!("handshake", "{} closed: {} is gone", shaking.peer, session.export.name);
            return;
        };
        let fd = shaking.fd.and_then(Fd::into_owned).expect("nothing is armed at the end of a handshake");
        let (peer, claim, rest, ticket) = (shaking.peer, shaking.claim, shaking.rest, shaking.ticket);
        let new = NewSession { fd, peer, session, claim, rest, ticket };
        if owner == self.index {
            self.session_begin(new);
        } else {
            self.node.mailboxes[owner].send(Mail::Session(Box::new(new)));
        }
    }
}
