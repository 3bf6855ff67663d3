// SPDX-License-Identifier: MIT OR Apache-2.0
//! Everything a run is made of, drawn from its seed (swarm testing: each run has
//! its own sizes, options and weights, so that rare combinations meet).

use program::{
    AccessPolicy, AccessState, CanaryTimes, Coherence, Deadlines, DeviceProgram, Exclusive, Failback, Groups,
    MILLISECOND, Nanos, NoPath, PathProgram, Portal, SECOND, SelectorKind, Target, Unproven, Writers,
};

use crate::coverage::FaultClass;
use crate::rng::Rng;

/// Tells the draws of [`draw_hedges`] from the others of a seed.
const HEDGES: u64 = 0x6865_6467_6573;
/// And those of [`draw_groups`].
const GROUPS: u64 = 0x6772_6f75_7073;
/// Seeds the draw of paths for reads alone.
const READ_ONLY: u64 = 0x7265_6164_6f6e;

/// How paths lead to the storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topology {
    /// One server process behind several links: one cache, and it dies for all paths.
    Portals,
    /// A server process per path on one host: one cache that outlives each of them.
    SharedCache,
    /// A server per path with a cache of its own; all show the newest content.
    OwnCaches,
    /// The same, but a server does not see what is dirty in another (W18).
    Incoherent,
}

/// What a server offers and how it behaves when well.
#[derive(Clone, Debug)]
pub struct ServerPlan {
    /// Index of its cache in every volume; `None`: it writes through.
    pub cache: Option<usize>,
    /// Offers FUA.
    pub fua: bool,
    /// Offers WRITE_ZEROES.
    pub zeroes: bool,
    /// Offers TRIM.
    pub trim: bool,
    /// TRIM leaves zeroes; else it leaves what was there.
    pub trim_zeroes: bool,
    /// Offers extended headers.
    pub extended: bool,
    /// Offers `base:allocation`.
    pub block_status: bool,
    /// Offers CAN_MULTI_CONN.
    pub multi_conn: bool,
    /// Largest payload, in sectors.
    pub payload_sectors: u64,
    /// Operations of one connection that it works on at once.
    pub depth: usize,
    /// Usual service time of one operation.
    pub service: Nanos,
    /// And how long each keeps all others of the server waiting: they queue behind it. 0: they do not.
    pub queue: Nanos,
    /// Finishes everything before it closes after DISC.
    pub drains: bool,
    /// Reads on what it has received after a reset.
    pub reads_after_reset: bool,
    /// Bytes its socket takes while it does not read.
    pub receive_bytes: u64,
    /// Its cache dies with its process.
    pub loses: bool,
    /// It is a gate, or has one in front of it (2.4).
    pub gate: bool,
    /// What its processes say of the way to them, in turn.
    pub access: [AccessState; 2],
}

/// One device: its program, its volume, its hosts.
#[derive(Clone, Debug)]
pub struct DevicePlan {
    /// What the engine runs.
    pub program: DeviceProgram,
    /// Bytes of one sector of the model; every request is aligned to it.
    pub sector_bytes: u64,
    /// Size in sectors.
    pub sectors: usize,
    /// The volume holds zeroes at first, which prove nothing about identity.
    pub blank: bool,
    /// Host sessions.
    pub sessions: usize,
    /// Requests each keeps in flight.
    pub depth: usize,
    /// Longest pause between an answer and the next request of the slot.
    pub think: Nanos,
    /// Sectors of the range that most requests hit.
    pub hot: usize,
    /// Weights: read, write, zeroes, trim, flush, cache, block status.
    pub mix: [u32; 7],
    /// FUA on a write, in parts per million.
    pub fua_ppm: u32,
    /// Another member writes the same storage.
    pub other_writer: bool,
}

/// How often and which faults.
#[derive(Clone, Debug)]
pub struct FaultPlan {
    /// Weights by [`FaultClass`].
    pub weights: Vec<u32>,
    /// Longest pause between two.
    pub gap: Nanos,
    /// Longest one, in time.
    pub lasts: Nanos,
    /// A lost operation is done late rather than at once or never.
    pub late_ppm: u32,
    /// An operation is done twice where the model allows it.
    pub twice_ppm: u32,
    /// Bytes in the network at a reset arrive all the same.
    pub network_ppm: u32,
    /// By how much a slow server is slower; `None`: drawn.
    pub slow: Option<Nanos>,
}

/// A whole run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Devices; path `n` of each leads over link `n`.
    pub devices: Vec<DevicePlan>,
    /// Servers.
    pub servers: Vec<ServerPlan>,
    /// Server behind each link.
    pub links: Vec<usize>,
    /// See there.
    pub topology: Topology,
    /// Faults.
    pub faults: FaultPlan,
    /// Time with faults, before everything is healed.
    pub duration: Nanos,
    /// It ends earlier after so many host requests: one busy run shows no more than another.
    pub requests: u64,
    /// The same for happenings: a storage whose FLUSH fails has everything that is retained written again for each
    /// FLUSH of a host, which is much work for few requests.
    pub happenings: u64,
    /// What our kernel takes for one connection beyond what is acknowledged, in bytes.
    pub send_buffer_bytes: u64,
    /// One-way time of a link.
    pub latency: Nanos,
}

impl Plan {
    /// The run of this seed.
    pub fn draw(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let paths = rng.weighted(&[0, 1, 6, 2, 2]);
        let topology = match rng.weighted(&[3, 4, 3, 2]) {
            0 => Topology::Portals,
            1 => Topology::SharedCache,
            2 => Topology::OwnCaches,
            _ => Topology::Incoherent,
        };
        let sector_bytes = rng.pick(&[512, 512, 512, 4096, 1 << 20]);
        let servers = if topology == Topology::Portals { 1 } else { paths };
        let volatile = topology == Topology::Incoherent || rng.chance(700_000);
        let multi_conn = topology != Topology::Incoherent || rng.chance(500_000);
        let latency = rng.spread(20_000, 2 * MILLISECOND);
        let mut plan = Self {
            servers: Vec::new(),
            links: (0..paths).map(|path| if topology == Topology::Portals { 0 } else { path }).collect(),
            topology,
            faults: draw_faults(&mut rng),
            duration: rng.between(10, 60) * SECOND,
            requests: rng.pick(&[2_000, 5_000, 10_000]),
            happenings: 500_000,
            send_buffer_bytes: rng.spread(sector_bytes / 2, 32 * sector_bytes),
            latency,
            devices: Vec::new(),
        };
        for server in 0..servers {
            let cache = match topology {
                Topology::Portals | Topology::SharedCache => 0,
                Topology::OwnCaches | Topology::Incoherent => server,
            };
            let mut server = draw_server(&mut rng, volatile.then_some(cache), multi_conn, sector_bytes);
            // There the cache is the host's.
            server.loses &= topology != Topology::SharedCache;
            plan.servers.push(server);
        }
        // All or none: where one path leads to plain storage nothing is proven for it.
        let gates = rng.chance(250_000);
        for server in &mut plan.servers {
            server.gate = gates;
            // A gate has FUA, whatever is behind it: nothing else would bring a write out of a cache that is not shared.
            server.fua |= gates && topology == Topology::Incoherent;
        }
        for _ in 0..rng.pick(&[1, 1, 1, 2, 3]) {
            let device = draw_device(&mut rng, &plan, paths, sector_bytes);
            plan.devices.push(device);
        }
        draw_hedges(&mut Rng::new(seed ^ HEDGES), &mut plan.devices);
        draw_groups(&mut Rng::new(seed ^ GROUPS), &mut plan);
        draw_read_only(&mut Rng::new(seed ^ READ_ONLY), &mut plan.devices);
        plan
    }

    /// A scenario's start: `paths` servers that are well and offer everything, one device, one host that asks
    /// again at once; the settings are the product's defaults.
    pub fn calm(paths: usize, gates: bool) -> Self {
        let server = ServerPlan {
            cache: Some(0),
            fua: true,
            zeroes: true,
            trim: true,
            trim_zeroes: true,
            extended: false,
            block_status: true,
            multi_conn: true,
            payload_sectors: 1024,
            depth: 64,
            service: 100_000,
            queue: 0,
            drains: false,
            reads_after_reset: true,
            receive_bytes: 256 << 10,
            loses: false,
            gate: gates,
            access: [AccessState::Optimized; 2],
        };
        let mut plan = Self {
            servers: vec![server; paths],
            links: (0..paths).collect(),
            topology: Topology::SharedCache,
            faults: FaultPlan {
                weights: Vec::new(),
                gap: 0,
                lasts: 0,
                late_ppm: 0,
                twice_ppm: 0,
                network_ppm: 0,
                slow: None,
            },
            duration: 8 * SECOND,
            requests: u64::MAX,
            happenings: u64::MAX,
            send_buffer_bytes: 1 << 20,
            latency: 50_000,
            devices: Vec::new(),
        };
        let mut rng = Rng::new(0);
        let drawn = base_program(&mut rng, &plan, paths);
        let path =
            |path: PathProgram| PathProgram { priority: 50, weight: 1, lanes: 1, in_flight: 64, ..path };
        let program = DeviceProgram {
            access: AccessPolicy::ActiveActive,
            selector: SelectorKind::ServiceTime,
            exclusive: Exclusive::Issue,
            unproven: Unproven::Assume,
            quiesce: 5 * SECOND,
            no_path: NoPath::Hold(600 * SECOND),
            failback: Failback::After(60 * SECOND),
            retention_bytes: 64 << 20,
            identity: Some("declared".into()),
            paths: drawn.paths.iter().cloned().map(path).collect(),
            ..drawn
        };
        plan.devices.push(DevicePlan {
            program,
            sector_bytes: 4096,
            sectors: 1024,
            blank: false,
            sessions: 1,
            depth: 1,
            think: 1,
            hot: 1024,
            mix: [1, 0, 0, 0, 0, 0, 0],
            fua_ppm: 0,
            other_writer: false,
        });
        plan
    }

    /// Every path leads to a gate.
    pub fn gates(&self) -> bool {
        self.servers.iter().all(|server| server.gate)
    }

    /// Caches in front of each volume.
    pub fn caches(&self) -> usize {
        self.servers.iter().filter_map(|server| server.cache).max().map_or(0, |cache| cache + 1)
    }
}

/// Late reads are hedged on most devices. A draw of its own, so that the rest of a seed's run does not hang on it.
fn draw_hedges(rng: &mut Rng, devices: &mut [DevicePlan]) {
    for device in devices {
        device.program.hedge_budget_ppm = rng.pick(&[0, 30_000, 30_000, 500_000]);
    }
}

/// One of several paths may be for reads alone. Where a written block is the only proof of a path's identity nothing
/// could prove the others.
fn draw_read_only(rng: &mut Rng, devices: &mut [DevicePlan]) {
    for device in devices.iter_mut().filter(|device| device.program.identity.is_some()) {
        let paths = &mut device.program.paths;
        if paths.len() > 1 && rng.chance(160_000) {
            let path = rng.below(paths.len() as u64) as usize;
            paths[path].read_only = true;
        }
    }
}

/// In half of the runs all paths are one group, but for priorities.
fn draw_groups(rng: &mut Rng, plan: &mut Plan) {
    if rng.chance(500_000) {
        return;
    }
    let state = |rng: &mut Rng| match rng.weighted(&[6, 2, 1]) {
        0 => AccessState::Optimized,
        1 => AccessState::NonOptimized,
        _ => AccessState::Standby,
    };
    for server in &mut plan.servers {
        server.access = [state(rng), state(rng)];
    }
    for device in &mut plan.devices {
        device.program.groups = rng.pick(&[Groups::Priority, Groups::Latency]);
        for path in &mut device.program.paths {
            path.access_state = rng.chance(100_000).then(|| state(rng));
        }
    }
}

fn draw_faults(rng: &mut Rng) -> FaultPlan {
    // A third of the classes is left out of each run, the others weigh differently.
    let weights = FaultClass::ALL.iter().map(|_| rng.pick(&[0, 1, 1, 2, 5])).collect::<Vec<u32>>();
    let weights = if weights.iter().all(|&weight| weight == 0) { vec![1; weights.len()] } else { weights };
    FaultPlan {
        weights,
        gap: rng.spread(200 * MILLISECOND, 10 * SECOND),
        lasts: rng.spread(200 * MILLISECOND, 16 * SECOND),
        late_ppm: rng.pick(&[100_000, 300_000, 700_000]),
        twice_ppm: rng.pick(&[0, 10_000, 100_000]),
        network_ppm: rng.pick(&[0, 200_000, 700_000]),
        slow: None,
    }
}

fn draw_server(rng: &mut Rng, cache: Option<usize>, multi_conn: bool, sector_bytes: u64) -> ServerPlan {
    ServerPlan {
        cache,
        fua: rng.chance(600_000),
        zeroes: rng.chance(700_000),
        trim: rng.chance(700_000),
        trim_zeroes: rng.chance(700_000),
        extended: rng.chance(300_000),
        block_status: rng.chance(500_000),
        multi_conn,
        payload_sectors: if sector_bytes > 4096 { rng.pick(&[1, 8, 32]) } else { rng.pick(&[2, 5, 1024]) },
        depth: rng.pick(&[1, 4, 16]),
        service: rng.spread(50_000, 5 * MILLISECOND),
        queue: 0,
        drains: rng.chance(400_000),
        reads_after_reset: rng.chance(500_000),
        receive_bytes: rng.spread(sector_bytes / 2, 16 * sector_bytes),
        loses: cache.is_some() && rng.chance(600_000),
        gate: false,
        access: [AccessState::Optimized; 2],
    }
}

fn draw_device(rng: &mut Rng, plan: &Plan, paths: usize, sector_bytes: u64) -> DevicePlan {
    let sectors = if sector_bytes > 4096 { 96 } else { rng.pick(&[32, 64, 128]) };
    let other_writer =
        plan.topology != Topology::Incoherent && plan.topology != Topology::OwnCaches && rng.chance(200_000);
    // Behind a gate several writers need not write through (F7), and a loss is told by its generation.
    let other_writer = other_writer && !plan.gates();
    let declared = other_writer || rng.chance(500_000);
    let incoherent = plan.topology == Topology::Incoherent;
    let mut program = base_program(rng, plan, paths);
    program.identity = declared.then(|| "declared".into());
    program.writers = if other_writer { Writers::Many } else { Writers::One };
    program.coherent = match rng.below(2) {
        _ if incoherent => Coherence::Incoherent,
        0 => Coherence::Assumed,
        _ => Coherence::Declared,
    };
    let discards = rng.pick(&[0, 1, 1, 6]);
    let data = rng.pick(&[3, 10, 20]);
    DevicePlan {
        program,
        sector_bytes,
        sectors,
        blank: !other_writer && rng.chance(200_000),
        sessions: rng.pick(&[1, 1, 2, 3]),
        depth: rng.pick(&[1, 2, 4, 8]),
        think: rng.spread(2 * MILLISECOND, 400 * MILLISECOND),
        hot: rng.pick(&[4, 8, sectors as u64]) as usize,
        mix: [8, data, discards, discards, rng.pick(&[0, 1, 3]), 1, 1],
        fua_ppm: rng.pick(&[0, 100_000, 400_000]),
        other_writer,
    }
}

fn base_program(rng: &mut Rng, plan: &Plan, paths: usize) -> DeviceProgram {
    let path_of = |n: usize, rng: &mut Rng, lanes: u16, in_flight: u32, ranked: bool| PathProgram {
        name: format!("p{n}"),
        uri: format!("nbd://s{n}/vol"),
        target: Target::Nbd {
            portals: vec![Portal::Tcp { host: format!("s{n}"), port: 10809 }],
            export: "vol".into(),
            bind: None,
        },
        priority: if ranked { rng.pick(&[50, 60]) } else { 50 },
        access_state: None,
        weight: rng.between(1, 3) as u32,
        lanes,
        in_flight,
        drains: plan.servers[plan.links[n]].drains,
        same_cache: None,
        read_only: false,
    };
    let lanes = rng.pick(&[1, 1, 2, 3]);
    let in_flight = rng.pick(&[2, 8, 32]);
    let ranked = rng.chance(300_000);
    let shares = matches!(plan.topology, Topology::Portals | Topology::SharedCache);
    let unproven = rng.pick(&[Unproven::Assume, Unproven::Assume, Unproven::Hold]);
    let mut list: Vec<PathProgram> = (0..paths).map(|n| path_of(n, rng, lanes, in_flight, ranked)).collect();
    if shares && rng.chance(500_000) {
        for path in &mut list {
            path.same_cache = Some("one".into());
        }
    }
    DeviceProgram {
        name: "vol".into(),
        access: rng.pick(&[AccessPolicy::ActiveActive, AccessPolicy::ActivePassive]),
        groups: Groups::Priority,
        selector: rng.pick(&[
            SelectorKind::RoundRobin,
            SelectorKind::QueueDepth,
            SelectorKind::ServiceTime,
            SelectorKind::Latency,
        ]),
        writers: Writers::One,
        coherent: Coherence::Assumed,
        exclusive: rng.pick(&[Exclusive::Issue, Exclusive::Issue, Exclusive::Proven]),
        unproven,
        quiesce: rng.pick(&[3, 5, 5]) * SECOND,
        no_path: match rng.weighted(&[6, 2, 1, 1]) {
            // Nothing ends a quarantine but the hold: a run must see its end.
            _ if unproven == Unproven::Hold => NoPath::Hold(rng.between(5, 60) * SECOND),
            0 => NoPath::Hold(600 * SECOND),
            1 => NoPath::Hold(rng.between(2, 10) * SECOND),
            2 => NoPath::Fail,
            _ => NoPath::Forever,
        },
        failback: rng.pick(&[
            Failback::Immediate,
            Failback::After(5 * SECOND),
            Failback::After(60 * SECOND),
            Failback::Manual,
        ]),
        deadline: Deadlines { read: SECOND, write: 2 * SECOND },
        canary: CanaryTimes { interval: SECOND, idle: 10 * SECOND, deadline: SECOND },
        hedge_budget_ppm: 0,
        retention_bytes: rng.pick(&[64 << 20, 64 << 20, 256 << 10, 16 << 10]),
        size_bytes: None,
        identity: None,
        recorded: None,
        host_sessions: program::HostSessions::Shared,
        unclean: false,
        left_elsewhere: false,
        lost_writes: None,
        epoch: 0,
        told_access: None,
        fence: None,
        paths: list,
    }
}
