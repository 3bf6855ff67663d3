// SPDX-License-Identifier: MIT OR Apache-2.0
//! The page of numbers says what the source says, of every constant and of no other.

use std::collections::BTreeMap;

use policies::limits::*;

const SOURCE: &str = include_str!("../src/limits.rs");
const PAGE: &str = include_str!("../../docs/policies/limits.md");

fn duration(ns: policies::Nanos) -> String {
    let units = [(MINUTE, "min"), (SECOND, "s"), (MILLISECOND, "ms"), (MICROSECOND, "us")];
    let (unit, name) =
        units.into_iter().find(|(unit, _)| ns.is_multiple_of(*unit)).expect("whole microseconds");
    format!("{} {name}", ns / unit)
}

/// `(name, value as the page shows it)`
macro_rules! shown {
    ($show:expr => $($name:ident)*) => {
        [$((stringify!($name), $show($name))),*]
    };
}

fn compiled() -> BTreeMap<&'static str, String> {
    let mut all = BTreeMap::new();
    all.extend(shown!(duration =>
        RESAMPLE_AFTER BACKOFF_FIRST BACKOFF_CAP READ_DEADLINE WRITE_DEADLINE SILENCE_PROBE_AFTER SILENCE_PROBE_MIN
        SILENCE_FLOOR SILENCE_CEILING USER_TIMEOUT CANARY_INTERVAL CANARY_IDLE CANARY_DEADLINE
        CANARY_INTERVAL_MIN PROBATION_TIME FAILBACK_AFTER FAILURE_WINDOW HOLD_OUT_FIRST
        HOLD_OUT_CAP QUIESCE NO_PATH_HOLD HEDGE_FLOOR HEDGE_COLD HEDGE_SUSPECT_AFTER HEDGE_BASELINE_WINDOW
        SLOW_WINDOW SLOW_CLEAN SLOW_DEMOTION_INTERVAL RESAMPLE_AFTER_MAX MARGINAL_BUCKET
        MARGINAL_CLEAN MARGINAL_CLEAN_CAP PACING_PATIENCE PORTAL_RETURN_AFTER
        BUDGET_DELAY_BOUND SAMPLE_INTERVAL ZOMBIE_SAMPLE_INTERVAL SILENT_ABORT GIVE_UP DEVICE_BUSY
        PROBATION_CANARY_INTERVAL SECOND_OPINION ASK_AGAIN REFUSED_RETRY LEAVING_RETRY DISTANCE_INTERVAL
        DISTANCE_INTERVAL_FIRST DISTANCE_WINDOW DISTANCE_MARGIN DISTANCE_REST));
    all.extend(shown!(|n: u8| n.to_string() => STRIKES));
    all.extend(shown!(|n: u32| n.to_string() =>
        FULL_SHARE_PPM RESAMPLE_CHOICES_MIN HISTOGRAM_SAMPLE_WEIGHT HISTOGRAM_SAMPLES_MAX
        PROBATION_CANARIES PROBATION_SHARE_PPM FAILURES_ALLOWED HEDGE_BUDGET_PPM
        HEDGE_QUANTILE_MIN_PPM HEDGE_QUANTILE_MAX_PPM HEDGE_SAMPLES_MIN
        HEDGE_BASELINE_SAMPLES_MIN HEDGE_WINS_SUSPECT SLOW_WINDOWS SLOW_WINDOWS_SLOW
        SLOW_SAMPLES_MIN MARGINAL_TROUBLED_MIN MARGINAL_RATE_PPM PACING_MOVED_MIN PACING_FIRST
        PACING_SHARE_PPM PACING_FELT_PPM PROBES_IN_VAIN DISTANCE_READS_MIN));
    all.extend(shown!(|n: u64| n.to_string() =>
     LATENCY_TIE_DIVISOR RESAMPLE_GAIN_DIVISOR LATENCY_DECAY_DIVISOR LATENCY_OUTLIER_FACTOR
     LATENCY_CLASS_MEMORY_RECORDS BACKOFF_JITTER_DIVISOR PROGRESS_BYTES_PER_SECOND
     LAST_PATH_FACTOR SILENCE_PROBE_FACTOR SILENCE_RTO_FACTOR CANARY_PHASE_DIVISOR CANARY_GRID_DIVISOR HEARTBEATS_PER_SUSPECT
     HEDGE_OVERLOAD_FACTOR HEDGE_BASELINE_RISE_DIVISOR HEDGE_BASELINE_FALL_DIVISOR
     SLOW_FACTOR SLOW_BASELINE_RISE_DIVISOR SLOW_BASELINE_FALL_DIVISOR RESAMPLE_COST_FACTOR
     EPOCH_JUMP_MAX DISTANCE_APART DISTANCE_TOGETHER
    ));
    all.extend(shown!(|n: usize| n.to_string() =>
        SELECTOR_CANDIDATES_MAX SIZE_CLASSES HISTOGRAM_BUCKETS FAILURES_REMEMBERED SLOW_BUCKETS
        MARGINAL_BUCKETS EXPLAIN_DEVICE_KEPT EXPLAIN_PATH_KEPT EXPLAIN_FIGURES_MAX
        EXPLAIN_REFUSED_MAX BUDGET_CAUSES_MAX FENCE_MEMBERS_MAX));
    let bounds = SIZE_CLASS_BYTES_MAX.map(|bytes| bytes.to_string()).join(", ");
    all.insert("SIZE_CLASS_BYTES_MAX", bounds);
    all
}

#[test]
fn every_constant_is_compared() {
    let units = ["MICROSECOND", "MILLISECOND", "SECOND", "MINUTE"];
    let mut declared: Vec<&str> = SOURCE
        .lines()
        .filter_map(|line| line.strip_prefix("pub const ")?.split(':').next())
        .filter(|name| !units.contains(name))
        .collect();
    declared.sort_unstable();
    assert_eq!(compiled().into_keys().collect::<Vec<_>>(), declared);
}

#[test]
fn the_page_shows_every_constant() {
    let page: BTreeMap<&str, String> = PAGE
        .lines()
        .filter_map(|line| {
            let (name, rest) = line.strip_prefix("| `")?.split_once("` | ")?;
            Some((name, rest.split(" | ").next()?.to_string()))
        })
        .collect();
    assert_eq!(page, compiled());
}
