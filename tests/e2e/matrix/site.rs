// SPDX-License-Identifier: MIT OR Apache-2.0
//! The machines of a run: a node with a device per cell, a link per fault and one that is
//! always well, and a storage end for each protection ([`Side`]).

use tests_support::holdfast::{Config, Device, Node};
use tests_support::{Cut, Fabric, LinkFault, Relay, TestDir, client_queues, wait};

use super::cell::{ACCESSES, Access, Cell, FAULTS, Fault, MODES, Mode, Stall, gate_orders};
use super::side::{Side, link_of};

/// Bytes of each device.
const SIZE_BYTES: u64 = 1 << 20;
/// Time in which the stalled copies of the default mode are let loose and executed; the
/// assumption of that mode must hold in the test, or the test shows nothing.
const QUIESCE: &str = "7s";
/// Of `unproven = "hold"`, where no timer may count.
pub(super) const HOLD_QUIESCE_MS: u64 = 4500;
/// Of devices behind gates: far more than a run takes.
const GATE_QUIESCE: &str = "10min";
const HOLD: &str = "10s";
/// Long enough for A of every device to be sent into the stall before the first is noticed.
const PATIENCE: [&str; 2] = [
    r#"canary = { interval = "5s", idle = "5s", deadline = "2s" }"#,
    r#"deadline = { read = "2s", write = "4s" }"#,
];

/// Drops in this order: what uses the network goes before it.
pub(super) struct Site {
    pub(super) node: Node,
    sides: Vec<Side>,
    stall: Stall,
    pub(super) fabric: Fabric,
    pub(super) dir: TestDir,
}

impl Site {
    /// Starts everything and waits until every path can carry I/O.
    pub(super) fn start(stall: Stall) -> Self {
        let dir = TestDir::new();
        let fabric = Fabric::new(FAULTS.len() + 1);
        let sides: Vec<Side> = MODES
            .iter()
            .map(|mode| Side::start(&dir, &fabric, *mode, stall, &exports(&dir, *mode)))
            .collect();
        let node = Node::start_within(fabric.host(), &dir, &config(&dir, stall, &sides));
        let site = Self { node, sides, stall, fabric, dir };
        site.await_usable();
        for cell in Cell::all() {
            let fence = site.node.device(&cell.to_string()).json().get("fence").text().to_owned();
            assert_eq!(fence, cell.mode.fence(), "{cell}: the protection in force");
        }
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
    pub(super) fn stall(&mut self) {
        for side in &mut self.sides {
            side.stall(self.stall);
        }
    }

    /// Waits until at least `bytes` are stuck on the path `a` of every device.
    pub(super) fn await_stuck(&self, bytes: u64) {
        for side in &self.sides {
            for (fault, relay) in FAULTS.iter().zip(&side.relays) {
                let what = format!("A to be stuck in {:?} before {fault:?}, {:?}", self.stall, side.mode);
                let stuck = || match self.stall {
                    Stall::ReceiveQueue => side.received(),
                    Stall::SendQueue => self.sent(relay),
                    Stall::Network => relay.kept_bytes().iter().map(|kept| *kept as u64).collect(),
                    Stall::Execution => panic!("the server tells what it executes"),
                };
                // One server has the connections of every fault. Others may have come since the stall.
                let server_wide = self.stall == Stall::ReceiveQueue;
                let devices = ACCESSES.len() * if server_wide { FAULTS.len() } else { 1 };
                wait::until_true(&what, || {
                    stuck().iter().filter(|stuck| **stuck >= bytes).count() >= devices
                });
            }
        }
    }

    fn sent(&self, relay: &Relay) -> Vec<u64> {
        let queues = client_queues(self.fabric.host(), relay.endpoint());
        queues.iter().map(|queues| queues.send_bytes).collect()
    }

    /// Whoever loses path `a` does not get it back before it is let loose.
    pub(super) fn refuse(&self) {
        self.sides.iter().flat_map(|side| &side.relays).for_each(Relay::refuse);
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
    pub(super) fn let_loose(&self, mode: Mode) {
        self.side(mode).let_loose(self.stall);
    }

    /// Mends the link; fails if its fault touched nothing (T6).
    pub(super) fn heal(&self) {
        let link = link_of(Fault::SilentLink);
        assert!(self.fabric.caught_packets(link) > 0, "the silent link caught no packet");
        self.fabric.heal(link);
    }

    /// Whether nothing of the stalled connections of a cell can come any more: our kernel has
    /// nothing left for them, and the server has read them to their end. Behind a link that was
    /// silent a plain server does not learn of the end; nothing being left must do.
    pub(super) fn is_spent(&self, cell: Cell) -> bool {
        let relay = &self.side(cell.mode).relays[link_of(cell.fault)];
        let queued: u64 = self.sent(relay).iter().sum();
        let unheard = cell.fault == Fault::SilentLink && cell.mode != Mode::Gate;
        queued == 0 && (unheard || relay.stalled_ended())
    }

    pub(super) fn side(&self, mode: Mode) -> &Side {
        self.sides.iter().find(|side| side.mode == mode).expect("there is one for each mode")
    }
}

/// Name and file of the devices of one mode.
fn exports(dir: &TestDir, mode: Mode) -> Vec<(String, String)> {
    let cells = Cell::all().zip(1..).filter(|(cell, _)| cell.mode == mode);
    let export = |(cell, seed): (Cell, u64)| {
        let name = cell.to_string();
        let image = dir.patterned_image(&name, SIZE_BYTES, seed);
        (name, image)
    };
    cells.map(export).collect()
}

fn config(dir: &TestDir, stall: Stall, sides: &[Side]) -> Config {
    Cell::all().fold(Config::new(dir).defaults(&PATIENCE), |config, cell| {
        let side = sides.iter().find(|side| side.mode == cell.mode).expect("there is one for each mode");
        config.device(device(cell, stall, side))
    })
}

fn device(cell: Cell, stall: Stall, side: &Side) -> Device {
    let name = cell.to_string();
    let keys = [r#"selector = "round-robin""#, r#"failback = "manual""#, r#"id = "one image""#];
    let mut device = keys.iter().fold(Device::new(&name), |device, key| device.key(key));
    device = match cell.mode {
        Mode::Assume => device.key(&format!("quiesce = \"{QUIESCE}\"")),
        Mode::Hold => device
            .key(r#"unproven = "hold""#)
            .key(&format!("quiesce = \"{HOLD_QUIESCE_MS}ms\""))
            .key(&format!(r#"no_path = {{ mode = "hold", hold = "{HOLD}" }}"#)),
        Mode::Gate => device.key(&format!("quiesce = \"{GATE_QUIESCE}\"")),
    };
    let (policy, priority) = match cell.access {
        // Both paths lead to the server that is stalled: every A must take path `a`.
        Access::ActiveActive if gate_orders(stall, cell.mode) => ("active-active", 60),
        Access::ActiveActive => ("active-active", 50),
        Access::ActivePassive => ("active-passive", 60),
    };
    device = device
        .key(&format!("policy = \"{policy}\""))
        .path("a", &side.path_a(cell.fault).uri(&name))
        .path_key(&format!("priority = {priority}"));
    // Gates tell by themselves that they share the page cache.
    let shared = |device: Device| match cell.mode {
        Mode::Assume | Mode::Hold => device.path_key(r#"same_cache = "page-cache""#),
        Mode::Gate => device,
    };
    shared(shared(device).path("b", &side.path_b().uri(&name)).path_key("priority = 50"))
}
