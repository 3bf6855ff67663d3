// SPDX-License-Identifier: MIT OR Apache-2.0
//! The data plane as its owner sees it: start, commands, snapshots, shutdown.
//!
//! Commands are checked here, on the caller's thread, so that their errors go to whoever
//! gave them; the reactors get only what they can do. A panic on a reactor ends the
//! process: an invariant is broken there, and going on could lose data.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam::channel;
use program::{
    ControlCommand, DeviceCommand, DeviceExplanation, DeviceStatus, Listener, Nanos, PathCommand, Program,
    RegisterPlace, SocketAddress,
};
use ring::{RingError, listen};

use crate::directory::Directory;
use crate::gate::Gate;
use crate::limits::{LISTEN_AGAIN, PIN_CPUS_MIN, PREDECESSOR_GONE_WITHIN, REACTOR_MEMORY_MIN};
use crate::mailbox::{Mail, Mailbox};
use crate::node::Node;
use crate::reactor::Reactor;
use crate::reports::{ReportSink, Reports};
use crate::start::{CommandError, GateError, ListenError, StartError};

/// What the last command left.
struct Control {
    program: Arc<Program>,
    /// The last answer of every reactor.
    known: Vec<Vec<DeviceStatus>>,
    /// Addresses of TCP listeners as they are, in the program's order at start.
    addresses: Vec<SocketAddress>,
}

/// A running data plane. Dropping it does not stop it: call [`DataPlane::shutdown`].
pub struct DataPlane {
    node: Arc<Node>,
    control: Mutex<Control>,
    threads: Vec<JoinHandle<()>>,
    reporter: JoinHandle<()>,
}

impl DataPlane {
    /// Takes all listening addresses, then starts `node.reactors` threads and the devices.
    /// `reports` is called on a thread of its own, one report at a time.
    pub fn start(program: Arc<Program>, reports: ReportSink) -> Result<Self, StartError> {
        check(&program).map_err(|problem| match problem {
            Problem::NoReactors => StartError::NoReactors,
            Problem::Memory { needed_bytes } => {
                StartError::Memory { memory_bytes: program.node.memory_bytes, needed_bytes }
            }
        })?;
        let sockets = bind_at_start(&program.listeners).map_err(StartError::Listen)?;
        let addresses = sockets.iter().map(|(listener, fd)| address_of(listener, fd)).collect();
        let reactors = program.node.reactors;
        let directory = Directory::default();
        let gates = open_gates(&program, &directory).map_err(StartError::Gate)?;
        directory.apply(&program, reactors, &gates);
        let mailboxes: Result<Vec<_>, _> = (0..reactors).map(|_| Mailbox::new().map(Arc::new)).collect();
        let (reports, reporter) = Reports::start(reports).map_err(StartError::System)?;
        let node = Arc::new(Node::new(directory, mailboxes.map_err(StartError::System)?, reports));
        let threads = match spawn_reactors(&node, &program) {
            Ok(threads) => threads,
            Err(error) => {
                // Those that did start have nothing yet and end at once.
                for mailbox in &node.mailboxes {
                    mailbox.send(Mail::StopHidden);
                }
                node.reports.stop();
                return Err(error);
            }
        };
        send_program(&node, &program, sockets);
        let known = vec![Vec::new(); reactors];
        let control = Mutex::new(Control { program, known, addresses });
        Ok(Self { node, control, threads, reporter })
    }

    /// Where the listeners of the first program really listen, in its order; tells the
    /// port where the program said 0.
    pub fn addresses(&self) -> Vec<SocketAddress> {
        self.control().addresses.clone()
    }

    /// Takes a command, or says why not and changes nothing.
    pub fn send(&self, command: ControlCommand) -> Result<(), CommandError> {
        match command {
            ControlCommand::Apply(program) => self.apply(program),
            ControlCommand::Path { device, path, command } => self.path(device, &path, command),
            ControlCommand::Device { device, command } => self.device(device, command),
            ControlCommand::Shutdown { bound } => {
                self.shutdown(bound);
                Ok(())
            }
        }
    }

    fn apply(&self, program: Arc<Program>) -> Result<(), CommandError> {
        let mut control = self.control();
        if program.node.reactors != control.program.node.reactors {
            return Err(CommandError::ReactorsChanged);
        }
        if let Err(Problem::Memory { needed_bytes }) = check(&program) {
            return Err(CommandError::Memory { memory_bytes: program.node.memory_bytes, needed_bytes });
        }
        let new: Vec<Listener> = program
            .listeners
            .iter()
            .filter(|listener| control.program.listeners.iter().all(|old| old.address != listener.address))
            .cloned()
            .collect();
        let sockets = bind_all(&new).map_err(CommandError::Listen)?;
        let gates = open_gates(&program, &self.node.directory).map_err(CommandError::Gate)?;
        self.node.directory.apply(&program, program.node.reactors, &gates);
        send_program(&self.node, &program, sockets);
        control.program = program;
        Ok(())
    }

    fn path(&self, device: String, path: &str, command: PathCommand) -> Result<(), CommandError> {
        let control = self.control();
        let Some(found) = control.program.devices.iter().find(|found| found.name == device) else {
            return Err(CommandError::UnknownDevice(device));
        };
        let Some(index) = found.paths.iter().position(|found| found.name == path) else {
            return Err(CommandError::UnknownPath { device, path: path.to_owned() });
        };
        if let Some(owner) = self.node.directory.owner(&device) {
            self.node.mailboxes[owner].send(Mail::Path { device, path: index, command });
        }
        Ok(())
    }

    fn device(&self, device: String, command: DeviceCommand) -> Result<(), CommandError> {
        if !self.control().program.devices.iter().any(|found| found.name == device) {
            return Err(CommandError::UnknownDevice(device));
        }
        if let Some(owner) = self.node.directory.owner(&device) {
            self.node.mailboxes[owner].send(Mail::Device { device, command });
        }
        Ok(())
    }

    /// The state of every device, in the program's order. A reactor that does not answer
    /// within `timeout` is represented by its last known state.
    pub fn snapshot(&self, timeout: Duration) -> Vec<DeviceStatus> {
        let deadline = Instant::now() + timeout;
        let answers: Vec<_> = self
            .node
            .mailboxes
            .iter()
            .map(|mailbox| {
                let (sender, receiver) = channel::bounded(1);
                mailbox.send(Mail::Snapshot(sender));
                receiver
            })
            .collect();
        let answers: Vec<_> = answers.iter().map(|answer| answer.recv_deadline(deadline).ok()).collect();
        let mut control = self.control();
        for (known, answer) in control.known.iter_mut().zip(answers) {
            if let Some(answer) = answer {
                *known = answer;
            }
        }
        let all = || control.known.iter().flatten();
        control
            .program
            .devices
            .iter()
            .filter_map(|device| all().find(|status| status.name == device.name).cloned())
            .collect()
    }

    /// Why a device and its paths are as they are; `None` if it is not there or its
    /// reactor does not answer within `timeout`.
    pub fn explain(&self, device: &str, timeout: Duration) -> Option<DeviceExplanation> {
        let owner = self.node.directory.owner(device)?;
        let (sender, receiver) = channel::bounded(1);
        self.node.mailboxes[owner].send(Mail::Explain(device.to_owned(), sender));
        receiver.recv_timeout(timeout).ok().flatten()
    }

    /// Begins to stop: requests in flight finish, host sessions close at a frame boundary,
    /// lanes by DISC. After `bound` what is left is cut off. [`DataPlane::join`] waits.
    pub fn shutdown(&self, bound: Nanos) {
        for mailbox in &self.node.mailboxes {
            mailbox.send(Mail::Shutdown(bound));
        }
    }

    /// Waits until every reactor has ended and the last report is delivered.
    pub fn join(self) {
        for thread in self.threads {
            // A panic has ended the process already.
            let _ = thread.join();
        }
        self.node.reports.stop();
        let _ = self.reporter.join();
    }

    fn control(&self) -> std::sync::MutexGuard<'_, Control> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Problem {
    NoReactors,
    Memory { needed_bytes: u64 },
}

fn check(program: &Program) -> Result<(), Problem> {
    if program.node.reactors == 0 {
        return Err(Problem::NoReactors);
    }
    let needed_bytes = program.node.reactors as u64 * REACTOR_MEMORY_MIN;
    if program.node.memory_bytes < needed_bytes {
        return Err(Problem::Memory { needed_bytes });
    }
    Ok(())
}

/// The same with patience: the kernel takes down the rings of a process that was killed, and the listening
/// sockets they refer to, a moment after the process has gone.
fn bind_at_start(listeners: &[Listener]) -> Result<Vec<(Listener, OwnedFd)>, Vec<ListenError>> {
    let began = Instant::now();
    loop {
        match bind_all(listeners) {
            Err(errors)
                if began.elapsed() < PREDECESSOR_GONE_WITHIN
                    && errors.iter().all(|error| error.source.kind() == io::ErrorKind::AddrInUse) =>
            {
                std::thread::park_timeout(LISTEN_AGAIN);
            }
            bound => return bound,
        }
    }
}

fn bind_all(listeners: &[Listener]) -> Result<Vec<(Listener, OwnedFd)>, Vec<ListenError>> {
    let mut sockets = Vec::new();
    let mut errors = Vec::new();
    for listener in listeners {
        let bound = match &listener.address {
            SocketAddress::Tcp(address) => listen::tcp(*address),
            SocketAddress::Unix(path) => listen::unix(Path::new(path)),
        };
        match bound {
            Ok(fd) => sockets.push((listener.clone(), fd)),
            Err(source) => errors.push(ListenError { address: listener.address.clone(), source }),
        }
    }
    if errors.is_empty() { Ok(sockets) } else { Err(errors) }
}

fn address_of(listener: &Listener, fd: &OwnedFd) -> SocketAddress {
    match &listener.address {
        SocketAddress::Tcp(address) => SocketAddress::Tcp(listen::tcp_address(fd).unwrap_or(*address)),
        unix @ SocketAddress::Unix(_) => unix.clone(),
    }
}

/// New listening sockets go to reactor 0, which accepts.
fn send_program(node: &Node, program: &Arc<Program>, sockets: Vec<(Listener, OwnedFd)>) {
    let mut sockets = Some(sockets);
    for mailbox in &node.mailboxes {
        mailbox.send(Mail::Apply(program.clone(), sockets.take().unwrap_or_default()));
    }
}

/// Starts the threads and waits until each has its ring.
fn spawn_reactors(node: &Arc<Node>, program: &Arc<Program>) -> Result<Vec<JoinHandle<()>>, StartError> {
    let (sender, receiver) = channel::unbounded::<Result<(), RingError>>();
    let mut threads = Vec::new();
    for index in 0..program.node.reactors {
        let (node, program, sender) = (node.clone(), program.clone(), sender.clone());
        let thread = std::thread::Builder::new()
            .name(format!("hf-reactor-{index}"))
            .spawn(move || reactor_main(index, node, program, &sender))
            .map_err(StartError::System)?;
        threads.push(thread);
    }
    for _ in 0..program.node.reactors {
        let ready = receiver.recv().expect("every reactor reports before it runs");
        ready.map_err(StartError::Ring)?;
    }
    Ok(threads)
}

/// The registers of devices that are new; those that run keep theirs.
fn open_gates(program: &Program, directory: &Directory) -> Result<BTreeMap<String, Arc<Gate>>, GateError> {
    let mut gates = BTreeMap::new();
    for device in &program.devices {
        let Some(fence) = device.fence.as_ref().filter(|_| directory.owner(&device.name).is_none()) else {
            continue;
        };
        let gate = Gate::open(fence).map_err(|source| GateError {
            device: device.name.clone(),
            register: match &fence.register {
                RegisterPlace::Shared(path) | RegisterPlace::Exclusive(path) => path.clone(),
                RegisterPlace::Memory => "(memory)".to_owned(),
            },
            source,
        })?;
        if gate.register.unclean {
            crate::log::warning!(
                "gate",
                "{}: the gate before this one ended without an end of its own; what it had sent to the NBD server may \
                 still be carried out",
                device.name
            );
        }
        gates.insert(device.name.clone(), gate);
    }
    Ok(gates)
}

fn reactor_main(
    index: usize,
    node: Arc<Node>,
    program: Arc<Program>,
    ready: &channel::Sender<Result<(), RingError>>,
) {
    let _guard = AbortOnPanic;
    pin(index, program.node.reactors);
    match Reactor::new(index, node, program) {
        Ok(reactor) => {
            // Whoever waits for this is alive: it holds the other end until all are ready.
            let _ = ready.send(Ok(()));
            reactor.run();
        }
        Err(error) => {
            let _ = ready.send(Err(error));
        }
    }
}

/// Keeps reactors apart from one another where there is room for other work besides.
fn pin(index: usize, reactors: usize) {
    let cpus = ring::cpu::allowed();
    if cpus.len() >= PIN_CPUS_MIN && reactors <= cpus.len() {
        ring::cpu::pin(cpus[index]);
    }
}

/// A broken invariant must not go on on the other threads.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::abort();
        }
    }
}
