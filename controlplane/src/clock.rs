// SPDX-License-Identifier: MIT OR Apache-2.0
//! Wall-clock time as text: RFC 3339, UTC, milliseconds.
//!
//! Only for people and logs. Decisions run on engine time (`program::Nanos`),
//! which does not jump when somebody sets the clock.

use std::time::{SystemTime, UNIX_EPOCH};

/// The time now, e.g. `2026-01-31T08:15:30.250Z`.
pub fn now_text() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    text(since.as_secs(), since.subsec_millis())
}

/// The same for a moment that was `ago`, by the clock of this moment.
pub fn text_ago(ago: std::time::Duration) -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(ago);
    text(since.as_secs(), since.subsec_millis())
}

/// Days are counted in years that begin with March, so that a leap day is the
/// last one of its year and needs no case of its own.
fn text(unix_seconds: u64, milliseconds: u32) -> String {
    let (days, second) = (unix_seconds / 86_400, unix_seconds % 86_400);
    let days = days + 719_468; // from 0000-03-01
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milliseconds:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_times() {
        // From `date -u -d @N`.
        assert_eq!(text(0, 0), "1970-01-01T00:00:00.000Z");
        assert_eq!(text(951_782_399, 999), "2000-02-28T23:59:59.999Z");
        assert_eq!(text(951_782_400, 0), "2000-02-29T00:00:00.000Z");
        assert_eq!(text(1_709_251_199, 1), "2024-02-29T23:59:59.001Z");
        assert_eq!(text(1_709_251_200, 0), "2024-03-01T00:00:00.000Z");
        assert_eq!(text(4_102_444_799, 0), "2099-12-31T23:59:59.000Z");
    }
}
