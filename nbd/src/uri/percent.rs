// SPDX-License-Identifier: MIT OR Apache-2.0
//! Percent-encoding (RFC 3986, section 2.1).

use alloc::vec::Vec;
use core::fmt;

use crate::uri::{UriError, UriProblem};

/// Characters that may stand for themselves in a path or a query value. `&` separates parameters, so it
/// counts only in paths.
const PLAIN: &[u8] = b"-._~!$'()*+,;=:@/";

pub(super) const fn error<T>(position: usize, problem: UriProblem) -> Result<T, UriError> {
    Err(UriError { position, problem })
}

/// Decodes `text`, which stands at `base` in the URI.
pub(super) fn decode(text: &str, base: usize) -> Result<Vec<u8>, UriError> {
    let mut decoded = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let position = base + text.len() - rest.len();
        rest = tail;
        match *first {
            b'%' => {
                let pair = rest.split_first_chunk::<2>();
                let byte = pair.and_then(|([high, low], _)| Some(hex(*high)? << 4 | hex(*low)?));
                let (Some((_, tail)), Some(byte)) = (pair, byte) else {
                    return error(position, UriProblem::Percent);
                };
                decoded.push(byte);
                rest = tail;
            }
            b'?' => decoded.push(b'?'),
            c if is_plain(c) || c == b'&' => decoded.push(c),
            _ => return error(position, UriProblem::Character),
        }
    }
    Ok(decoded)
}

fn hex(digit: u8) -> Option<u8> {
    // A hexadecimal digit is below 16.
    (digit as char).to_digit(16).map(|value| value as u8)
}

fn is_plain(c: u8) -> bool {
    c.is_ascii_alphanumeric() || PLAIN.contains(&c)
}

/// Writes bytes so that [`decode`] gives them back.
pub(super) struct Encoded<'a>(pub(super) &'a [u8]);

impl fmt::Display for Encoded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0 {
            if is_plain(*byte) {
                write!(f, "{}", *byte as char)?;
            } else {
                write!(f, "%{byte:02X}")?;
            }
        }
        Ok(())
    }
}
