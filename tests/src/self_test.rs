// SPDX-License-Identifier: MIT OR Apache-2.0
//! The harness against real peers, without the product: each oracle must notice the
//! damage it is there for, and each fault must do what it says.

use std::os::unix::fs::FileExt;

use crate::servers::{NbdServer, Nbdkit, QemuNbd};
use crate::storage::{Faults, Garble, Options, Storage};
use crate::wire::{Client, ClientError, command, errno};
use crate::{Endpoint, Fio, Load, TestDir, loopback, run, wait};

const MIB: u64 = 1 << 20;

#[test]
fn clean_servers_give_clean_reports() {
    let dir = TestDir::new();
    let image = dir.image("image", 40 * MIB);
    let endpoint = Endpoint::unix(dir.join("s.sock"));
    let _server = Nbdkit::file(&image).start(&dir, "nbdkit", &endpoint);
    let load = Load::options().region(36 * MIB, MIB).flush_every(50).start(&endpoint, "");
    // To its own end: an interrupted fio may not have come to verifying anything.
    let fio = Fio::options(&endpoint.uri("")).arg("--fsync=32").arg("--time_based=0").arg("--size=4m");
    let verified = fio.run(&dir, "fio");
    load.await_progress(2000);
    let report = load.finish();
    report.assert_clean();
    assert!(report.flushes > 10, "{report:?}");
    verified.assert_clean();
    assert!(verified.flushes > 10, "{verified:?}");
}

#[test]
fn a_load_notices_a_block_that_went_back() {
    let dir = TestDir::new();
    let image = dir.image("image", MIB);
    let endpoint = Endpoint::tcp(loopback(), 10809);
    let server = Storage::start(&endpoint, Options::of(&image));
    let load = Load::options().region(0, 64 * 4096).depth(1).start(&endpoint, "");
    load.await_progress(200);
    // An old copy of the first block comes back while nothing else changes.
    let old = crate::Stamp { writer: 1, sequence: 1 }.fill(0, 4096);
    server.set(Faults { stop_reading: true, ..Faults::none() });
    wait::until_true("the server to stop reading", || server.record().faults_fired() > 0);
    let file = std::fs::File::options().write(true).open(&image).expect("it is there");
    file.write_all_at(&old, 0).expect("it can be written");
    server.set(Faults::none());
    let report = load.finish();
    assert!(report.problems.iter().any(|p| p.contains("READ of block 0: holds")), "{report:?}");
}

#[test]
fn a_load_notices_errors_and_lost_connections() {
    let dir = TestDir::new();
    let image = dir.image("image", MIB);
    let endpoint = Endpoint::tcp(loopback(), 10809);
    let server = Storage::start(&endpoint, Options::of(&image));
    for (faults, told) in [(Faults::eio(), "error 5"), (Faults::cut_payload(), "lost its connection")] {
        let load = Load::options().start(&endpoint, "");
        load.await_progress(100);
        server.set(faults.clone());
        load.await_progress(100);
        server.set(Faults::none());
        let report = load.finish();
        assert!(report.problems.iter().any(|p| p.contains(told)), "{faults:?}: {report:?}");
    }
}

#[test]
fn fio_notices_damage_and_errors() {
    let dir = TestDir::new();
    let image = dir.image("image", 33 * MIB);
    let endpoint = Endpoint::tcp(loopback(), 10809);
    let server = Storage::start(&endpoint, Options::of(&image));

    let mut fio = Fio::options(&endpoint.uri("")).start(&dir, "damage");
    wait::until_true("fio to write", || server.record().count_of(command::WRITE) > 1000);
    let file = std::fs::File::options().write(true).open(&image).expect("it is there");
    // Again and again, so that some block is damaged between its write and its check.
    wait::until("fio to find the damage", || {
        file.write_all_at(&vec![0x5a; 32 << 20], 0).expect("it can be written");
        fio.process().try_wait()
    });
    let report = fio.finish();
    assert!(std::panic::catch_unwind(|| report.assert_clean()).is_err(), "{report:?}");

    let mut fio = Fio::options(&endpoint.uri("")).start(&dir, "error");
    let before = server.record().count_of(command::WRITE);
    wait::until_true("fio to write", || server.record().count_of(command::WRITE) > before + 100);
    server.set(Faults::eio());
    wait::until("fio to give up", || fio.process().try_wait());
    let report = fio.finish();
    assert_eq!(report.error, u64::from(errno::EIO), "{report:?}");
}

#[test]
fn storage_misbehaves_as_told() {
    let dir = TestDir::new();
    let image = dir.patterned_image("image", MIB, 1);
    let endpoint = Endpoint::tcp(loopback(), 10809);
    let server = Storage::start(&endpoint, Options::of(&image));
    let open = || Client::open(&endpoint, "x").expect("it serves");

    server.set(Faults { cut_read_data: true, ..Faults::none() });
    assert!(matches!(open().read(0, 4096), Err(ClientError::Io(_))));
    server.set(Faults { cut_write_payload: true, ..Faults::none() });
    assert!(matches!(open().write(0, &[1; 4096]), Err(ClientError::Io(_))));
    server.set(Faults { cut_reply_header: true, ..Faults::none() });
    assert!(matches!(open().flush(), Err(ClientError::Io(_))));
    for garble in [Garble::ReplyMagic, Garble::UnknownCookie, Garble::UnexpectedChunk, Garble::StrayBytes] {
        server.set(Faults { garble: Some(garble), ..Faults::none() });
        assert!(matches!(open().flush(), Err(ClientError::Protocol(_))), "{garble:?}");
    }
    server.set(Faults { refuse: Some("not today".to_owned()), ..Faults::none() });
    let refused = Client::open(&endpoint, "x");
    assert!(matches!(refused, Err(ClientError::Refused(_, text)) if text == "not today"));

    server.set(Faults::none());
    let mut client = open();
    let untouched = std::fs::read(&image).expect("it is there");
    assert_eq!(client.read(4096, 4096).expect("a good server").data, untouched[4096..8192]);
    server.set(Faults { hold_replies: true, ..Faults::none() });
    client.submit_write(0, &[9; 512]).expect("the socket takes it");
    wait::until_true("the write to be executed", || std::fs::read(&image).is_ok_and(|data| data[0] == 9));
    assert!(server.record().requests().last().is_some_and(|entry| entry.answered.is_none()));
    server.set(Faults::none());
    assert_eq!(client.reply(|_| 0).expect("released").error, 0);
}

#[test]
fn storage_stops_and_starts_again() {
    let dir = TestDir::new();
    let endpoint = Endpoint::tcp(loopback(), 10809);
    let mut server = Storage::start(&endpoint, Options::of(&dir.image("image", MIB)));
    let mut client = Client::open(&endpoint, "x").expect("it serves");
    server.stop();
    assert!(client.read(0, 512).is_err(), "its connections are gone");
    assert!(endpoint.connects().is_err(), "nobody listens");
    server.restart(None);
    client = Client::open(&endpoint, "x").expect("it serves again");
    assert_eq!(client.read(0, 512).expect("a good server").error, 0);
    assert_eq!(server.record().connections(), 2);
}

/// Four servers and one client program: what each test of the suites relies on.
#[test]
fn every_server_serves_the_same_bytes() {
    let dir = TestDir::new();
    let image = dir.patterned_image("image", MIB, 7);
    let ip = loopback();
    let endpoint = |port: u16| Endpoint::tcp(ip, port);
    let _nbdkit = Nbdkit::file(&image).start(&dir, "nbdkit", &endpoint(1));
    let _qemu = QemuNbd::file(&image, "vol0").start(&dir, "qemu-nbd", &endpoint(2));
    let _nbd_server = NbdServer::start(&dir, "nbd-server", &endpoint(3), "vol0", &image);
    let _storage = Storage::start(&endpoint(4), Options::of(&image));
    let original = std::fs::read(&image).expect("it is there");
    for port in 1..=4 {
        let copy = dir.text(&format!("copy{port}"));
        run("nbdcopy", [endpoint(port).uri("vol0"), copy.clone()]);
        assert!(std::fs::read(&copy).is_ok_and(|bytes| bytes == original), "port {port}");
    }
}

/// The one server of which a single connection can be stopped (rule T4).
#[test]
fn a_stopped_child_of_nbd_server_stalls_one_connection() {
    let dir = TestDir::new();
    let endpoint = Endpoint::tcp(loopback(), 10809);
    let server = NbdServer::start(&dir, "nbd-server", &endpoint, "vol0", &dir.image("image", MIB));
    let mut first = Client::open(&endpoint, "vol0").expect("it serves");
    server.stop_children();
    first.submit_write(0, &[1; 512]).expect("the socket takes it");
    let mut second = Client::open(&endpoint, "vol0").expect("it serves others");
    assert_eq!(second.read(0, 512).expect("the second child works").data, [0; 512]);
    server.resume_children();
    assert_eq!(first.reply(|_| 0).expect("it goes on").error, 0);
    assert_eq!(second.read(0, 512).expect("the second child works").data, [1; 512]);
}
