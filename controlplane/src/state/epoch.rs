// SPDX-License-Identifier: MIT OR Apache-2.0
//! The epoch of the last run, so that the next one claims a higher one at gates (semantics 2.4).
//!
//! One line, `holdfast-epoch 1 EPOCH CRC32C`. A file that is damaged or lost starts at 1 again, which is safe:
//! a gate that knows a higher epoch refuses, and its operator decides.

use super::crc32c::checksum;

pub(super) fn encode(epoch: u64) -> String {
    let text = format!("holdfast-epoch 1 {epoch}");
    format!("{text} {:08x}\n", checksum(text.as_bytes()))
}

/// `None`: damaged, or of another format.
pub(super) fn decode(text: &str) -> Option<u64> {
    let (body, sum) = text.strip_suffix('\n')?.rsplit_once(' ')?;
    let epoch = body.strip_prefix("holdfast-epoch 1 ")?.parse().ok()?;
    (sum == format!("{:08x}", checksum(body.as_bytes()))).then_some(epoch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_written_is_read() {
        for epoch in [1, 7, u64::MAX] {
            let text = encode(epoch);
            assert_eq!(decode(&text), Some(epoch));
            for at in 0..text.len() {
                assert_eq!(decode(&text[..at]), None, "cut at {at}");
                let mut changed = text.clone().into_bytes();
                changed[at] ^= 1;
                assert_eq!(decode(&String::from_utf8_lossy(&changed)), None, "byte {at} changed");
            }
        }
    }
}
