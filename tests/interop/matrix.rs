// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every client over every kind of storage, TCP and Unix socket.

use tests_support::holdfast::{Config, Device, Node, PathStatus};
use tests_support::servers::{NbdServer, Nbdkit, QemuNbd};
use tests_support::{Endpoint, TestDir, loopback, wait};

use crate::clients;
use crate::target::{LoopDevice, Target};

const SIZE: u64 = 16 << 20;
const DEVICE: &str = "vol0";

/// All clients against a device with these paths: name and URI.
fn serve_to_all_clients(dir: &TestDir, paths: &[(&str, String)]) {
    let tcp = Endpoint::tcp(loopback(), 10809);
    let mut device = Device::new(DEVICE);
    for (name, uri) in paths {
        device = device.path(name, uri);
    }
    let node = Node::start(dir, &Config::new(dir).listen(&tcp).device(device));
    // On a blank volume the first path to answer serves, the others wait for proof.
    wait::until_true("a path to serve", || node.device(DEVICE).paths().iter().any(PathStatus::is_up));
    for endpoint in [tcp, node.host().clone()] {
        clients::all(&Target { endpoint, export: DEVICE, size_bytes: SIZE, dir });
    }
    // Everything was written by hosts by now, so every path has proved its identity.
    let names: Vec<&str> = paths.iter().map(|(name, _)| *name).collect();
    for name in &names {
        let path = node.await_state(DEVICE, name, "up");
        assert_eq!(path.errors, 0, "{path:?}");
    }
    // And every path carries a share of a load.
    let load = tests_support::Load::options().start(node.host(), DEVICE);
    node.await_in_use(DEVICE, &names, 50);
    load.finish().assert_clean();
}

/// The checks themselves, against a server that is not ours.
#[test]
fn clients_agree_with_nbdkit() {
    let dir = TestDir::new();
    let image = dir.image("image", SIZE);
    let tcp = Endpoint::tcp(loopback(), 10809);
    // nbdkit tells no names unless asked to.
    let export = "exportname=vol0";
    let _server = Nbdkit::file(&image)
        .threads(8)
        .filter("exportname", &["exportname-list=explicit", export, "default-export=vol0"])
        .start(&dir, "nbdkit", &tcp);
    clients::all(&Target { endpoint: tcp, export: DEVICE, size_bytes: SIZE, dir: &dir });
}

#[test]
fn nbdkit_file() {
    let dir = TestDir::new();
    let image = dir.image("image", SIZE);
    let ip = loopback();
    let servers = [1, 2]
        .map(|n| Nbdkit::file(&image).start(&dir, &format!("nbdkit{n}"), &Endpoint::tcp(ip, 10810 + n)));
    let uris = servers.each_ref().map(|server| server.endpoint().uri(""));
    serve_to_all_clients(&dir, &[("a", uris[0].clone()), ("b", uris[1].clone())]);
}

#[test]
fn nbdkit_memory() {
    let dir = TestDir::new();
    let endpoint = Endpoint::unix(dir.join("storage.sock"));
    let _server = Nbdkit::memory("16M").start(&dir, "nbdkit", &endpoint);
    serve_to_all_clients(&dir, &[("a", endpoint.uri(""))]);
}

#[test]
fn qemu_nbd() {
    let dir = TestDir::new();
    let image = dir.image("image", SIZE);
    let endpoint = Endpoint::tcp(loopback(), 10810);
    let _server = QemuNbd::file(&image, "disk").start(&dir, "qemu-nbd", &endpoint);
    serve_to_all_clients(&dir, &[("a", endpoint.uri("disk"))]);
}

#[test]
fn nbd_server() {
    let dir = TestDir::new();
    let image = dir.image("image", SIZE);
    let ip = loopback();
    let servers = [1, 2].map(|n| {
        NbdServer::start(&dir, &format!("nbd-server{n}"), &Endpoint::tcp(ip, 10810 + n), "disk", &image)
    });
    let uris = servers.each_ref().map(|server| server.endpoint().uri("disk"));
    serve_to_all_clients(&dir, &[("a", uris[0].clone()), ("b", uris[1].clone())]);
}

#[test]
fn local_file() {
    let dir = TestDir::new();
    let image = dir.image("image", SIZE);
    serve_to_all_clients(&dir, &[("a", format!("file://{image}"))]);
}

/// A block device, directly and through a server that has it open too.
#[test]
fn local_block_device() {
    let dir = TestDir::new();
    let disk = LoopDevice::over(&dir.image("image", SIZE));
    let endpoint = Endpoint::tcp(loopback(), 10810);
    let _server = Nbdkit::file(disk.path()).start(&dir, "nbdkit", &endpoint);
    serve_to_all_clients(&dir, &[("disk", format!("file://{}", disk.path())), ("server", endpoint.uri(""))]);
}

/// Four servers of different make, all on one file: what each lacks is done for it.
#[test]
fn mixed_servers() {
    let dir = TestDir::new();
    let image = dir.image("image", SIZE);
    let ip = loopback();
    let endpoint = |port: u16| Endpoint::tcp(ip, port);
    let _nbdkit = Nbdkit::file(&image).start(&dir, "nbdkit", &endpoint(10811));
    let _nbd_server = NbdServer::start(&dir, "nbd-server", &endpoint(10812), "disk", &image);
    let _qemu = QemuNbd::file(&image, "disk").start(&dir, "qemu-nbd", &endpoint(10813));
    serve_to_all_clients(
        &dir,
        &[
            ("nbdkit", endpoint(10811).uri("")),
            ("nbd-server", endpoint(10812).uri("disk")),
            ("qemu-nbd", endpoint(10813).uri("disk")),
            ("file", format!("file://{image}")),
        ],
    );
}
