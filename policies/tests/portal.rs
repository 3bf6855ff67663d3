// SPDX-License-Identifier: MIT OR Apache-2.0
//! All portals of a path are tried before it is given up; each remembers its own back-off.

mod support;

use policies::portal::{Attempt, Portals};
use support::{Draws, MILLISECOND, SECOND};

/// In the middle: no jitter.
const DRAW: u64 = u64::MAX / 2;

#[test]
fn every_portal_is_tried_before_the_path_has_failed() {
    for portals in 1..=5 {
        let mut it = Portals::new(portals);
        for portal in 0..portals {
            assert_eq!(it.next(0), Attempt::Now(portal), "in order of preference, at once");
            let failed = it.on_failed(0, portal, DRAW);
            assert_eq!(failed, portal == portals - 1, "{portal} of {portals}");
        }
        assert!(it.is_exhausted());
        assert_eq!(it.next(0), Attempt::At(100 * MILLISECOND));
        it.check_invariants();
    }
}

#[test]
fn a_lost_connection_tries_the_others_first_and_itself_last() {
    let mut it = Portals::new(3);
    it.on_connected(0, 1);
    it.on_lost();
    for portal in [0, 2, 1] {
        assert_eq!(it.next(SECOND), Attempt::Now(portal));
        it.on_failed(SECOND, portal, DRAW);
    }
    assert!(it.is_exhausted());
}

/// A dead address slows down only itself.
#[test]
fn each_portal_has_its_own_back_off() {
    let mut it = Portals::new(2);
    // Portal 0 has failed often, portal 1 once.
    let mut now = 0;
    for _ in 0..6 {
        it.on_failed(now, 0, DRAW);
        now += SECOND;
    }
    it.on_failed(now, 1, DRAW);
    assert_eq!(it.next(now), Attempt::At(now + 100 * MILLISECOND), "of portal 1");
    assert_eq!(it.next(now + 100 * MILLISECOND), Attempt::Now(1));
    it.on_connected(now + SECOND, 1);
    it.on_lost();
    // Lost again: portal 0 gets its one attempt, whatever its back-off; then portal 1 at once.
    assert_eq!(it.next(now + SECOND), Attempt::Now(0));
    assert!(!it.on_failed(now + SECOND, 0, DRAW));
    assert_eq!(it.next(now + SECOND), Attempt::Now(1));
    assert!(it.on_failed(now + SECOND, 1, DRAW));
    // What was learnt of portal 0 still counts, and portal 1 starts anew.
    assert_eq!(it.next(now + SECOND), Attempt::At(now + SECOND + 100 * MILLISECOND));
    assert_eq!(it.next(now + 2 * SECOND), Attempt::Now(1));
}

#[test]
fn the_preferred_portal_is_returned_to_beside_the_connection_in_use() {
    let mut it = Portals::new(3);
    assert_eq!((it.return_to(0), it.next_return()), (None, None));
    it.on_failed(0, 0, DRAW);
    it.on_connected(0, 2);
    assert_eq!(it.return_to(60 * SECOND - 1), None);
    assert_eq!((it.return_to(60 * SECOND), it.next_return()), (Some(0), Some(60 * SECOND)));
    // It fails: the path has not, and the next better one is tried; then each as its back-off says.
    assert!(!it.on_failed(60 * SECOND, 0, DRAW));
    assert_eq!(it.return_to(60 * SECOND), Some(1));
    assert!(!it.on_failed(60 * SECOND, 1, DRAW));
    assert_eq!(it.return_to(60 * SECOND), None);
    assert_eq!(it.next_return(), Some(60 * SECOND + 100 * MILLISECOND));
    it.on_connected(61 * SECOND, 1);
    assert_eq!(it.in_use(), Some(1));
    assert_eq!(it.return_to(121 * SECOND), Some(0));
    it.on_connected(121 * SECOND, 0);
    assert_eq!((it.return_to(500 * SECOND), it.next_return()), (None, None), "the best is in use");
    it.check_invariants();
}

/// Any history: one attempt per portal and round, never a wait longer than the back-off's cap, and a
/// portal that works is found within one round.
#[test]
fn random_histories_keep_the_bounds() {
    for seed in 0..200 {
        let mut draws = Draws::new(seed);
        let portals = 1 + draws.below(4) as usize;
        let mut it = Portals::new(portals);
        let mut now = 0;
        let mut tried = vec![false; portals];
        for _ in 0..500 {
            it.check_invariants();
            if let Some(portal) = it.in_use() {
                assert!(it.return_to(now).is_none_or(|better| better < portal));
                now += draws.below(100 * SECOND);
                it.on_lost();
                tried.fill(false);
                continue;
            }
            match it.next(now) {
                Attempt::Now(portal) => {
                    let all = tried.iter().all(|&tried| tried);
                    assert!(!tried[portal] || all, "seed {seed}: {portal} again before the others");
                    tried[portal] = true;
                    if draws.below(4) == 0 {
                        it.on_connected(now, portal);
                    } else {
                        let failed = it.on_failed(now, portal, draws.any());
                        assert_eq!(failed, tried.iter().all(|&tried| tried), "seed {seed}");
                    }
                }
                Attempt::At(at) => {
                    assert!(at > now && at - now <= 38 * SECOND, "seed {seed}: {} ns", at - now);
                    assert!(tried.iter().all(|&tried| tried), "seed {seed}: no wait within a round");
                    now = at;
                }
            }
        }
    }
}
