// SPDX-License-Identifier: MIT OR Apache-2.0
//! Text that comes from a peer, or goes to one: cut to a length and made safe to print.
//!
//! A peer's text lands in logs and in `status`, so control characters (terminal escapes, line breaks) become
//! `?`. A text of ours that repeats a peer's name must never exceed the protocol's 4096 bytes
//! (CVE-2020-10761: an error text about a long name was an assertion failure).

use alloc::string::String;

use crate::limits::PEER_TEXT_MAX_BYTES;

/// The longest prefix of at most `max` bytes that ends at a character.
pub(crate) fn cut(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}

/// A peer's bytes as printable text of at most [`PEER_TEXT_MAX_BYTES`] and a mark where it was cut.
pub(crate) fn printable(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        let lossy = chunk.valid().chars().chain((!chunk.invalid().is_empty()).then_some('?'));
        for c in lossy {
            let c = if c.is_control() { '?' } else { c };
            if text.len() + c.len_utf8() > PEER_TEXT_MAX_BYTES {
                text.push_str("...");
                return text;
            }
            text.push(c);
        }
    }
    text
}
