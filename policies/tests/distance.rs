// SPDX-License-Identifier: MIT OR Apache-2.0
//! Steps of distance: where they part, where they meet, and that load does not move them.

mod support;

use policies::Distances;
use policies::distance::{Heard, Moved};
use policies::limits::{
    DISTANCE_INTERVAL, DISTANCE_INTERVAL_FIRST, DISTANCE_READS_MIN, DISTANCE_WINDOW, MICROSECOND,
};
use support::{Draws, MILLISECOND, SECOND};

const US: u64 = MICROSECOND;
const MS: u64 = MILLISECOND;

/// Paths of one class whose reads took so long, three times each.
fn known(times: &[u64]) -> Distances {
    let mut distances = Distances::new(times.len());
    hear(&mut distances, SECOND, times);
    distances
}

fn hear(distances: &mut Distances, now: u64, times: &[u64]) {
    for (path, &time) in times.iter().enumerate() {
        for _ in 0..DISTANCE_READS_MIN {
            distances.record(now, path, time);
        }
    }
}

fn steps(distances: &Distances, paths: usize) -> Vec<u8> {
    (0..paths).map(|path| distances.step(path)).collect()
}

fn arranged(times: &[u64]) -> Vec<u8> {
    let mut distances = known(times);
    distances.arrange(SECOND, &vec![Some(0); times.len()]);
    steps(&distances, times.len())
}

#[test]
fn four_times_parts_and_less_does_not() {
    assert_eq!(arranged(&[MS, 4 * MS]), [0, 0]);
    assert_eq!(arranged(&[MS, 4 * MS + 1]), [0, 1]);
    assert_eq!(arranged(&[9 * MS, MS, 2 * MS]), [1, 0, 0], "whatever order they are configured in");
    assert_eq!(arranged(&[MS, 5 * MS, 21 * MS, 19 * MS]), [0, 1, 2, 1], "from the first of each step");
}

#[test]
fn a_difference_that_a_late_thread_makes_is_none() {
    assert_eq!(arranged(&[20 * US, 520 * US]), [0, 0]);
    assert_eq!(arranged(&[20 * US, 521 * US]), [0, 1]);
}

#[test]
fn apart_it_comes_up_at_twice() {
    let mut distances = known(&[MS, 5 * MS]);
    let class = [Some(0); 2];
    assert_eq!(
        distances.arrange(SECOND, &class),
        [Moved { path: 1, from: 0, to: 1, distance_ns: 5 * MS, nearest_ns: MS }]
    );
    assert_eq!(distances.nearer_at(1), 0, "it went away");
    // Nearer, and not near enough.
    distances.record(2 * SECOND, 1, 2 * MS + 1);
    assert_eq!(distances.arrange(2 * SECOND, &class), []);
    distances.record(3 * SECOND, 1, 2 * MS);
    assert_eq!(
        distances.arrange(3 * SECOND, &class),
        [Moved { path: 1, from: 1, to: 0, distance_ns: 2 * MS, nearest_ns: MS }]
    );
    assert_eq!((distances.nearer_at(1), distances.nearer_at(0)), (3 * SECOND, 0));
}

#[test]
fn classes_are_not_compared() {
    let mut distances = known(&[MS, 50 * MS, 60 * MS, MS]);
    let moved = distances.arrange(SECOND, &[Some(1), Some(2), Some(2), None]);
    assert_eq!(moved, [], "the nearest of its class is on step 0");
}

#[test]
fn three_reads_make_it_known() {
    let mut distances = Distances::new(2);
    hear(&mut distances, 0, &[MS]);
    for read in 1..=DISTANCE_READS_MIN + 1 {
        let at = u64::from(read) * SECOND;
        let expected = if read == DISTANCE_READS_MIN { Heard::Known } else { Heard::Nothing };
        assert_eq!(
            distances.next_read(1, Some(at)) == at + DISTANCE_INTERVAL_FIRST,
            read <= DISTANCE_READS_MIN
        );
        assert_eq!(distances.record(at, 1, 50 * MS), expected, "read {read}");
        assert_eq!(distances.distance_ns(1).is_some(), read >= DISTANCE_READS_MIN);
        let moved = distances.arrange(at, &[Some(0); 2]);
        assert_eq!(moved.len(), usize::from(read == DISTANCE_READS_MIN));
    }
    assert_eq!(distances.next_read(1, Some(7)), 7 + DISTANCE_INTERVAL);
    assert_eq!(distances.next_read(1, None), 0, "at once");
    distances.set_paths(3);
    distances.inherit(1, 2);
    assert_eq!((distances.step(2), distances.distance_ns(2)), (1, Some(50 * MS)), "a changed path is known");
}

/// A path that was never known stands behind those that are, and has no say; it takes its own step when it is known.
#[test]
fn an_unknown_path_is_behind_the_known_ones() {
    let mut distances = Distances::new(4);
    hear(&mut distances, SECOND, &[MS, 9 * MS]);
    let class = [Some(0), Some(0), Some(0), Some(1)];
    assert_eq!(distances.arrange(SECOND, &class).len(), 1);
    assert_eq!(steps(&distances, 4), [0, 1, 1, 0], "the last is alone in its class");
    // At three times the nearest it is near: it was on the last step for want of knowledge.
    for _ in 0..DISTANCE_READS_MIN {
        distances.record(2 * SECOND, 2, 3 * MS);
    }
    let moved = distances.arrange(2 * SECOND, &class);
    assert_eq!(moved, [Moved { path: 2, from: 1, to: 0, distance_ns: 3 * MS, nearest_ns: MS }]);
}

/// A path that was away for long may lead elsewhere: it is measured anew, and stays where it was meanwhile.
#[test]
fn what_was_measured_long_ago_counts_no_more() {
    let mut distances = known(&[MS, 9 * MS]);
    let class = [Some(0); 2];
    distances.arrange(SECOND, &class);
    let later = SECOND + 3 * DISTANCE_WINDOW;
    for _ in 1..DISTANCE_READS_MIN {
        assert_eq!(distances.record(later, 0, 50 * MS), Heard::Nothing);
        assert_eq!(distances.distance_ns(0), Some(MS), "until it is known anew");
        assert_eq!(distances.next_read(0, Some(later)), later + DISTANCE_INTERVAL_FIRST);
    }
    assert_eq!(distances.record(later, 0, 50 * MS), Heard::Changed);
    hear(&mut distances, later, &[50 * MS, 9 * MS]);
    distances.arrange(later, &class);
    assert_eq!(steps(&distances, 2), [1, 0]);
}

/// One that comes up a little, and stays on its step, takes none along that was near.
#[test]
fn none_goes_away_for_what_another_one_was() {
    let mut distances = known(&[10 * MS, 35 * MS, 45 * MS]);
    let class = [Some(0); 3];
    distances.arrange(SECOND, &class);
    assert_eq!(steps(&distances, 3), [0, 0, 1]);
    distances.record(2 * SECOND, 2, 34 * MS);
    distances.arrange(2 * SECOND, &class);
    assert_eq!(steps(&distances, 3), [0, 0, 0], "it comes up rather");
}

/// One read of many that is not held up tells the distance, for ten minutes at least and twenty at most.
#[test]
fn the_shortest_of_the_last_minutes_counts() {
    let mut distances = Distances::new(1);
    let mut shortest_told = Vec::new();
    for read in 0..500 {
        let at = read * DISTANCE_INTERVAL;
        distances.record(at, 0, if read == 10 { MS } else { 40 * MS });
        shortest_told.push(distances.distance_ns(0) == Some(MS));
    }
    let last = shortest_told.iter().rposition(|&told| told).expect("it was told") as u64;
    assert!(shortest_told[10..=last as usize].iter().all(|&told| told));
    let kept = (last - 10) * DISTANCE_INTERVAL;
    assert!((DISTANCE_WINDOW..2 * DISTANCE_WINDOW).contains(&kept), "{} s", kept / SECOND);
}

/// Whatever was heard, asked twice it answers the same; the nearest is on step 0, and no step is left out.
#[test]
fn it_settles_at_once() {
    let mut draws = Draws::new(5);
    let mut moves = 0;
    for _ in 0..2_000 {
        let mut distances = Distances::new(6);
        for round in 1..20 {
            let now = round * DISTANCE_WINDOW * 2;
            for path in 0..6 {
                // Two windows, so that what was heard before is forgotten.
                let time = draws.pick(&[100 * US, 300 * US, MS, 3 * MS, 7 * MS, 20 * MS]);
                hear_one(&mut distances, now, path, time + draws.below(1_000));
            }
            let before = steps(&distances, 6);
            let moved = distances.arrange(now, &[Some(0); 6]);
            moves += moved.len();
            for it in moved.iter().filter(|it| it.to > it.from) {
                let nearer = (0..6).filter(|&path| distances.step(path) == it.to - 1);
                let first = nearer.min_by_key(|&path| distances.distance_ns(path)).expect("no step is empty");
                let first_ns = distances.distance_ns(first).expect("all are known");
                let apart = before[it.path] > before[first];
                assert!(apart || it.distance_ns > 4 * first_ns, "{it:?} went away from {first}");
            }
            assert_eq!(distances.arrange(now, &[Some(0); 6]), []);
            let mut steps = steps(&distances, 6);
            let nearest = (0..6).min_by_key(|&path| distances.distance_ns(path)).unwrap();
            assert_eq!(distances.step(nearest), 0);
            steps.sort_unstable();
            steps.dedup();
            assert_eq!(steps, (0..steps.len() as u8).collect::<Vec<_>>());
        }
    }
    assert!(moves > 10_000, "{moves}");
}

fn hear_one(distances: &mut Distances, now: u64, path: usize, time: u64) {
    distances.record(now - DISTANCE_WINDOW, path, time);
    for _ in 0..DISTANCE_READS_MIN {
        distances.record(now, path, time);
    }
}

/// A near site under load that swings, a far one at rest: an order by averages would turn round each minute.
#[test]
fn load_does_not_move_the_groups() {
    let mut draws = Draws::new(9);
    let mut distances = known(&[300 * US, 5 * MS]);
    let class = [Some(0); 2];
    assert_eq!(distances.arrange(SECOND, &class).len(), 1);
    for read in 1..20_000_u64 {
        let now = read * DISTANCE_INTERVAL;
        // Eight of ten reads wait for 5 to 60 ms of other requests.
        let load = if draws.below(10) > 1 { 5 * MS + draws.below(55 * MS) } else { 0 };
        distances.record(now, 0, 300 * US + load);
        distances.record(now, 1, 5 * MS + draws.below(MS));
        assert_eq!(distances.arrange(now, &class), [], "read {read}");
    }
    // Without a pause for more than twenty minutes: they join, and do not change places.
    for read in 20_000..20_400_u64 {
        let now = read * DISTANCE_INTERVAL;
        distances.record(now, 0, 15 * MS);
        distances.record(now, 1, 5 * MS);
        distances.arrange(now, &class);
        assert_eq!(distances.step(0), 0);
    }
    assert_eq!(distances.step(1), 0);
    // One moment of rest parts them again.
    distances.record(20_400 * DISTANCE_INTERVAL, 0, 300 * US);
    assert_eq!(distances.arrange(20_400 * DISTANCE_INTERVAL, &class).len(), 1);
    assert_eq!((distances.step(0), distances.step(1)), (0, 1));
}
