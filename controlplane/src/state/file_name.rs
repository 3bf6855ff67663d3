// SPDX-License-Identifier: MIT OR Apache-2.0
//! File names for export names.
//!
//! Export names are any text up to 4096 bytes, file names are not. Short names
//! stay readable with everything but letters, digits, `-` and `_` written as
//! `%XX`; long ones are cut and told apart by a checksum of the whole. The
//! record holds the full name, and a record with another name is not used, so
//! two names that collide cost a record and never mix up volumes.

use std::fmt::Write as _;

use super::crc32c::checksum;

/// Room for the longest suffix under the 255 bytes of a file name.
const ENCODED_BYTES_MAX: usize = 180;

/// The file name of a device's record.
pub(crate) fn of_device(name: &str) -> String {
    let mut out = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_' {
            out.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    if out.len() > ENCODED_BYTES_MAX {
        out.truncate(ENCODED_BYTES_MAX);
        let _ = write!(out, "~{:08x}{:04x}", checksum(name.as_bytes()), name.len());
    }
    out.push_str(".json");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_safe_and_readable() {
        assert_eq!(of_device("vol0"), "vol0.json");
        assert_eq!(of_device("../a b"), "%2E%2E%2Fa%20b.json");
        assert_eq!(of_device("\u{e9}"), "%C3%A9.json");
        // Encoding is one to one: the sign itself is encoded.
        assert_ne!(of_device("%2E"), of_device("."));
    }

    #[test]
    fn long_names_fit_and_differ() {
        let (a, b) = (of_device(&"x".repeat(4096)), of_device(&format!("{}y", "x".repeat(4095))));
        assert!(a.len() <= 255 - ".tmp".len() && a != b);
        assert!(of_device(&"\u{1F600}".repeat(1000)).len() <= 250);
    }
}
