// SPDX-License-Identifier: MIT OR Apache-2.0
//! The control plane's thread: starts the services and keeps them running.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use program::Program;
use tokio::sync::{mpsc, oneshot};

use crate::api::{self, ApiListeners};
use crate::config::Config;
use crate::plane::DataPlane;
use crate::services::{ConfigFile, Inbox, Node, NodeParts, collect};
use crate::state::StateDir;

/// What a control plane is started with.
pub struct Startup {
    /// The configuration in force.
    pub config: Config,
    /// The program made from it, as handed to the data plane.
    pub program: Arc<Program>,
    /// The file it can be reloaded from.
    pub file: Option<ConfigFile>,
    /// The state directory, held as long as the control plane runs.
    pub state: StateDir,
    /// Whether devices are recorded in it.
    pub record: bool,
    /// Reports of the data plane.
    pub inbox: Inbox,
    /// The data plane.
    pub data_plane: Arc<dyn DataPlane>,
    /// Sockets of the API.
    pub listeners: ApiListeners,
}

/// A running control plane.
#[derive(Debug)]
pub struct ControlPlane {
    orders: mpsc::Sender<Order>,
    thread: JoinHandle<()>,
}

#[derive(Debug)]
enum Order {
    Reload,
    Stop,
}

impl ControlPlane {
    /// Starts the services and the API on a thread of their own.
    ///
    /// # Errors
    ///
    /// The system's, if the thread or its event loop cannot be made.
    pub fn start(startup: Startup) -> io::Result<Self> {
        let (orders, received) = mpsc::channel(8);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .max_blocking_threads(4)
            .build()?;
        let thread = std::thread::Builder::new().name("control".to_owned()).spawn(move || {
            if let Err(error) = runtime.block_on(run(startup, received)) {
                crate::log::error("the API cannot be served", &[("error", &error.to_string())]);
            }
            // A helper thread that is stuck in the data plane must not delay the end.
            runtime.shutdown_background();
        })?;
        Ok(Self { orders, thread })
    }

    /// Reads the configuration file again; the outcome is logged.
    pub fn reload(&self) {
        // A full queue means that reloads wait already.
        let _ = self.orders.try_send(Order::Reload);
    }

    /// Ends the services, once what was reported so far is recorded.
    pub fn stop(self) {
        if self.orders.blocking_send(Order::Stop).is_ok() {
            // A panic there was printed, and the process is ending.
            let _ = self.thread.join();
        }
    }
}

async fn run(startup: Startup, mut orders: mpsc::Receiver<Order>) -> io::Result<()> {
    let state = Arc::new(startup.state);
    let records = startup.record.then(|| Arc::clone(&state));
    let node = Node::new(NodeParts {
        config: startup.config,
        program: startup.program,
        file: startup.file,
        records: records.clone(),
        data_plane: startup.data_plane,
    });
    let (stop, stopped) = oneshot::channel();
    let collector = tokio::spawn(collect(Arc::clone(&node), startup.inbox, records, stopped));
    api::serve(&node, startup.listeners)?;
    while let Some(order) = orders.recv().await {
        match order {
            Order::Reload => {
                // The outcome was logged and kept as an event.
                let _ = node.reload().await;
            }
            Order::Stop => break,
        }
    }
    // What the data plane reported last is still recorded; a panic there was printed.
    drop(stop);
    let _ = collector.await;
    // The lock on the directory is still held, so the socket is ours. If it stays, the next node replaces it.
    let _ = std::fs::remove_file(state.socket());
    Ok(())
}
