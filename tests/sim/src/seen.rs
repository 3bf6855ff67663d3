// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a device did over time, for scenarios: answers by window, path and session, and what was reported.
//!
//! Counted while hosts ask. It draws nothing and nothing hangs on it, so a seed's run is the same without it.

use program::{MILLISECOND, Nanos, PathState};

/// Answers are counted in windows of this length, from time 0.
pub const WINDOW: Nanos = 100 * MILLISECOND;

/// See the module header.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Host requests answered, by window.
    pub windows: Vec<u32>,
    /// Good answers that carried something of a host, by link and window; a copy counts like any other.
    pub paths: Vec<Vec<u32>>,
    /// Host requests answered, by session.
    pub sessions: Vec<u64>,
    /// Host requests answered with an error.
    pub errors: u64,
    /// States of links as they were reported.
    pub states: Vec<(Nanos, usize, PathState)>,
    /// Events as they were reported.
    pub events: Vec<(Nanos, &'static str)>,
}

impl Seen {
    /// Nothing yet.
    pub fn new(links: usize, sessions: usize) -> Self {
        Self { paths: vec![Vec::new(); links], sessions: vec![0; sessions], ..Self::default() }
    }

    /// A host was answered.
    pub fn answered(&mut self, now: Nanos, session: u16, good: bool) {
        count(&mut self.windows, now);
        self.sessions[usize::from(session)] += 1;
        self.errors += u64::from(!good);
    }

    /// A path answered something of a host.
    pub fn carried(&mut self, now: Nanos, link: usize) {
        count(&mut self.paths[link], now);
    }

    /// Answers in `from..to`, whose windows are looked at as a whole.
    pub fn answers(&self, from: Nanos, to: Nanos) -> u64 {
        sum(&self.windows, from, to)
    }

    /// The same over one link.
    pub fn answers_over(&self, link: usize, from: Nanos, to: Nanos) -> u64 {
        sum(&self.paths[link], from, to)
    }

    /// Answers over some links in each window of `from..to`.
    pub fn each_window(&self, links: std::ops::Range<usize>, from: Nanos, to: Nanos) -> Vec<u64> {
        (from / WINDOW..to / WINDOW)
            .map(|window| self.paths[links.clone()].iter().map(|path| at(path, window)).sum())
            .collect()
    }

    /// The first window at or after `from` in which a link answered something of a host.
    pub fn first_over(&self, link: usize, from: Nanos) -> Option<Nanos> {
        let windows = from / WINDOW..self.paths[link].len() as u64;
        windows.into_iter().find(|&window| at(&self.paths[link], window) > 0).map(|window| window * WINDOW)
    }
}

fn count(windows: &mut Vec<u32>, now: Nanos) {
    let window = (now / WINDOW) as usize;
    if windows.len() <= window {
        windows.resize(window + 1, 0);
    }
    windows[window] += 1;
}

fn at(windows: &[u32], window: u64) -> u64 {
    windows.get(window as usize).copied().unwrap_or(0).into()
}

fn sum(windows: &[u32], from: Nanos, to: Nanos) -> u64 {
    (from / WINDOW..to / WINDOW).map(|window| at(windows, window)).sum()
}
