// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a client claims at a gate, in the export name it opens.
//!
//! ```text
//! VOL;e=EPOCH;m=MEMBER;s=SESSION[;kill=SESSION][;fence=MEMBER:EPOCH][;mac=HEX]
//! ```
//!
//! EPOCH is decimal and at least 1, SESSION 32 and HEX 64 lower-case hexadecimal digits. VOL ends at the last
//! `;e=`: no field behind it can contain one, so a volume's own name may contain anything.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use super::Identity;
use super::field::{hex, parse_hex, parse_id, parse_number, take};
use crate::export::is_valid_name;

/// Longest name of a member, in bytes.
pub const MEMBER_MAX_BYTES: usize = 64;

/// Separates the MACs of claims from every other use of the key.
const MAC_DOMAIN: &[u8] = b"holdfast gate claim 1\0";

/// One claim, without its MAC.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Claim {
    /// Export name of the volume.
    pub volume: String,
    /// Fencing token of the member's program, at least 1.
    pub epoch: u64,
    /// Who claims; see [`is_valid_member`].
    pub member: String,
    /// Names this connection for ever; drawn at random, not 0.
    pub session: u128,
    /// An earlier session of the same member that the gate is to finish before it answers.
    pub kill: Option<u128>,
    /// A member and the epoch below which nothing of it is to be admitted any more.
    pub fence: Option<(String, u64)>,
}

/// A claim as it came: with its MAC, if it has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedClaim {
    /// What is claimed.
    pub claim: Claim,
    /// HMAC-SHA256 over [`Claim::mac_input`].
    pub mac: Option<[u8; 32]>,
}

/// Why an export name with `;e=` in it is no claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimError {
    /// Nothing in it looks like a claim: a plain export name.
    Plain,
    /// This field is missing, malformed or not in its place.
    Field(&'static str),
    /// Something follows the last field.
    Trailing,
    /// `kill` names the session that claims.
    KillsItself,
}

impl fmt::Display for ClaimError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain => f.write_str("no claim"),
            Self::Field(name) => write!(f, "malformed claim: field '{name}'"),
            Self::Trailing => f.write_str("malformed claim: an unknown field or one out of order"),
            Self::KillsItself => f.write_str("malformed claim: it kills its own session"),
        }
    }
}

/// Member names go into claims and registers: 1 to [`MEMBER_MAX_BYTES`] of `A-Z a-z 0-9 . _ -`.
pub fn is_valid_member(name: &str) -> bool {
    let lawful = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-');
    (1..=MEMBER_MAX_BYTES).contains(&name.len()) && name.bytes().all(lawful)
}

impl Claim {
    /// What the MAC of a claim covers: the text, and which gate was asked on which connection.
    pub fn mac_input(&self, identity: &Identity) -> Vec<u8> {
        identity.mac_input(MAC_DOMAIN, &self.to_name(None))
    }

    /// The export name to open. May be longer than a name can be where the volume's name is very long: see
    /// [`is_valid_name`].
    pub fn to_name(&self, mac: Option<&[u8; 32]>) -> String {
        use fmt::Write;
        let Self { volume, epoch, member, session, kill, fence } = self;
        let mut name = String::new();
        // Writing to a String cannot fail.
        let _ = write!(name, "{volume};e={epoch};m={member};s={session:032x}");
        if let Some(kill) = kill {
            let _ = write!(name, ";kill={kill:032x}");
        }
        if let Some((member, epoch)) = fence {
            let _ = write!(name, ";fence={member}:{epoch}");
        }
        if let Some(mac) = mac {
            let _ = write!(name, ";mac={}", hex(mac));
        }
        name
    }
}

impl SignedClaim {
    /// Reads an export name.
    ///
    /// # Errors
    ///
    /// [`ClaimError::Plain`] for an ordinary name; anything else for a claim that is malformed, which must not
    /// be served as an ordinary name.
    pub fn parse(name: &str) -> Result<Self, ClaimError> {
        let at = name.rfind(";e=").ok_or(ClaimError::Plain)?;
        let (volume, mut rest) = name.split_at(at);
        if !is_valid_name(name) || volume.is_empty() {
            return Err(ClaimError::Field("volume"));
        }
        let rest = &mut rest;
        let epoch = take(rest, "e").and_then(parse_epoch).ok_or(ClaimError::Field("e"))?;
        let member = take(rest, "m").filter(|name| is_valid_member(name)).ok_or(ClaimError::Field("m"))?;
        let session = take(rest, "s").and_then(parse_session).ok_or(ClaimError::Field("s"))?;
        let kill = optional(rest, "kill", parse_session)?;
        let fence = optional(rest, "fence", parse_fence)?;
        let mac = optional(rest, "mac", parse_hex)?;
        if !rest.is_empty() {
            return Err(ClaimError::Trailing);
        }
        if kill == Some(session) {
            return Err(ClaimError::KillsItself);
        }
        let claim = Claim { volume: volume.into(), epoch, member: member.into(), session, kill, fence };
        Ok(Self { claim, mac })
    }
}

fn parse_epoch(text: &str) -> Option<u64> {
    parse_number(text).filter(|epoch| *epoch > 0)
}

fn parse_session(text: &str) -> Option<u128> {
    parse_id(text).filter(|session| *session != 0)
}

fn parse_fence(text: &str) -> Option<(String, u64)> {
    let (member, epoch) = text.split_once(':')?;
    is_valid_member(member).then_some(())?;
    Some((member.into(), parse_epoch(epoch)?))
}

/// A field that may be absent, but not malformed.
fn optional<T>(
    rest: &mut &str,
    key: &'static str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<Option<T>, ClaimError> {
    match take(rest, key) {
        None => Ok(None),
        Some(text) => parse(text).map(Some).ok_or(ClaimError::Field(key)),
    }
}
