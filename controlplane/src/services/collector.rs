// SPDX-License-Identifier: MIT OR Apache-2.0
//! Takes reports from the inbox: each becomes an event, some become records.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::events::Event;
use super::inbox::{Batch, Inbox};
use super::node::Node;
use super::recorder::Recorder;
use crate::limits::RECORD_RETRY;
use crate::log::Level;
use crate::state::StateDir;

/// Runs until `stop` fires or is dropped, then takes in what is left.
pub(crate) async fn collect(
    node: Arc<Node>,
    inbox: Inbox,
    state: Option<Arc<StateDir>>,
    mut stop: oneshot::Receiver<()>,
) {
    let recorder = Recorder::new(state, &node.program());
    let mut collector = Collector { node, recorder, failing: false };
    loop {
        let retry = tokio::time::sleep(RECORD_RETRY);
        tokio::select! {
            batch = inbox.take() => collector.take_in(batch).await,
            () = retry, if collector.recorder.is_pending() => collector.write().await,
            _ = &mut stop => break,
        }
    }
    collector.take_in(inbox.take_now()).await;
}

struct Collector {
    node: Arc<Node>,
    recorder: Recorder,
    /// The last write failed and was told.
    failing: bool,
}

impl Collector {
    async fn take_in(&mut self, batch: Batch) {
        let program = self.node.program();
        self.recorder.adopt(&program);
        if batch.dropped > 0 {
            self.node.count_dropped(batch.dropped);
            let text = format!("{} reports came faster than they could be kept", batch.dropped);
            self.node.add_event(Level::Warning, Event::own("reports_dropped", text));
        }
        for report in &batch.reports {
            let (level, event) = Event::of_report(report);
            self.node.add_event(level, event);
        }
        for (device, update) in batch.records {
            self.recorder.note(&device, update);
        }
        self.write().await;
    }

    async fn write(&mut self) {
        let failed = self.recorder.write().await;
        // Told once, not at every try.
        if let Some((device, why)) = failed.first().filter(|_| !self.failing) {
            let text =
                format!("the record of {} device(s) cannot be written: {why}; trying again", failed.len());
            let event = Event { device: Some(device.clone()), ..Event::own("state_not_written", text) };
            self.node.add_event(Level::Error, event);
        }
        self.failing = !failed.is_empty();
    }
}
