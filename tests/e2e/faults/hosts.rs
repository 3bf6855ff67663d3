// SPDX-License-Identifier: MIT OR Apache-2.0
//! The hosts of a run. None of them ever times out (T2), each checks every sector it reads (T1).

use tests_support::holdfast::Node;
use tests_support::{Load, LoadReport, Stamp};

use crate::rig::DEVICE;

const MIB: u64 = 1 << 20;
const BLOCK: usize = 4096;
/// Requests in flight when a host dies.
const LEFT_BEHIND: u64 = 16;
/// Where it dies: nobody else reads there, because what it had sent may be carried out or not.
const CRASH_OFFSET: u64 = 38 * MIB;

/// See the module header.
pub(super) struct Hosts {
    deep: Load,
    shallow: Load,
    /// Comes and goes.
    guest: Option<Load>,
    visits: u16,
}

/// How far the hosts that stay have come.
#[derive(Clone, Copy)]
pub(super) struct Progress {
    deep: u64,
    shallow: u64,
}

impl Hosts {
    /// A host with 32 requests in flight, one with a single one, and a guest.
    pub(super) fn start(node: &Node) -> Self {
        let at = |offset: u64, mib: u64| Load::options().region(offset * MIB, mib * MIB);
        let deep = at(0, 8).depth(32).writer(1).flush_every(200).start(node.host(), DEVICE);
        let shallow = at(8, 24).depth(1).writer(2).flush_every(100).start(node.host(), DEVICE);
        let guest = guest(node, 0);
        // It may be asked to leave at once.
        guest.await_progress(20);
        Self { deep, shallow, guest: Some(guest), visits: 0 }
    }

    pub(super) fn progress(&self) -> Progress {
        Progress { deep: self.deep.answered(), shallow: self.shallow.answered() }
    }

    /// Waits until both hosts that stay were served since then.
    pub(super) fn await_progress(&self, since: Progress) {
        for (load, before, goal) in [(&self.deep, since.deep, 300), (&self.shallow, since.shallow, 10)] {
            load.await_progress((before + goal).saturating_sub(load.answered()));
        }
    }

    /// The guest reads back what it wrote, says goodbye and comes again.
    pub(super) fn reconnect(&mut self, node: &Node) {
        let report = self.guest.take().expect("there is always one").finish();
        report.assert_clean();
        self.visits += 1;
        let guest = guest(node, self.visits);
        guest.await_progress(20);
        self.guest = Some(guest);
    }

    /// A host dies with writes in flight; another takes its place at once, over the same blocks.
    pub(super) fn crash(node: &Node, round: u64) {
        let write = |number: u64, round: u64| {
            let offset = CRASH_OFFSET + number * BLOCK as u64;
            (offset, Stamp { writer: 0xdead, sequence: round * LEFT_BEHIND + number + 1 }.fill(offset, BLOCK))
        };
        let mut dying = node.open(DEVICE);
        for number in 0..LEFT_BEHIND {
            let (offset, payload) = write(number, round);
            dying.submit_write(offset, &payload).expect("the socket takes it");
        }
        drop(dying);
        let mut next = node.open(DEVICE);
        for number in 0..LEFT_BEHIND {
            let (offset, payload) = write(number, round + 1);
            let reply = next.write(offset, &payload).expect("a path is there");
            assert_eq!(reply.error, 0, "the host that came after one that died");
        }
    }

    /// All of them stop, read back everything they wrote, and report: deep, shallow, guest.
    pub(super) fn finish(mut self) -> [LoadReport; 3] {
        let guest = self.guest.take().expect("there is always one");
        [self.deep, self.shallow, guest].map(|load| {
            let report = load.finish();
            report.assert_clean();
            report
        })
    }
}

fn guest(node: &Node, visit: u16) -> Load {
    let options = Load::options().region(32 * MIB, MIB).depth(4).writer(100 + visit).flush_every(50);
    options.start(node.host(), DEVICE)
}
