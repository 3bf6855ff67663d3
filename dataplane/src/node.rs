// SPDX-License-Identifier: MIT OR Apache-2.0
//! What all reactors of a node share. Nothing here is touched on the path of a request.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use crate::directory::Directory;
use crate::limits::TURNED_AWAY_MAX;
use crate::mailbox::{Mail, Mailbox};
use crate::reports::Reports;

/// See the module header.
pub(crate) struct Node {
    pub(crate) directory: Directory,
    pub(crate) mailboxes: Vec<Arc<Mailbox>>,
    pub(crate) reports: Reports,
    sessions: Arc<AtomicU32>,
    turned_away: Arc<AtomicU32>,
    /// Reactors whose public devices have not finished (see `reactor::stop`).
    public_open: AtomicUsize,
}

impl Node {
    pub(crate) fn new(directory: Directory, mailboxes: Vec<Arc<Mailbox>>, reports: Reports) -> Self {
        let public_open = AtomicUsize::new(mailboxes.len());
        Self {
            directory,
            mailboxes,
            reports,
            sessions: Arc::default(),
            turned_away: Arc::default(),
            public_open,
        }
    }

    /// A reactor's public devices have finished. `true`: it was the last.
    pub(crate) fn public_is_through(&self) -> bool {
        self.public_open.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// Counts one more host connection, unless there are `max` already.
    pub(crate) fn admit(&self, max: u32) -> Option<SessionTicket> {
        SessionTicket::take(&self.sessions, max)
    }

    /// Counts one more host connection that is only told that there are too many.
    pub(crate) fn turn_away(&self) -> Option<SessionTicket> {
        SessionTicket::take(&self.turned_away, TURNED_AWAY_MAX)
    }

    /// Tells the reactor that holds the handshakes.
    pub(crate) fn directory_changed(&self) {
        self.mailboxes[0].send(Mail::Directory);
    }
}

/// One host connection in the count; given back when dropped, on whatever reactor.
pub(crate) struct SessionTicket(Arc<AtomicU32>);

impl SessionTicket {
    fn take(count: &Arc<AtomicU32>, max: u32) -> Option<Self> {
        let taken =
            count.fetch_update(Ordering::AcqRel, Ordering::Acquire, |now| (now < max).then_some(now + 1));
        taken.is_ok().then(|| Self(count.clone()))
    }
}

impl Drop for SessionTicket {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cap_holds_and_is_given_back() {
        let (reports, thread) = Reports::start(Box::new(|_| {})).unwrap();
        let node = Node::new(Directory::default(), Vec::new(), reports);
        let first = node.admit(2).unwrap();
        let _second = node.admit(2).unwrap();
        assert!(node.admit(2).is_none());
        drop(first);
        assert!(node.admit(2).is_some());
        node.reports.stop();
        thread.join().unwrap();
    }
}
