// SPDX-License-Identifier: MIT OR Apache-2.0
//! What one volume holds: stable storage and the volatile caches in front of it.
//!
//! A sector holds one number: [`ZERO`], [`INITIAL`], or the number of the write
//! that put it there. A cache holds *dirty* sectors only: what it lost in a crash
//! is what was written through it and neither flushed nor written back.
//!
//! | caches | a read sees | write-back |
//! |---|---|---|
//! | coherent (one cache, or several that tell each other) | the newest of all | never over something newer |
//! | incoherent (W18) | its own dirty sector, else the stable one | whatever it has, over anything |

use crate::rng::Rng;

/// Content of a sector.
pub type Value = u32;
/// Reads as zeroes.
pub const ZERO: Value = 0;
/// What a volume that is not blank holds before the first write.
pub const INITIAL: Value = 1;

#[derive(Clone, Debug)]
struct Cache {
    values: Vec<Value>,
    /// When it was written; 0 is clean.
    orders: Vec<u64>,
    /// It came from a write that may have been let go without proof (W13).
    ghosts: Vec<bool>,
    dirty: Vec<u32>,
}

/// See the module header.
#[derive(Clone, Debug)]
pub struct Medium {
    stable: Vec<Value>,
    stable_orders: Vec<u64>,
    caches: Vec<Cache>,
    order: u64,
    coherent: bool,
}

impl Medium {
    /// `sectors` of `initial` behind `caches` caches.
    pub fn new(sectors: usize, initial: Value, caches: usize, coherent: bool) -> Self {
        let cache = Cache {
            values: vec![ZERO; sectors],
            orders: vec![0; sectors],
            ghosts: vec![false; sectors],
            dirty: Vec::new(),
        };
        Self {
            stable: vec![initial; sectors],
            stable_orders: vec![0; sectors],
            caches: vec![cache; caches],
            order: 0,
            coherent,
        }
    }

    /// Writes through a cache; `None` and `durable` go to the stable storage at once.
    pub fn write(&mut self, cache: Option<usize>, sector: usize, value: Value, durable: bool) {
        self.order += 1;
        let Some(entry) = cache.map(|cache| &mut self.caches[cache]) else {
            self.stable[sector] = value;
            self.stable_orders[sector] = self.order;
            return;
        };
        if entry.orders[sector] == 0 && !durable {
            entry.dirty.push(sector as u32);
        }
        if durable {
            if entry.orders[sector] != 0 {
                entry.orders[sector] = 0;
                entry.dirty.retain(|&dirty| dirty as usize != sector);
            }
            self.stable[sector] = value;
            self.stable_orders[sector] = self.order;
        } else {
            entry.values[sector] = value;
            entry.orders[sector] = self.order;
            entry.ghosts[sector] = false;
        }
    }

    /// What was just written there came from a write that may have been let go without proof.
    pub fn haunt(&mut self, cache: usize, sector: usize) {
        self.caches[cache].ghosts[sector] = true;
    }

    /// What a server behind this cache reads.
    pub fn read(&self, cache: Option<usize>, sector: usize) -> Value {
        if !self.coherent {
            return match cache.map(|cache| &self.caches[cache]) {
                Some(cache) if cache.orders[sector] != 0 => cache.values[sector],
                _ => self.stable[sector],
            };
        }
        let mut newest = (self.stable_orders[sector], self.stable[sector]);
        for cache in &self.caches {
            if cache.orders[sector] > newest.0 {
                newest = (cache.orders[sector], cache.values[sector]);
            }
        }
        newest.1
    }

    /// What each server reads.
    pub fn views(&self, sector: usize) -> impl Iterator<Item = Value> {
        let caches = self.caches.len();
        (0..caches.max(1)).map(move |cache| self.read((caches > 0).then_some(cache), sector))
    }

    /// What is safe from every crash.
    pub fn stable(&self, sector: usize) -> Value {
        self.stable[sector]
    }

    /// FLUSH of one cache. Gives the sectors where content that [`Self::haunt`] names came out over something newer.
    pub fn flush(&mut self, cache: usize) -> Vec<(usize, Value)> {
        let dirty = std::mem::take(&mut self.caches[cache].dirty);
        dirty.into_iter().filter_map(|sector| self.write_back(cache, sector as usize)).collect()
    }

    /// One dirty sector of one cache becomes stable. Gives the same.
    pub fn write_back_one(&mut self, cache: usize, rng: &mut Rng) -> Option<(usize, Value)> {
        let dirty = &mut self.caches[cache].dirty;
        if dirty.is_empty() {
            return None;
        }
        let at = rng.below(dirty.len() as u64) as usize;
        let sector = dirty.swap_remove(at);
        self.write_back(cache, sector as usize)
    }

    /// The cache loses what it had not written; how many sectors that were.
    pub fn lose(&mut self, cache: usize) -> usize {
        let cache = &mut self.caches[cache];
        let lost = cache.dirty.len();
        for sector in cache.dirty.drain(..) {
            cache.orders[sector as usize] = 0;
        }
        lost
    }

    /// One dirty sector is dropped.
    pub fn drop_one(&mut self, cache: usize, sector: usize) {
        let cache = &mut self.caches[cache];
        cache.dirty.retain(|&dirty| dirty as usize != sector);
        cache.orders[sector] = 0;
    }

    /// Sectors a cache would lose now.
    pub fn dirty(&self, cache: usize) -> &[u32] {
        &self.caches[cache].dirty
    }

    fn write_back(&mut self, cache: usize, sector: usize) -> Option<(usize, Value)> {
        let entry = &mut self.caches[cache];
        let order = std::mem::take(&mut entry.orders[sector]);
        let value = entry.values[sector];
        let over_newer = order < self.stable_orders[sector];
        if !self.coherent || !over_newer {
            self.stable[sector] = value;
            self.stable_orders[sector] = order;
        }
        (!self.coherent && over_newer && entry.ghosts[sector]).then_some((sector, value))
    }
}
