// SPDX-License-Identifier: MIT OR Apache-2.0
//! Moved requests do not swamp the path they come to, and are not kept waiting without need.
//!
//! The simulated path has requests of its own in a closed loop; at one moment many moved ones
//! want to be sent on it. Nothing here reads a clock.

mod support;

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use policies::{Latency, Pacing};
use support::server::Server;
use support::{Draws, MILLISECOND, SECOND};

const LEN: u64 = 4_096;
const WINDOW: u64 = 100 * MILLISECOND;

fn known(normal_ns: u64) -> Latency {
    let mut latency = Latency::new();
    (0..100).for_each(|_| latency.record(false, LEN, normal_ns));
    latency
}

#[test]
fn a_few_are_not_paced_and_a_mass_is() {
    let latency = known(MILLISECOND);
    for (moved, expected) in [(1, u32::MAX), (7, u32::MAX), (8, 7), (1_000, 7)] {
        let mut pacing = Pacing::new();
        pacing.on_moved(SECOND, moved, &latency);
        assert_eq!(pacing.allowance(SECOND, 0), expected, "{moved}");
        assert_eq!(pacing.is_active(), expected != u32::MAX);
    }
}

#[test]
fn the_window_grows_while_nobody_feels_it_and_falls_back() {
    let mut pacing = Pacing::new();
    pacing.on_moved(0, 1_000, &known(MILLISECOND));
    let mut sizes = Vec::new();
    for _ in 0..6 {
        let now_sent = pacing.allowance(0, 0);
        sizes.push(now_sent);
        (0..now_sent).for_each(|_| pacing.on_sent());
        assert_eq!(pacing.allowance(0, 0), 0, "no more than the window");
        (0..now_sent).for_each(|_| pacing.on_answered(false, LEN, MILLISECOND));
    }
    assert_eq!(sizes, [7, 14, 28, 56, 112, 224], "it doubles with each round trip");
    // Felt: halved, but not below a nineteenth of what else is there.
    (0..8).for_each(|_| pacing.on_sent());
    (0..8).for_each(|_| pacing.on_answered(false, LEN, 2 * MILLISECOND));
    assert_eq!((pacing.allowance(0, 0), pacing.allowance(0, 190)), (4, 10));
    // One late answer among seven good ones is not felt.
    (0..8).for_each(|_| pacing.on_sent());
    (0..8).for_each(|n| pacing.on_answered(false, LEN, MILLISECOND + u64::from(n == 0) * MILLISECOND / 4));
    assert_eq!(pacing.allowance(0, 0), 16);
}

#[test]
fn time_doubles_the_part_until_all_may_go() {
    let mut pacing = Pacing::new();
    pacing.on_moved(SECOND, 1_000, &known(MILLISECOND));
    let at = |pacing: &Pacing, s: u64| pacing.allowance(SECOND + s * SECOND, 900);
    assert_eq!([0, 1, 2, 3, 4].map(|s| at(&pacing, s)), [47, 100, 225, 600, 3_600]);
    assert_eq!(at(&pacing, 5), u32::MAX);
    assert_eq!(pacing.next_deadline(SECOND), Some(2 * SECOND));
    assert_eq!(pacing.next_deadline(9 * SECOND), None, "nothing changes any more");
    pacing.on_backlog_empty();
    assert_eq!((pacing.allowance(SECOND, 900), pacing.next_deadline(SECOND)), (u32::MAX, None));
}

#[test]
fn more_moved_later_change_neither_start_nor_normal() {
    let mut pacing = Pacing::new();
    pacing.on_moved(0, 100, &known(MILLISECOND));
    pacing.on_moved(SECOND, 100, &known(50 * MILLISECOND));
    pacing.on_sent();
    pacing.on_answered(false, LEN, 50 * MILLISECOND);
    assert_eq!(pacing.allowance(SECOND, 0), 1, "50 ms are felt");
    assert_eq!(pacing.next_deadline(SECOND), Some(2 * SECOND));
    // The path itself fails: nothing is left of it.
    pacing.on_path_lost();
    assert!(!pacing.is_active());
}

struct World {
    now: u64,
    server: Server,
    latency: Latency,
    pacing: Pacing,
    paced: bool,
    /// `(at, moved, sent)`
    answers: BinaryHeap<Reverse<(u64, bool, u64)>>,
    own_in_flight: u32,
    backlog: u32,
    last_moved: u64,
    draws: Draws,
}

impl World {
    fn new(server: Server, own: u32, paced: bool, seed: u64) -> Self {
        let mut world = Self {
            now: SECOND,
            server,
            latency: Latency::new(),
            pacing: Pacing::new(),
            paced,
            answers: BinaryHeap::new(),
            own_in_flight: 0,
            backlog: 0,
            last_moved: 0,
            draws: Draws::new(seed),
        };
        (0..own).for_each(|_| world.send(false));
        world
    }

    fn send(&mut self, moved: bool) {
        let at = self.server.answer_at(self.now, &mut self.draws).expect("it is not silent");
        self.answers.push(Reverse((at, moved, self.now)));
        self.own_in_flight += u32::from(!moved);
    }

    fn move_here(&mut self, requests: u32) {
        self.backlog = requests;
        if self.paced {
            self.pacing.on_moved(self.now, requests, &self.latency);
        }
        self.send_moved();
    }

    fn send_moved(&mut self) {
        let allowed = self.pacing.allowance(self.now, self.own_in_flight).min(self.backlog);
        for _ in 0..allowed {
            self.pacing.on_sent();
            self.send(true);
        }
        self.backlog -= allowed;
        if self.backlog == 0 {
            self.pacing.on_backlog_empty();
        }
    }

    /// Own answers in each 100 ms.
    fn run(&mut self, windows: u64) -> Vec<u64> {
        (0..windows)
            .map(|_| {
                let end = self.now + WINDOW;
                let mut own = 0;
                while let Some(&Reverse((at, moved, sent))) = self.answers.peek().filter(|it| it.0.0 <= end) {
                    self.answers.pop();
                    self.now = at;
                    if moved {
                        self.last_moved = at;
                        self.pacing.on_answered(false, LEN, at - sent);
                    } else {
                        own += 1;
                        self.own_in_flight -= 1;
                        self.latency.record(false, LEN, at - sent);
                        self.send(false);
                    }
                    self.send_moved();
                }
                self.now = end;
                own
            })
            .collect()
    }
}

/// What the path served before, and in how many percent of the windows at least 90 % of that.
fn kept(paced: bool, server: Server, own: u32, moved: u32) -> (u64, World) {
    let mut world = World::new(server, own, paced, 1);
    let before = world.run(20).iter().sum::<u64>() / 20;
    world.move_here(moved);
    let during = world.run(20);
    let good = during.iter().filter(|&&own| own * 10 >= before * 9).count() as u64;
    (good * 100 / during.len() as u64, world)
}

/// The goal: a path at its limit keeps 90 % of its own throughput in 95 % of 100 ms windows.
#[test]
fn a_path_at_its_limit_keeps_90_percent_for_its_own() {
    for (workers, service_ns) in [(4, MILLISECOND), (16, MILLISECOND), (2, 100_000)] {
        for own in [32, 128] {
            let (percent, world) = kept(true, Server::with_workers(workers, service_ns), own, 256);
            assert!(percent >= 95, "{workers} workers, {own} own: good in {percent} % of the windows");
            assert!(world.last_moved > 0, "moved ones were served, too");
        }
    }
    // The control: sent at once they take it all.
    let (percent, _) = kept(false, Server::with_workers(4, MILLISECOND), 32, 1_024);
    assert!(percent < 90, "{percent} %");
}

/// A path with room takes 512 moved requests in some tens of round trips at worst.
#[test]
fn a_path_with_room_takes_them_at_once() {
    for seed in 0..10 {
        let mut world = World::new(Server::unlimited(MILLISECOND), 16, true, seed);
        world.run(5);
        let start = world.now;
        world.move_here(512);
        world.run(5);
        let took = world.last_moved - start;
        assert!(world.backlog == 0 && took < 50 * MILLISECOND, "seed {seed}: {took} ns");
    }
}

/// However slow the path: it does not end as an outage.
#[test]
fn all_are_sent_in_the_end() {
    let mut world = World::new(Server::with_workers(1, 20 * MILLISECOND), 16, true, 1);
    world.run(50);
    world.move_here(128);
    let sent_all = (0..200).find(|_| {
        world.run(1);
        world.backlog == 0
    });
    let windows = sent_all.expect("all are sent");
    assert!(windows <= 50, "after {windows} x 100 ms, by the doubling each second");
}
