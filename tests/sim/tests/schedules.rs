// SPDX-License-Identifier: MIT OR Apache-2.0
//! Drawn schedules of sick paths: flapping, slow alone and all together, silent one way or both, stopped, overloaded.
//!
//! The single sicknesses are in `steering`; here they follow and overlap each other as a seed has it. For half of the seeds
//! one path stays well: then a host never waits long. Whatever it was, when it is over every path is in use again by
//! itself and has its share.

use program::{AccessPolicy, MILLISECOND, Nanos, SECOND, SelectorKind};
use sim::coverage::FaultClass;
use sim::faults::Planned;
use sim::plan::Plan;
use sim::rng::Rng;
use sim::world::World;

const SEEDS: u64 = 24;
const START: Nanos = SECOND;
/// Sicknesses begin until here.
const SICK: Nanos = 100 * SECOND;
/// All are over by then.
const HEALED: Nanos = SICK + 40 * SECOND;
/// The longest that something is held against a path: `marginal` and the last hold-out, 10 min each, the pause
/// before it connects again, and probation.
const FORGIVEN: Nanos = HEALED + 600 * SECOND + 50 * SECOND;
const END: Nanos = FORGIVEN + 60 * SECOND;
/// A stopped server is found by the age of a write, 2 s; what is moved from it may meet the next one.
const LONGEST_GAP: Nanos = 4_500 * MILLISECOND;

/// What a seed draws.
struct Schedule {
    plan: Plan,
    planned: Vec<Planned>,
    /// Link 0 is not touched.
    one_well: bool,
}

impl Schedule {
    fn draw(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let paths = rng.pick(&[2, 3, 4]);
        let one_well = seed.is_multiple_of(2);
        let mut plan = Plan::calm(paths, false);
        plan.duration = END - START;
        for server in &mut plan.servers {
            server.service = 100 * MILLISECOND;
            server.depth = 256;
            // A server that works off 200 in a second: overloaded by what is moved from the others.
            server.queue = rng.pick(&[0, 5 * MILLISECOND]);
        }
        let device = &mut plan.devices[0];
        device.depth = rng.pick(&[1, 4, 8]);
        device.mix = rng.pick(&[[1, 0, 0, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0, 0], [3, 1, 0, 0, 0, 0, 0]]);
        (device.sectors, device.hot) = (65_536, 65_536);
        device.program.selector = SelectorKind::Latency;
        device.program.hedge_budget_ppm = 30_000;
        device.program.access =
            rng.pick(&[AccessPolicy::ActiveActive, AccessPolicy::ActiveActive, AccessPolicy::ActivePassive]);
        let mut planned = Vec::new();
        let all_slow = rng.between(START / SECOND, SICK / SECOND) * SECOND;
        for link in usize::from(one_well)..paths {
            let mut at = START + rng.spread(SECOND, 20 * SECOND);
            let mut shared = !one_well;
            while at < SICK {
                if shared && at >= all_slow {
                    shared = false;
                    planned.push(Planned { at, class: FaultClass::Slow, link, lasts: 15 * SECOND });
                    at += 15 * SECOND;
                } else {
                    at = sicken(&mut rng, &mut planned, link, at);
                }
                at += rng.spread(500 * MILLISECOND, 15 * SECOND);
            }
        }
        planned.sort_by_key(|planned| planned.at);
        Self { plan, planned, one_well }
    }
}

/// One sickness of a link, and when it is over.
fn sicken(rng: &mut Rng, planned: &mut Vec<Planned>, link: usize, at: Nanos) -> Nanos {
    use FaultClass::{Hang, Kill, Reset, SilentBoth, SilentFrom, SilentTo, Slow, Stop};
    let class = rng.pick(&[Kill, Kill, Reset, Slow, Slow, SilentTo, SilentFrom, SilentBoth, Stop, Hang]);
    let times = if matches!(class, Kill | Reset | SilentFrom) { rng.pick(&[1, 1, 4, 9]) } else { 1 };
    let (mut at, most) = (at, 20 * SECOND / times);
    for _ in 0..times {
        let lasts = rng.spread(100 * MILLISECOND, most);
        planned.push(Planned { at, class, link, lasts });
        at += lasts + rng.spread(50 * MILLISECOND, most);
    }
    at
}

#[test]
fn whatever_it_was_every_path_is_in_use_again_and_has_its_share() {
    for seed in 0..SEEDS {
        let Schedule { plan, planned, one_well } = Schedule::draw(seed);
        let last = planned.iter().map(|planned| planned.at + planned.lasts).max().unwrap_or(0);
        assert!(last < HEALED, "seed {seed}: something lasts until {last}");
        let (paths, program) = (plan.servers.len(), plan.devices[0].program.clone());
        let depth = plan.devices[0].depth;
        let outcome = World::scenario(plan, seed, planned.clone(), START).run();
        assert!(outcome.failure.is_none(), "seed {seed}: {:?}", outcome.failure);
        let seen = &outcome.seen[0];
        assert_eq!(seen.errors, 0, "seed {seed}: a host was told of an error");
        println!(
            "seed {seed}: {paths} paths, {:?}, depth {depth}, {} sicknesses, longest gap {} ms",
            program.access,
            planned.len(),
            outcome.gap / MILLISECOND
        );
        if one_well {
            assert!(outcome.gap < LONGEST_GAP, "seed {seed}: a host waited {} ms", outcome.gap / MILLISECOND);
        }
        let shares: Vec<u64> = (0..paths).map(|link| seen.answers_over(link, FORGIVEN, END)).collect();
        let all: u64 = shares.iter().sum();
        println!("seed {seed}: answers over each path afterwards {shares:?}");
        match program.access {
            AccessPolicy::ActiveActive => assert!(
                shares.iter().all(|share| share * paths as u64 * 2 >= all),
                "seed {seed}: a path has less than half of its share: {shares:?}"
            ),
            AccessPolicy::ActivePassive => {
                let used = shares.iter().filter(|&&share| share > 0).count();
                assert_eq!(used, 1, "seed {seed}: one path at a time: {shares:?}");
            }
        }
    }
}
