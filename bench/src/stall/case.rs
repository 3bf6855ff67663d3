// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is done to one of two paths, to which requests, and how long a host may wait for it.
//!
//! | kind | storage | limit of reads | of writes |
//! |---|---|---:|---:|
//! | reset, kill | two nbdkit | 5 ms | 5 ms |
//! | silence | two nbdkit | 20 ms, hedged | |
//! | silence-unhedged | the same, `hedge` off | 300 ms | |
//! | silence-gate | one gate at two addresses | | 500 ms |
//! | stop | two nbdkit | 20 ms, hedged | the age that moves a write |

use std::time::Duration;

use clap::ValueEnum;

/// Default `deadline.write`, and what the bytes ahead of a write on its connection may add: 32 times 4 KiB at 8 MiB/s.
const WRITE_AGE: Duration = Duration::from_millis(2016);

/// Kind of run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Nothing happens; always run.
    Control,
    /// The connections of one path are reset; the server lives and takes new ones.
    Reset,
    /// One storage server is killed.
    Kill,
    /// Packets of one path are dropped in both directions (nft).
    Silence,
    /// The same with `hedge = { mode = "off" }`; reads only.
    SilenceUnhedged,
    /// The same with a gate as the storage; writes only.
    SilenceGate,
    /// One storage server is stopped and keeps its connections.
    Stop,
}

impl Kind {
    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Reset => "reset",
            Self::Kill => "kill",
            Self::Silence => "silence",
            Self::SilenceUnhedged => "silence-unhedged",
            Self::SilenceGate => "silence-gate",
            Self::Stop => "stop",
        }
    }

    pub(super) fn is_silence(self) -> bool {
        matches!(self, Self::Silence | Self::SilenceUnhedged | Self::SilenceGate)
    }
}

/// A kind of run with one kind of request.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// What happens.
    pub kind: Kind,
    /// To WRITEs; else to READs.
    pub writes: bool,
    /// Promised limit.
    pub limit: Duration,
}

impl Case {
    /// `read` or `write`.
    pub fn command(self) -> &'static str {
        if self.writes { "write" } else { "read" }
    }
}

/// The cases of these kinds, with the controls they need first.
pub(super) fn cases(kinds: &[Kind]) -> Vec<Case> {
    let mut cases = Vec::new();
    for writes in [false, true] {
        let of_command = kinds.iter().filter_map(|&kind| {
            let limit = limit(kind, writes)?;
            Some(Case { kind, writes, limit })
        });
        let of_command: Vec<Case> = of_command.collect();
        if !of_command.is_empty() {
            cases.push(Case { kind: Kind::Control, writes, limit: AFTER_CONTROL });
            cases.extend(of_command);
        }
    }
    cases
}

/// A control runs on for about as long as most others.
const AFTER_CONTROL: Duration = Duration::from_millis(300);

fn limit(kind: Kind, writes: bool) -> Option<Duration> {
    let ms = |ms| Some(Duration::from_millis(ms));
    match (kind, writes) {
        (Kind::Reset | Kind::Kill, _) => ms(5),
        (Kind::Silence | Kind::Stop, false) => ms(20),
        (Kind::SilenceUnhedged, false) => ms(300),
        (Kind::SilenceGate, true) => ms(500),
        (Kind::Stop, true) => Some(WRITE_AGE),
        (Kind::Silence | Kind::SilenceUnhedged, true) | (Kind::SilenceGate, false) | (Kind::Control, _) => {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Kind, cases};

    #[test]
    fn a_control_goes_before_the_faults_of_its_requests() {
        let of = |kinds: &[Kind]| {
            let names =
                cases(kinds).into_iter().map(|case| format!("{} {}", case.kind.name(), case.command()));
            names.collect::<Vec<String>>()
        };
        assert_eq!(of(&[Kind::SilenceGate]), ["control write", "silence-gate write"]);
        assert_eq!(
            of(&[Kind::Kill, Kind::Silence]),
            ["control read", "kill read", "silence read", "control write", "kill write"]
        );
        assert!(of(&[Kind::Control]).is_empty(), "nothing to compare with");
    }
}
