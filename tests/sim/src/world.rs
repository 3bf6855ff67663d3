// SPDX-License-Identifier: MIT OR Apache-2.0
//! One run: the devices, the faults, the phases.
//!
//! ```text
//! faults on, hosts ask      ->  all healed, hosts ask no more  ->  all quiet
//! T1-T3 at every answer         every request ends (T7)            content, buffers, accounts
//! ```

use engine::Rules;
use program::{MILLISECOND, Nanos, SECOND};

use crate::coverage::Coverage;
use crate::device::Device;
use crate::env::{Env, Failure};
use crate::faults::{Faults, Planned};
use crate::plan::Plan;
use crate::queue::Happening;
use crate::record::Points;
use crate::sabotage::Sabotage;
use crate::seen::Seen;

/// After healing, every request ends within this and the hold.
const IDLE_WITHIN: Nanos = 120 * SECOND;
/// After that, every path is in use again within this: a path that failed too often is held out for up to 10 min.
const WELL_WITHIN: Nanos = 900 * SECOND;
/// Between two write-backs of the caches.
const WRITE_BACK: Nanos = 20 * MILLISECOND;

/// What a run came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What was wrong, if anything.
    pub failure: Option<Failure>,
    /// What was exercised.
    pub coverage: Coverage,
    /// Host requests answered.
    pub requests: u64,
    /// Hash over all that went in and out of the engines.
    pub trace: u64,
    /// Virtual time that passed.
    pub time: Nanos,
    /// The longest a host waited for any answer.
    pub gap: Nanos,
    /// By device: the decision points, if they were recorded.
    pub records: Vec<Points>,
    /// What each device did while hosts asked.
    pub seen: Vec<Seen>,
}

/// See the module header.
#[derive(Debug)]
pub struct World {
    env: Env,
    devices: Vec<Device>,
    faults: Faults,
    planned: Vec<Planned>,
}

impl World {
    /// The world of a seed, at its start.
    pub fn new(seed: u64, rules: Rules, sabotage: Sabotage, story: bool) -> Self {
        let plan = Plan::draw(seed);
        let plans = plan.devices.clone();
        let mut env = Env::new(seed, plan, sabotage);
        env.story = story;
        let devices = plans
            .iter()
            .enumerate()
            .map(|(index, plan)| Device::new(index as u16, plan, &mut env, rules))
            .collect();
        env.after(200 * MILLISECOND, Happening::Fault);
        env.after(WRITE_BACK, Happening::WriteBack);
        Self { env, devices, faults: Faults::default(), planned: Vec::new() }
    }

    /// A scenario: this plan, these faults and no others. Gaps count from `calm` on.
    pub fn scenario(plan: Plan, seed: u64, planned: Vec<Planned>, calm: Nanos) -> Self {
        let plans = plan.devices.clone();
        let mut env = Env::new(seed, plan, Sabotage::None);
        let mut device = |(index, plan)| Device::new(index as u16, plan, &mut env, Rules::ALL);
        let mut devices: Vec<Device> = plans.iter().enumerate().map(&mut device).collect();
        for device in &mut devices {
            device.gap.from = calm;
        }
        for (index, planned) in planned.iter().enumerate() {
            env.queue.push(planned.at, Happening::Planned(index as u32));
        }
        env.after(WRITE_BACK, Happening::WriteBack);
        Self { env, devices, faults: Faults::default(), planned }
    }

    /// Every device records its decision points, so many at most; before anything has happened.
    #[must_use]
    pub fn recording(mut self, at_most: usize) -> Self {
        self.env.record_at_most = at_most;
        for device in &mut self.devices {
            device.engine.record_decisions(at_most);
        }
        self
    }

    /// Runs all phases.
    pub fn run(mut self) -> Outcome {
        let start = self.env.now;
        let end = start + self.env.plan.duration;
        let most = self.env.plan.requests;
        let goes_on =
            |env: &Env| env.now < end && env.requests < most && env.happenings < env.plan.happenings;
        while goes_on(&self.env) && self.env.failure.is_none() {
            self.step();
        }
        let seen = self.devices.iter().map(|device| device.seen.clone()).collect();
        let gap = self.devices.iter().map(|device| device.gap.longest).max().unwrap_or(0);
        if self.env.failure.is_none() {
            self.finish();
        }
        let records = self.devices.iter_mut().map(Device::take_record).collect();
        Outcome {
            failure: self.env.failure,
            coverage: self.env.coverage,
            requests: self.env.requests,
            trace: self.env.trace.value(),
            time: self.env.now - start,
            gap,
            records,
            seen,
        }
    }

    /// Everything is healed; everything must end well (T7).
    fn finish(&mut self) {
        self.env.issuing = false;
        self.env.faulting = false;
        self.faults.heal_all(&mut self.env, &mut self.devices);
        self.settle_all();
        self.wait_until_idle();
        self.wait_until_well();
        self.flush_all();
        self.read_all();
        if self.env.failure.is_none() {
            for device in &self.devices {
                device.conclude(&mut self.env);
            }
        }
    }

    fn wait_until_idle(&mut self) {
        let hold = self.devices.iter().map(Device::longest_wait).max().unwrap_or(0);
        let end = self.env.now + IDLE_WITHIN + hold;
        while self.env.failure.is_none() && !self.devices.iter().all(Device::is_idle) {
            if self.env.now > end {
                self.complain("T7", "requests are left after all was healed");
                return;
            }
            self.step();
        }
    }

    fn wait_until_well(&mut self) {
        let end = self.env.now + WELL_WITHIN;
        let mut look = self.env.now;
        while self.env.failure.is_none() {
            if self.env.now >= look {
                if self.devices.iter().all(|device| device.is_well(&self.env)) {
                    return;
                }
                look = self.env.now + SECOND;
                for device in &mut self.devices {
                    device.write_a_little(&mut self.env);
                }
                self.settle_all();
            }
            if self.env.now > end {
                let fenced = self.devices.iter().all(|device| device.is_fenced(&self.env));
                let rule = if fenced { "T7" } else { "2.4" };
                self.complain(rule, "not all is well long after all was healed");
                return;
            }
            self.step();
        }
    }

    /// A FLUSH may still owe an error; the second one must tell the truth.
    fn flush_all(&mut self) {
        for _ in 0..3 {
            for device in &mut self.devices {
                device.last_flush(&mut self.env);
            }
            self.settle_all();
            self.wait_until_idle();
        }
    }

    /// What a host would find now, everywhere.
    fn read_all(&mut self) {
        for device in &mut self.devices {
            device.last_reads(&mut self.env);
        }
        self.settle_all();
        self.wait_until_idle();
    }

    fn complain(&mut self, rule: &'static str, what: &str) {
        let texts: Vec<String> = self.devices.iter().map(|device| device.complaint(&self.env)).collect();
        self.env.fail(rule, || format!("{what}: {}", texts.join(" | ")));
    }

    fn step(&mut self) {
        let Some((at, what)) = self.env.queue.pop() else {
            self.env.fail("T7", || "nothing will ever happen again".into());
            return;
        };
        self.env.now = at;
        self.env.happenings += 1;
        match what {
            Happening::Fault => {
                self.faults.next(&mut self.env, &mut self.devices);
                self.settle_all();
            }
            Happening::Planned(index) => {
                let planned = self.planned[index as usize];
                self.faults.planned(&mut self.env, &mut self.devices, &planned);
                self.settle_all();
            }
            Happening::Heal(index) => {
                self.faults.heal(&mut self.env, &mut self.devices, index);
                self.settle_all();
            }
            Happening::WriteBack => self.write_back(),
            _ => {
                let device = &mut self.devices[device_of(what)];
                device.happen(&mut self.env, what);
                device.settle(&mut self.env);
            }
        }
    }

    fn settle_all(&mut self) {
        for device in &mut self.devices {
            device.settle(&mut self.env);
        }
    }

    /// Caches write back on their own, a little, in no order.
    fn write_back(&mut self) {
        if self.env.faulting {
            self.env.after(WRITE_BACK, Happening::WriteBack);
        }
        for server in 0..self.env.servers.len() {
            let Some(cache) = self.env.servers[server].plan.cache else { continue };
            if !self.env.servers[server].runs() || !self.env.rng.chance(300_000) {
                continue;
            }
            for device in &mut self.devices {
                let came_out = device.medium.write_back_one(cache, &mut self.env.rng);
                device.came_out(&mut self.env, came_out);
            }
        }
    }
}

fn device_of(what: Happening) -> usize {
    let index = match what {
        Happening::Issue(device, ..)
        | Happening::SessionBack(device, ..)
        | Happening::Connected(device, ..)
        | Happening::HandshakeTimeout(device, ..)
        | Happening::Arrive(device, ..)
        | Happening::Execute(device, ..)
        | Happening::Answer(device, ..)
        | Happening::Down(device, ..)
        | Happening::DisconnectTimeout(device, ..)
        | Happening::UserTimeout(device, ..)
        | Happening::EndGhosts(device, ..)
        | Happening::EndDirty(device, ..)
        | Happening::OtherWriter(device)
        | Happening::StopLook(device, _)
        | Happening::Timer(device) => device,
        Happening::Fault | Happening::Planned(_) | Happening::Heal(_) | Happening::WriteBack => {
            unreachable!("the world's own")
        }
    };
    usize::from(index)
}
