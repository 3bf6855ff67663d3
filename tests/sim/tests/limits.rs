// SPDX-License-Identifier: MIT OR Apache-2.0
//! How long a host waits, exactly: one fault at a time, in virtual time.
//!
//! The longest gap between two answers while something is open, with a host that asks at once again, at depth
//! 1 and 32; every fault is tried at many moments, so that it meets requests in every place.

use program::{AccessPolicy, MILLISECOND, Nanos, SECOND, SelectorKind};
use sim::coverage::FaultClass;
use sim::faults::Planned;
use sim::plan::Plan;
use sim::world::World;

/// Moments at which each fault is tried.
const MOMENTS: u64 = 8;
/// Everything is connected by then.
const CALM: Nanos = SECOND / 2;

/// Reads alone, or writes alone.
#[derive(Clone, Copy, PartialEq)]
enum Mix {
    Reads,
    Writes,
}

/// Two paths to two servers that are well, and a host that keeps `depth` requests open.
fn plan(mix: Mix, depth: usize, gates: bool) -> Plan {
    let mut plan = Plan::calm(2, gates);
    let device = &mut plan.devices[0];
    device.depth = depth;
    // Enough to be always at work; more would only take longer to simulate. A pause stays below every limit.
    device.think = if depth > 1 { 4 * MILLISECOND } else { 1 };
    device.mix = match mix {
        Mix::Reads => [1, 0, 0, 0, 0, 0, 0],
        Mix::Writes => [0, 1, 0, 0, 0, 0, 0],
    };
    plan
}

/// The worst gap over all moments.
fn worst(plan: &Plan, class: FaultClass, lasts: Nanos) -> Nanos {
    (0..MOMENTS)
        .map(|n| {
            let at = 2 * SECOND + n * 397_000;
            let planned = Planned { at, class, link: (n % 2) as usize, lasts };
            let outcome = World::scenario(plan.clone(), n, vec![planned], CALM).run();
            assert!(outcome.failure.is_none(), "{class:?} at {at}: {:?}", outcome.failure);
            assert!(outcome.requests > 1000, "{class:?} at {at}: only {} requests", outcome.requests);
            outcome.gap
        })
        .max()
        .unwrap_or(0)
}

fn check(class: FaultClass, lasts: Nanos, gates: bool, mix: Mix, limit: Nanos) {
    for depth in [1, 32] {
        for access in [AccessPolicy::ActiveActive, AccessPolicy::ActivePassive] {
            let mut plan = plan(mix, depth, gates);
            plan.devices[0].program.access = access;
            plan.duration = 2 * SECOND + 2 * limit;
            let gap = worst(&plan, class, lasts);
            let name = format!("{access:?}");
            println!("{class:?} depth {depth} {name} gates {gates}: {} us", gap / 1000);
            assert!(gap < limit, "{class:?} at depth {depth}, {name}: a host waited {} us", gap / 1000);
        }
    }
}

/// The control: without a fault no gap is longer than storage takes.
#[test]
fn without_a_fault_nobody_waits() {
    for depth in [1, 32] {
        for mix in [Mix::Reads, Mix::Writes] {
            let plan = plan(mix, depth, false);
            let outcome = World::scenario(plan, 1, Vec::new(), CALM).run();
            assert!(outcome.failure.is_none(), "{:?}", outcome.failure);
            assert!(outcome.gap < MILLISECOND, "{} us", outcome.gap / 1000);
        }
    }
}

/// A reset or a kill of one of two paths: nothing but one more round trip. (At depth 32 what is seen is the host's
/// own pause, 4 ms at most.)
#[test]
fn a_reset_or_a_kill_costs_less_than_5_ms() {
    for mix in [Mix::Reads, Mix::Writes] {
        for class in [FaultClass::Reset, FaultClass::Fin, FaultClass::Kill, FaultClass::Garbage] {
            check(class, 3 * SECOND, false, mix, 5 * MILLISECOND);
        }
    }
}

/// W16: a canary after 10 ms, no ACK for 200 ms, and what it takes to ask and to send again.
const SILENCE: Nanos = 215 * MILLISECOND;

/// A silent path: what is on it moves once the silence is proven.
#[test]
fn a_silent_path_costs_reads_the_proof_of_silence() {
    for class in [FaultClass::SilentTo, FaultClass::SilentFrom, FaultClass::SilentBoth] {
        check(class, 5 * SECOND, false, Mix::Reads, SILENCE);
    }
}

/// 2.4: with a gate a write costs no more, suspicion, kill and re-send included.
#[test]
fn a_silent_path_to_a_gate_costs_writes_no_more() {
    for class in [FaultClass::SilentTo, FaultClass::SilentFrom, FaultClass::SilentBoth] {
        check(class, 5 * SECOND, true, Mix::Writes, SILENCE);
    }
}

/// 3.5, hedged reads: a second copy is on the other path long before anything is known of the first one.
#[test]
fn a_silent_link_or_a_stopped_server_costs_hedged_reads_less_than_20_ms() {
    use FaultClass::{SilentBoth, SilentFrom, SilentTo, Stop};
    let hedging = |depth| {
        let mut plan = plan(Mix::Reads, depth, false);
        plan.devices[0].program.selector = SelectorKind::Latency;
        plan.devices[0].program.hedge_budget_ppm = 30_000;
        plan
    };
    for class in [SilentTo, SilentFrom, SilentBoth, Stop] {
        for depth in [1, 32] {
            let gap = worst(&hedging(depth), class, 5 * SECOND);
            println!("{class:?}, hedged, depth {depth}: {} us", gap / 1000);
            assert!(gap < 20 * MILLISECOND, "{class:?} at depth {depth}: a host waited {} us", gap / 1000);
        }
    }
}

/// A stopped server's connections stand: its requests move at their age, W15, and take a round trip more. (At depth 32 the
/// host's own pause is in it, 4 ms at most.)
#[test]
fn a_stopped_server_costs_no_more_than_the_request_age() {
    let deadline = Plan::calm(2, false).devices[0].program.deadline;
    let more = 10 * MILLISECOND;
    check(FaultClass::Stop, 6 * SECOND, false, Mix::Reads, deadline.read + more);
    check(FaultClass::Stop, 6 * SECOND, false, Mix::Writes, deadline.write + more);
}
