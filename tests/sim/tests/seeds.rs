// SPDX-License-Identifier: MIT OR Apache-2.0
//! Seeds that must be clean, and that a seed is all there is to a run.

use sim::run::{again, run};

fn clean(seeds: std::ops::Range<u64>) {
    for seed in seeds {
        if let Some(failure) = run(seed).failure {
            panic!("seed {seed}: {failure}\n{}", again(seed));
        }
    }
}

// Several tests, so that they run beside each other.

#[test]
fn the_first_hundred_and_fifty() {
    clean(0..150);
}

#[test]
fn the_second_hundred_and_fifty() {
    clean(150..300);
}

#[test]
fn the_third_hundred_and_fifty() {
    clean(300..450);
}

#[test]
fn the_fourth_hundred_and_fifty() {
    clean(450..600);
}

/// T7 and the habit behind it: a seed that gives two different runs reproduces nothing.
#[test]
fn a_seed_gives_the_same_run_twice() {
    let mut traces = Vec::new();
    for seed in 0..40 {
        let (first, second) = (run(seed), run(seed));
        assert_eq!(
            (first.trace, first.requests, first.time, &first.coverage),
            (second.trace, second.requests, second.time, &second.coverage),
            "seed {seed}"
        );
        traces.push(first.trace);
    }
    traces.sort_unstable();
    traces.dedup();
    assert_eq!(traces.len(), 40, "different seeds give different runs");
}
