// SPDX-License-Identifier: MIT OR Apache-2.0
//! Host sessions and what they ask.
//!
//! A host never times out. One whose connection breaks comes back as a new session
//! and issues again what was not answered; what the lost session had started may
//! still be carried out, older than all that comes after.

mod judge;

use engine::{BufferId, Event, HostRequest, RequestTag, SessionId};
use nbd::{Command, CommandFlags, Errno};
use program::{Nanos, SECOND};

use super::Device;
use crate::coverage::Mark;
use crate::env::Env;
use crate::medium::Value;
use crate::op::Buffer;
use crate::oracle::WriteKind;
use crate::queue::Happening;

/// Sectors of one of the last reads; 32 MiB is the most a host may ask for.
const READ_SECTORS: usize = 32;

/// One host connection.
#[derive(Debug)]
pub struct Session {
    /// In the engine.
    pub id: SessionId,
    /// Rises each time it comes back.
    pub incarnation: u32,
    /// Connected.
    pub open: bool,
    /// A FLUSH failed and this session was not told.
    pub owed: bool,
    /// The settings have changed since: it may be told, or what was lost is written again.
    pub(super) forgiven: bool,
    /// What to issue again: command and range.
    again: Vec<(Command, usize, usize)>,
}

/// One host request.
#[derive(Debug)]
pub struct Request {
    /// What.
    pub command: Command,
    /// First sector.
    pub start: usize,
    /// Sector after the last.
    pub end: usize,
    session: u16,
    incarnation: u32,
    number: Value,
    fua: bool,
    pub(super) floors: Vec<Value>,
    issued_at: Nanos,
    flushes: u64,
    data: Vec<BufferId>,
    generation: u32,
    /// A FLUSH failed meanwhile: a FLUSH may fail with it, a READ may have seen what is lost.
    pub(super) may_fail: bool,
}

impl Device {
    pub(super) fn open_session(&mut self, env: &mut Env) {
        let index = self.sessions.len() as u16;
        self.next_session += 1;
        let id = SessionId(self.next_session);
        self.sessions.push(Session {
            id,
            incarnation: 0,
            open: true,
            owed: false,
            forgiven: false,
            again: Vec::new(),
        });
        self.feed(env, Event::SessionOpened(id));
        self.fill(env, index);
    }

    fn fill(&mut self, env: &mut Env, session: u16) {
        let incarnation = self.sessions[session as usize].incarnation;
        for _ in 0..self.plan.depth {
            let delay = env.rng.below(self.plan.think);
            env.after(delay, Happening::Issue(self.index, session, incarnation));
        }
    }

    /// The host's connection breaks, or it leaves by DISC; it comes back.
    pub fn lose_session(&mut self, env: &mut Env, session: u16, clean: bool) -> bool {
        let entry = &mut self.sessions[session as usize];
        if !entry.open {
            return false;
        }
        entry.open = false;
        entry.owed = false;
        let (id, incarnation) = (entry.id, entry.incarnation);
        let mut met = false;
        for request in self.requests.iter().flatten() {
            if request.session == session && request.incarnation == incarnation {
                met = true;
                entry.again.push((request.command, request.start, request.end));
            }
        }
        self.feed(env, Event::SessionClosed { session: id, clean });
        let delay = env.rng.below(SECOND);
        env.after(delay, Happening::SessionBack(self.index, session));
        met
    }

    /// A host will never hear what became of it.
    pub(super) fn left_unanswered(&mut self, request: &Request) {
        if self.plan.other_writer && request.command.is_write_like() {
            self.doubtful.push((request.start, request.end));
        }
        self.issue_again(request);
    }

    /// What was not answered when its connection broke is issued again.
    pub(super) fn issue_again(&mut self, request: &Request) {
        let entry = &mut self.sessions[request.session as usize];
        if entry.open && entry.incarnation == request.incarnation {
            entry.again.push((request.command, request.start, request.end));
        }
    }

    pub(super) fn session_back(&mut self, env: &mut Env, session: u16) {
        self.next_session += 1;
        let entry = &mut self.sessions[session as usize];
        entry.open = true;
        entry.owed = false;
        entry.incarnation += 1;
        entry.id = SessionId(self.next_session);
        let id = entry.id;
        self.feed(env, Event::SessionOpened(id));
        self.fill(env, session);
    }

    pub(super) fn issue(&mut self, env: &mut Env, session: u16, incarnation: u32) {
        let entry = &mut self.sessions[session as usize];
        // A node that stops reads no more requests; the session is over soon.
        if !entry.open || entry.incarnation != incarnation || !env.issuing || self.stopping.is_some() {
            return;
        }
        let (command, start, end) = match entry.again.pop() {
            Some(again) => again,
            None => self.draw(env),
        };
        self.issue_request(env, session, command, start, end);
    }

    /// The host's request of this write is not answered yet.
    pub(super) fn is_open(&self, number: Value) -> bool {
        self.requests.iter().flatten().any(|request| request.number == number)
    }

    /// A write now and then: a blank volume proves its paths by what hosts write (3.8).
    pub fn write_a_little(&mut self, env: &mut Env) {
        let session = self.sessions.iter().position(|session| session.open);
        if let Some(session) = session.filter(|_| self.is_idle()) {
            let sector = env.rng.below(self.plan.sectors as u64) as usize;
            self.issue_request(env, session as u16, Command::Write, sector, sector + 1);
        }
    }

    /// Asks for a FLUSH when all else is quiet: everything must be stable by it.
    pub fn last_flush(&mut self, env: &mut Env) {
        if let Some(session) = self.sessions.iter().position(|session| session.open) {
            self.issue_request(env, session as u16, Command::Flush, 0, 0);
        }
    }

    /// Reads the whole volume.
    pub fn last_reads(&mut self, env: &mut Env) {
        let Some(session) = self.sessions.iter().position(|session| session.open) else { return };
        for start in (0..self.plan.sectors).step_by(READ_SECTORS) {
            let end = (start + READ_SECTORS).min(self.plan.sectors);
            self.issue_request(env, session as u16, Command::Read, start, end);
        }
    }

    /// Bytes the engine keeps until they are stable.
    pub fn kept_bytes(&self) -> u64 {
        self.engine.retained_bytes()
    }

    fn draw(&self, env: &mut Env) -> (Command, usize, usize) {
        let command = [
            Command::Read,
            Command::Write,
            Command::WriteZeroes,
            Command::Trim,
            Command::Flush,
            Command::Cache,
            Command::BlockStatus,
        ][env.rng.weighted(&self.plan.mix)];
        if command == Command::Flush {
            return (command, 0, 0);
        }
        let discard = matches!(command, Command::Trim | Command::WriteZeroes);
        let hot = env.rng.chance(800_000);
        let among = if hot { self.plan.hot } else { self.plan.sectors };
        let start = env.rng.below(among as u64) as usize;
        let longest = if discard && env.rng.chance(200_000) {
            self.plan.sectors
        } else {
            env.rng.pick(&[1, 1, 2, 4, 8])
        };
        let len = 1 + env.rng.below(longest.min(self.plan.sectors - start) as u64) as usize;
        // 32 MiB is the most a host is told to ask for at once, but for discards.
        let most = if discard { len } else { len.min((32 << 20) / self.plan.sector_bytes as usize) };
        (command, start, start + most)
    }

    fn issue_request(&mut self, env: &mut Env, session: u16, command: Command, start: usize, end: usize) {
        let writes = command.is_write_like();
        let number = match command {
            Command::Write => self.oracle.issue(WriteKind::Data, start, end),
            Command::WriteZeroes => self.oracle.issue(WriteKind::Zeroes, start, end),
            Command::Trim => self.oracle.issue(WriteKind::Trim, start, end),
            _ => 0,
        };
        if writes {
            env.tell(self.index, || format!("write {number} is issued: {command:?} {start}..{end}"));
        }
        let fua = writes && env.rng.chance(self.plan.fua_ppm);
        if writes {
            self.note_overlaps(env, start, end);
        }
        let index = self.free_requests.pop().unwrap_or_else(|| {
            self.requests.push(None);
            (self.requests.len() - 1) as u32
        });
        let mut floors = Vec::new();
        match command {
            Command::Read => self.oracle.read_floors(start, end, &mut floors),
            Command::Flush => self.oracle.flush_floors(&mut floors),
            _ => {}
        }
        let generation = env.happenings as u32;
        let incarnation = self.sessions[session as usize].incarnation;
        self.requests[index as usize] = Some(Request {
            command,
            start,
            end,
            session,
            incarnation,
            number,
            fua,
            floors,
            issued_at: env.now,
            flushes: self.flushes,
            data: Vec::new(),
            generation,
            may_fail: false,
        });
        self.open += 1;
        self.gap.asked(env.now);
        let payload =
            (command == Command::Write).then(|| self.buffers.insert(Buffer::Payload(number, start)));
        let unit = self.plan.sector_bytes;
        let request = HostRequest {
            tag: RequestTag(u64::from(generation) << 32 | u64::from(index)),
            session: self.sessions[session as usize].id,
            command,
            flags: if fua { CommandFlags::FUA } else { CommandFlags::empty() },
            offset: start as u64 * unit,
            len: (end - start) as u64 * unit,
            payload,
        };
        self.feed(env, Event::Request(request));
    }

    fn note_overlaps(&self, env: &mut Env, start: usize, end: usize) {
        let open =
            |request: &Request| request.command.is_write_like() && request.start < end && start < request.end;
        if self.requests.iter().flatten().any(open) {
            env.mark(Mark::Ordered);
        }
        let doubtful = |&index: &u32| {
            let conn = &self.conns[index as usize];
            let ops = conn.serving.iter().copied().chain(conn.frames.iter().map(|frame| frame.op));
            (conn.quiet || !conn.is_open())
                && ops.map(|op| self.ops.get(op)).any(|op| op.writes() && op.start < end && start < op.end)
        };
        if self.live.iter().any(doubtful) {
            env.mark(Mark::OverDoubt);
        }
    }

    pub(super) fn reply_data(&mut self, env: &mut Env, tag: RequestTag, buffer: BufferId) {
        match self.requests.get_mut((tag.0 & 0xffff_ffff) as usize) {
            Some(Some(request)) if u64::from(request.generation) == tag.0 >> 32 => request.data.push(buffer),
            _ => env.fail("T2", || format!("data for request {tag:?}, which is not open")),
        }
    }

    pub(super) fn replied(&mut self, env: &mut Env, tag: RequestTag, result: Result<(), Errno>) {
        let index = (tag.0 & 0xffff_ffff) as u32;
        let open = self.requests.get(index as usize).and_then(Option::as_ref);
        if open.is_none_or(|request| u64::from(request.generation) != tag.0 >> 32) {
            env.fail("T2", || format!("request {tag:?} was answered twice, or never asked"));
            return;
        }
        let Some(request) = self.requests[index as usize].take() else { unreachable!("just seen") };
        self.free_requests.push(index);
        self.open -= 1;
        if result == Err(Errno::Shutdown) && self.stopping.is_some() {
            // For the driver: the session ends without an answer, and the host sends again to whoever serves next. What
            // was carried out of it may be gone again, when older content is written again before the end.
            self.take_data(env, &request);
            if request.command.is_write_like() {
                self.write_failed(&request);
            }
            self.issue_again(&request);
            return;
        }
        self.gap.answered(env.now, self.open > 0);
        env.requests += 1;
        if env.issuing {
            self.seen.answered(env.now, request.session, result.is_ok());
        }
        env.trace.add(tag.0 ^ u64::from(result.is_ok()));
        let data = self.take_data(env, &request);
        self.loss_is_open(request.command, result.is_ok());
        if result.is_err() && request.command.is_write_like() {
            self.write_failed(&request);
        }
        let entry = &self.sessions[request.session as usize];
        if !entry.open || entry.incarnation != request.incarnation {
            // Nobody heard this answer.
            return;
        }
        match result {
            Ok(()) => self.judge_success(env, &request, &data),
            Err(errno) => self.judge_error(env, &request, errno),
        }
        let delay = env.rng.below(self.plan.think);
        env.after(delay, Happening::Issue(self.index, request.session, request.incarnation));
    }

    /// A read may have seen it already; the next one need not.
    fn write_failed(&mut self, failed: &Request) {
        self.oracle.fail(failed.number);
        if self.plan.other_writer {
            self.doubtful.push((failed.start, failed.end));
        }
        for request in self.requests.iter_mut().flatten().filter(|request| request.command == Command::Read) {
            for (n, floor) in request.floors.iter_mut().enumerate() {
                if *floor == failed.number {
                    *floor = self.oracle.acked(request.start + n);
                }
            }
        }
    }
}
