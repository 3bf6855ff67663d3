// SPDX-License-Identifier: MIT OR Apache-2.0
//! A table with stable small keys and no allocation once it has grown.
//!
//! Keys are plain indices without a generation: whoever stores a key is counted
//! by the entry (a piece counts its copies, a request its pieces), so a key can
//! not outlive its entry. Looking up a free key is a bug and stops the process.

use alloc::vec::Vec;

/// Index of an entry.
pub(crate) type Key = u32;

/// See the module header.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    entries: Vec<Option<T>>,
    free: Vec<Key>,
}

impl<T> Slab<T> {
    pub(crate) const fn new() -> Self {
        Self { entries: Vec::new(), free: Vec::new() }
    }

    pub(crate) fn insert(&mut self, value: T) -> Key {
        if let Some(key) = self.free.pop() {
            self.entries[key as usize] = Some(value);
            return key;
        }
        self.entries.push(Some(value));
        // Grow the free list with the table, so that `remove` never allocates.
        self.free.reserve(self.entries.len() - self.free.len());
        (self.entries.len() - 1) as Key
    }

    pub(crate) fn remove(&mut self, key: Key) -> T {
        let Some(value) = self.entries[key as usize].take() else { panic!("removed a free entry {key}") };
        self.free.push(key);
        value
    }

    pub(crate) fn get(&self, key: Key) -> &T {
        let Some(value) = self.entries[key as usize].as_ref() else { panic!("looked up a free entry {key}") };
        value
    }

    pub(crate) fn get_mut(&mut self, key: Key) -> &mut T {
        let Some(value) = self.entries[key as usize].as_mut() else { panic!("looked up a free entry {key}") };
        value
    }

    /// Whether the key names an entry now.
    pub(crate) fn contains(&self, key: Key) -> bool {
        self.entries.get(key as usize).is_some_and(Option::is_some)
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        self.entries
            .iter()
            .enumerate()
            .filter_map(|(key, entry)| entry.as_ref().map(|value| (key as Key, value)))
    }

    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.entries.iter_mut().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::Slab;

    #[test]
    fn keys_are_reused_and_entries_stay_put() {
        let mut slab = Slab::new();
        let a = slab.insert('a');
        let b = slab.insert('b');
        assert_eq!(slab.remove(a), 'a');
        let c = slab.insert('c');
        assert_eq!((c, *slab.get(b), slab.len()), (a, 'b', 2));
    }

    #[test]
    #[should_panic(expected = "free entry")]
    fn a_free_key_is_a_bug() {
        let mut slab = Slab::new();
        let a = slab.insert(1);
        slab.remove(a);
        slab.get(a);
    }
}
