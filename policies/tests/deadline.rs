// SPDX-License-Identifier: MIT OR Apache-2.0
//! Request ages scale with the bytes ahead and are longer on the last path (rule W15).

mod support;

use policies::request_deadline;
use support::{Draws, MILLISECOND, SECOND};

#[test]
fn table() {
    for (base, bytes_ahead, last_path, age) in [
        (SECOND, 0, false, SECOND),
        (SECOND, 0, true, 4 * SECOND),
        (SECOND, 8 << 20, false, 2 * SECOND),
        (2 * SECOND, 1 << 20, false, 2 * SECOND + 125 * MILLISECOND),
        (2 * SECOND, 32 << 20, true, 24 * SECOND),
        // Rounded up: the bytes are given their whole time. One byte takes 119.2 ns.
        (0, 1, false, 120),
    ] {
        assert_eq!(request_deadline(base, bytes_ahead, last_path), age, "{base} {bytes_ahead} {last_path}");
    }
}

#[test]
fn equals_the_formula_in_wide_arithmetic() {
    let mut draws = Draws::new(3);
    for _ in 0..100_000 {
        // Any magnitude, so that the ends of the range are reached too.
        let base = draws.any() >> draws.below(64);
        let bytes_ahead = draws.any() >> draws.below(64);
        let ahead = (u128::from(bytes_ahead) * u128::from(SECOND)).div_ceil(8 << 20);
        let age = u128::from(base) + ahead;
        for (last_path, factor) in [(false, 1), (true, 4)] {
            let exact = u64::try_from(age * factor).unwrap_or(u64::MAX);
            assert_eq!(request_deadline(base, bytes_ahead, last_path), exact, "{base} {bytes_ahead}");
        }
    }
}
