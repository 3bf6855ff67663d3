// SPDX-License-Identifier: MIT OR Apache-2.0
//! No path at all: requests wait as long as the hold lasts, and no longer.

use tests_support::holdfast::{Config, Device, Node};
use tests_support::servers::Nbdkit;
use tests_support::wire::{Client, ClientError, errno};
use tests_support::{Endpoint, TestDir, loopback, run_status, wait};

use crate::rig::{DEVICE, Fault, RigOptions};

/// Every path goes at once and comes back within the hold: the host waits, no more.
fn outage_within_the_hold(fault: Fault) {
    let mut rig = RigOptions::new(2).for_fault(fault).start();
    let fio = rig.fio().arg("--fsync=32").start(&rig.dir, "fio");
    let load = rig.load();
    rig.await_all_in_use();
    for path in 0..2 {
        rig.inject(path, fault);
    }
    let answered = load.await_standstill();
    rig.node.await_device(DEVICE, "held");
    wait::until_true("requests to wait", || rig.node.device(DEVICE).number("inflight") > 0);
    assert_eq!(load.answered(), answered, "nothing can be answered without a path");
    for path in 0..2 {
        rig.heal(path, fault);
    }
    load.await_progress(300);
    rig.await_all_in_use();
    fio.finish().assert_clean();
    load.finish().assert_clean();
}

#[test]
fn kill_of_every_server_is_waited_for() {
    outage_within_the_hold(Fault::Kill);
}

#[test]
fn stop_of_every_server_is_waited_for() {
    outage_within_the_hold(Fault::Stop);
}

#[test]
fn loss_of_every_link_is_waited_for() {
    outage_within_the_hold(Fault::DropToStorage);
}

#[test]
fn the_hold_ends_with_eio() {
    let rig = RigOptions::new(1).key(r#"no_path = { mode = "hold", hold = "2s" }"#).start();
    let mut rig = rig;
    let mut client = rig.node.open(DEVICE);
    assert_eq!(client.write(0, &[1; 4096]).expect("a path is there").error, 0);
    rig.inject(0, Fault::Kill);
    // Held first, failed later: which of the two shows in how long it takes.
    let start = std::time::Instant::now();
    assert_eq!(client.write(0, &[2; 4096]).expect("the session stays").error, errno::EIO);
    assert!(start.elapsed().as_millis() >= 1500, "failed after {} ms", start.elapsed().as_millis());
    rig.node.await_device(DEVICE, "failed");
    assert_eq!(client.read(0, 4096).expect("the session stays").error, errno::EIO);
    rig.heal(0, Fault::Kill);
    wait::until_true("requests to work again", || client.read(0, 4096).is_ok_and(|reply| reply.error == 0));
}

/// With a path for reads alone left reads go on; writes are held like without any, and fail at the end of the hold.
#[test]
fn writes_are_held_while_only_reads_have_a_path() {
    let hold = r#"no_path = { mode = "hold", hold = "2s" }"#;
    let policies = [r#"policy = "active-active""#, r#"policy = "active-passive""#];
    for (fault, policy) in
        [Fault::Kill, Fault::Stop].into_iter().flat_map(|fault| policies.map(|it| (fault, it)))
    {
        let options = RigOptions::new(2).key(hold).key(policy).path_key(1, "read_only = true");
        let mut rig = options.for_fault(fault).start();
        let mut client = rig.node.open(DEVICE);
        assert_eq!(client.write(0, &[1; 4096]).expect("a path is there").error, 0);
        rig.inject(0, fault);
        let cookie = client.submit_write(0, &[2; 4096]).expect("the socket takes it");
        let mut reader = rig.node.open(DEVICE);
        assert_eq!(reader.read(1 << 20, 4096).expect("the session stays").error, 0, "{fault:?}, {policy}");
        let reply = client.reply(|_| 0).expect("answered at the end of the hold");
        assert_eq!((reply.cookie, reply.error), (cookie, errno::EIO), "{fault:?}, {policy}");
        assert_eq!(reader.read(1 << 20, 4096).expect("the session stays").error, 0, "{fault:?}, {policy}");
        rig.heal(0, fault);
        wait::until_true("writes to work again", || {
            client.write(0, &[3; 4096]).is_ok_and(|reply| reply.error == 0)
        });
    }
}

/// Storage that is away when the node starts: geometry was recorded, so hosts are served
/// and their requests wait.
#[test]
fn a_known_device_is_served_with_every_path_down() {
    let dir = TestDir::new();
    let image = dir.patterned_image("image", 4 << 20, 5);
    let endpoint = Endpoint::tcp(loopback(), 10809);
    let config = Config::new(&dir).device(Device::new(DEVICE).path("a", &endpoint.uri("")));

    let mut server = Nbdkit::file(&image).start(&dir, "nbdkit", &endpoint);
    let mut node = Node::start(&dir, &config);
    node.await_state(DEVICE, "a", "up");
    let told = node.open(DEVICE);
    let (size_bytes, flags) = (told.size_bytes(), told.flags());
    drop(told);
    node.terminate(wait::BOUND);
    drop(node);
    server.kill();

    let node = Node::start(&dir, &config);
    let mut client = node.open(DEVICE);
    assert_eq!((client.size_bytes(), client.flags()), (size_bytes, flags), "GO from the record");
    let cookie = client.submit_read(4096, 4096).expect("the socket takes it");
    node.await_device(DEVICE, "held");
    server.restart(&dir);
    let reply = client.reply(|_| 4096).expect("answered when the path is there");
    assert_eq!((reply.cookie, reply.error), (cookie, 0));
    assert_eq!(reply.data, std::fs::read(&image).expect("it is there")[4096..8192]);
}

/// A device that no path has ever told the size of is refused, after a wait in which one might.
#[test]
fn an_unknown_device_is_refused_with_its_reason() {
    let dir = TestDir::new();
    let endpoint = Endpoint::tcp(loopback(), 10809);
    let config = Config::new(&dir).device(Device::new(DEVICE).path("a", &endpoint.uri("")));
    let node = Node::start(&dir, &config);
    let start = std::time::Instant::now();
    let Err(ClientError::Refused(_, text)) = Client::open(node.host(), DEVICE) else {
        panic!("opened a device that nobody knows the size of")
    };
    assert!(start.elapsed().as_secs() >= 9, "gave up after {} s", start.elapsed().as_secs());
    assert!(text.contains("no path of this device has been reached yet"), "the reason: {text:?}");

    // libnbd asks for the contexts, then for the export: the two together wait once.
    let start = std::time::Instant::now();
    let told = run_status("nbdinfo", ["--json".to_owned(), node.host().uri(DEVICE)]);
    let took = start.elapsed().as_secs();
    assert!(told.status != 0 && (9..16).contains(&took), "nbdinfo ended after {took} s: {told:?}");

    // A path that comes up while the host waits is in time.
    let waiting = {
        let host = node.host().clone();
        std::thread::spawn(move || Client::open(&host, DEVICE).map(|client| client.size_bytes()))
    };
    let _server = Nbdkit::memory("4M").start(&dir, "nbdkit", &endpoint);
    let opened = waiting.join().expect("the host does not panic");
    assert!(matches!(opened, Ok(size) if size == 4 << 20), "{opened:?}");
}
