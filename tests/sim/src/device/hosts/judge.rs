// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether an answer may be (rules T1-T3, F9, F10), and whether an error is justified.
//!
//! An error is a violation unless the storage, the operator's settings or the fault
//! model justify it; see [`Device::excused`].

use nbd::{Command, Errno};
use program::{Nanos, NoPath, SECOND};

use super::super::{Device, PathView};
use super::Request;
use crate::coverage::Mark;
use crate::env::Env;
use crate::medium::Value;
use crate::op::Buffer;
use crate::plan::Topology;

/// An EIO may be believed this long after a server answered it (the second opinion
/// waits 30 s for another path).
const EIO_BELIEVED: Nanos = 45 * SECOND;

impl Device {
    pub(super) fn take_data(&mut self, env: &mut Env, request: &Request) -> Vec<Value> {
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

    pub(super) fn judge_success(&mut self, env: &mut Env, request: &Request, data: &[Value]) {
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
    pub(in crate::device) fn judge_durable(
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

    pub(super) fn judge_error(&mut self, env: &mut Env, request: &Request, errno: Errno) {
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
        // There a read may have to wait for a write (W18).
        let behind = writes || env.plan.topology == Topology::Incoherent;
        let without_path = env.now - if behind { self.last_writable } else { self.last_usable };
        // No path for the hold (3.7); a successor of a write in doubt, a FLUSH whose cache
        // is away, a path that must wait for proof, for as long (W13, F2, W20).
        if without_path >= hold || (waits && env.now - request.issued_at >= hold) {
            return true;
        }
        let recent = |at: Option<Nanos>| at.is_some_and(|at| env.now < at + EIO_BELIEVED);
        let refusing = self.paths.iter().filter(|path| recent(path.eio_at)).count();
        // One that has come up since need not have been asked.
        let there = |path: &PathView| path.usable() && path.usable_since <= request.issued_at;
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
    pub(in crate::device) fn sweep(&self) -> Option<String> {
        (0..self.plan.sectors).find_map(|sector| {
            let floor = self.oracle.acked(sector);
            let wrong = |value: &Value| !self.oracle.allows(sector, *value, floor);
            let value = self.medium.views(sector).find(wrong)?;
            Some(format!("sector {sector} holds {value} at the end, {floor} was acknowledged"))
        })
    }
}
