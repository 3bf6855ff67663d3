// SPDX-License-Identifier: MIT OR Apache-2.0
//! Start, control and end of a storage server. It runs on a thread of its own, inside a
//! network namespace if asked to.

use std::fs::File;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;

use tokio::sync::watch;
use tokio_uring::net::TcpListener;

use super::session;
use super::{Faults, Record};
use crate::wire::flags;
use crate::{Endpoint, Namespace};

/// What a storage server offers.
#[derive(Clone, Debug)]
pub struct Options {
    /// File with the data.
    pub file: String,
    /// Size it tells; the file's own by default. Reads past the file's end give zeroes.
    pub size_bytes: Option<u64>,
    /// Transmission flags it tells.
    pub flags: u16,
    /// Minimum, preferred and maximum block it tells, in bytes; nothing by default.
    pub block_sizes: Option<[u32; 3]>,
    /// The only export it knows; any name by default.
    pub only_export: Option<String>,
}

impl Options {
    /// Everything a simple server can do, on this file.
    pub fn of(file: &str) -> Self {
        let all = flags::HAS_FLAGS
            | flags::FLUSH
            | flags::FUA
            | flags::TRIM
            | flags::WRITE_ZEROES
            | flags::MULTI_CONN;
        Self { file: file.to_owned(), size_bytes: None, flags: all, block_sizes: None, only_export: None }
    }
}

/// What the sessions of a server share.
pub(super) struct Shared {
    pub(super) options: Options,
    pub(super) size_bytes: u64,
    pub(super) file: tokio_uring::fs::File,
    pub(super) record: Arc<Record>,
    faults: watch::Receiver<Faults>,
}

impl Shared {
    pub(super) fn faults(&self) -> Faults {
        self.faults.borrow().clone()
    }

    /// Waits until the faults satisfy a condition; for ever if the server is ending.
    pub(super) async fn until(&self, condition: impl Fn(&Faults) -> bool) {
        let ended = self.faults.clone().wait_for(|faults| condition(faults)).await.is_err();
        if ended {
            std::future::pending::<()>().await;
        }
    }
}

/// A running storage server; ends on drop.
#[derive(Debug)]
pub struct Storage {
    endpoint: Endpoint,
    options: Options,
    namespace: Option<String>,
    record: Arc<Record>,
    faults: watch::Sender<Faults>,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    stop: watch::Sender<bool>,
    thread: JoinHandle<()>,
}

impl Storage {
    /// Starts serving; listens when this returns.
    pub fn start(endpoint: &Endpoint, options: Options) -> Self {
        Self::start_in(None, endpoint, options)
    }

    /// Starts serving inside a namespace.
    pub fn start_within(namespace: &Namespace, endpoint: &Endpoint, options: Options) -> Self {
        Self::start_in(Some(namespace), endpoint, options)
    }

    fn start_in(namespace: Option<&Namespace>, endpoint: &Endpoint, options: Options) -> Self {
        let mut storage = Self {
            endpoint: endpoint.clone(),
            options,
            namespace: namespace.map(|n| n.name().to_owned()),
            record: Arc::default(),
            faults: watch::Sender::new(Faults::none()),
            running: None,
        };
        storage.restart(namespace);
        storage
    }

    /// Starts again after [`Storage::stop`]; `namespace` must be the one of the first start.
    pub fn restart(&mut self, namespace: Option<&Namespace>) {
        assert_eq!(self.namespace.as_deref(), namespace.map(Namespace::name), "a server does not move");
        assert!(self.running.is_none(), "it is running");
        let stop = watch::Sender::new(false);
        let (ready, is_ready) = mpsc::channel();
        let (endpoint, options) = (self.endpoint.clone(), self.options.clone());
        let (record, faults, stopped) = (Arc::clone(&self.record), self.faults.subscribe(), stop.subscribe());
        // Threads inherit the namespace of their maker, and only for ever: enter in a
        // thread that ends with the server.
        let handle = namespace.map(Namespace::handle);
        let body = move || {
            if let Some(handle) = handle {
                handle.enter();
            }
            tokio_uring::start(async {
                let listener = listen(&endpoint);
                ready.send(()).expect("the starter waits");
                serve(listener, options, record, faults, stopped).await;
            });
        };
        let thread = std::thread::Builder::new().name("storage".to_owned()).spawn(body);
        let thread = thread.expect("a thread can be made");
        is_ready.recv().expect("the server could listen; its thread says why not");
        self.running = Some(Running { stop, thread });
    }

    /// Ends all connections and listens no more.
    pub fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop.send_replace(true);
            let ended = running.thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the storage server panicked");
        }
    }

    /// Where it listens.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Sets all faults at once.
    pub fn set(&self, faults: Faults) {
        self.faults.send_replace(faults);
    }

    /// What it has seen.
    pub fn record(&self) -> &Record {
        &self.record
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The standard library's bind lets an address be used again at once.
fn listen(endpoint: &Endpoint) -> TcpListener {
    // Unix sockets cannot be had: tokio-uring sets an option on them that newer kernels refuse.
    let Endpoint::Tcp(address) = endpoint else { panic!("this server listens on TCP only") };
    let listener = std::net::TcpListener::bind(address);
    TcpListener::from_std(listener.unwrap_or_else(|e| panic!("cannot listen at {endpoint}: {e}")))
}

async fn serve(
    listener: TcpListener,
    options: Options,
    record: Arc<Record>,
    faults: watch::Receiver<Faults>,
    mut stopped: watch::Receiver<bool>,
) {
    let file = File::options().read(true).write(true).open(&options.file);
    let file = file.unwrap_or_else(|e| panic!("cannot open {}: {e}", options.file));
    let size_bytes = options.size_bytes.unwrap_or_else(|| file.metadata().expect("it is open").len());
    let file = tokio_uring::fs::File::from_std(file);
    let shared = Rc::new(Shared { options, size_bytes, file, record, faults });
    tokio_uring::spawn(accept(listener, shared));
    // The end of this future ends the runtime, which drops every task and connection.
    stopped.wait_for(|stop| *stop).await.expect("the handle outlives its server");
}

async fn accept(listener: TcpListener, shared: Rc<Shared>) {
    while let Ok((stream, _peer)) = listener.accept().await {
        // Delayed replies must be the test's doing and not Nagle's. It fails only on a
        // connection that is gone already, which the session then finds.
        let _ = stream.set_nodelay(true);
        tokio_uring::spawn(session::run(Rc::new(stream), Rc::clone(&shared)));
    }
}
