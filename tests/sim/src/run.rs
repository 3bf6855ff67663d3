// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs seeds, and catches the engine stopping itself.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use engine::Rules;

use crate::coverage::Coverage;
use crate::env::Failure;
use crate::sabotage::Sabotage;
use crate::world::{Outcome, World};

thread_local! {
    static LAST_PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
    static CATCHING: RefCell<bool> = const { RefCell::new(false) };
}

/// Runs one seed with every rule in force.
pub fn run(seed: u64) -> Outcome {
    run_with(seed, Rules::ALL, Sabotage::None)
}

/// Runs one seed with these rules, and damage.
pub fn run_with(seed: u64, rules: Rules, sabotage: Sabotage) -> Outcome {
    tell(seed, rules, sabotage, false)
}

/// The same; with `story` everything is told on standard output.
pub fn tell(seed: u64, rules: Rules, sabotage: Sabotage, story: bool) -> Outcome {
    caught(|| World::new(seed, rules, sabotage, story).run())
}

/// The same; every engine keeps at most so many decision points.
pub fn record(seed: u64, rules: Rules, story: bool, at_most: usize) -> Outcome {
    caught(|| World::new(seed, rules, Sabotage::None, story).recording(at_most).run())
}

fn caught(run: impl FnOnce() -> Outcome) -> Outcome {
    keep_panics();
    CATCHING.set(true);
    let outcome = catch_unwind(AssertUnwindSafe(run));
    CATCHING.set(false);
    outcome.unwrap_or_else(|_| {
        let text = LAST_PANIC.take().unwrap_or_else(|| "no message".into());
        Outcome {
            failure: Some(Failure { rule: "panic", text, at: 0, requests: 0 }),
            coverage: Coverage::default(),
            requests: 0,
            trace: 0,
            time: 0,
            gap: 0,
            records: Vec::new(),
            seen: Vec::new(),
        }
    })
}

/// How to see a seed fail again.
pub fn again(seed: u64) -> String {
    format!("cargo run --release -p holdfast-sim -- --seed {seed}")
}

/// A panic of a run is a result, not noise; panics elsewhere stay as they are.
fn keep_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if CATCHING.with_borrow(|&catching| catching) {
                LAST_PANIC.set(Some(info.to_string()));
            } else {
                usual(info);
            }
        }));
    });
}
