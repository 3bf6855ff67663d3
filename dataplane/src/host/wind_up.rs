// SPDX-License-Identifier: MIT OR Apache-2.0
//! How a session ends: in order, or by being cut off.

use engine::{Event, SessionId};
use ring::{Errno, Expect, socket};

use crate::host::session::Phase;
use crate::limits::{HOST_STALL, LINGER, RECV_BYTES_MIN};
use crate::log;
use crate::reactor::Reactor;
use crate::slab::Key;
use crate::timers::Due;
use crate::tokens::{Asked, token};

impl Reactor {
    /// Reads no further request; what was accepted is answered, then the session closes
    /// at a frame boundary.
    pub(crate) fn session_finish(&mut self, key: Key) {
        let session = self.session_mut(key);
        if session.phase != Phase::Serving {
            return;
        }
        session.phase = Phase::Finishing;
        session.paused = None;
        // A request that was being received or skipped is not accepted.
        if session.refused.take().is_some() {
            session.in_flight -= 1;
        }
        if let Some(len) = session.inbox.abandon() {
            session.in_flight -= 1;
            session.held_bytes -= crate::budget::Budget::cost(len);
        }
        self.session_closed(key, true);
        self.session_wind_up(key);
    }

    /// Half-closes when everything is answered and sent.
    pub(crate) fn session_wind_up(&mut self, key: Key) {
        let now = self.clock.now();
        let Some(session) = self.sessions.get_mut(key) else { return };
        if session.phase != Phase::Finishing || !session.is_finished() {
            return;
        }
        let Some(fd) = session.fd.as_ref() else { return };
        socket::shutdown_write(fd);
        session.phase = Phase::Lingering;
        session.linger_until = now + LINGER;
        self.timers.set(now + LINGER, Due::Linger(key));
        self.session_listen(key);
    }

    /// Waits for the host's EOF; bytes it still sends are dropped.
    fn session_listen(&mut self, key: Key) {
        let session = self.sessions.get_mut(key).expect("only called for sessions in the table");
        if let (Some(fd), false) = (session.fd.as_ref(), session.receiving) {
            session.receiving = true;
            self.ring.recv_chunk(token(Asked::SessionReceive, key), fd, RECV_BYTES_MIN, Expect::Later);
        }
    }

    /// A receive ended after the session stopped reading requests.
    pub(crate) fn session_heard(&mut self, key: Key, result: Result<u32, Errno>) {
        let phase = self.session_mut(key).phase;
        match (phase, result) {
            (Phase::Lingering, Ok(1..) | Err(Errno::ENOBUFS)) => self.session_listen(key),
            (Phase::Lingering, _) => self.session_cut(key),
            // A host that half-closed after DISC still wants its replies.
            (Phase::Finishing, Ok(_) | Err(Errno::ENOBUFS)) => {}
            (Phase::Finishing, Err(error)) => self.session_lost(key, &error.desc()),
            (Phase::Gone | Phase::Serving, _) => self.session_forget(key),
        }
    }

    /// A Lingering session has had its time.
    pub(crate) fn session_linger_over(&mut self, key: Key) {
        let now = self.clock.now();
        if self
            .sessions
            .get(key)
            .is_some_and(|session| session.phase == Phase::Lingering && session.linger_until <= now)
        {
            self.session_cut(key);
        }
    }

    /// The host is gone, or has to go: what it had not got started is dropped.
    pub(crate) fn session_lost(&mut self, key: Key, why: &dyn std::fmt::Display) {
        let session = self.session_mut(key);
        if session.phase == Phase::Gone {
            return;
        }
        // Hosts come and go; one that leaves nothing open is no news.
        if session.in_flight > 0 || !session.inbox.is_at_boundary() {
            log::warning!(
                "host",
                "session of {} closed with {} requests open: {why}",
                session.peer,
                session.in_flight
            );
        }
        self.session_cut(key);
    }

    /// The host broke the protocol: nothing behind it can be trusted.
    pub(crate) fn session_violated(&mut self, key: Key, how: &dyn std::fmt::Display) {
        let session = self.session_mut(key);
        log::warning!("host", "session of {} closed, it broke the protocol: {how}", session.peer);
        self.session_cut(key);
    }

    /// Closes the connection now.
    fn session_cut(&mut self, key: Key) {
        let session = self.sessions.get_mut(key).expect("only called for sessions in the table");
        session.phase = Phase::Gone;
        session.paused = None;
        session.inbox.abandon();
        session.outbox.drop_waiting(&mut self.messages);
        if let Some(fd) = session.fd.take()
            && (session.receiving || session.outbox.is_sending())
        {
            self.ring.cancel(&fd);
        }
        self.session_closed(key, false);
        self.session_forget(key);
    }

    /// Tells the engine, once.
    fn session_closed(&mut self, key: Key, clean: bool) {
        let session = self.session_mut(key);
        if !session.closed {
            session.closed = true;
            let device = session.device;
            self.feed(device, Event::SessionClosed { session: SessionId(key.index), clean });
        }
    }

    /// Takes a session that is over out of the tables.
    pub(crate) fn session_forget(&mut self, key: Key) {
        if !self.sessions.get(key).is_some_and(super::session::Session::is_over) {
            return;
        }
        let Some(session) = self.sessions.remove(key) else { return };
        if let Some(device) = self.devices.get_mut(session.device) {
            device.sessions.retain(|other| *other != key);
        }
        self.gate_session_gone(session.device, session.is_ended());
        self.device_forget(session.device);
    }

    /// Cuts off hosts that take nothing, where that hurts others or holds up an end.
    pub(crate) fn sweep_sessions(&mut self) {
        let now = self.clock.now();
        let short = self.budget.is_short(self.pool.live_bytes());
        let stalled: Vec<Key> = self
            .sessions
            .iter()
            .filter(|(_, session)| {
                let over = |since| now.saturating_sub(since) > HOST_STALL;
                let takes_nothing = session.outbox.is_sending() && over(session.progress_at);
                let sends_nothing = session.inbox.is_in_payload() && over(session.payload_since);
                (takes_nothing && (short || session.phase == Phase::Finishing)) || (sends_nothing && short)
            })
            .map(|(key, _)| key)
            .collect();
        for key in stalled {
            self.session_lost(key, &"it took no reply, or did not end a payload, for 30 s");
        }
    }
}
