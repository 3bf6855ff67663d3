// SPDX-License-Identifier: MIT OR Apache-2.0
//! Host sessions: what they ask, and whether the answer may be.
//!
//! A host never times out. One whose connection breaks comes back as a new session
//! and issues again what was not answered; what the lost session had started may
//! still be carried out, older than all that comes after.
//!
//! An error is a violation unless the storage, the operator's settings or the fault
//! model justify it; see [`Device::excused`].

use engine::{BufferId, Event, HostRequest, RequestTag, SessionId};
use nbd::{Command, CommandFlags, Errno};
use program::{AccessPolicy, Nanos, NoPath, SECOND};

use super::Device;
use crate::coverage::Mark;
use crate::env::Env;
use crate::medium::Value;
use crate::op::Buffer;
use crate::oracle::WriteKind;
use crate::plan::Topology;
use crate::queue::Happening;

/// An EIO may be believed this long after a server answered it (the second opinion
/// waits 30 s for another path).
const EIO_BELIEVED: Nanos = 45 * SECOND;

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
    forgiven: bool,
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
    floors: Vec<Value>,
    issued_at: Nanos,
    flushes: u64,
    data: Vec<BufferId>,
    generation: u32,
    /// A FLUSH failed meanwhile: a FLUSH may fail with it, a READ may have seen what is lost.
    may_fail: bool,
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

    /// A FLUSH failed: every session's next one must (F9); those on their way may.
    pub(super) fn owe_flush_error(&mut self) {
        for session in &mut self.sessions {
            session.owed = true;
            session.forgiven = false;
        }
        for request in self.requests.iter_mut().flatten() {
            request.may_fail = true;
        }
    }

    pub(super) fn forgive_flush_errors(&mut self) {
        for session in &mut self.sessions {
            session.forgiven = true;
        }
    }

    /// A loss that hosts are told of: what is on its way may see it already.
    pub(super) fn lose(&mut self, sector: usize, stable: Value) {
        self.oracle.lose(sector, stable);
        let floor = self.oracle.acked(sector);
        for request in self.requests.iter_mut().flatten() {
            let at = sector.checked_sub(request.start).and_then(|at| request.floors.get_mut(at));
            if let Some(at) = at {
                *at = (*at).min(floor);
                // What it saw may have been before the loss: no later read is bound by it.
                request.may_fail |= request.command == Command::Read;
            }
        }
    }

    /// What was given up is not asked of a FLUSH that is on its way either.
    pub(super) fn lower_flush_floors(&mut self) {
        let mut floors = Vec::new();
        self.oracle.flush_floors(&mut floors);
        for request in self.requests.iter_mut().flatten().filter(|request| request.command == Command::Flush)
        {
            for (floor, &now) in request.floors.iter_mut().zip(&floors) {
                *floor = (*floor).min(now);
            }
        }
    }

    /// The host's request of this write is not answered yet.
    pub(super) fn is_open(&self, number: Value) -> bool {
        self.requests.iter().flatten().any(|request| request.number == number)
    }

    /// The engine says that something is lost for good: what is not there is not expected.
    pub(super) fn writes_lost(&mut self, text: &str) {
        self.loss_told = true;
        // What a process before left, and nothing that this one retains.
        let inherited = text.starts_with("the process before this one");
        for sector in self.named_sectors(text) {
            if inherited && !self.oracle.is_forgotten(sector) {
                continue;
            }
            // What still shows may be gone with the next cache: the history has nothing of it any more.
            let stable = self.medium.stable(sector);
            let shows: Vec<Value> = self.medium.views(sector).chain([stable]).collect();
            let below =
                |floor| shows.iter().copied().find(|&value| !self.oracle.allows(sector, value, floor));
            if let Some(value) = below(self.oracle.acked(sector)) {
                self.lose(sector, value);
                self.oracle.open(sector);
            } else if below(self.oracle.promised(sector)).is_some() {
                // Lost before, and it was still to be written again.
                self.oracle.open(sector);
            }
        }
    }

    /// The sectors that a told loss is about: all, if it leaves any unnamed.
    fn named_sectors(&self, text: &str) -> Vec<usize> {
        let ranges = text.split("; ").map(|loss| named_range(loss, self.plan.sector_bytes as usize));
        match ranges.collect::<Option<Vec<_>>>() {
            Some(ranges) => ranges.into_iter().flatten().collect(),
            None => (0..self.plan.sectors).collect(),
        }
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

    fn take_data(&mut self, env: &mut Env, request: &Request) -> Vec<Value> {
        let mut values = Vec::new();
        for &buffer in &request.data {
            match self.buffers.remove(buffer) {
                Buffer::Data(data) => values.extend(data),
                Buffer::Extents => {}
                other => env.fail("buffers", || format!("a host was answered with {other:?}")),
            }
        }
        values
    }

    fn judge_success(&mut self, env: &mut Env, request: &Request, data: &[Value]) {
        match request.command {
            Command::Read => self.judge_read(env, request, data),
            Command::Flush => self.judge_flush(env, request),
            command if command.is_write_like() => {
                self.oracle.ack(request.number);
                if request.fua && self.flushes > request.flushes && env.servers.iter().any(|s| !s.plan.fua) {
                    env.mark(Mark::FuaEmulated);
                }
                if request.fua && command != Command::Trim {
                    self.judge_durable(env, request.start..request.end, |_| request.number, "FUA");
                }
            }
            _ => {}
        }
    }

    fn judge_read(&mut self, env: &mut Env, request: &Request, data: &[Value]) {
        if data.len() != request.end - request.start {
            env.fail("T1", || {
                format!("a READ of {} sectors came back with {}", request.end - request.start, data.len())
            });
            return;
        }
        for (n, &value) in data.iter().enumerate() {
            let (sector, floor) = (request.start + n, request.floors[n]);
            if self.oracle.is_haunted(sector, value, env.now) {
                continue;
            }
            if !self.oracle.allows(sector, value, floor) {
                env.fail("T1", || {
                    format!("sector {sector} read as {value}, it cannot be older than {floor}")
                });
                return;
            }
            if !request.may_fail {
                self.oracle.observe(sector, value);
            }
        }
    }

    fn judge_flush(&mut self, env: &mut Env, request: &Request) {
        let session = &mut self.sessions[request.session as usize];
        let owed = std::mem::take(&mut session.owed) && !session.forgiven;
        if self.loss_told {
            env.fail("F9", || "a FLUSH succeeded after acknowledged writes were lost for good".into());
        }
        // What is retained is written again: then the content is judged, not the answer.
        if owed && !self.retains() {
            env.fail("F9", || "a FLUSH failed and this session's FLUSH succeeded".into());
        }
        if self.flushes > request.flushes + 1 {
            env.mark(Mark::FlushMany);
        }
        if self.flushes == request.flushes {
            env.fail("F10", || "a FLUSH was answered without asking any storage".into());
        }
        self.judge_durable(env, 0..self.plan.sectors, |sector| request.floors[sector], "FLUSH");
        self.oracle.flushed();
        self.unkept &= !self.retains() || request.issued_at < self.kept_since;
    }

    /// T3: what is answered as durable is stable now.
    pub(super) fn judge_durable(
        &self,
        env: &mut Env,
        sectors: std::ops::Range<usize>,
        floor: impl Fn(usize) -> Value,
        what: &str,
    ) {
        for sector in sectors {
            let stable = self.medium.stable(sector);
            let haunted = self.oracle.is_haunted(sector, stable, env.now);
            if !haunted && !self.oracle.allows(sector, stable, floor(sector)) {
                let floor = floor(sector);
                env.fail("T3", || {
                    format!(
                        "{what} was answered, sector {sector} is stable at {stable}, not at {floor} or newer"
                    )
                });
                return;
            }
        }
    }

    fn judge_error(&mut self, env: &mut Env, request: &Request, errno: Errno) {
        let session = &mut self.sessions[request.session as usize];
        let owed = request.command == Command::Flush && std::mem::take(&mut session.owed);
        if self.loss_told && (request.command == Command::Flush || request.fua) {
            return;
        }
        if owed || (request.command == Command::Flush && request.may_fail) {
            env.mark(Mark::FlushFailed);
            return;
        }
        if errno == Errno::NoSpace && self.definite.iter().any(|&(write, ..)| write == request.number) {
            env.mark(Mark::Definite);
            return;
        }
        if !self.excused(env, request, errno) {
            let age = env.now - request.issued_at;
            env.fail("host error", || {
                format!(
                    "{:?} of sectors {}..{} was answered {errno:?} after {} ms",
                    request.command,
                    request.start,
                    request.end,
                    age / program::MILLISECOND
                )
            });
        }
    }

    /// Whether a host may be told this error now.
    fn excused(&self, env: &Env, request: &Request, errno: Errno) -> bool {
        if errno != Errno::Io {
            return false;
        }
        let proven = self.program.exclusive == program::Exclusive::Proven;
        let waits = proven || request.command.is_write_like() || request.command == Command::Flush;
        let hold = match self.program.no_path {
            NoPath::Fail => 0,
            NoPath::Hold(hold) => hold,
            NoPath::Forever => Nanos::MAX,
        };
        let writes = request.command.is_write_like() || request.command == Command::Flush;
        // Of one path at a time it is one that may be written, for as long as it may only be slow.
        let one =
            self.program.access == AccessPolicy::ActivePassive || env.plan.topology == Topology::Incoherent;
        let without_path = env.now - if writes || one { self.last_writable } else { self.last_usable };
        // No path for the hold (3.7); a successor of a write in doubt, a FLUSH whose cache
        // is away, a path that must wait for proof, for as long (W13, F2, W20).
        if without_path >= hold || (waits && env.now - request.issued_at >= hold) {
            return true;
        }
        let recent = |at: Option<Nanos>| at.is_some_and(|at| env.now < at + EIO_BELIEVED);
        let refusing = self.paths.iter().filter(|path| recent(path.eio_at)).count();
        // One that has come up since need not have been asked.
        let there = |path: &super::PathView| path.usable() && path.usable_since <= request.issued_at;
        let fits = |link: usize| !writes || self.is_written_through(link);
        let other = self
            .paths
            .iter()
            .enumerate()
            .any(|(link, path)| there(path) && fits(link) && !recent(path.eio_at));
        refusing >= 2 || (refusing == 1 && !other)
    }

    /// Whether every sector reads as it may through every server, now that all is
    /// quiet; what does not.
    pub(super) fn sweep(&self) -> Option<String> {
        (0..self.plan.sectors).find_map(|sector| {
            let floor = self.oracle.acked(sector);
            let wrong = |value: &Value| !self.oracle.allows(sector, *value, floor);
            let value = self.medium.views(sector).find(wrong)?;
            Some(format!("sector {sector} holds {value} at the end, {floor} was acknowledged"))
        })
    }
}

/// The sectors that a text names as `<n> bytes at <offset>`.
fn named_range(text: &str, sector_bytes: usize) -> Option<std::ops::Range<usize>> {
    let (before, after) = text.split_once(" bytes at ")?;
    let len: usize = before.rsplit(' ').next()?.parse().ok()?;
    let start: usize = after.split([' ', ',']).next()?.parse().ok()?;
    Some(start / sector_bytes..(start + len) / sector_bytes)
}
