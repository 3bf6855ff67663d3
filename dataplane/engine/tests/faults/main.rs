// SPDX-License-Identifier: MIT OR Apache-2.0
//! Seeded runs of the engine under random faults, checked by the oracle of `world`.
//!
//! Repeat one with `HOLDFAST_SEED=n cargo test -p holdfast-engine --test faults`, in release for speed.
#![allow(missing_docs)]

mod world;

use program::{AccessPolicy, DeviceProgram, SECOND, SelectorKind, Writers};
use world::{World, device};

fn seeds(default: u64) -> std::ops::Range<u64> {
    match std::env::var("HOLDFAST_SEED") {
        Ok(seed) => {
            let seed = seed.parse().expect("HOLDFAST_SEED is a number");
            seed..seed + 1
        }
        Err(_) => 0..default,
    }
}

fn run(paths: usize, access: AccessPolicy, count: u64) {
    run_device(&device(paths, access), count);
}

fn run_device(program: &DeviceProgram, count: u64) {
    let mut faults = std::collections::BTreeMap::new();
    for seed in seeds(count) {
        println!("seed {seed}: HOLDFAST_SEED={seed} cargo test -p holdfast-engine --test faults");
        let mut world = World::new(seed, program);
        world.run(30 * SECOND);
        for (name, n) in world.faults {
            *faults.entry(name).or_insert(0) += n;
        }
        assert!(world.answered > 100, "the world did hardly anything");
    }
    if count > 20 && std::env::var("HOLDFAST_SEED").is_err() {
        assert_eq!(faults.len(), 5, "a fault was never exercised (T6): {faults:?}");
    }
}

#[test]
fn active_active_two_paths() {
    run(2, AccessPolicy::ActiveActive, 80);
}

#[test]
fn active_active_four_paths() {
    run(4, AccessPolicy::ActiveActive, 30);
}

#[test]
fn active_passive_two_paths() {
    run(2, AccessPolicy::ActivePassive, 60);
}

/// Every connect compares content with an accepted path (3.8), under the same faults.
#[test]
fn identity_by_content() {
    let program = DeviceProgram { identity: None, ..device(2, AccessPolicy::ActiveActive) };
    run_device(&program, 40);
    let program = DeviceProgram { identity: None, ..device(3, AccessPolicy::ActivePassive) };
    run_device(&program, 20);
}

#[test]
fn several_lanes_per_path() {
    let mut program = device(2, AccessPolicy::ActiveActive);
    program.selector = SelectorKind::RoundRobin;
    for path in &mut program.paths {
        path.lanes = 3;
        path.in_flight = 4;
    }
    run_device(&program, 30);
}

/// W5: no answer before the old copies are proven finished.
#[test]
fn many_writers() {
    let program = DeviceProgram { writers: Writers::Many, ..device(2, AccessPolicy::ActiveActive) };
    run_device(&program, 30);
}

#[test]
fn one_path() {
    run(1, AccessPolicy::ActiveActive, 25);
}
