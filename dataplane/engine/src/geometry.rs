// SPDX-License-Identifier: MIT OR Apache-2.0
//! What hosts are told of the device, and whether a server fits it (design 3.3; rule F11).
//!
//! The first accepted path fixes size, block sizes and whether the device can be
//! written and flushed. What a later path lacks is emulated where it can be (FUA
//! by write and FLUSH, WRITE_ZEROES by writes, TRIM and CACHE by nothing) and
//! else is a reason to turn the path away: hosts hold on to what they were told.

use alloc::format;
use alloc::string::String;

use nbd::TransmissionFlags as Flags;
use program::{Geometry, ReportKind};

use crate::dispatch::PIECE_BYTES_MAX;
use crate::engine::Engine;
use crate::{Action, Offer};

impl Engine {
    /// Whether this server can stand behind the device; else why not.
    pub(crate) fn judge_offer(&self, path: usize, offer: &Offer) -> Result<(), String> {
        if offer.size_bytes == 0 {
            return Err(String::from("the export has size 0"));
        }
        if let Some(size) = self.program.size_bytes.filter(|&size| size > offer.size_bytes) {
            return Err(format!(
                "the export has {} bytes, `size` in the configuration asks for {size}",
                offer.size_bytes
            ));
        }
        let Some(geometry) = self.geometry else { return Ok(()) };
        if offer.size_bytes < geometry.size_bytes {
            return Err(format!(
                "the export has {} bytes, the device {}: hosts were told the larger size",
                offer.size_bytes, geometry.size_bytes
            ));
        }
        if offer.min_block_bytes > geometry.min_block_bytes {
            return Err(format!(
                "it takes blocks of at least {} bytes, hosts were told {}",
                offer.min_block_bytes, geometry.min_block_bytes
            ));
        }
        let told = Flags(geometry.transmission_flags);
        let read_only = offer.flags.contains(Flags::READ_ONLY) || self.paths[path].program.read_only;
        if told.contains(Flags::SEND_FLUSH) && !offer.flags.contains(Flags::SEND_FLUSH) && !read_only {
            return Err(String::from("it has no FLUSH, which the device offers and nothing can emulate"));
        }
        Ok(())
    }

    /// The first accepted path tells what the device is.
    pub(crate) fn learn_geometry(&mut self, path: usize, offer: &Offer) {
        let geometry = match self.geometry {
            Some(geometry) => geometry,
            None => self.geometry_from(path, offer),
        };
        if self.geometry != Some(geometry) {
            self.geometry = Some(geometry);
            self.act(Action::Offer(geometry));
            self.act(Action::Report(ReportKind::Geometry(geometry)));
        }
        self.identity.spread(geometry.size_bytes);
        if offer.size_bytes > geometry.size_bytes && !self.paths[path].steering.answers() {
            let text = format!(
                "the export has {} bytes, the device is served at {}",
                offer.size_bytes, geometry.size_bytes
            );
            self.event("path_larger", Some(path), "3.3", text);
        }
    }

    fn geometry_from(&self, path: usize, offer: &Offer) -> Geometry {
        let read_only = offer.flags.contains(Flags::READ_ONLY)
            || self.paths.iter().all(|path| path.program.read_only)
            || self.paths[path].program.read_only && self.paths.len() == 1;
        let mut flags =
            Flags::HAS_FLAGS.with(Flags::CAN_MULTI_CONN).with(Flags::SEND_DF).with(Flags::SEND_CACHE);
        if read_only {
            flags = flags.with(Flags::READ_ONLY);
        }
        let flush = offer.flags.contains(Flags::SEND_FLUSH);
        if flush {
            flags = flags.with(Flags::SEND_FLUSH);
        }
        if flush || offer.flags.contains(Flags::SEND_FUA) {
            flags = flags.with(Flags::SEND_FUA);
        }
        if !read_only {
            flags = flags.with(Flags::SEND_TRIM).with(Flags::SEND_WRITE_ZEROES).with(Flags::SEND_FAST_ZERO);
        }
        if offer.flags.contains(Flags::ROTATIONAL) {
            flags = flags.with(Flags::ROTATIONAL);
        }
        Geometry {
            size_bytes: self.program.size_bytes.unwrap_or(offer.size_bytes),
            transmission_flags: flags.0,
            min_block_bytes: offer.min_block_bytes.max(1),
            preferred_block_bytes: offer.preferred_block_bytes.max(4096).max(offer.min_block_bytes),
            max_payload_bytes: PIECE_BYTES_MAX as u32,
        }
    }
}
