// SPDX-License-Identifier: MIT OR Apache-2.0
//! The built binary: exit statuses and messages, and one node's life from start to stop.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Output, Stdio};

use tempfile::TempDir;

fn holdfast(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
    command.args(arguments).env_remove("HOLDFAST_API").stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = holdfast(arguments).output().expect("it runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (status.code(), text(stdout), text(stderr))
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

#[test]
fn check_reports_every_mistake_and_touches_nothing() {
    let dir = TempDir::new().expect("temporary directory");
    let (file, state) = (dir.path().join("bad.toml"), dir.path().join("state"));
    let device = "[[device]]\nname = \"vol0\"\npolcy = \"active-active\"\n";
    fs::write(&file, format!("[node]\nstate_dir = \"{}\"\nmemory = \"1MB\"\n{device}", state.display()))
        .expect("written");
    let (code, out, err) = run(&["check", "--config", text(&file)]);
    assert_eq!((code, out.as_str()), (Some(78), ""));
    for told in [
        ":3:10",
        "unknown unit `MB`",
        ":6:1",
        "did you mean `policy`?",
        "device \"vol0\" has no path",
        "3 mistakes",
    ] {
        assert!(err.contains(told), "{told} is missing:\n{err}");
    }
    assert!(!err.contains('\x1b'), "no colours into a pipe");
    let path = "[[device.path]]\nname = \"a\"\nuri = \"nbd://no.such.host.invalid/vol0\"\n";
    let good = format!("[node]\nstate_dir = \"{}\"\n[[device]]\nname = \"vol0\"\n{path}", state.display());
    fs::write(&file, good).expect("written");
    let (code, out, err) = run(&["check", "--config", text(&file)]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert_eq!(out, format!("{}: good, 1 device with 1 path\n", file.display()));
    assert!(!state.exists());
}

#[test]
fn the_sample_configuration_is_good() {
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/holdfast.toml");
    let (code, _, err) = run(&["check", "--config", text(&sample)]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    let (code, shown, _) = run(&["config", "show", "--config", text(&sample)]);
    assert_eq!(code, Some(0));
    assert!(shown.contains("name = \"vol0\"") && shown.contains("# default"), "{shown}");
}

#[test]
fn each_kind_of_failure_has_its_status_and_text() {
    let dir = TempDir::new().expect("temporary directory");
    let absent = dir.path().join("absent.toml");
    let socket = dir.path().join("api.sock");
    let file = dir.path().join("file");
    fs::write(&file, "").expect("written");
    let api = format!("unix:{}", socket.display());
    let export = format!("vol0={}", dir.path().join("absent.img").display());
    let below_file = file.join("state");
    for (arguments, status, told) in [
        (vec!["serv"], 2, "unrecognized subcommand"),
        (vec!["gate", "--export", "x"], 2, "NAME=FILE"),
        (
            vec!["gate", "--export", "v=memory:,size=1MiB", "--listen", "localhost:1"],
            2,
            "not a numeric address",
        ),
        (vec!["serve", "--config", text(&absent)], 78, "cannot read the configuration"),
        (vec!["serve", "--demo", "--state-dir", text(&below_file)], 71, "cannot create the state directory"),
        (vec!["gate", "--export", &export], 69, "add ,size=SIZE to create it"),
        (vec!["status", "--api", &api], 69, "cannot be reached"),
        (vec!["path", "fail", "vol0", "a", "--api", &api], 69, "cannot be reached"),
    ] {
        let (code, _, err) = run(&arguments);
        assert_eq!(code, Some(status), "{arguments:?}: {err}");
        assert!(err.contains(told), "{arguments:?}: {err}");
    }
    let output = holdfast(&["status"]).env("HOLDFAST_API", "nonsense").output().expect("it runs");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("HOLDFAST_API"), "{output:?}");
}

#[test]
fn a_taken_port_is_told_before_anything_runs() {
    let dir = TempDir::new().expect("temporary directory");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port();
    let config = dir.path().join("holdfast.toml");
    let socket = dir.path().join("nbd.sock");
    for (listen, told) in [
        (format!("nbd = [\"unix:{}\"]\napi = \"127.0.0.1:{port}\"", socket.display()), "for the API"),
        (format!("nbd = [\"127.0.0.1:{port}\"]\napi = \"off\""), "cannot listen on"),
    ] {
        fs::write(&config, format!("[listen]\n{listen}\n")).expect("written");
        let state = dir.path().join("state");
        let (code, _, err) = run(&["serve", "--config", text(&config), "--state-dir", text(&state)]);
        assert_eq!(code, Some(69), "{err}");
        assert!(err.contains(told) && err.contains(&port.to_string()), "{err}");
    }
}

/// A running node; killed if the test ends before it does.
struct Running {
    child: Child,
    log: BufReader<ChildStderr>,
}

impl Running {
    fn start(arguments: &[&str]) -> Self {
        let mut child =
            holdfast(arguments).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().expect("it starts");
        let log = BufReader::new(child.stderr.take().expect("piped"));
        let mut running = Self { child, log };
        running.wait_for(" running ");
        running
    }

    /// Reads the log up to a line with `word`.
    fn wait_for(&mut self, word: &str) -> String {
        let mut read = String::new();
        loop {
            let from = read.len();
            assert!(self.log.read_line(&mut read).expect("readable") > 0, "it ended:\n{read}");
            if read[from..].contains(word) {
                return read[from..].to_owned();
            }
        }
    }

    fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).expect("a PID"));
        nix::sys::signal::kill(pid, signal).expect("signalled");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail when it has ended, which is as well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Connects as a host and reads the server's greeting.
fn greeting(socket: &Path) -> [u8; 18] {
    let mut host = UnixStream::connect(socket).expect("connects");
    let mut greeting = [0; 18];
    host.read_exact(&mut greeting).expect("greets");
    // Closing is all the goodbye that is needed here.
    host.flush().expect("nothing to flush");
    greeting
}

#[test]
fn a_node_lives_from_start_to_stop() {
    use nix::sys::signal::Signal;
    let dir = TempDir::new().expect("temporary directory");
    let at = |name: &str| dir.path().join(name);
    let (state, nbd, storage) = (at("state"), at("nbd.sock"), at("storage.sock"));
    let config = |extra: &str| {
        let uri = format!("nbd+unix:///vol0?socket={}", storage.display());
        let paths =
            ["a", "b"].map(|name| format!("[[device.path]]\nname = \"{name}\"\nuri = \"{uri}\"\n")).concat();
        let listen = format!("[listen]\nnbd = [\"unix:{}\"]\napi = \"off\"\n", nbd.display());
        fs::write(
            at("holdfast.toml"),
            format!("{listen}[[device]]\nname = \"vol0\"\nid = \"x\"\n{extra}{paths}"),
        )
        .expect("written");
    };
    config("");
    let export = format!("vol0={},size=16MiB", at("disk.img").display());
    let mut gate =
        Running::start(&["gate", "--export", &export, "--listen", &format!("unix:{}", storage.display())]);
    let mut node =
        Running::start(&["serve", "--config", text(&at("holdfast.toml")), "--state-dir", text(&state)]);
    let api = format!("unix:{}", state.join("api.sock").display());
    let ask = |arguments: &[&str]| run(&[arguments, &["--api", &api]].concat());
    assert_eq!(&greeting(&nbd)[..16], b"NBDMAGICIHAVEOPT");

    // In either order.
    node.wait_for("path down -> up");
    node.wait_for("path down -> up");
    let (code, out, err) = ask(&["status", "--json"]);
    assert_eq!(code, Some(0), "{err}");
    let status: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    let device = &status["devices"][0];
    assert_eq!((&device["name"], &device["state"]), (&"vol0".into(), &"optimal".into()), "{out}");
    assert_eq!(device["size_bytes"], 16 << 20);

    let (code, out, err) = ask(&["path", "drain", "vol0", "a"]);
    assert_eq!(code, Some(0), "{out}{err}");
    node.wait_for("-> drained");
    let (_, out, _) = ask(&["status", "vol0"]);
    assert!(out.contains("drained"), "{out}");
    let (code, out, _) = ask(&["events"]);
    assert!(code == Some(0) && out.contains("path_command vol0/a"), "{out}");
    let (code, _, err) = ask(&["path", "fail", "vol0", "c"]);
    assert!(code == Some(1) && err.contains("its paths are: a, b"), "{err}");

    config("quiesce = \"9s\"\n");
    node.signal(Signal::SIGHUP);
    assert!(node.wait_for("reloaded").contains("generation 2"));
    config("quiesce = \"9 sec\"\n");
    let (code, _, err) = ask(&["reload"]);
    assert!(
        code == Some(78) && err.contains("unknown unit `sec`") && err.contains("stays in force"),
        "{err}"
    );
    let (_, out, _) = ask(&["config", "show"]);
    assert!(out.contains("quiesce = \"9s\""), "{out}");

    node.signal(Signal::SIGTERM);
    node.wait_for("stopped");
    assert_eq!(node.child.wait().expect("ended").code(), Some(0));
    assert!(state.join("devices/vol0.json").exists() && !state.join("api.sock").exists());
    gate.signal(Signal::SIGINT);
    gate.wait_for("stopped");
    assert_eq!(gate.child.wait().expect("ended").code(), Some(0));
}
