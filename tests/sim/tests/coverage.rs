// SPDX-License-Identifier: MIT OR Apache-2.0
//! Rule T6: a run that did not exercise every fault class and outcome proves less than it says.

use sim::coverage::Coverage;
use sim::run::run;

#[test]
fn every_fault_and_every_outcome_is_met() {
    let mut sum = Coverage::default();
    for seed in 0..2_000 {
        sum.add(&run(seed).coverage);
        if sum.missing().is_empty() {
            return;
        }
    }
    panic!("never exercised: {}\n{sum}", sum.missing().join(", "));
}

#[test]
fn nothing_run_is_nothing_covered() {
    let missing = Coverage::default().missing();
    assert!(missing.iter().any(|name| name == "Kill") && missing.iter().any(|name| name == "Ghost"));
}
