// SPDX-License-Identifier: MIT OR Apache-2.0
//! A storage server that is there for two seconds and gone for one.

use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::rig::SERVER_A;
use crate::peers::{self, Listener, PeerError};

const UP: Duration = Duration::from_secs(2);
const DOWN: Duration = Duration::from_secs(1);

/// A running flapper; its server ends with it.
pub(super) struct Flapper {
    stop: Sender<()>,
    thread: JoinHandle<Result<u32, PeerError>>,
}

impl Flapper {
    /// Takes over a server that is up; `words` start it again.
    pub(super) fn start(server: Listener, dir: &Path, words: Vec<String>) -> Self {
        let (stop, stopped) = mpsc::channel();
        let dir = dir.to_owned();
        let thread = thread::spawn(move || {
            let is_over = |after| stopped.recv_timeout(after) != Err(RecvTimeoutError::Timeout);
            let (port, mut server) = (server.port, Some(server));
            let mut deaths = 0;
            while !is_over(UP) {
                drop(server.take());
                deaths += 1;
                if is_over(DOWN) {
                    break;
                }
                server = Some(peers::nbdkit_at(port, SERVER_A, &dir, &words)?);
            }
            Ok(deaths)
        });
        Self { stop, thread }
    }

    /// Ends it; how often its server has died.
    pub(super) fn end(self) -> Result<u32, PeerError> {
        // Nobody listens any more if it has failed.
        let _ = self.stop.send(());
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}
