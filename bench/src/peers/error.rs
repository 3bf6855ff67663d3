// SPDX-License-Identifier: MIT OR Apache-2.0
//! A measurement could not be made.

use std::fmt;

use crate::load::LoadError;

/// What went wrong, in words, with what the program concerned said last. Nothing decides by it, so there is one kind.
#[derive(Debug)]
pub struct PeerError(String);

impl PeerError {
    /// With these words.
    pub fn new(words: String) -> Self {
        Self(words)
    }
}

impl fmt::Display for PeerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for PeerError {}

impl From<LoadError> for PeerError {
    fn from(error: LoadError) -> Self {
        Self(error.to_string())
    }
}
