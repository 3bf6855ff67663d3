// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bad input: each mistake has a message of its own, says where it is and what is
//! allowed, and loses nothing.

use tests_support::holdfast::{Config, Device, Node, binary_path, cli_status, command};
use tests_support::{Endpoint, Output, TestDir, loopback, run_status, wait};

/// Status of a bad configuration (sysexits: EX_CONFIG).
const BAD_CONFIGURATION: i32 = 78;
/// Status where the operating system refuses (EX_OSERR).
const NOT_ALLOWED: i32 = 71;
/// Status of a wrong command line.
const USAGE: i32 = 2;

fn check(dir: &TestDir, text: &str) -> Output {
    let path = dir.write("checked.toml", text);
    cli_status(&["check", "--config", &path.display().to_string()])
}

/// Each is one line of a device that is right otherwise, and words its message must have.
#[test]
fn each_mistake_has_its_own_message() {
    let dir = TestDir::new();
    let good = Config::new(&dir).device(Device::new("vol0").path("a", "nbd://127.0.0.1/x"));
    let accepted = check(&dir, &good.text());
    assert_eq!(accepted.status, 0, "{accepted:?}");
    assert_eq!(check(&dir, &format!("{}\n# a comment\n", good.text())).status, 0);

    let with = |line: &str| {
        let device = Device::new("vol0").key(line).path("a", "nbd://127.0.0.1/x");
        Config::new(&dir).device(device).text()
    };
    let path_with = |line: &str| {
        let device = Device::new("vol0").path("a", "nbd://127.0.0.1/x").path_key(line);
        Config::new(&dir).device(device).text()
    };
    let twice = Device::new("vol0").path("a", "nbd://127.0.0.1/x");
    let cases: Vec<(&str, String, &[&str])> = vec![
        ("unknown key", with("polcy = \"active-active\""), &["polcy", "policy"]),
        ("unknown key of a path", path_with("prioritty = 3"), &["prioritty", "priority"]),
        ("wrong type", with("coherent = 3"), &["coherent", "true"]),
        ("unknown word", with("policy = \"active\""), &["active-active", "active-passive"]),
        ("unknown selector", with("selector = \"best\""), &["latency", "round-robin"]),
        ("no duration", with("quiesce = \"5\""), &["quiesce", "unit", "5min"]),
        ("no size", with("retention = \"many\""), &["retention", "MiB"]),
        (
            "no URI",
            Config::new(&dir).device(Device::new("v").path("a", "10.0.0.1")).text(),
            &["scheme", "nbd+unix"],
        ),
        (
            "unknown scheme",
            Config::new(&dir).device(Device::new("v").path("a", "http://x/y")).text(),
            &["http", "nbd"],
        ),
        ("no path", Config::new(&dir).device(Device::new("vol0")).text(), &["vol0", "path"]),
        (
            "same device twice",
            Config::new(&dir).device(twice.clone()).device(twice).text(),
            &["vol0", "line"],
        ),
        (
            "same path twice",
            Config::new(&dir)
                .device(Device::new("v").path("a", "nbd://127.0.0.1/x").path("a", "nbd://127.0.0.2/x"))
                .text(),
            &["a", "line"],
        ),
        ("not TOML", "[node\nname = ".to_owned(), &["1"]),
        (
            "times that do not nest",
            with("canary = { interval = \"1s\", idle = \"10s\", deadline = \"9s\" }"),
            &["canary", "deadline"],
        ),
    ];
    for (name, text, words) in cases {
        let output = check(&dir, &text);
        assert_eq!(output.status, BAD_CONFIGURATION, "{name}: {output:?}");
        let told = format!("{}{}", output.stdout, output.stderr);
        assert!(told.contains("checked.toml:"), "{name}: no place: {told}");
        for word in words {
            assert!(told.contains(word), "{name}: does not say \"{word}\": {told}");
        }
    }
}

#[test]
fn all_mistakes_are_told_at_once() {
    let dir = TestDir::new();
    let text = "[node]\nnmae = \"x\"\n[listen]\nnbd = [\"nowhere\"]\n[[device]]\nname = \"v\"\npolicy = 3\n";
    let output = check(&dir, text);
    assert_eq!(output.status, BAD_CONFIGURATION, "{output:?}");
    let told = format!("{}{}", output.stdout, output.stderr);
    for place in ["checked.toml:2:", "checked.toml:4:", "checked.toml:7:", "path"] {
        assert!(told.contains(place), "\"{place}\" is missing: {told}");
    }
}

#[test]
fn a_wrong_command_line_is_told_how() {
    for arguments in
        [&["srve"][..], &["serve", "--confg", "x"], &["path", "fail"], &["path", "burn", "a", "b"]]
    {
        let output = cli_status(arguments);
        assert_eq!(output.status, USAGE, "{arguments:?}: {output:?}");
        assert!(output.stderr.contains("--help"), "{arguments:?}: {output:?}");
    }
    let missing = cli_status(&["serve", "--config", "no-such-file.toml"]);
    assert_ne!(missing.status, 0);
    assert!(missing.stderr.contains("no-such-file.toml"), "{missing:?}");
}

#[test]
fn a_bad_configuration_is_not_served() {
    let dir = TestDir::new();
    let path = dir.write("bad.toml", Config::new(&dir).device(Device::new("vol0")).text());
    let output = cli_status(&["serve", "--config", &path.display().to_string()]);
    assert_eq!(output.status, BAD_CONFIGURATION, "{output:?}");
    assert!(output.stderr.contains("bad.toml:"), "{output:?}");
}

#[test]
fn paths_that_lead_nowhere_do_not_keep_it_from_serving() {
    let dir = TestDir::new();
    let nobody = Endpoint::tcp(loopback(), 4);
    let device = Device::new("vol0")
        .path("refused", &nobody.uri(""))
        .path("unresolvable", "nbd://storage.invalid/x")
        .path("missing", "nbd+unix:///x?socket=/nowhere/at/all.sock")
        .path("file", "file:///nowhere/at/all.img");
    let mut node = Node::start(&dir, &Config::new(&dir).device(device));
    for (path, words) in [
        ("refused", &["refused"][..]),
        ("unresolvable", &["cannot be resolved"]),
        ("missing", &["all.sock", "No such file"]),
        ("file", &["all.img", "No such file"]),
    ] {
        let told = node.await_path("vol0", path, "to say why", |status| {
            words.iter().any(|word| status.reason.contains(word))
        });
        assert_eq!(told.state, "down", "{told:?}");
        // Its state never changed, and yet the log says so.
        node.await_event(0, "the path that leads nowhere to be told of", |event| {
            event.name == "path_unreachable"
                && event.path == path
                && event.json.get("text").text() == told.reason
        });
    }
    node.process().assert_running();
}

/// Each stops with a message that names what stands in the way.
#[test]
fn an_environment_that_does_not_allow_it_is_named() {
    let dir = TestDir::new();
    let ip = loopback();
    let device = || Device::new("vol0").path("a", &Endpoint::tcp(ip, 4).uri(""));

    let taken = std::net::TcpListener::bind((ip, 10809)).expect("our own address");
    let busy = Config::new(&dir).listen(&Endpoint::tcp(ip, 10809)).device(device());
    let path = dir.write("busy.toml", busy.text());
    let output = cli_status(&["serve", "--config", &path.display().to_string()]);
    assert!(output.status != 0 && output.status != BAD_CONFIGURATION, "{output:?}");
    assert!(output.stderr.contains(&format!("{ip}:10809")), "{output:?}");
    drop(taken);

    // Root may write anywhere, but nobody can make a directory where a file is.
    std::fs::remove_dir_all(dir.join("state")).expect("the first attempt made it");
    dir.write("state", "a file, not a directory");
    let path = dir.write("state.toml", Config::new(&dir).device(device()).text());
    let output = cli_status(&["serve", "--config", &path.display().to_string()]);
    assert!(output.status != 0 && output.status != BAD_CONFIGURATION, "{output:?}");
    assert!(output.stderr.contains(&dir.text("state")), "{output:?}");
}

/// Denies `io_uring_setup` (425 on every architecture) to the program it becomes, as the
/// seccomp profiles of container runtimes do: load the number, compare, EPERM or allow.
const WITHOUT_IO_URING: &str = r#"
import ctypes, os, struct, sys
rules = [(0x20, 0, 0, 0), (0x15, 0, 1, 425), (0x06, 0, 0, 0x00050001), (0x06, 0, 0, 0x7fff0000)]
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *rule) for rule in rules))
class Program(ctypes.Structure):
    _fields_ = [("len", ctypes.c_ushort), ("rules", ctypes.c_void_p)]
program = Program(len(rules), ctypes.addressof(code))
libc = ctypes.CDLL(None)
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, ctypes.byref(program)) == 0
os.execv(sys.argv[1], sys.argv[1:])
"#;

/// Where io_uring is forbidden the start fails, and says so and how to allow it.
#[test]
fn a_sandbox_without_io_uring_is_named() {
    let dir = TestDir::new();
    let script = dir.write("without.py", WITHOUT_IO_URING).display().to_string();
    let device = Device::new("vol0").path("a", &Endpoint::tcp(loopback(), 4).uri(""));
    let config = dir.write("node.toml", Config::new(&dir).device(device).text()).display().to_string();
    let listen = Endpoint::tcp(loopback(), 10809).to_string();
    let export = ["gate", "--listen", &listen, "--export", "m=memory:,size=1MiB"];
    for arguments in [&["serve", "--config", &config][..], &export] {
        let confined = ["-I", &script, &binary_path()].map(str::to_owned);
        let arguments = confined.into_iter().chain(arguments.iter().map(|&word| word.to_owned()));
        let output = run_status("/usr/bin/python3", arguments);
        assert_eq!(output.status, NOT_ALLOWED, "{output:?}");
        for word in ["io_uring is not allowed here", "io_uring_setup", "seccomp"] {
            assert!(output.stderr.contains(word), "does not say \"{word}\": {output:?}");
        }
    }
}

/// A second node on the same sockets must not take them from the first.
#[test]
fn a_second_node_does_not_steal_the_sockets_of_the_first() {
    let dir = TestDir::new();
    let device = Device::new("vol0").path("a", &Endpoint::tcp(loopback(), 4).uri(""));
    let config = Config::new(&dir).device(device);
    let mut first = Node::start(&dir, &config);
    let path = dir.write("second.toml", config.text());
    let mut second = command(&["serve", "--config", &path.display().to_string()]).spawn(&dir, "second");
    let exit = second.wait_within(wait::BOUND);
    assert_ne!(exit, tests_support::Exit::Code(0));
    assert!(second.log().contains(&dir.text("state")), "{}", second.log());
    first.process().assert_running();
    first.host().connects().expect("the first still listens");
    assert_eq!(first.api().get("/v1/status").expect("the first still answers").status, 200);
}
