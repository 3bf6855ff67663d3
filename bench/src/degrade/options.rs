// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is measured, how often and for how long.

use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::place::PlaceOptions;
use crate::units::parse_seconds;

/// What is wrong with one of two paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// It dies: its connections are reset, and its server is gone.
    Reset,
    /// It dies: its server is killed.
    Kill,
    /// It dies: its packets are dropped in both directions (nft).
    Silence,
    /// It is slow: each of its reads takes 30 ms more.
    Slow,
    /// It comes and goes.
    Flapping,
}

/// Where the content of the storage is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Medium {
    /// A file in memory, so that no disk has good and bad moments.
    Memory,
    /// A file in the temporary directory.
    File,
}

/// What is measured.
#[derive(Args, Clone, Debug)]
pub struct DegradeOptions {
    /// Rounds of the kinds that are short
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub runs: u32,
    /// Rounds of flapping
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub flapping_runs: u32,
    /// What is wrong with one of the paths; silence needs root, for a network namespace of its own
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "reset,kill,silence,slow,flapping",
        value_name = "LIST"
    )]
    pub kinds: Vec<Kind>,
    /// How long is counted: after the death of a path, beside a slow one
    #[arg(long, value_parser = parse_seconds, default_value = "4", value_name = "SECONDS")]
    pub seconds: Duration,
    /// How long a host sends requests before that
    #[arg(long, value_parser = parse_seconds, default_value = "2", value_name = "SECONDS")]
    pub warmup: Duration,
    /// How long a path flaps; the first minute, at most half of it, is not counted
    #[arg(long = "minutes", value_parser = parse_minutes, default_value = "2", value_name = "MINUTES")]
    pub flapping_for: Duration,
    /// How long the storage takes for a request, so that it and not the processors is the limit
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(0..=1000), value_name = "MS")]
    pub delay_ms: u32,
    /// Where the content of the storage is
    #[arg(long, value_enum, default_value = "memory")]
    pub storage: Medium,
    /// Where, and of what.
    #[command(flatten)]
    pub place: PlaceOptions,
}

impl Kind {
    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Reset => "reset",
            Self::Kill => "kill",
            Self::Silence => "silence",
            Self::Slow => "slow",
            Self::Flapping => "flapping",
        }
    }

    /// Whether a path dies of it.
    pub(super) fn is_death(self) -> bool {
        matches!(self, Self::Reset | Self::Kill | Self::Silence)
    }
}

fn parse_minutes(text: &str) -> Result<Duration, String> {
    let minutes: f64 = text.parse().map_err(|_| "allowed: minutes, as in 2 or 0.5".to_owned())?;
    if (0.05..=1440.0).contains(&minutes) {
        Ok(Duration::from_secs_f64(minutes * 60.0))
    } else {
        Err("allowed: 0.05 to 1440 minutes".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::parse_minutes;

    #[test]
    fn minutes_may_have_a_fraction() {
        assert_eq!(parse_minutes("1.5"), Ok(Duration::from_secs(90)));
        for text in ["", "0", "-1", "nan", "2000"] {
            assert!(parse_minutes(text).is_err(), "{text}");
        }
    }
}
