// SPDX-License-Identifier: MIT OR Apache-2.0
//! What sick paths cost the hosts, in answers: flapping, dying, slow, silent, overloaded ones.
//!
//! Each is compared with the same run without the sickness, in virtual time and with the product's defaults;
//! the figures are in `docs/simulation.md`.

use program::{AccessPolicy, Failback, MILLISECOND, Nanos, PathState, SECOND, SelectorKind};
use sim::coverage::FaultClass;
use sim::faults::Planned;
use sim::plan::Plan;
use sim::seen::{Seen, WINDOW};
use sim::world::World;

/// When a run begins.
const START: Nanos = SECOND;
/// From here on figures count: paths are connected, their speed is known.
const WARM: Nanos = 3 * SECOND;
/// Canaries, and the small share of a path that came back.
const PROBATION: Nanos = 10 * SECOND + 300 * MILLISECOND;
/// The longest pause between two attempts to connect.
const RECONNECT: Nanos = 37 * SECOND + 500 * MILLISECOND;
/// Runs of which the median counts.
const SEEDS: u64 = 3;
/// 256 MiB: a range in doubt is a small part of it.
const LARGE: usize = 65_536;

/// Servers that are well, and a host that keeps `depth` reads open until `end`.
fn plan(paths: usize, depth: usize, end: Nanos) -> Plan {
    let mut plan = Plan::calm(paths, false);
    plan.duration = end - START;
    for server in &mut plan.servers {
        server.service = 2 * MILLISECOND;
        server.depth = 256;
    }
    let device = &mut plan.devices[0];
    device.depth = depth;
    device.program.selector = SelectorKind::Latency;
    device.program.hedge_budget_ppm = 30_000;
    for path in &mut device.program.paths {
        path.in_flight = 128;
    }
    plan
}

/// The same where a server works off `per_second` operations, however many wait.
fn limited(paths: usize, depth: usize, end: Nanos, per_second: u64) -> Plan {
    let mut plan = plan(paths, depth, end);
    for server in &mut plan.servers {
        server.queue = SECOND / per_second;
    }
    plan
}

/// The same with writes, to a volume so large.
fn writing(mut plan: Plan, sectors: usize) -> Plan {
    let device = &mut plan.devices[0];
    device.mix = [0, 1, 0, 0, 0, 0, 0];
    device.sectors = sectors;
    device.hot = sectors;
    plan
}

/// Runs it; no host may be told of an error.
fn run(plan: &Plan, seed: u64, planned: &[Planned]) -> Seen {
    let outcome = World::scenario(plan.clone(), seed, planned.to_vec(), START).run();
    assert!(outcome.failure.is_none(), "seed {seed}, {planned:?}: {:?}", outcome.failure);
    let [seen] = outcome.seen.try_into().unwrap_or_else(|_| unreachable!("one device"));
    assert_eq!(seen.errors, 0, "seed {seed}, {planned:?}: a host was told of an error");
    seen
}

fn fault(class: FaultClass, link: usize, at: Nanos, lasts: Nanos) -> Planned {
    Planned { at, class, link, lasts }
}

/// Up for 2 s, down for 1 s, until `end`.
fn flaps(link: usize, end: Nanos) -> Vec<Planned> {
    let downs = (0..).map(|n| START + 2 * SECOND + n * 3 * SECOND).take_while(|&at| at < end);
    downs.map(|at| fault(FaultClass::Kill, link, at, SECOND)).collect()
}

fn percent(part: u64, of: u64) -> f64 {
    part as f64 * 100.0 / of as f64
}

/// After the sixth failure it is held out, longer each time.
#[test]
fn a_flapping_path_costs_no_more_than_a_dead_one() {
    let (second_minute, end) = (START + 60 * SECOND, START + 120 * SECOND);
    for depth in [1, 4] {
        let mut plan = plan(2, depth, end);
        for server in &mut plan.servers {
            server.service = 8 * MILLISECOND;
        }
        let flapping = run(&plan, 1, &flaps(1, end));
        let dead = run(&plan, 1, &[fault(FaultClass::Kill, 1, START + 2 * SECOND, end)]);
        let [with, without] = [&flapping, &dead].map(|seen| seen.answers(second_minute, end));
        let first = [&flapping, &dead].map(|seen| seen.answers(START, second_minute));
        println!(
            "depth {depth}: {with} answers, {without} with the path away: {:.2} %; in the first minute {:.2} %",
            percent(with, without),
            percent(first[0], first[1])
        );
        assert!(with.abs_diff(without) * 100 < without, "{with} answers, {without} with the path away");
    }
}

/// However often it failed: alone, or with another that is away.
#[test]
fn the_last_path_is_used_whenever_it_is_up() {
    let end = START + 120 * SECOND;
    for paths in [1, 2] {
        let mut planned = flaps(0, end);
        if paths == 2 {
            planned.push(fault(FaultClass::SilentBoth, 1, START + SECOND, end));
        }
        let seen = run(&limited(paths, 4, end, 200), 1, &planned);
        let ups = (0..40).map(|n| START + n * 3 * SECOND);
        let least = ups.map(|up| seen.answers(up, up + 2 * SECOND)).min().unwrap_or(0);
        println!("{paths} paths: {least} answers in an up phase at least, of 400");
        assert!(least >= 200, "{least} answers in an up phase, of 400");
    }
}

/// What is sent again goes to the others a few at a time: they keep their speed.
#[test]
fn the_others_keep_their_speed_while_a_path_dies() {
    for (depth, writes) in [(1, false), (64, false), (64, true)] {
        others_keep(2, depth, writes);
        others_keep(4, depth, writes);
    }
}

/// Of writes, many are open on a large volume: with one, luck decides whether it meets the one in doubt and waits
/// with it (W4).
fn others_keep(paths: usize, depth: usize, writes: bool) {
    let (at, others) = (2 * SECOND, 0..paths - 1);
    let end = at + 4 * SECOND;
    let make = |paths| {
        // A window needs enough of them to tell 90 %.
        let mut plan = limited(paths, depth, end, if depth == 1 { 2_000 } else { 300 });
        for server in plan.servers.iter_mut().filter(|_| depth == 1) {
            server.service = MILLISECOND / 2;
        }
        if writes { writing(plan, LARGE) } else { plan }
    };
    let usual: Vec<u64> = (0..SEEDS)
        .map(|seed| run(&make(paths - 1), seed, &[]).each_window(others.clone(), at, end))
        .map(|windows| windows.iter().sum::<u64>() / windows.len() as u64)
        .collect();
    for class in [FaultClass::Reset, FaultClass::Kill, FaultClass::SilentBoth] {
        let kept_of = |seed: u64| {
            let planned = fault(class, paths - 1, at + seed * 7_300_000, end);
            let windows = run(&make(paths), seed, &[planned]).each_window(others.clone(), at, end);
            let kept = windows.iter().filter(|&&answers| answers * 10 >= usual[seed as usize] * 9);
            percent(kept.count() as u64, windows.len() as u64)
        };
        let mut kept: Vec<f64> = (0..SEEDS).map(kept_of).collect();
        kept.sort_by(f64::total_cmp);
        println!("{class:?} of one of {paths}, depth {depth}, writes {writes}: {kept:?} % of the windows");
        assert!(kept[kept.len() / 2] >= 95.0, "{class:?} of one of {paths}, depth {depth}: {kept:?}");
    }
}

/// One of two paths is 30 ms slower, from the start or from 3 s on.
#[test]
fn a_slow_path_costs_little_once_it_is_known() {
    for (depth, at) in [(1, START), (1, WARM), (32, START), (32, WARM)] {
        let (from, end) = (at + 2 * SECOND, at + 4 * SECOND);
        let make = |paths, selector| {
            let mut plan = plan(paths, depth, end);
            plan.faults.slow = Some(30 * MILLISECOND);
            plan.devices[0].program.selector = selector;
            plan
        };
        let slow = [fault(FaultClass::Slow, 1, at, end)];
        let steered = run(&make(2, SelectorKind::Latency), 1, &slow).answers(from, end);
        let in_turn = run(&make(2, SelectorKind::RoundRobin), 1, &slow).answers(from, end);
        let alone = run(&make(1, SelectorKind::Latency), 1, &[]).answers(from, end);
        println!(
            "depth {depth}, slow from {} s on: {:.1} times round-robin, {:.1} % of the fast path alone",
            at / SECOND,
            steered as f64 / in_turn as f64,
            percent(steered, alone)
        );
        assert!(steered >= 3 * in_turn, "{steered} answers, {in_turn} with round-robin");
        assert!(steered * 100 >= alone * 95, "{steered} answers, {alone} with the fast path alone");
    }
}

/// Nobody is to blame: the hosts get what the storage gives, and all paths are in use when it is over.
#[test]
fn when_all_are_slow_it_is_the_storage() {
    for (slow_ms, depth) in
        [100, 900, 2000, 5000].into_iter().flat_map(|slow_ms| [(slow_ms, 1), (slow_ms, 4)])
    {
        let (at, healed) = (START + 10 * SECOND, START + 130 * SECOND);
        // Requests that are sent again at their age are counted against the paths: `marginal`, 10 min at most.
        let beyond_age = slow_ms >= 1000;
        let end = healed + if beyond_age { 630 * SECOND } else { 30 * SECOND };
        let mut plan = plan(2, depth, end);
        plan.faults.slow = Some(slow_ms * MILLISECOND);
        for server in &mut plan.servers {
            server.service = 20 * MILLISECOND;
        }
        let slow = [0, 1].map(|link| fault(FaultClass::Slow, link, at, healed - at));
        let seen = run(&plan, 1, &slow);
        let from = at + 20 * SECOND;
        let most = depth as u64 * (healed - from) / ((slow_ms + 20) * MILLISECOND + 2 * plan.latency);
        let answers = seen.answers(from, healed);
        let first = seen.answers_over(0, end - 10 * SECOND, end);
        let both = first + seen.answers_over(1, end - 10 * SECOND, end);
        println!(
            "depth {depth}, {slow_ms} ms slower: {:.1} % of what it gives, then {:.1} % over the first path, {:?}",
            percent(answers, most),
            percent(first, both),
            seen.events
        );
        assert!(answers * 100 >= most * 90, "{answers} answers of {most}");
        assert!(first > 0 && first < both, "{first} of {both} over the first path");
        if !beyond_age {
            assert_always_up(&seen);
        }
    }
}

fn assert_always_up(seen: &Seen) {
    let other = seen.states.iter().find(|(_, _, state)| *state != PathState::Up);
    assert_eq!(other, None, "no path is to be blamed");
    let held = seen.events.iter().find(|(_, name)| name.starts_with("path_"));
    assert_eq!(held, None, "no path is to be blamed");
}

/// Silence in one direction only.
#[test]
fn after_a_one_way_silence_a_path_is_in_use_again() {
    let (at, healed) = (4 * SECOND, 9 * SECOND);
    let end = healed + 20 * SECOND;
    for class in [FaultClass::SilentTo, FaultClass::SilentFrom] {
        for (what, depth) in [("reads", 1), ("reads", 16), ("writes", 16)] {
            let plan = limited(2, depth, end, 300);
            let plan = if what == "reads" { plan } else { writing(plan, LARGE) };
            let seen = run(&plan, 1, &[fault(class, 1, at, healed - at)]);
            let idle = seen.each_window(0..1, at, end).iter().filter(|&&answers| answers == 0).count();
            let back = seen.first_over(1, healed).map_or(Nanos::MAX, |at| at - healed);
            let share = percent(
                seen.answers_over(1, healed + PROBATION, end),
                seen.each_window(0..2, healed + PROBATION, end).iter().sum(),
            );
            println!(
                "{class:?}, {what}, depth {depth}: {idle} idle windows, back after {} ms, then {share:.1} %",
                back / MILLISECOND
            );
            assert_eq!(idle, 0, "the other path carries on");
            assert!(back <= SECOND && share >= 45.0, "back after {back} ns, then {share} %");
        }
    }
}

/// A link that is silent for a moment and answers late: how long that took says nothing of how long
/// its next requests will take.
#[test]
fn after_a_short_silence_a_path_has_its_share_at_once() {
    let at = WARM;
    for lasts_ms in [100, 250, 600, 900] {
        for what in ["reads", "writes"] {
            let healed = at + lasts_ms * MILLISECOND;
            // The lost packets are sent again.
            let (from, end) = (healed + 2 * SECOND, healed + 4 * SECOND);
            let mut plan = plan(4, 64, end);
            for server in &mut plan.servers {
                server.service = 8 * MILLISECOND;
            }
            let plan = if what == "reads" { plan } else { writing(plan, LARGE) };
            let seen = run(&plan, 1, &[fault(FaultClass::SilentFrom, 1, at, healed - at)]);
            let share =
                percent(seen.answers_over(1, from, end), seen.each_window(0..4, from, end).iter().sum());
            println!("{what}, silent for {lasts_ms} ms: then {share:.1} % of what four paths carry");
            assert!((20.0..30.0).contains(&share), "{what}, {lasts_ms} ms: {share} %");
        }
    }
}

/// 256 requests at servers that work off so many in a second: they wait, up to 6.4 s, and nothing is sick.
#[test]
fn an_overloaded_server_is_no_failed_path() {
    let end = START + 30 * SECOND;
    for per_second in [500, 125, 50, 20] {
        for what in ["reads", "writes"] {
            let plan = limited(2, 256, end, per_second);
            let plan = if what == "reads" { plan } else { writing(plan, LARGE) };
            let seen = run(&plan, 1, &[]);
            let share = percent(seen.answers(START, end), 2 * per_second * 30);
            println!(
                "{what}, {per_second} a second, {} ms each: {share:.1} % of what the servers do",
                128_000 / per_second
            );
            assert_always_up(&seen);
            // Beyond the request age copies are made, which are work as well.
            assert!(share >= 95.0 || per_second < 125, "{share} % of what the servers do");
        }
    }
}

#[test]
fn like_paths_carry_like_shares() {
    for selector in [SelectorKind::RoundRobin, SelectorKind::Latency] {
        // With one request open a path that looked slow by chance is left out for a second.
        for (depth, end) in [(1, WARM + 10 * SECOND), (32, WARM + SECOND)] {
            let mut plan = plan(4, depth, end);
            plan.devices[0].program.selector = selector;
            let seen = run(&plan, 1, &[]);
            let counts: Vec<u64> = (0..4).map(|link| seen.answers_over(link, WARM, end)).collect();
            assert_fair(&format!("{selector:?}, depth {depth}, paths"), &counts);
        }
    }
}

#[test]
fn weights_are_kept_under_queue_depth() {
    let end = WARM + 2 * SECOND;
    for depth in [4, 32] {
        let mut plan = plan(2, depth, end);
        plan.devices[0].program.selector = SelectorKind::QueueDepth;
        plan.devices[0].program.paths[1].weight = 3;
        let seen = run(&plan, 1, &[]);
        let [one, three] = [0, 1].map(|link| seen.answers_over(link, WARM, end) as f64);
        println!("depth {depth}: 1 to {:.2}", three / one);
        assert!((2.7..=3.3).contains(&(three / one)), "{one} answers to {three}");
    }
}

#[test]
fn sessions_get_like_shares() {
    for (what, plan) in [("free", plan(2, 8, WARM)), ("limited", limited(2, 16, WARM, 1000))] {
        let mut plan = plan;
        plan.devices[0].sessions = 4;
        assert_fair(&format!("{what}, sessions"), &run(&plan, 1, &[]).sessions);
    }
}

/// Each of four has between 0.8 and 1.2 of a quarter.
fn assert_fair(what: &str, counts: &[u64]) {
    let all: u64 = counts.iter().sum();
    let shares: Vec<f64> =
        counts.iter().map(|&count| count as f64 * counts.len() as f64 / all as f64).collect();
    println!("{what}: {shares:.3?}");
    assert!(shares.iter().all(|share| (0.8..=1.2).contains(share)), "{what}: {shares:.3?}");
}

/// Active-passive: the preferred path is away, and is healed.
#[test]
fn the_preferred_path_takes_over_again_when_it_was_said() {
    for away in [3, 10, 30] {
        for (failback, wait) in [
            (Failback::Immediate, Some(0)),
            (Failback::After(20 * SECOND), Some(20 * SECOND)),
            (Failback::Manual, None),
        ] {
            let (at, healed) = (4 * SECOND, (4 + away) * SECOND);
            let (by_hand, end) = (healed + 80 * SECOND, healed + 90 * SECOND);
            let mut plan = limited(2, 4, end, 100);
            let program = &mut plan.devices[0].program;
            program.access = AccessPolicy::ActivePassive;
            program.failback = failback;
            program.paths[0].priority = 60;
            let lost = fault(FaultClass::Kill, 0, at, healed - at);
            // An operator takes the other one out.
            let seen = run(&plan, 1, &[lost, fault(FaultClass::PathFail, 1, by_hand, SECOND)]);
            let back = seen.first_over(0, healed).unwrap_or(Nanos::MAX);
            println!("{failback:?}, away for {away} s: back {} ms after it", (back - healed) / MILLISECOND);
            // A server that was away for long is not called at once.
            let pause = if away > 10 { RECONNECT } else { 0 };
            let (from, to) = wait.map_or((by_hand, by_hand + WINDOW), |wait| {
                (healed + wait, healed + pause + PROBATION + wait)
            });
            assert!((from..=to).contains(&back), "{failback:?}, away for {away} s: back at {back}");
        }
    }
}
