// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reports on their way to the control plane.
//!
//! A reactor must not wait for whoever listens, so reports go to a bounded queue that a
//! thread of its own empties into the callback. When the listener is too slow the oldest
//! reports are dropped; how many is told with the next one. What is recorded for the next process (that writes are lost,
//! that a device left nothing in doubt) has a queue of its own and is never dropped: there are few of these.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{JoinHandle, Thread};

use crossbeam::queue::{ArrayQueue, SegQueue};
use program::{Report, ReportKind};

use crate::limits::REPORTS_MAX;

/// Receives reports, on a thread of its own.
pub type ReportSink = Box<dyn Fn(Report) + Send + Sync>;

struct Shared {
    queue: ArrayQueue<Report>,
    kept: SegQueue<Report>,
    dropped: AtomicU64,
    stop: AtomicBool,
}

/// The reactors' end.
#[derive(Clone)]
pub(crate) struct Reports {
    shared: Arc<Shared>,
    thread: Thread,
}

impl Reports {
    /// Starts the thread. It ends after [`Reports::stop`] with the queue empty.
    pub(crate) fn start(sink: ReportSink) -> std::io::Result<(Self, JoinHandle<()>)> {
        let shared = Arc::new(Shared {
            queue: ArrayQueue::new(REPORTS_MAX),
            kept: SegQueue::new(),
            dropped: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        });
        let mine = shared.clone();
        let handle =
            std::thread::Builder::new().name("hf-reports".into()).spawn(move || deliver(&mine, &sink))?;
        Ok((Self { shared, thread: handle.thread().clone() }, handle))
    }

    /// Never blocks.
    pub(crate) fn send(&self, report: Report) {
        // Decisions are many where much happens at once, and `explain` has them too: they
        // push nothing else out.
        let lost = match report.kind {
            ReportKind::Decision(_) => self.shared.queue.push(report).err(),
            ReportKind::Loss(_) | ReportKind::Clean => {
                self.shared.kept.push(report);
                None
            }
            _ => self.shared.queue.force_push(report),
        };
        if lost.is_some() {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
        self.thread.unpark();
    }

    pub(crate) fn stop(&self) {
        self.shared.stop.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

fn deliver(shared: &Shared, sink: &ReportSink) {
    loop {
        // Read before the queue is emptied: what was sent before `stop` is delivered.
        let stop = shared.stop.load(Ordering::Acquire);
        while let Some(report) = shared.kept.pop().or_else(|| shared.queue.pop()) {
            let dropped = shared.dropped.swap(0, Ordering::Relaxed);
            if dropped > 0 {
                sink(loss(&report, dropped));
            }
            sink(report);
        }
        if stop {
            return;
        }
        std::thread::park();
    }
}

fn loss(next: &Report, dropped: u64) -> Report {
    let text = format!("{dropped} reports were dropped because they were not taken in time");
    let kind = ReportKind::Event { name: "reports_dropped", path: None, rule: "-", text };
    Report { at: next.at, device: next.device.clone(), kind }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    fn report(at: u64) -> Report {
        let kind = ReportKind::Event { name: "test", path: None, rule: "-", text: String::new() };
        Report { at, device: "d".into(), kind }
    }

    #[test]
    fn everything_sent_before_the_stop_arrives_in_order() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sink_seen = seen.clone();
        let (reports, thread) =
            Reports::start(Box::new(move |report| sink_seen.lock().unwrap().push(report.at))).unwrap();
        for at in 0..100 {
            reports.send(report(at));
        }
        reports.stop();
        thread.join().unwrap();
        assert!(seen.lock().unwrap().iter().copied().eq(0..100));
    }

    /// F9, W10: what the next process must know outlives any storm.
    #[test]
    fn what_is_recorded_is_never_dropped() {
        let gate = Arc::new(Mutex::new(()));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (sink_gate, sink_seen) = (gate.clone(), seen.clone());
        let held = gate.lock().unwrap();
        let sink = move |report: Report| {
            drop(sink_gate.lock().unwrap());
            sink_seen.lock().unwrap().push(report.kind);
        };
        let (reports, thread) = Reports::start(Box::new(sink)).unwrap();
        let kept = [ReportKind::Loss(Some("it is gone".into())), ReportKind::Loss(None), ReportKind::Clean];
        for kind in kept.clone() {
            reports.send(Report { at: 0, device: "d".into(), kind });
        }
        for at in 0..2 * REPORTS_MAX as u64 {
            reports.send(report(at));
        }
        drop(held);
        reports.stop();
        thread.join().unwrap();
        let seen = seen.lock().unwrap();
        let recorded: Vec<&ReportKind> = seen.iter().filter(|kind| kept.contains(kind)).collect();
        assert!(recorded.into_iter().eq(&kept), "all, and in order");
    }

    #[test]
    fn a_slow_listener_loses_the_oldest_and_is_told() {
        let gate = Arc::new(Mutex::new(()));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (sink_gate, sink_seen) = (gate.clone(), seen.clone());
        let held = gate.lock().unwrap();
        let sink = move |report: Report| {
            drop(sink_gate.lock().unwrap());
            sink_seen.lock().unwrap().push((report.kind != self::report(0).kind, report.at));
        };
        let (reports, thread) = Reports::start(Box::new(sink)).unwrap();
        let sent = REPORTS_MAX as u64 + 100;
        for at in 0..sent {
            reports.send(report(at));
        }
        drop(held);
        reports.stop();
        thread.join().unwrap();
        let seen = seen.lock().unwrap();
        assert_eq!(seen.last(), Some(&(false, sent - 1)), "the newest is kept");
        assert!(seen.iter().any(|(is_loss, _)| *is_loss), "the loss is told");
    }
}
