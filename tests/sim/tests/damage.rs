// SPDX-License-Identifier: MIT OR Apache-2.0
//! Rule T5: whatever rule is turned off, and whatever damage is done on purpose, a run fails for it.

use engine::Rules;
use sim::sabotage::Sabotage;
use sim::switches::{SABOTAGES, hunt, reasons};

/// Seeds within which it must be found.
const MOST: u64 = 6000;

fn found(rule: &str) {
    let rules = Rules::without(rule).expect("a switch");
    let reasons = reasons(rule).expect("every switch has its reasons");
    let found = hunt(rules, Sabotage::None, reasons, MOST);
    assert!(found.is_some(), "T5: {MOST} seeds without {rule} showed none of {reasons:?}");
}

/// A switch nobody hunts would be a rule nobody proves.
#[test]
fn every_switch_has_its_reasons() {
    for rule in Rules::NAMES {
        assert!(reasons(rule).is_some(), "who proves {rule}?");
    }
}

fn every(part: usize, parts: usize) {
    Rules::NAMES.iter().skip(part).step_by(parts).for_each(|rule| found(rule));
}

// In parts, so that they run beside each other.

#[test]
fn without_a_rule_damage_is_found_1_of_4() {
    every(0, 4);
}

#[test]
fn without_a_rule_damage_is_found_2_of_4() {
    every(1, 4);
}

#[test]
fn without_a_rule_damage_is_found_3_of_4() {
    every(2, 4);
}

#[test]
fn without_a_rule_damage_is_found_4_of_4() {
    every(3, 4);
}

/// The canary: damage outside the fault model, in the model's own parts.
#[test]
fn damage_done_on_purpose_is_found() {
    for (sabotage, reasons) in SABOTAGES {
        let found = hunt(Rules::ALL, sabotage, reasons, MOST);
        assert!(found.is_some(), "{MOST} seeds under {sabotage:?} showed none of {reasons:?}");
    }
}
