// SPDX-License-Identifier: MIT OR Apache-2.0
//! Times must nest; every one that does not is reported, with both values.

mod support;

use policies::timing::{Times, Violation, violations};
use support::{Draws, MILLISECOND, SECOND};

fn member(heartbeat: u64, suspect: u64, renew: u64, lease: u64) -> Times {
    Times {
        heartbeat: Some(heartbeat),
        suspect: Some(suspect),
        renew: Some(renew),
        lease: Some(lease),
        ..Times::default()
    }
}

#[test]
fn complaint_19_the_defaults_and_both_profiles_nest() {
    let fast = member(250 * MILLISECOND, SECOND, SECOND, 3 * SECOND);
    let safe = member(500 * MILLISECOND, 3 * SECOND, 2 * SECOND, 10 * SECOND);
    for times in [Times::default(), fast, safe] {
        assert_eq!(violations(&times), [], "{times:?}");
    }
}

/// Breaks one rule in an otherwise good set of times.
type Break = fn(&mut Times);

#[test]
fn each_rule_alone_is_reported_with_its_values() {
    let safe = member(500 * MILLISECOND, 3 * SECOND, 2 * SECOND, 10 * SECOND);
    let cases: [(Break, [&str; 3], u64, u64); 7] = [
        (
            |t| t.canary_deadline = SECOND + 1,
            ["canary deadline <= read deadline", "canary deadline", "read deadline"],
            SECOND + 1,
            SECOND,
        ),
        (
            |t| t.quiesce = 2 * SECOND,
            ["write deadline < quiesce", "write deadline", "quiesce"],
            2 * SECOND,
            2 * SECOND,
        ),
        (
            |t| t.user_timeout = SECOND,
            ["silence limit < TCP user timeout", "silence limit", "TCP user timeout"],
            SECOND,
            SECOND,
        ),
        (|t| t.hold = Some(SECOND), ["write deadline < hold", "write deadline", "hold"], 2 * SECOND, SECOND),
        (
            |t| t.heartbeat = Some(SECOND + 1),
            ["heartbeat x 3 <= suspect", "heartbeat x 3", "suspect"],
            3 * SECOND + 3,
            3 * SECOND,
        ),
        (
            |t| t.suspect = Some(8 * SECOND),
            ["suspect < lease - renew", "suspect", "lease - renew"],
            8 * SECOND,
            8 * SECOND,
        ),
        // A lease shorter than its renewal leaves nothing, and does not wrap.
        (|t| t.lease = Some(SECOND), ["suspect < lease - renew", "suspect", "lease - renew"], 3 * SECOND, 0),
    ];
    for (break_one, [rule, smaller, larger], smaller_ns, larger_ns) in cases {
        let mut times = safe;
        break_one(&mut times);
        assert_eq!(violations(&times), [Violation { rule, smaller, smaller_ns, larger, larger_ns }]);
    }
}

#[test]
fn all_are_reported_at_once() {
    let times = Times {
        canary_deadline: 9,
        read_deadline: 8,
        write_deadline: 7,
        quiesce: 6,
        user_timeout: 5,
        silence_limit: 5,
        hold: Some(0),
        heartbeat: Some(u64::MAX),
        suspect: Some(4),
        lease: Some(3),
        renew: Some(2),
    };
    let rules: Vec<&str> = violations(&times).iter().map(|violation| violation.rule).collect();
    assert_eq!(
        rules,
        [
            "canary deadline <= read deadline",
            "write deadline < quiesce",
            "silence limit < TCP user timeout",
            "write deadline < hold",
            "heartbeat x 3 <= suspect",
            "suspect < lease - renew",
        ]
    );
}

#[test]
fn what_is_not_given_is_not_compared() {
    let mut draws = Draws::new(7);
    for _ in 0..1_000 {
        let mut some = || (draws.below(2) == 0).then(|| draws.below(10));
        let times = Times {
            hold: some(),
            heartbeat: some(),
            suspect: some(),
            lease: some(),
            renew: some(),
            ..Times::default()
        };
        let reported = |rule| violations(&times).iter().any(|violation| violation.rule == rule);
        assert_eq!(reported("write deadline < hold"), times.hold.is_some());
        assert_eq!(
            reported("heartbeat x 3 <= suspect"),
            times.heartbeat.zip(times.suspect).is_some_and(|(heartbeat, suspect)| heartbeat * 3 > suspect)
        );
        let spare = times.lease.zip(times.renew).map(|(lease, renew)| lease.saturating_sub(renew));
        assert_eq!(
            reported("suspect < lease - renew"),
            times.suspect.zip(spare).is_some_and(|(suspect, spare)| suspect >= spare)
        );
    }
}
