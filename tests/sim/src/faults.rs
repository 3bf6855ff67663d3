// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is done to the world, and how it is undone.
//!
//! One fault at a time per server and per link; any number at once over all. A fault
//! that the engine cannot be asked to survive is injected only while it can: other
//! data on a server needs another path that is well, to be compared with.

use engine::{Event, LaneFault};
use program::{
    DeviceProgram, Failback, MILLISECOND, Nanos, PathCommand, PathProgram, SECOND, SelectorKind, Writers,
};

use crate::coverage::FaultClass;
use crate::device::Device;
use crate::env::Env;
use crate::plan::Topology;
use crate::queue::Happening;

/// Other paths must have been well for this long before other data is served.
const CALM: Nanos = 3 * SECOND;
/// Nothing new happens for this long before other data is served.
const WAIT_FOR_CALM: Nanos = 15 * SECOND;
/// So often it is tried then: some path may be on probation yet, or nobody at work on the one that is to lie.
const TRIES: u32 = 12;

/// A fault in force.
#[derive(Clone, Debug)]
struct Fault {
    class: FaultClass,
    link: usize,
    device: usize,
    healed: bool,
}

/// A fault of a scenario.
#[derive(Clone, Copy, Debug)]
pub struct Planned {
    /// When it begins.
    pub at: Nanos,
    /// What.
    pub class: FaultClass,
    /// Where.
    pub link: usize,
    /// How long, unless it ends in itself.
    pub lasts: Nanos,
}

/// The faults of a run.
#[derive(Debug, Default)]
pub struct Faults {
    list: Vec<Fault>,
    calm_until: Nanos,
    /// Other data is to be served over this link once all is calm.
    wanted: Option<usize>,
    /// How often it was calm in vain since.
    tries: u32,
}

impl Faults {
    /// Injects the next one, if the world takes it, and plans the one after.
    pub fn next(&mut self, env: &mut Env, devices: &mut [Device]) {
        if !env.faulting {
            return;
        }
        let gap = env.rng.spread(20 * MILLISECOND, env.plan.faults.gap);
        env.after(gap, Happening::Fault);
        let calm = env.now < self.calm_until;
        let crashed = self.list.iter().any(|fault| !fault.healed && fault.class == FaultClass::HostCrash);
        if calm || crashed {
            return;
        }
        let wanted = self.wanted.take();
        let drawn = FaultClass::ALL[env.rng.weighted(&env.plan.faults.weights)];
        let class = if wanted.is_some() { FaultClass::OtherData } else { drawn };
        let link = wanted.unwrap_or(env.rng.below(env.links.len() as u64) as usize);
        let device = env.rng.below(devices.len() as u64) as usize;
        let server = env.links[link].server;
        if env.links[link].faults + env.servers[server].faults > 0 {
            return;
        }
        let fault = Fault { class, link, device, healed: false };
        self.inject(env, devices, fault, wanted, None);
    }

    /// One fault of a scenario.
    pub fn planned(&mut self, env: &mut Env, devices: &mut [Device], planned: &Planned) {
        let fault = Fault { class: planned.class, link: planned.link, device: 0, healed: false };
        self.inject(env, devices, fault, None, Some(planned.lasts));
    }

    fn inject(
        &mut self,
        env: &mut Env,
        devices: &mut [Device],
        fault: Fault,
        wanted: Option<usize>,
        lasts: Option<Nanos>,
    ) {
        let Fault { class, link, device, .. } = fault;
        let server = env.links[link].server;
        let busy = devices.iter().any(|device| device.busy_on(link));
        let Some(met) = self.begin(env, devices, &fault) else {
            self.tries = if wanted.is_some() { self.tries + 1 } else { 0 };
            if class == FaultClass::OtherData && self.tries < TRIES && can_tell(env, devices, link) {
                self.wanted = Some(link);
                self.calm_until = env.now + if wanted.is_some() { CALM } else { WAIT_FOR_CALM };
            }
            return;
        };
        env.tell(device as u16, || format!("! {class:?} on link {link}"));
        if met || busy {
            env.coverage.fault(class);
        }
        env.links[link].faults += 1;
        env.links[link].well_since = None;
        if of_server(class) {
            env.servers[server].faults += 1;
            env.servers[server].well_since = None;
        }
        self.list.push(fault);
        let lasts = match lasts {
            _ if momentary(class) => 1,
            Some(lasts) => lasts,
            None => env.rng.spread(50 * MILLISECOND, env.plan.faults.lasts),
        };
        if class == FaultClass::OtherData {
            self.calm_until = env.now + lasts + SECOND;
        }
        env.after(lasts, Happening::Heal((self.list.len() - 1) as u32));
    }

    /// Ends one.
    pub fn heal(&mut self, env: &mut Env, devices: &mut [Device], index: u32) {
        let fault = &mut self.list[index as usize];
        if std::mem::replace(&mut fault.healed, true) {
            return;
        }
        let fault = fault.clone();
        env.tell(fault.device as u16, || format!("! {:?} on link {} ends", fault.class, fault.link));
        let server = env.links[fault.link].server;
        env.links[fault.link].faults -= 1;
        if env.links[fault.link].faults == 0 {
            env.links[fault.link].well_since = Some(env.now);
        }
        if of_server(fault.class) {
            env.servers[server].faults -= 1;
            if env.servers[server].faults == 0 {
                env.servers[server].well_since = Some(env.now);
            }
        }
        end(env, devices, &fault);
        for link in 0..env.links.len() {
            if env.links[link].server == server {
                for device in devices.iter_mut() {
                    device.wake(env, link);
                }
            }
        }
    }

    /// Ends all.
    pub fn heal_all(&mut self, env: &mut Env, devices: &mut [Device]) {
        for index in 0..self.list.len() {
            self.heal(env, devices, index as u32);
        }
    }

    /// `None` if it cannot be injected now; else whether it met something by itself.
    fn begin(&self, env: &mut Env, devices: &mut [Device], fault: &Fault) -> Option<bool> {
        let link = fault.link;
        let server = env.links[link].server;
        let broken = match fault.class {
            FaultClass::Reset => Some(LaneFault::Reset("connection reset by peer".into())),
            FaultClass::Fin => Some(LaneFault::Closed),
            FaultClass::Garbage => Some(LaneFault::Protocol("not a reply magic".into())),
            _ => None,
        };
        if let Some(broken) = broken {
            let met = devices.iter_mut().map(|device| device.break_link(env, link, &broken));
            return Some(met.fold(false, |met, one| met | one));
        }
        match fault.class {
            FaultClass::Kill => return Some(kill(env, devices, server)),
            FaultClass::HostCrash => {
                if env.plan.topology != Topology::SharedCache || self.list.iter().any(|fault| !fault.healed) {
                    return None;
                }
                return Some(crash(env, devices));
            }
            FaultClass::Stop => env.servers[server].stopped = true,
            FaultClass::SilentTo => env.links[link].silent_to = true,
            FaultClass::SilentFrom => env.links[link].silent_from = true,
            FaultClass::SilentBoth => {
                env.links[link].silent_to = true;
                env.links[link].silent_from = true;
            }
            FaultClass::Eio => env.servers[server].eio = true,
            FaultClass::FlushEio => env.servers[server].flush_eio = true,
            FaultClass::Leaving => env.servers[server].leaving = true,
            FaultClass::NoSpace => env.servers[server].no_space = true,
            FaultClass::Slow => {
                let fixed = env.plan.faults.slow;
                let slow = fixed.unwrap_or_else(|| env.rng.spread(50 * MILLISECOND, 6 * SECOND));
                env.servers[server].slow = slow;
            }
            FaultClass::Hang => env.servers[server].hang = true,
            FaultClass::OtherData => {
                let met = devices.iter().any(|device| device.busy_on(link));
                if !met || !self.can_compare(env, devices, link) {
                    return None;
                }
                kill(env, devices, server);
                env.servers[server].alive = true;
                env.servers[server].other_data = true;
            }
            FaultClass::Smaller => {
                if devices.iter().any(|device| device.engine.geometry().is_none()) {
                    return None;
                }
                kill(env, devices, server);
                env.servers[server].alive = true;
                env.servers[server].smaller = true;
            }
            FaultClass::PathFail => devices[fault.device].command(env, link, PathCommand::Fail),
            FaultClass::PathDrain => devices[fault.device].command(env, link, PathCommand::Drain),
            FaultClass::Reload => {
                let device = &mut devices[fault.device];
                let program = changed(env, device, link);
                device.reload(env, program);
            }
            FaultClass::Restart => return devices[fault.device].restart(env),
            FaultClass::OwnStop => return devices[fault.device].stop_in_order(env),
            FaultClass::HostLost => return Some(lose_host(env, &mut devices[fault.device])),
            FaultClass::Reset | FaultClass::Fin | FaultClass::Garbage => unreachable!("handled above"),
        }
        Some(false)
    }

    /// Content can be compared: another server is and stays well, and nothing else is wrong.
    fn can_compare(&self, env: &Env, devices: &[Device], link: usize) -> bool {
        let server = env.links[link].server;
        let others_well = env
            .links
            .iter()
            .enumerate()
            .filter(|(_, other)| other.server != server)
            .all(|(other, _)| env.well_since(other).is_some_and(|since| since + CALM <= env.now));
        let calm = self.list.iter().all(|fault| fault.healed);
        others_well && calm && devices.iter().all(Device::all_usable) && can_tell(env, devices, link)
    }
}

/// Other data on this link's server can be told at all: another server is there, and the
/// content of every volume says what it is.
fn can_tell(env: &Env, devices: &[Device], link: usize) -> bool {
    let several = env.links.iter().any(|other| other.server != env.links[link].server);
    let tells = |device: &Device| device.program.identity.is_none() && !device.plan.blank;
    several && devices.iter().all(tells)
}

/// Ends in itself: nothing stays in force.
fn momentary(class: FaultClass) -> bool {
    matches!(
        class,
        FaultClass::Reset
            | FaultClass::Fin
            | FaultClass::Garbage
            | FaultClass::HostLost
            | FaultClass::Restart
            | FaultClass::OwnStop
    )
}

/// A fault of the server and not of one link to it.
fn of_server(class: FaultClass) -> bool {
    matches!(
        class,
        FaultClass::Kill
            | FaultClass::Stop
            | FaultClass::Eio
            | FaultClass::FlushEio
            | FaultClass::Leaving
            | FaultClass::NoSpace
            | FaultClass::Slow
            | FaultClass::Hang
            | FaultClass::OtherData
            | FaultClass::Smaller
    )
}

fn kill(env: &mut Env, devices: &mut [Device], server: usize) -> bool {
    let met = devices.iter_mut().map(|device| device.process_dies(env, server));
    let met = met.fold(false, |met, one| met | one);
    env.servers[server].alive = false;
    env.servers[server].process += 1;
    env.servers[server].busy_until = 0;
    env.servers[server].frozen.clear();
    env.servers[server].stuck.clear();
    // What nothing retains a cache must not lose: nobody promises it (`retention = "0B"`).
    let loses = env.servers[server].plan.loses && devices.iter().all(|device| !device.is_unkept());
    if let Some(cache) = env.servers[server].plan.cache.filter(|_| loses) {
        env.cache_losses[cache] += 1;
        for device in devices.iter_mut() {
            device.cache_dies(env, cache);
        }
    }
    met
}

/// Every server of the storage host dies, and with them the cache they share.
fn crash(env: &mut Env, devices: &mut [Device]) -> bool {
    let mut met = false;
    for server in 0..env.servers.len() {
        met |= kill(env, devices, server);
    }
    if env.plan.servers[0].cache.is_some() && devices.iter().all(|device| !device.is_unkept()) {
        env.cache_losses[0] += 1;
        for device in devices.iter_mut() {
            device.cache_dies(env, 0);
        }
    }
    met
}

fn end(env: &mut Env, devices: &mut [Device], fault: &Fault) {
    let (link, server) = (fault.link, env.links[fault.link].server);
    match fault.class {
        FaultClass::Kill => env.servers[server].alive = true,
        FaultClass::HostCrash => {
            for server in &mut env.servers {
                server.alive = true;
            }
            for link in 0..env.links.len() {
                for device in &mut *devices {
                    device.wake(env, link);
                }
            }
        }
        FaultClass::Stop => {
            env.servers[server].stopped = false;
            for (device, op, again) in std::mem::take(&mut env.servers[server].frozen) {
                let delay = env.rng.below(3 * MILLISECOND);
                env.schedule(server, device, op, delay, again);
            }
        }
        FaultClass::SilentTo | FaultClass::SilentFrom | FaultClass::SilentBoth => {
            env.links[link].silent_to = false;
            env.links[link].silent_from = false;
        }
        FaultClass::Eio => env.servers[server].eio = false,
        FaultClass::FlushEio => env.servers[server].flush_eio = false,
        FaultClass::NoSpace => env.servers[server].no_space = false,
        FaultClass::Slow => env.servers[server].slow = 0,
        FaultClass::Hang => {
            env.servers[server].hang = false;
            for (device, op, again) in std::mem::take(&mut env.servers[server].stuck) {
                let delay = env.rng.below(3 * MILLISECOND);
                env.schedule(server, device, op, delay, again);
            }
        }
        FaultClass::Leaving | FaultClass::OtherData | FaultClass::Smaller => {
            kill(env, devices, server);
            env.servers[server].leaving = false;
            env.servers[server].other_data = false;
            env.servers[server].smaller = false;
            env.servers[server].alive = true;
        }
        FaultClass::PathFail | FaultClass::PathDrain => {
            devices[fault.device].command(env, link, PathCommand::Reinstate);
        }
        FaultClass::Reload => {
            let program = devices[fault.device].plan.program.clone();
            devices[fault.device].reload(env, program);
        }
        FaultClass::Reset
        | FaultClass::Fin
        | FaultClass::Garbage
        | FaultClass::HostLost
        | FaultClass::Restart
        | FaultClass::OwnStop => {}
    }
}

fn lose_host(env: &mut Env, device: &mut Device) -> bool {
    let session = env.rng.below(device.sessions.len() as u64) as u16;
    let clean = env.rng.chance(200_000);
    device.lose_session(env, session, clean)
}

/// A program an operator might change to.
fn changed(env: &mut Env, device: &Device, link: usize) -> DeviceProgram {
    let mut program = device.plan.program.clone();
    // Who keeps nothing any more while a loss cannot be known yet has lost it.
    let one = program.writers == Writers::One && !device.oracle.is_uncertain();
    match env.rng.below(9) {
        0 => program.selector = SelectorKind::QueueDepth,
        1 => program.failback = Failback::Immediate,
        2 | 3 if program.paths.len() > 1 => {
            program.paths.remove(link);
        }
        4 if program.identity.is_some() => program.paths[link].read_only = program.paths.len() > 1,
        5 if one => program.retention_bytes = 0,
        6 if one => program.retention_bytes = 4 << 10,
        7 if one && !env.plan.gates() => program.writers = Writers::Many,
        _ => program.paths[link].in_flight += 1,
    }
    program
}

impl Device {
    /// An operator's word on the path of a link, if the running program has it.
    fn command(&mut self, env: &mut Env, link: usize, command: PathCommand) {
        if let Some(path) = self.links.iter().position(|&of| of == link) {
            self.feed(env, Event::Path { path, command });
        }
    }

    /// A changed program.
    fn reload(&mut self, env: &mut Env, program: DeviceProgram) {
        // What was asked before names paths of the program before.
        self.settle(env);
        let unchanged = |link: usize| {
            let same = |path: &&PathProgram| path.name == format!("p{link}");
            let (old, new) = (self.program.paths.iter().find(same), program.paths.iter().find(same));
            old.zip(new).is_some_and(|(old, new)| old == new)
        };
        // Nothing is reported of a path that is gone, or begins anew.
        for link in (0..self.plan.program.paths.len()).filter(|&link| !unchanged(link)) {
            self.paths[link].state = program::PathState::Down;
        }
        let named = |n: usize| program.paths.iter().position(|path| path.name == format!("p{n}"));
        let all = self.plan.program.paths.len();
        self.links = vec![0; program.paths.len()];
        for link in 0..all {
            if let Some(path) = named(link) {
                self.links[path] = link;
            }
        }
        let kept = self.retains();
        self.program = program.clone();
        self.note_retention(env, kept);
        self.feed(env, Event::Program(Box::new(program)));
        // As the driver does at each turn.
        self.engine.set_retention_limit(u64::MAX);
    }

    /// Every path is in use or ready.
    fn all_usable(&self) -> bool {
        self.paths
            .iter()
            .all(|path| matches!(path.state, program::PathState::Up | program::PathState::Standby))
    }
}
