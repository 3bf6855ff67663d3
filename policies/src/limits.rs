// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every number of this crate, with its unit, its reason and the relations that must hold.
//!
//! Times that only make sense together (design section 4) are checked against each other
//! when the crate is compiled. What an operator may change is checked again at start by
//! [`crate::timing`]; the values here are then the defaults.

use crate::Nanos;

/// One microsecond in nanoseconds.
pub const MICROSECOND: Nanos = 1_000;
/// One millisecond in nanoseconds.
pub const MILLISECOND: Nanos = 1_000_000;
/// One second in nanoseconds.
pub const SECOND: Nanos = 1_000_000_000;
/// One minute in nanoseconds.
pub const MINUTE: Nanos = 60 * SECOND;

/// A full share in parts per million.
pub const FULL_SHARE_PPM: u32 = 1_000_000;

// The gate's register.

/// Largest step of an epoch above everything a register knows. A member claims the next
/// epoch at each start, so this is a million starts that the gate never saw.
pub const EPOCH_JUMP_MAX: u64 = 1 << 20;
/// Members one register remembers. A failover set has a handful.
pub const FENCE_MEMBERS_MAX: usize = 64;

// Selectors.

/// Candidates a selector tells apart; one bit each in a machine word. Later ones are not used.
pub const SELECTOR_CANDIDATES_MAX: usize = 64;
/// Expected times within this fraction (1/4) above the fastest count as equal: what a
/// decaying average cannot tell from noise must not decide who idles.
pub const LATENCY_TIE_DIVISOR: u64 = 4;
/// An idle path unused for this long gets one request to be measured again. The same as
/// the canary interval, so a slow path costs about one host request per second.
pub const RESAMPLE_AFTER: Nanos = SECOND;
/// At most one of this many choices re-samples an idle path, so that a host with few
/// requests per second does not pay with a large part of them.
pub const RESAMPLE_CHOICES_MIN: u32 = 64;
/// A sample that lowered the expectation by 1/64 or more earns the next one at once.
/// One sample moves the average by 1/8 of its distance: it was 1/8 or more faster.
pub const RESAMPLE_GAIN_DIVISOR: u64 = 64;
/// An idle path rests at least this many times its expected service time between two such
/// requests: a host with one request at a time loses at most 1/32 to a slow path, however slow.
pub const RESAMPLE_COST_FACTOR: u64 = 32;
/// It rests at most this long, so that a path of any slowness is measured.
pub const RESAMPLE_AFTER_MAX: Nanos = MINUTE;

// Measured service time.

/// Size classes of [`crate::latency`]; the last one is open.
pub const SIZE_CLASSES: usize = 5;
/// Upper bounds of the size classes but the last, in bytes, inclusive.
pub const SIZE_CLASS_BYTES_MAX: [u64; SIZE_CLASSES - 1] = [4 << 10, 16 << 10, 64 << 10, 256 << 10];
/// Weight of a new sample in the average: 1/8.
pub const LATENCY_DECAY_DIVISOR: u64 = 8;
/// A sample counts as at most this many times the average: one hiccup moves it by less
/// than 40 %, a real slow-down of 300 times is learnt in under 20 samples.
pub const LATENCY_OUTLIER_FACTOR: u64 = 4;
/// A class without a sample among this many of its path is forgotten.
pub const LATENCY_CLASS_MEMORY_RECORDS: u64 = 256;
/// Buckets of the histogram: below 1 us, then one for each power of two, the last open.
pub const HISTOGRAM_BUCKETS: usize = 32;
/// What one sample adds, so that halving keeps a rare slow one for a few rounds.
pub const HISTOGRAM_SAMPLE_WEIGHT: u32 = 16;
/// The histogram is halved at this many samples.
pub const HISTOGRAM_SAMPLES_MAX: u32 = 4_096;

// Hedged reads.

/// Default budget of hedged reads, in parts per million of the reads: 3 %.
pub const HEDGE_BUDGET_PPM: u32 = 30_000;
/// A read is hedged when it is older than this part of its like, with a full budget.
pub const HEDGE_QUANTILE_MIN_PPM: u32 = 950_000;
/// The same with an empty budget; in between it slides.
pub const HEDGE_QUANTILE_MAX_PPM: u32 = 990_000;
/// A read is never hedged younger: scheduling noise on either side is of this size.
pub const HEDGE_FLOOR: Nanos = MILLISECOND;
/// Age at which a read of a size class with too few samples is hedged.
pub const HEDGE_COLD: Nanos = 10 * MILLISECOND;
/// Samples before a size class has a threshold of its own.
pub const HEDGE_SAMPLES_MIN: u32 = 100;
/// Service times above this many times their baseline mean overload, and more reads are the last
/// thing it needs.
pub const HEDGE_OVERLOAD_FACTOR: u64 = 3;
/// The baseline moves once in this time.
pub const HEDGE_BASELINE_WINDOW: Nanos = SECOND;
/// Reads of a window that can move the baseline.
pub const HEDGE_BASELINE_SAMPLES_MIN: u32 = 16;
/// It rises by 1/256 of the distance, so that a few minutes of overload stay overload.
pub const HEDGE_BASELINE_RISE_DIVISOR: u64 = 256;
/// It falls by 1/8: what was once quick can be quick.
pub const HEDGE_BASELINE_FALL_DIVISOR: u64 = 8;
/// Hedges won against a path that sent no byte meanwhile, until it is suspect.
pub const HEDGE_WINS_SUSPECT: u32 = 3;
/// And it owes an answer for at least this long: a server that was not scheduled for a moment, or a burst
/// of load, looks the same for less.
pub const HEDGE_SUSPECT_AFTER: Nanos = 50 * MILLISECOND;

// Groups by distance.

/// A path of a device with `groups = "latency"` is measured again after this long, like an idle one.
pub const DISTANCE_INTERVAL: Nanos = CANARY_IDLE;
/// Until it is known, after this long.
pub const DISTANCE_INTERVAL_FIRST: Nanos = CANARY_INTERVAL;
/// A path that is busy is given nothing new for so long at most, to come to rest for it.
pub const DISTANCE_REST: Nanos = 100 * MILLISECOND;
/// Reads it takes to know a path.
pub const DISTANCE_READS_MIN: u32 = 3;
/// The shortest of one to two such windows counts: what load adds is gone in some moment of them.
pub const DISTANCE_WINDOW: Nanos = 10 * MINUTE;
/// Beyond this many times the nearest one's a path is a step further away.
pub const DISTANCE_APART: u64 = 4;
/// A path that is further away comes up within this many times.
pub const DISTANCE_TOGETHER: u64 = 2;
/// A difference below this tells no distance: a thread that is woken late makes as much.
pub const DISTANCE_MARGIN: Nanos = 500 * MICROSECOND;

// Fail-slow paths.

/// Paths are compared over windows of this length.
pub const SLOW_WINDOW: Nanos = 5 * SECOND;
/// Windows that are remembered.
pub const SLOW_WINDOWS: u32 = 12;
/// Of these, so many slow ones make a path slow.
pub const SLOW_WINDOWS_SLOW: u32 = 10;
/// Requests of the path in the remembered windows that a verdict needs.
pub const SLOW_SAMPLES_MIN: u32 = 100;
/// A window is slow above this many times the median of the siblings.
pub const SLOW_FACTOR: u64 = 3;
/// A demoted path returns after this long without a slow window.
pub const SLOW_CLEAN: Nanos = 5 * MINUTE;
/// At most one path of a device is demoted in this time.
pub const SLOW_DEMOTION_INTERVAL: Nanos = MINUTE;
/// Buckets of the windows' histograms: four to each doubling, from 4 us to 2 s; the last is open.
pub const SLOW_BUCKETS: usize = 80;
/// The device's own baseline rises by 1/256 of the distance per window, so half an hour of slowness
/// becomes normal.
pub const SLOW_BASELINE_RISE_DIVISOR: u64 = 256;
/// It falls by 1/4.
pub const SLOW_BASELINE_FALL_DIVISOR: u64 = 4;

// Reconnects.

/// Delay of the second attempt; the first is immediate.
pub const BACKOFF_FIRST: Nanos = 100 * MILLISECOND;
/// Where doubling ends; jitter comes on top.
pub const BACKOFF_CAP: Nanos = 30 * SECOND;
/// Jitter is plus or minus 1/4.
pub const BACKOFF_JITTER_DIVISOR: u64 = 4;
/// A server that was turned away is asked again after this long.
pub const REFUSED_RETRY: Nanos = 10 * SECOND;
/// A server that announced its shutdown is not called again before.
pub const LEAVING_RETRY: Nanos = SECOND;
/// Connected over a lesser portal for this long before a better one is tried again.
pub const PORTAL_RETURN_AFTER: Nanos = MINUTE;

// Detection.

/// Default request age of reads that moves them (rule W15).
pub const READ_DEADLINE: Nanos = SECOND;
/// Default request age of writes that moves them (rule W15).
pub const WRITE_DEADLINE: Nanos = 2 * SECOND;
/// Progress expected at least on the bytes ahead of a request, in bytes per second.
pub const PROGRESS_BYTES_PER_SECOND: u64 = 8 << 20;
/// Ages on the last usable path are this many times longer.
pub const LAST_PATH_FACTOR: u64 = 4;
/// A lane with requests out and no byte for this long gets a canary (rule W16, which allows 100 ms).
/// The request that waits may have been acknowledged just before the link went silent; then the
/// canary is the first thing that owes an ACK, and hosts wait for both times in a row.
pub const SILENCE_PROBE_AFTER: Nanos = 60 * MILLISECOND;
/// The same in times what the oldest request on the lane is expected to take, if that is less: so
/// much patience is enough on a lane that was not asked so for a while.
pub const SILENCE_PROBE_FACTOR: u64 = 2;
/// Never sooner than this: a busy machine does not answer for as long now and then.
pub const SILENCE_PROBE_MIN: Nanos = 10 * MILLISECOND;
/// A link is never called silent before this long without an ACK (rule W16).
pub const SILENCE_FLOOR: Nanos = 200 * MILLISECOND;
/// Retransmission time-outs without an ACK that make a link silent (rule W16).
pub const SILENCE_RTO_FACTOR: u64 = 2;
/// A link with unacknowledged bytes and no ACK for this long is silent whatever the RTO:
/// the kernel doubles it at every retransmission, so twice the RTO would never be reached.
pub const SILENCE_CEILING: Nanos = SECOND;
/// A lane without a byte is looked at through the kernel at most this often.
pub const SAMPLE_INTERVAL: Nanos = 25 * MILLISECOND;
/// The same for a lane that is kept for late replies alone.
pub const ZOMBIE_SAMPLE_INTERVAL: Nanos = 500 * MILLISECOND;
/// A kept lane's peer is gone when so many probes of our kernel were sent in vain: it sends
/// the next only when it has waited for the last, so two of them were surely not answered.
pub const PROBES_IN_VAIN: u32 = 3;
/// A lane whose link stays silent this long after it was first seen so is aborted (rule W1).
pub const SILENT_ABORT: Nanos = SECOND;
/// A lane that stays suspect for another reason this long without an answer is given up.
pub const GIVE_UP: Nanos = 2 * SECOND;
/// Default TCP_USER_TIMEOUT on lanes in use.
pub const USER_TIMEOUT: Nanos = 2 * SECOND;
/// Default canary interval on a usable path of a busy device.
pub const CANARY_INTERVAL: Nanos = SECOND;
/// Default canary interval on a usable path of an idle device.
pub const CANARY_IDLE: Nanos = 10 * SECOND;
/// A device is busy while its last request is younger.
pub const DEVICE_BUSY: Nanos = 10 * SECOND;
/// Default age at which a canary counts as failed.
pub const CANARY_DEADLINE: Nanos = SECOND;
/// Shorter canary intervals are taken as this: a probe is not a load test.
pub const CANARY_INTERVAL_MIN: Nanos = 10 * MILLISECOND;
/// Canaries come up to 1/4 of the interval early, by a draw.
pub const CANARY_PHASE_DIVISOR: u64 = 4;
/// Canaries start at multiples of 1/64 of the interval, several paths' at once.
pub const CANARY_GRID_DIVISOR: u64 = 64;

// Return to service.

/// Canaries in a row that must be answered well before host I/O.
pub const PROBATION_CANARIES: u32 = 3;
/// Between two of them.
pub const PROBATION_CANARY_INTERVAL: Nanos = 100 * MILLISECOND;
/// Errors in a row that no other path confirms, of requests or canaries, that take a path out.
pub const STRIKES: u8 = 3;
/// How long an EIO waits for a second opinion while the other paths are away. Longer than a
/// server's restart takes, far shorter than the hold: a medium error must reach the host.
pub const SECOND_OPINION: Nanos = 30 * SECOND;
/// Between two attempts on a path that answered EIO while no other is there.
pub const ASK_AGAIN: Nanos = SECOND;
/// Share of the choices on probation, in parts per million: 5 %.
pub const PROBATION_SHARE_PPM: u32 = 50_000;
/// How long the small share lasts.
pub const PROBATION_TIME: Nanos = 10 * SECOND;
/// Default time a better group must be usable before it takes over again.
pub const FAILBACK_AFTER: Nanos = 60 * SECOND;
/// Failures within [`FAILURE_WINDOW`] that a path may have; one more holds it out.
pub const FAILURES_ALLOWED: u32 = 5;
/// Failures remembered per path; counts stop here.
pub const FAILURES_REMEMBERED: usize = 16;
/// For how long a failure counts.
pub const FAILURE_WINDOW: Nanos = 10 * MINUTE;
/// First time a path is held out; doubles each time.
pub const HOLD_OUT_FIRST: Nanos = 30 * SECOND;
/// Longest time a path is held out.
pub const HOLD_OUT_CAP: Nanos = 10 * MINUTE;
/// Requests are counted in parts of this length.
pub const MARGINAL_BUCKET: Nanos = 10 * SECOND;
/// So many of them make the window: one minute.
pub const MARGINAL_BUCKETS: usize = 6;
/// Requests in trouble within the window that make a path marginal, at least.
pub const MARGINAL_TROUBLED_MIN: u32 = 10;
/// And their part of all requests of the path, in parts per million: 1 %.
pub const MARGINAL_RATE_PPM: u32 = 10_000;
/// Time without trouble before a marginal path is in good standing again; doubles each time.
pub const MARGINAL_CLEAN: Nanos = MINUTE;
/// Where that doubling ends; as much time in good standing forgets it.
pub const MARGINAL_CLEAN_CAP: Nanos = 10 * MINUTE;

// In doubt, and no path.

/// Default quarantine of a write in doubt on plain NBD (an assumption, shown as one).
pub const QUIESCE: Nanos = 5 * SECOND;

// Moved requests.

/// Requests moved at once that count as a mass failure; fewer are simply sent.
pub const PACING_MOVED_MIN: u32 = 8;
/// Moved requests in flight on a path, at least.
pub const PACING_FIRST: u32 = 1;
/// Their part of what is in flight on a path that is at its limit: 5 %. With
/// what the window grows beyond that before it is felt, what was there keeps 90 %.
pub const PACING_SHARE_PPM: u32 = 50_000;
/// That part doubles after each such time: too slow a ramp looks like an outage.
pub const PACING_PATIENCE: Nanos = SECOND;
/// Service times above this part of what was normal before mean that the path feels it: 106 %.
pub const PACING_FELT_PPM: u32 = 1_060_000;
/// Default time requests wait for a path.
pub const NO_PATH_HOLD: Nanos = 600 * SECOND;

// Decisions kept.

/// Decisions about a device that are kept.
pub const EXPLAIN_DEVICE_KEPT: usize = 64;
/// Decisions about each path that are kept.
pub const EXPLAIN_PATH_KEPT: usize = 16;
/// Figures of a decision.
pub const EXPLAIN_FIGURES_MAX: usize = 4;
/// Refused alternatives of a decision.
pub const EXPLAIN_REFUSED_MAX: usize = 3;
/// Default wait above which a request counts as delayed.
pub const BUDGET_DELAY_BOUND: Nanos = SECOND;
/// Causes told apart per device; later ones share one entry.
pub const BUDGET_CAUSES_MAX: usize = 32;
/// Heartbeats that must be missed before a member is suspect.
pub const HEARTBEATS_PER_SUSPECT: u64 = 3;

// Relations. A wrong edit does not compile.
const _: () = {
    assert!(SELECTOR_CANDIDATES_MAX <= u64::BITS as usize, "the selector keeps candidates in one word");
    assert!(LATENCY_TIE_DIVISOR > 1 && LATENCY_DECAY_DIVISOR > 1 && RESAMPLE_GAIN_DIVISOR > 1);
    assert!(
        RESAMPLE_GAIN_DIVISOR > LATENCY_DECAY_DIVISOR,
        "one fast sample must be able to lower the average enough to earn the next"
    );
    assert!(RESAMPLE_AFTER <= CANARY_INTERVAL, "an unused path is measured as often as it is probed");
    assert!(
        RESAMPLE_COST_FACTOR >= 25 && RESAMPLE_AFTER <= RESAMPLE_AFTER_MAX,
        "it takes at most 4 % of the time"
    );
    assert!(RESAMPLE_CHOICES_MIN >= 50, "re-sampling takes at most 2 % of the choices");
    let mut class = 1;
    while class < SIZE_CLASS_BYTES_MAX.len() {
        assert!(SIZE_CLASS_BYTES_MAX[class - 1] < SIZE_CLASS_BYTES_MAX[class], "classes must rise");
        class += 1;
    }
    assert!(LATENCY_OUTLIER_FACTOR > 1, "an average that cannot rise is no average");
    assert!(HISTOGRAM_SAMPLES_MAX <= u32::MAX / HISTOGRAM_SAMPLE_WEIGHT, "the sum of all buckets must fit");
    assert!(HEDGE_QUANTILE_MIN_PPM < HEDGE_QUANTILE_MAX_PPM && HEDGE_QUANTILE_MAX_PPM < FULL_SHARE_PPM);
    assert!(HEDGE_BUDGET_PPM <= FULL_SHARE_PPM / 20, "more than 5 % extra reads is load, not insurance");
    assert!(HEDGE_FLOOR <= HEDGE_COLD && HEDGE_COLD < READ_DEADLINE, "a hedge comes before a move");
    assert!(HEDGE_SAMPLES_MIN < HISTOGRAM_SAMPLES_MAX && HEDGE_WINS_SUSPECT > 0);
    assert!(1 < DISTANCE_TOGETHER && DISTANCE_TOGETHER < DISTANCE_APART && DISTANCE_READS_MIN > 0);
    assert!(DISTANCE_INTERVAL_FIRST <= DISTANCE_INTERVAL && DISTANCE_INTERVAL * 8 <= DISTANCE_WINDOW);
    assert!(SLOW_WINDOWS_SLOW <= SLOW_WINDOWS && SLOW_WINDOWS <= u16::BITS, "windows are bits of a word");
    assert!(SLOW_WINDOW * SLOW_WINDOWS as Nanos <= SLOW_CLEAN, "a path returns with its history behind it");
    assert!(SLOW_FACTOR > 1 && SLOW_BUCKETS.is_multiple_of(4));
    assert!(
        MARGINAL_BUCKETS > 1 && MARGINAL_TROUBLED_MIN > FAILURES_ALLOWED,
        "a path that fails is not marginal"
    );
    assert!(MARGINAL_CLEAN <= MARGINAL_CLEAN_CAP && MARGINAL_RATE_PPM < FULL_SHARE_PPM);
    assert!(PACING_FIRST <= PACING_MOVED_MIN && PACING_FELT_PPM > FULL_SHARE_PPM);
    assert!(0 < PACING_SHARE_PPM && PACING_SHARE_PPM < FULL_SHARE_PPM / 2);
    assert!(PORTAL_RETURN_AFTER >= BACKOFF_CAP, "a better portal is not tried more often than a lost path");
    assert!(BACKOFF_FIRST < BACKOFF_CAP && BACKOFF_JITTER_DIVISOR >= 2);
    assert!(READ_DEADLINE <= WRITE_DEADLINE);
    assert!(CANARY_DEADLINE <= READ_DEADLINE, "a canary speaks before host reads are moved");
    assert!(WRITE_DEADLINE < QUIESCE, "quarantine must outlast the age that causes it");
    assert!(WRITE_DEADLINE < NO_PATH_HOLD, "a hold shorter than a deadline fails what would have moved");
    assert!(SILENCE_PROBE_AFTER < SILENCE_FLOOR, "a probe is out before its silence is judged");
    assert!(SILENCE_PROBE_FACTOR > 1 && SILENCE_PROBE_MIN <= SILENCE_PROBE_AFTER);
    assert!(SILENCE_FLOOR < SILENCE_CEILING && SILENCE_CEILING < USER_TIMEOUT);
    assert!(SAMPLE_INTERVAL < SILENCE_FLOOR && SILENT_ABORT <= GIVE_UP && GIVE_UP <= USER_TIMEOUT);
    assert!(ASK_AGAIN < SECOND_OPINION && SECOND_OPINION < NO_PATH_HOLD && STRIKES > 1);
    assert!(LEAVING_RETRY <= REFUSED_RETRY && DEVICE_BUSY >= CANARY_INTERVAL);
    assert!(PROBATION_CANARY_INTERVAL >= CANARY_INTERVAL_MIN);
    assert!(CANARY_INTERVAL_MIN <= CANARY_INTERVAL && CANARY_INTERVAL <= CANARY_IDLE);
    assert!(CANARY_PHASE_DIVISOR >= 2, "a phase may not eat the interval");
    assert!(0 < PROBATION_SHARE_PPM && PROBATION_SHARE_PPM < FULL_SHARE_PPM && PROBATION_CANARIES > 0);
    assert!(PROBATION_TIME < FAILBACK_AFTER, "a group must be proven before it takes over");
    assert!((FAILURES_ALLOWED as usize) < FAILURES_REMEMBERED, "the limit must be countable");
    assert!(HOLD_OUT_FIRST <= HOLD_OUT_CAP && HOLD_OUT_CAP <= FAILURE_WINDOW);
    assert!(LAST_PATH_FACTOR >= 1 && PROGRESS_BYTES_PER_SECOND > 0 && HEARTBEATS_PER_SUSPECT > 0);
};
