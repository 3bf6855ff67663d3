// SPDX-License-Identifier: MIT OR Apache-2.0
//! A host that keeps a number of reads in flight, and servers with a service time, in virtual time
//! around a `Script`: what steering costs a host is a number of answers per second.
#![allow(unreachable_pub)]

use std::collections::BTreeMap;

use engine::{Event, TcpSample};
use nbd::Command;
use program::{MILLISECOND, Nanos};

use crate::script::{Script, Sent, offer};

/// How a path is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    Well,
    /// Connections break and are refused.
    Down,
    /// Nothing comes through either way.
    Silent,
}

pub struct Rig {
    pub script: Script,
    /// From a request's start at the server to its answer, per path.
    pub service: Vec<Nanos>,
    /// Reads the host keeps in flight.
    pub depth: usize,
    /// How each path is.
    pub links: Vec<Link>,
    /// Answers that come, by time.
    due: BTreeMap<(Nanos, u64), (Sent, bool)>,
    /// When each of a server's workers is free.
    workers: Vec<Vec<Nanos>>,
    silent_since: Vec<Option<Nanos>>,
    sequence: u64,
    answered: usize,
    next_offset: u64,
    /// Answers to the host per 100 ms since the rig began.
    pub windows: Vec<u32>,
    began: Nanos,
    /// Host reads sent per path.
    pub sent: Vec<u64>,
    /// Host reads answered per path; what was moved there is not counted.
    pub per_path: Vec<u64>,
    /// The same by 100 ms.
    pub own_windows: Vec<Vec<u32>>,
    /// Offsets that were sent on some path already.
    seen: std::collections::BTreeSet<u64>,
}

impl Rig {
    /// `width`: requests a server works on at once; the others wait their turn.
    pub fn new(script: Script, service: &[Nanos], width: usize, depth: usize) -> Self {
        let paths = service.len();
        let began = script.now;
        Self {
            script,
            service: service.to_vec(),
            depth,
            links: vec![Link::Well; paths],
            due: BTreeMap::new(),
            workers: vec![vec![0; width]; paths],
            silent_since: vec![None; paths],
            sequence: 0,
            answered: 0,
            next_offset: 0,
            windows: Vec::new(),
            began,
            sent: vec![0; paths],
            per_path: vec![0; paths],
            own_windows: vec![Vec::new(); paths],
            seen: std::collections::BTreeSet::new(),
        }
    }

    /// Answers per second of the host between two times since the rig began.
    pub fn rate(&self, from: Nanos, to: Nanos) -> f64 {
        let window = 100 * MILLISECOND;
        let windows = &self.windows[(from / window) as usize..(to / window) as usize];
        windows.iter().map(|&n| f64::from(n)).sum::<f64>() * 10.0 / windows.len() as f64
    }

    pub fn set(&mut self, path: usize, link: Link) {
        self.links[path] = link;
        self.silent_since[path] = (link == Link::Silent).then_some(self.script.now);
        if link == Link::Down {
            self.due.retain(|_, (sent, _)| sent.path != path);
            while self.script.lanes.iter().any(|(_, of, _)| *of == path) {
                self.script.reset(path);
            }
        }
    }

    /// Lets time pass.
    pub fn run(&mut self, time: Nanos) {
        let end = self.script.now + time;
        while self.script.now < end {
            self.connect();
            self.issue();
            self.serve();
            let answer = self.next_answer();
            let timer = self.script.engine.next_deadline();
            let next = [answer, timer, Some(end)].into_iter().flatten().min().unwrap_or(end);
            let busy = self.script.opening.iter().any(|(_, path)| self.links[*path] != Link::Silent);
            let next = if busy { next.min(self.script.now + MILLISECOND) } else { next };
            let moved = next.max(self.script.now);
            self.script.now = moved;
            self.deliver();
            if timer.is_some_and(|due| due <= self.script.now) {
                self.script.event(Event::Timer);
            }
            for lane in std::mem::take(&mut self.script.sampled) {
                self.sample(lane);
            }
        }
    }

    fn connect(&mut self) {
        for (lane, path) in self.script.opening.clone() {
            match self.links[path] {
                Link::Well => self.script.open(lane, offer()),
                Link::Down => self.script.refuse_connect(path),
                Link::Silent => {}
            }
        }
        for (lane, _) in std::mem::take(&mut self.script.closing) {
            if self.script.lanes.iter().any(|(of, ..)| *of == lane) {
                self.due.retain(|_, (sent, _)| sent.lane != lane);
                self.script.down(lane, engine::LaneFault::ByUs);
            } else if self.script.opening.iter().any(|(of, _)| *of == lane) {
                self.script.opening.retain(|(of, _)| *of != lane);
                let fault = engine::LaneFault::ByUs;
                self.script.event(Event::LaneDown { lane, fault, sent_bytes: 0 });
            }
        }
    }

    fn issue(&mut self) {
        while self.script.requested() - self.script.replies.len() < self.depth {
            self.next_offset = (self.next_offset + 4096) % (1 << 29);
            self.script.request(Command::Read, self.next_offset, 4096);
        }
    }

    fn serve(&mut self) {
        while let Some(sent) = self.script.sent.pop_front() {
            self.sent[sent.path] += u64::from(sent.data == engine::SendData::Land);
            let now = self.script.now;
            let worker = self.workers[sent.path].iter_mut().min().expect("a server has a worker");
            *worker = (*worker).max(now) + self.service[sent.path];
            self.sequence += 1;
            let first = self.seen.insert(sent.offset);
            self.due.insert((*worker, self.sequence), (sent, first));
        }
    }

    fn next_answer(&self) -> Option<Nanos> {
        let comes = self.due.iter().find(|(_, (sent, _))| self.links[sent.path] != Link::Silent);
        comes.map(|((at, _), _)| *at)
    }

    fn deliver(&mut self) {
        let window = ((self.script.now - self.began) / (100 * MILLISECOND)) as usize;
        for windows in self.own_windows.iter_mut().chain([&mut self.windows]) {
            if windows.len() <= window {
                windows.resize(window + 1, 0);
            }
        }
        loop {
            let (now, links) = (self.script.now, &self.links);
            let ready = |((at, _), (sent, _)): &(&(Nanos, u64), &(Sent, bool))| {
                *at <= now && links[sent.path] != Link::Silent
            };
            let Some((&key, &(sent, first))) = self.due.iter().find(ready) else { break };
            self.due.remove(&key);
            self.seen.remove(&sent.offset);
            if first && sent.data == engine::SendData::Land {
                self.per_path[sent.path] += 1;
                self.own_windows[sent.path][window] += 1;
            }
            self.script.event(Event::LaneActive(sent.lane));
            self.script.answer(sent, Ok(()));
        }
        self.windows[window] += (self.script.replies.len() - self.answered) as u32;
        self.answered = self.script.replies.len();
    }

    fn sample(&mut self, lane: engine::LaneId) {
        let Some(&(_, path, _)) = self.script.lanes.iter().find(|(of, ..)| *of == lane) else { return };
        let silent = self.silent_since[path].map_or(0, |since| (self.script.now - since) / MILLISECOND);
        let sample = TcpSample {
            unacked: u32::from(silent > 0),
            last_ack_ms: silent as u32,
            rto_us: 10_000,
            ..TcpSample::default()
        };
        self.script.event(Event::Tcp { lane, sample });
    }
}
