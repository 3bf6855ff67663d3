// SPDX-License-Identifier: MIT OR Apache-2.0
//! A history whose old end cannot be flushed stays small all the same (rule F5).
//!
//! The log is cut at its old end. While FLUSH fails there, or its cache is away, it would grow with every
//! write, also with those that are durable and only cover what is older. So once it has used up its room and has
//! doubled it is looked through, and an entry leaves that says nothing any more:
//!
//! | entry | leaves when |
//! |---|---|
//! | any | everything newer together covers it |
//! | stable, or without content | nothing older that is not stable is under it |
//!
//! Neither changes what a replay would write, for that goes from the newest to the oldest and takes what is not
//! covered yet. What is left is bounded by the retained bytes and the cuts in them.

use alloc::collections::VecDeque;

use crate::covered::Covered;
use crate::engine::Engine;
use crate::retain::Entry;

/// A log shorter than this is left alone.
pub(crate) const COMPACT_MIN: usize = 1024;

impl Engine {
    /// Called after each push; costs nothing until there is no room and the log has doubled. A log that a
    /// FLUSH cuts now and then never comes here.
    pub(crate) fn compact_log(&mut self) {
        if !self.retention_is_full()
            || self.retention.log.len() < self.retention.compact_at
            || !self.rules.f5_one_history
        {
            return;
        }
        self.drop_covered();
        self.drop_covering_nothing();
        self.retention.compact_at = (2 * self.retention.log.len()).max(COMPACT_MIN);
    }

    fn drop_covered(&mut self) {
        let mut newer = Covered::default();
        let mut kept = VecDeque::with_capacity(self.retention.log.len());
        while let Some(entry) = self.retention.log.pop_back() {
            let mut shows = false;
            newer.add(entry.start, entry.end, |_, _| shows = true);
            if shows {
                kept.push_front(entry);
            } else {
                self.forget_entry(entry);
            }
        }
        self.retention.log = kept;
    }

    fn drop_covering_nothing(&mut self) {
        let mut open = Covered::default();
        let mut kept = VecDeque::with_capacity(self.retention.log.len());
        while let Some(entry) = self.retention.log.pop_front() {
            let Entry { start, end, .. } = entry;
            if !self.is_stable(&entry) {
                open.add(start, end, |_, _| {});
            } else if !open.touches(start, end) {
                self.forget_entry(entry);
                continue;
            }
            kept.push_back(entry);
        }
        self.retention.log = kept;
    }
}
