// SPDX-License-Identifier: MIT OR Apache-2.0
//! The machines of a run: a node with a device per cell, a link per fault and one that is
//! always well, a relay on each, real storage servers behind them.

use tests_support::holdfast::{Config, Device, Node};
use tests_support::servers::{NbdServer, Trace};
use tests_support::{
    Cut, Endpoint, Fabric, LinkFault, Relay, TestDir, client_queues, loopback, server_queues, wait,
};

use super::cell::{ACCESSES, Access, Cell, FAULTS, Fault, MODES, Mode, Stall};

/// Bytes of each device.
const SIZE_BYTES: u64 = 1 << 20;
/// Time in which the stalled copies of the default mode are let loose and executed; the
/// assumption of that mode must hold in the test, or the test shows nothing.
const QUIESCE: &str = "6s";
/// Of `unproven = "hold"`, where no timer may count.
pub(super) const HOLD_QUIESCE_MS: u64 = 3500;
const HOLD: &str = "10s";
/// Long enough for A of every device to be sent into the stall before the first is noticed.
const PATIENCE: [&str; 2] = [
    r#"canary = { interval = "5s", idle = "5s", deadline = "2s" }"#,
    r#"deadline = { read = "2s", write = "3s" }"#,
];

/// Drops in this order: what uses the network goes before it.
pub(super) struct Site {
    pub(super) node: Node,
    pub(super) sides: Vec<Side>,
    _good: Relay,
    _good_server: NbdServer,
    pub(super) fabric: Fabric,
    pub(super) dir: TestDir,
}

/// The storage server of path `a` of all devices of one mode, and the relays before it.
pub(super) struct Side {
    mode: Mode,
    pub(super) server: NbdServer,
    pub(super) trace: Trace,
    /// One for each fault.
    relays: Vec<Relay>,
    /// Processes that served a connection when the stall began.
    stalled: Vec<i32>,
}

impl Site {
    /// Starts everything and waits until every path can carry I/O.
    pub(super) fn start() -> Self {
        let dir = TestDir::new();
        let fabric = Fabric::new(FAULTS.len() + 1);
        let exports: Vec<(String, String)> = Cell::all()
            .enumerate()
            .map(|(seed, cell)| {
                let name = cell.to_string();
                let image = dir.patterned_image(&name, SIZE_BYTES, seed as u64 + 1);
                (name, image)
            })
            .collect();
        let sides: Vec<Side> = MODES.iter().map(|mode| Side::start(&dir, &fabric, *mode, &exports)).collect();
        let good_server = Endpoint::tcp(loopback(), Fabric::PORT);
        let server = NbdServer::start_with(&dir, "nbd-server-b", &good_server, &exports, None);
        let good = Relay::start(fabric.storage(), &fabric.endpoint(FAULTS.len()), &good_server);
        let node = Node::start_within(fabric.host(), &dir, &config(&dir, &sides, &good));
        let site = Self { node, sides, _good: good, _good_server: server, fabric, dir };
        site.await_usable();
        site
    }

    /// Waits until both paths of every device can carry I/O.
    pub(super) fn await_usable(&self) {
        for cell in Cell::all() {
            for path in ["a", "b"] {
                self.node.await_path(&cell.to_string(), path, "to be usable", |status| {
                    status.is_up() || status.state == "standby"
                });
            }
        }
    }

    /// Every byte that a path `a` carries from now on gets stuck.
    pub(super) fn stall(&mut self, stall: Stall) {
        for side in &mut self.sides {
            side.stalled = side.server.children();
            match stall {
                Stall::ReceiveQueue => {
                    side.server.stop_children();
                }
                Stall::Execution => side.trace.hold(&side.stalled),
                Stall::SendQueue => side.relays.iter().for_each(Relay::stop_reading),
                Stall::Network => side.relays.iter().for_each(Relay::hold),
            }
        }
    }

    /// Waits until at least `bytes` are stuck on the path `a` of every device.
    pub(super) fn await_stuck(&self, stall: Stall, bytes: u64) {
        for side in &self.sides {
            for (fault, relay) in FAULTS.iter().zip(&side.relays) {
                let what = format!("A to be stuck in {stall:?} before {fault:?}, {:?}", side.mode);
                let stuck = || match stall {
                    Stall::ReceiveQueue => side.received(),
                    Stall::SendQueue => self.sent(relay),
                    Stall::Network => relay.kept_bytes().iter().map(|kept| *kept as u64).collect(),
                    Stall::Execution => panic!("the server tells what it executes"),
                };
                wait::until_true(&what, || {
                    let stuck = stuck();
                    stuck.len() >= ACCESSES.len() && stuck.iter().all(|stuck| *stuck >= bytes)
                });
            }
        }
    }

    fn sent(&self, relay: &Relay) -> Vec<u64> {
        let queues = client_queues(self.fabric.host(), relay.endpoint());
        queues.iter().map(|queues| queues.send_bytes).collect()
    }

    /// Breaks path `a` of every device in the way of its cell.
    pub(super) fn break_paths(&self) {
        for side in &self.sides {
            for (fault, relay) in FAULTS.iter().zip(&side.relays) {
                match fault {
                    Fault::Reset => relay.cut(Cut::Reset),
                    Fault::Fin => relay.cut(Cut::Fin),
                    Fault::SilentLink | Fault::SilentServer => {}
                }
            }
        }
        let link = link_of(Fault::SilentLink);
        self.fabric.inject(link, LinkFault::DropToStorage);
        self.fabric.inject(link, LinkFault::DropFromStorage);
    }

    /// Lets loose what is stalled on the devices of one mode.
    pub(super) fn let_loose(&self, stall: Stall, mode: Mode) {
        let side = self.side(mode);
        match stall {
            Stall::ReceiveQueue => side.server.resume_children(),
            Stall::Execution => side.trace.let_loose(&side.stalled),
            Stall::SendQueue | Stall::Network => side.relays.iter().for_each(Relay::let_loose),
        }
    }

    /// Mends the link; fails if its fault touched nothing (T6).
    pub(super) fn heal(&self) {
        let link = link_of(Fault::SilentLink);
        assert!(self.fabric.caught_packets(link) > 0, "the silent link caught no packet");
        self.fabric.heal(link);
    }

    /// Whether nothing of the stalled connections of a cell can come any more: our kernel has
    /// nothing left for them, and the server has read them to their end. Behind a link that was
    /// silent the server does not learn of the end; nothing being left must do.
    pub(super) fn is_spent(&self, cell: Cell) -> bool {
        let relay = &self.side(cell.mode).relays[link_of(cell.fault)];
        let queued: u64 = self.sent(relay).iter().sum();
        queued == 0 && (cell.fault == Fault::SilentLink || relay.stalled_ended())
    }

    pub(super) fn side(&self, mode: Mode) -> &Side {
        self.sides.iter().find(|side| side.mode == mode).expect("there is one for each mode")
    }
}

impl Side {
    fn start(dir: &TestDir, fabric: &Fabric, mode: Mode, exports: &[(String, String)]) -> Self {
        let name = format!("nbd-server-a-{mode:?}");
        let trace = Trace::new(dir, &format!("trace-{mode:?}"));
        let endpoint = Endpoint::tcp(loopback(), Fabric::PORT);
        let server = NbdServer::start_with(dir, &name, &endpoint, exports, Some(&trace));
        let relay = |fault: &Fault| {
            let near = Endpoint::tcp(fabric.address(link_of(*fault)), port_of(mode));
            Relay::start(fabric.storage(), &near, &endpoint)
        };
        Self { mode, server, trace, relays: FAULTS.iter().map(relay).collect(), stalled: Vec::new() }
    }

    /// Whether a process already served a connection when the stall began.
    pub(super) fn was_stalled(&self, pid: i32) -> bool {
        self.stalled.contains(&pid)
    }

    fn received(&self) -> Vec<u64> {
        server_queues(self.server.endpoint()).iter().map(|queues| queues.receive_bytes).collect()
    }
}

fn link_of(fault: Fault) -> usize {
    FAULTS.iter().position(|other| *other == fault).expect("every fault has a link")
}

fn port_of(mode: Mode) -> u16 {
    Fabric::PORT + MODES.iter().position(|other| *other == mode).expect("every mode has a port") as u16
}

fn config(dir: &TestDir, sides: &[Side], good: &Relay) -> Config {
    Cell::all().fold(Config::new(dir).defaults(&PATIENCE), |config, cell| {
        let side = sides.iter().find(|side| side.mode == cell.mode).expect("there is one for each mode");
        let stalled = side.relays[link_of(cell.fault)].endpoint();
        config.device(device(cell, stalled, good.endpoint()))
    })
}

fn device(cell: Cell, stalled: &Endpoint, good: &Endpoint) -> Device {
    let name = cell.to_string();
    let mut device = Device::new(&name).key(r#"selector = "round-robin""#).key(r#"failback = "manual""#);
    device = match cell.mode {
        Mode::Assume => device.key(&format!("quiesce = \"{QUIESCE}\"")),
        Mode::Hold => device
            .key(r#"unproven = "hold""#)
            .key(&format!("quiesce = \"{HOLD_QUIESCE_MS}ms\""))
            .key(&format!(r#"no_path = {{ mode = "hold", hold = "{HOLD}" }}"#)),
    };
    let (policy, priority) = match cell.access {
        Access::ActiveActive => ("active-active", 50),
        Access::ActivePassive => ("active-passive", 60),
    };
    device
        .key(&format!("policy = \"{policy}\""))
        .path("a", &stalled.uri(&name))
        .path_key(&format!("priority = {priority}"))
        .path_key(r#"same_cache = "page-cache""#)
        .path("b", &good.uri(&name))
        .path_key("priority = 50")
        .path_key(r#"same_cache = "page-cache""#)
}
