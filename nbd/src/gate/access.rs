// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a server says of the way to it, as the name of a metadata context of our own namespace.
//!
//! ```text
//! x-holdfast:access;s=WORD
//! ```
//!
//! The words are the caller's. One it does not know says nothing, and so does whatever a later version puts
//! behind it.

use alloc::format;
use alloc::string::String;

const PREFIX: &str = "x-holdfast:access;s=";

/// The context that says `word`, which is made of letters, digits and hyphens.
pub fn access_context(word: &str) -> String {
    debug_assert!(word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'), "{word}");
    format!("{PREFIX}{word}")
}

/// The word that a context says; `None` for another one.
pub fn access_word(context: &str) -> Option<&str> {
    let word = context.strip_prefix(PREFIX)?;
    Some(word.split_once(';').map_or(word, |(word, _)| word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_understood() {
        for word in ["optimized", "non-optimized", "standby"] {
            assert_eq!(access_word(&access_context(word)), Some(word));
        }
        assert_eq!(access_word("x-holdfast:access;s=standby;later=1"), Some("standby"));
        for other in
            ["x-holdfast:access", "x-holdfast:node", "base:allocation", "x-holdfast:access;t=standby", ""]
        {
            assert_eq!(access_word(other), None, "{other}");
        }
    }
}
