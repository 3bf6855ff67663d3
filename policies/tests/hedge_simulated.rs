// SPDX-License-Identifier: MIT OR Apache-2.0
//! Hedged reads over time: a silent path, a slow path, overload, in simulated time.
//!
//! A closed-loop host keeps `depth` reads outstanding over two paths. Each read is hedged as
//! [`Hedge`] says; the first answer is the host's and the other is drained. A path that is
//! suspect by [`Outrun`] gets nothing more. Nothing here reads a clock.

mod support;

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use policies::hedge::{Answer, Hedge, Outrun, PendingRead};
use policies::limits::HEDGE_BUDGET_PPM;
use policies::selector::{Candidate, Kind};
use policies::{Latency, Selector};
use support::server::Server;
use support::{Draws, MILLISECOND, SECOND};

const LEN: u64 = 4_096;

struct Path {
    server: Server,
    latency: Latency,
    outrun: Outrun,
    in_flight: u32,
    last_used: u64,
    last_byte: u64,
    suspect: bool,
}

struct Read {
    born: u64,
    paths: Vec<(usize, u64)>,
    answered: bool,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Answer { read: usize, path: usize, sent: u64 },
    Look { read: usize },
}

struct World {
    now: u64,
    selector: Selector,
    hedge: Option<Hedge>,
    paths: Vec<Path>,
    reads: Vec<Read>,
    events: BinaryHeap<Reverse<(u64, Event)>>,
    draws: Draws,
    waits: Vec<u64>,
}

impl World {
    fn new(kind: Kind, hedged: bool, servers: Vec<Server>, depth: usize, seed: u64) -> Self {
        let path = |server| Path {
            server,
            latency: Latency::new(),
            outrun: Outrun::new(),
            in_flight: 0,
            last_used: 0,
            last_byte: 0,
            suspect: false,
        };
        let mut world = Self {
            now: SECOND,
            selector: Selector::new(kind),
            hedge: hedged.then(|| Hedge::new(HEDGE_BUDGET_PPM, 128)),
            paths: servers.into_iter().map(path).collect(),
            reads: Vec::new(),
            events: BinaryHeap::new(),
            draws: Draws::new(seed),
            waits: Vec::new(),
        };
        for _ in 0..depth {
            world.new_read();
        }
        world
    }

    fn usable(&self, without: &[(usize, u64)]) -> Vec<usize> {
        (0..self.paths.len())
            .filter(|&path| !self.paths[path].suspect && without.iter().all(|copy| copy.0 != path))
            .collect()
    }

    fn new_read(&mut self) {
        let read = self.reads.len();
        self.reads.push(Read { born: self.now, paths: Vec::new(), answered: false });
        let usable = self.usable(&[]);
        let candidates: Vec<Candidate> = usable
            .iter()
            .map(|&path| Candidate {
                in_flight: self.paths[path].in_flight,
                in_flight_bytes: u64::from(self.paths[path].in_flight) * LEN,
                weight: 1,
                expected_ns: self.paths[path].latency.expected_ns(false, LEN),
                last_used: self.paths[path].last_used,
                share_ppm: 1_000_000,
            })
            .collect();
        let chosen = usable[self.selector.choose(self.now, LEN, &candidates)];
        self.send(read, chosen);
        if let Some(hedge) = &mut self.hedge {
            hedge.on_read();
            let at = self.now + hedge.threshold(LEN);
            self.events.push(Reverse((at, Event::Look { read })));
        }
    }

    fn send(&mut self, read: usize, path: usize) {
        self.reads[read].paths.push((path, self.now));
        let sent = self.now;
        let it = &mut self.paths[path];
        it.in_flight += 1;
        it.last_used = sent;
        if let Some(at) = it.server.answer_at(sent, &mut self.draws) {
            self.events.push(Reverse((at, Event::Answer { read, path, sent })));
        }
    }

    fn look(&mut self, read: usize) {
        let Some(hedge) = &mut self.hedge else { return };
        if self.reads[read].answered || self.reads[read].paths.len() > 1 {
            return;
        }
        let others: Vec<usize> = (0..self.paths.len())
            .filter(|&path| !self.paths[path].suspect && path != self.reads[read].paths[0].0)
            .collect();
        let mut expected: Vec<u64> =
            self.paths.iter().map(|path| path.latency.expected_ns(false, LEN)).filter(|&ns| ns > 0).collect();
        expected.sort_unstable();
        let pending = PendingRead {
            len_bytes: LEN,
            age: self.now - self.reads[read].born,
            one_at_a_time: false,
            other_paths: others.len() as u32,
            recovering: false,
            median_ns: expected.get(expected.len().saturating_sub(1) / 2).copied().unwrap_or(0),
        };
        match hedge.decide(&pending) {
            Answer::Send => self.send(read, others[0]),
            Answer::AtAge(age) => {
                self.events.push(Reverse((self.reads[read].born + age, Event::Look { read })));
            }
            Answer::No(_) => {}
        }
    }

    fn answer(&mut self, read: usize, path: usize, sent: u64) {
        let it = &mut self.paths[path];
        it.in_flight -= 1;
        it.latency.record(false, LEN, self.now - sent);
        it.last_byte = self.now;
        it.outrun.on_byte();
        if let Some(hedge) = &mut self.hedge {
            hedge.on_reply(self.now, LEN, self.now - sent);
            hedge.check_invariants();
        }
        if std::mem::replace(&mut self.reads[read].answered, true) {
            return;
        }
        self.waits.push(self.now - self.reads[read].born);
        if let (&[first, second], Some(hedge)) = (self.reads[read].paths.as_slice(), &mut self.hedge) {
            hedge.on_settled(path == second.0);
            let loser = &mut self.paths[first.0];
            if path == second.0 && loser.outrun.on_won(self.now, first.1, loser.last_byte, hedge.is_low()) {
                loser.suspect = true;
            }
        }
        self.new_read();
    }

    /// Lets time pass; the waits of the reads answered meanwhile, sorted.
    fn run(&mut self, time: u64) -> Vec<u64> {
        let end = self.now + time;
        self.waits.clear();
        while self.events.peek().is_some_and(|Reverse((at, _))| *at <= end) {
            let Some(Reverse((at, event))) = self.events.pop() else { unreachable!("it was just seen") };
            self.now = at;
            match event {
                Event::Answer { read, path, sent } => self.answer(read, path, sent),
                Event::Look { read } => self.look(read),
            }
        }
        self.now = end;
        let mut waits = std::mem::take(&mut self.waits);
        waits.sort_unstable();
        waits
    }

    fn unanswered(&self) -> usize {
        self.reads.iter().filter(|read| !read.answered).count()
    }
}

fn quantile(sorted: &[u64], part: f64) -> u64 {
    sorted[((sorted.len() - 1) as f64 * part) as usize]
}

/// The goal for a silent path: no read waits 20 ms, at any depth and for any selector, cold or warm.
#[test]
fn reads_on_a_path_that_falls_silent_wait_less_than_20_ms() {
    for kind in [Kind::RoundRobin, Kind::Latency] {
        for depth in [1, 4, 32] {
            for warm in [0, SECOND / 4] {
                for seed in 0..3 {
                    let servers = vec![Server::unlimited(200_000), Server::unlimited(200_000)];
                    let mut world = World::new(kind, true, servers, depth, seed);
                    world.run(warm);
                    world.paths[1].server.silent = true;
                    let waits = world.run(SECOND / 4);
                    let longest = *waits.last().expect("reads went on");
                    assert!(longest < 20 * MILLISECOND, "{kind:?} depth {depth} seed {seed}: {longest}");
                    assert!(world.unanswered() <= depth, "{kind:?} depth {depth} seed {seed}");
                    assert!(waits.len() > 500 * depth, "it goes on at speed: {}", waits.len());
                }
            }
        }
    }
}

/// The control: without hedging the same path holds every slot for good.
#[test]
fn without_hedging_a_silent_path_holds_every_slot() {
    let servers = vec![Server::unlimited(200_000), Server::unlimited(200_000)];
    let mut world = World::new(Kind::RoundRobin, false, servers, 32, 1);
    world.run(SECOND);
    world.paths[1].server.silent = true;
    world.run(SECOND);
    assert_eq!(world.run(SECOND).len(), 0);
    assert_eq!(world.unanswered(), 32);
}

/// One read in a hundred takes 50 ms on either path: the tail goes, for at most 3 % extra reads.
#[test]
fn the_tail_is_cut_within_the_budget() {
    let run = |hedged| {
        let servers = vec![Server::unlimited(300_000), Server::unlimited(300_000)];
        let mut world = World::new(Kind::Latency, hedged, servers, 8, 1);
        let mut all = Vec::new();
        for slice in 0..2_000 {
            // A hiccup of one path for 0.25 ms out of 10 ms of its time.
            world.paths[slice % 2].server.delay_ns = 50 * MILLISECOND;
            all.append(&mut world.run(250_000));
            world.paths[slice % 2].server.delay_ns = 0;
            all.append(&mut world.run(10 * MILLISECOND));
        }
        all.sort_unstable();
        (quantile(&all, 0.999), world.hedge.map(|hedge| hedge.counts()))
    };
    let (plain, _) = run(false);
    let (hedged, counts) = run(true);
    let counts = counts.expect("it hedged");
    assert!(plain > 40 * MILLISECOND, "{plain}");
    assert!(hedged < 10 * MILLISECOND, "{hedged}");
    assert!(counts.hedges <= 128 + counts.reads * 3 / 100, "{counts:?}");
    assert!(counts.won > 100 && counts.won > 10 * counts.lost, "{counts:?}");
}

/// When all paths slow down tenfold, hedging stops: it would only add to the load.
#[test]
fn overload_of_all_paths_is_not_hedged() {
    let servers = vec![Server::unlimited(MILLISECOND), Server::unlimited(MILLISECOND)];
    let mut world = World::new(Kind::Latency, true, servers, 8, 1);
    world.run(5 * SECOND);
    let before = world.hedge.as_ref().expect("on").counts();
    for path in &mut world.paths {
        path.server.service_ns = 20 * MILLISECOND;
    }
    world.run(10 * SECOND);
    let after = world.hedge.as_ref().expect("on").counts();
    let hedges = after.hedges - before.hedges;
    let reads = after.reads - before.reads;
    // Before the expectation has risen, some go out; then none.
    assert!(hedges <= 40, "{hedges} of {reads}");
    world.run(10 * SECOND);
    let end = world.hedge.as_ref().expect("on").counts();
    assert_eq!(end.hedges, after.hedges, "none once it is known");
}
