// SPDX-License-Identifier: MIT OR Apache-2.0
//! Listening sockets and the cap on host connections.
//!
//! One reactor accepts and does the handshakes; they are rare, and whoever accepts
//! cannot know which device, and so which reactor, a host will ask for.

use std::os::fd::OwnedFd;

use program::{Listener, SocketAddress};
use ring::{Errno, Fd, Resource, socket};

use crate::limits::ACCEPT_RETRY;
use crate::log;
use crate::reactor::Reactor;
use crate::slab::Key;
use crate::timers::Due;
use crate::tokens::{Asked, token};

/// One listening socket.
pub(crate) struct Listening {
    pub(crate) listener: Listener,
    /// `None` once it is closed and its last accept has not ended yet.
    pub(crate) fd: Option<Fd>,
}

impl Reactor {
    pub(crate) fn listen(&mut self, listener: Listener, fd: OwnedFd) {
        let key = self.listeners.insert(Listening { listener, fd: Some(Fd::new(fd)) });
        self.accept_more(key);
    }

    /// Closes a listener; connections it accepted stay.
    pub(crate) fn listener_close(&mut self, key: Key) {
        let Some(listening) = self.listeners.get_mut(key) else { return };
        let Some(fd) = listening.fd.take() else { return };
        self.ring.cancel(&fd);
        if let SocketAddress::Unix(path) = &listening.listener.address {
            // A name without a listener would only refuse; somebody else may have taken it down.
            let _ = std::fs::remove_file(path);
        }
    }

    pub(crate) fn accept_more(&mut self, key: Key) {
        if let Some(fd) = self.listeners.get(key).and_then(|listening| listening.fd.as_ref()) {
            self.ring.accept(token(Asked::Accept, key), fd);
        }
    }

    /// An accept has a result.
    pub(crate) fn accepted(&mut self, key: Key, result: Result<u32, Errno>, more: bool, resource: Resource) {
        let Some(listening) = self.listeners.get(key) else { return };
        if listening.fd.is_none() {
            if !more {
                self.listeners.remove(key);
            }
            return;
        }
        if let Resource::Accepted(fd) = resource {
            self.admit(key, fd);
        } else if let Err(error) = result {
            log::error!("accept", "cannot accept host connections for now: {}", error.desc());
            self.timers.set(self.clock.now() + ACCEPT_RETRY, Due::Accept(key));
            return;
        }
        if !more {
            self.accept_more(key);
        }
    }

    fn admit(&mut self, key: Key, fd: Fd) {
        let max = self.program.node.max_sessions;
        let admitted = self.node.admit(max);
        if admitted.is_none() {
            log::warning!(
                "max_sessions",
                "{} turned away: {max} host connections are open",
                socket::peer_name(&fd)
            );
        }
        let full = admitted.is_none();
        // Dropped where too many are being told already: those see a plain end of file.
        let Some(ticket) = admitted.or_else(|| self.node.turn_away()) else { return };
        let Some(listening) = self.listeners.get(key) else { return };
        if let SocketAddress::Tcp(_) = listening.listener.address
            && let Err(error) = socket::prepare_host(&fd)
        {
            // The peer is gone already.
            log::warning!("host", "connection lost before its handshake: {error}");
            return;
        }
        let shown = listening.listener.exports.clone();
        self.handshake_begin(fd, shown, ticket, full);
    }
}
