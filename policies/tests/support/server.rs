// SPDX-License-Identifier: MIT OR Apache-2.0
//! A model of a storage server at the end of a path: how long it takes, in simulated time.

use super::Draws;

/// How one path serves requests.
pub(crate) struct Server {
    /// Time to serve one request, plus or minus a quarter.
    pub(crate) service_ns: u64,
    /// Added to every answer (a delay filter).
    pub(crate) delay_ns: u64,
    /// Takes requests and never answers them.
    pub(crate) silent: bool,
    /// When each worker is free; empty = as many as needed.
    workers: Vec<u64>,
}

impl Server {
    /// Serves everything at once: a long wire to a large array.
    pub(crate) fn unlimited(service_ns: u64) -> Self {
        Self::with_workers(0, service_ns)
    }

    /// Serves `workers` requests at a time, the others wait.
    pub(crate) fn with_workers(workers: usize, service_ns: u64) -> Self {
        Self { service_ns, delay_ns: 0, silent: false, workers: vec![0; workers] }
    }

    /// When a request that arrives now is answered; `None` = never.
    pub(crate) fn answer_at(&mut self, now: u64, draws: &mut Draws) -> Option<u64> {
        if self.silent {
            return None;
        }
        let service_ns = self.service_ns * 3 / 4 + draws.below(self.service_ns / 2 + 1);
        let done = match self.workers.iter_mut().min() {
            None => now + service_ns,
            Some(free_at) => {
                *free_at = now.max(*free_at) + service_ns;
                *free_at
            }
        };
        Some(done + self.delay_ns)
    }
}
