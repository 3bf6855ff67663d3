// SPDX-License-Identifier: MIT OR Apache-2.0
//! `holdfast gate`: the storage end on a file or memory, on its own and as storage of a device.

use std::time::Duration;

use nix::sys::signal::Signal;
use tests_support::holdfast::{Config, Device, Node, cli_status, command};
use tests_support::wire::{COMMAND_FUA, Client, command as nbd_command, errno};
use tests_support::{Endpoint, Exit, Load, Process, TestDir, loopback, run};

use crate::clients::{self, python};
use crate::target::{LoopDevice, Target};

const SIZE: u64 = 16 << 20;

fn gate(dir: &TestDir, endpoint: &Endpoint, exports: &[&str]) -> Process {
    let listen = match endpoint {
        Endpoint::Tcp(address) => address.to_string(),
        Endpoint::Unix(path) => format!("unix:{}", path.display()),
    };
    let exports = exports.iter().flat_map(|export| ["--export", export]);
    let arguments: Vec<&str> =
        ["gate", "--allow-unfenced", "--listen", &listen].into_iter().chain(exports).collect();
    let process = command(&arguments).spawn(dir, "gate");
    endpoint.await_listening();
    process
}

#[test]
fn every_client_works_on_a_file() {
    let dir = TestDir::new();
    let image = dir.text("image");
    let tcp = Endpoint::tcp(loopback(), 10809);
    let mut gate = gate(&dir, &tcp, &[&format!("vol0={image},size=16MiB")]);
    clients::all(&Target { endpoint: tcp, export: "vol0", size_bytes: SIZE, dir: &dir });
    gate.signal(Signal::SIGTERM);
    assert_eq!(gate.wait_within(Duration::from_secs(15)), Exit::Code(0));
    assert_eq!(std::fs::metadata(&image).expect("it stays").len(), SIZE);
}

#[test]
fn every_client_works_on_memory() {
    let dir = TestDir::new();
    let unix = Endpoint::unix(dir.join("gate.sock"));
    let _gate = gate(&dir, &unix, &["vol0=memory:,size=16MiB"]);
    clients::all(&Target { endpoint: unix, export: "vol0", size_bytes: SIZE, dir: &dir });
}

/// Holes are real: zeroed and trimmed ranges are given back and told as holes.
#[test]
fn holes_are_punched_and_told() {
    let dir = TestDir::new();
    let image = dir.patterned_image("image", SIZE, 1);
    let unix = Endpoint::unix(dir.join("gate.sock"));
    let _gate = gate(&dir, &unix, &[&format!("vol0={image}")]);
    let script = r"
h.zero(4 << 20, 0)
h.trim(4 << 20, 8 << 20)
h.flush()
extents = []
def extent(context, offset, entries, error):
    extents.extend(entries)
h.block_status(16 << 20, 0, extent)
assert extents[0:2] == [4 << 20, nbd.STATE_HOLE | nbd.STATE_ZERO], extents
assert extents[2:4] == [4 << 20, 0], extents
assert h.pread(4096, 0) == bytes(4096)
h.zero(4096, 1 << 20, nbd.CMD_FLAG_NO_HOLE)
assert h.pread(4096, 1 << 20) == bytes(4096)
";
    let connect = "h.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)\nh.connect_uri(sys.argv[1])";
    python(&[&unix.uri("vol0")], connect, script);
    let blocks = run("stat", ["-c", "%b", &image]);
    let allocated: u64 = blocks.trim().parse::<u64>().expect("a number") * 512;
    assert!(allocated <= SIZE - (7 << 20), "{allocated} of {SIZE} bytes are still allocated");
}

/// FLUSH and FUA are what they say: the disk below is told to empty its cache, and only then.
#[test]
fn flush_and_fua_reach_the_disk() {
    let dir = TestDir::new();
    let disk = LoopDevice::over(&dir.image("image", SIZE));
    let unix = Endpoint::unix(dir.join("gate.sock"));
    let _gate = gate(&dir, &unix, &[&format!("vol0={}", disk.path())]);
    let mut host = Client::open(&unix, "vol0").expect("it serves");
    assert_eq!(host.size_bytes(), SIZE);
    let asked = |host: &mut Client, what: &str, call: &dyn Fn(&mut Client) -> u32| {
        let before = disk.flushes();
        assert_eq!(call(host), 0, "{what}");
        disk.flushes() - before
    };
    let write = |host: &mut Client| host.write(4096, &[1; 4096]).expect("it serves").error;
    let fua = |host: &mut Client| {
        host.submit(nbd_command::WRITE, COMMAND_FUA, 8192, 4096, &[2; 4096]).expect("the socket takes it");
        host.reply(|_| 0).expect("it serves").error
    };
    let zeroes = |host: &mut Client| {
        host.call(nbd_command::WRITE_ZEROES, COMMAND_FUA, 16384, 4096).expect("it serves").error
    };
    assert_eq!(asked(&mut host, "a write", &write), 0, "a write alone flushed");
    assert!(asked(&mut host, "FLUSH", &|host| host.flush().expect("it serves").error) > 0);
    assert!(asked(&mut host, "a write with FUA", &fua) > 0);
    assert!(asked(&mut host, "zeroes with FUA", &zeroes) > 0);
}

#[test]
fn several_exports_and_a_read_only_one() {
    let dir = TestDir::new();
    let (one, two) = (dir.patterned_image("one", SIZE, 1), dir.patterned_image("two", SIZE / 2, 2));
    let tcp = Endpoint::tcp(loopback(), 10809);
    let _gate = gate(&dir, &tcp, &[&format!("one={one}"), &format!("two={two},readonly")]);
    let mut first = Client::open(&tcp, "one").expect("it serves");
    let mut second = Client::open(&tcp, "two").expect("it serves");
    assert_eq!((first.size_bytes(), second.size_bytes()), (SIZE, SIZE / 2));
    let fua = first.submit(nbd_command::WRITE, COMMAND_FUA, 0, 512, &[1; 512]);
    fua.expect("the socket takes it");
    assert_eq!(first.reply(|_| 0).expect("it serves").error, 0);
    assert_eq!(second.write(0, &[1; 512]).expect("it answers").error, errno::EPERM);
    assert_eq!(
        std::fs::read(&two).expect("it is there")[..512],
        second.read(0, 512).expect("it serves").data
    );
    let listed = run("nbdinfo", ["--list".to_owned(), tcp.uri("")]);
    assert!(listed.contains("\"one\"") && listed.contains("\"two\""), "{listed}");
}

/// Two gates on two addresses over one file, as paths of one device.
#[test]
fn gates_serve_as_paths() {
    let dir = TestDir::new();
    let image = dir.patterned_image("image", SIZE, 5);
    let ip = loopback();
    let (one, two) = (Endpoint::tcp(ip, 10809), Endpoint::tcp(ip, 10810));
    let export = format!("vol0={image}");
    let _gates = [gate(&dir, &one, &[&export]), gate(&dir, &two, &[&export])];
    let device = Device::new("vol0").path("a", &one.uri("vol0")).path("b", &two.uri("vol0"));
    let node = Node::start(&dir, &Config::new(&dir).device(device));
    node.await_state("vol0", "a", "up");
    node.await_state("vol0", "b", "up");
    let load = Load::options().flush_every(20).start(node.host(), "vol0");
    node.await_in_use("vol0", &["a", "b"], 50);
    load.finish().assert_clean();
    let endpoint = node.host().clone();
    clients::all(&Target { endpoint, export: "vol0", size_bytes: SIZE, dir: &dir });
}

#[test]
fn a_wrong_export_is_told() {
    let dir = TestDir::new();
    let missing = format!("vol0={}", dir.text("missing"));
    for (export, told) in
        [(missing.as_str(), "missing"), ("vol0", "NAME=FILE"), ("vol0=memory:", "size"), ("=x", "name")]
    {
        let output = cli_status(&["gate", "--export", export]);
        assert_ne!(output.status, 0, "{export}");
        assert!(output.stderr.contains(told), "{export}: {output:?}");
    }
}
