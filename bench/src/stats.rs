// SPDX-License-Identifier: MIT OR Apache-2.0
//! Order statistics of a handful of values.
//!
//! Medians and not means: a shared machine has bad moments, and one of them must not decide.

/// The value that a share `quantile` (0 to 1) of all values do not exceed, by nearest rank; `None` without values.
pub fn quantile(values: &[f64], quantile: f64) -> Option<f64> {
    assert!((0.0..=1.0).contains(&quantile), "a share");
    let mut sorted: Vec<f64> = values.iter().copied().filter(|value| !value.is_nan()).collect();
    sorted.sort_by(f64::total_cmp);
    let rank = (quantile * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied()
}

/// The middle value, or the mean of the two in the middle; `None` without values.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted: Vec<f64> = values.iter().copied().filter(|value| !value.is_nan()).collect();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = sorted.get(middle)?;
    if sorted.len().is_multiple_of(2) {
        Some(f64::midpoint(sorted[middle - 1], *upper))
    } else {
        Some(*upper)
    }
}

#[cfg(test)]
mod tests {
    use super::{median, quantile};

    #[test]
    fn medians_do_not_depend_on_order_or_outliers() {
        assert_eq!(median(&[3.0, 1.0, 1000.0]), Some(3.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[f64::NAN, 2.0]), Some(2.0));
    }

    #[test]
    fn quantiles_are_values_that_occurred() {
        let values: Vec<f64> = (1..=30).rev().map(f64::from).collect();
        assert_eq!(quantile(&values, 0.5), Some(15.0));
        assert_eq!(quantile(&values, 0.9), Some(27.0));
        assert_eq!(quantile(&values, 1.0), Some(30.0));
        assert_eq!(quantile(&values, 0.0), Some(1.0));
        assert_eq!(quantile(&[], 0.5), None);
    }
}
