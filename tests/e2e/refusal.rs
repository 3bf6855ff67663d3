// SPDX-License-Identifier: MIT OR Apache-2.0
//! Paths that must not serve (design: identity and capabilities), and paths that may
//! though they can do less.

use tests_support::holdfast::{Config, Device, Node};
use tests_support::storage::{Options, Storage};
use tests_support::wire::{COMMAND_FUA, command, flags};
use tests_support::{Endpoint, Load, Namespace, Stamp, TestDir, loopback, wait};

use crate::rig::DEVICE;

const MIB: u64 = 1 << 20;

/// Size of the host's requests in these tests: no probe has it.
const REQUEST_BYTES: u32 = 3 * 4096;

struct Pair {
    node: Node,
    good: Storage,
    odd: Storage,
    _dir: TestDir,
}

/// A device with a good path `a` that is up first, and an odd one `b` that joins later.
fn with_odd_path(image: impl Fn(&TestDir) -> String, odd: impl Fn(&TestDir, Options) -> Options) -> Pair {
    let dir = TestDir::new();
    let ip = loopback();
    let (first, second) = (Endpoint::tcp(ip, 10809), Endpoint::tcp(ip, 10810));
    let image = image(&dir);
    let good = Storage::start(&first, Options::of(&image));
    let device = Device::new(DEVICE).path("a", &first.uri("")).path("b", &second.uri(""));
    let node = Node::start(&dir, &Config::new(&dir).device(device));
    node.await_state(DEVICE, "a", "up");
    let odd = Storage::start(&second, odd(&dir, Options::of(&image)));
    Pair { node, good, odd, _dir: dir }
}

impl Pair {
    /// Requests of hosts that the odd path was sent.
    fn host_requests_of_odd(&self) -> usize {
        self.odd.record().count(|entry| entry.len == REQUEST_BYTES)
    }

    fn host_works(&self) {
        let mut host = self.node.open(DEVICE);
        for round in 0..100 {
            let offset = round % 8 * 4 * 4096;
            // Blocks of one byte repeated would prove no identity.
            let payload = Stamp { writer: 1, sequence: round + 1 }.fill(offset, REQUEST_BYTES as usize);
            assert_eq!(host.write(offset, &payload).expect("the good path works").error, 0);
            assert_eq!(host.read(offset, REQUEST_BYTES).expect("the good path works").data, payload);
        }
        host.disconnect().expect("closes");
    }
}

#[test]
fn paths_that_lead_elsewhere_are_refused() {
    type Odd = fn(&TestDir, Options) -> Options;
    let patterned = |dir: &TestDir| dir.patterned_image("image", 4 * MIB, 1);
    let cases: [(&str, &str, Odd); 4] = [
        ("other data", "other data", |dir, options| Options {
            file: dir.patterned_image("other", 4 * MIB, 2),
            ..options
        }),
        ("smaller", "size", |dir, options| Options {
            file: dir.patterned_image("small", 2 * MIB, 1),
            ..options
        }),
        ("no flush", "FLUSH", |_, options| Options { flags: options.flags & !flags::FLUSH, ..options }),
        ("larger minimum block", "block", |_, options| Options {
            block_sizes: Some([4096, 4096, 32 << 20]),
            ..options
        }),
    ];
    for (name, told, odd) in cases {
        let pair = with_odd_path(patterned, odd);
        let status = pair.node.await_state(DEVICE, "b", "refused");
        assert!(
            status.reason.to_lowercase().contains(&told.to_lowercase()),
            "{name}: the reason names no {told}: {}",
            status.reason
        );
        pair.host_works();
        assert_eq!(pair.host_requests_of_odd(), 0, "{name}: a host request reached it");
        assert!(pair.good.record().count(|entry| entry.len == REQUEST_BYTES) >= 200, "{name}");
    }
}

/// Blank volumes all look alike: the second path waits until a block that a host wrote
/// reads back equal through it.
#[test]
fn a_path_to_a_blank_volume_waits_for_proof() {
    let pair = with_odd_path(|dir| dir.image("image", 4 * MIB), |_, options| options);
    pair.node.await_state(DEVICE, "b", "unproven");
    assert_eq!(pair.host_requests_of_odd(), 0, "a host request reached an unproven path");
    pair.host_works();
    pair.node.await_state(DEVICE, "b", "up");
    pair.host_works();
    wait::until_true("the proven path to be used", || {
        pair.host_works();
        pair.host_requests_of_odd() > 0
    });
}

#[test]
fn a_blank_volume_elsewhere_never_joins() {
    let pair = with_odd_path(
        |dir| dir.image("image", 4 * MIB),
        |dir, options| Options { file: dir.image("another", 4 * MIB), ..options },
    );
    pair.node.await_state(DEVICE, "b", "unproven");
    pair.host_works();
    // Blocks that hosts wrote do not read back equal: not the same volume after all.
    pair.node.await_path(DEVICE, "b", "to be kept out", |path| path.state == "refused");
    assert_eq!(pair.host_requests_of_odd(), 0, "a host request reached another volume");
}

/// What one path lacks is done for it (FUA by WRITE and FLUSH, zeroes by WRITE), and
/// both paths serve.
#[test]
fn a_path_with_fewer_features_serves_too() {
    let lacking = !(flags::FUA | flags::TRIM | flags::WRITE_ZEROES);
    let pair = with_odd_path(
        |dir| dir.patterned_image("image", 40 * MIB, 1),
        |_, options| Options { flags: options.flags & lacking, ..options },
    );
    pair.node.await_state(DEVICE, "b", "up");
    let load = Load::options().region(36 * MIB, MIB).start(pair.node.host(), DEVICE);
    let mut host = pair.node.open(DEVICE);
    let told = host.flags();
    for needed in [flags::FUA, flags::TRIM, flags::WRITE_ZEROES] {
        assert_eq!(told & needed, needed, "flag {needed:#x} is not offered");
    }
    pair.node.await_in_use(DEVICE, &["a", "b"], 50);

    for round in 0..50_u64 {
        let offset = round * 4096;
        let fua = host.submit(command::WRITE, COMMAND_FUA, offset, 4096, &[round as u8; 4096]);
        fua.expect("the socket takes it");
        assert_eq!(host.reply(|_| 0).expect("a path is there").error, 0);
        assert_eq!(host.read(offset, 4096).expect("a path is there").data, [round as u8; 4096]);
        let zeroed = host.call(command::WRITE_ZEROES, 0, offset, 2048).expect("a path is there");
        assert_eq!(zeroed.error, 0);
        assert_eq!(host.read(offset, 2048).expect("a path is there").data, [0; 2048]);
        assert_eq!(host.call(command::TRIM, 0, offset, 4096).expect("a path is there").error, 0);
    }
    let odd = pair.odd.record();
    assert_eq!(odd.count(|entry| entry.flags & COMMAND_FUA != 0), 0, "FUA was sent to a path without it");
    assert_eq!(odd.count_of(command::TRIM) + odd.count_of(command::WRITE_ZEROES), 0);
    load.finish().assert_clean();

    // Now it has to do everything itself.
    drop(pair.good);
    let before = pair.odd.record().count_of(command::FLUSH);
    for round in 0..8_u64 {
        let offset = MIB + round * 4096;
        host.submit(command::WRITE, COMMAND_FUA, offset, 4096, &[9; 4096]).expect("the socket takes it");
        assert_eq!(host.reply(|_| 0).expect("a path is there").error, 0);
        let zeroed = host.call(command::WRITE_ZEROES, 0, offset, 2048).expect("a path is there");
        assert_eq!(zeroed.error, 0);
        let data = host.read(offset, 4096).expect("a path is there").data;
        assert!(
            data[..2048].iter().all(|b| *b == 0) && data[2048..].iter().all(|b| *b == 9),
            "round {round}"
        );
    }
    let flushes = pair.odd.record().count_of(command::FLUSH) - before;
    assert!(flushes >= 8, "FUA became {flushes} flushes");
    assert_eq!(pair.odd.record().count(|entry| entry.flags & COMMAND_FUA != 0), 0);
}

/// A path that leads to this very device would read itself and find that it is the same. The
/// configuration cannot see it where a listener takes every address of the machine.
#[test]
fn a_path_that_leads_back_is_not_used() {
    let dir = TestDir::new();
    let namespace = Namespace::new();
    namespace.ip("address add 192.0.2.1/32 dev lo");
    let own = Endpoint::tcp(std::net::Ipv4Addr::new(192, 0, 2, 1), 10809);
    let first = Endpoint::tcp(loopback(), 10810);
    let image = dir.patterned_image("image", 4 * MIB, 1);
    let storage = Storage::start_within(&namespace, &first, Options::of(&image));
    let device = Device::new(DEVICE).path("a", &first.uri("")).path("self", &own.uri(DEVICE));
    let everywhere = Endpoint::tcp(std::net::Ipv4Addr::UNSPECIFIED, 10809);
    let node = Node::start_within(&namespace, &dir, &Config::new(&dir).listen(&everywhere).device(device));
    node.await_state(DEVICE, "a", "up");
    let told =
        node.await_path(DEVICE, "self", "to be told why", |path| path.reason.contains("this very device"));
    assert_eq!(told.state, "down", "{told:?}");
    let mut host = node.open(DEVICE);
    for _ in 0..100 {
        assert_eq!(host.read(0, REQUEST_BYTES).expect("it serves").error, 0);
    }
    assert!(storage.record().count(|entry| entry.len == REQUEST_BYTES) >= 100, "requests went elsewhere");
    assert_eq!(node.device(DEVICE).number("inflight"), 0);
}

/// A larger path is taken at the size the host was told.
#[test]
fn complaint_18_a_larger_path_serves_at_the_exported_size() {
    let pair = with_odd_path(
        |dir| dir.patterned_image("image", 4 * MIB, 1),
        |_, options| Options { size_bytes: Some(6 * MIB), ..options },
    );
    pair.node.await_state(DEVICE, "b", "up");
    assert_eq!(pair.node.open(DEVICE).size_bytes(), 4 * MIB);
    wait::until_true("the larger path to be used", || {
        pair.host_works();
        pair.host_requests_of_odd() > 0
    });
}
