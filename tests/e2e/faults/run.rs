// SPDX-License-Identifier: MIT OR Apache-2.0
//! Carries a plan out on one device, and keeps the books.

use std::collections::BTreeMap;
use std::time::Instant;

use tests_support::holdfast::PathStatus;
use tests_support::wait;

use super::hosts::{Hosts, Progress};
use super::plan::{ACTS, Act, Draws, Step, round};
use crate::rig::{DEVICE, Fault, PATHS, Rig, RigOptions};

/// How many rounds instead of [`SHORT`].
const ROUNDS: &str = "HOLDFAST_FAULT_ROUNDS";
/// Rounds of the ordinary run.
const SHORT: u64 = 2;
/// Seed to use instead of the test's own.
const SEED: &str = "HOLDFAST_FAULT_SEED";

/// In the books: a second path broke while a first one was broken.
const SECOND: &str = "two faults at once";

/// The two lines that a reload takes turns with.
const TIMES: [(&str, u64); 2] = [(r#"quiesce = "2s""#, 2000), (r#"quiesce = "2500ms""#, 2500)];

/// How the device uses its paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Policy {
    ActiveActive,
    ActivePassive,
}

/// What is at the other end of the paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Site {
    /// Storage servers.
    Plain,
    /// A gate before each.
    Gates,
}

/// A run in progress.
struct Run {
    rig: Rig,
    policy: Policy,
    site: Site,
    hosts: Hosts,
    draws: Draws,
    /// Paths that are broken now, and how.
    broken: Vec<(usize, Fault)>,
    /// Index into [`TIMES`].
    time: usize,
    crashes: u64,
    /// What really happened, and how often (T6).
    done: BTreeMap<String, u64>,
}

/// Runs every fault and every act, in an order drawn from a seed.
pub(super) fn run(paths: usize, policy: Policy, site: Site, seed: u64) {
    let seed = from_environment(SEED).unwrap_or(seed);
    let rounds = from_environment(ROUNDS).unwrap_or(SHORT);
    println!("{paths} paths, {policy:?}, {site:?}, seed {seed}, {rounds} rounds");
    let mut run = Run::start(paths, policy, site, seed);
    let faults = run.rig.faults();
    for number in 0..rounds {
        for step in round(&mut run.draws, &faults) {
            let begun = Instant::now();
            println!("round {number}: {step} ...");
            run.carry_out(step);
            println!("round {number}: {step}: {} ms", begun.elapsed().as_millis());
        }
    }
    run.finish(rounds);
}

fn from_environment(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

impl Run {
    fn start(paths: usize, policy: Policy, site: Site, seed: u64) -> Self {
        let options = RigOptions::new(paths).key(r#"failback = "manual""#);
        let options = match site {
            Site::Plain => options.mixed(),
            Site::Gates => options.gated(),
        };
        let rig = match policy {
            Policy::ActiveActive => options.key(r#"policy = "active-active""#),
            Policy::ActivePassive => options.key(r#"policy = "active-passive""#),
        };
        let rig = rig.start();
        rig.reload(&[TIMES[0].0], None);
        let hosts = Hosts::start(&rig.node);
        Self {
            rig,
            policy,
            site,
            hosts,
            draws: Draws::new(seed),
            broken: Vec::new(),
            time: 0,
            crashes: 0,
            done: BTreeMap::new(),
        }
    }

    fn carry_out(&mut self, step: Step) {
        match step {
            Step::Fault { fault, act } => self.fault(fault, act),
            Step::Act(act) => self.act(act),
        }
        self.hosts.await_progress(self.hosts.progress());
    }

    fn count(&mut self, what: String) {
        *self.done.entry(what).or_default() += 1;
    }

    fn fault(&mut self, fault: Fault, act: Option<Act>) {
        let able: Vec<usize> =
            (0..self.rig.paths().len()).filter(|&path| self.rig.can(path, fault)).collect();
        let path = self.draws.pick(&able);
        self.make_active(path);
        self.break_path(path, fault);
        // While a server is stopped with writes in its hands newer ones over them wait for it, so
        // a second fault could show nothing.
        if self.rig.paths().len() > 2 && fault != Fault::Stop && self.draws.pick(&[true, false]) {
            let path = self.expendable();
            let mut able = self.rig.faults();
            able.retain(|second| self.may_be_second(path, *second));
            let second = self.draws.pick(&able);
            self.break_path(path, second);
            self.count(SECOND.to_owned());
        }
        if let Some(act) = act {
            self.act(act);
            self.count(format!("{act:?} during a fault"));
        }
        while !self.broken.is_empty() {
            let (path, fault) = self.draws.pick(&self.broken);
            self.rig.heal(path, fault);
            self.broken.retain(|(broken, _)| *broken != path);
            self.await_back(path);
        }
    }

    fn may_be_second(&self, path: usize, fault: Fault) -> bool {
        fault != Fault::Stop && self.rig.can(path, fault)
    }

    /// Breaks a path that carries I/O, and waits until all have felt it and the hosts go on.
    fn break_path(&mut self, path: usize, fault: Fault) {
        self.broken.push((path, fault));
        self.rig.break_path(path, fault);
        self.hosts.await_progress(self.hosts.progress());
        self.count(format!("{fault:?}"));
    }

    /// Active-passive: the path carries the I/O. A fault of a path that carries none shows little.
    fn make_active(&self, path: usize) {
        if self.policy == Policy::ActiveActive || self.is_active(path) {
            return;
        }
        let others: Vec<usize> = (0..self.rig.paths().len()).filter(|&other| other != path).collect();
        for &other in &others {
            self.rig.node.path_command("drain", DEVICE, PATHS[other]);
        }
        wait::until_true("the path left to be active", || self.is_active(path));
        for other in others {
            self.rig.node.path_command("reinstate", DEVICE, PATHS[other]);
            self.await_back(other);
        }
    }

    /// Active-passive: it carries the I/O, if only for want of one that is past its probation.
    fn is_active(&self, path: usize) -> bool {
        self.rig.node.path(DEVICE, PATHS[path]).access == "optimized"
    }

    /// Waits until a path is fit to be the last one: it carries requests, or stands by.
    fn await_back(&self, path: usize) {
        let name = PATHS[path];
        // Late replies on an old connection count as completed, too.
        let fit = |status: &PathStatus| match status.state.as_str() {
            "up" | "standby" => true,
            "probation" => status.access != "unavailable",
            _ => false,
        };
        let back = self.rig.node.await_path(DEVICE, name, "to be fit again, or held back", |status| {
            fit(status) || matches!(status.state.as_str(), "held" | "slow")
        });
        if !fit(&back) {
            // More failures in ten minutes, or errors in one, than the limits allow: the operator knows why, and
            // says so.
            self.rig.node.path_command("reinstate", DEVICE, name);
            self.rig.node.await_path(DEVICE, name, "to be fit again", fit);
        }
        if self.policy == Policy::ActiveActive {
            let before = self.rig.node.path(DEVICE, name).completed();
            self.rig.node.await_path(DEVICE, name, "to carry requests again", |status| {
                fit(status) && status.completed() > before + 20
            });
        }
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Fail => self.out_and_in("fail"),
            Act::Drain => self.out_and_in("drain"),
            Act::ReloadTime => self.reload_time(),
            Act::ReloadPath => self.reload_path(),
            Act::Reconnect => self.hosts.reconnect(&self.rig.node),
            Act::Crash => {
                self.crashes += 1;
                Hosts::crash(&self.rig.node, 2 * self.crashes);
            }
        }
        self.count(format!("{act:?}"));
    }

    /// A path whose loss leaves one: any that is well, where two are, else a broken one. Where one
    /// carries all I/O it is that one.
    fn expendable(&mut self) -> usize {
        let broken = |path: &usize| self.broken.iter().any(|(broken, _)| broken == path);
        let well: Vec<usize> = (0..self.rig.paths().len()).filter(|path| !broken(path)).collect();
        if well.len() < 2 {
            return self.broken[0].0;
        }
        if self.policy == Policy::ActivePassive {
            return wait::until("a path that is well to be active", || {
                well.iter().copied().find(|path| self.is_active(*path))
            });
        }
        self.draws.pick(&well)
    }

    fn is_broken(&self, path: usize) -> bool {
        self.broken.iter().any(|(broken, _)| *broken == path)
    }

    /// Out: it carries nothing more while the hosts go on. In: it is used again.
    fn out_and_in(&mut self, command: &str) {
        let path = self.expendable();
        let name = PATHS[path];
        self.rig.node.path_command(command, DEVICE, name);
        // What a broken path had in hand stays there until it is mended.
        let is_broken = self.is_broken(path);
        self.rig.node.await_path(DEVICE, name, "to be out", |status| {
            (status.state == "drained" || status.state == "down") && (is_broken || status.inflight == 0)
        });
        let since = self.await_served();
        let completed = self.rig.node.path(DEVICE, name).completed();
        self.hosts.await_progress(since);
        let now = self.rig.node.path(DEVICE, name).completed();
        assert_eq!(now, completed, "{name} carries requests after `path {command}`");
        self.rig.node.path_command("reinstate", DEVICE, name);
        if is_broken {
            self.rig.node.await_path(DEVICE, name, "to be in again", |status| status.state != "drained");
        } else {
            self.await_back(path);
        }
    }

    /// The hosts are served whenever a path is well, now and until they are; where they are then. On a machine short of
    /// processors the path that is left may be suspect for a moment, and its state says so.
    fn await_served(&self) -> Progress {
        wait::until_true("a path that is well to serve", || {
            let device = self.rig.node.device(DEVICE);
            let served = matches!(device.state().as_str(), "optimal" | "degraded");
            let well =
                device.paths().into_iter().find(|path| matches!(path.state.as_str(), "up" | "standby"));
            assert!(
                served || well.is_none(),
                "the device is {}, and a path is well: {well:?}",
                device.state()
            );
            served
        });
        self.hosts.progress()
    }

    fn reload_time(&mut self) {
        self.time = 1 - self.time;
        let (line, quiesce_ms) = TIMES[self.time];
        self.rig.reload(&[line], None);
        wait::until_true("the new time to be in force", || {
            self.rig.node.device(DEVICE).number("quiesce_ms") == quiesce_ms
        });
    }

    fn reload_path(&mut self) {
        let (path, all) = (self.expendable(), self.rig.paths().len());
        let line = TIMES[self.time].0;
        let count = || self.rig.node.device(DEVICE).paths().len();
        self.rig.reload(&[line], Some(path));
        wait::until_true("the path to be gone", || count() == all - 1);
        self.hosts.await_progress(self.await_served());
        self.rig.reload(&[line], None);
        wait::until_true("the path to be there again", || count() == all);
        if !self.is_broken(path) {
            self.await_back(path);
        }
    }

    /// Everything is as it was (T7), no host saw anything, and everything did happen (T6).
    fn finish(mut self, rounds: u64) {
        match self.policy {
            Policy::ActiveActive => self.rig.await_all_in_use(),
            Policy::ActivePassive => {
                for name in self.rig.paths() {
                    self.rig.node.await_path(DEVICE, name, "to be usable", |status| {
                        status.is_up() || status.state == "standby"
                    });
                }
                self.rig.node.await_device(DEVICE, "optimal");
            }
        }
        self.hosts.await_progress(self.hosts.progress());
        let device = self.rig.node.device(DEVICE);
        assert_eq!(device.json().get("errors").number(), 0, "errors were answered to hosts");
        self.assert_fenced();
        let [deep, shallow, guest] = self.hosts.finish();
        self.rig.node.process().assert_running();
        let gaps = [&deep, &shallow].map(|report| report.longest_gap.as_millis());
        println!("longest silence at depth 32: {} ms, at depth 1: {} ms", gaps[0], gaps[1]);
        println!("requests: {}", [&deep, &shallow, &guest].map(|r| r.reads + r.writes).iter().sum::<u64>());
        println!("{:#?}", self.done);
        let faults = self.rig.faults().into_iter().map(|fault| format!("{fault:?}"));
        let acts = ACTS.iter().flat_map(|act| [format!("{act:?}"), format!("{act:?} during a fault")]);
        let second = (self.rig.paths().len() > 2).then(|| SECOND.to_owned());
        for what in faults.chain(acts).chain(second) {
            let times = self.done.get(&what).copied().unwrap_or(0);
            assert!(times >= rounds, "{what} happened {times} times in {rounds} rounds");
        }
    }

    /// Behind gates what was in doubt ended by their word, and never by a timer.
    fn assert_fenced(&self) {
        let told =
            |name: &str| self.rig.node.events_after(0).iter().filter(|event| event.name == name).count();
        let (fenced, unproven) = (told("session_fenced"), told("quarantine_unproven"));
        println!("sessions ended by a gate: {fenced}, quarantines ended by a timer: {unproven}");
        if self.site == Site::Gates {
            assert!(fenced > 0, "no gate was asked to end a session");
            assert_eq!(unproven, 0, "a quarantine ended by a timer behind gates");
        }
    }
}
