// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sizes and durations on the command line: `4k`, `256MiB`, `2.5`.

use std::time::Duration;

/// Bytes from a number with an optional unit; units are powers of 1024 whatever their spelling, as in fio.
///
/// # Errors
///
/// What is allowed instead.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit.to_ascii_lowercase().trim_end_matches('b').trim_end_matches('i') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return Err("allowed: a number and k, m, g or t, as in 4k or 256MiB".to_owned()),
    };
    let number: u64 = number.parse().map_err(|_| "allowed: a number and k, m, g or t".to_owned())?;
    number.checked_mul(1 << shift).ok_or_else(|| "is more than 2^64 bytes".to_owned())
}

/// A block size in bytes: whole sectors of 512 up to 32 MiB.
///
/// # Errors
///
/// What is allowed instead.
pub fn parse_block(text: &str) -> Result<u32, String> {
    let bytes = parse_bytes(text)?;
    let in_range = (512..=u64::from(nbd::limits::PAYLOAD_MAX_BYTES)).contains(&bytes);
    if in_range && bytes.is_multiple_of(512) {
        Ok(bytes as u32)
    } else {
        Err("allowed: a multiple of 512 up to 32m".to_owned())
    }
}

/// Seconds, with a fraction if wanted.
///
/// # Errors
///
/// What is allowed instead.
pub fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "allowed: seconds, as in 3 or 0.5".to_owned())?;
    if (0.001..=86_400.0).contains(&seconds) {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err("allowed: 0.001 to 86400 seconds".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::{parse_block, parse_bytes, parse_seconds};

    #[test]
    fn units_are_binary_in_every_spelling() {
        for text in ["4096", "4k", "4K", "4KiB", "4kb"] {
            assert_eq!(parse_bytes(text), Ok(4096), "{text}");
        }
        assert_eq!(parse_bytes("2g"), Ok(2 << 30));
    }

    #[test]
    fn what_is_out_of_range_is_refused() {
        for text in ["", "k", "4x", "-1", "99999999999999999999", "16777216t"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
        for text in ["0", "100", "1000", "33m"] {
            assert!(parse_block(text).is_err(), "{text}");
        }
        for text in ["0", "-1", "nan", "1d", "1e9"] {
            assert!(parse_seconds(text).is_err(), "{text}");
        }
    }
}
