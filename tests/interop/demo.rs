// SPDX-License-Identifier: MIT OR Apache-2.0
//! The first two minutes of a new user: `holdfast serve`, and what it says to try next.
//!
//! The demo has fixed addresses, so it gets a network namespace of its own.

use tests_support::holdfast::command;
use tests_support::{Command, Json, Namespace, TestDir, wait};

struct Demo {
    _process: tests_support::Process,
    namespace: Namespace,
    dir: TestDir,
    told: String,
}

fn demo() -> Demo {
    let dir = TestDir::new();
    let namespace = Namespace::new();
    // Where the demo keeps its sockets, and where commands look for them.
    let serve = command(&["serve"]).within(&namespace).env("XDG_RUNTIME_DIR", &dir.text(""));
    let mut process = serve.spawn(&dir, "holdfast");
    let demo_listens = || inside(&namespace, "nbdinfo", &["--size", "nbd://127.0.0.1:10809/vol0"]).is_ok();
    wait::until("the demo to serve", || {
        process.assert_running();
        (demo_listens() && process.log().contains("Ctrl-C")).then_some(())
    });
    let told = process.log();
    Demo { _process: process, namespace, dir, told }
}

/// Runs a client inside; its output, or what went wrong.
fn inside(namespace: &Namespace, program: &str, arguments: &[&str]) -> Result<String, String> {
    let limited = Command::new("timeout").args(["-k", "2", "60", program]);
    let output = limited.args(arguments.iter().copied()).within(namespace).output();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(format!("{program} {arguments:?}: {}{}", text(&output.stdout), text(&output.stderr)))
    }
}

#[test]
fn the_commands_that_it_suggests_work() {
    let demo = demo();
    let (_, suggestions) = demo.told.split_once("Try in another terminal").expect("it makes suggestions");
    let suggested: Vec<&str> = suggestions.lines().filter(|line| line.starts_with("  ")).collect();
    assert_eq!(suggested.len(), 3, "it suggests {suggested:?}");
    for line in suggested {
        let line = format!("XDG_RUNTIME_DIR={} {}", demo.dir.text(""), line.trim());
        inside(&demo.namespace, "bash", &["-c", &line]).unwrap_or_else(|e| panic!("suggested: {e}"));
    }
}

#[test]
fn real_clients_work_against_it() {
    let demo = demo();
    let uri = "nbd://127.0.0.1:10809/vol0";
    let run = |program: &str, arguments: &[&str]| {
        inside(&demo.namespace, program, arguments).unwrap_or_else(|e| panic!("{e}"))
    };
    let info = Json::parse("nbdinfo", &run("nbdinfo", &["--json", uri]));
    let size = info.get("exports").items()[0].get("export-size").number();
    let listed = run("nbdinfo", &["--list", "nbd://127.0.0.1:10809/"]);
    assert!(listed.contains("vol0"), "{listed}");
    let exports = listed.matches("export=").count();
    assert_eq!(exports, 1, "the embedded storage is in sight: {listed}");

    let image = demo.dir.patterned_image("image", size.min(8 << 20), 3);
    run("nbdcopy", &["--flush", &image, uri]);
    let back = demo.dir.text("back");
    run("qemu-img", &["convert", "-f", "raw", "-O", "raw", uri, &back]);
    run("qemu-img", &["compare", "-f", "raw", "-F", "raw", uri, &back]);
    run("qemu-io", &["-f", "raw", "-c", "write -P 7 0 64k", "-c", "read -P 7 0 64k", uri]);
    let fio = [
        "--name=v",
        "--ioengine=nbd",
        "--uri=nbd://127.0.0.1:10809/vol0",
        "--rw=randwrite",
        "--bs=4k",
        "--iodepth=16",
        "--size=4m",
        "--verify=crc32c",
        "--verify_fatal=1",
        "--verify_state_save=0",
    ];
    run("fio", &fio);
    let status = run("curl", &["-sf", "http://127.0.0.1:10880/v1/status"]);
    let devices = Json::parse("status", &status).get("devices").items();
    let device = devices.iter().find(|d| d.get("name").text() == "vol0").expect("vol0 is there").clone();
    let paths = device.get("paths").items();
    assert_eq!(paths.len(), 2, "{device}");
    for path in paths {
        assert_eq!(path.get("state").text(), "up", "{path}");
    }
    let metrics = run("curl", &["-sf", "http://127.0.0.1:10880/metrics"]);
    assert!(metrics.contains("# TYPE holdfast_"), "{metrics}");
}
