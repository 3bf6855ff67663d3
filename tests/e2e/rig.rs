// SPDX-License-Identifier: MIT OR Apache-2.0
//! One device over several links to one file, each link with a server of its own.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use tests_support::holdfast::{Config, Device, Node, PathStatus, command};
use tests_support::servers::{Nbdkit, Server};
use tests_support::storage::{Faults, Options, Storage};
use tests_support::{Endpoint, Fabric, Fio, FioOptions, LinkFault, Load, TestDir, wait};

/// Name of the device of every rig.
pub(crate) const DEVICE: &str = "vol0";
/// Names of paths, in order of links.
pub(crate) const PATHS: [&str; 4] = ["a", "b", "c", "d"];

const MIB: u64 = 1 << 20;

/// How one path is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Server killed; started again to mend it.
    Kill,
    /// Server stopped; continued to mend it.
    Stop,
    /// Every packet answered with a TCP reset.
    Reset,
    /// Interface down.
    LinkDown,
    /// Packets to the storage vanish.
    DropToStorage,
    /// Packets from the storage vanish.
    DropFromStorage,
    /// Server answers everything with EIO.
    Eio,
    /// Server closes in the middle of payloads, both ways.
    CutPayload,
}

/// Every fault.
pub(crate) const FAULTS: [Fault; 8] = [
    Fault::Kill,
    Fault::Stop,
    Fault::Reset,
    Fault::LinkDown,
    Fault::DropToStorage,
    Fault::DropFromStorage,
    Fault::Eio,
    Fault::CutPayload,
];

impl Fault {
    fn link(self) -> Option<LinkFault> {
        match self {
            Self::Reset => Some(LinkFault::Reset),
            Self::LinkDown => Some(LinkFault::Down),
            Self::DropToStorage => Some(LinkFault::DropToStorage),
            Self::DropFromStorage => Some(LinkFault::DropFromStorage),
            Self::Kill | Self::Stop | Self::Eio | Self::CutPayload => None,
        }
    }

    fn storage(self) -> Option<Faults> {
        match self {
            Self::Eio => Some(Faults::eio()),
            Self::CutPayload => Some(Faults::cut_payload()),
            _ => None,
        }
    }
}

/// A server of one path.
pub(crate) enum PathServer {
    /// A real one.
    Real(Server),
    /// One that misbehaves on demand.
    Misbehaving(Storage),
    /// A gate of ours, in front of the file.
    Gate(Server),
}

/// Drops in this order: what uses the network goes before it.
pub(crate) struct Rig {
    pub(crate) node: Node,
    pub(crate) servers: Vec<PathServer>,
    pub(crate) fabric: Fabric,
    pub(crate) dir: TestDir,
    options: RigOptions,
}

/// How to set a rig up.
pub(crate) struct RigOptions {
    paths: usize,
    keys: Vec<&'static str>,
    path_keys: Vec<(usize, &'static str)>,
    misbehaving: bool,
    mixed: bool,
    log: bool,
    filters: Vec<(usize, &'static str, Vec<String>)>,
    gates: bool,
    one_cache: bool,
}

impl RigOptions {
    /// This many paths of equal rank to nbdkit servers.
    pub(crate) fn new(paths: usize) -> Self {
        Self {
            paths,
            keys: Vec::new(),
            path_keys: Vec::new(),
            misbehaving: false,
            mixed: false,
            log: false,
            filters: Vec::new(),
            gates: false,
            one_cache: true,
        }
    }

    /// Servers that can do what this fault needs.
    pub(crate) fn for_fault(mut self, fault: Fault) -> Self {
        self.misbehaving = fault.storage().is_some();
        self
    }

    /// Servers that record every request and misbehave on demand.
    pub(crate) fn misbehaving(mut self) -> Self {
        self.misbehaving = true;
        self
    }

    /// Real servers on the first, third, ... path, servers that misbehave on demand on the others:
    /// between them they can do every fault.
    pub(crate) fn mixed(mut self) -> Self {
        self.mixed = true;
        self
    }

    /// Gates of ours, in front of the file; all share their registers, as on one storage host.
    pub(crate) fn gated(mut self) -> Self {
        self.gates = true;
        self.one_cache = false;
        self
    }

    /// nbdkit servers that log every request to `requests-NAME`.
    pub(crate) fn logging(mut self) -> Self {
        self.log = true;
        self
    }

    /// A filter of the nbdkit server of one path, with its parameters.
    pub(crate) fn filter(mut self, path: usize, name: &'static str, parameters: &[&str]) -> Self {
        self.filters.push((path, name, parameters.iter().map(|&p| p.to_owned()).collect()));
        self
    }

    /// Does not say that all paths share one cache, though they do.
    pub(crate) fn separate_caches(mut self) -> Self {
        self.one_cache = false;
        self
    }

    /// A line of the device.
    pub(crate) fn key(mut self, line: &'static str) -> Self {
        self.keys.push(line);
        self
    }

    /// A line of one path.
    pub(crate) fn path_key(mut self, path: usize, line: &'static str) -> Self {
        self.path_keys.push((path, line));
        self
    }

    /// Starts everything and waits until every path is up or standing by.
    pub(crate) fn start(self) -> Rig {
        let dir = TestDir::new();
        let fabric = Fabric::new(self.paths);
        let image = dir.patterned_image("image", 40 * MIB, 1);
        let servers = (0..self.paths).map(|path| self.server(&dir, &fabric, path, &image)).collect();
        let config = self.config(&dir, &fabric, None, &[]);
        let node = Node::start_within(fabric.host(), &dir, &config);
        for path in &PATHS[..self.paths] {
            node.await_path(DEVICE, path, "to be usable", |status| {
                status.is_up() || status.state == "standby"
            });
        }
        Rig { node, servers, fabric, dir, options: self }
    }

    fn server(&self, dir: &TestDir, fabric: &Fabric, path: usize, image: &str) -> PathServer {
        let (endpoint, name) = (fabric.endpoint(path), PATHS[path]);
        if self.gates {
            return gate_server(dir, fabric, path, image);
        }
        if self.misbehaving || (self.mixed && path % 2 == 1) {
            let storage = Storage::start_within(fabric.storage(), &endpoint, Options::of(image));
            return PathServer::Misbehaving(storage);
        }
        let mut nbdkit = Nbdkit::file(image);
        if self.log {
            let log = format!("logfile={}", dir.text(&format!("requests-{name}")));
            nbdkit = nbdkit.filter("log", &[&log, "logappend=true"]);
        }
        for (_, name, parameters) in self.filters.iter().filter(|(index, ..)| *index == path) {
            let parameters: Vec<&str> = parameters.iter().map(String::as_str).collect();
            nbdkit = nbdkit.filter(name, &parameters);
        }
        let server = nbdkit.start_within(fabric.storage(), dir, &format!("nbdkit-{name}"), &endpoint);
        PathServer::Real(server)
    }

    fn config(&self, dir: &TestDir, fabric: &Fabric, without: Option<usize>, more: &[&str]) -> Config {
        let config = Config::new(dir).device(self.device(fabric, without, more));
        if self.gates { config.node(&format!("gate_key = \"{}\"", gate_key(dir))) } else { config }
    }

    fn device(&self, fabric: &Fabric, without: Option<usize>, more: &[&str]) -> Device {
        let mut device = Device::new(DEVICE);
        for key in self.keys.iter().chain(more) {
            device = device.key(key);
        }
        for (path, name) in PATHS[..self.paths].iter().enumerate().filter(|(path, _)| Some(*path) != without)
        {
            device = device.path(name, &fabric.endpoint(path).uri(DEVICE));
            if self.one_cache {
                // Every server works on one file through the same page cache.
                device = device.path_key(r#"same_cache = "page-cache""#);
            }
            for (_, line) in self.path_keys.iter().filter(|(index, _)| *index == path) {
                device = device.path_key(line);
            }
        }
        device
    }
}

/// A server that can be killed and stopped.
fn process(server: &mut PathServer) -> &mut Server {
    match server {
        PathServer::Real(server) | PathServer::Gate(server) => server,
        PathServer::Misbehaving(_) => panic!("it is part of this process"),
    }
}

/// What gates and nodes share.
fn gate_key(dir: &TestDir) -> String {
    // Once: a gate that starts may read it while the next one is made.
    let key = dir.join("gate.key");
    if !key.exists() {
        dir.write("gate.key", "5a".repeat(32));
    }
    std::fs::set_permissions(&key, Permissions::from_mode(0o600)).expect("it is ours");
    key.display().to_string()
}

/// A gate at the endpoint of a path.
fn gate_server(dir: &TestDir, fabric: &Fabric, path: usize, image: &str) -> PathServer {
    let (endpoint, name) = (fabric.endpoint(path), format!("gate-{}", PATHS[path]));
    let Endpoint::Tcp(listen) = &endpoint else { panic!("links have addresses") };
    let gate = command(&["gate", "--reactors", "1", "--state-dir", &dir.text("registers")])
        .args(["--listen", &listen.to_string(), "--export", &format!("{DEVICE}={image}")])
        .args(["--key", &gate_key(dir)])
        .within(fabric.storage());
    PathServer::Gate(Server::start(dir, &name, gate, &endpoint, Some(fabric.storage())))
}

impl Rig {
    /// Faults that some path can have.
    pub(crate) fn faults(&self) -> Vec<Fault> {
        let able = |fault: &Fault| (0..self.servers.len()).any(|path| self.can(path, *fault));
        FAULTS.into_iter().filter(able).collect()
    }

    /// Names of the paths.
    pub(crate) fn paths(&self) -> &'static [&'static str] {
        &PATHS[..self.servers.len()]
    }

    /// Writes the configuration anew, with these lines of the device as well and perhaps without one
    /// of the paths, and has it applied.
    pub(crate) fn reload(&self, more: &[&str], without: Option<usize>) {
        self.node.rewrite(&self.options.config(&self.dir, &self.fabric, without, more));
        let output = self.node.cli(&["reload"]);
        assert_eq!(output.status, 0, "reload: {output:?}");
    }

    /// Whether the server of a path can do this.
    pub(crate) fn can(&self, path: usize, fault: Fault) -> bool {
        match (&self.servers[path], fault) {
            (PathServer::Real(_) | PathServer::Gate(_), Fault::Eio | Fault::CutPayload)
            | (PathServer::Misbehaving(_), Fault::Kill | Fault::Stop) => false,
            (_, _) => true,
        }
    }

    /// The storage server of a path of a misbehaving rig.
    pub(crate) fn storage(&self, path: usize) -> &Storage {
        match &self.servers[path] {
            PathServer::Misbehaving(storage) => storage,
            PathServer::Real(_) | PathServer::Gate(_) => panic!("path {path} has a real server"),
        }
    }

    /// fio over the first 32 MiB.
    pub(crate) fn fio(&self) -> FioOptions {
        Fio::options(&self.node.uri(DEVICE))
    }

    /// A load beside fio, over one MiB that fio does not touch.
    pub(crate) fn load(&self) -> Load {
        Load::options().region(36 * MIB, MIB).flush_every(100).start(self.node.host(), DEVICE)
    }

    /// Breaks a path.
    pub(crate) fn inject(&mut self, path: usize, fault: Fault) {
        if let Some(link) = fault.link() {
            self.fabric.inject(path, link);
        } else if let Some(faults) = fault.storage() {
            self.storage(path).set(faults);
        } else {
            let server = process(&mut self.servers[path]);
            if fault == Fault::Kill {
                server.kill();
            } else {
                server.stop();
            }
        }
    }

    /// Whether the fault that a path has now touched traffic (rule T6); `fired_before` is what
    /// [`Rig::faults_fired`] said before it.
    fn is_exercised(&self, path: usize, fault: Fault, fired_before: u64) -> bool {
        match fault {
            Fault::Reset | Fault::DropToStorage | Fault::DropFromStorage => {
                self.fabric.caught_packets(path) > 0
            }
            Fault::Eio | Fault::CutPayload => self.faults_fired(path, fault) > fired_before,
            // The path's own state is the evidence: nothing else takes it down.
            Fault::Kill | Fault::Stop | Fault::LinkDown => true,
        }
    }

    /// How often a fault of a misbehaving storage has happened.
    pub(crate) fn faults_fired(&self, path: usize, fault: Fault) -> u64 {
        match fault {
            Fault::Eio | Fault::CutPayload => self.storage(path).record().faults_fired(),
            _ => 0,
        }
    }

    /// Mends a path.
    pub(crate) fn heal(&mut self, path: usize, fault: Fault) {
        if fault.link().is_some() {
            self.fabric.heal(path);
        } else if fault.storage().is_some() {
            self.storage(path).set(Faults::none());
        } else if fault == Fault::Kill {
            process(&mut self.servers[path]).restart(&self.dir);
        } else {
            process(&mut self.servers[path]).go_on();
        }
    }

    /// Breaks a path, and waits until the fault has touched traffic (T6) and Holdfast blames the path for it.
    pub(crate) fn break_path(&mut self, path: usize, fault: Fault) {
        let errors = self.node.path(DEVICE, PATHS[path]).errors;
        // A path on probation is not up either: down it must be, or blamed.
        self.inject_until(path, fault, |status| status.state == "down" || status.errors > errors);
    }

    /// The same, until Holdfast has taken the path out for it.
    pub(crate) fn take_down(&mut self, path: usize, fault: Fault) {
        self.inject_until(path, fault, |status| !status.is_up());
    }

    /// Both must hold: on a machine short of processors a path may be suspect for a moment without any fault.
    fn inject_until(&mut self, path: usize, fault: Fault, noticed: impl Fn(&PathStatus) -> bool) {
        let fired = self.faults_fired(path, fault);
        self.inject(path, fault);
        self.node.await_path(DEVICE, PATHS[path], &format!("to notice {fault:?}"), |status| {
            noticed(status) && self.is_exercised(path, fault, fired)
        });
    }

    /// Waits until the device does what it can: every path up and carrying requests.
    pub(crate) fn await_all_in_use(&self) {
        self.node.await_in_use(DEVICE, self.paths(), 50);
        wait::until_true("the device to be optimal", || self.node.device(DEVICE).state() == "optimal");
    }
}
