// SPDX-License-Identifier: MIT OR Apache-2.0
//! Single rules of the NBD protocol document, tried with libnbd and raw bytes.

use tests_support::holdfast::{Config, Device, Node};
use tests_support::servers::Nbdkit;
use tests_support::wire::{Client, command, flags, option, reply};
use tests_support::{Endpoint, TestDir, loopback};

use crate::clients::python;

const SIZE: u64 = 4 << 20;

struct Site {
    node: Node,
    _server: tests_support::servers::Server,
    _dir: TestDir,
}

fn site(devices: &[&str]) -> Site {
    let dir = TestDir::new();
    let image = dir.patterned_image("image", SIZE, 1);
    let server = Nbdkit::file(&image).threads(4).start(&dir, "nbdkit", &Endpoint::tcp(loopback(), 10809));
    let mut config = Config::new(&dir);
    for device in devices {
        config = config.device(Device::new(device).path("a", &server.endpoint().uri("")));
    }
    let node = Node::start(&dir, &config);
    for device in devices {
        node.await_state(device, "a", "up");
    }
    Site { node, _server: server, _dir: dir }
}

fn greeted(node: &Node) -> Client {
    let mut client = Client::greet(node.host()).expect("greeted");
    client.send(&3_u32.to_be_bytes()).expect("flags are taken");
    client
}

/// The empty name means the only device, and nothing where there are several.
#[test]
fn the_empty_export_name_is_the_only_device() {
    let one = site(&["vol0"]);
    assert_eq!(Client::open(one.node.host(), "").expect("the only device").size_bytes(), SIZE);
    let two = site(&["vol0", "vol1"]);
    assert!(Client::open(two.node.host(), "").is_err(), "which of two?");
}

#[test]
fn list_names_every_device() {
    let site = site(&["vol0", "vol1", "third"]);
    let mut client = greeted(&site.node);
    let mut answer = client.option(option::LIST, &[]).expect("LIST is known");
    let mut names = Vec::new();
    while answer.kind == reply::SERVER {
        names.push(String::from_utf8_lossy(&answer.data[4..]).into_owned());
        answer = client.option_reply().expect("the list goes on");
    }
    assert_eq!(answer.kind, reply::ACK);
    names.sort_unstable();
    assert_eq!(names, ["third", "vol0", "vol1"]);
    client.go("vol1").expect("the handshake goes on");
}

#[test]
fn abort_ends_the_handshake() {
    let site = site(&["vol0"]);
    let mut client = greeted(&site.node);
    assert_eq!(client.option(option::ABORT, &[]).expect("ABORT is known").kind, reply::ACK);
    client.await_eof().expect("closed");
}

/// 134 bytes of answer without NO_ZEROES, 10 with it.
#[test]
fn export_name_has_its_zeroes() {
    let site = site(&["vol0"]);
    let connect = r#"
import socket, struct
def export_name(flags):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(30)
    s.connect(sys.argv[1])
    def take(n):
        data = b""
        while len(data) < n:
            part = s.recv(n - len(data))
            assert part, "closed after %d of %d bytes" % (len(data), n)
            data += part
        return data
    take(18)
    s.sendall(struct.pack(">I", flags) + b"IHAVEOPT" + struct.pack(">II", 1, 4) + b"vol0")
    size, told = struct.unpack(">QH", take(10))
    assert size == 4 << 20, size
    if not flags & 2:
        assert take(124) == bytes(124)
    s.sendall(struct.pack(">IHHQQI", 0x25609513, 0, 0, 7, 0, 512))
    magic, error, cookie = struct.unpack(">IIQ", take(16))
    assert (magic, error, cookie) == (0x67446698, 0, 7)
    assert len(take(512)) == 512
    s.close()
export_name(1)
export_name(3)
h.connect_unix(sys.argv[1])
"#;
    let Endpoint::Unix(path) = site.node.host() else { panic!("hosts have a Unix socket") };
    python(&[path.to_str().expect("test paths are UTF-8")], connect, "");
}

#[test]
fn block_sizes_are_told_on_request() {
    let site = site(&["vol0"]);
    let script = r"
minimum = h.get_block_size(nbd.SIZE_MINIMUM)
preferred = h.get_block_size(nbd.SIZE_PREFERRED)
maximum = h.get_block_size(nbd.SIZE_MAXIMUM)
assert minimum in (0, 1), minimum
assert preferred >= 512 and preferred & (preferred - 1) == 0, preferred
assert maximum >= 1 << 20, maximum
h.pwrite(b'x' * (32 << 10), 3)
assert h.pread(5, 3) == b'xxxxx'
";
    python(&[&site.node.uri("vol0")], "h.connect_uri(sys.argv[1])", script);
}

/// Structured replies are used, and DF keeps a reply in one piece.
#[test]
fn structured_replies_and_block_status() {
    let site = site(&["vol0"]);
    let script = r#"
assert h.get_structured_replies_negotiated()
assert h.can_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
pieces = []
data = h.pread_structured(65536, 0, lambda buf, off, status, err: pieces.append((off, len(buf))), nbd.CMD_FLAG_DF)
assert pieces == [(0, 65536)], pieces
h.zero(1 << 20, 1 << 20)
seen = []
def extents(context, offset, entries, error):
    assert context == "base:allocation", context
    seen.extend(entries)
offset = 0
while offset < h.get_size():
    seen.clear()
    h.block_status(h.get_size() - offset, offset, extents)
    covered = sum(seen[0::2])
    assert covered > 0
    offset += covered
assert offset == h.get_size(), offset
h.block_status(65536, 0, extents, nbd.CMD_FLAG_REQ_ONE)
"#;
    let connect = "h.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)\nh.connect_uri(sys.argv[1])";
    python(&[&site.node.uri("vol0")], connect, script);
}

/// A request of 32 MiB is served, whatever the storage takes at once: here 1 MiB, and it
/// answers EINVAL to more.
#[test]
fn large_requests_are_served() {
    let dir = TestDir::new();
    let image = dir.image("image", 40 << 20);
    let limits = ["blocksize-maximum=1M", "blocksize-error-policy=error"];
    let server = Nbdkit::file(&image).filter("blocksize-policy", &limits).start(
        &dir,
        "nbdkit",
        &Endpoint::tcp(loopback(), 10809),
    );
    let device = Device::new("vol0").path("a", &server.endpoint().uri(""));
    let node = Node::start(&dir, &Config::new(&dir).device(device));
    node.await_state("vol0", "a", "up");
    let script = r"
assert h.get_block_size(nbd.SIZE_MAXIMUM) == 32 << 20
data = bytes(range(251)) * ((32 << 20) // 251 + 1)
data = data[:32 << 20]
h.pwrite(data, 4096)
assert h.pread(32 << 20, 4096) == data
h.zero(32 << 20, 4096)
assert h.pread(32 << 20, 4096) == bytes(32 << 20)
h.trim(40 << 20, 0)
";
    python(&[&node.uri("vol0")], "h.connect_uri(sys.argv[1])", script);
    assert_eq!(node.path("vol0", "a").errors, 0, "the storage was sent too much at once");
}

/// Extended headers: requests of 32 bytes with lengths of 64 bits, replies in extended chunks,
/// as the branch of the protocol document has them. Debian's libnbd does not speak them.
#[test]
fn extended_headers_are_spoken() {
    const SIZE: u64 = 5 << 30;
    let dir = TestDir::new();
    let image = dir.image("image", SIZE);
    let device = Device::new("vol0").path("a", &format!("file://{image}"));
    let node = Node::start(&dir, &Config::new(&dir).device(device));
    node.await_state("vol0", "a", "up");
    let mut client = greeted(&node);
    assert_eq!(client.option(11, &[]).expect("answered").kind, reply::ACK);
    client.go("vol0").expect("opened");

    let mut request = |command: u16, flags: u16, offset: u64, len: u64, payload: &[u8]| {
        let mut bytes = 0x21e4_1c71_u32.to_be_bytes().to_vec();
        bytes.extend([flags, command].iter().flat_map(|field| field.to_be_bytes()));
        bytes.extend([7, offset, len].iter().flat_map(|field| field.to_be_bytes()));
        bytes.extend(payload);
        client.send(&bytes).expect("the socket takes it");
        let header = client.receive(32).expect("a chunk");
        let field = |at: usize| u64::from_be_bytes(header[at..at + 8].try_into().expect("eight bytes"));
        assert_eq!(header[..4], 0x6e8a_278c_u32.to_be_bytes(), "{header:02x?}");
        assert_eq!((field(8), field(16)), (7, offset), "cookie and offset come back");
        let (done, kind) = (header[5], u16::from_be_bytes([header[6], header[7]]));
        assert_eq!(done, 1, "one chunk is the whole reply");
        (kind, client.receive(field(24) as usize).expect("its payload"))
    };
    // WRITE with PAYLOAD_LEN: NONE. READ: OFFSET_DATA. Zeroes over more than 4 GiB: NONE.
    assert_eq!(request(command::WRITE, 1 << 5, 8192, 4096, &[0x5a; 4096]), (0, Vec::new()));
    let (kind, payload) = request(command::READ, 0, 8192, 4096, &[]);
    assert_eq!((kind, &payload[..8]), (1, &8192_u64.to_be_bytes()[..]));
    assert_eq!(payload[8..], [0x5a; 4096]);
    assert_eq!(request(command::WRITE_ZEROES, 0, 0, SIZE, &[]), (0, Vec::new()));
    assert_eq!(request(command::READ, 0, 8192, 4096, &[]).1[8..], [0; 4096]);
    // Past the end: one ERROR chunk, EINVAL.
    let (kind, payload) = request(command::TRIM, 0, 4096, SIZE, &[]);
    assert_eq!((kind, &payload[..4]), (0x8001, &22_u32.to_be_bytes()[..]));
}

/// What one session wrote is there for all others at once: MULTI_CONN is true.
#[test]
fn sessions_see_each_other() {
    let site = site(&["vol0"]);
    let mut sessions: Vec<Client> = (0..4).map(|_| site.node.open("vol0")).collect();
    assert_ne!(sessions[0].flags() & flags::MULTI_CONN, 0);
    for round in 0..64_u8 {
        let writer = usize::from(round) % sessions.len();
        assert_eq!(sessions[writer].write(0, &[round; 4096]).expect("it serves").error, 0);
        for session in &mut sessions {
            assert_eq!(session.read(0, 4096).expect("it serves").data, [round; 4096]);
        }
    }
    for session in sessions {
        session.disconnect().expect("DISC closes");
    }
}

/// DISC finishes what is outstanding: the write before it is there afterwards.
#[test]
fn disc_finishes_outstanding_writes() {
    let site = site(&["vol0"]);
    let mut leaving = site.node.open("vol0");
    for index in 0..32_u64 {
        leaving.submit_write(index * 4096, &[0x77; 4096]).expect("the socket takes it");
    }
    leaving.submit(command::DISC, 0, 0, 0, &[]).expect("the socket takes it");
    leaving.await_eof().expect("closed");
    let mut reader = site.node.open("vol0");
    for index in 0..32_u64 {
        assert_eq!(reader.read(index * 4096, 4096).expect("it serves").data, [0x77; 4096], "block {index}");
    }
}

/// A cookie is the host's own affair: the same one twice is served twice.
#[test]
fn equal_cookies_are_served_twice() {
    let site = site(&["vol0"]);
    let mut client = site.node.open("vol0");
    for _ in 0..2 {
        let request = tests_support::wire::Request::new(command::READ, 42, 0, 512);
        client.send(&request.encode()).expect("the socket takes it");
    }
    for _ in 0..2 {
        let answer = client.reply(|_| 512).expect("it serves");
        assert_eq!((answer.cookie, answer.error), (42, 0));
    }
}
