// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a gate says to a claim it took, as the description of the export that GO opened.
//!
//! ```text
//! x-holdfast:admitted;e=EPOCH;s=SESSION;k=0|1[;mac=HEX]
//! ```

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::Identity;
use super::field::{hex, parse_hex, parse_id, parse_number, take};

const PREFIX: &str = "x-holdfast:admitted";

/// Separates the MACs of admissions from every other use of the key.
const MAC_DOMAIN: &[u8] = b"holdfast gate admission 1\0";

/// A claim was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Admission {
    /// The epoch it was taken with.
    pub epoch: u64,
    /// The session that claimed.
    pub session: u128,
    /// The session that `kill` named is finished.
    pub killed: bool,
}

impl Admission {
    /// What the MAC of an admission covers.
    pub fn mac_input(&self, identity: &Identity) -> Vec<u8> {
        identity.mac_input(MAC_DOMAIN, &self.to_text(None))
    }

    /// The description to send.
    pub fn to_text(&self, mac: Option<&[u8; 32]>) -> String {
        let Self { epoch, session, killed } = self;
        let text = format!("{PREFIX};e={epoch};s={session:032x};k={}", u8::from(*killed));
        match mac {
            Some(mac) => format!("{text};mac={}", hex(mac)),
            None => text,
        }
    }

    /// Reads a description; `None` when it tells no admission.
    pub fn parse(text: &str) -> Option<(Self, Option<[u8; 32]>)> {
        let mut rest = text.strip_prefix(PREFIX)?;
        let epoch = take(&mut rest, "e").and_then(parse_number)?;
        let session = take(&mut rest, "s").and_then(parse_id)?;
        let killed = match take(&mut rest, "k")? {
            "0" => false,
            "1" => true,
            _ => return None,
        };
        let mac = match take(&mut rest, "mac") {
            None => None,
            Some(mac) => Some(parse_hex(mac)?),
        };
        rest.is_empty().then_some((Self { epoch, session, killed }, mac))
    }
}
