// SPDX-License-Identifier: MIT OR Apache-2.0
//! Host requests come in: range lock, then the queues (rule W8).

use nbd::{Command, CommandFlags, Errno};

use crate::engine::{Engine, Session};
use crate::ranges::Holder;
use crate::request::{Kind, Origin, Piece, PieceState, Request, RequestState};
use crate::slab::Key;
use crate::{Action, HostRequest, RequestTag, SessionId};

/// What requests of our own carry where a host's would be named.
const NO_TAG: RequestTag = RequestTag(u64::MAX);
const NO_SESSION: SessionId = SessionId(u32::MAX);

impl Engine {
    pub(crate) fn session_opened(&mut self, id: SessionId) {
        assert!(self.sessions.iter().all(|session| session.id != id), "a session was opened twice");
        self.sessions.push(Session { id, in_flight: 0, flush_error: false });
    }

    /// A host that left without DISC: what was not started is dropped; it got no
    /// reply, so it must not count on it, and it will re-send (semantics 2.5).
    pub(crate) fn session_closed(&mut self, id: SessionId, clean: bool) {
        self.sessions.retain(|session| session.id != id);
        if clean {
            return;
        }
        let dropped: alloc::vec::Vec<Key> = self
            .requests
            .iter()
            .filter(|(_, request)| request.host.session == id && !request.started)
            .map(|(key, _)| key)
            .collect();
        for key in dropped {
            // A grant by an earlier round may have started it meanwhile.
            if self.requests.contains(key) && !self.requests.get(key).started {
                self.fail_request(key, Errno::Io);
            }
        }
    }

    pub(crate) fn accept(&mut self, host: HostRequest) {
        self.last_request = Some(self.now);
        if let Some(session) = self.sessions.iter_mut().find(|session| session.id == host.session) {
            session.in_flight += 1;
        }
        let key = self.insert_request(host, Origin::Host);
        if self.must_fail_now() || (host.command.is_write_like() && self.must_fail_writes()) {
            let errno = self.held_errno();
            self.fail_request(key, errno);
        } else if self.must_tell_loss(&host) {
            self.fail_request(key, Errno::Io);
        } else if host.command.is_write_like() && host.len > 0 && self.is_ordered(host.command) {
            self.lock_range(key);
        } else {
            self.start_request(key);
        }
    }

    fn insert_request(&mut self, host: HostRequest, origin: Origin) -> Key {
        self.requests.insert(Request {
            host,
            origin,
            at: 0,
            state: RequestState::Active,
            accepted: self.now,
            pieces_open: 0,
            first_piece: None,
            error: None,
            range: None,
            started: false,
            moved_by: None,
        })
    }

    /// A request that no host made. It goes the way of every other.
    pub(crate) fn internal(
        &mut self,
        origin: Origin,
        command: Command,
        flags: CommandFlags,
        offset: u64,
        len: u64,
    ) {
        let host =
            HostRequest { tag: NO_TAG, session: NO_SESSION, command, flags, offset, len, payload: None };
        let key = self.insert_request(host, origin);
        if let Origin::Replay(slot) = origin
            && let Some((buffer, at)) = self.replay_begins(slot, key)
        {
            let request = self.requests.get_mut(key);
            request.host.payload = Some(buffer);
            request.at = at;
        }
        if command.is_write_like() {
            self.lock_range(key);
        } else {
            self.start_request(key);
        }
    }

    /// W9: all rules for writes are rules for discards.
    fn is_ordered(&self, command: Command) -> bool {
        command == Command::Write || self.rules.w9_discards
    }

    fn lock_range(&mut self, key: Key) {
        let Request { host, origin, .. } = *self.requests.get(key);
        let (start, end, holder) = (host.offset, host.offset + host.len, Holder::Request(key));
        let (range, held) = match origin {
            Origin::Replay(_) => self.ranges.acquire_again(start, end, holder),
            Origin::Host | Origin::OwnFlush => self.ranges.acquire(start, end, holder),
        };
        let request = self.requests.get_mut(key);
        request.range = Some(range);
        if held {
            self.note_write(host.offset, host.len);
            self.start_request(key);
        } else {
            request.state = RequestState::Blocked;
            self.note_blocked(key);
        }
    }

    /// Its range is free: queue its pieces.
    pub(crate) fn start_request(&mut self, key: Key) {
        let (host, origin) = {
            let request = self.requests.get_mut(key);
            request.state = RequestState::Active;
            (request.host, request.origin)
        };
        if let Origin::Replay(slot) = origin
            && self.segment_starts(slot)
        {
            self.finish_request(key);
            return;
        }
        match host.command {
            Command::Disconnect => panic!("DISC is the driver's"),
            Command::Flush => self.start_flush(key),
            Command::Read
            | Command::Write
            | Command::Trim
            | Command::WriteZeroes
            | Command::Cache
            | Command::BlockStatus => {
                if host.len == 0 {
                    self.finish_request(key);
                } else {
                    self.add_piece(key, Kind::Io);
                }
            }
        }
    }

    /// One piece for the whole request, queued; `dispatch` cuts it if it must.
    pub(crate) fn add_piece(&mut self, request: Key, kind: Kind) -> Key {
        let Request { host, at, .. } = *self.requests.get(request);
        self.order += 1;
        let flags =
            if host.command.is_write_like() { host.flags } else { host.flags.without(CommandFlags::FUA) };
        let piece = self.pieces.insert(Piece {
            request: Some(request),
            kind,
            command: host.command,
            flags: flags.without(CommandFlags::DF).without(CommandFlags::PAYLOAD_LEN),
            offset: host.offset,
            len: host.len,
            payload: host.payload,
            at,
            next: None,
            state: PieceState::Queued,
            queued: false,
            order: self.order,
            copies: 0,
            landed: None,
            refused_by: 0,
            believe_at: None,
            quarantine: None,
            resent: false,
            late_on: 0,
            paced: false,
            ghost: false,
            valid_from_turn: 0,
            hedged: false,
            hedge_bytes: 0,
            settled: None,
        });
        let entry = self.requests.get_mut(request);
        entry.pieces_open += 1;
        // Order matters only for reads, which are cut, not added.
        let first = entry.first_piece.replace(piece);
        self.pieces.get_mut(piece).next = first;
        self.enqueue(piece, false);
        piece
    }

    /// Hands out ranges that came free.
    pub(crate) fn release_range(&mut self, range: Key) {
        let mut granted = core::mem::take(&mut self.granted);
        let first = granted.len();
        self.ranges.release(range, &mut granted);
        // Granting can release further ranges (a request that fails at once), so
        // the list may grow behind us.
        let mut at = first;
        while at < granted.len() {
            match granted[at] {
                Holder::Request(key) => {
                    let host = self.requests.get(key).host;
                    self.note_write(host.offset, host.len);
                    self.start_request(key);
                }
                Holder::Verify(lane) => self.verify_granted(lane),
                Holder::Piece(_) => panic!("a quarantine never waits"),
            }
            at += 1;
        }
        granted.truncate(first);
        self.granted = granted;
    }

    /// Answers a request with an error whatever state it is in. Copies that are
    /// out stay in doubt and quarantined (W14).
    pub(crate) fn fail_request(&mut self, key: Key, errno: Errno) {
        let request = self.requests.get_mut(key);
        request.error.get_or_insert(errno);
        let mut next = request.first_piece;
        while let Some(piece) = next {
            let entry = self.pieces.get(piece);
            next = entry.next;
            if entry.state != PieceState::Done {
                self.set_piece_state(piece, PieceState::Done);
                self.requests.get_mut(key).pieces_open -= 1;
            }
        }
        assert_eq!(self.requests.get(key).pieces_open, 0, "a piece of a failed request was not counted");
        self.answer(key);
    }

    pub(crate) fn reply_to_host(&mut self, host: HostRequest, result: Result<(), Errno>) {
        if let Some(session) = self.sessions.iter_mut().find(|session| session.id == host.session) {
            session.in_flight -= 1;
        }
        match host.command {
            Command::Read => self.counters.reads += 1,
            command if command.is_write_like() => self.counters.writes += 1,
            _ => {}
        }
        if result.is_err() {
            self.counters.errors += 1;
        }
        self.act(Action::Reply { tag: host.tag, result });
    }
}
