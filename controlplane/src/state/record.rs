// SPDX-License-Identifier: MIT OR Apache-2.0
//! The record of one device: versioned JSON with a checksum.
//!
//! ```json
//! {"format":1,"crc32c":"1b2c3d4e","record":{"device":"vol0","geometry":{...},"samples":[["0","9f..."]]}}
//! ```
//!
//! The checksum covers the exact text of `record`, so it can be verified before
//! anything in it is believed. Digests are hexadecimal text because JSON readers
//! other than ours lose integers above 2^53.
//!
//! Formats, each with its reason:
//!
//! | format | reason |
//! |---|---|
//! | 1 | first one |
//!
//! A later format keeps a reader for every earlier one; `tests/golden` has a
//! file of each.

use program::{Geometry, Recorded};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::crc32c::checksum;

/// The format that is written.
const FORMAT: u32 = 1;

/// Why a text is no usable record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unusable {
    /// Torn, changed or not ours.
    Damaged(String),
    /// Written by a later version.
    Newer(u32),
}

impl std::fmt::Display for Unusable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Damaged(why) => write!(f, "it is damaged: {why}"),
            Self::Newer(format) => write!(f, "it has format {format}, this version reads up to {FORMAT}"),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Envelope<'a> {
    format: u32,
    crc32c: String,
    #[serde(borrow)]
    record: &'a RawValue,
}

/// `geometry` and `samples` as format 1 has them.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RecordV1 {
    device: String,
    geometry: GeometryV1,
    /// Byte offset and hexadecimal digest.
    samples: Vec<(u64, String)>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct GeometryV1 {
    size_bytes: u64,
    transmission_flags: u16,
    min_block_bytes: u32,
    preferred_block_bytes: u32,
    max_payload_bytes: u32,
}

/// The text of a device's record.
pub(crate) fn encode(device: &str, recorded: &Recorded) -> Result<String, serde_json::Error> {
    let Geometry {
        size_bytes,
        transmission_flags,
        min_block_bytes,
        preferred_block_bytes,
        max_payload_bytes,
    } = recorded.geometry;
    let record = serde_json::value::to_raw_value(&RecordV1 {
        device: device.to_owned(),
        geometry: GeometryV1 {
            size_bytes,
            transmission_flags,
            min_block_bytes,
            preferred_block_bytes,
            max_payload_bytes,
        },
        samples: recorded
            .samples
            .iter()
            .map(|(offset, digest)| (*offset, format!("{digest:032x}")))
            .collect(),
    })?;
    let crc32c = format!("{:08x}", checksum(record.get().as_bytes()));
    let mut text = serde_json::to_string(&Envelope { format: FORMAT, crc32c, record: &record })?;
    text.push('\n');
    Ok(text)
}

/// The record of `device` in `text`.
pub(crate) fn decode(device: &str, text: &str) -> Result<Recorded, Unusable> {
    let damaged = |error: serde_json::Error| Unusable::Damaged(error.to_string());
    let format = serde_json::from_str::<FormatOnly>(text).map_err(damaged)?.format;
    if format > FORMAT {
        return Err(Unusable::Newer(format));
    }
    if format == 0 {
        return Err(Unusable::Damaged("there is no format 0".to_owned()));
    }
    let envelope: Envelope<'_> = serde_json::from_str(text).map_err(damaged)?;
    let found = format!("{:08x}", checksum(envelope.record.get().as_bytes()));
    if found != envelope.crc32c {
        return Err(Unusable::Damaged(format!("its checksum is {found}, it says {}", envelope.crc32c)));
    }
    let record: RecordV1 = serde_json::from_str(envelope.record.get()).map_err(damaged)?;
    if record.device != device {
        return Err(Unusable::Damaged("it belongs to another device".to_owned()));
    }
    let sample = |(offset, digest): &(u64, String)| Some((*offset, u128::from_str_radix(digest, 16).ok()?));
    let samples: Option<Vec<_>> = record.samples.iter().map(sample).collect();
    let samples = samples.ok_or_else(|| Unusable::Damaged("a digest is not hexadecimal".to_owned()))?;
    let recorded = Recorded { geometry: record.geometry.into(), samples };
    check(&recorded.geometry).map_err(Unusable::Damaged)?;
    Ok(recorded)
}

/// Read on its own, so that a later format may change everything else.
#[derive(Deserialize)]
struct FormatOnly {
    format: u32,
}

impl From<GeometryV1> for Geometry {
    fn from(v1: GeometryV1) -> Self {
        Self {
            size_bytes: v1.size_bytes,
            transmission_flags: v1.transmission_flags,
            min_block_bytes: v1.min_block_bytes,
            preferred_block_bytes: v1.preferred_block_bytes,
            max_payload_bytes: v1.max_payload_bytes,
        }
    }
}

/// What the data plane may rely on without looking again.
fn check(geometry: &Geometry) -> Result<(), String> {
    let powers =
        geometry.min_block_bytes.is_power_of_two() && geometry.preferred_block_bytes.is_power_of_two();
    let ordered = geometry.min_block_bytes <= geometry.preferred_block_bytes
        && geometry.preferred_block_bytes <= geometry.max_payload_bytes;
    if !powers || !ordered {
        return Err("its block sizes make no sense".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded() -> Recorded {
        Recorded {
            geometry: Geometry {
                size_bytes: 1 << 30,
                transmission_flags: 0x0565,
                min_block_bytes: 1,
                preferred_block_bytes: 4096,
                max_payload_bytes: 32 << 20,
            },
            samples: vec![(0, 7), (1 << 29, u128::MAX)],
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let text = encode("vol0", &recorded()).expect("encodes");
        assert_eq!(decode("vol0", &text), Ok(recorded()));
    }

    #[test]
    fn every_torn_record_is_noticed() {
        let text = encode("vol0", &recorded()).expect("encodes");
        // The last byte is the line's end.
        for len in 0..text.len() - 1 {
            assert!(matches!(decode("vol0", &text[..len]), Err(Unusable::Damaged(_))), "cut at {len}");
        }
    }

    #[test]
    fn every_changed_byte_of_the_record_is_noticed() {
        let text = encode("vol0", &recorded()).expect("encodes");
        let start = text.find("{\"device\"").expect("a record");
        for at in start..text.len() - 2 {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1;
            let changed = String::from_utf8_lossy(&bytes);
            assert!(decode("vol0", &changed).is_err(), "byte {at} changed: {changed}");
        }
    }

    #[test]
    fn another_device_a_later_format_and_nonsense_are_told_apart() {
        let text = encode("vol0", &recorded()).expect("encodes");
        assert!(
            matches!(decode("vol1", &text), Err(Unusable::Damaged(why)) if why.contains("another device"))
        );
        assert_eq!(decode("vol0", "{\"format\":2,\"payload\":{}}"), Err(Unusable::Newer(2)));
        assert!(matches!(decode("vol0", "[]"), Err(Unusable::Damaged(_))));
        let zero = text.replace("\"format\":1", "\"format\":0");
        assert!(matches!(decode("vol0", &zero), Err(Unusable::Damaged(_))));
        let mut wrong = recorded();
        wrong.geometry.min_block_bytes = 3;
        let text = encode("vol0", &wrong).expect("encodes");
        assert!(matches!(decode("vol0", &text), Err(Unusable::Damaged(why)) if why.contains("block sizes")));
    }
}
