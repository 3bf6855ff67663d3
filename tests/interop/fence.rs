// SPDX-License-Identifier: MIT OR Apache-2.0
//! The gate's fence with the built binary: who is let in, what ends, and what never lands (semantics 2.4).

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tests_support::holdfast::{Config, Device, Node, cli_status, command};
use tests_support::servers::{Nbdkit, Server};
use tests_support::wire::{Claim, Client, ClientError, GateIdentity, errno, reply};
use tests_support::{Endpoint, Exit, Fio, Process, TestDir, loopback, run, wait};

const SIZE: u64 = 16 << 20;
const KEY: [u8; 32] = [0x5a; 32];
const OTHER_KEY: [u8; 32] = [0xa5; 32];
const READ_ONLY: u16 = 1 << 1;

struct Gate {
    endpoint: Endpoint,
    process: Process,
}

/// A gate of `vol0` on a TCP port of its own.
fn start(dir: &TestDir, name: &str, storage: &str, more: &[&str]) -> Gate {
    start_on(dir, name, &Endpoint::tcp(loopback(), 10809), storage, more)
}

fn start_on(dir: &TestDir, name: &str, endpoint: &Endpoint, storage: &str, more: &[&str]) -> Gate {
    let listen = match endpoint {
        Endpoint::Tcp(address) => address.to_string(),
        Endpoint::Unix(path) => format!("unix:{}", path.display()),
    };
    let export = format!("vol0={storage}");
    let arguments = ["gate", "--reactors", "2", "--listen", &listen, "--export", &export];
    let process = command(&[&arguments, more].concat()).spawn(dir, name);
    endpoint.await_listening();
    Gate { endpoint: endpoint.clone(), process }
}

/// The kernel takes a moment to take down the listener of a process that was killed.
fn gone(endpoint: &Endpoint) {
    wait::until_true("the old listener to be gone", || endpoint.connects().is_err());
}

fn key_file(dir: &TestDir, name: &str, key: [u8; 32]) -> String {
    let text: Vec<String> = key.iter().map(|byte| format!("{byte:02x}")).collect();
    let path = dir.write(name, text.concat());
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("chmod");
    path.to_str().expect("UTF-8").to_owned()
}

fn open(gate: &Gate, claim: &Claim) -> Client {
    claim.open(&gate.endpoint).unwrap_or_else(|error| panic!("{claim:?}: {error:?}"))
}

fn identity(gate: &Gate) -> GateIdentity {
    Client::greet_gate(&gate.endpoint, "vol0").expect("a gate").1
}

fn block(image: &str, offset: usize) -> Vec<u8> {
    std::fs::read(image).expect("the image")[offset..offset + 512].to_vec()
}

#[test]
fn any_client_can_read_and_only_a_claim_writes() {
    let dir = TestDir::new();
    let image = dir.image("image", SIZE);
    let gate = start(&dir, "gate", &image, &[]);
    let info = run("nbdinfo", [gate.endpoint.uri("vol0")]);
    assert!(info.contains("x-holdfast:gate;v=1;") && info.contains("is_read_only: true"), "{info}");
    let mut plain = Client::open(&gate.endpoint, "vol0").expect("it serves");
    assert_eq!(plain.flags() & READ_ONLY, READ_ONLY);
    assert_eq!(plain.read(0, 512).expect("it serves").error, 0);
    assert_eq!(plain.write(0, &[1; 512]).expect("it answers").error, errno::EPERM);
    let mut claimed = open(&gate, &Claim::new(1, 7));
    assert_eq!(claimed.flags() & READ_ONLY, 0);
    assert_eq!(claimed.description(), format!("x-holdfast:admitted;e=1;s={:032x};k=0", 7));
    assert_eq!(claimed.write(0, &[2; 512]).expect("it serves").error, 0);
    assert_eq!(plain.read(0, 512).expect("it serves").data, [2; 512]);
}

#[test]
fn unfenced_writers_are_let_in_when_told() {
    let dir = TestDir::new();
    let gate = start(&dir, "gate", "memory:,size=16MiB", &["--allow-unfenced"]);
    let mut plain = Client::open(&gate.endpoint, "vol0").expect("it serves");
    assert_eq!(plain.write(0, &[1; 512]).expect("it serves").error, 0);
}

#[test]
fn without_the_key_nothing_is_raised_killed_or_opened() {
    let dir = TestDir::new();
    let image = dir.image("image", SIZE);
    let key = key_file(&dir, "key", KEY);
    let gate = start(&dir, "gate", &image, &["--key", &key]);
    let mut owner = open(&gate, &Claim::new(3, 1).signed(KEY));
    for stranger in [Claim::new(4, 2), Claim::new(4, 2).signed(OTHER_KEY)] {
        for claim in [
            stranger.clone(),
            stranger.clone().killing(1),
            stranger.clone().fencing("m1", 9),
            Claim { epoch: 3, ..stranger.clone() },
        ] {
            let text = claim.refusal(&gate.endpoint);
            assert!(text.contains("key"), "{text}");
        }
    }
    // What was said on one connection opens nothing on another.
    let (mut first, told) = Client::greet_gate(&gate.endpoint, "vol0").expect("a gate");
    let overheard = Claim::new(4, 2).killing(1).signed(KEY).name(&told);
    let (mut second, _) = Client::greet_gate(&gate.endpoint, "vol0").expect("a gate");
    match second.go(&overheard) {
        Err(ClientError::Refused(reply::ERR_POLICY, text)) => {
            assert!(text.contains("MAC is wrong"), "{text}");
        }
        other => panic!("a replayed claim was taken: {other:?}"),
    }
    // The signature covers every field.
    for (from, to) in [("e=4", "e=5"), ("m=m1", "m=m2"), ("kill=0000", "kill=1000")] {
        let forged = overheard.replace(from, to);
        assert_ne!(forged, overheard);
        match first.go(&forged) {
            Err(ClientError::Refused(reply::ERR_POLICY, text)) => {
                assert!(text.contains("MAC is wrong"), "{text}");
            }
            other => panic!("{forged} was taken: {other:?}"),
        }
    }
    // The volume is as usable as before.
    assert_eq!(identity(&gate).field("e"), "3");
    assert_eq!(owner.write(0, &[1; 512]).expect("it serves").error, 0);
    first.go(&overheard).expect("right on its own connection");
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    let dir = TestDir::new();
    let key = dir.write("key", "00".repeat(32));
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).expect("chmod");
    let output =
        cli_status(&["gate", "--export", "v=memory:,size=1MiB", "--key", key.to_str().expect("UTF-8")]);
    assert!(output.status == 78 && output.stderr.contains("chmod 600"), "{output:?}");
}

#[test]
fn epochs_members_and_floors_are_kept() {
    let dir = TestDir::new();
    let image = dir.image("image", SIZE);
    let mut gate = start(&dir, "gate", &image, &[]);
    let _first = open(&gate, &Claim::new(5, 1));
    let text = Claim::new(4, 2).refusal(&gate.endpoint);
    assert!(text.contains("m1 holds epoch 5") && text.contains("reset-epoch"), "{text}");
    let text = Claim::new(5, 2).by("m2").refusal(&gate.endpoint);
    assert!(text.contains("m1 holds epoch 5"), "{text}");
    let text = Claim::new(5 + (1 << 20) + 1, 2).refusal(&gate.endpoint);
    assert!(text.contains("too far above"), "{text}");
    let text = Claim::new(5, 1).refusal(&gate.endpoint);
    assert!(text.contains("was here before"), "{text}");
    let text = Claim::new(6, 3).by("m2").killing(1).refusal(&gate.endpoint);
    assert!(text.contains("another member"), "{text}");
    open(&gate, &Claim::new(6, 3).by("m2").fencing("m1", 8));
    let text = Claim::new(7, 4).refusal(&gate.endpoint);
    assert!(text.contains("below its floor 8"), "{text}");
    // All of that is on disk.
    gate.process.kill();
    gone(&gate.endpoint);
    gate = start_on(&dir, "again", &gate.endpoint, &image, &[]);
    assert!(Claim::new(7, 4).refusal(&gate.endpoint).contains("below its floor 8"));
    assert!(Claim::new(6, 4).by("m3").refusal(&gate.endpoint).contains("m2 holds epoch 6"));
    open(&gate, &Claim::new(8, 5));
    // The operator's way out, not while a gate runs.
    let export = format!("vol0={image}");
    let reset = ["gate", "reset-epoch", "--export", &export];
    let output = cli_status(&reset);
    assert!(output.status == 1 && output.stderr.contains("is running"), "{output:?}");
    gate.process.signal(Signal::SIGTERM);
    assert_eq!(gate.process.wait_within(Duration::from_secs(15)), Exit::Code(0));
    assert_eq!(cli_status(&reset).status, 0);
    gate = start_on(&dir, "reset", &gate.endpoint, &image, &[]);
    open(&gate, &Claim::new(1, 6).by("m3"));
}

#[test]
fn malformed_claims_are_refused_and_harm_nothing() {
    let dir = TestDir::new();
    let gate = start(&dir, "gate", "memory:,size=16MiB", &[]);
    let session = format!("{:032x}", 1);
    let long = "m".repeat(65);
    for claim in [
        "vol0;e=0;m=m1;s=S".to_owned(),
        "vol0;e=1;m=m1".to_owned(),
        "vol0;e=1;s=S;m=m1".to_owned(),
        "vol0;e=18446744073709551616;m=m1;s=S".to_owned(),
        format!("vol0;e=1;m={long};s=S"),
        "vol0;e=1;m=m1;s=S;kill=S".to_owned(),
        "vol0;e=1;m=m1;s=S;x=1".to_owned(),
        "vol0;e=1;m=m1;s=S;mac=00".to_owned(),
    ] {
        let name = claim.replace('S', &session);
        match Client::open(&gate.endpoint, &name) {
            Err(ClientError::Refused(reply::ERR_POLICY, text)) => {
                assert!(text.contains("malformed claim"), "{name}: {text}");
            }
            other => panic!("{name} was taken: {other:?}"),
        }
    }
    for unknown in ["vol1;e=1;m=m1;s=S", "vol0;m=m1"] {
        let refused = Client::open(&gate.endpoint, &unknown.replace('S', &session));
        assert!(matches!(refused, Err(ClientError::Refused(reply::ERR_UNKNOWN, _))), "{refused:?}");
    }
    open(&gate, &Claim::new(1, 1));
}

#[test]
fn a_higher_epoch_and_a_kill_end_the_sessions_they_mean() {
    let dir = TestDir::new();
    let gate = start(&dir, "gate", "memory:,size=16MiB", &[]);
    let (mut one, mut two) = (open(&gate, &Claim::new(1, 1)), open(&gate, &Claim::new(1, 2)));
    let mut three = open(&gate, &Claim::new(1, 3).killing(1));
    assert!(three.description().ends_with(";k=1"), "{}", three.description());
    one.await_eof().expect("killed");
    for alive in [&mut two, &mut three] {
        assert_eq!(alive.write(0, &[1; 512]).expect("it serves").error, 0);
    }
    // A session nobody knows is as finished as one can be.
    assert!(open(&gate, &Claim::new(1, 4).killing(99)).description().ends_with(";k=1"));
    let mut next = open(&gate, &Claim::new(2, 5).by("m2"));
    two.await_eof().expect("overtaken");
    three.await_eof().expect("overtaken");
    assert_eq!(next.write(0, &[2; 512]).expect("it serves").error, 0);
}

/// The kill is answered only when what the session had in execution is over: then its write is there.
#[test]
fn a_kill_waits_for_what_is_in_execution() {
    let (dir, image, _server, gate) = slow_storage("2", &["--drain-max", "8"]);
    let mut old = open(&gate, &Claim::new(1, 1));
    old.submit_write(0, &[0xaa; 512]).expect("sent");
    old.submit_write(4096, &[0xab; 512]).expect("sent");
    // Both are with the storage server, which takes its time.
    wait::until_true("the storage has the write", || server_has(&dir, "Write"));
    let began = Instant::now();
    let mut new = open(&gate, &Claim::new(1, 2).killing(1));
    assert_eq!((block(&image, 0), block(&image, 4096)), (vec![0xaa; 512], vec![0xab; 512]));
    assert!(began.elapsed() > Duration::from_millis(500), "nothing was in execution");
    old.await_eof().expect("killed");
    assert_eq!(new.read(0, 512).expect("it serves").data, [0xaa; 512]);
}

/// `drain_max`: refused, never granted early; whoever comes later waits as well.
#[test]
fn a_claim_that_cannot_be_safe_is_refused() {
    let (dir, image, _server, gate) = slow_storage("6", &["--drain-max", "1"]);
    let mut old = open(&gate, &Claim::new(1, 1));
    old.submit_write(0, &[0xaa; 512]).expect("sent");
    wait::until_true("the storage has the write", || server_has(&dir, "Write"));
    let text = Claim::new(2, 2).refusal(&gate.endpoint);
    assert!(text.contains("still have requests in execution"), "{text}");
    assert_eq!(identity(&gate).field("e"), "2", "what was raised stays");
    assert!(Claim::new(1, 3).refusal(&gate.endpoint).contains("holds epoch 2"));
    let text = Claim::new(2, 4).refusal(&gate.endpoint);
    assert!(text.contains("still have requests in execution"), "the same epoch is no way past: {text}");
    assert_eq!(block(&image, 0), [0; 512]);
    let admitted = wait::until("the write is over", || Claim::new(2, 5).open(&gate.endpoint).ok());
    assert_eq!(block(&image, 0), [0xaa; 512], "admitted before it was over");
    drop(admitted);
}

fn slow_storage(seconds: &str, more: &[&str]) -> (TestDir, String, Server, Gate) {
    let dir = TestDir::new();
    let image = dir.image("image", SIZE);
    let socket = Endpoint::unix(dir.join("storage.sock"));
    let log = dir.text("storage.log");
    let server = Nbdkit::file(&image)
        .filter("log", &[&format!("logfile={log}")])
        .filter("delay", &[&format!("wdelay={seconds}")])
        .threads(4)
        .start(&dir, "nbdkit", &socket);
    let state = dir.text("state");
    let gate = start(&dir, "gate", &socket.uri(""), &[&["--state-dir", &state], more].concat());
    (dir, image, server, gate)
}

fn server_has(dir: &TestDir, word: &str) -> bool {
    std::fs::read_to_string(dir.join("storage.log")).is_ok_and(|log| log.contains(word))
}

/// One gate process is stopped with a write in its socket; another one, of the same file, ends its session.
#[test]
fn a_stopped_gate_executes_nothing_of_a_session_that_was_ended_elsewhere() {
    for (epoch, kill) in [(1, Some(1)), (2, None)] {
        let (image, a, b) = ghost(epoch, kill);
        assert_eq!(image, b, "epoch {epoch}, kill {kill:?}: the older write landed over the newer");
        assert_ne!(a, b);
    }
}

/// The same without a fence: the ghost lands, so the test above tests something.
#[test]
fn without_a_kill_the_ghost_lands() {
    let (image, a, _) = ghost(1, None);
    assert_eq!(image, a);
}

/// A is written through a gate that is stopped, B through another one; then the first goes on.
fn ghost(epoch: u64, kill: Option<u128>) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    let dir = TestDir::new();
    let image = dir.image("image", SIZE);
    let (first, second) = (start(&dir, "first", &image, &[]), start(&dir, "second", &image, &[]));
    let (a, b) = (vec![0xaa; 512], vec![0xbb; 512]);
    let mut old = open(&first, &Claim::new(1, 1));
    assert_eq!(old.write(4096, &a).expect("it serves").error, 0);
    first.process.stop();
    old.submit_write(0, &a).expect("the kernel takes it");
    let began = Instant::now();
    let mut new = open(&second, &Claim { kill, ..Claim::new(epoch, 2) });
    assert!(began.elapsed() < Duration::from_secs(3), "nothing was in execution");
    assert_eq!(new.write(0, &b).expect("it serves").error, 0);
    assert_eq!(new.flush().expect("it serves").error, 0);
    first.process.go_on();
    if kill.is_some() || epoch > 1 {
        old.await_eof().expect("its session is ended");
    } else {
        assert_eq!(old.reply(|_| 0).expect("it serves").error, 0);
    }
    (block(&image, 0), a, b)
}

/// Killed at any moment, a gate never lets an epoch in that is below one it has admitted.
#[test]
fn the_register_survives_kill_at_any_time() {
    let dir = TestDir::new();
    let image = dir.image("image", SIZE);
    let endpoint = Endpoint::tcp(loopback(), 10809);
    let (mut epoch, mut admitted, mut session) = (0, 0, 0);
    for round in 0..6_u64 {
        let mut gate = start_on(&dir, &format!("gate-{round}"), &endpoint, &image, &[]);
        if admitted > 1 {
            assert!(Claim::new(admitted - 1, 1 << 64).refusal(&gate.endpoint).contains("is over"));
        }
        // What the kernel scheduled differently each time decides where in a raise it dies.
        let until = Instant::now() + Duration::from_millis(40 + 17 * round);
        let killer = std::thread::spawn({
            let id = gate.process.id();
            move || {
                wait::pass(until.saturating_duration_since(Instant::now()));
                let pid = nix::unistd::Pid::from_raw(i32::try_from(id).expect("a PID"));
                nix::sys::signal::kill(pid, Signal::SIGKILL).expect("our own child");
            }
        });
        loop {
            (epoch, session) = (epoch + 1, session + 1);
            match Claim::new(epoch, session).open(&endpoint) {
                Ok(_) => admitted = epoch,
                Err(ClientError::Refused(kind, text)) => panic!("epoch {epoch}: {kind:x} {text}"),
                Err(_) => break,
            }
        }
        killer.join().expect("it kills");
        assert_eq!(gate.process.wait_within(Duration::from_secs(15)), Exit::Signal(9));
        gone(&endpoint);
    }
    assert!(admitted > 6, "{admitted} epochs were admitted");
}

/// A device over two addresses of one gate, with the key, under load with verification.
#[test]
fn a_node_claims_and_serves_over_two_addresses() {
    let dir = TestDir::new();
    let image = dir.patterned_image("image", 64 << 20, 5);
    let key = key_file(&dir, "key", KEY);
    let (one, two) = (Endpoint::tcp(loopback(), 10809), Endpoint::tcp(loopback(), 10809));
    let Endpoint::Tcp(second) = &two else { panic!("TCP") };
    let gate = start_on(&dir, "gate", &one, &image, &["--listen", &second.to_string(), "--key", &key]);
    two.await_listening();
    let device = Device::new("vol0").path("a", &one.uri("vol0")).path("b", &two.uri("vol0"));
    let config =
        Config::new(&dir).node(&format!("gate_key = \"{key}\"")).node("name = \"m1\"").device(device);
    let mut node = Node::start(&dir, &config);
    node.await_state("vol0", "a", "up");
    node.await_state("vol0", "b", "up");
    Fio::options(&node.uri("vol0")).arg("--time_based=0").run(&dir, "fio").assert_clean();
    assert_eq!(identity(&gate).field("e"), "1");
    assert_eq!(identity(&gate).field("h"), "m1");
    // A restart is a new epoch, and ends what the old process had.
    node.process().kill();
    gone(node.host());
    let mut node = Node::start(&dir, &config);
    node.await_state("vol0", "a", "up");
    assert_eq!(identity(&gate).field("e"), "2");
    // Somebody else takes over: this node's paths are refused, with the reason.
    open(&gate, &Claim::new(3, 77).by("m2").signed(KEY));
    let path = node
        .await_path("vol0", "a", "told who holds the epoch", |path| path.reason.contains("m2 holds epoch 3"));
    assert!(!path.is_up());
    assert_eq!(node.terminate(Duration::from_secs(20)), Exit::Code(0));
}

/// A node and a gate that do not have the same key do not work together, and say so.
#[test]
fn a_wrong_or_missing_key_is_told() {
    let dir = TestDir::new();
    let image = dir.patterned_image("image", SIZE, 5);
    let (key, other) = (key_file(&dir, "key", KEY), key_file(&dir, "other", OTHER_KEY));
    let locked = start(&dir, "locked", &image, &["--key", &key]);
    let bare = start(&dir, "bare", "memory:,size=16MiB", &[]);
    let device = Device::new("vol0").path("a", &locked.endpoint.uri("vol0"));
    let bare_device = Device::new("vol1").path("a", &bare.endpoint.uri("vol0"));
    for (line, device, name, words) in [
        (format!("gate_key = \"{other}\""), device.clone(), "vol0", "MAC is wrong"),
        (String::new(), device, "vol0", "set `gate_key`"),
        (format!("gate_key = \"{key}\""), bare_device, "vol1", "start the gate with --key"),
    ] {
        let dir = TestDir::new();
        let node = Node::start(&dir, &Config::new(&dir).node(&line).device(device));
        node.await_path(name, "a", words, |path| path.reason.contains(words));
    }
}
