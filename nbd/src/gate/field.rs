// SPDX-License-Identifier: MIT OR Apache-2.0
//! Fields of the gate's texts: one way to write each value, so one way to read it.

use alloc::string::String;
use core::fmt::Write;

/// Decimal, no sign, no leading zero but in `0` itself.
pub(super) fn parse_number(text: &str) -> Option<u64> {
    let canonical = text.bytes().all(|c| c.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if canonical { text.parse().ok() } else { None }
}

/// Exactly `2 * N` lower-case hexadecimal digits.
pub(super) fn parse_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |c: u8| match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    };
    if text.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

/// 128 bits as 32 digits.
pub(super) fn parse_id(text: &str) -> Option<u128> {
    parse_hex::<16>(text).map(u128::from_be_bytes)
}

/// The inverse of [`parse_hex`].
pub(super) fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Takes `;KEY=value` from the front of `rest`; the value ends at the next `;`.
pub(super) fn take<'a>(rest: &mut &'a str, key: &str) -> Option<&'a str> {
    let after = rest.strip_prefix(';')?.strip_prefix(key)?.strip_prefix('=')?;
    let (value, rest_after) = after.split_at(after.find(';').unwrap_or(after.len()));
    *rest = rest_after;
    Some(value)
}
