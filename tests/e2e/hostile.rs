// SPDX-License-Identifier: MIT OR Apache-2.0
//! Hosts that send nonsense, too much, too little, or never read: they harm nobody else.
//!
//! A well-behaved host with a verifying load runs beside every one of them.

use std::time::{Duration, Instant};

use tests_support::holdfast::{Config, Device, Node};
use tests_support::storage::{Options, Storage};
use tests_support::wire::{
    COMMAND_FUA, Client, ClientError, OPTION_MAGIC, Request, command, errno, go_payload, option,
    option_frame, reply,
};
use tests_support::{Endpoint, Load, TestDir, loopback, run_status, wait};

const DEVICE: &str = "vol0";
const MIB: u64 = 1 << 20;

struct Site {
    node: Node,
    _storage: Storage,
    _dir: TestDir,
}

fn site(change: impl Fn(Config) -> Config) -> Site {
    let dir = TestDir::new();
    let storage = Storage::start(
        &Endpoint::tcp(loopback(), 10809),
        Options::of(&dir.patterned_image("image", 40 * MIB, 1)),
    );
    let device = Device::new(DEVICE).path("a", &storage.endpoint().uri(""));
    let node = Node::start(&dir, &change(Config::new(&dir).device(device)));
    node.await_state(DEVICE, "a", "up");
    Site { node, _storage: storage, _dir: dir }
}

/// One hostile connection: what it sends, and at which point.
enum Hostility {
    /// Instead of the client's flags.
    AfterGreeting(Vec<u8>),
    /// Instead of an option.
    AsOption(Vec<u8>),
    /// Instead of a request.
    AsRequest(Vec<u8>),
    /// The same, and the host goes without reading a reply.
    ThenLeave(Vec<u8>),
}

fn hostilities() -> Vec<(&'static str, Hostility)> {
    use Hostility::{AfterGreeting, AsOption, AsRequest, ThenLeave};
    let noise: Vec<u8> = (0..4096_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let huge_option = |number: u32| {
        let mut bytes = OPTION_MAGIC.to_be_bytes().to_vec();
        bytes.extend_from_slice(&number.to_be_bytes());
        bytes.extend_from_slice(&u32::MAX.to_be_bytes());
        bytes
    };
    let mut wrong_magic = Request::new(command::READ, 1, 0, 512).encode().to_vec();
    wrong_magic[0] ^= 0xff;
    let half_write = [&Request::new(command::WRITE, 1, 0, 65536).encode()[..], &[0xee; 1000]].concat();
    let unread: Vec<u8> =
        (0..8).flat_map(|cookie| Request::new(command::READ, cookie, 0, 65536).encode()).collect();
    let flood: Vec<u8> = (0..2000).flat_map(|_| option_frame(0x7777, &[])).collect();
    vec![
        ("noise for flags", AfterGreeting(noise.clone())),
        ("unknown client flags", AfterGreeting(vec![0xff; 4])),
        ("noise for an option", AsOption(noise.clone())),
        ("GO of 4 GiB", AsOption(huge_option(option::GO))),
        ("unknown option of 4 GiB", AsOption(huge_option(0x7777))),
        ("EXPORT_NAME of 4 GiB", AsOption(huge_option(option::EXPORT_NAME))),
        ("unknown export by EXPORT_NAME", AsOption(option_frame(option::EXPORT_NAME, b"nobody"))),
        ("two thousand options", AsOption(flood)),
        ("noise for a request", AsRequest(noise)),
        ("wrong request magic", AsRequest(wrong_magic)),
        ("half a header", ThenLeave(half_write[..13].to_vec())),
        ("half a WRITE", ThenLeave(half_write)),
        ("replies that are never read", ThenLeave(unread)),
        ("WRITE of 4 GiB", AsRequest(Request::new(command::WRITE, 1, 0, u32::MAX).encode().to_vec())),
    ]
}

/// Connects and sends it; the node must close the connection, unless the host does.
fn suffer(host: &Endpoint, name: &str, hostility: &Hostility) {
    let (mut client, bytes) = match hostility {
        Hostility::ThenLeave(bytes) => {
            let mut client = Client::open(host, DEVICE).expect("opened");
            client.send(bytes).expect("the socket takes it");
            return;
        }
        Hostility::AfterGreeting(bytes) => (Client::greet(host).expect("greeted"), bytes),
        Hostility::AsOption(bytes) => {
            let mut client = Client::greet(host).expect("greeted");
            client.send(&3_u32.to_be_bytes()).expect("flags are taken");
            (client, bytes)
        }
        Hostility::AsRequest(bytes) => (Client::open(host, DEVICE).expect("opened"), bytes),
    };
    // It may close before it has taken everything.
    let _ = client.send(bytes);
    client.await_eof().unwrap_or_else(|e| panic!("{name}: the connection stays open: {e:?}"));
}

#[test]
fn nonsense_closes_its_own_connection_alone() {
    let site = site(|config| config);
    let load = Load::options().region(36 * MIB, MIB).start(site.node.host(), DEVICE);
    for (name, hostility) in hostilities() {
        suffer(site.node.host(), name, &hostility);
        load.await_progress(20);
    }
    load.finish().assert_clean();
}

/// Options that are wrong in a way the protocol has an answer for are answered, and the
/// handshake goes on.
#[test]
fn wrong_options_are_answered() {
    let site = site(|config| config);
    let mut client = Client::greet(site.node.host()).expect("greeted");
    client.send(&3_u32.to_be_bytes()).expect("flags are taken");
    let beyond = [&[0, 0, 0, 200][..], b"vol0", &[0, 0]].concat();
    let trailing = [go_payload(DEVICE), vec![1, 2, 3]].concat();
    let with_nul = go_payload("vol0\0");
    let too_long = go_payload(&"x".repeat(5000));
    let cases: [(&str, u32, &[u8], &[u32]); 9] = [
        ("unknown option", 0x7777, b"data", &[reply::ERR_UNSUP]),
        ("too short GO", option::GO, &[0, 0], &[reply::ERR_INVALID]),
        ("name beyond the option", option::GO, &beyond, &[reply::ERR_INVALID]),
        ("bytes after GO", option::GO, &trailing, &[reply::ERR_INVALID]),
        ("NUL in a name", option::GO, &with_nul, &[reply::ERR_INVALID, reply::ERR_UNKNOWN]),
        ("name of 5000 bytes", option::GO, &too_long, &[reply::ERR_INVALID, reply::ERR_UNKNOWN]),
        ("LIST with data", option::LIST, b"data", &[reply::ERR_INVALID]),
        ("unknown export", option::INFO, &go_payload("nobody"), &[reply::ERR_UNKNOWN]),
        ("TLS that is not configured", option::STARTTLS, &[], &[reply::ERR_UNSUP, reply::ERR_POLICY]),
    ];
    for (name, number, payload, allowed) in cases {
        let answer = client.option(number, payload).unwrap_or_else(|e| panic!("{name}: {e:?}"));
        assert!(allowed.contains(&answer.kind), "{name}: answered {:#x} {}", answer.kind, answer.text());
        assert_eq!(answer.option, number, "{name}");
    }
    client.go(DEVICE).expect("the handshake goes on");
    assert_eq!(client.read(0, 512).expect("it serves").error, 0);
}

/// Name, command, flags, offset, length, errors that are right.
type WrongRequest = (&'static str, u16, u16, u64, u32, &'static [u32]);

/// Requests that are wrong in a way the protocol has an answer for are answered, and the
/// session goes on: payloads of refused writes are taken off the stream.
#[test]
fn wrong_requests_are_answered() {
    let site = site(|config| config);
    let mut client = site.node.open(DEVICE);
    let size = client.size_bytes();
    let cases: [WrongRequest; 10] = [
        ("READ past the end", command::READ, 0, size - 512, 1024, &[errno::EINVAL]),
        ("READ at a wrapping offset", command::READ, 0, u64::MAX - 511, 1024, &[errno::EINVAL]),
        ("READ far beyond", command::READ, 0, 1 << 63, 512, &[errno::EINVAL]),
        ("WRITE past the end", command::WRITE, 0, size - 512, 1024, &[errno::ENOSPC, errno::EINVAL]),
        ("TRIM past the end", command::TRIM, 0, size, 512, &[errno::EINVAL]),
        ("ZEROES past the end", command::WRITE_ZEROES, 0, size, 512, &[errno::ENOSPC, errno::EINVAL]),
        ("unknown command", 77, 0, 0, 512, &[errno::EINVAL]),
        ("unknown flag", command::READ, 0x4000, 0, 512, &[errno::EINVAL]),
        ("FAST_ZERO on a WRITE", command::WRITE, 1 << 4, 0, 512, &[errno::EINVAL]),
        ("BLOCK_STATUS not negotiated", command::BLOCK_STATUS, 0, 0, 512, &[errno::EINVAL]),
    ];
    for (name, command, flags, offset, len, allowed) in cases {
        let payload = if command == command::WRITE { vec![1; len as usize] } else { Vec::new() };
        client.submit(command, flags, offset, len, &payload).expect("the socket takes it");
        let answer = client.reply(|_| len as usize).unwrap_or_else(|e| panic!("{name}: {e:?}"));
        assert!(allowed.contains(&answer.error), "{name}: answered {}", answer.error);
        // Still in step.
        assert_eq!(client.read(4096, 512).unwrap_or_else(|e| panic!("{name}: {e:?}")).error, 0);
    }
    client.submit(command::WRITE, COMMAND_FUA, 4096, 512, &[3; 512]).expect("the socket takes it");
    assert_eq!(client.reply(|_| 0).expect("in step").error, 0);
    client.disconnect().expect("a clean end");
}

#[test]
fn half_frames_are_dropped_with_their_connection() {
    let site = site(|config| config);
    let load = Load::options().region(36 * MIB, MIB).start(site.node.host(), DEVICE);
    let before = {
        let mut reader = site.node.open(DEVICE);
        reader.read(0, 4096).expect("it serves").data
    };
    for bytes in [1, 27, 28, 28 + 1, 28 + 4095] {
        let mut client = site.node.open(DEVICE);
        let mut frame = Request::new(command::WRITE, 1, 0, 4096).encode().to_vec();
        frame.extend_from_slice(&[0xee; 4096]);
        client.send(&frame[..bytes]).expect("the socket takes it");
        drop(client);
    }
    for bytes in [1, 3, 10, 19] {
        let mut client = Client::greet(site.node.host()).expect("greeted");
        let mut handshake = 3_u32.to_be_bytes().to_vec();
        handshake.extend(option_frame(option::GO, &go_payload(DEVICE)));
        client.send(&handshake[..bytes]).expect("the socket takes it");
        drop(client);
    }
    load.await_progress(200);
    let after = site.node.open(DEVICE).read(0, 4096).expect("it serves").data;
    assert_eq!(after, before, "half a WRITE was executed");
    load.finish().assert_clean();
}

/// A frame may come one byte at a time.
#[test]
fn slow_bytes_are_put_together() {
    let site = site(|config| config);
    let mut client = site.node.open(DEVICE);
    let mut write = Request::new(command::WRITE, 1, 0, 512).encode().to_vec();
    write.extend_from_slice(&[5; 512]);
    for byte in write {
        client.send(&[byte]).expect("the socket takes it");
    }
    assert_eq!(client.reply(|_| 0).expect("executed").error, 0);
    for byte in Request::new(command::READ, 2, 0, 512).encode() {
        client.send(&[byte]).expect("the socket takes it");
    }
    assert_eq!(client.reply(|_| 512).expect("executed").data, [5; 512]);
}

#[test]
fn a_host_that_never_reads_is_bounded() {
    let mut site = site(|config| config.node(r#"memory = "128MiB""#));
    let load = Load::options().region(36 * MIB, MIB).start(site.node.host(), DEVICE);
    load.await_progress(500);
    let before = site.node.process().resident_bytes();
    let deaf: Vec<Client> = (0..4)
        .map(|_| {
            let mut client = site.node.open(DEVICE);
            client.set_read_bound(Duration::from_secs(1)).expect("a socket has a bound");
            let mut requests = Vec::new();
            for cookie in 0..256_u64 {
                requests.extend_from_slice(&Request::new(command::READ, cookie, 0, MIB as u32).encode());
            }
            client.send(&requests).expect("the socket takes them");
            client
        })
        .collect();
    // They ask for 1 GiB; the others are served all the same.
    load.await_progress(2000);
    let grown = site.node.process().resident_bytes().saturating_sub(before);
    assert!(grown < 160 * MIB, "{} MiB for hosts that never read", grown / MIB);
    drop(deaf);
    load.await_progress(500);
    load.finish().assert_clean();
}

#[test]
fn ten_thousand_hostile_connections_leave_memory_where_it_was() {
    let mut site = site(|config| config);
    // Flushed often: what is acknowledged and not flushed is retained, and is no leak.
    let load = Load::options().depth(2).region(36 * MIB, MIB).flush_every(50).start(site.node.host(), DEVICE);
    let cases = hostilities();
    let host = site.node.host().clone();
    let round = |count: usize| {
        for index in 0..count {
            let (name, hostility) = &cases[index % cases.len()];
            suffer(&host, name, hostility);
        }
    };
    // Pools and tables have their size after the first thousand.
    round(1000);
    let (memory, descriptors) = (site.node.process().resident_bytes(), site.node.process().descriptors());
    round(9000);
    let grown = site.node.process().resident_bytes().saturating_sub(memory);
    assert!(grown < 4 * MIB, "{} KiB more after 9000 connections", grown / 1024);
    wait::until_true("descriptors to be closed", || site.node.process().descriptors() <= descriptors + 4);
    load.finish().assert_clean();
}

/// Both with the default of 10 s: a host that says nothing, and one that goes on asking.
#[test]
fn a_handshake_that_never_ends_is_closed() {
    let site = site(|config| config);
    let start = Instant::now();
    let mut silent = Client::greet(site.node.host()).expect("greeted");
    let mut chatty = Client::greet(site.node.host()).expect("greeted");
    chatty.send(&3_u32.to_be_bytes()).expect("flags are taken");
    let chatting = std::thread::spawn(move || {
        // Well-formed and endless; slow enough not to meet a limit on their number.
        while chatty.option(option::INFO, &go_payload(DEVICE)).is_ok() && start.elapsed().as_secs() < 40 {
            while chatty.option_reply().is_ok_and(|answer| answer.kind == reply::INFO) {}
            wait::pass(Duration::from_millis(500));
        }
        start.elapsed()
    });
    silent.await_eof().expect("closed");
    let silent_for = start.elapsed();
    assert!(silent_for >= Duration::from_secs(9), "closed after {} ms", silent_for.as_millis());
    assert!(silent_for < Duration::from_secs(20), "closed only after {} ms", silent_for.as_millis());
    let chatty_for = chatting.join().expect("the host does not panic");
    assert!(chatty_for < Duration::from_secs(20), "closed only after {} ms", chatty_for.as_millis());
    let mut patient = site.node.open(DEVICE);
    assert_eq!(patient.read(0, 512).expect("others are served").error, 0);
}

#[test]
fn the_connection_cap_holds() {
    let mut site = site(|config| config.listen_key("max_sessions = 4"));
    let mut within: Vec<Client> = (0..4).map(|_| site.node.open(DEVICE)).collect();
    let start = Instant::now();
    match Client::open(site.node.host(), DEVICE) {
        Err(ClientError::Refused(_, text)) => assert!(text.contains("max_sessions"), "unclear: {text}"),
        other => panic!("the fifth session was not told why it cannot be had: {other:?}"),
    }
    let libnbd = run_status("nbdinfo", [site.node.host().uri(DEVICE)]);
    assert!(libnbd.status != 0, "a fifth session: {libnbd:?}");
    assert!(start.elapsed() < Duration::from_secs(5), "an answer, not a time-out");
    // Those that are told are bounded too: many that only linger cost no more than the rest of them.
    let lingering: Vec<_> = (0..200).map(|_| Client::greet(site.node.host())).collect();
    let told = lingering.iter().filter(|greeting| greeting.is_ok()).count();
    assert!((1..=64).contains(&told), "{told} connections above the cap are kept waiting");
    wait::until_true("the lingering to be closed", || {
        matches!(Client::open(site.node.host(), DEVICE), Err(ClientError::Refused(..)))
    });
    assert!(site.node.process().log().contains("max_sessions"), "an operator is not told");
    for session in &mut within {
        assert_eq!(session.read(0, 512).expect("those within are served").error, 0);
    }
    drop(within);
    wait::until_true("room for another", || Client::open(site.node.host(), DEVICE).is_ok());
}
