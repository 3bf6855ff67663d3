// SPDX-License-Identifier: MIT OR Apache-2.0
//! Is it the same device? (design 3.8)
//!
//! NBD identifies nothing, so content is compared: the same blocks are read
//! through an accepted path (the reference) and the candidate, under the range
//! lock, so that no host write falls between the two reads. Blocks are the known
//! samples, spread over the device, and the first blocks of recent host writes.
//!
//! | reference | samples | verdict |
//! |---|---|---|
//! | live | one differs | refused |
//! | live | all equal, one not uniform | accepted |
//! | live | all equal and uniform (blank), proven before in this run | accepted |
//! | live | none differs (blank, or none could be compared), its gate names the volume of an accepted path | accepted |
//! | live | all equal and uniform (blank) | unproven until a written block reads back equal |
//! | none, samples known | one equal | accepted |
//! | none, samples known | none equal | refused |
//! | none, nothing known | no path was ever accepted, or this one was | accepted |
//! | none, nothing known | its gate names the volume of an accepted path | accepted |
//! | none, nothing known | another path was accepted before | unproven |
//!
//! A volume's name is in its gate's register, which lies beside the volume: the name alone does not outweigh a block that
//! differs.
//!
//! A live path whose reads of every block fail is no reference: then the rows below hold.
//!
//! A declared `id`, and a device whose only path is local, need no proof.
//!
//! Known samples: `samples`.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use nbd::{Command, CommandFlags, Errno};
use program::{Nanos, SECOND};

use crate::engine::Engine;
use crate::lane::{Lane, LaneState, Use};
use crate::ranges::Holder;
use crate::samples::BLOCK;
use crate::slab::Key;
use crate::{Action, Close, Digest, LaneId, SendData};

/// An unproven lane is compared again this long after it was, once a host has written.
const LOOK_AT_WRITE: Nanos = 50 * program::MILLISECOND;
/// The same without a write, if places had to be left out.
const LOOK_AGAIN: Nanos = SECOND;
/// A place that is not compared by then ends the check: its range is locked, and
/// a host's write must not wait for a path that does not answer. Only a candidate
/// that was asked and did not answer is closed for it; if the reference is late, or
/// a host's request holds the range, the check starts anew on the same connection
/// (a reference that hangs is suspect soon and then no reference any more).
pub(crate) const VERIFY_TIMEOUT: Nanos = SECOND;

/// A check under way on one lane.
#[derive(Debug)]
pub(crate) struct Verify {
    places: Vec<u64>,
    /// Some were left out: look again without waiting for a write.
    skipped: bool,
    /// So many the reference could not read.
    unreadable: usize,
    /// A reference was there, also if it could not be read.
    accompanied: bool,
    at: usize,
    round: u32,
    lock: Option<Key>,
    /// The lock is held and the reads are out.
    reading: bool,
    /// Compared with a live path; else with known samples.
    live: bool,
    candidate: Option<Digest>,
    reference: Option<Digest>,
    equal: u32,
    proof: bool,
    differs: Option<u64>,
    pub(crate) started: Nanos,
    /// Host writes seen when it ended unproven.
    writes_seen: u64,
}

impl Verify {
    /// Blocks that read equal, and where one that differs begins.
    pub(crate) fn figures(&self) -> (u32, Option<u64>) {
        (self.equal, self.differs)
    }
}

impl Engine {
    pub(crate) fn begin_verify(&mut self, slot: u16) {
        let only_local = self.paths.len() == 1 && self.lane_at(slot).offer().local;
        if self.identity.declared || only_local || !self.rules.identity {
            self.lane_accepted(slot);
            return;
        }
        let size = self.lane_at(slot).offer().size_bytes;
        self.identity.spread(self.geometry.map_or(size, |geometry| geometry.size_bytes));
        self.verify_against(slot, self.reference_for(slot).is_some());
    }

    /// Begins to compare with an accepted path (`live`), or with what is known.
    fn verify_against(&mut self, slot: u16, live: bool) {
        let (places, skipped) = self.places(live);
        let round = self.lane_at(slot).verify.as_ref().map_or(0, |verify| verify.round) + 1;
        let writes_seen = self.identity.writes;
        let started = self.now;
        let accompanied = self.reference_for(slot).is_some();
        let lane = self.lane_at_mut(slot);
        lane.state = LaneState::Verifying;
        lane.verify = Some(Verify {
            places,
            skipped,
            unreadable: 0,
            accompanied,
            at: 0,
            round,
            lock: None,
            reading: false,
            live,
            candidate: None,
            reference: None,
            equal: 0,
            proof: false,
            differs: None,
            started,
            writes_seen,
        });
        self.next_place(slot);
    }

    /// Where to compare, and whether some places had to be left out.
    fn places(&self, live: bool) -> (Vec<u64>, bool) {
        let mut places: Vec<u64> = Vec::new();
        if live {
            places.extend(self.identity.recent.iter().flatten());
        }
        let samples = self.identity.samples.iter().filter(|sample| live || sample.digest.is_some());
        places.extend(samples.map(|sample| sample.offset));
        places.sort_unstable();
        places.dedup();
        // A quarantine may stand for long; the check must not wait for it.
        let all = places.len();
        places.retain(|&place| !self.ranges.is_quarantined(place, place + BLOCK));
        let skipped = places.len() < all;
        (places, skipped)
    }

    /// A lane that is accepted: of another path if there is one, and of one that is well before one
    /// that is not. A path whose disk answers nothing but EIO must not be what the others are judged by.
    fn reference_for(&self, slot: u16) -> Option<u16> {
        let path = self.lane_at(slot).path;
        let fits = |lane: &&Lane| lane.is_trusted() && lane.has_spare() && lane.id.slot != slot;
        let lanes = self.lanes.iter().flatten().filter(fits);
        let worst_last = |lane: &&Lane| (lane.path == path, !self.paths[lane.path].steering.answers());
        lanes.min_by_key(worst_last).map(|lane| lane.id.slot)
    }

    fn verify_of(&mut self, slot: u16) -> &mut Verify {
        let Some(verify) = self.lane_at_mut(slot).verify.as_mut() else {
            panic!("no check is under way on slot {slot}")
        };
        verify
    }

    fn next_place(&mut self, slot: u16) {
        let verify = self.verify_of(slot);
        let Some(&offset) = verify.places.get(verify.at) else {
            self.conclude(slot);
            return;
        };
        verify.candidate = None;
        verify.reference = None;
        verify.reading = false;
        let live = verify.live;
        let now = self.now;
        self.verify_of(slot).started = now;
        if !live && self.ranges.touches(offset, offset + BLOCK) {
            // A write that itself waits for a path holds this range: waiting for it
            // would be waiting for ourselves.
            self.verify_of(slot).at += 1;
            self.next_place(slot);
            return;
        }
        let (lock, held) = self.ranges.acquire(offset, offset + BLOCK, Holder::Verify(slot));
        self.verify_of(slot).lock = Some(lock);
        if held {
            self.verify_granted(slot);
        }
    }

    /// The block is ours for a moment: read it through both.
    pub(crate) fn verify_granted(&mut self, slot: u16) {
        let verify = self.verify_of(slot);
        let (round, live, at) = (verify.round, verify.live, verify.at);
        let offset = verify.places[at];
        let reference = self.reference_for(slot);
        if !self.lane_at(slot).has_spare() {
            // Reads of earlier rounds fill it: it answers none of them.
            self.unlock(slot);
            let path = self.lane_at(slot).path;
            self.paths[path].explain("3.8", String::from("the identity check's reads are not answered"));
            self.decide_unchecked(path);
            self.close(slot, Close::Abort);
            return;
        }
        if live && reference.is_none() {
            self.restart_verify(slot);
            return;
        }
        self.verify_of(slot).reading = true;
        self.read_sample(slot, slot, round, offset, false);
        if let (true, Some(reference)) = (live, reference) {
            self.read_sample(reference, slot, round, offset, true);
        }
    }

    fn read_sample(&mut self, on: u16, of: u16, round: u32, offset: u64, reference: bool) {
        let generation = self.lane_at(of).id.generation;
        self.internal_read(on, Use::Verify { of, generation, round, reference }, offset, BLOCK);
    }

    /// A read of our own; its data is digested.
    pub(crate) fn internal_read(&mut self, on: u16, used: Use, offset: u64, len: u64) {
        let now = self.now;
        let lane = self.lane_at_mut(on);
        let cookie = lane.take(now, used, len, false, 0);
        let lane = lane.id;
        self.next_tick = self.next_tick.min(now + crate::health::TICK);
        self.act(Action::Send {
            lane,
            cookie,
            command: Command::Read,
            flags: CommandFlags::empty(),
            offset,
            len,
            data: SendData::Digest,
        });
    }

    pub(crate) fn verify_reply(
        &mut self,
        of: LaneId,
        round: u32,
        reference: bool,
        result: Result<(), Errno>,
        digest: Option<Digest>,
    ) {
        let Some(verify) = self.lane_if(of).and_then(|lane| lane.verify.as_ref()) else { return };
        if verify.round != round || verify.lock.is_none() {
            return;
        }
        let (Ok(()), Some(digest)) = (result, digest) else {
            self.verify_failed_read(of.slot, reference);
            return;
        };
        let verify = self.verify_of(of.slot);
        if reference {
            verify.reference = Some(digest);
        } else {
            verify.candidate = Some(digest);
        }
        self.compare(of.slot);
    }

    fn verify_failed_read(&mut self, slot: u16, reference: bool) {
        if reference {
            // Inconclusive: this block says nothing now; go on with the next.
            self.verify_of(slot).unreadable += 1;
            self.skip_place(slot);
        } else {
            let path = self.lane_at(slot).path;
            self.paths[path].explain("3.8", String::from("a read for the identity check failed"));
            self.decide_unchecked(path);
            self.close(slot, Close::Abort);
        }
    }

    fn compare(&mut self, slot: u16) {
        let verify = self.verify_of(slot);
        let Some(candidate) = verify.candidate else { return };
        let offset = verify.places[verify.at];
        let (expected, uniform) = if verify.live {
            let Some(reference) = verify.reference else { return };
            (reference.value, reference.uniform)
        } else {
            let known = self.identity.samples.iter().find(|sample| sample.offset == offset);
            let Some(digest) = known.and_then(|sample| sample.digest) else {
                self.step(slot);
                return;
            };
            (digest, false)
        };
        let verify = self.verify_of(slot);
        if candidate.value == expected {
            verify.equal += 1;
            verify.proof |= !uniform;
        } else {
            verify.differs = Some(offset);
        }
        self.step(slot);
    }

    fn step(&mut self, slot: u16) {
        self.unlock(slot);
        self.verify_of(slot).at += 1;
        self.next_place(slot);
    }

    fn skip_place(&mut self, slot: u16) {
        self.verify_of(slot).skipped = true;
        self.verify_of(slot).round += 1;
        self.step(slot);
    }

    fn unlock(&mut self, slot: u16) {
        if let Some(lock) = self.verify_of(slot).lock.take() {
            self.release_range(lock);
        }
    }

    fn conclude(&mut self, slot: u16) {
        let path = self.lane_at(slot).path;
        let verify = self.verify_of(slot);
        let (live, proof, differs, compared) = (verify.live, verify.proof, verify.differs, verify.equal);
        let no_reference = live && verify.unreadable > 0 && verify.unreadable == verify.places.len();
        match (live, proof, differs) {
            (true, _, Some(offset)) => self.refuse(
                slot,
                "3.8",
                format!("identity: it leads to other data, the block at {offset} differs from the accepted path's"),
            ),
            (false, false, Some(offset)) => self.refuse(
                slot,
                "3.8",
                format!("identity: it leads to other data, the block at {offset} differs from the identity record (declare `id`, or remove the record in state_dir, if this is intended)"),
            ),
            (_, true, _) => self.lane_accepted(slot),
            (true, false, None) if no_reference => self.verify_against(slot, false),
            (true, false, None) if compared > 0 && self.paths[path].proven => self.lane_accepted(slot),
            (_, false, None) if self.names_our_volume(slot) => self.lane_accepted(slot),
            (false, false, None) if self.may_start_blind(path) => self.lane_accepted(slot),
            _ => self.unproven(slot, compared),
        }
    }

    /// Nothing is known to compare with: right for the first path ever, and for
    /// one that was proven in this run.
    fn may_start_blind(&self, path: usize) -> bool {
        self.paths[path].proven || self.paths.iter().all(|path| !path.proven)
    }

    fn names_our_volume(&self, slot: u16) -> bool {
        let gate = self.lane_at(slot).offer().gate;
        gate.is_some_and(|gate| self.identity.volume == Some(gate.volume))
    }

    fn unproven(&mut self, slot: u16, compared: u32) {
        let path = self.lane_at(slot).path;
        let writes_seen = self.identity.writes;
        self.verify_of(slot).writes_seen = writes_seen;
        self.lane_at_mut(slot).state = LaneState::Unproven;
        let text = if compared == 0 {
            String::from("no block could be compared with a path that is known to be right; is tried again")
        } else {
            format!(
                "{compared} blocks read equal but hold nothing that tells devices apart (blank volume); waits until a block that a host writes reads back equal, or declare `id`"
            )
        };
        self.paths[path].explain("3.8", text);
        self.decide_unproven(path, compared);
        self.regroup();
    }

    fn restart_verify(&mut self, slot: u16) {
        self.unlock(slot);
        self.begin_verify(slot);
    }

    /// A lane that carried a read of the check is gone.
    pub(crate) fn verify_read_lost(&mut self, of: LaneId, round: u32) {
        let Some(verify) = self.lane_if(of).and_then(|lane| lane.verify.as_ref()) else { return };
        if verify.round == round
            && verify.lock.is_some()
            && self.lane_at(of.slot).state == LaneState::Verifying
        {
            self.restart_verify(of.slot);
        }
    }

    /// The lane that is checked is gone; its lock must not stay.
    pub(crate) fn drop_verify(&mut self, lane: &Lane) {
        if let Some(lock) = lane.verify.as_ref().and_then(|verify| verify.lock) {
            self.release_range(lock);
        }
    }

    /// Timer work: unproven lanes look again, stuck checks restart, samples are read.
    pub(crate) fn verify_tick(&mut self) {
        for slot in 0..self.lanes.len() {
            let Some(lane) = self.lanes[slot].as_ref() else { continue };
            let Some(verify) = lane.verify.as_ref() else { continue };
            let slot = slot as u16;
            match lane.state {
                LaneState::Unproven => {
                    let again = self.look_again(slot, verify).is_some_and(|due| due <= self.now);
                    if again && lane.has_spare() {
                        self.begin_verify(slot);
                    }
                }
                LaneState::Verifying if verify.started + VERIFY_TIMEOUT <= self.now && !verify.reading => {
                    // A write holds this place and gets no further: that may take as long as
                    // the hold, and this lane may be what it waits for.
                    self.skip_place(slot);
                }
                LaneState::Verifying if verify.started + VERIFY_TIMEOUT <= self.now => {
                    if verify.candidate.is_some() {
                        // It answered; what hangs is the reference.
                        self.restart_verify(slot);
                        continue;
                    }
                    let path = lane.path;
                    self.paths[path].explain("3.8", String::from("the identity check did not end in time"));
                    self.decide_unchecked(path);
                    self.close(slot, Close::Abort);
                }
                _ => {}
            }
        }
        self.sample_tick();
    }

    /// When an unproven lane is compared again, if anything may have changed: with another path while
    /// there is one, and once more without when the last one has gone.
    fn look_again(&self, slot: u16, verify: &Verify) -> Option<Nanos> {
        let live = self.reference_for(slot).is_some();
        let written = verify.writes_seen != self.identity.writes;
        let pace = if written && live { LOOK_AT_WRITE } else { LOOK_AGAIN };
        let inconclusive = verify.skipped || !verify.live;
        let changed = verify.accompanied != live || (live && (written || inconclusive));
        changed.then_some(verify.started + pace)
    }

    /// When `verify_tick` has something to do next.
    pub(crate) fn next_verify(&self) -> Option<Nanos> {
        let unknown = !self.identity.declared
            && self.identity.samples.iter().any(|sample| sample.digest.is_none() && !sample.uniform);
        let sampling = (unknown || self.identity.unreported).then_some(self.identity.next_sampling);
        let timeouts = self
            .lanes
            .iter()
            .flatten()
            .filter(|lane| lane.state == LaneState::Verifying)
            .filter_map(|lane| lane.verify.as_ref())
            .map(|verify| verify.started + VERIFY_TIMEOUT);
        let unproven = self
            .lanes
            .iter()
            .flatten()
            .filter(|lane| lane.state == LaneState::Unproven && lane.has_spare())
            .filter_map(|lane| self.look_again(lane.id.slot, lane.verify.as_ref()?));
        timeouts.chain(unproven).chain(sampling).min()
    }
}
