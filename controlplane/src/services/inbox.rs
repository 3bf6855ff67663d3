// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where reports of the data plane wait for the control plane.
//!
//! Reactor threads push and never wait for anybody: the lock is held for one
//! push. A plain bounded channel would either block a reactor or lose a report
//! when a flapping path floods it, and a lost `Geometry` would be missing at
//! the next start. So events are a ring (the oldest is dropped and counted) and
//! what must be recorded is kept apart, the latest of each device.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use program::{Geometry, Report, ReportKind};
use tokio::sync::Notify;

use crate::limits::REPORTS_WAITING_MAX;

/// The data plane's end: clone it into the report callback.
#[derive(Clone, Debug)]
pub struct ReportSink {
    shared: Arc<Shared>,
}

/// The control plane's end.
#[derive(Debug)]
pub struct Inbox {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Batch>,
    arrived: Notify,
}

/// What came since the last look.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) reports: VecDeque<Report>,
    /// Reports that were dropped because nobody took them in time.
    pub(crate) dropped: u64,
    /// What is to be recorded, by device.
    pub(crate) records: BTreeMap<String, Update>,
}

/// Why acknowledged writes are lost; `None`: an operator has taken note.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Loss(pub(crate) Option<String>);

/// What is to be recorded of a device; `None` leaves the earlier value.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Update {
    pub(crate) geometry: Option<Geometry>,
    pub(crate) samples: Option<Vec<(u64, u128)>>,
    /// It has finished, and nothing it sent is in doubt.
    pub(crate) clean: bool,
    /// Acknowledged writes are lost, and why; or an operator has taken note.
    pub(crate) loss: Option<Loss>,
}

/// A connected pair.
pub fn reports() -> (ReportSink, Inbox) {
    let shared = Arc::new(Shared::default());
    (ReportSink { shared: Arc::clone(&shared) }, Inbox { shared })
}

impl ReportSink {
    /// Leaves a report; never waits for the control plane.
    pub fn push(&self, report: Report) {
        let mut batch = lock(&self.shared);
        match &report.kind {
            ReportKind::Geometry(geometry) => {
                batch.records.entry(report.device.clone()).or_default().geometry = Some(*geometry);
            }
            ReportKind::Samples(samples) => {
                batch.records.entry(report.device.clone()).or_default().samples = Some(samples.clone());
            }
            ReportKind::Clean => batch.records.entry(report.device.clone()).or_default().clean = true,
            ReportKind::Loss(loss) => {
                batch.records.entry(report.device.clone()).or_default().loss = Some(Loss(loss.clone()));
            }
            ReportKind::PathState { .. } | ReportKind::Event { .. } | ReportKind::Decision(_) => {}
        }
        if batch.reports.len() == REPORTS_WAITING_MAX {
            batch.reports.pop_front();
            batch.dropped += 1;
        }
        batch.reports.push_back(report);
        drop(batch);
        self.shared.arrived.notify_one();
    }
}

impl Inbox {
    /// Takes what is there, if anything.
    pub(crate) fn take_now(&self) -> Batch {
        std::mem::take(&mut *lock(&self.shared))
    }

    /// Waits for reports and takes them all.
    pub(crate) async fn take(&self) -> Batch {
        loop {
            let batch = self.take_now();
            if !batch.reports.is_empty() {
                return batch;
            }
            self.shared.arrived.notified().await;
        }
    }
}

fn lock(shared: &Shared) -> MutexGuard<'_, Batch> {
    // A batch is whole after every statement, so a panic elsewhere spoils nothing.
    shared.waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(n: u64) -> Report {
        let kind = ReportKind::Event { name: "e", path: None, rule: "W1", text: String::new() };
        Report { at: n, device: "vol0".to_owned(), kind }
    }

    #[test]
    fn a_flood_drops_the_oldest_events_and_no_record() {
        let (sink, inbox) = reports();
        sink.push(Report { at: 0, device: "vol0".to_owned(), kind: ReportKind::Samples(vec![(0, 1)]) });
        for n in 1..=REPORTS_WAITING_MAX as u64 + 5 {
            sink.push(event(n));
        }
        let batch = std::mem::take(&mut *lock(&inbox.shared));
        assert_eq!((batch.reports.len(), batch.dropped), (REPORTS_WAITING_MAX, 6));
        assert_eq!(batch.reports[0].at, 6);
        assert_eq!(batch.records["vol0"].samples, Some(vec![(0, 1)]));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_push_from_another_thread_wakes_the_taker() {
        let (sink, inbox) = reports();
        let pusher = std::thread::spawn(move || sink.push(event(7)));
        assert_eq!(inbox.take().await.reports[0].at, 7);
        pusher.join().expect("pushed");
    }
}
