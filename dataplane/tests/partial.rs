// SPDX-License-Identifier: MIT OR Apache-2.0
//! A server that closes in the middle of a payload: what came is kept, only the rest is read from another.

mod common;

use std::io::Write;
use std::sync::{Arc, Mutex};

use common::host::{Host, pattern};
use common::server::{Connection, SIZE_BYTES, Server};
use common::{MIB, Running, device, nbd, path, program, public};
use nbd::Command;
use program::{PathState, SECOND};

/// Bytes that the first server sends of a large read; the last whole block ends at 299,008.
const SENT: usize = 300_000;
const KEPT: u64 = 299_008;

type Disk = Arc<Mutex<Vec<u8>>>;

/// Serves until a read of a MiB, of which it sends the beginning.
fn serve_and_close(mut connection: Connection, disk: &Disk) {
    while let Some((header, payload)) = connection.request() {
        if header.command == Command::Read as u16 && header.len == MIB {
            let start = header.offset as usize;
            let mut reply = 0x6744_6698_u32.to_be_bytes().to_vec();
            reply.extend(0_u32.to_be_bytes());
            reply.extend(header.cookie.to_be_bytes());
            reply.extend(&disk.lock().unwrap()[start..start + SENT]);
            connection.stream.write_all(&reply).unwrap();
            return;
        }
        if !connection.serve_one(disk, &header, &payload) {
            return;
        }
    }
}

#[test]
fn a_read_goes_on_where_its_server_closed() {
    let disk: Disk = Arc::new(Mutex::new(pattern(7, SIZE_BYTES as usize)));
    let (closing, whole) = (Server::bind(), Server::bind());
    let targets = [nbd(closing.address(), "disk"), nbd(whole.address(), "disk")];
    let seen: Arc<Mutex<Vec<(u64, u64)>>> = Arc::default();
    let (first_disk, second_disk, log) = (disk.clone(), disk.clone(), seen.clone());
    closing.run(move |_, connection| {
        serve_and_close(connection, &first_disk);
        true
    });
    whole.run(move |_, mut connection| {
        while let Some((header, payload)) = connection.request() {
            if header.command == Command::Read as u16 && header.len > 4096 {
                log.lock().unwrap().push((header.offset, header.len));
            }
            if !connection.serve_one(&second_disk, &header, &payload) {
                break;
            }
        }
        true
    });
    let [a, b] = targets;
    let running =
        Running::start(program(vec![public()], vec![device("vol0", vec![path("a", a), path("b", b)])]));
    running.await_paths("vol0", &[PathState::Up, PathState::Up]);
    let mut host = Host::simple(running.address(0), "vol0");
    // In turn: one of two goes to the server that closes.
    for offset in [MIB, 4 * MIB] {
        let data = host.read(offset, MIB).unwrap();
        let expected = &disk.lock().unwrap()[offset as usize..(offset + MIB) as usize];
        assert!(data == expected, "the read at {offset} is put together wrongly");
    }
    let mut seen = seen.lock().unwrap().clone();
    seen.sort_unstable();
    let rest = seen.iter().find(|(_, len)| *len == MIB - KEPT).expect("only the rest was read");
    assert!(seen.len() == 2 && (rest.0 == MIB + KEPT || rest.0 == 4 * MIB + KEPT), "{seen:?}");
    drop(host);
    running.stop(5 * SECOND);
}
