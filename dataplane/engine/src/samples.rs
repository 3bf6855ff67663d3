// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is known of the device's content, by which its paths are known again (design 3.8).
//!
//! Known samples are digests of non-uniform blocks. A host write to a sample
//! makes it unknown until it is read again, which happens only while no write is
//! unflushed: a sample must not promise what a server's crash may undo.

use alloc::vec::Vec;

use nbd::Errno;
use program::{DeviceProgram, Nanos, ReportKind, SECOND};

use crate::engine::Engine;
use crate::lane::Use;
use crate::{Action, Digest};

/// Bytes compared at one place.
pub(crate) const BLOCK: u64 = 4096;
/// Places spread over the device.
const SAMPLES: u64 = 8;
/// Recent host writes remembered.
const RECENT: usize = 4;
/// A sample that a write made unknown is read again after this long.
const RESAMPLE: Nanos = 10 * SECOND;

/// One place whose content is known.
#[derive(Debug)]
pub(crate) struct Sample {
    pub(crate) offset: u64,
    pub(crate) digest: Option<u128>,
    /// Host writes to it so far.
    writes: u32,
    /// Read and found uniform: proves nothing, not asked again until written.
    pub(crate) uniform: bool,
}

/// What is known of the device's content.
#[derive(Debug)]
pub(crate) struct Identity {
    /// Declared by the operator: nothing is compared.
    pub(crate) declared: bool,
    /// What the gate of a path that was accepted calls the volume.
    pub(crate) volume: Option<u128>,
    pub(crate) samples: Vec<Sample>,
    pub(crate) recent: [Option<u64>; RECENT],
    recent_at: usize,
    /// Counts host writes, to notice new ones.
    pub(crate) writes: u64,
    /// A sample read is on its way.
    pub(crate) sampling: bool,
    pub(crate) next_sampling: Nanos,
    /// Samples were read since they were reported.
    pub(crate) unreported: bool,
}

impl Identity {
    pub(crate) fn new(program: &DeviceProgram) -> Self {
        let recorded = program.recorded.as_ref().map_or(&[][..], |recorded| &recorded.samples);
        let known = |&(offset, digest): &(u64, u128)| Sample {
            offset,
            digest: Some(digest),
            writes: 0,
            uniform: false,
        };
        Self {
            declared: program.identity.is_some(),
            volume: None,
            samples: recorded.iter().map(known).collect(),
            recent: [None; RECENT],
            recent_at: 0,
            writes: 0,
            sampling: false,
            next_sampling: 0,
            unreported: false,
        }
    }

    /// Adds the standard places once the size is known.
    pub(crate) fn spread(&mut self, size_bytes: u64) {
        if size_bytes < BLOCK {
            return;
        }
        for n in 0..SAMPLES {
            let offset = (size_bytes - BLOCK) / (SAMPLES - 1) * n / BLOCK * BLOCK;
            if self.samples.iter().all(|sample| sample.offset != offset) {
                self.samples.push(Sample { offset, digest: None, writes: 0, uniform: false });
            }
        }
    }
}

impl Engine {
    /// A host write is about to start: samples there are unknown from now on.
    pub(crate) fn note_write(&mut self, offset: u64, len: u64) {
        self.forget_samples(offset, offset + len);
        let identity = &mut self.identity;
        identity.writes += 1;
        let size = self.geometry.map_or(0, |geometry| geometry.size_bytes);
        let block = (offset / BLOCK * BLOCK).min(size.saturating_sub(BLOCK) / BLOCK * BLOCK);
        if size >= BLOCK && !identity.recent.contains(&Some(block)) {
            identity.recent[identity.recent_at] = Some(block);
            identity.recent_at = (identity.recent_at + 1) % RECENT;
        }
    }

    /// Told before the write is sent: a record that still has the block would turn the storage away after a crash
    /// of ours.
    fn forget_samples(&mut self, start: u64, end: u64) {
        let mut known = false;
        for sample in &mut self.identity.samples {
            if sample.offset < end && start < sample.offset + BLOCK {
                known |= sample.digest.take().is_some();
                sample.writes = sample.writes.wrapping_add(1);
                sample.uniform = false;
            }
        }
        if known {
            self.tell_samples();
        }
    }

    pub(crate) fn sample_tick(&mut self) {
        self.report_samples();
        if self.identity.declared || self.identity.sampling || self.now < self.identity.next_sampling {
            return;
        }
        self.identity.next_sampling = self.now + RESAMPLE;
        self.next_sample(0);
    }

    /// The first path is accepted: what the volume holds is read at once, not at the next turn of the clock.
    pub(crate) fn sample_soon(&mut self) {
        let unread = |sample: &Sample| sample.digest.is_none() && !sample.uniform;
        if self.identity.samples.iter().all(unread) {
            self.identity.next_sampling = self.now;
        }
    }

    /// Reads the next sample that is unknown, if nothing is unflushed and nothing of a process before may still land.
    fn next_sample(&mut self, from: usize) {
        let flushed = self.domains.iter().all(|domain| domain.acked == domain.flushed && !domain.inherited);
        let clean = flushed && self.recovering.is_none();
        let size = self.geometry.map_or(0, |geometry| geometry.size_bytes);
        let wanted =
            |sample: &Sample| sample.digest.is_none() && !sample.uniform && sample.offset + BLOCK <= size;
        let found = self.identity.samples.iter().enumerate().skip(from).find(|(_, sample)| wanted(sample));
        let (true, Some((index, sample))) = (clean, found) else { return };
        let (offset, writes) = (sample.offset, sample.writes);
        let lane = self.active.members.iter().find_map(|&path| self.lane_of(path));
        let Some(lane) = lane.filter(|_| !self.ranges.touches(offset, offset + BLOCK)) else { return };
        self.identity.sampling = true;
        self.internal_read(lane, Use::Sample { index, writes }, offset, BLOCK);
    }

    pub(crate) fn sample_reply(
        &mut self,
        index: usize,
        writes: u32,
        result: Result<(), Errno>,
        digest: Option<Digest>,
    ) {
        self.identity.sampling = false;
        let (Ok(()), Some(digest)) = (result, digest) else { return };
        let sample = &mut self.identity.samples[index];
        if sample.writes == writes {
            sample.uniform = digest.uniform;
            if !digest.uniform {
                sample.digest = Some(digest.value);
                self.identity.unreported = true;
            }
        }
        self.next_sample(index + 1);
    }

    fn report_samples(&mut self) {
        if !self.identity.sampling && self.identity.unreported {
            self.tell_samples();
        }
    }

    fn tell_samples(&mut self) {
        self.identity.unreported = false;
        let known = |sample: &Sample| sample.digest.map(|digest| (sample.offset, digest));
        let samples = self.identity.samples.iter().filter_map(known).collect();
        self.act(Action::Report(ReportKind::Samples(samples)));
    }
}
