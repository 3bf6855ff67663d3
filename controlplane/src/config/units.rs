// SPDX-License-Identifier: MIT OR Apache-2.0
//! Durations and sizes as people write them: `"250ms"`, `"5min"`, `"64MiB"`.
//!
//! A value is a whole number and one unit. Fractions and sums (`"1.5s"`,
//! `"1min30s"`) are refused with the form to use: every duration then has one
//! spelling that survives `config show` unchanged. Decimal sizes (`MB`) are
//! refused too, because half the world means `MiB` by them and a storage size
//! that is 5 % off is a mistake found late.

use program::Nanos;

/// Units of duration, longest first, with their length in nanoseconds.
const DURATIONS: [(&str, u64); 7] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("min", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// Units of size, largest first, with their length in bytes.
const SIZES: [(&str, u64); 6] =
    [("PiB", 1 << 50), ("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// What a duration looks like, for error texts.
pub(crate) const DURATION_FORM: &str =
    "durations are written as a whole number with ns, us, ms, s, min, h or d: \"250ms\", \"10s\", \"5min\"";

/// What a size looks like, for error texts.
pub(crate) const SIZE_FORM: &str = "sizes are written as a whole number with B, KiB, MiB, GiB, TiB or PiB (\"64MiB\", \"10GiB\"), or as a plain number of bytes";

/// Parses `"250ms"` and the like.
///
/// # Errors
///
/// A short text that says what is wrong, without the form to use.
pub(crate) fn parse_duration(text: &str) -> Result<Nanos, String> {
    let (number, unit) = split(text)?;
    if unit.is_empty() {
        return Err("the unit is missing".to_owned());
    }
    scale(number, unit, &DURATIONS)
}

/// Parses `"64MiB"`; a number without a unit counts bytes.
///
/// # Errors
///
/// What is wrong with it, without the form to use.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text)?;
    scale(number, if unit.is_empty() { "B" } else { unit }, &SIZES)
}

/// The shortest spelling of a duration: the largest unit that divides it.
pub fn format_duration(value: Nanos) -> String {
    format(value, &DURATIONS, "0s")
}

/// The shortest spelling of a size.
pub fn format_size(value: u64) -> String {
    format(value, &SIZES, "0B")
}

fn split(text: &str) -> Result<(u64, &str), String> {
    let text = text.trim();
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '_').len();
    let (number, unit) = text.split_at(digits);
    if unit.starts_with(['.', ',']) {
        return Err("a fraction is not taken, use a smaller unit".to_owned());
    }
    let number: String = number.chars().filter(|c| *c != '_').collect();
    if number.is_empty() {
        return Err("it does not begin with a number".to_owned());
    }
    let value = number.parse().map_err(|_| "the number is too large".to_owned())?;
    Ok((value, unit.trim_start()))
}

fn scale(number: u64, unit: &str, units: &[(&str, u64)]) -> Result<u64, String> {
    let found = units.iter().find(|(name, _)| *name == unit);
    let (_, factor) = found.ok_or_else(|| format!("unknown unit `{}`", unit.escape_debug()))?;
    number.checked_mul(*factor).ok_or_else(|| "the number is too large".to_owned())
}

fn format(value: u64, units: &[(&str, u64)], zero: &str) -> String {
    if value == 0 {
        return zero.to_owned();
    }
    // The last unit is 1, so one always divides.
    let (name, factor) =
        units.iter().find(|(_, factor)| value.is_multiple_of(*factor)).unwrap_or(&units[units.len() - 1]);
    format!("{}{name}", value / factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_a_number_and_a_unit() {
        assert_eq!(parse_duration("250ms"), Ok(250_000_000));
        assert_eq!(parse_duration("10s"), Ok(10_000_000_000));
        assert_eq!(parse_duration("5min"), Ok(300_000_000_000));
        assert_eq!(parse_duration(" 2 h "), Ok(7_200_000_000_000));
        assert_eq!(parse_duration("1_000us"), Ok(1_000_000));
        for wrong in ["", "s", "10", "1.5s", "1min30s", "-1s", "10 sec", "99999999999999999999s", "600000d"] {
            assert!(parse_duration(wrong).is_err(), "{wrong:?} was taken");
        }
    }

    #[test]
    fn sizes_are_binary() {
        assert_eq!(parse_size("64MiB"), Ok(64 << 20));
        assert_eq!(parse_size("10GiB"), Ok(10 << 30));
        assert_eq!(parse_size("512"), Ok(512));
        for wrong in ["", "MiB", "64MB", "64M", "0.5GiB", "-1", "99999PiB"] {
            assert!(parse_size(wrong).is_err(), "{wrong:?} was taken");
        }
    }

    #[test]
    fn what_is_shown_parses_to_the_same_value() {
        for value in [0, 1, 999, 1_000, 1_500_000, 1_000_000_000, 90_000_000_000, 3_600_000_000_000, u64::MAX]
        {
            assert_eq!(parse_duration(&format_duration(value)), Ok(value));
        }
        for value in [0, 1, 1023, 1024, 1536, 1 << 30, (1 << 40) + 1, u64::MAX] {
            assert_eq!(parse_size(&format_size(value)), Ok(value));
        }
        assert_eq!(format_duration(600_000_000_000), "10min");
        assert_eq!(format_size(64 << 20), "64MiB");
    }
}
