// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a gate tells of itself, as the name of a metadata context of its own namespace.
//!
//! ```text
//! x-holdfast:gate;v=1;u=VOLUME;n=NONCE;c=CHALLENGE;g=GENERATION;e=EPOCH;w=one|many;a=key|local[;h=HOLDER]
//! ```
//!
//! Fields that a later version adds stand behind these and are skipped; another `v` is another grammar.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use super::claim::is_valid_member;
use super::field::{parse_id, parse_number, take};
use crate::export::is_valid_name;

/// Query of LIST_META_CONTEXT that a gate answers with its identity.
pub const IDENTITY_QUERY: &str = "x-holdfast:";

/// Metadata context of every export of a Holdfast that is no gate: it may hold a request for long and is well (rule W19).
pub const NODE_CONTEXT: &str = "x-holdfast:node";

const PREFIX: &str = "x-holdfast:gate";
const VERSION: u64 = 1;

/// Who may write the volume at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RegisterWriters {
    /// One member: a higher epoch ends every session of a lower one.
    One,
    /// Several: each member has a floor of its own and nothing else.
    Many,
}

/// What a claim needs to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Authentication {
    /// A MAC with the gate's key.
    Key,
    /// The gate has no key and takes claims from its own host only.
    Local,
}

/// See the module header.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// UUID of the volume, from its epoch register.
    pub volume: u128,
    /// Drawn when the first gate process of the volume starts; those that run beside it tell the same.
    pub nonce: u128,
    /// Drawn for this connection.
    pub challenge: u128,
    /// Changes whenever unflushed data may have been lost.
    pub cache_generation: u64,
    /// Highest epoch the register holds; 0 while nobody has claimed.
    pub epoch: u64,
    /// Who may write.
    pub writers: RegisterWriters,
    /// What a claim needs.
    pub authentication: Authentication,
    /// Whose epoch it is, where that is one member's and known.
    pub holder: Option<String>,
}

/// Why a context name tells no identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdentityError {
    /// Some other context.
    NotAGate,
    /// A gate of a version we do not know.
    Version,
    /// A field is missing, malformed or out of order.
    Malformed,
}

impl fmt::Display for IdentityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAGate => "not a gate",
            Self::Version => "a gate of a version this program does not know",
            Self::Malformed => "a gate whose identity is malformed",
        })
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let writers = match self.writers {
            RegisterWriters::One => "one",
            RegisterWriters::Many => "many",
        };
        let authentication = match self.authentication {
            Authentication::Key => "key",
            Authentication::Local => "local",
        };
        let Self { volume, nonce, challenge, cache_generation, epoch, .. } = self;
        write!(f, "{PREFIX};v={VERSION};u={volume:032x};n={nonce:032x};c={challenge:032x}")?;
        write!(f, ";g={cache_generation};e={epoch};w={writers};a={authentication}")?;
        match &self.holder {
            Some(holder) => write!(f, ";h={holder}"),
            None => Ok(()),
        }
    }
}

impl Identity {
    /// Reads the name of a metadata context.
    ///
    /// # Errors
    ///
    /// When it is another context, another version, or malformed.
    pub fn parse(context: &str) -> Result<Self, IdentityError> {
        let mut rest = context.strip_prefix(PREFIX).ok_or(IdentityError::NotAGate)?;
        if !rest.starts_with(';') || !is_valid_name(context) {
            return Err(IdentityError::NotAGate);
        }
        let version = take(&mut rest, "v").and_then(parse_number).ok_or(IdentityError::Malformed)?;
        if version != VERSION {
            return Err(IdentityError::Version);
        }
        Self::parse_fields(&mut rest).ok_or(IdentityError::Malformed)
    }

    fn parse_fields(rest: &mut &str) -> Option<Self> {
        let volume = take(rest, "u").and_then(parse_id)?;
        let nonce = take(rest, "n").and_then(parse_id)?;
        let challenge = take(rest, "c").and_then(parse_id)?;
        let cache_generation = take(rest, "g").and_then(parse_number)?;
        let epoch = take(rest, "e").and_then(parse_number)?;
        let writers = match take(rest, "w")? {
            "one" => RegisterWriters::One,
            "many" => RegisterWriters::Many,
            _ => return None,
        };
        let authentication = match take(rest, "a")? {
            "key" => Authentication::Key,
            "local" => Authentication::Local,
            _ => return None,
        };
        let holder = match take(rest, "h") {
            None => None,
            Some(holder) if is_valid_member(holder) => Some(holder.into()),
            Some(_) => return None,
        };
        if !rest.is_empty() && !rest.starts_with(';') {
            return None;
        }
        Some(Self { volume, nonce, challenge, cache_generation, epoch, writers, authentication, holder })
    }

    /// Fixed-length fields in front, the text last: no two inputs have the same bytes.
    pub(super) fn mac_input(&self, domain: &[u8], text: &str) -> Vec<u8> {
        let mut input = Vec::with_capacity(domain.len() + 48 + text.len());
        input.extend_from_slice(domain);
        for word in [self.volume, self.nonce, self.challenge] {
            input.extend_from_slice(&word.to_be_bytes());
        }
        input.extend_from_slice(text.as_bytes());
        input
    }
}
