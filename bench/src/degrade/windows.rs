// SPDX-License-Identifier: MIT OR Apache-2.0
//! Answers in each tenth of a second, and what is said of them.

use std::time::Duration;

use crate::stats::median;

const WINDOW: Duration = Duration::from_millis(100);

/// The whole windows of `length` from `from` on. A host that got no answer any more has no windows at the end: they are empty,
/// not missing.
pub(super) fn between(answers: &[u64], from: Duration, length: Duration) -> Vec<u64> {
    let count = |time: Duration| (time.as_nanos() / WINDOW.as_nanos()) as usize;
    let padded = answers.iter().copied().chain(std::iter::repeat(0));
    padded.skip(count(from)).take(count(length)).collect()
}

/// Answers per second, gaps included; `None` without windows.
pub(super) fn rate(windows: &[u64]) -> Option<f64> {
    let seconds = windows.len() as f64 * WINDOW.as_secs_f64();
    (seconds > 0.0).then(|| windows.iter().sum::<u64>() as f64 / seconds)
}

/// Share of the windows that have at least `least` times the answers of the median window of `base`.
pub(super) fn share_of_good(windows: &[u64], base: &[u64], least: f64) -> Option<f64> {
    let base: Vec<f64> = base.iter().map(|answers| *answers as f64).collect();
    let wanted = median(&base).filter(|usual| *usual > 0.0)? * least;
    let good = windows.iter().filter(|answers| **answers as f64 >= wanted).count();
    (!windows.is_empty()).then(|| good as f64 / windows.len() as f64)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{between, rate, share_of_good};

    #[test]
    fn silence_at_the_end_is_counted() {
        let at = Duration::from_millis;
        assert_eq!(between(&[5, 10, 20, 30, 40], at(100), at(300)), [10, 20, 30]);
        assert_eq!(between(&[5, 10, 20], at(200), at(400)), [20, 0, 0, 0]);
        assert_eq!(rate(&[20, 0, 0, 0]), Some(50.0));
        assert_eq!(rate(&[]), None);
    }

    #[test]
    fn windows_are_measured_by_the_median_of_the_others() {
        let base = [100, 100, 1000, 90, 100];
        assert_eq!(share_of_good(&[90, 89, 200, 0], &base, 0.9), Some(0.5));
        assert_eq!(share_of_good(&base, &base, 0.9), Some(1.0));
        assert_eq!(share_of_good(&[1], &[0, 0], 0.9), None, "nothing to compare with");
    }
}
