// SPDX-License-Identifier: MIT OR Apache-2.0
//! Rule T5: with each rule turned off, and under each sabotage, some run must fail, and
//! for the right reason.
//!
//! | reason | the oracle saw |
//! |---|---|
//! | `T1` | older content than may be |
//! | `T3` | content that was answered as durable and is not stable |
//! | `host error` | an error that nothing justifies |
//! | a rule's number | the rule itself broken, where it can be seen directly |
//! | `2.4` | a doubt that no gate has ended long after all was healed |

use std::time::Duration;

use engine::Rules;

use crate::env::Failure;
use crate::run::run_with;
use crate::sabotage::Sabotage;

const CONTENT: &[&str] = &["T1", "T3"];

/// Reasons for which a run may fail without this rule; `None` if there is no such switch.
pub fn reasons(rule: &str) -> Option<&'static [&'static str]> {
    Some(match rule {
        "w3_same_bytes" | "w4_doubt" | "w4_quarantine" | "w4_quiesce" | "w5_answer_waits" | "w8_order"
        | "w9_discards" | "w10_recovering" | "w10_clean_end" | "w14_failed_writes" | "w18_write_through"
        | "f1_domains" | "f2_every_domain" | "f2_replay_first" | "f3_fua_kept" | "f3_fua_emulated"
        | "f5_one_history" | "f6_replay" | "f6_reads_wait" | "f7_write_through" | "w13_repair" => CONTENT,
        "w6_pieces" => &["W6"],
        "w7_definite_errors" => &["W7"],
        "w7_second_opinion" => &["host error"],
        "gate_kill" => &["2.4"],
        "w13_hold" => &["T1", "T3", "W20"],
        "w15_last_path" => &["W15"],
        "w18_one_path" => &["T1", "T3", "W18", "W20"],
        "w20_exclusive" | "w20_gate_word" => &["W20"],
        "f4_flush_again" => &["F10", "T3"],
        "f9_sticky" | "f9_every_session" | "f9_end_settles" => &["F9"],
        "f10_never_noop" => &["F10"],
        "f11_geometry" => &["F11"],
        "identity" => &["3.8"],
        _ => return None,
    })
}

/// Damage that the oracle must find, with the reasons.
pub const SABOTAGES: [(Sabotage, &[&str]); 6] = [
    (Sabotage::LostWrite, CONTENT),
    (Sabotage::LateGhost, CONTENT),
    (Sabotage::PlainClose, CONTENT),
    (Sabotage::WrongSector, &["T1"]),
    (Sabotage::LazyFlush, &["T3"]),
    (Sabotage::FalseKill, CONTENT),
];

/// What it took to find a damage.
#[derive(Clone, Debug)]
pub struct Detection {
    /// Seeds run, the failing one included.
    pub seeds: u64,
    /// Host requests answered in all of them.
    pub requests: u64,
    /// Time of one core.
    pub took: Duration,
    /// The first run that failed for a right reason.
    pub seed: u64,
    /// How it failed.
    pub failure: Failure,
}

/// Runs seeds from 0 until one fails for one of these reasons, at most `most` of them.
pub fn hunt(rules: Rules, sabotage: Sabotage, reasons: &[&str], most: u64) -> Option<Detection> {
    let start = core_time();
    let mut requests = 0;
    for seed in 0..most {
        let outcome = run_with(seed, rules, sabotage);
        requests += outcome.requests;
        if let Some(failure) = outcome.failure.filter(|failure| reasons.contains(&failure.rule)) {
            return Some(Detection {
                seeds: seed + 1,
                requests,
                took: core_time().saturating_sub(start),
                seed,
                failure,
            });
        }
    }
    None
}

/// Processor time of this thread, from the kernel's scheduler: other work on the machine does not count.
fn core_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = stat.split_whitespace().next().and_then(|field| field.parse().ok());
    Duration::from_nanos(nanos.unwrap_or(0))
}
