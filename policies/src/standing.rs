// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which paths may be used, when every rule has had its say.
//!
//! **Model.** Several rules hold paths back, each with good reason and each of them sparing the last
//! path it sees. Together they could still leave nothing: one path held out, one slow, one on
//! probation. So no rule takes a path away; each only lowers its *standing*, and the paths of
//! the best standing that exists are used. While a device has a path that is connected and right,
//! it has a path in use.
//!
//! | standing | who |
//! |---|---|
//! | good | none of the below; a path with its small share of probation too |
//! | demoted | slow against its siblings, or marginal: works, but worse |
//! | proving | on probation with canaries only |
//! | held out | failed too often |
//! | suspect | does not answer now, or answers EIO where others do not |
//!
//! **Standing before group.** A good path of a lesser group goes before a demoted one of the best:
//! the configured order says what is better among paths that work as they should. Returning
//! from that is for [`crate::failback`], which is given the paths of the best standing only and so
//! leaves at once and returns by policy.
//!
//! Refused paths (other data, no connection, taken out by an operator) have no standing.

/// How far a path may be used; the better one is the greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Standing {
    /// It does not answer at the moment.
    Suspect,
    /// It failed too often lately.
    HeldOut,
    /// It came back and has not answered its canaries yet.
    Proving,
    /// Slow or marginal.
    Demoted,
    /// Nothing is held against it.
    Good,
}

impl Standing {
    /// All, from worst to best.
    pub const ALL: [Self; 5] = [Self::Suspect, Self::HeldOut, Self::Proving, Self::Demoted, Self::Good];

    /// Name for status and `explain`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Suspect => "suspect",
            Self::HeldOut => "held out",
            Self::Proving => "proving",
            Self::Demoted => "demoted",
            Self::Good => "good",
        }
    }
}

/// What the rules say of one connected and identified path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Held {
    /// All its lanes are suspect ([`crate::silence`], [`crate::hedge`], a late canary), or it alone answers EIO
    /// ([`crate::faults::PathAction::Canaries`]).
    pub suspect: bool,
    /// [`crate::FailureLimit::holds_out`], asked as if it were not the last.
    pub held_out: bool,
    /// [`crate::Probation::share_ppm`] is 0.
    pub proving: bool,
    /// [`crate::SlowPaths::is_demoted`].
    pub slow: bool,
    /// [`crate::Marginal::is_marginal`].
    pub marginal: bool,
}

/// The standing that follows: the worst that applies.
pub const fn standing(held: Held) -> Standing {
    if held.suspect {
        Standing::Suspect
    } else if held.held_out {
        Standing::HeldOut
    } else if held.proving {
        Standing::Proving
    } else if held.slow || held.marginal {
        Standing::Demoted
    } else {
        Standing::Good
    }
}

/// The standing whose paths are used now; `None` when no path has one.
pub fn in_use(standings: impl IntoIterator<Item = Standing>) -> Option<Standing> {
    standings.into_iter().max()
}
